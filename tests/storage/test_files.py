from __future__ import annotations

import errno
import os
import stat
import threading

import pytest

from ckptlog.errors import (
    CheckpointStorageError,
    DeniedError,
    FullError,
    InputOutputError,
    ReadOnlyError,
)
from ckptlog.storage import files


def failing(code):
    def call(*_args, **_kwargs):
        raise OSError(code, os.strerror(code))

    return call


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "target"
    path.write_bytes(b"old")
    return path


def test_writes_and_replaces_whole_files(tmp_path):
    path = tmp_path / "new"
    files.write_atomically(path, b"first")
    assert path.read_bytes() == b"first"
    files.write_atomically(path, memoryview(b"second, longer"))
    assert path.read_bytes() == b"second, longer"
    files.write_atomically(path, b"", durable=False)
    assert path.read_bytes() == b""
    assert os.listdir(tmp_path) == ["new"]


def test_the_umask_decides_who_reads(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_atomically(tmp_path / "file", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / "file").st_mode) == 0o640


@pytest.mark.parametrize("call", ["pwrite", "fdatasync", "replace"])
@pytest.mark.parametrize(
    "fault",
    [
        (errno.ENOSPC, FullError),
        (errno.EDQUOT, FullError),
        (errno.EIO, InputOutputError),
        (errno.EACCES, DeniedError),
        (errno.EROFS, ReadOnlyError),
    ],
)
def test_a_failure_keeps_the_old_content_and_leaves_nothing(
    monkeypatch, target, tmp_path, call, fault
):
    code, kind = fault
    monkeypatch.setattr(os, call, failing(code))
    with pytest.raises(kind) as caught:
        files.write_atomically(target, b"new")
    assert caught.value.context["errno"] == code
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["target"]


def test_an_interrupt_leaves_nothing(monkeypatch, target, tmp_path):
    def interrupt(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fdatasync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["target"]


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(CheckpointStorageError) as caught:
        files.write_atomically(tmp_path / "no" / "file", b"x")
    assert str(tmp_path / "no") in str(caught.value)


def test_bytes_are_synced_before_the_name_and_the_name_before_the_return(monkeypatch, tmp_path):
    calls = []

    def record(name):
        real = getattr(os, name)

        def call(*args, **kwargs):
            calls.append(name)
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, call)

    for name in ("pwrite", "fdatasync", "replace", "fsync"):
        record(name)
    files.write_atomically(tmp_path / "file", b"x")
    assert calls == ["pwrite", "fdatasync", "replace", "fsync"]
    calls.clear()
    files.write_atomically(tmp_path / "file", b"y", durable=False)
    assert calls == ["pwrite", "replace"]


def test_a_temporary_name_that_is_taken_is_passed_over(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "_serial", iter([7, 8]))
    left_over = tmp_path / f"file.{os.getpid()}-7.tmp"
    left_over.write_bytes(b"of a dead process")
    files.write_atomically(tmp_path / "file", b"x")
    assert (tmp_path / "file").read_bytes() == b"x"
    assert left_over.read_bytes() == b"of a dead process"


def test_readers_see_the_old_or_the_new_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    contents = [bytes([n]) * 5000 for n in range(20)]
    files.write_atomically(path, contents[0], durable=False)
    seen, stop = set(), threading.Event()

    def read():
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for content in contents * 5:
        files.write_atomically(path, content, durable=False)
    stop.set()
    reader.join()
    assert seen <= set(contents)


def test_creates_only_what_is_not_there(tmp_path, target):
    fd = files.create_exclusive(tmp_path / "fresh")
    files.write_all(fd, b"hello", 0)
    assert files.read_at(fd, 5, 0) == b"hello"
    os.close(fd)
    with pytest.raises(CheckpointStorageError) as caught:
        files.create_exclusive(target)
    assert caught.value.context["errno"] == errno.EEXIST
    assert target.read_bytes() == b"old"


@pytest.fixture
def fd(tmp_path):
    fd = files.create_exclusive(tmp_path / "data")
    yield fd
    os.close(fd)


def test_reads_what_is_there(fd):
    files.write_all(fd, b"0123456789", 0)
    assert files.read_at(fd, 4, 3) == b"3456"
    assert files.read_at(fd, 100, 8) == b"89"
    assert files.read_at(fd, 1, 10) == b""
    assert files.read_at(fd, 0, 0) == b""


def test_reads_on_after_a_short_read(monkeypatch, fd):
    files.write_all(fd, b"0123456789", 0)
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: real(fd, min(length, 3), offset))
    assert files.read_at(fd, 8, 1) == b"12345678"
    assert files.read_at(fd, 99, 0) == b"0123456789"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_writes_on_after_a_short_write(monkeypatch, fd, kind):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, bytes(data[:3]), offset))
    files.write_all(fd, kind(b"0123456789"), 5)
    assert files.read_at(fd, 99, 0) == b"\0" * 5 + b"0123456789"


def test_a_buffer_can_be_emptied_after_a_short_write(monkeypatch, fd):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, bytes(data[:3]), offset))
    data = bytearray(b"0123456789")
    files.write_all(fd, data, 0)
    data.clear()  # no view of it is left


def test_errors_of_descriptors_are_ours(tmp_path):
    path, fd = tmp_path / "gone", 999_999  # no such descriptor
    for act in (
        lambda: files.read_at(fd, 1, 0),
        lambda: files.write_all(fd, b"x", 0),
        lambda: files.sync_file(fd),
        lambda: files.sync_directory(tmp_path / "none"),
        lambda: files.create_exclusive(tmp_path / "none" / "file"),
        lambda: files.create_temporary(tmp_path / "none" / "file"),
        lambda: files.publish(tmp_path / "none", path),
    ):
        with pytest.raises(CheckpointStorageError) as caught:
            act()
        assert isinstance(caught.value.__cause__, OSError)


def test_removing_what_is_not_there_is_no_error(tmp_path):
    files.remove(tmp_path / "none")
