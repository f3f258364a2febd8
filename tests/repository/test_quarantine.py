"""What repairs keep: as it was, as far as it can be read, and nothing that lies elsewhere."""

from __future__ import annotations

import errno
import os
import shutil

import pytest

from ckptlog.errors import CheckpointStorageError
from ckptlog.repository.quarantine import Quarantine
from ckptlog.repository.repair import repair
from ckptlog.storage.disk import Disk
from tests.repository.ruin import build

BLOCK = 4096


class Scratched(Disk):
    """A medium of which one block cannot be read."""

    def __init__(self, block):
        self.block = range(block * BLOCK, (block + 1) * BLOCK)

    def read(self, fd, length, offset):
        if offset < self.block.stop and offset + length > self.block.start:
            raise CheckpointStorageError("no", errno=errno.EIO)
        return super().read(fd, length, offset)


def refusing(*_):
    raise OSError(errno.EPERM, "no links here")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "store"
    build(path)
    return path


@pytest.fixture
def store(image, tmp_path):
    return shutil.copytree(image, tmp_path / "store")


@pytest.mark.parametrize("has_links", [True, False])
@pytest.mark.parametrize("is_copied", [True, False])
def test_it_is_kept_with_its_mode(tmp_path, monkeypatch, is_copied, has_links):
    if not has_links:
        monkeypatch.setattr(os, "link", refusing)
    kept = Quarantine(tmp_path, Disk(), 1)
    kept.open({})
    source = tmp_path / "packs" / "one"
    source.parent.mkdir()
    source.write_bytes(os.urandom(3 * 1024 * 1024 + 5))
    source.chmod(0o600)
    target = tmp_path / kept.keep("packs/one", is_copied=is_copied)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_mode == source.stat().st_mode
    assert (target.stat().st_ino == source.stat().st_ino) == (has_links and not is_copied)


def test_what_cannot_be_read_is_zeros(tmp_path):
    kept = Quarantine(tmp_path, Scratched(1), 1)
    kept.open({})
    source = tmp_path / "log" / "one"
    source.parent.mkdir()
    data = os.urandom(BLOCK * 3 + 5)
    source.write_bytes(data)
    target = tmp_path / kept.keep("log/one", is_copied=True)
    assert target.read_bytes() == data[:BLOCK] + bytes(BLOCK) + data[2 * BLOCK :]


def test_nothing_behind_a_link_is_kept(store, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 100)
    newest = max(store.glob("log/*.seg"))
    newest.unlink()
    newest.symlink_to(secret)
    with pytest.raises(CheckpointStorageError, match="is a symbolic link"):
        repair(store, is_applied=True)
    assert not list(store.glob("quarantine/*/*/*"))
    assert secret.read_bytes() == b"secret" * 100


def test_mended_files_have_the_modes_of_the_damaged_ones(store):
    files = sorted([*store.glob("log/*.seg"), *store.glob("packs/*.pack")])
    for path in files:
        path.chmod(0o600)
        data = bytearray(path.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 300] = bytes(300)
        path.write_bytes(data)
    done = repair(store, is_applied=True)
    kept = [store / file.quarantine for file in done.files if file.quarantine]
    assert len(kept) == len(files)
    assert {path.stat().st_mode & 0o777 for path in (*kept, *files)} == {0o600}
