"""Recoveries through the service: whole, partial, dry; faults; after a crash in the middle."""

from __future__ import annotations

import time

import pytest

from ckptlog import create_checkpoint_system
from ckptlog.errors import CheckpointError
from tests.service.system import settings, until

pytest.importorskip("ckptlog.recovery.recovery")


class Manager:
    def __init__(self, value):
        self.value = value
        self.fault = None

    def get_state(self):
        return {"value": self.value}

    def set_state(self, state):
        if self.fault is not None:
            raise self.fault
        self.value = state["value"]


def system(path):
    agents, memory = Manager(1), Manager("a")
    service = create_checkpoint_system(
        settings(path, intervalSeconds=60), {"agentManager": agents, "memory_manager": memory}
    )
    return service, agents, memory


def test_whole_partial_and_dry(tmp_path):
    service, agents, memory = system(tmp_path / "s")
    done, pictures = [], []
    with service:
        service.on("recoveryCompleted", done.append)
        service.on("recoveryProgress", pictures.append)
        first = service.create_checkpoint("first")
        agents.value, memory.value = 2, "b"
        plan = service.recover_from_checkpoint(first.id, dry_run=True)
        assert plan.errors == ()
        assert (agents.value, memory.value) == (2, "b")
        progress = service.recover_from_checkpoint(first.id, ["agents"], partial=True)
        assert progress.status == "completed"
        assert (agents.value, memory.value) == (1, "b")
        agents.value = 3
        progress = service.recover_from_checkpoint(first.id)
        assert (agents.value, memory.value) == (1, "a")
        until(lambda: len(done) == 3, "being told")
        assert pictures[-1].status == "completed"
        metrics = service.get_metrics()
        assert metrics.average_recovery_time > 0
        assert service.current_operation is None


def test_a_dry_run_tells_errors_and_does_not_raise(tmp_path):
    service, *_ = system(tmp_path / "s")
    with service:
        service.create_checkpoint()
        assert service.recover_from_checkpoint("cp_none", dry_run=True).errors


def test_a_failed_recovery_is_rolled_back_and_told(tmp_path):
    service, agents, memory = system(tmp_path / "s")
    failed = []
    with service:
        service.on("operationFailed", failed.append)
        first = service.create_checkpoint()
        agents.value, memory.value = 2, "b"
        real = memory.set_state
        calls = []

        def once(state):
            calls.append(state)
            if state["value"] == "a":
                raise RuntimeError("no")
            real(state)

        memory.set_state = once
        service.components[1]._restore = once
        with pytest.raises(CheckpointError):
            service.recover_from_checkpoint(first.id)
        assert (agents.value, memory.value) == (2, "b")
        until(lambda: failed, "being told")
        assert failed[0].kind == "recovery"
        assert service.create_checkpoint().number > first.number


def test_nothing_is_captured_while_a_recovery_restores(tmp_path):
    class Slow(Manager):
        is_restoring = False
        seen = 0

        def get_state(self):
            self.seen += self.is_restoring
            return {"value": time.monotonic()}

        def set_state(self, state):
            self.is_restoring = True
            time.sleep(0.4)
            self.is_restoring = False

    target = Slow(1)
    config = settings(tmp_path / "s", intervalSeconds=0.05)
    with create_checkpoint_system(config, {"agents": target}) as service:
        first = service.create_checkpoint("", ["keep"])
        service.recover_from_checkpoint(first.id, verify=False)
        assert target.seen == 0
        last = service.list_checkpoints(1)[0].number
        until(lambda: service.list_checkpoints(1)[0].number > last, "captures afterwards")
