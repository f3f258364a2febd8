"""A capture that waits for a recovery to end: where that comes to no end, it must not get in."""

from __future__ import annotations

import threading
import time

import pytest

from ckptlog.errors import RecoveryIncompleteError, RecoveryUnfinishedError
from ckptlog.recovery.recovery import Recovery
from ckptlog.service.engine import Engine
from ckptlog.service.unfinished import UnfinishedRecovery
from tests.service.system import WAIT_S
from tests.service.test_incomplete import break_it, system
from tests.service.test_stopping import Work


def test_a_waiting_capture_does_not_save_the_mixture(tmp_path, monkeypatch):
    settle = UnfinishedRecovery.settle

    def late(self, error):
        time.sleep(0.3)  # there is all the time in the world to get in between
        settle(self, error)

    monkeypatch.setattr(UnfinishedRecovery, "settle", late)
    service, agents, memory = system(tmp_path / "store", intervalSeconds=0.05)
    with service:
        good = service.create_checkpoint("good")
        agents.value, memory.value, memory.is_wrong = 5, "b", True
        with pytest.raises(RecoveryIncompleteError):
            service.recover_from_checkpoint(good.id)
        assert service.list_checkpoints()[0].reason == "safety"


@pytest.mark.parametrize("first", ["recover", "nothing to resume"])
def test_who_was_done_before_takes_the_next_ones_mark_not_away(tmp_path, monkeypatch, first):
    """One recovery succeeds, or has nothing to do, and says so late: the next comes to no end."""
    service, agents, memory = system(tmp_path / "store")
    is_late, may_go_on = threading.Event(), threading.Event()

    def late(real):
        def call(self):
            found = real(self)
            if threading.current_thread() is slow[0]:
                is_late.set()
                may_go_on.wait(1)
            return found

        return call

    slow = [None]
    with service:
        good = service.create_checkpoint("good")
        monkeypatch.setattr(Engine, "look", late(Engine.look))
        monkeypatch.setattr(Recovery, "unfinished", late(Recovery.unfinished))

        def work():
            slow[0] = threading.current_thread()
            if first == "recover":
                return service.recover_from_checkpoint(good.id)
            return service.resume_recovery()

        working = Work(work)
        assert is_late.wait(WAIT_S)
        break_it(service, agents, memory)
        may_go_on.set()
        assert working.ended().error is None
        assert [one.name for one in service.alerts] == ["recovery_incomplete"]
        with pytest.raises(RecoveryUnfinishedError):
            service.create_checkpoint("mixed")
