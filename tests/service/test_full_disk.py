"""A service on a disk that is really full (a small tmpfs): it says so, and goes on with room."""

from __future__ import annotations

import os
import random

import pytest

import ckptlog
from tests.service.system import Agents, serve, until
from tests.tmpfs import mounted

pytestmark = pytest.mark.root

DISK_BYTES = 12 * 1024 * 1024


@pytest.fixture
def disk(tmp_path):
    with mounted(tmp_path / "disk", DISK_BYTES) as folder:
        yield folder


class Noise(Agents):
    def get_state(self):
        self.calls += 1
        return {"noise": random.Random(self.calls).randbytes(200_000).hex()}


def test_full_and_not_any_more(disk):
    created, failed, raised = [], [], []
    more = {"maxCheckpoints": 0, "maxIntervalSeconds": 0.3, "compactionIntervalSeconds": 0}
    with serve(disk / "s", Noise(), **more) as service:
        service.on("checkpointCreated", created.append)
        service.on("operationFailed", failed.append)
        service.on("alertRaised", raised.append)
        until(lambda: created, "a capture")
        ballast = disk / "ballast"
        state = os.statvfs(disk)
        free = state.f_bavail * state.f_frsize
        ballast.write_bytes(bytes(max(0, free - 300_000)))
        until(lambda: len(failed) >= 3, "failures")
        assert {one.error.code for one in failed} == {"storage.full"}
        until(lambda: any(one.name == "storage_pressure" for one in raised), "the alert")
        ballast.unlink()
        count = len(created)
        until(lambda: len(created) > count, "captures with room again")
        for info in service.list_checkpoints():
            assert service._engine.capturer.check(info) == []
    with ckptlog.open(disk / "s") as store:
        assert not store.verify("full").problems
