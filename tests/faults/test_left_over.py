"""Temporary files of killed processes go with the next collection; those of living ones stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ckptlog import CheckpointManager
from ckptlog.repository.collection import CollectOptions
from ckptlog.storage import files
from tools.crash.trace import surrounding

EVERYTHING = CollectOptions(seal_bytes_min=0, garbage_min=0.0)
# Stops for good where a file whose name has WORD in it would be synced, or take its final name.
PROGRAM = """
import os, sys, time
from pathlib import Path
from ckptlog import CheckpointManager
from ckptlog.repository.collection import CollectOptions
from ckptlog.storage import files

root, word, place, act = sys.argv[1:]
whole = getattr(files, place)

def stopped(*arguments, **options):
    name = str(arguments[0])
    if place == "sync_file":
        name = os.readlink(f"/proc/self/fd/{arguments[0]}")
    if word in name and name.endswith(".tmp"):
        print("here", flush=True)
        time.sleep(600)
    return whole(*arguments, **options)

setattr(files, place, stopped)
with CheckpointManager(root) as manager:
    if act == "create":
        manager.create_checkpoint("t", "T", 1, data={"x": os.urandom(3_000_000)})
    elif act == "collect":
        manager.store.compact(CollectOptions(seal_bytes_min=0, garbage_min=0.0))
    elif act == "backup":
        manager.store.backup(Path(root).parent / "backup")
    else:
        manager.store.export_archive(["a"], Path(root).parent / "archive")
"""


@contextmanager
def stopped(root: Path, word: str, place: str, act: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process up to where it would sync, or publish, a temporary file."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(root), word, place, act],
        stdout=subprocess.PIPE,
        text=True,
        env=surrounding(),
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n"
            yield process
        finally:
            process.kill()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def temporaries(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.tmp") if path.is_file())


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "store"
    with CheckpointManager(root) as manager:
        for number in range(3):
            manager.create_checkpoint("a", "A", number + 1, data={"x": [number] * 900})
    return root


@pytest.mark.parametrize("place", ["sync_file", "publish"])
def test_the_pack_of_a_killed_writer_goes_and_that_of_a_living_one_stays(root, place):
    with stopped(root, ".pack.", place, "create") as process:
        (name,) = temporaries(root)
        with CheckpointManager(root) as manager:
            manager.store.compact(EVERYTHING)
            manager.store.compact(EVERYTHING)
            assert temporaries(root) == [name]
            kill(process)
            assert manager.store.compact(EVERYTHING).orphans == 1
            assert temporaries(root) == []
            assert len(list(manager.iterate())) == 3
            assert manager.store.verify().ok


def test_the_settled_form_of_a_killed_collection_goes(root):
    with stopped(root, ".set.", "sync_file", "collect") as process:
        assert len(temporaries(root)) == 1
        kill(process)
    with CheckpointManager(root) as manager:
        assert manager.store.compact(EVERYTHING).orphans == 1
        assert temporaries(root) == []
        assert manager.store.verify().ok


def test_what_a_killed_backup_left_goes_with_the_next(root, tmp_path):
    with stopped(root, "backup/", "sync_file", "backup") as process:
        assert temporaries(tmp_path / "backup")
        kill(process)
    with CheckpointManager(root) as manager:
        manager.store.backup(tmp_path / "backup", verify=True)
    assert temporaries(tmp_path / "backup") == []


def test_what_a_killed_export_left_goes_with_the_next(root, tmp_path):
    with (
        stopped(root, "archive.", "sync_file", "export") as process,
        CheckpointManager(root) as manager,
    ):
        manager.store.export_archive(["a"], tmp_path / "archive")  # beside the living one
        assert len(temporaries(tmp_path)) == 1
        kill(process)
        (tmp_path / "other.1-1.tmp").write_bytes(b"somebody else's")
        manager.store.export_archive(["a"], tmp_path / "archive", is_replaced=True)
    assert temporaries(tmp_path) == ["other.1-1.tmp"]


@pytest.mark.parametrize(
    "folder", [".", "log", "packs", "views", "views/chunks", "views/tree", "consumers", "heads"]
)
def test_any_left_over_of_the_store_goes(root, folder):
    with CheckpointManager(root) as manager:
        manager.store.notary.sign()
        dead = root / folder / "name.4194304-7.tmp"
        dead.write_bytes(b"left")
        old = time.time() - 3 * 86_400
        os.utime(dead, (old, old))
        manager.store.compact(EVERYTHING)
        assert not dead.exists()


def test_a_name_that_is_none_of_ours_stays(root):
    (root / "packs").mkdir(exist_ok=True)
    strange = root / "packs" / "notes.tmp"
    strange.write_text("mine")
    with CheckpointManager(root) as manager:
        manager.store.compact(EVERYTHING)
    assert strange.read_text() == "mine"
    assert files.remove_left_over(root / "nowhere") == 0
