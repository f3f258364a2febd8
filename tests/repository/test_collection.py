"""Collection: what lives can be read, what is dead is gone (specs/collection.md)."""

from __future__ import annotations

import os
import resource
import shutil
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

import ckptlog
from ckptlog import CheckpointConfiguration, CheckpointManager, CollectionBusyError
from ckptlog.blobs.pack import read_index
from ckptlog.errors import BlobCorruptionError, ReadOnlyError, UnsupportedError
from ckptlog.formats import chunk
from ckptlog.formats import store as store_format
from ckptlog.repository import choice, emptier, layout
from ckptlog.repository.collection import CollectOptions
from ckptlog.repository.workplace import workplace
from tests.repository.damage import flipped
from tests.repository.ground import TEXTS, Story, check_files, events_of, quiet, stored

SETTLED = "gc.settled"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


def opened(path, segment_bytes=20_000, **options):
    config = CheckpointConfiguration(storage_dir=str(path), **options)
    manager = CheckpointManager(config=config, actor="tester")
    manager.store.log._segment_bytes = segment_bytes
    return manager


@pytest.mark.parametrize("drops", [False, True], ids=["kept", "dropped"])
@pytest.mark.parametrize("packs", [300, 20_000, 10**9], ids=["packs", "both", "segments"])
@pytest.mark.parametrize("seed", [1, 2])
def test_what_lives_stays_and_what_is_dead_goes(path, monkeypatch, seed, packs, drops):
    monkeypatch.setattr("ckptlog.manager.preparation.CHUNK_BYTES_IN_LOG_MAX", packs)
    story = Story(seed)
    with opened(path) as manager:
        for _ in range(3):
            story.steps(manager, 50)
            done = quiet(manager, drop_superseded=drops)
            assert done.chunks_dropped > 0
            check_files(path, drops=drops)
            story.check(manager)
            story.check_past(manager, drops=drops)
    shutil.rmtree(path / "views")
    with opened(path) as manager:
        story.check(manager)
        assert story.check_past(manager, drops=drops) > 0
        story.steps(manager, 20).check(manager)
        quiet(manager, drop_superseded=drops)
        story.check(manager)
    check_files(path, drops=drops)


def test_it_frees_room_and_says_so(path):
    story = Story(3)
    with opened(path) as manager:
        story.steps(manager, 60)
        for name in sorted(story.living)[1:]:
            manager.delete_checkpoint(name)
            del story.living[name]
        files = [*path.glob("log/*.s*"), *path.glob("packs/*")]
        before = sum(file.stat().st_size for file in files)
        done = quiet(manager)
        story.check(manager)
    assert done.bytes_after < before / 2
    told = [event for event in events_of(path) if event.type == SETTLED]
    assert events_of(path)[-1] == told[-1]
    for event in told:
        assert event.facts["fence"] == done.position
        assert event.facts["superseded"] == "kept"
    assert sum(event.facts["chunks_dropped"] for event in told) == done.chunks_dropped
    assert sum(event.facts["bytes_dropped"] for event in told) == done.bytes_dropped


def test_nothing_to_collect_is_no_event(path):
    with opened(path) as manager:
        assert quiet(manager).chunks_dropped == 0
        Story(4).steps(manager, 5)
        quiet(manager)
        count = manager.store.position
        manager.store.compact()
        manager.store.compact()
        assert manager.store.position == count


def test_a_dry_run_changes_nothing_and_says_what_the_real_one_does(path):
    with opened(path) as manager:
        story = Story(5).steps(manager, 60)
        manager.store.log.seal(1)
        before = listing(path)
        told = quiet(manager, dry_run=True)
        assert listing(path) == before
        done = quiet(manager)
        assert told.is_dry_run
        for name in ("chunks_kept", "chunks_dropped", "bytes_dropped", "segments", "packs"):
            assert getattr(told, name) == getattr(done, name), name
        story.check(manager)


def listing(path):
    found = {}
    for file in [*path.glob("log/*"), *path.glob("packs/*"), path / "store.json"]:
        found[file.name] = file.read_bytes()
    return found


# --- differences ------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 3, 7])
def test_chains_of_differences_survive_in_pieces(path, every):
    """A list that grows is stored as differences; most of its states go, again and again."""
    with opened(path, 200_000) as manager:
        kept, turns = {}, []
        for step in range(70):
            turns.append({"role": "user", "content": TEXTS[step % 30][:800] + str(step)})
            name = f"s{step}"
            manager.create_checkpoint("t", "T", step + 1, checkpoint_id=name, data={"turns": turns})
            kept[name] = list(turns)
            if step % 20 == 19:
                for number in range(step + 1):
                    if number % every and f"s{number}" in kept and number < step:
                        manager.delete_checkpoint(f"s{number}")
                        del kept[f"s{number}"]
                quiet(manager)
                check_files(path)
                for one, wanted in kept.items():
                    assert manager.get_checkpoint(one).data["turns"] == wanted
    shutil.rmtree(path / "views")
    with opened(path) as manager:
        for one, wanted in kept.items():
            assert manager.get_checkpoint(one).data["turns"] == wanted


def test_a_base_that_nobody_wants_does_not_take_its_difference_along(path):
    with opened(path, 10**7) as manager:
        text = TEXTS[0] + TEXTS[1]
        manager.create_checkpoint("t", "T", 1, checkpoint_id="a", data={"x": [text, 1]})
        manager.create_checkpoint("t", "T", 2, checkpoint_id="b", data={"x": [text + "!", 2]})
        manager.delete_checkpoint("a")
        quiet(manager)
        check_files(path)
        assert manager.get_checkpoint("b").data == {"x": [text + "!", 2]}


def test_a_difference_in_a_removed_segment_that_is_open_is_not_believed(path):
    """Its event and its chunk are read through an open file; its base is gone for good."""
    texts = list(TEXTS[6:16])
    with opened(path, 10**7) as manager, opened(path, cache_size_mb=0) as other:
        manager.create_checkpoint("t", "T", 1, checkpoint_id="a", data={"x": texts})
        data = {"x": [texts[0][:-1] + "!", *[one[:-9] + "?" for one in texts[1:]]]}
        manager.create_checkpoint("t", "T", 2, checkpoint_id="b", data=data)
        entry = manager.store.newest("b")
        place = (entry.container, entry.offset, entry.length, entry.span)
        _, records = other.store.log.reader.entry(*place)
        assert any(map(chunk.base_in, records.values()))
        manager.delete_checkpoint("a")
        quiet(manager)
        _, records = other.store.log.reader.entry(*place)
        assert records, "the file is still open"
        assert [one.data for one in other.iterate()] == [data]
        assert other.get_checkpoint("b").data == data
        assert manager.get_checkpoint("b").data == data
    check_files(path)


# --- who else uses the store ------------------------------------------------------------------


def test_others_that_have_everything_cached_read_right(path):
    story = Story(6)
    with opened(path) as manager, opened(path) as other, ckptlog.open(path, read_only=True) as ro:
        reader = CheckpointManager(store=ro)
        for _ in range(3):
            story.steps(manager, 30)
            story.check(other)
            story.check(reader)
            quiet(manager)
            story.check(other)
            story.check(reader)
            story.check_past(other)
            story.steps(other, 15)
            story.check(manager)
        quiet(other)
        story.check(manager)
        story.check(other)
    check_files(path)


def test_a_process_that_knows_only_removed_places_finds_the_chunks(path):
    story = Story(7)
    with opened(path) as manager, opened(path, cache_size_mb=0) as other:
        story.steps(manager, 50)
        story.check(other)
        quiet(manager)
        other.store.blobs.close()  # what was open or in memory is gone: the places are stale
        story.check(other)
        quiet(other)
        other.store.blobs.close()
        story.check(other)
    check_files(path)


def test_others_let_go_of_what_was_removed(path, monkeypatch):
    """A file that stays open gives no room back."""
    monkeypatch.setattr("ckptlog.manager.preparation.CHUNK_BYTES_IN_LOG_MAX", 3000)
    with opened(path) as manager, opened(path, cache_size_mb=0) as other:
        story = Story(19).steps(manager, 50)
        story.check(other)
        assert held(path)
        quiet(manager)
        story.check(other)
        gone = [name for name in held(path) if name.endswith("(deleted)")]
        # The one that it would have gone on writing stays open until it writes.
        assert gone in ([], [f"{path}/log/{0:020d}.0.seg (deleted)"])


def held(path):
    """Return the files of a store's log and packs that this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.append(str(link.readlink()))
    return [name for name in found if f"{path}/log/0" in name or f"{path}/packs/" in name]


def test_a_read_that_has_begun_finds_the_chunks_where_they_are_now(path):
    """Rule READ AGAIN: who has not caught up has places that are no more."""
    story = Story(18)
    with opened(path) as manager, opened(path, cache_size_mb=0) as other:
        story.steps(manager, 50)
        begun = {name: other.store.read(name)[0].event.data for name in story.living}
        quiet(manager)
        other.store.blobs.close()
        for name, reference in begun.items():
            wire = other.store.blobs.wire(reference)
            assert msgspec.json.decode(wire) == story.living[name]


@pytest.mark.parametrize("durability", ["commit", "interval"])
def test_interval_durability(path, durability):
    story = Story(8)
    with opened(path, durability=durability, interval_s=60) as manager:
        for _ in range(3):
            story.steps(manager, 30)
            quiet(manager)
            story.steps(manager, 3)
            story.check(manager)
    with opened(path) as manager:
        story.check(manager)
        quiet(manager)
    check_files(path)


def test_a_batch_that_spans_a_collection(path, monkeypatch):
    monkeypatch.setattr("ckptlog.manager.preparation.CHUNK_BYTES_IN_LOG_MAX", 300)
    story = Story(9)
    with opened(path) as manager, opened(path) as other:
        story.steps(manager, 20)
        with manager.batch() as batch:
            for _ in range(3):
                story.create(batch)
            quiet(other)
        story.check(manager)
        story.check(other)
        quiet(manager)
        story.check(other)
    check_files(path)


# --- LangGraph --------------------------------------------------------------------------------


def test_threads_of_langgraph(path):
    pytest.importorskip("langgraph")
    from ckptlog.integrations.langgraph import CkptlogSaver
    from tests.integrations.langgraph.thread import comparable, config, put

    with opened(path) as manager:
        saver = CkptlogSaver(manager)
        for thread in "abcd":
            where, said = config(thread), []
            for step in range(12):
                said.append(TEXTS[step][:300] + thread)
                where = put(saver, where, {"messages": list(said)}, step=step)
                saver.put_writes(
                    where, [("out", {"text": TEXTS[step][:200], "n": step})], f"w{step}"
                )
        saver.copy_thread("a", "copy")
        saver.delete_thread("b")
        saver.prune(["c"])
        saver.delete_thread("a")  # the copy lives on
        before = [comparable(one) for one in saver.list(None)]
        done = quiet(manager)
        assert done.chunks_dropped > 0
        assert [comparable(one) for one in saver.list(None)] == before
        put(saver, config("b"), {"messages": ["anew"]})
        put(saver, config("copy"), {"messages": [TEXTS[1]]})
        before = [comparable(one) for one in saver.list(None)]
        quiet(manager)
    check_files(path)
    shutil.rmtree(path / "views")
    with CkptlogSaver.open(path) as saver:
        assert [comparable(one) for one in saver.list(None)] == before


# --- views, the past --------------------------------------------------------------------------


def test_views_that_are_made_anew_say_what_they_said(path):
    pytest.importorskip("pyarrow")
    with opened(path) as manager:
        story = Story(10).steps(manager, 80)
        quiet(manager)
        story.steps(manager, 20)
        rows = manager.store.history().to_table().to_pylist()
        summary = manager.get_checkpoint_summary()
        quiet(manager)
        count = len(rows)
        assert manager.store.history().to_table().to_pylist()[:count] == rows
    shutil.rmtree(path / "views")
    with opened(path) as manager:
        assert manager.store.history().to_table().to_pylist()[:count] == rows
        again = manager.get_checkpoint_summary()
        for name in ("total_checkpoints", "total_tasks", "by_state"):
            assert again[name] == summary[name]
        story.check(manager)
        manager.store.rebuild_views()
        story.check(manager)


def test_the_past_is_there_or_clearly_gone(path):
    with opened(path) as manager:
        a = manager.create_checkpoint("t", "T", 1, data={"loss": 1, "x": TEXTS[2]})
        for loss in (2, 3, 4):
            manager.update_checkpoint(a, data={"loss": loss, "x": TEXTS[loss + 2]})
        b = manager.create_checkpoint("t", "T", 2, data={"loss": 9, "x": TEXTS[2]})
        c = manager.create_checkpoint("u", "U", 1, data={"x": TEXTS[9]})
        manager.delete_checkpoint(c)
        quiet(manager, drop_superseded=True)
        found = manager.diff(a, b)
        assert found
        assert manager.restore_checkpoint(b).data["loss"] == 9
        replayed = manager.store.replay(1)
        assert len(replayed.entries) == 1
    with opened(path) as manager:
        found = manager.store.bisect("data.loss > 3", checkpoint=a)
        assert (found.collected, found.damaged) == ((0, 1, 2), ())
        with pytest.raises(ckptlog.MissingBlobError) as caught:
            manager.get_checkpoint_at(c, 5)
        assert "compaction" in caught.value.hint
        for entry in manager.history(a)[:-1]:
            assert entry.type
        assert manager.get_checkpoint(a).data["loss"] == 4
        assert len(manager.history(a)) == 4
    check_files(path, drops=True)


def test_a_second_collection_may_meet_what_the_first_dropped(path):
    """What was dropped because it was replaced stays unread, by whoever collects with whatever."""
    story = Story(11)
    with opened(path) as manager, opened(path) as other:
        story.steps(manager, 60)
        quiet(manager, drop_superseded=True)
        story.steps(other, 10)
        quiet(other)
        story.check(manager)
        story.steps(manager, 10)
    shutil.rmtree(path / "views")
    with opened(path) as manager:
        quiet(manager)
        story.check(manager)


# --- refusals ---------------------------------------------------------------------------------


def test_a_store_that_is_open_for_reading_is_not_collected(path):
    with opened(path) as manager:
        Story(12).steps(manager, 5)
    with ckptlog.open(path, read_only=True) as store, pytest.raises(ReadOnlyError):
        store.compact()


def test_only_one_works_at_a_time(path):
    with opened(path) as manager, opened(path) as other:
        Story(13).steps(manager, 5)
        with workplace(other.store), pytest.raises(CollectionBusyError) as caught:
            manager.store.compact()
        assert caught.value.retryable
        manager.store.compact()


def test_an_old_store_is_upgraded_only_when_asked(path):
    with opened(path) as manager:
        story = Story(14).steps(manager, 20)
    file = path / "store.json"
    info = store_format.decode(file.read_bytes(), str(file))
    features = tuple(one for one in info.features if one != store_format.SETTLED)
    file.write_bytes(store_format.encode(msgspec.structs.replace(info, features=features)))
    with opened(path) as manager:
        before = listing(path)
        with pytest.raises(UnsupportedError, match="older version") as caught:
            quiet(manager)
        assert "--upgrade" in caught.value.hint
        assert listing(path) == before
        assert quiet(manager, dry_run=True).chunks_dropped >= 0
        assert listing(path) == before
        quiet(manager, upgrade=True)
        assert store_format.SETTLED in layout.read_info(path).features
        quiet(manager)
        story.check(manager)
    check_files(path)


def test_nobody_can_record_a_collection(path):
    with opened(path) as manager, pytest.raises(ckptlog.CheckpointError):
        manager.record(SETTLED, {"fence": 10**6})


# --- damage -----------------------------------------------------------------------------------


def duplicates(manager):
    """Store one text for two tasks, in two containers; return the names of the checkpoints."""
    data = {"x": TEXTS[3] + TEXTS[4], "y": TEXTS[5]}
    names = []
    for task in "ab":
        names.append(manager.create_checkpoint(task, "T", 1, data=data))
        manager.create_checkpoint(task, "T", 1, checkpoint_id=f"junk-{task}", data={"z": TEXTS[6]})
        manager.store.log.seal(1)
    manager.delete_checkpoint("junk-a")
    return names, data


def containers_of(path, digest):
    return sorted(name for name, chunks in stored(path).items() if digest in chunks)


@pytest.mark.parametrize("which", ["earlier", "later", "both"])
@pytest.mark.parametrize("packs", [300, 10**9], ids=["packs", "segments"])
def test_of_two_copies_one_is_kept(path, monkeypatch, packs, which):
    """Whichever of two containers is emptied first, and in whatever order: one copy stays."""
    monkeypatch.setattr("ckptlog.manager.preparation.CHUNK_BYTES_IN_LOG_MAX", packs)
    with opened(path, 10**9) as manager:
        names, data = duplicates(manager)
        if which != "earlier":
            manager.delete_checkpoint("junk-b")
        manager.store.compact(CollectOptions(garbage_min=0.0 if which == "both" else 0.4))
        for name in names:
            assert manager.get_checkpoint(name).data == data
        manager.delete_checkpoint(names[1])
        quiet(manager)
        assert manager.get_checkpoint(names[0]).data == data
    check_files(path)


def test_what_a_later_container_holds_is_not_copied(path, monkeypatch):
    monkeypatch.setattr("ckptlog.manager.preparation.CHUNK_BYTES_IN_LOG_MAX", 300)
    with opened(path) as manager:
        # The texts of both are one chunk, which each of the two packs has.
        dead, alive = (
            manager.create_checkpoint(task, "T", 1, data={"value": os.urandom(3000)})
            for task in ("a", "b")
        )
        manager.delete_checkpoint(dead)
        done = quiet(manager)
        assert (done.packs, done.packs_written, done.chunks_kept) == (1, 0, 1)
        assert manager.get_checkpoint(alive).task_title == "T"


def test_a_damaged_later_copy_does_not_count(path, monkeypatch):
    """LATEST: what holds a chunk later is read and checked before the earlier one goes."""
    monkeypatch.setattr("ckptlog.manager.preparation.CHUNK_BYTES_IN_LOG_MAX", 300)
    with opened(path, 10**9) as manager:
        texts = [one for one in TEXTS if len(one) > 5000][:3]
        data = {"x": texts}
        a = manager.create_checkpoint("a", "T", 1, data={**data, "junk": TEXTS[6]})
        manager.update_checkpoint(a, data={"junk": ""})
        b = manager.create_checkpoint("b", "T", 1, data=data)
        info, packs = manager.store.info, list(path.glob("packs/*.pack"))
        early, late = min(packs), max(packs)
        ours = {one.digest for one in read_index(early, info.id_bytes)}
        shared = [one for one in read_index(late, info.id_bytes) if one.digest in ours]
        big = max(shared, key=lambda one: one.length)
        assert manager.store.index.get(big.digest).container == f"packs/{late.name}"
        with flipped(late, big.offset + big.length - 3):
            manager.store.blobs.close()
            done = manager.store.compact(CollectOptions(drop_superseded=True, garbage_min=0.01))
            assert done.packs
            assert late.exists()
            assert not early.exists()
            manager.store.blobs.close()
            assert manager.get_checkpoint(a).data["x"] == texts
            assert manager.get_checkpoint(b).data == data


@pytest.mark.parametrize("packs", [300, 10**9], ids=["packs", "segments"])
def test_damage_to_what_is_kept_removes_nothing(path, monkeypatch, packs):
    monkeypatch.setattr("ckptlog.manager.preparation.CHUNK_BYTES_IN_LOG_MAX", packs)
    with opened(path, 10**9) as manager:
        name = manager.create_checkpoint("a", "T", 1, data={"x": list(TEXTS[:12])})
        manager.update_checkpoint(name, data={"x": list(TEXTS[:8])})
        manager.store.log.seal(1)
        digests = manager.store.blobs.digests(manager.store.newest(name).event.data)
        places = [manager.store.index.get(one) for one in digests]
    place = max(places, key=lambda one: one.length)
    before = len(events_of(path))
    with flipped(path / place.container, place.offset + place.length - 2), opened(path) as manager:
        with pytest.raises(ckptlog.CheckpointCorruptionError):
            quiet(manager, drop_superseded=True)
        assert (path / place.container).exists()
    removed = {one for event in events_of(path)[before:] for one in event.removes}
    assert place.container not in removed
    with opened(path) as manager:
        quiet(manager, drop_superseded=True)
        assert manager.get_checkpoint(name).data == {"x": list(TEXTS[:8])}
    check_files(path, drops=True)


def test_a_payload_that_cannot_be_followed_ends_it_before_anything(path, monkeypatch):
    monkeypatch.setattr("ckptlog.manager.preparation.CHUNK_BYTES_IN_LOG_MAX", 300)
    with opened(path, 10**9) as manager:
        name = manager.create_checkpoint("a", "T", 1, data={"x": list(TEXTS[:12])})
        manager.store.log.seal(1)
        reference = manager.store.newest(name).event.data
        place = manager.store.index.get(bytes.fromhex(reference.root))
    before = listing(path)
    with flipped(path / place.container, place.offset + place.length - 2):
        with opened(path) as manager, pytest.raises(BlobCorruptionError, match=name) as caught:
            quiet(manager)
        assert "Nothing was collected" in caught.value.hint
    assert {one: before[one] for one in before if one != "end"} == {
        one: it for one, it in listing(path).items() if one != "end"
    }


def test_a_settled_form_that_is_not_whole_keeps_the_written_one(path, monkeypatch):
    real = emptier.settling.Written.publish

    def spoilt(written):
        real(written)
        (file,) = [one for one in path.glob("log/*.set") if one.stat().st_size == written.size]
        with file.open("r+b") as handle:
            handle.truncate(written.size - 1)

    with opened(path) as manager:
        story = Story(15).steps(manager, 30)
        monkeypatch.setattr(emptier.settling.Written, "publish", spoilt)
        quiet(manager)
        monkeypatch.undo()
        assert len(list(path.glob("log/*.seg"))) > 1
        story.check(manager)
        assert [one.event for one in manager.store.events()] == events_of(path)
        quiet(manager)
        story.check(manager)
    check_files(path)


def test_progress_ends_where_it_should(path):
    told = []
    with opened(path) as manager:
        Story(16).steps(manager, 40)
        manager.store.compact(
            CollectOptions(garbage_min=0, seal_bytes_min=1), lambda *now: told.append(now)
        )
    assert told[-1][0] == told[-1][1] > 0
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_the_workplace_is_left_empty(path):
    with opened(path) as manager:
        Story(17).steps(manager, 30)
        quiet(manager)
    assert os.listdir(path / "views" / "collect") == ["lock"]


def test_what_a_killed_collection_was_writing_is_removed(path):
    with opened(path) as manager:
        Story(5).steps(manager, 20)
        left = path / "log" / f"{0:020d}.0.set.99999-0.tmp"
        left.write_bytes(b"x" * 1000)
        assert quiet(manager).orphans == 1
        assert not left.exists()


def test_few_descriptors_are_enough(path):
    """However many segments there are: 256 is all that a process has on macOS."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with opened(path, segment_bytes=2_000) as manager:
        for step in range(1, 251):
            manager.create_checkpoint("t", "T", step_number=step, data={"b": os.urandom(2_000)})
        manager.delete_task("t")
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 100, hard))
        try:
            assert quiet(manager).segments > 200
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_index_is_written_out_as_containers_are_emptied(path, monkeypatch):
    """What was moved is not gathered in memory until the end."""
    monkeypatch.setattr(choice, "_CONTAINERS", 1)
    monkeypatch.setattr(emptier, "_TAIL_CHUNKS", 3)
    real, held = emptier.Emptier._settle, []

    def watching(self, *arguments):
        real(self, *arguments)
        held.append(self._store.blobs.index.tail_entries)

    monkeypatch.setattr(emptier.Emptier, "_settle", watching)
    with opened(path) as manager:
        Story(29).steps(manager, 30)
        index = manager.store.blobs.index
        index._tail_entries_max = 3
        index.flush(force=True)
        quiet(manager)
    assert len(held) > 1
    assert max(held) < 3
