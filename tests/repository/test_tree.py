"""The tree that is brought up from the log: in bulk, commit by commit, across segments."""

from __future__ import annotations

import pytest

import ckptlog
from ckptlog.errors import LogCorruptionError
from ckptlog.formats.merkle import Frontier
from ckptlog.log.bulk import BulkReader
from ckptlog.model.leaf import leaf_hash
from ckptlog.repository.tree import EventTree, stored_entries
from tests.repository.attested import house


@pytest.fixture
def chained(tmp_path):
    """Return a store of several segments, with commits of one and of many events."""
    path = tmp_path / "s"
    with ckptlog.CheckpointManager(path) as manager:
        manager.store.log._segment_bytes = 3000
        for step in range(1, 20):
            manager.create_checkpoint("t", "T", step, data={"n": step})
            with manager.batch() as batch:
                for place in range(3):
                    batch.create_checkpoint("b", "B", place + 1)
    assert len(list(path.glob("log/*.seg"))) > 4
    return path


def entries_of(tree, start=0):
    found = []
    for run in tree.runs(start, tree.end()):
        assert run.first == start + len(found)
        found += run.entries
        assert run.cursor.position == start + len(found)
    return found


def root(entries):
    frontier = Frontier()
    for entry in entries:
        frontier.add(leaf_hash(entry))
    return frontier.root


def no_bulk(monkeypatch):
    monkeypatch.setattr(BulkReader, "stretches", lambda *_, **__: iter(()))


def test_events_as_they_are_stored(chained, monkeypatch):
    with ckptlog.open(chained) as store:
        tree = EventTree(store)
        whole = entries_of(tree)
        assert len(whole) == store.position == 76
        leaves = [leaf for commit in store.log.reader.commits() for leaf in commit.leaves]
        assert [leaf_hash(entry) for entry in whole] == leaves
        no_bulk(monkeypatch)
        for start in (*range(0, 77, 9), 75, 76):
            assert entries_of(tree, start) == whole[start:]


def test_from_any_position(chained):
    with ckptlog.open(chained) as store:
        whole = entries_of(EventTree(store))
        for start in (*range(0, 77, 9), 75, 76):
            assert entries_of(EventTree(store), start) == whole[start:]


@pytest.mark.parametrize("is_bulk", [True, False])
def test_the_tree_grows_from_head_to_head(tmp_path, monkeypatch, is_bulk):
    home = house(tmp_path)
    if not is_bulk:
        no_bulk(monkeypatch)
    head = None
    for _ in range(4):
        home.write(3)
        with home.open() as store:
            tree, position = EventTree(store), store.position
            grown = tree.grown(head, position)
            assert grown.root(position) == root(entries_of(tree))
            head = ckptlog.formats.head.Head("o", position, grown.root(position))
            # The same process goes on from where it stood.
            assert tree.grown(head, position) is grown
    home.write(2)


def test_damage_is_told(chained):
    segments = sorted(chained.glob("log/*.seg"))
    with ckptlog.open(chained) as store:
        data = bytearray(segments[2].read_bytes())
        data[data.index(b'"actor"')] ^= 1
        segments[2].write_bytes(data)
        with pytest.raises(LogCorruptionError):
            entries_of(EventTree(store))
        with pytest.raises(LogCorruptionError):
            store.notary.sign()
    assert not (chained / "heads" / "latest").exists()


def test_a_missing_end_is_told(chained):
    with ckptlog.open(chained, read_only=True) as store:
        (chained / "log" / "end").unlink()
        with pytest.raises(LogCorruptionError):
            EventTree(store).end()


def test_an_entry_that_is_not_canonical_is_not_guessed(chained):
    with ckptlog.open(chained) as store:
        commit = next(one for one in store.log.reader.commits() if not one.raw)
        with pytest.raises(LogCorruptionError):
            stored_entries(ckptlog.model.entry.Commit(commit.entries, (), bytes(32), "c", 9))


def test_where_the_tree_cannot_be_written_it_is_in_memory(tmp_path):
    home = house(tmp_path)
    signed = home.sign()
    tree = home.path / "views" / "tree"
    for path in tree.iterdir():
        path.unlink()
    tree.rmdir()
    tree.write_text("a file where a folder should be")
    with home.open() as store:
        assert store.notary.sign() == signed
        assert store.notary.prove(3).note == signed.note
