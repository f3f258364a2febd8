"""A backup's disk fills up: it says so, and the state before is there; with room it goes on."""

from __future__ import annotations

import os
import subprocess

import pytest

from ckptlog import CheckpointManager
from ckptlog.errors import FullError
from ckptlog.repository.restoration import restore_store, verify_backup

pytestmark = pytest.mark.root


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True
    )
    if done.returncode:
        pytest.skip("this machine does not let us mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], capture_output=True)


@pytest.mark.parametrize("is_first", [True, False])
def test_the_state_before_stays(disk, tmp_path, is_first):
    with CheckpointManager(tmp_path / "s") as manager:
        if not is_first:
            manager.create_checkpoint("t", "T", 1, data={"n": 1})
            manager.store.backup(disk / "b")
        manager.create_checkpoint("t", "T", 2, data={"x": os.urandom(2_000_000)})
        manager.create_checkpoint("t", "T", 3)
        with pytest.raises(FullError):
            manager.store.backup(disk / "b")
        assert not list((disk / "b").rglob("*.tmp"))
        if not is_first:
            assert restore_store(disk / "b", tmp_path / "r").position == 1
        with pytest.raises(FullError):
            manager.store.export_archive(["t"], disk / "a.ckpt")
        assert not list(disk.glob("a.ckpt*"))
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        manager.store.backup(disk / "b")
        verify_backup(disk / "b")
        manager.store.export_archive(["t"], disk / "a.ckpt")
