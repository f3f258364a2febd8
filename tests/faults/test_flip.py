"""Single bits flipped in every kind of file of a store."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tools.crash_states import memory
from tools.flip_bits import KINDS, UNCLEAN, ask, explore, flips, laid_out, make_sample, sweep

ROOT = Path(__file__).resolve().parents[2]

# What nobody needs: all that comes of a flip is that it is made again, or nothing.
DISPOSABLE = ("view", "index", "leaves", "seal", "files", "history", "rest")


@pytest.fixture(scope="module")
def sample():
    return make_sample()


def test_the_sample_has_every_kind_of_file(sample):
    """What is in no kind is never flipped."""
    left = [
        name
        for name, data in sample.image.items()
        if data and not any(is_one(name) for is_one in KINDS.values())
    ]
    assert left == []


def test_what_is_disposable_is_believed_where_it_is_laid_out(sample):
    """Else a flip in it would prove nothing: it would be made anew in any case."""
    with laid_out(sample) as root:
        inode = (root / "views" / "current.sqlite").stat().st_ino
        assert ask(root, sample.names) == sample.answers
        assert (root / "views" / "current.sqlite").stat().st_ino == inode
        for name in sample.image:
            if name.startswith(("views/chunks/", "views/tree/", "views/history")):
                assert (root / name).read_bytes() == sample.image[name], name


@pytest.mark.parametrize("kind", [*KINDS, UNCLEAN])
def test_a_sample_of_flips(sample, kind):
    every = {"files": 16_000, "view": 9_000, "rest": 60_000, "history": 2_000}.get(kind, 700)
    wanted = list(flips(sample, [kind], every=every))
    tally = explore(sample, wanted[:: max(1, len(wanted) // 24)])
    assert tally.flips >= 5
    assert not tally.wrong
    endings = set(tally.counts[kind])
    if kind in DISPOSABLE:
        assert not endings & {"told", "lost"} or kind == "leaves"
    if kind in ("segment", "settled", "pack", "heads"):
        assert endings == {"told"}
    if kind == "end":
        assert endings <= {"told", "mended"}
    assert ("lost" in endings) <= (kind == UNCLEAN)
    assert ("again" in endings) <= (kind == "cursor")


def test_a_killed_run_leaves_nothing_that_the_next_does_not_sweep():
    """It works in one folder a process; and its workers end with it."""
    words = [sys.executable, "tools/flip_bits.py", "--kind", "segment", "--all", "--jobs", "2"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, cwd=ROOT) as process:
        while not (found := _places(process.pid)):
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    assert len(found) == 1
    sweep()
    assert not _places(process.pid)


def test_what_a_living_process_works_in_is_not_swept(sample):
    with laid_out(sample) as root:
        sweep()
        assert root.exists()
    assert len(_places(os.getpid())) == 1


def _places(pid):
    return list(Path(memory() or tempfile.gettempdir()).glob(f"ckptlog-flip-{pid}-*/owner"))


@pytest.mark.thorough
@pytest.mark.timeout(36_000)
@pytest.mark.parametrize("kind", [*KINDS, UNCLEAN])
def test_every_flip(sample, kind, capsys):
    """Every bit of every byte of every file."""
    tally = explore(sample, flips(sample, [kind], is_all=True), jobs=2, is_brief=True)
    with capsys.disabled():
        print(f"\n{tally}")
    assert not tally.wrong
