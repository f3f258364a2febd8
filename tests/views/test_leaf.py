"""The cache of leaf hashes: right, disposable, never believed."""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

import ckptlog
from ckptlog import CheckpointManager
from ckptlog.formats import event
from ckptlog.storage.environment import Environment
from ckptlog.views.leaf import LEAF_BYTES, LeafCache
from tests.holding import living_child


def fill(path: Path) -> list[bytes]:
    """Make a store with commits of one and of several events; return its leaves, computed here."""
    with CheckpointManager(path) as manager:
        name = manager.create_checkpoint("t", "T", 1, data={"a": 1})
        with manager.batch() as batch:
            for step in range(2, 6):
                batch.create_checkpoint("t", "T", step)
        manager.complete_checkpoint(name)
        return [event.leaf_hash(event.encode(entry.event)) for entry in manager.store.events()]


def test_every_leaf_is_there(tmp_path: Path) -> None:
    leaves = fill(tmp_path / "s")
    cache = LeafCache(tmp_path / "s/views/tree/leaves")
    assert cache.position == len(leaves) == 6
    assert cache.read(0, 100) == leaves
    assert cache.read(2, 4) == leaves[2:4]


@pytest.mark.parametrize("length", [0, 1, LEAF_BYTES, 3 * LEAF_BYTES + 5, None])
def test_what_is_missing_is_filled_up(tmp_path: Path, length: int | None) -> None:
    leaves = fill(tmp_path / "s")
    path = tmp_path / "s/views/tree/leaves"
    if length is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:length])
    with CheckpointManager(tmp_path / "s") as manager:
        manager.create_checkpoint("t", "T", 9)
    assert LeafCache(path).read(0, 6) == leaves
    assert LeafCache(path).position == 7


def test_a_rebuild_writes_it_anew(tmp_path: Path) -> None:
    leaves = fill(tmp_path / "s")
    path = tmp_path / "s/views/tree/leaves"
    path.write_bytes(bytes(1000))
    with ckptlog.open(tmp_path / "s") as store:
        assert any(problem.code == "view.differs" for problem in store.verify("structure").problems)
        store.rebuild_views()
        assert store.verify("structure").ok
    assert LeafCache(path).read(0, 100) == leaves


def test_it_is_cut_though_a_child_was_forked_while_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = LeafCache(tmp_path / "leaves")
    pwrite = os.pwrite
    with ExitStack() as stack:
        with monkeypatch.context() as patch:

            def forking(fd: int, data: bytes, offset: int) -> int:
                stack.enter_context(living_child())
                return pwrite(fd, data, offset)

            patch.setattr(os, "pwrite", forking)
            cache.put(0, [bytes(LEAF_BYTES)] * 3)
        thread = threading.Thread(target=cache.cut, args=(1,), daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
    assert cache.position == 1


def test_what_lies_behind_is_cut(tmp_path: Path) -> None:
    cache = LeafCache(tmp_path / "tree/leaves")
    leaves = [bytes([number]) * LEAF_BYTES for number in range(5)]
    assert cache.put(0, leaves)
    assert not cache.put(6, leaves)
    cache.cut(7)
    assert cache.position == 5
    cache.cut(3)
    assert cache.read(0, 9) == leaves[:3]
    assert cache.put(2, leaves[:1])
    assert cache.read(0, 9) == [*leaves[:2], leaves[0]]
    nowhere = LeafCache(None)
    assert nowhere.put(9, leaves)
    nowhere.cut(0)


def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    fill(tmp_path / "s")
    path = tmp_path / "s/views/tree"
    shutil.rmtree(path)
    path.write_text("in the way")
    with CheckpointManager(tmp_path / "s") as manager:
        manager.create_checkpoint("t", "T", 9)
        assert manager.get_latest_checkpoint("t") is not None


def test_no_cut_comes_between_a_look_and_its_write(tmp_path: Path, monkeypatch) -> None:
    """Two processes begin at once; one of them has looked for the seal before the other wrote it."""
    path = tmp_path / "leaves"
    leaves = [bytes([number + 1]) * LEAF_BYTES for number in range(10)]
    one, other = LeafCache(path, b"b" * 16), LeafCache(path, b"b" * 16)
    assert one.put(0, leaves[:5])
    found = iter([(b"", 0)])
    read = other._read_seal
    monkeypatch.setattr(other, "_read_seal", lambda: next(found, None) or read())
    write = os.pwrite

    def late(fd: int, data: bytes, offset: int) -> int:
        monkeypatch.setattr(os, "pwrite", write)
        assert other.put(0, leaves[:1])
        return write(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", late)
    assert one.put(5, leaves[5:])
    assert LeafCache(path).read(0, 10) == leaves
    assert other.put(3, leaves[3:5])
    assert LeafCache(path).read(0, 10) == leaves


class Boot(Environment):
    """A machine that was started so many times."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def boot(self) -> bytes:
        return bytes([self._number]) * 16


def test_what_a_power_cut_left_unsynced_is_no_fault(tmp_path: Path) -> None:
    """The file has its new length, and zeros where its blocks had not been written yet."""
    root = tmp_path / "s"
    leaves, seal = root / "views/tree/leaves", root / "views/tree/seal"

    def work(boot: int) -> None:
        with ckptlog.open(root, create=True, environment=Boot(boot)) as store:
            for step in (1, 2):
                CheckpointManager(store=store).create_checkpoint("t", "T", step)

    def verified(boot: int) -> bool:
        with ckptlog.open(root, environment=Boot(boot), read_only=True) as store:
            return store.verify().ok

    work(1)
    sealed = seal.read_bytes()
    work(1)
    whole = leaves.read_bytes()
    leaves.write_bytes(whole[: 2 * LEAF_BYTES] + bytes(2 * LEAF_BYTES))
    seal.write_bytes(sealed)
    assert not verified(1)
    assert verified(2)
    work(2)
    assert leaves.read_bytes()[: 4 * LEAF_BYTES] == whole
    assert verified(2)


def test_a_view_of_another_boot_is_made_anew(tmp_path: Path) -> None:
    """It was not sealed: after a power cut its pages may be of any age."""
    with ckptlog.open(tmp_path / "s", create=True, environment=Boot(1)) as store:
        CheckpointManager(store=store).create_checkpoint("t", "T", 1)
    with ckptlog.open(tmp_path / "s", environment=Boot(1)) as store:
        assert not store.view().notes
    with ckptlog.open(tmp_path / "s", environment=Boot(2)) as store:
        assert "not closed before a reboot" in store.view().notes[0]
