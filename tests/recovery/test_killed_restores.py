"""SIGKILL in the middle of each kind of component in turn, at its system calls or lines of code.

The next start is clean: the recovery is finished or undone, every component is exactly what was
captured or exactly what was there before, and nothing is left lying about.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import replace
from multiprocessing.util import get_temp_dir
from pathlib import Path

import pytest

from ckptlog import CheckpointManager
from ckptlog.capture import database
from ckptlog.capture.capturer import Capturer
from ckptlog.recovery.recovery import Recovery
from tests.recovery.aimed import KINDS, KINDS_ON_DISK, Aim, System, aims, shot

CAPTURED, BEFORE = "captured", "before"  # the words of the two states: of odd and even length

SOME = 2
pytestmark = pytest.mark.strace


class Place:
    """A system, its store, and the two states."""

    def __init__(self, folder: Path, kind: str, act: str, *, missing: str = "") -> None:
        self.missing = missing
        self.live, self.store, self.act = folder / "live", folder / "store", act
        self.live.mkdir()
        self.aim = Aim(self.store, self.live, act, BEFORE, kind)
        self.looks = {}
        system = System(self.live)
        with CheckpointManager(self.store) as manager:
            capturer = Capturer(manager, "sys", list(system.parts.values()))
            system.fill(CAPTURED)
            self.looks[CAPTURED] = system.look()
            self.first = capturer.capture()
        self.again()

    def again(self) -> None:
        """Be in the state before."""
        system = System(self.live)
        system.fill(BEFORE)
        if self.missing:
            system.lose(self.missing)
        self.looks[BEFORE] = system.look()

    def system(self, manager: CheckpointManager, word: str) -> tuple[System, Recovery]:
        """Start the program anew, after a kill, with what it has in memory."""
        database._swept.clear()
        system = System(self.live)
        system.take(word)
        return system, Recovery(Capturer(manager, "sys", list(system.parts.values())))

    def halves(self) -> None:
        """What is on the disk is old or new, file by file, before anybody has mended it."""
        now = System(self.live).look()
        for name in ("file", "db"):
            assert now[name] in (self.looks[BEFORE][name], self.looks[CAPTURED][name])
        for path, what in (now["tree"] or {}).items():
            if what[0] == "file" and b".ckptlog-rewind" not in path:
                trees = [self.looks[word]["tree"] or {} for word in (BEFORE, CAPTURED)]
                assert what in [tree.get(path) for tree in trees]

    def clean(self, word: str, system: System, recovery: Recovery) -> None:
        assert system.look() == self.looks[word]
        assert system.litter() == []
        assert recovery.unfinished() is None
        assert list((self.store.parent / "tmp").glob("ckptlog-*")) == []


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Private copies are made where it is seen whether they are left behind."""
    (tmp_path / "tmp").mkdir()
    get_temp_dir()  # of the fork server, whose socket's path must be short
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path


@pytest.mark.parametrize("most", [SOME, pytest.param(40, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("kind", KINDS)
def test_killed_in_the_restore_of(kind, most, folder):
    place = Place(folder, kind, "recover")
    found = aims(place.aim, most)
    place.again()
    misses = 0
    for turn, aim in enumerate(found):
        if shot(aim):  # some calls are not made each time
            misses += 1
            place.again()
            continue
        place.halves()
        with CheckpointManager(place.store) as manager:
            system, recovery = place.system(manager, BEFORE)
            unfinished = recovery.unfinished()
            assert kind in unfinished.touched
            assert unfinished.capture == place.first.id
            if turn % 2:
                assert recovery.resume().status == "completed"
                place.clean(CAPTURED, system, recovery)
            else:
                assert recovery.roll_back().status == "rolled_back"
                place.clean(BEFORE, system, recovery)
                recovery.recover(place.first.id)
                place.clean(CAPTURED, system, recovery)
        place.again()
    assert misses <= len(found) // 4
    with CheckpointManager(place.store) as manager:
        assert manager.validate_checkpoint_integrity() == []


@pytest.mark.parametrize("most", [2, pytest.param(40, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("kind", KINDS_ON_DISK)
def test_killed_while_what_is_missing_is_made_anew(kind, most, folder):
    place = Place(folder, kind, "recover", missing=kind)
    found = aims(place.aim, most)
    for turn, aim in enumerate(found):
        for one in place.live.iterdir():  # what the last rollback has set aside
            if ".undone-" in one.name:
                subprocess.run(["rm", "-rf", one], check=True)
        place.again()
        if shot(aim):
            continue
        place.halves()
        with CheckpointManager(place.store) as manager:
            system, recovery = place.system(manager, BEFORE)
            if turn % 2:
                recovery.roll_back()
                assert system.look() == place.looks[BEFORE]
                assert [name for name in system.litter() if ".undone-" not in name] == []
            else:
                recovery.resume()
                place.clean(CAPTURED, system, recovery)


@pytest.mark.parametrize("most", [1, pytest.param(40, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("act", ["resume", "roll_back"])
@pytest.mark.parametrize("kind", ["object", *KINDS_ON_DISK])
def test_killed_again_while_it_is_settled(kind, act, most, folder):
    """The first kill is in the middle of the component; the second while that is mended."""
    place = Place(folder, kind, "recover")
    (middle,) = aims(place.aim, 1)
    place.again()
    assert not shot(middle)
    for aim in aims(replace(place.aim, act=act), most):
        place.again()
        assert not shot(middle)
        shot(aim)
        with CheckpointManager(place.store) as manager:
            system, recovery = place.system(manager, BEFORE)
            word = CAPTURED if act == "resume" else BEFORE
            if recovery.unfinished() is None:  # done; what it did in memory died with the process
                system.take(word)
            else:
                getattr(recovery, act)()
            place.clean(word, system, recovery)


@pytest.mark.parametrize("most", [2, pytest.param(40, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("kind", ["arrays", *KINDS_ON_DISK])
def test_killed_in_the_capture_of(kind, most, folder):
    place = Place(folder, kind, "capture")
    count = 2
    for aim in aims(place.aim, most):
        place.again()
        is_whole = bool(shot(aim))
        with CheckpointManager(place.store) as manager:
            system, recovery = place.system(manager, BEFORE)
            assert system.look() == place.looks[BEFORE]
            assert system.litter() == []
            capturer = recovery.capturer
            infos = capturer.captures()
            assert len(infos) == count + is_whole
            assert all(capturer.check(info) == [] for info in infos)
            count += is_whole
            assert capturer.capture().number == infos[0].number + 1
            count += 1
            recovery.recover(place.first.id)
            assert list((folder / "tmp").glob("ckptlog-*")) == []
            count += 1
            assert system.look() == place.looks[CAPTURED]
    with CheckpointManager(place.store) as manager:
        assert manager.validate_checkpoint_integrity() == []
