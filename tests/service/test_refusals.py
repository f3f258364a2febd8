"""Calls that cannot be met, and what a recovery tells of its end, whatever happens."""

from __future__ import annotations

import threading
import time
from datetime import datetime

import pytest

from ckptlog import create_checkpoint_system
from ckptlog.errors import (
    ArgumentError,
    CheckpointError,
    CheckpointNotFoundError,
    RecoveryCancelledError,
    RecoveryIncompleteError,
    ServiceBusyError,
)
from tests.service.system import settings, until

ENDS = {"recoveryCompleted", "recoveryPlanned", "recoveryRolledBack", "recoveryFailed"}


class Manager:
    def __init__(self, value):
        self.value = value
        self.hangs = threading.Event()
        self.hangs.set()
        self.pause_s = 0.0

    def get_state(self):
        return {"value": self.value}

    def set_state(self, state):
        self.hangs.wait(60)
        time.sleep(self.pause_s)
        self.value = state["value"]


@pytest.fixture
def served(tmp_path):
    """Return a service, its two managers, and what it tells: (event, what) in order."""
    agents, memory = Manager(1), Manager("a")
    config = settings(tmp_path / "s", intervalSeconds=600, deadlineSeconds=0.5)
    service = create_checkpoint_system(config, {"agentManager": agents, "memoryManager": memory})
    told = []
    for name in (*ENDS, "recoveryStarted", "operationFailed", "alertRaised"):
        service.on(name, lambda what, name=name: told.append((name, what)))
    with service:
        until(service.list_checkpoints, "the first capture")
        yield service, agents, memory, told
        agents.hangs.set()


WRONG = [
    {"checkpoint_id": "nope"},
    {"checkpoint_id": 5},
    {"components": ["nope"]},
    {"components": []},
    {"components": "agents"},
    {"components": 5},
    {"at": datetime(2026, 1, 1)},  # noqa: DTZ001 - what is refused
    {"at": "x"},
    {"at": -1},
    {"at": -1, "dry_run": True},
    {"at": 0, "checkpoint_id": "cp_system_1_1"},
    {"to": 5},
    {"cancel": 5},
    {"cancel": lambda: True},
    {"on_progress": 5},
    {"partial": 1},
    {"dry_run": "yes"},
    {"verify": None},
]


def test_wrong_recoveries_are_refused_and_are_no_failures_of_the_system(served):
    service, *_, told = served
    for count, options in enumerate(WRONG, 1):
        with pytest.raises((ArgumentError, CheckpointNotFoundError)):
            service.recover_from_checkpoint(**options)
        assert service.get_metrics().refused == count, options
    with pytest.raises(TypeError, match="foo"):
        service.recover_from_checkpoint(foo=1)
    metrics = service.get_metrics()
    assert (metrics.error_rate, metrics.alerts) == (0.0, ())
    service.recover_from_checkpoint(dry_run=True)
    until(lambda: len(told) >= 2, "being told")
    assert [name for name, _ in told] == ["recoveryStarted", "recoveryPlanned"]


@pytest.mark.parametrize("options", [
    {"checkpoint_id": ""}, {"checkpoint_id": 5}, {"checkpoint_id": "cp_system_1_1", "at": 0},
])  # fmt: skip
def test_an_error_says_what_the_caller_calls_it(served, options):
    service = served[0]
    with pytest.raises(ArgumentError, match="checkpoint_id"):
        service.recover_from_checkpoint(**options)
    with pytest.raises(ArgumentError, match="checkpoint_id"):
        list(service.iterate_recovery(**options))
    with pytest.raises(ArgumentError, match="checkpoint_id"):
        service.validate_checkpoint("")


def test_a_picture_has_lists_alone(served):
    told = served[0].recover_from_checkpoint(dry_run=True).to_dict()
    assert not [name for name, one in told.items() if isinstance(one, tuple)]
    assert (told["missing"], told["mixed"]) == ([], [])


def test_wrong_captures_are_refused_and_are_no_failures_of_the_system(served):
    service, *_, told = served
    wrong = [("d", "tag"), ("d", b"tag"), ("d", [1]), (5, []), ("d", ["x" * 5000]), ("d", None)]
    for count, arguments in enumerate(wrong, 1):
        with pytest.raises(ArgumentError):
            service.create_checkpoint(*arguments)
        assert service.get_metrics().refused == count, arguments
    with pytest.raises(ArgumentError, match="force is 'yes'"):
        service.create_checkpoint(force="yes")
    assert service.get_metrics().refused == len(wrong) + 1
    assert service.get_metrics().error_rate == 0.0
    service.recover_from_checkpoint(dry_run=True)
    until(lambda: len(told) >= 2, "being told")
    assert "operationFailed" not in [name for name, _ in told]


def test_a_name_that_is_nearly_right(served):
    service, *_ = served
    with pytest.raises(ArgumentError, match="Did you mean 'agents'"):
        service.recover_from_checkpoint(components=["agent"])


def test_an_end_is_told_whatever_was_raised(served, monkeypatch):
    service, *_, told = served
    engine = service._engine

    def boom(*_arguments, **_options):
        raise AttributeError("a fault of ours")

    monkeypatch.setattr("ckptlog.recovery.preflight.Preflight.begin", boom)
    with pytest.raises(AttributeError):
        service.recover_from_checkpoint()
    until(lambda: len(told) >= 3, "being told")
    assert [name for name, _ in told] == ["recoveryStarted", "recoveryFailed", "operationFailed"]
    assert told[1][1].status == "failed"
    assert "a fault of ours" in str(told[1][1].error)
    assert engine.turn.current is None
    monkeypatch.undo()
    assert service.create_checkpoint()


def test_a_cancelled_recovery_is_told_and_is_no_failure(served):
    service, agents, _, told = served
    agents.value = 2
    stop = threading.Event()
    stop.set()
    with pytest.raises(RecoveryCancelledError):
        service.recover_from_checkpoint(cancel=stop)
    until(lambda: len(told) >= 2, "being told")
    assert [name for name, _ in told] == ["recoveryStarted", "recoveryFailed"]
    assert service.get_metrics().error_rate == 0.0


def test_a_dry_run_with_errors_is_not_told_as_completed(tmp_path):
    agents, path = Manager(1), tmp_path / "s"
    with create_checkpoint_system(settings(path), {"agents": agents, "memory": {}}) as service:
        info = service.create_checkpoint()
    told = []
    with create_checkpoint_system(settings(path), {"agents": agents, "queues": {}}) as service:
        service.on("*", told.append)
        service.on("recoveryCompleted", lambda _: told.append("completed"))
        plan = service.recover_from_checkpoint(info.id, dry_run=True)
        until(lambda: plan in told, "being told")
        assert plan.errors
        assert (plan.dry_run, plan.percent, plan.status) == (True, 0.0, "planned")
        assert "completed" not in told


def test_a_restore_that_hangs_is_given_up_and_named(served):
    service, agents, _, told = served
    good = service.create_checkpoint("good")
    agents.value = 2
    agents.hangs.clear()
    threads = []
    seen = []

    def recover():
        with pytest.raises(RecoveryIncompleteError, match="'agents'"):
            service.recover_from_checkpoint(good.id)
        seen.append("given up")

    threads.append(threading.Thread(target=recover))
    threads[0].start()
    until(lambda: (service.current_operation or told) and _is_restoring(service, seen), "it")
    threads[0].join(60)
    assert seen[-1] == "given up"
    # While its thread hangs, nothing is captured, and nothing blocks.
    with pytest.raises(CheckpointError):
        service.create_checkpoint("blocked")
    with pytest.raises(CheckpointError, match="hangs"):
        service.resume_recovery()
    service.stop()
    assert service.state == "stopped"
    agents.hangs.set()
    until(lambda: agents.value == 1, "the thread's end")
    service.start()
    assert service.alerts == []


def _is_restoring(service, seen):
    """Look at what the operation says of itself while it restores."""
    one = service.current_operation
    if one is not None and one.component == "agents" and one.percent == 0.0:
        first = one.seconds
        time.sleep(0.01)
        one = service.current_operation
        if one is not None and one.status == "running":
            assert one.seconds > first
            assert one.checkpoint_id.startswith("cp_system_")
            seen.append("looked")
    return bool(seen)


def test_the_alert_of_a_slow_recovery_names_the_slowest_component(tmp_path):
    agents, memory = Manager(1), Manager("a")
    service = create_checkpoint_system(
        settings(tmp_path / "s", intervalSeconds=600, performance={"maxRecoveryTimeMs": 50}),
        {"agentManager": agents, "memoryManager": memory},
    )
    raised = []
    with service:
        good = service.create_checkpoint()
        agents.value, memory.value = 2, "b"
        memory.pause_s = 0.2
        service.on("alertRaised", raised.append)
        service.recover_from_checkpoint(good.id)
        until(lambda: raised, "the alert")
        assert (raised[0].name, raised[0].detail) == ("recovery_time", "memory")


def test_who_waits_in_vain_is_told_what_is_at_work(served, monkeypatch):
    service, agents, *_ = served
    good = service.create_checkpoint("good")
    agents.value = 2
    agents.hangs.clear()
    monkeypatch.setattr("ckptlog.service.turn.BUSY_S", 0.05)
    monkeypatch.setattr(type(service.config), "restore_s", 60.0)
    thread = threading.Thread(target=service.recover_from_checkpoint, args=(good.id,))
    thread.start()
    until(lambda: service.current_operation is not None, "the recovery")
    with pytest.raises(ServiceBusyError, match=r"a recovery \(manual\) is at work still"):
        service.create_checkpoint()
    agents.hangs.set()
    thread.join(60)
    assert agents.value == 1
    assert service.create_checkpoint()
