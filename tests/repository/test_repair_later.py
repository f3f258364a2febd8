"""A copy that turns up after a repair: what was told lost then comes back, and no proof breaks."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import ckptlog
from ckptlog.errors import CheckpointError
from ckptlog.model.event import LOST, REPAIRED, SETTLED
from ckptlog.repository.compaction import CollectOptions
from ckptlog.repository.layout import read_info
from ckptlog.repository.notary import Notary
from ckptlog.repository.repair import repair
from ckptlog.repository.verify import verify_directory
from tests.repository.pair import grow, leaves_now, lose
from tests.repository.ruin import (
    NOISE,
    build,
    files_of,
    frames_of,
    fresh,
    leaves_of,
    states_of,
    truth_of,
)

EVERYTHING = CollectOptions(garbage_min=0, seal_bytes_min=0)
EVENT, CHUNK = 2, 3


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("later") / "image"
    build(path)
    return path


@pytest.fixture
def store(image, tmp_path, monkeypatch):
    """A copy of the image, with its own memory of signed heads."""
    shutil.copytree(os.environ["CKPTLOG_KEYS"], tmp_path / "keys")
    monkeypatch.setenv("CKPTLOG_KEYS", str(tmp_path / "keys"))
    return fresh(image, tmp_path / "store")


def smash(root: Path, *, kind: int, every: int, start: int = 1) -> None:
    """Spoil every n-th frame of a kind in the log and the packs, but for headers."""
    store_id = read_info(root).id_bytes
    for name in files_of(root):
        if name.endswith((".seg", ".pack")):
            data = bytearray((root / name).read_bytes())
            places = [begin for one, begin, _ in frames_of(root / name, store_id) if one == kind]
            for begin in places[start::every]:
                data[begin + 4 : begin + 60] = bytes(56)
            (root / name).write_bytes(bytes(data))


def compact(root: Path) -> None:
    with ckptlog.CheckpointManager(root) as manager:
        manager.store.compact(EVERYTHING)


def lost_of(store) -> list[int]:
    return [entry.position for entry in store.events() if entry.event.type == LOST]


@pytest.mark.parametrize(
    ("is_compacted", "is_copy_compacted"), [(False, False), (True, False), (False, True)]
)
@pytest.mark.parametrize("kind", [EVENT, CHUNK], ids=["events", "chunks"])
def test_a_later_copy_brings_back_what_was_told_lost(
    image, store, kind, *, is_compacted, is_copy_compacted
):
    truth = truth_of(image)
    copy = fresh(image, store.with_name("copy"))
    smash(store, kind=kind, every=3)
    first = repair(store, is_applied=True)
    assert first.lost_positions if kind == EVENT else first.lost_chunks
    with ckptlog.CheckpointManager(store) as manager:
        head = Notary(manager.store).sign()
        late = manager.create_checkpoint("late", "L", 1, data={"n": 1})
    if is_compacted:
        compact(store)
    if is_copy_compacted:
        compact(copy)
    planned = repair(store, copy=copy)
    done = repair(store, is_applied=True, copy=copy)
    for told in (planned, done):
        assert told.positions_back == first.lost_positions
        missing = set(first.lost_chunks) - set(told.chunks_back)
        # A compaction lets go of what only a deleted checkpoint had.
        assert len(missing) <= (is_compacted or is_copy_compacted)
        assert (told.lost_positions, told.lost_chunks, told.affected) == ((), (), ())
    with ckptlog.CheckpointManager(store) as manager:
        assert manager.store.verify().problems == ()
        losses = manager.store.verify().losses
        assert not any(one.checkpoints for one in losses)
        assert not losses or is_copy_compacted
        assert lost_of(manager.store) == []
        seen = states_of(manager)
        assert seen.pop(late)
        assert seen == truth.states
        assert leaves_of(manager.store)[: len(truth.leaves)] == truth.leaves
        event = manager.store.event_at(done.position).event
        assert event.type == REPAIRED
        assert event.facts["events_back"] == len(
            [p for a, b in first.lost_positions for p in range(a, b + 1)]
        )
        assert head
    again = repair(store, is_applied=True, copy=copy)
    assert again.is_empty


def test_the_index_knows_at_once_what_came_back(tmp_path):
    """Nobody is told to renew views that were made a moment ago."""
    store, copy = tmp_path / "large", tmp_path / "copy"
    with ckptlog.CheckpointManager(store) as manager:
        for step in range(1, 31):
            manager.create_checkpoint("t", "T", step, data={"b": os.urandom(60_000)})
    shutil.copytree(store, copy)
    smash(store, kind=CHUNK, every=100)
    assert repair(store, is_applied=True).lost_chunks
    assert repair(store, is_applied=True, copy=copy).chunks_back
    with ckptlog.open(store, read_only=True) as opened:
        assert not [note for note in opened.verify().notes if "index" in note]


def test_where_the_leaf_is_not_known_the_tombstone_stays(image, store):
    """Signed heads rest on the tombstone's own hash; its event would break them."""
    shutil.rmtree(store / "views")
    smash(store, kind=EVENT, every=3)
    first = repair(store, is_applied=True)
    with ckptlog.CheckpointManager(store) as manager:
        leaves, lost = leaves_of(manager.store), lost_of(manager.store)
        known = {p for p in lost if "leaf" in manager.store.event_at(p).event.facts}
    assert first.lost_positions
    repair(store, is_applied=True, copy=image)
    with ckptlog.CheckpointManager(store) as manager:
        assert set(lost_of(manager.store)) == set(lost) - known
        assert leaves_of(manager.store)[: len(leaves)] == leaves
        assert manager.store.verify().problems == ()


def test_a_copy_that_lost_the_same_brings_nothing_and_changes_nothing(store, tmp_path):
    smash(store, kind=EVENT, every=3)
    smash(store, kind=CHUNK, every=5)
    repair(store, is_applied=True)
    copy = fresh(store, tmp_path / "copy")
    before = {name: (store / name).read_bytes() for name in files_of(store)}
    assert repair(store, is_applied=True, copy=copy).is_empty
    assert {name: (store / name).read_bytes() for name in files_of(store)} == before


def test_a_copy_that_is_damaged_itself_helps_as_far_as_it_can(image, store, tmp_path):
    copy = fresh(image, tmp_path / "copy")
    smash(copy, kind=EVENT, every=2)
    smash(copy, kind=CHUNK, every=2)
    smash(store, kind=EVENT, every=3)
    smash(store, kind=CHUNK, every=3)
    first = repair(store, is_applied=True)
    before = len([p for a, b in first.lost_positions for p in range(a, b + 1)])
    with ckptlog.CheckpointManager(store) as manager:
        leaves = leaves_of(manager.store)
    done = repair(store, is_applied=True, copy=copy)
    back = [p for a, b in done.positions_back for p in range(a, b + 1)]
    assert 0 < len(back) < before
    assert 0 < len(done.chunks_back) < len(first.lost_chunks)
    with ckptlog.CheckpointManager(store) as manager:
        assert manager.store.verify().problems == ()
        assert len(lost_of(manager.store)) == before - len(back)
        assert leaves_of(manager.store)[: len(leaves)] == leaves


def test_a_pack_that_only_a_lost_event_registered_and_a_collection_has_fenced(tmp_path):
    """The machine's find: no event may register a pack from before a fence, so none was appended."""
    root, data = tmp_path / "store", {"noise": NOISE[0]}
    with ckptlog.CheckpointManager(root) as manager:
        first = manager.create_checkpoint("a", "A", 1, data=data)
        manager.store.compact(EVERYTHING)
        manager.create_checkpoint("b", "B", 1, data={"noise": NOISE[1]})
        manager.store.compact(EVERYTHING)
        (moved, *_) = [e for e in manager.store.events() if e.event.type == SETTLED]
        lost = moved.position
    for path in (root / "log").glob("*.set"):  # the block of its one segment with that event
        if path.name.startswith(f"{lost:020d}"):
            whole = path.read_bytes()
            path.write_bytes(whole[:120] + bytes(len(whole) - 240) + whole[-120:])
    done = repair(root, is_applied=True)
    assert lost in [p for a, b in done.lost_positions for p in range(a, b + 1)]
    assert done.packs_registered
    assert (done.affected, done.lost_chunks) == ((), ())
    with ckptlog.CheckpointManager(root) as manager:
        assert manager.get_checkpoint(first).data == data
        assert manager.store.verify().problems == ()


@pytest.mark.parametrize("part", ["chunk", "index"])
def test_a_damaged_pack_that_only_a_lost_event_registered(tmp_path, part):
    """The machine's find: it was registered again as it was."""
    root = tmp_path / "store"
    with ckptlog.CheckpointManager(root) as manager:
        names = [manager.create_checkpoint("a", "A", n, data={"n": NOISE[n]}) for n in (1, 2)]
        manager.store.compact(EVERYTHING)
        (moved,) = [e for e in manager.store.events() if e.event.type == SETTLED]
    (pack,) = (root / "packs").iterdir()
    in_pack = 200 if part == "chunk" else pack.stat().st_size - 100
    for path, begin in ((root / moved.container, moved.offset), (pack, in_pack)):
        data = bytearray(path.read_bytes())
        data[begin + 4 : begin + 60] = bytes(56)
        path.write_bytes(bytes(data))
    done = repair(root, is_applied=True)
    assert done.ok, done.problems_after
    affected = {one.checkpoint for one in done.affected}
    assert len(affected) == (part == "chunk")
    with ckptlog.CheckpointManager(root) as manager:
        for number, name in enumerate(names, 1):
            if name not in affected:
                assert manager.get_checkpoint(name).data == {"n": NOISE[number]}
        assert manager.store.verify().problems == ()


def test_a_liar_is_not_believed(image, store, tmp_path):
    """A copy with another history under the same id puts nothing of it into ours."""
    copy = fresh(image, tmp_path / "copy")
    smash(store, kind=EVENT, every=3)
    smash(copy, kind=EVENT, every=3)
    first = repair(store, is_applied=True)
    forge(copy)
    with ckptlog.CheckpointManager(store) as manager:
        leaves = leaves_of(manager.store)
    done = repair(store, is_applied=True, copy=copy)
    assert first.lost_positions
    assert done.positions_back == ()
    with ckptlog.CheckpointManager(store) as manager:
        assert leaves_of(manager.store)[: len(leaves)] == leaves
        try:
            assert manager.store.verify().problems == ()
        except CheckpointError:
            pytest.fail("the store cannot be verified")


def forge(copy: Path) -> None:
    """Put whole events of another content where the copy's are damaged."""
    from ckptlog.formats import event, frame, segment
    from ckptlog.formats.tombstone import is_tombstone

    image = copy.with_name("forged")
    shutil.copytree(copy, image)
    repair(image, is_applied=True)
    store_id = read_info(image).id_bytes
    for path in sorted((image / "log").glob("*.seg")):
        seed = segment.seed(store_id, *segment.parse_name(path.name))
        data = bytearray(path.read_bytes())
        for kind, begin, length in frames_of(path, store_id):
            end = begin + length
            entry = bytes(data[begin + 32 : end])
            if kind == EVENT and is_tombstone(entry):
                position, durable = event.decode_prefix(data[begin + 16 : end])
                other = entry.replace(b'"repair.lost"', b'"repair.lust"')
                body = event.encode_body(position, durable, other)
                flags = data[begin + 3]
                data[begin:end] = frame.encode(seed, begin, frame.EVENT, flags, body)
        (copy / "log" / path.name).write_bytes(bytes(data))


@pytest.mark.parametrize("kind", ["written", "settled"])
def test_what_cannot_come_back_keeps_nothing_else_from_the_copy(tmp_path, monkeypatch, kind):
    """A checkpoint was written on without its lost update, which would contradict that now."""
    monkeypatch.setattr("ckptlog.log.settling._BLOCK_BYTES", 100)
    root, other = tmp_path / "store", tmp_path / "other"
    grow(root, "one", 8)
    with ckptlog.CheckpointManager(root) as manager:
        manager.update_checkpoint("one003", data={"is": "lost"})
    grow(root, "two", 8, kind=kind)
    fresh(root, other)
    gone = lose(root, [8])
    assert repair(root, is_applied=True).events_lost == len(gone)
    with ckptlog.CheckpointManager(root) as manager:
        manager.update_checkpoint("one003", data={"is": "new"})
    leaves = leaves_now(root)
    assert set(lose(root, [12])).isdisjoint(gone)
    done = repair(root, is_applied=True, copy=other)
    assert (done.ok, done.lost_positions, done.positions_back) == (True, (), ())
    assert any("was not taken back from the copy" in one for one in done.notes)
    assert leaves_now(root)[: len(leaves)] == leaves
    assert verify_directory(root).problems == ()
    assert repair(root, copy=other).is_empty
