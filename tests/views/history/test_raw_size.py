from __future__ import annotations

from contextlib import closing

from ckptlog import CheckpointManager
from ckptlog.blobs.store import BlobStore
from ckptlog.formats import chunk
from ckptlog.storage.disk import Disk
from ckptlog.views.history.raw_size import RawSizes


def sizes(store):
    with closing(RawSizes(store.path, Disk())) as raw_sizes:
        return raw_sizes.of(list(store.log.reader.commits()))


def expected(store):
    """Add up what the records themselves say, each read by its digest."""
    blobs: BlobStore = store.blobs
    for commit in store.log.reader.commits():
        for entry in commit.entries:
            begin = entry.offset - entry.span
            own = [one for one in commit.placements if begin <= one.offset < entry.offset]
            raw = sum(chunk.decode(blobs.read_record(one)).raw_length for one in own)
            yield raw if own else None if entry.event.new else 0


def test_they_are_those_of_the_records(tmp_path, small_packs):
    with CheckpointManager(tmp_path / "store") as manager:
        one = manager.create_checkpoint("t", "T", 1, data={"a": 1})
        manager.update_checkpoint(one, data={"text": "x" * 40})
        manager.complete_checkpoint(one)
        with manager.batch() as batch:
            names = [batch.create_checkpoint("t", "T", n, data={"n": n}) for n in range(1, 20)]
            batch.update_checkpoint(names[0], data={"m": 1})
        manager.create_checkpoint("t", "T", 1, data={"list": list(range(5000))})  # a pack
        found = sizes(manager.store)
        assert found == list(expected(manager.store))
        assert None in found
        assert 0 in found


def test_a_list_of_chunks_counts_its_nodes(tmp_path):
    with CheckpointManager(tmp_path / "store") as manager:
        manager.create_checkpoint("t", "T", 1, data={"list": list(range(20_000))})
        found = sizes(manager.store)
        assert found == list(expected(manager.store))
        (entry,) = manager.store.events()
        assert found[0] > entry.event.data.size


def test_a_segment_that_is_gone_leaves_them_unknown(tmp_path):
    with CheckpointManager(tmp_path / "store") as manager:
        manager.create_checkpoint("t", "T", 1, data={"list": list(range(20_000))})
        commits = list(manager.store.log.reader.commits())
        with closing(RawSizes(tmp_path / "nowhere", Disk())) as raw_sizes:
            assert raw_sizes.of(commits) == [None]
