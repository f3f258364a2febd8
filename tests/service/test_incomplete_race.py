"""A capture that waits for a recovery to end: where that comes to no end, it must not get in."""

from __future__ import annotations

import time

import pytest

from ckptlog.errors import RecoveryIncompleteError
from ckptlog.service.unfinished import UnfinishedRecovery
from tests.service.test_incomplete import system


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
