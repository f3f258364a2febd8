from __future__ import annotations

import inspect
import os

import pytest

from ckptlog.errors import CheckpointStorageError
from ckptlog.storage.disk import Disk
from tests.faults.fault_disk import FaultDisk


@pytest.fixture
def disk():
    return Disk()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


def test_creates_writes_reads_cuts(disk, path):
    fd = disk.create(path)
    disk.write(fd, b"0123456789", 0)
    disk.write(fd, b"xy", 20)
    assert disk.size(fd) == 22
    assert disk.read(fd, 100, 8) == b"89" + bytes(10) + b"xy"
    assert disk.read(fd, 5, 22) == b""
    disk.truncate(fd, 4)
    disk.sync(fd)
    assert disk.read(fd, 100, 0) == b"0123"
    disk.truncate(fd, 6)
    disk.close(fd)
    assert path.read_bytes() == b"0123\0\0"


def test_creating_what_exists_fails(disk, path):
    path.write_bytes(b"x")
    with pytest.raises(CheckpointStorageError):
        disk.create(path)
    assert path.read_bytes() == b"x"


def test_opens_for_both_ways_or_for_reading(disk, path):
    path.write_bytes(b"abc")
    fd = disk.open_write(path)
    disk.write(fd, b"B", 1)
    assert disk.read(fd, 3, 0) == b"aBc"
    disk.close(fd)
    fd = disk.open_read(path)
    assert disk.read(fd, 3, 0) == b"aBc"
    with pytest.raises(CheckpointStorageError):
        disk.write(fd, b"x", 0)
    with pytest.raises(CheckpointStorageError):
        disk.truncate(fd, 0)
    disk.close(fd)


def test_descriptors_are_not_inherited(disk, path):
    for fd in (disk.create(path), disk.open_read(path), disk.open_write(path)):
        assert not os.get_inheritable(fd)
        disk.close(fd)


def test_renames_and_removes(disk, path, tmp_path):
    path.write_bytes(b"x")
    other = tmp_path / "other"
    disk.rename(path, other)
    disk.sync_directory(tmp_path)
    assert os.listdir(tmp_path) == ["other"]
    fd = disk.open_read(other)
    assert not disk.is_removed(fd)
    disk.remove(other)
    assert disk.is_removed(fd)
    disk.close(fd)
    assert os.listdir(tmp_path) == []


def test_writes_whole_files(disk, path):
    disk.write_atomically(path, b"old")
    disk.write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize(
    "act",
    [
        lambda disk, missing: disk.open_write(missing),
        lambda disk, missing: disk.open_read(missing),
        lambda disk, missing: disk.create(missing / "file"),
        lambda disk, missing: disk.remove(missing),
        lambda disk, missing: disk.rename(missing, missing.with_name("other")),
        lambda disk, missing: disk.sync_directory(missing),
        lambda disk, missing: disk.write_atomically(missing / "file", b""),
        lambda disk, missing: disk.size(-1),
        lambda disk, missing: disk.read(-1, 1, 0),
        lambda disk, missing: disk.write(-1, b"x", 0),
        lambda disk, missing: disk.sync(10**6),
        lambda disk, missing: disk.truncate(-1, 0),
        lambda disk, missing: disk.is_removed(-1),
    ],
)
def test_every_failure_is_an_error_of_ours(disk, tmp_path, act):
    with pytest.raises(CheckpointStorageError) as caught:
        act(disk, tmp_path / "missing")
    assert caught.value.context["errno"]


def test_syncs_are_real(disk, path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: calls.append(("file", fd)))
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append(("folder", os.fstat(fd).st_ino)))
    fd = disk.create(path)
    disk.sync(fd)
    disk.sync_directory(path.parent)
    disk.close(fd)
    assert calls == [("file", fd), ("folder", path.parent.stat().st_ino)]


def test_the_faulty_disk_stands_in_for_every_operation():
    """An operation that the double does not know would go around the faults unseen."""
    harmless = {"close", "size", "is_removed"}
    names = {name for name, _ in inspect.getmembers(Disk, inspect.isfunction) if name[0] != "_"}
    assert names - harmless == {name for name in names if name in vars(FaultDisk)}
