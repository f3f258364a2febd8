"""Files that are made in the staging directory: each is what was captured, or none is."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import msgspec
import pytest

from ckptlog.capture.directory import stage as staging
from ckptlog.capture.directory.component import DirectoryComponent
from ckptlog.capture.directory.entry import Entry
from ckptlog.capture.directory.manifest import Manifest
from ckptlog.capture.directory.stage import STAGING, Stage
from ckptlog.errors import BlobCorruptionError, CheckpointStorageError, FullError
from tests.capture.directory.memory import Memory
from tests.capture.directory.picture import picture

_BLOCK = 65_536


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    made.mkdir()
    return made


# --- sparse files ---------------------------------------------------------------------------------


def sparse(root: Path) -> tuple[Entry, bytes]:
    """Return the entry of a file with a hole, and its data."""
    data = os.urandom(2 * _BLOCK)
    with (root / "sparse").open("wb") as file:
        file.write(data[:_BLOCK])
        file.seek(1 << 20)
        file.write(data[_BLOCK:])
    manifest = Memory().capture(DirectoryComponent("directory", root)).manifest()
    entry = manifest.entries["sparse"]
    if entry.extents is None:
        pytest.skip("this file system tells of no holes")
    return entry, data


def made(root: Path, entry: Entry, pieces: list[bytes]) -> bytes:
    """Make a file from pieces; return its content."""
    fd = os.open(root, os.O_RDONLY)
    try:
        stage = Stage(fd)
        try:
            name = stage.file(entry, lambda _: (piece for piece in pieces))
            return (root / STAGING / name).read_bytes()
        finally:
            stage.close(is_done=True)
    finally:
        os.close(fd)


@pytest.mark.parametrize("size", [1, 7, _BLOCK - 1, _BLOCK, _BLOCK + 1, 2 * _BLOCK])
def test_pieces_of_any_size_fill_the_stretches(size, root) -> None:
    entry, data = sparse(root)
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    between = [one for piece in pieces[:50] for one in (b"", piece)] + pieces[50:]
    assert made(root, entry, [*between, b""]) == (root / "sparse").read_bytes()


@pytest.mark.parametrize("is_joined", [False, True])
def test_what_is_longer_than_the_stretches_is_refused(is_joined, root) -> None:
    entry, data = sparse(root)
    pieces = [data + b"x"] if is_joined else [data, b"", b"x"]
    with pytest.raises(BlobCorruptionError, match="longer"):
        made(root, entry, pieces)
    assert not (root / STAGING).exists()


@pytest.mark.parametrize("is_sparse", [False, True])
def test_a_content_that_is_not_its_entrys_is_never_placed(is_sparse, root, monkeypatch) -> None:
    memory, component = Memory(), DirectoryComponent("directory", root)
    with (root / "file").open("wb") as file:
        file.write(os.urandom(_BLOCK))
        file.seek(1 << 20 if is_sparse else 0, os.SEEK_CUR)
        file.write(os.urandom(_BLOCK))
    stored = memory.capture(component)
    content = Manifest.content

    def another(self, entry):
        return content(self, msgspec.structs.replace(entry, blake3="0" * 64))

    (root / "file").write_bytes(b"mine")
    monkeypatch.setattr(Manifest, "content", another)
    with pytest.raises(BlobCorruptionError):
        component.restore(stored)
    assert (root / "file").read_bytes() == b"mine"
    assert not (root / STAGING).exists()


# --- a failing medium -----------------------------------------------------------------------------


def failing(*_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("which", ["all", "early", "early and full"])
def test_a_sync_that_fails_leaves_nothing_behind(which, root, monkeypatch) -> None:
    (root / "large").write_bytes(os.urandom(9 << 20))
    (root / "small").write_text("small")
    memory, component = Memory(), DirectoryComponent("directory", root)
    stored = memory.capture(component)
    (root / "large").write_text("mine")
    (root / "small").write_text("mine too")
    before, descriptors, threads = picture(root), os.listdir("/proc/self/fd"), threading.enumerate()
    synced, write, written = threading.Event(), staging._write, 0

    def early(_fd):
        synced.set()
        failing()

    def full(fd, piece):
        nonlocal written
        written += len(piece)
        if written > 8 << 20 and synced.wait(60):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(fd, piece)

    monkeypatch.setattr(os, "fdatasync", early)
    if which == "all":
        monkeypatch.setattr(os, "fsync", failing)
    if which == "early and full":
        monkeypatch.setattr(staging, "_write", full)
    with pytest.raises(CheckpointStorageError) as caught:
        component.restore(stored)
    assert synced.is_set()
    assert isinstance(caught.value, FullError) == (which == "early and full")
    assert caught.value.context["errno"] in (errno.EIO, errno.ENOSPC)
    assert caught.value.hint.startswith("Nothing was changed.")
    assert picture(root) == before
    assert not (root / STAGING).exists()
    assert os.listdir("/proc/self/fd") == descriptors
    assert threading.enumerate() == threads
    monkeypatch.undo()
    component.restore(stored)
    assert memory.capture(component).reference == stored.reference


def test_a_sync_that_fails_behind_the_changes_takes_them_back(root, monkeypatch) -> None:
    for name in "abcdef":
        (root / name).write_text("old")
    memory, component = Memory(), DirectoryComponent("directory", root)
    stored = memory.capture(component)
    for name in "abcdef":
        (root / name).write_text("newer")
    before = picture(root)
    real, put, placed = os.fsync, Stage.put, []

    def then(self, *arguments):
        placed.append(arguments)
        return put(self, *arguments)

    def fails_behind(fd):
        if placed:
            failing()
        real(fd)

    monkeypatch.setattr(Stage, "put", then)
    monkeypatch.setattr(os, "fsync", fails_behind)
    with pytest.raises(CheckpointStorageError) as caught:
        component.restore(stored)
    assert "is as it was before" in caught.value.hint
    assert picture(root) == before
    assert not (root / STAGING).exists()
