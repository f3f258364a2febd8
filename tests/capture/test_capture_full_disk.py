"""A disk that fills up while captures are taken: each one is refused whole, the store stays
readable, and captures go on once there is room."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from ckptlog import CheckpointManager, FullError
from ckptlog.capture.capturer import Capturer
from tests.capture.sample import Phased, Value
from tests.tmpfs import mounted

pytestmark = pytest.mark.root

DISK_BYTES = 24 * 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", DISK_BYTES) as folder:
        yield folder


def free(folder: Path) -> int:
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize


@pytest.mark.parametrize("size", [30_000, 700_000, 3_000_000])
def test_a_full_disk_refuses_the_capture_and_loses_nothing(disk, size):
    chance = random.Random(size)
    state = {"blob": b"", "n": 0}
    held = Phased("held", state, stability="copied")
    with CheckpointManager(disk / "store") as manager:
        capturer = Capturer(manager, "s", [held, Value("more", {"n": 1})])
        infos = []
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(max(0, free(disk) - 6 * size - 2_000_000)))
        for number in range(1, 2_000):
            state.update(blob=chance.randbytes(size), n=number)
            try:
                infos.append(capturer.capture())
            except FullError:
                break
        else:
            pytest.fail("the disk was never full")
        assert infos
        assert held.calls[-1] in {"commit", "abort"}
        assert capturer.captures() == infos[::-1]
        assert all(capturer.check(info) == [] for info in infos)
        ballast.unlink()
        again = capturer.capture()
        assert again.number == infos[-1].number + 1
        assert capturer.stored(again)["held"].value() == state
        assert manager.validate_checkpoint_integrity() == []
