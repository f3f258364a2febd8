"""A disk that is really full (a small tmpfs), with as little room as it may be, at every step of a
recovery and of a rewind: what is there is whole, the error says what, where and what next, and
with room again it works."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ckptlog import CheckpointManager
from ckptlog.capture.capturer import Capturer
from ckptlog.capture.directory.stage import STAGING
from ckptlog.capture.directory.workspace import Workspace
from ckptlog.errors import (
    CheckpointError,
    FullError,
    RecoveryFailedError,
    RecoveryIncompleteError,
    RecoveryUnfinishedError,
)
from ckptlog.recovery.breaker import BreakerSettings
from ckptlog.recovery.recovery import Recovery
from tests.architecture.tree import ROOT
from tests.capture.directory.picture import picture
from tests.recovery.aimed import System
from tests.tmpfs import mounted

pytestmark = pytest.mark.root

DISK_BYTES = 24 * 1024 * 1024
PAGE = 4096
# Bytes of room, each of which lets it come somewhat farther.
ROOMS = [0, 8, 40, 100, 160, 240, 400, 900]
MORE_ROOMS = [*range(0, 40, 3), *range(40, 600, 20), 900]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", DISK_BYTES) as folder:
        yield folder


def fill_up(disk: Path, room: int) -> Path:
    """Leave so many bytes of room."""
    state = os.statvfs(disk)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(max(0, state.f_bavail * state.f_frsize - room)))
    return ballast


def noise(system: System, seed: int) -> None:
    """Make each component on the disk so large, and so new, that it needs room."""
    chance = random.Random(seed)
    for number in range(20):
        (system.folder / "tree" / f"noise-{number}").write_bytes(chance.randbytes(9_000))
    (system.folder / "settings.json").write_bytes(chance.randbytes(70_000))


@pytest.mark.parametrize("rooms", [ROOMS, pytest.param(MORE_ROOMS, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("has_safety", [True, False])
def test_a_recovery_with_too_little_room(disk, has_safety, rooms):
    (disk / "live").mkdir()
    system = System(disk / "live")
    told: dict[str, int] = {}
    with CheckpointManager(disk / "store") as manager:
        capturer = Capturer(manager, "sys", list(system.parts.values()))
        system.fill("captured")
        noise(system, 0)
        captured = system.look()
        first = capturer.capture()
        never = BreakerSettings(failures_max=1_000)
        recovery = Recovery(capturer, breakers=never)
        for number, pages in enumerate(rooms):
            system.fill("before")
            noise(system, number + 1)
            before = system.look()
            if not has_safety:
                capturer.capture()  # so that there is something to go back to by hand
            ballast = fill_up(disk, pages * PAGE)
            try:
                recovery.recover(first.id, safety=has_safety)
            except CheckpointError as error:
                told[error.code] = told.get(error.code, 0) + 1
                refused(error, recovery)
            else:
                told["done"] = told.get("done", 0) + 1
                assert system.look() == captured
            ballast.unlink()
            if recovery.unfinished() is None:
                assert system.look() in (before, captured)
            elif has_safety and number % 2:
                recovery.roll_back()
                assert system.look() == before
            else:
                recovery.resume()
                assert system.look() == captured
            assert system.litter() == []
            assert not (system.folder / "tree" / STAGING).exists()
            recovery.recover(first.id)
            assert system.look() == captured
            for info in capturer.captures()[:-1]:
                manager.delete_checkpoint(info.id)
            manager.compact_checkpoint_storage()
        assert manager.validate_checkpoint_integrity() == []
    assert told["done"], told
    assert sum(told.values()) - told["done"] >= 3, told
    assert set(told) <= {"done", "storage.full", "recovery.failed", "recovery.incomplete"}, told


def refused(error: CheckpointError, recovery: Recovery) -> None:
    """An error says what happened, and what to do next; the state agrees with it."""
    assert error.hint, error
    assert "space" in f"{error.message} {error.hint} {error.__cause__}".lower(), error
    found = recovery.unfinished()
    if isinstance(error, FullError | RecoveryFailedError):
        return
    assert isinstance(error, RecoveryIncompleteError)
    assert found is not None
    with pytest.raises((RecoveryUnfinishedError, FullError)):
        recovery.recover()


def test_a_rewind_with_too_little_room(disk):
    root = disk / "work"
    root.mkdir()
    chance = random.Random(5)

    def edit() -> None:
        for number in range(30):
            (root / f"f{number}").write_bytes(chance.randbytes(10_000))

    refusals = 0
    with CheckpointManager(disk / "store") as manager:
        workspace = Workspace(manager, root)
        edit()
        first = workspace.capture()
        captured = picture(root)
        for pages in [0, 4, 16, 40, 80, 100, 120, 140, 160, 200, 400]:
            edit()
            before = picture(root)
            ballast = fill_up(disk, pages * PAGE)
            try:
                workspace.rewind(first)
            except FullError as error:
                refusals += 1
                assert error.hint
                assert picture(root) == before
                assert not (root / STAGING).exists()
            else:
                assert picture(root) == captured
            ballast.unlink()
            workspace.rewind(first)
            assert picture(root) == captured
            for info in workspace.capturer.captures()[:-1]:
                manager.delete_checkpoint(info.id)
            manager.compact_checkpoint_storage()
        assert manager.validate_checkpoint_integrity() == []
    assert 3 <= refusals <= 10


# --- by the program ------------------------------------------------------------------------------


def program(disk: Path, *words: object) -> subprocess.CompletedProcess[str]:
    environ = {key: one for key, one in os.environ.items() if not key.startswith("CKPTLOG_")}
    environ |= {"PYTHONPATH": str(ROOT), "CKPTLOG_STORE": str(disk / "store")}
    return subprocess.run(
        [sys.executable, "-m", "ckptlog", *map(str, words)],
        cwd=disk / "work",
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def test_the_program_says_so_and_goes_on_with_room(disk):
    work = disk / "work"
    work.mkdir()
    (work / "f").write_bytes(random.Random(1).randbytes(400_000))
    CheckpointManager(disk / "store").close()
    done = program(disk, "capture", ".")
    assert done.returncode == 0, done.stderr
    (work / "f").write_bytes(random.Random(2).randbytes(400_000))
    ballast = fill_up(disk, PAGE)
    done = program(disk, "rewind", "--yes", ".")
    assert done.returncode not in (0, 1, 2), done
    assert "[storage.full]" in done.stderr
    assert str(disk) in done.stderr
    assert (work / "f").read_bytes() == random.Random(2).randbytes(400_000)
    done = program(disk, "run", "--name", "job", "--", "touch", "started")
    assert done.returncode == 125
    assert "[storage.full]" in done.stderr
    assert "warning: a capture failed" in done.stderr
    ballast.unlink()
    assert program(disk, "rewind", "--yes", ".").returncode == 0
    assert (work / "f").read_bytes() == random.Random(1).randbytes(400_000)
    assert program(disk, "run", "--name", "job", "--", "touch", "started").returncode == 0
    assert (work / "started").exists()


FILLING = """
import os, random, sys
assert os.statvfs("..").f_blocks * os.statvfs("..").f_frsize < 64e6
open("result", "wb").write(random.Random(3).randbytes(2_000_000))
ballast = os.open("../ballast", os.O_WRONLY | os.O_CREAT)
try:
    while os.write(ballast, bytes(4096)):  # a tmpfs of a few MB: see the test
        pass
except OSError:
    pass
print("computed for a week")
sys.exit(int(sys.argv[1]))
"""


@pytest.mark.parametrize("status", [0, 7])
def test_a_command_that_fills_the_disk_is_told_apart_from_a_good_one(disk, status):
    work = disk / "work"
    work.mkdir()
    CheckpointManager(disk / "store").close()
    # The one at the end is the first to meet the result: one in between might still have had room.
    words = ["run", "--name", "job", "--interval", "600", "--"]
    done = program(disk, *words, sys.executable, "-c", FILLING, status)
    assert done.stdout == "computed for a week\n"
    assert done.returncode == (status or 125), done
    assert "space" in done.stderr
    assert (work / "result").read_bytes() == random.Random(3).randbytes(2_000_000)
    (disk / "ballast").unlink()
    with CheckpointManager(disk / "store") as manager:
        assert manager.validate_checkpoint_integrity() == []
    done = program(
        disk, "run", "--name", "job", "--resume", "--no-rewind", "--", "test", "-s", "result"
    )
    assert done.returncode == 0, done.stderr
