"""Captures and rewinds that are killed at any moment: the next start is clean, the tree exact."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ckptlog import CheckpointManager
from ckptlog.capture.directory.stage import STAGING
from ckptlog.capture.directory.workspace import Workspace
from tests.capture.directory.picture import picture

PROGRAM = "import sys; from ckptlog.cli.main import main; sys.exit(main(sys.argv[1:]))"
KILLS = 4
MANY = pytest.param(100, marks=pytest.mark.thorough)


def edit(root: Path, version: int) -> None:
    """Make every kind of change between two versions."""
    draw = random.Random(version)
    for number in range(120):
        path = root / f"d{number % 7}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if version % 2 and number % 5 == 0:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(draw.randbytes(draw.choice([0, 100, 5_000, 80_000])))
    turned = root / "turned"
    if turned.is_dir() and not turned.is_symlink():
        (turned / "in").unlink()
        turned.rmdir()
    turned.unlink(missing_ok=True)
    if version % 2:
        turned.mkdir()
        (turned / "in").write_text("in")
    else:
        turned.write_text("a file" * 200)


def killed(words: list[object], after_s: float) -> bool:
    """Run the program and kill it; say whether it was killed before its end."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), err
    return process.returncode != 0


def length_s(words: list[object]) -> float:
    begin = time.monotonic()
    subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, words)], check=True, capture_output=True
    )
    return time.monotonic() - begin


@pytest.mark.parametrize("count", [KILLS, MANY])
def test_killed_rewinds_are_run_again(count: int, tmp_path: Path) -> None:
    root, store = tmp_path / "root", tmp_path / "store"
    root.mkdir()
    edit(root, 0)
    with CheckpointManager(store) as manager:
        first = Workspace(manager, root).capture()
    expected = picture(root)
    edit(root, 1)
    words = ["--store", store, "rewind", root, "--yes", "--to", first.id]
    whole_s = length_s(words)
    assert picture(root) == expected
    draw = random.Random(count)
    for number in range(count):
        edit(root, number + 1)
        for _ in range(2):  # the second is killed over what the first left
            killed(words, whole_s * draw.uniform(0.3, 1.1))
        with CheckpointManager(store) as manager:
            workspace = Workspace(manager, root)
            workspace.rewind(workspace.find(first.id))
            assert picture(root) == expected
            assert not (root / STAGING).exists()
            assert workspace.plan(first).changes == ()


@pytest.mark.parametrize("count", [KILLS, MANY])
def test_killed_captures_leave_nothing_half_done(count: int, tmp_path: Path) -> None:
    root, store = tmp_path / "root", tmp_path / "store"
    root.mkdir()
    edit(root, 0)
    words = ["--store", store, "capture", root]
    whole_s = length_s(words)
    draw = random.Random(count)
    for number in range(count):
        edit(root, number + 1)
        killed(words, whole_s * draw.uniform(0.3, 1.1))
        expected = picture(root)
        with CheckpointManager(store) as manager:
            workspace = Workspace(manager, root)
            newest = workspace.capture() or workspace.find()
            assert picture(root) == expected
            other = tmp_path / f"other{number}"
            workspace.rewind(newest, to=other)
            assert picture(other) == expected


def test_a_rewind_killed_at_each_step(tmp_path: Path, monkeypatch) -> None:
    """Every rename, mkdir, unlink and chmod of a rewind in turn is the last thing that it does."""
    root, store = tmp_path / "root", tmp_path / "store"
    root.mkdir()
    (root / "d").mkdir()
    for name in ("a", "d/b", "turned"):
        (root / name).write_text(name * 300)
    with CheckpointManager(store) as manager:
        workspace = Workspace(manager, root)
        first = workspace.capture()
        expected = picture(root)
        stops = 0
        while True:
            for name in ("a", "d/b"):
                (root / name).write_text("changed")
            (root / "turned").unlink()
            (root / "turned").mkdir()
            (root / "turned/in").write_text("in")
            (root / "new").mkdir(exist_ok=True)
            (root / "new/file").write_text("new")
            os.chmod(root / "d", 0o700)
            child = os.fork()
            if not child:
                _die_at(stops)
                with CheckpointManager(store) as own:
                    Workspace(own, root).rewind(Workspace(own, root).find(first.id))
                os._exit(0)
            _, status = os.waitpid(child, 0)
            done = workspace.rewind(first)
            assert picture(root) == expected, (stops, done.steps)
            assert not (root / STAGING).exists()
            if os.WIFEXITED(status):
                break
            stops += 1
        assert os.WEXITSTATUS(status) == 0
        assert stops >= 10


def _die_at(stop: int) -> None:
    left = [stop]

    def counted(call):
        def one(*args, **options):
            if any(isinstance(options.get(key), int) for key in ("dir_fd", "src_dir_fd")):
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
            return call(*args, **options)

        return one

    for name in ("rename", "mkdir", "rmdir", "unlink", "symlink", "utime", "chmod"):
        setattr(os, name, counted(getattr(os, name)))
