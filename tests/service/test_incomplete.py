"""A recovery that came to no end: nothing captures the mixture, and there is a way out."""

from __future__ import annotations

import os
import signal
import time

import pytest

from ckptlog import CheckpointManager, create_checkpoint_system
from ckptlog.errors import RecoveryBusyError, RecoveryIncompleteError, RecoveryUnfinishedError
from ckptlog.manager.unfinished import RESTORING, Unfinished
from ckptlog.recovery.journal import Journal
from ckptlog.service import unfinished
from tests.service.system import settings, until


class Manager:
    """Gives and takes a state; while it is wrong, it takes another one than it is given."""

    def __init__(self, value):
        self.value = value
        self.is_wrong = False

    def get_state(self):
        return {"value": self.value}

    def set_state(self, state):
        self.value = "wrong" if self.is_wrong else state["value"]


def system(path, **more):
    agents, memory = Manager(1), Manager("a")
    config = settings(path, **{"intervalSeconds": 600, **more})
    service = create_checkpoint_system(config, {"agentManager": agents, "memoryManager": memory})
    return service, agents, memory


def break_it(service, agents, memory):
    """Let a recovery come to no end; return the capture that was to be restored."""
    good = service.create_checkpoint("good")
    agents.value, memory.value = 5, "b"
    memory.is_wrong = True
    with pytest.raises(RecoveryIncompleteError) as caught:
        service.recover_from_checkpoint(good.id)
    assert "resume_recovery" in str(caught.value)
    assert "roll_back_recovery" in str(caught.value)
    memory.is_wrong = False
    return good


def test_nothing_captures_the_mixture_unless_it_is_forced(tmp_path):
    service, agents, memory = system(
        tmp_path / "s", captureSignals=["SIGUSR1"], captureOnShutdown=True
    )
    service.start()
    try:
        until(service.list_checkpoints, "the first capture")
        break_it(service, agents, memory)
        ids = [one.id for one in service.list_checkpoints()]
        with pytest.raises(RecoveryUnfinishedError, match=r"resume_recovery.*roll_back_recovery"):
            service.create_checkpoint("mixed")
        refused = service.get_metrics().refused
        os.kill(os.getpid(), signal.SIGUSR1)
        until(lambda: service.get_metrics().refused > refused, "the signal")
        agents.value = 6
        service.stop()
        assert [one.id for one in service.list_checkpoints()] == ids
        assert service.create_checkpoint("on purpose", force=True).description == "on purpose"
    finally:
        service.close()


def test_it_is_rolled_back_and_captures_go_on(tmp_path):
    service, agents, memory = system(tmp_path / "s")
    told = []
    with service:
        service.on("recoveryRolledBack", told.append)
        break_it(service, agents, memory)
        assert [one.name for one in service.alerts] == ["recovery_incomplete"]
        assert service.roll_back_recovery().status == "rolled_back"
        assert (agents.value, memory.value) == (5, "b")
        assert service.alerts == []
        assert service.roll_back_recovery() is None
        assert service.create_checkpoint().reason == "manual"
        until(lambda: told, "being told")
        assert (told[0].status, told[0].rolled_back) == ("rolled_back", True)


def test_it_is_resumed_and_captures_go_on(tmp_path):
    service, agents, memory = system(tmp_path / "s", intervalSeconds=0.1)
    with service:
        break_it(service, agents, memory)
        before = len(service.list_checkpoints())
        agents.value = 7
        time.sleep(0.3)
        assert len(service.list_checkpoints()) == before
        pictures = []
        assert service.resume_recovery(on_progress=pictures.append).status == "completed"
        assert pictures[-1].status == "completed"
        assert (agents.value, memory.value) == (1, "a")
        assert service.resume_recovery() is None
        agents.value = 8
        until(lambda: len(service.list_checkpoints()) > before, "captures afterwards")
        assert service.alerts == []


def test_what_fails_again_stays_incomplete(tmp_path):
    service, agents, memory = system(tmp_path / "s")
    with service:
        break_it(service, agents, memory)
        memory.is_wrong = True
        with pytest.raises(RecoveryIncompleteError):
            service.resume_recovery()
        with pytest.raises(RecoveryIncompleteError):
            service.roll_back_recovery()
        assert "recovery_incomplete" in [one.name for one in service.alerts]
        with pytest.raises(RecoveryUnfinishedError):
            service.create_checkpoint()


def test_stop_and_start_of_the_same_service_finish_it(tmp_path):
    service, agents, memory = system(tmp_path / "s", captureOnShutdown=True)
    with service:
        break_it(service, agents, memory)
        service.stop()
        service.start()
        assert (agents.value, memory.value) == (1, "a")
        assert service.alerts == []
        assert service.create_checkpoint().reason == "manual"


def test_a_service_that_was_only_initialised_captures_no_mixture_either(tmp_path):
    service, agents, memory = system(tmp_path / "s")
    with service:
        break_it(service, agents, memory)
    service, agents, memory = system(tmp_path / "s")
    service.initialize()
    try:
        with pytest.raises(RecoveryUnfinishedError):
            service.create_checkpoint()
        assert service.roll_back_recovery().status == "rolled_back"
        assert memory.value == "b"
        service.create_checkpoint()
    finally:
        service.close()


def test_what_another_process_has_rolled_back_is_seen(tmp_path):
    from ckptlog.capture.capturer import Capturer
    from ckptlog.recovery.recovery import Recovery

    service, agents, memory = system(tmp_path / "s")
    with service:
        break_it(service, agents, memory)
    service, agents, memory = system(tmp_path / "s")
    service.initialize()
    try:
        with CheckpointManager(tmp_path / "s") as manager:
            Recovery(Capturer(manager, "system", service.components)).roll_back()
        assert service.create_checkpoint().reason == "manual"
    finally:
        service.close()


@pytest.mark.parametrize("is_stopped", [False, True])
def test_what_another_process_has_ended_holds_up_no_captures(tmp_path, is_stopped):
    """One that was overtaken in its recovery, say, and ends it all the same."""
    service, agents, memory = system(
        tmp_path / "s", captureOnShutdown=True, intervalSeconds=600 if is_stopped else 0.1
    )
    with service:
        break_it(service, agents, memory)
        with CheckpointManager(tmp_path / "s") as manager:
            journal = Journal(manager, "system")
            journal.failed(journal.unfinished(), "", "", print, is_rolled_back=True)
        agents.value, before = 7, len(service.list_checkpoints())
        if is_stopped:
            service.stop()
            assert service.list_checkpoints()[0].reason == "shutdown"
        else:
            until(lambda: len(service.list_checkpoints()) > before, "a capture")
            assert service.list_checkpoints()[0].reason == "interval"
            assert service.alerts == []


def test_without_the_lease_the_log_is_asked_each_time(tmp_path):
    service, _, _ = system(tmp_path / "s")
    service.initialize()
    first = service.create_checkpoint()
    with CheckpointManager(tmp_path / "s") as manager:  # another process, killed in its recovery
        journal = Journal(manager, "system")
        journal.started(Unfinished("r1", -1, first.id, "", ("agents",)))
        journal.step("r1", "agents", RESTORING)
        with pytest.raises(RecoveryUnfinishedError):
            service.create_checkpoint()
        assert service.create_checkpoint("on purpose", force=True).number == 2
        journal.failed(journal.unfinished(), "", "", print, is_rolled_back=True)
    assert service.create_checkpoint().number == 3
    service.close()


def test_nothing_is_captured_without_the_lease_beside_a_recovery(tmp_path, monkeypatch):
    monkeypatch.setattr(unfinished, "_WAIT_S", 0.2)
    service, _, _ = system(tmp_path / "s")
    service.initialize()
    first = service.create_checkpoint()
    with CheckpointManager(tmp_path / "s") as manager, Journal(manager, "system").alone():
        with pytest.raises(RecoveryBusyError):
            service.create_checkpoint()
        service.start(signals=False)  # the owner knows that nobody can begin one
        until(lambda: service.create_checkpoint().number > first.number)
        service.stop()
    assert service.create_checkpoint().reason == "manual"
    service.close()


def test_recovering_elsewhere_leaves_the_mark(tmp_path):
    service, agents, memory = system(tmp_path / "s", intervalSeconds=0.1)
    with service:
        good = break_it(service, agents, memory)
        before = len(service.list_checkpoints())
        progress = service.recover_from_checkpoint(good.id, to=tmp_path / "out")
        assert progress.status == "completed"
        assert [one.name for one in service.alerts] == ["recovery_incomplete"]
        agents.value = 9
        time.sleep(0.4)
        assert len(service.list_checkpoints()) == before
