"""Recoveries through the service: whole, partial, dry; faults; after a crash in the middle."""

from __future__ import annotations

import os
import time

import pytest

import ckptlog
from ckptlog import create_checkpoint_system
from ckptlog.errors import (
    ArgumentError,
    CaptureTooLargeError,
    CheckpointError,
    CheckpointNotFoundError,
    CheckpointStorageError,
    RecoveryUnfinishedError,
    ServiceStateError,
)
from ckptlog.manager.unfinished import RESTORING, Unfinished
from ckptlog.recovery.journal import Journal
from tests.service.system import settings, until


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
        settings(path, intervalSeconds=3600), {"agentManager": agents, "memory_manager": memory}
    )
    return service, agents, memory


def test_whole_partial_and_dry(tmp_path):
    service, agents, memory = system(tmp_path / "s")
    done, plans, pictures = [], [], []
    with service:
        service.on("recoveryCompleted", done.append)
        service.on("recoveryPlanned", plans.append)
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
        until(lambda: len(done) == 2, "being told")
        assert plans == [plan]
        assert plan.dry_run
        assert not progress.dry_run
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


def interrupt(manager, capture, safety, lease=None):
    """Leave in the log what a recovery leaves that was killed while it restored the agents."""
    journal = Journal(manager, "system", lease)
    journal.started(Unfinished("r1", 0, capture.id, safety.id, ("agents",)))
    journal.step("r1", "agents", RESTORING)


def blind():
    raise CheckpointStorageError("too many open files")


def kinds(path):
    with ckptlog.open(path) as store:
        return [entry.event.type for entry in store.events()]


def test_a_recovery_that_was_interrupted_long_ago_is_finished_at_the_start(tmp_path):
    service, agents, _ = system(tmp_path / "s")
    with service:
        first = service.create_checkpoint()
        agents.value = 2
        safety = service.create_checkpoint()
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        interrupt(manager, first, safety)
        for _ in range(11):  # more than a tally looks back
            with manager.batch() as batch:
                for step in range(1, 1001):
                    batch.create_checkpoint("other", "Other", step)
    service, agents, _ = system(tmp_path / "s")
    agents.value = 3
    with service:
        assert agents.value == 1
    found = kinds(tmp_path / "s")
    assert found.count("recovery.completed") == 1
    assert found.index("recovery.completed") < len(found) - 1 - found[::-1].index("service.started")


@pytest.mark.parametrize("is_blind", [False, True])
def test_a_standby_finishes_what_its_former_owner_began(tmp_path, monkeypatch, is_blind):
    """Also where its look at earlier captures fails."""
    service, agents, _ = system(tmp_path / "s")
    with service:
        first = service.create_checkpoint()
        agents.value = 2
        safety = service.create_checkpoint()
    agents = Manager(3)
    heir = create_checkpoint_system(
        settings(tmp_path / "s", standby=True, leaseSeconds=1),
        {"agentManager": agents, "memory_manager": Manager("a")},
    )
    gained = []
    heir.on("ownershipGained", gained.append)
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        owned = manager.acquire_lease("system", ttl_s=600)
        with heir:
            assert heir.state == "standby"
            if is_blind:
                monkeypatch.setattr(heir._engine, "renew_view", blind)
            # What the owner does now, the standby did not see when it was opened.
            interrupt(manager, first, safety, owned)
            manager.release_lease("system", force=True)
            until(lambda: heir.state == "running", "becoming the owner")
            until(lambda: agents.value == 1, "finishing the recovery")
            until(lambda: len(heir.list_checkpoints()) > 2, "the first capture")
            until(lambda: gained, "being told")
        assert not owned.is_valid


def test_a_standby_that_cannot_finish_it_captures_nothing(tmp_path):
    service, agents, _ = system(tmp_path / "s")
    with service:
        first = service.create_checkpoint()
        agents.value = 2
        safety = service.create_checkpoint()
    agents = Manager(3)
    agents.fault = ValueError("no")
    heir = create_checkpoint_system(
        settings(tmp_path / "s", standby=True, leaseSeconds=1),
        {"agentManager": agents, "memory_manager": Manager("a")},
    )
    failed = []
    heir.on("recoveryFailed", failed.append)
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        lease = manager.acquire_lease("system", ttl_s=600)
        with heir:
            before = {one.id for one in heir.list_checkpoints()}
            interrupt(manager, first, safety, lease)
            lease.release()
            until(lambda: failed, "failing")
            assert failed[0].kind == "recovery"
            assert [one.name for one in heir.alerts] == ["recovery_incomplete"]
            agents.fault = None
            more = [one.reason for one in heir.list_checkpoints() if one.id not in before]
            assert more == ["safety"]  # what was there before it tried


def test_what_grew_over_the_limit_is_told_and_recovered_all_the_same(tmp_path):
    agents, memory = Manager(1), Manager("a")
    service = create_checkpoint_system(
        settings(tmp_path / "s", intervalSeconds=3600, maxCaptureSizeBytes=200),
        {"agentManager": agents, "memory_manager": memory},
    )
    failed = []
    with service:
        service.on("operationFailed", failed.append)
        first = service.create_checkpoint()
        memory.value = "x" * 1000
        with pytest.raises(CaptureTooLargeError, match="'memory'"):
            service.create_checkpoint()
        until(lambda: failed, "being told")
        assert (failed[0].kind, failed[0].component) == ("capture", "memory")
        # Its safety capture has no limit.
        assert service.recover_from_checkpoint(first.id).status == "completed"
        assert memory.value == "a"


def test_damage_is_listed_once_and_sentences_end_once(tmp_path):
    state = {"x": [os.urandom(50).hex() for _ in range(20_000)]}
    config = settings(tmp_path / "s", intervalSeconds=600)
    with create_checkpoint_system(config, {"memory": state, "agents": {"q": 1}}) as service:
        info = service.create_checkpoint()
    (pack,) = (tmp_path / "s" / "packs").iterdir()
    raw = bytearray(pack.read_bytes())
    raw[len(raw) // 2] ^= 255
    pack.write_bytes(raw)
    service = create_checkpoint_system(config, {"memory": {"x": [1]}, "agents": {"q": 1}})
    service.initialize()
    try:
        errors = service.recover_from_checkpoint(info.id, dry_run=True).errors
        assert len(errors) == len(set(errors)) == 1
    finally:
        service.close()


def test_a_failure_is_one_sentence_after_the_other(tmp_path):
    service, agents, _ = system(tmp_path / "s")
    with service:
        first = service.create_checkpoint()
        agents.value = 2
        agents.fault = PermissionError(1, "not permitted.")
        with pytest.raises(CheckpointError) as caught:
            service.recover_from_checkpoint(first.id)
        assert ".." not in caught.value.message


def test_what_a_recovery_saves_first_is_told_as_a_capture_once(tmp_path):
    service, agents, _ = system(tmp_path / "s")
    created, names = [], []
    with service:
        until(service.list_checkpoints, "the first capture, which comes by itself")
        first = service.create_checkpoint("first")
        service.on("checkpointCreated", created.append)
        service.on("recoveryStarted", lambda _: names.append("started"))
        service.on("checkpointCreated", lambda _: names.append("created"))
        service.on("recoveryCompleted", lambda _: names.append("completed"))
        agents.value = 2
        progress = service.recover_from_checkpoint(first.id)
        service.recover_from_checkpoint(first.id, dry_run=True)
        service.recover_from_checkpoint(first.id, safety=False)
        until(lambda: names.count("completed") == 2, "being told")
        assert [(one.id, one.reason) for one in created] == [(progress.safety_id, "safety")]
        assert names == ["started", "created", "completed", "started", "started", "completed"]


def test_a_capture_is_got_by_its_id_and_deleted_by_it(tmp_path):
    service, agents, _ = system(tmp_path / "s")
    gone = []
    with service:
        service.on("checkpointsDeleted", gone.append)
        first = service.create_checkpoint("first")
        agents.value = 2
        second = service.create_checkpoint("second", tags=["keep"])
        assert service.get_checkpoint(first.id) == first
        service.delete_checkpoint(second.id)
        left = [one.id for one in service.list_checkpoints()]
        assert first.id in left
        assert second.id not in left
        until(lambda: gone == [[second.id]], "being told")
        manager = service._engine.manager
        foreign = manager.create_checkpoint("another", "title", 1, "step")
        for wrong in (second.id, foreign, "cp_none"):
            with pytest.raises(CheckpointNotFoundError):
                service.get_checkpoint(wrong)
            with pytest.raises(CheckpointNotFoundError):
                service.delete_checkpoint(wrong)
        with pytest.raises(ArgumentError):
            service.get_checkpoint(None)
        with pytest.raises(ArgumentError):
            service.delete_checkpoint(None)
        assert manager.get_checkpoint(foreign) is not None
        assert service.get_metrics().total_checkpoints == len(left)
        assert service.get_metrics().refused == 4
    with pytest.raises(ServiceStateError):
        service.delete_checkpoint(first.id)


def test_what_an_unfinished_recovery_needs_is_not_deleted(tmp_path):
    service, _, _ = system(tmp_path / "s")
    service.initialize()
    first = service.create_checkpoint("first")
    safety = service.create_checkpoint("safety")
    other = service.create_checkpoint("other")
    Journal(service._engine.manager, "system").started(
        Unfinished("r1", -1, first.id, safety.id, None)
    )
    for needed in (first, safety):
        with pytest.raises(RecoveryUnfinishedError, match="needs"):
            service.delete_checkpoint(needed.id)
    service.delete_checkpoint(other.id)
    assert {one.id for one in service.list_checkpoints()} == {first.id, safety.id}
    service.close()


def test_who_does_not_own_the_system_deletes_nothing(tmp_path):
    service, _, _ = system(tmp_path / "s")
    with service:
        info = service.create_checkpoint("first")
        with ckptlog.open(tmp_path / "s") as store:
            other = create_checkpoint_system({}, {"agents": Manager(1)}, store=store)
            other.initialize()
            with pytest.raises(CheckpointError) as refused:
                other.delete_checkpoint(info.id)
            assert refused.value.code == "lease.required"
            other.close()
        assert service.get_checkpoint(info.id).id == info.id


def test_a_component_that_lies_elsewhere_now_is_told(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)

    def service(name):
        part = ckptlog.DirectoryComponent("work", str(tmp_path / name))
        return create_checkpoint_system(settings(tmp_path / "s", intervalSeconds=3600), [part])

    with service("a") as there:
        first = there.create_checkpoint()
        assert there.recover_from_checkpoint(dry_run=True).warnings == ()
    with service("b") as here:
        plan = here.recover_from_checkpoint(first.id, dry_run=True)
        assert plan.errors == ()
        assert str(tmp_path / "a") in plan.warnings[0]
        assert str(tmp_path / "b") in plan.warnings[0]
        assert plan.to_dict()["warnings"] == list(plan.warnings)
        assert os.listdir(tmp_path / "b") == ["b"]
        done = here.recover_from_checkpoint(first.id)
        assert done.warnings == plan.warnings
        assert os.listdir(tmp_path / "b") == ["a"]
        here.recover_from_checkpoint(done.safety_id)
        assert os.listdir(tmp_path / "b") == ["b"]


@pytest.mark.parametrize("fault", [None, ValueError("no")])
def test_safety_captures_do_not_pile_up(tmp_path, fault):
    agents = Manager(1)
    more = {"intervalSeconds": 60, "maxCheckpoints": 2}
    service = create_checkpoint_system(settings(tmp_path / "s", **more), {"agents": agents})
    with service:
        first = service.create_checkpoint()
        service.create_checkpoint()
        real = agents.set_state
        for number in range(6):
            agents.value = 100 + number

            def once(state):
                agents.set_state = real
                raise fault

            if fault is not None:
                agents.set_state = once
            try:
                assert service.recover_from_checkpoint(first.id).status == "completed"
            except CheckpointError:
                assert fault is not None
            kinds = [one.reason for one in service.list_checkpoints()]
            assert kinds.count("safety") == min(number + 1, 3)
        service.recover_from_checkpoint(first.id, dry_run=True)
        newest = next(one for one in service.list_checkpoints() if one.reason == "safety")
        agents.set_state = real
        service.recover_from_checkpoint(newest.id)
        assert agents.value == 105
