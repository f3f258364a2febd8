"""The bulk reader against the log's own: the same events, and never one that it would not show."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog import CheckpointManager
from ckptlog.errors import LogCorruptionError
from ckptlog.formats import chunk, frame, segment
from ckptlog.formats import event as event_format
from ckptlog.log import scan
from ckptlog.log.bulk import EVENT_FRAME_BYTES, BulkReader
from ckptlog.log.log import Log
from ckptlog.model.cursor import Cursor, after_commit
from ckptlog.storage.environment import Environment
from tests.log.sample import STORE_ID, create_log, group


@pytest.fixture
def log(tmp_path):
    log = create_log(tmp_path / "store", segment_bytes=4000)
    chance = random.Random(3)
    position = 0
    for number in range(60):
        names = [f"{number}-{n}" for n in range(chance.choice([1, 1, 2, 5]))]
        log.append([group(*names, record_bytes=chance.choice([0, 60, 400]))], position)
        position += len(names)
    yield log
    log.close()


def bulk_of(log):
    return BulkReader(log.segments, STORE_ID)


def read(log, place=Cursor(), *, stop=None, events=7):  # noqa: B008 - it is frozen
    return list(bulk_of(log).stretches(place, stop or log.published.read(), events=events))


def entries_of(runs):
    return [event_format.decode(entry) for run in runs for entry in run.entries]


def expected(log, position=0, stop=None):
    commits = log.reader.commits(stop=stop)
    return [e.event for c in commits for e in c.entries if e.position >= position]


@pytest.mark.parametrize("events", [1, 3, 10, 10**6])
def test_the_same_events_in_whole_commits(log, events):
    runs = read(log, events=events)
    assert entries_of(runs) == expected(log)
    commits = {commit.position_next: commit for commit in log.reader.commits()}
    position = 0
    for run in runs:
        assert run.first == position
        position = run.position_next
        assert run.cursor == after_commit(commits[position])
    assert len(list((log.segments.folder).glob("*.seg"))) > 3


def test_each_event_knows_its_commit_and_its_chunks(log):
    runs = read(log)
    found = [row for run in runs for row in zip(run.commits, run.chunks, strict=True)]
    wanted = []
    for commit in log.reader.commits():
        for entry in commit.entries:
            own = [
                p for p in commit.placements if entry.offset - entry.span <= p.offset < entry.offset
            ]
            wanted.append((commit.entries[0].position, len(own)))
    assert found == wanted


def test_sizes_are_those_that_the_records_say(tmp_path):
    with CheckpointManager(tmp_path / "store") as manager:
        with manager.batch() as batch:
            for n in range(1, 9):
                batch.create_checkpoint("t", "T", n, data={"list": list(range(700 * n))})
        store = manager.store
        bulk = BulkReader(store.log.segments, store.info.id_bytes)
        (run,) = bulk.stretches(Cursor(), store.log.published.read(), events=100)
        (commit,) = store.log.reader.commits()
        wanted = []
        for entry in commit.entries:
            own = [
                p for p in commit.placements if entry.offset - entry.span <= p.offset < entry.offset
            ]
            wanted.append(sum(chunk.decode(store.blobs.read_record(p)).raw_length for p in own))
        assert run.raw_bytes == wanted


def test_from_every_boundary_on(log):
    for commit in log.reader.commits():
        position = commit.position_next
        assert entries_of(read(log, after_commit(commit))) == expected(log, position)


def test_without_a_place_it_begins_with_the_segment(log):
    for position in range(0, log.published.read().position, 9):
        runs = read(log, Cursor(position))
        assert runs[0].first <= position
        assert entries_of(runs) == expected(log, runs[0].first)


def test_nothing_beyond_the_stop_is_shown(log):
    ends = []
    for number in range(8):
        end = log.published.read()
        ends.append((end, end.position))
        log.append([group(f"more-{number}", f"and-{number}", record_bytes=60)], end.position)
    for end, position in ends:
        runs = read(log, stop=end, events=1)
        assert runs[-1].position_next == position
        assert entries_of(runs) == expected(log, stop=end)


def test_frames_larger_than_the_window_are_read(log, monkeypatch):
    whole = entries_of(read(log))
    monkeypatch.setattr(scan.Window.__init__, "__defaults__", (64,))
    assert entries_of(read(log)) == whole


@given(st.integers(0, 10**6), st.integers(0, 7))
def test_of_a_damaged_log_only_what_the_reader_shows_is_shown(tmp_path_factory, at, bit):
    root = tmp_path_factory.mktemp("store")
    log = create_log(root, segment_bytes=1500)
    try:
        for number in range(12):
            log.append([group(f"{number}", f"{number}b", record_bytes=80)], 2 * number)
        paths = sorted((root / "log").glob("*.seg"))
        path = paths[at % len(paths)]
        data = bytearray(path.read_bytes())
        data[at % len(data)] ^= 1 << bit
        path.write_bytes(data)
        fresh = Log(root, STORE_ID, Environment(), read_only=True)
        shown, is_damaged = [], False
        try:
            for commit in fresh.reader.commits(steps_over=False):
                shown += [entry.event for entry in commit.entries]
        except LogCorruptionError:
            is_damaged = True
        found = entries_of(read(fresh, events=1))
        assert found == shown[: len(found)]
        if not is_damaged:
            assert found == shown
    finally:
        log.close()


def test_an_end_with_another_leaf_hash_is_not_reached(log):
    end = log.published.read()
    other = msgspec.structs.replace(end, leaf=bytes(32))
    run = list(bulk_of(log)._runs(Cursor(), other))[-1]
    assert list(run.stretches(5, with_records=False, with_places=False))
    assert not run.is_complete


def test_an_empty_log_has_nothing(tmp_path):
    log = create_log(tmp_path / "store")
    assert read(log) == []
    log.close()


def test_each_event_lies_where_it_is_said_to(log):
    places = {e.position: e for commit in log.reader.commits() for e in commit.entries}
    for run in read(log):
        before = run.start
        for position, (raw, end) in enumerate(zip(run.entries, run.ends, strict=True), run.first):
            entry = places[position]
            assert end == entry.offset + entry.length
            assert end - len(raw) - EVENT_FRAME_BYTES == entry.offset
            assert entry.offset - before == entry.span
            before = end
        assert before == run.offset_end


def test_records_are_kept_where_they_are_asked_for(tmp_path):
    with CheckpointManager(tmp_path / "store") as manager:
        manager.create_checkpoint("t", "T", 1, data={"list": list(range(5000))})
        store = manager.store
        bulk = BulkReader(store.log.segments, store.info.id_bytes)
        end = store.log.published.read()
        (run,) = bulk.stretches(Cursor(), end, events=1, with_records=True)
        (commit,) = store.log.reader.commits()
        wanted = {place.digest: store.blobs.read_record(place) for place in commit.placements}
        assert run.records == wanted
        (bare,) = bulk.stretches(Cursor(), end, events=1)
        assert (bare.records, bare.places) == ({}, [])


def test_places_are_told_where_they_are_asked_for(log):
    bulk, end = bulk_of(log), log.published.read()
    found = [
        (digest, run.container, offset, length)
        for run in bulk.stretches(Cursor(), end, events=7, with_places=True)
        for digest, offset, length in run.places
    ]
    placements = [place for commit in log.reader.commits() for place in commit.placements]
    assert found == [(one.digest, one.container, one.offset, one.length) for one in placements]
    assert found


def test_a_run_is_bounded_by_its_bytes_too(log, monkeypatch):
    monkeypatch.setattr("ckptlog.log.bulk._STRETCH_BYTES", 1000)
    runs = read(log, events=10**6)
    assert entries_of(runs) == expected(log)
    assert all(sum(map(len, run.entries)) < 1000 + 5 * 300 for run in runs)
    assert len(runs) > 20


def test_a_commit_that_goes_on_beyond_the_stop_is_not_shown(log):
    log.append([group("one-more", record_bytes=60)], log.published.read().position)
    log.append([group("the-last", record_bytes=60)], log.published.read().position)
    end = log.published.read()
    (*_, before, last) = log.reader.commits()
    assert before.container == last.container
    for offset in range(before.offset_end, last.offset_end, 7):
        runs = read(log, stop=msgspec.structs.replace(end, offset=offset), events=1)
        assert runs[-1].position_next == before.position_next


def test_an_event_with_another_position_is_not_shown(log):
    (*_, last) = log.reader.commits()
    (*_, entry) = last.entries
    end = log.published.read()
    path = log.segments.path(end.first, end.generation)
    seed = segment.seed(STORE_ID, end.first, end.generation)
    body = event_format.encode_body(entry.position + 1, 0, event_format.encode(entry.event))
    data = bytearray(path.read_bytes())
    data[entry.offset : entry.offset + entry.length] = frame.encode(
        seed, entry.offset, frame.EVENT, frame.COMMIT, body
    )
    path.write_bytes(data)
    shown = read(log, events=1)
    assert not shown or shown[-1].position_next <= last.entries[0].position
