from __future__ import annotations

import threading

import msgspec
import pytest

from ckptlog.errors import LogCorruptionError, ReadOnlyError
from ckptlog.formats import end as end_format
from ckptlog.formats import segment
from ckptlog.formats.segment import HEADER_FRAME_BYTES, SegmentHeader
from ckptlog.model.cursor import BEGINNING, after_commit, after_entry
from tests.log.sample import (
    STORE_ID,
    append,
    create_log,
    fill,
    group,
    open_log,
    published_ids,
    record,
    segment_paths,
)


@pytest.fixture
def root(tmp_path):
    """Three segments: a b, c d, and e with f (one commit of two events)."""
    root = tmp_path / "store"
    log = create_log(root, segment_bytes=13_000)
    fill(log, "abcd", record_bytes=6000)
    append(log, group("e", "f", record_bytes=3000))
    log.close()
    assert len(segment_paths(root)) == 3
    return root


@pytest.fixture
def log(root):
    log = open_log(root, read_only=True)
    yield log
    log.close()


def published(log):
    end = log.published.read()
    assert end is not None
    return end


def ids(commits):
    return [entry.event.id for commit in commits for entry in commit.entries]


def test_reads_all_from_the_beginning(log):
    assert ids(log.reader.commits()) == [*"abcdef"]


def test_reads_from_any_commit_boundary(log):
    commits = list(log.reader.commits())
    for index, commit in enumerate(commits):
        rest = log.reader.commits(commit.container, commit.offset_end, commit.position_next)
        assert list(rest) == commits[index + 1 :]


def test_reads_from_the_beginning_of_the_segment_that_holds_a_position(log):
    assert ids(log.reader.commits(position=0)) == [*"abcdef"]
    assert ids(log.reader.commits(position=1)) == [*"abcdef"]
    assert ids(log.reader.commits(position=2)) == [*"cdef"]
    assert ids(log.reader.commits(position=5)) == [*"ef"]
    assert ids(log.reader.commits(position=6)) == [*"ef"]


def test_a_boundary_at_the_head_of_a_segment_is_its_first_commit(log, root):
    name = f"log/{segment_paths(root)[1].name}"
    assert ids(log.reader.commits(name, HEADER_FRAME_BYTES, 2)) == [*"cdef"]
    assert ids(log.reader.commits(name, 0, 2)) == [*"cdef"]


def test_stops_at_an_older_end(log):
    commits = list(log.reader.commits())
    for commit in commits:
        first = int(commit.container[4:24])
        stop = end_format.End(
            STORE_ID, commit.position_next, first, 0, commit.offset_end, commit.leaf, bytes(16)
        )
        assert ids(log.reader.commits(stop=stop)) == ids(
            one for one in commits if one.position_next <= commit.position_next
        )


def test_a_reader_that_waits_in_the_middle_reads_up_to_the_end_it_began_with(log, root):
    reading = log.reader.commits()
    assert next(reading).entries[0].event.id == "a"
    writer = open_log(root, segment_bytes=13_000)
    fill(writer, "gh", record_bytes=6000)
    writer.close()
    assert ids(reading) == [*"bcdef"]
    assert ids(log.reader.commits()) == [*"abcdefgh"]


def test_nothing_beyond_the_published_end_is_read(log, root):
    """Interval commits stand in the file, whole, and are not durable yet."""
    writer = open_log(root, is_durable=False)
    fill(writer, "xy", record_bytes=100)
    assert published_ids(log) == [*"abcdef"]
    writer.flush()
    assert published_ids(log) == [*"abcdefxy"]
    writer.close()


def test_a_lost_end_is_an_error_and_not_an_empty_log(log, root):
    path = root / "log" / "end"
    kept = path.read_bytes()
    path.unlink()
    with pytest.raises(LogCorruptionError) as caught:
        published_ids(log)
    assert "published end" in caught.value.message
    assert caught.value.hint
    path.write_bytes(kept)
    assert published_ids(log) == [*"abcdef"]


def test_reading_alone_writes_nothing(root):
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in root.rglob("*.*")}
    log = open_log(root, read_only=True)
    assert published_ids(log) == [*"abcdef"]
    with pytest.raises(ReadOnlyError):
        log.append([group("x")], 6)
    log.close()
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in root.rglob("*.*")}
    assert after == before


# --- segments that come and go ---------------------------------------------------------------


def test_a_segment_that_a_writer_has_just_made_is_not_read_yet(log, root):
    """Its header is whole, the end does not name it: the roll may still fail."""
    assert published_ids(log) == [*"abcdef"]
    end = published(log)
    header = SegmentHeader(STORE_ID, 6, 0, end.first, 0, end.offset, end.leaf, 1)
    (root / "log" / segment.segment_name(6, 0)).write_bytes(segment.encode(header))
    assert published_ids(log) == [*"abcdef"]
    assert ids(log.reader.commits(position=6)) == [*"ef"]
    fresh = open_log(root, read_only=True)
    assert published_ids(fresh) == [*"abcdef"]
    assert ids(fresh.reader.commits(position=6)) == [*"ef"]
    fresh.close()


def replace_empty_segment(root, *, publish):
    """A roll, then a sync error on the first commit in the new segment: a new generation."""
    folder = root / "log"
    log = open_log(root, read_only=True)
    end = published(log)
    log.close()
    for generation in (0, 1):
        if generation == 0 or publish != "nothing":
            header = SegmentHeader(STORE_ID, 6, generation, end.first, 0, end.offset, end.leaf, 1)
            (folder / segment.segment_name(6, generation)).write_bytes(segment.encode(header))
    named = 1 if publish == "new" else 0
    end = end_format.End(STORE_ID, 6, 6, named, HEADER_FRAME_BYTES, end.leaf, bytes(16))
    (folder / "end").write_bytes(end_format.encode(end))


def test_a_reader_that_knew_the_empty_segment_finds_the_one_that_replaced_it(log, root):
    replace_empty_segment(root, publish="nothing")
    assert published_ids(log) == [*"abcdef"]
    boundary = (f"log/{segment.segment_name(6, 0)}", HEADER_FRAME_BYTES, 6)
    assert ids(log.reader.commits(*boundary)) == []
    writer = open_log(root, segment_bytes=13_000)
    writer.recover_if_free()
    writer._abandon_segment()  # as a sync error does
    writer.close()
    writer = open_log(root, segment_bytes=13_000)
    fill(writer, "g")
    writer.close()
    assert max(path.name for path in segment_paths(root)) == segment.segment_name(6, 1)
    assert published_ids(log) == [*"abcdefg"]
    assert ids(log.reader.commits(*boundary)) == ["g"]


def test_a_replacement_that_is_not_published_yet_does_no_harm(log, root):
    replace_empty_segment(root, publish="old")
    assert published_ids(log) == [*"abcdef"]
    assert ids(log.reader.commits(position=6)) == []
    writer = open_log(root)
    writer.recover_if_free()
    assert published(log).generation == 1
    assert published_ids(log) == [*"abcdef"]
    writer.close()


# --- damage ----------------------------------------------------------------------------------


def test_a_missing_segment_is_corruption(root):
    for missing in (0, 1, 2):
        path = segment_paths(root)[missing]
        hidden = path.with_name("hidden")
        path.rename(hidden)
        log = open_log(root, read_only=True)
        with pytest.raises(LogCorruptionError):
            published_ids(log)
        log.close()
        hidden.rename(path)


def test_damage_is_reported_with_file_offset_and_position(root, log):
    path = segment_paths(root)[1]
    commits = list(log.reader.commits())
    data = bytearray(path.read_bytes())
    data[commits[2].offset_end + 40] ^= 1
    path.write_bytes(data)
    assert [one.entries for one in log.reader.commits()] == [one.entries for one in commits]
    reading = log.reader.commits(steps_over=False)
    assert [next(reading).entries[0].event.id for _ in range(3)] == [*"abc"]
    with pytest.raises(LogCorruptionError) as caught:
        next(reading)
    assert caught.value.context == {
        "path": str(path),
        "offset": commits[2].offset_end,
        "position": 3,
    }


def test_another_history_of_the_same_store_is_not_mixed_in(root, tmp_path):
    """Each file is whole; only the leaf hashes tell that they do not belong together."""
    twin = tmp_path / "twin"
    other = create_log(twin, segment_bytes=13_000)
    for name in ("a", "B", "c", "d"):
        fill(other, [name], record_bytes=6000)
    append(other, group("e", "f", record_bytes=3000))
    other.close()
    first, twin_first = segment_paths(root)[0], segment_paths(twin)[0]
    assert first.stat().st_size == twin_first.stat().st_size
    first.write_bytes(twin_first.read_bytes())
    log = open_log(root, read_only=True)
    with pytest.raises(LogCorruptionError) as caught:
        published_ids(log)
    assert "other events" in caught.value.message
    log.close()


def test_an_end_of_another_history_is_not_believed(root, tmp_path):
    end = end_format.decode((root / "log" / "end").read_bytes(), STORE_ID)
    for change in ({"leaf": bytes(32)}, {"position": 7}, {"offset": end.offset - 1}):
        fields = {name: getattr(end, name) for name in end.__struct_fields__} | change
        (root / "log" / "end").write_bytes(end_format.encode(end_format.End(**fields)))
        log = open_log(root, read_only=True)
        with pytest.raises(LogCorruptionError):
            published_ids(log)
        log.close()


# --- places ----------------------------------------------------------------------------------


def test_knows_where_commits_end(log):
    end = published(log)
    assert log.reader.places.ends_commit(BEGINNING, end) is True
    for commit in log.reader.commits():
        right = after_commit(commit)
        assert log.reader.places.ends_commit(right, end) is True
        for change in (
            {"leaf": bytes(32)},
            {"offset": right.offset + 1},
            {"offset": HEADER_FRAME_BYTES},
            {"offset": 0},
            {"offset": 10**9},
            {"position": right.position + 1},
            {"container": "log/00000000000000000099.0.seg"},
            {"container": "packs/x.pack"},
        ):
            wrong = msgspec.structs.replace(right, **change)
            assert log.reader.places.ends_commit(wrong, end) is False, change


def test_the_middle_of_a_commit_is_no_end_of_one(log):
    end = published(log)
    last = list(log.reader.commits())[-1]
    middle = after_entry(last.entries[0], last.leaves[0])
    assert log.reader.locate(middle.position) == middle
    assert log.reader.places.ends_commit(middle, end) is False


def test_where_the_log_is_damaged_it_cannot_be_told(root, log):
    commits = list(log.reader.commits())
    end = published(log)
    path = segment_paths(root)[1]
    data = bytearray(path.read_bytes())
    data[commits[2].offset_end - 10] ^= 1
    path.write_bytes(data)
    assert log.reader.places.ends_commit(after_commit(commits[2]), end) is None
    assert log.reader.places.ends_commit(after_commit(commits[3]), end) is True
    wrong = msgspec.structs.replace(after_commit(commits[3]), leaf=bytes(32))
    assert log.reader.places.ends_commit(wrong, end) is None
    assert log.reader.places.ends_commit(after_commit(commits[1]), end) is True


def test_a_place_beyond_the_end_is_none(log):
    beyond = msgspec.structs.replace(after_commit(list(log.reader.commits())[-1]), position=7)
    assert log.reader.places.ends_commit(beyond, published(log)) is False


# --- single events ---------------------------------------------------------------------------


def test_reads_one_event_where_it_lies_with_its_chunks(log):
    for commit in log.reader.commits():
        for entry in commit.entries:
            found, records = log.reader.entry(
                entry.container, entry.offset, entry.length, entry.span
            )
            assert found == entry
            size = 3000 if entry.event.id in "ef" else 6000
            wanted = record(entry.event.id, size)
            assert records == {wanted[:32]: wanted}
            alone, nothing = log.reader.entry(entry.container, entry.offset, entry.length, 0)
            assert (alone.event, nothing) == (entry.event, {})


def test_a_place_where_no_event_stands_is_corruption(log):
    entry = next(log.reader.commits()).entries[0]
    place = {
        "container": entry.container,
        "offset": entry.offset,
        "length": entry.length,
        "span": entry.span,
    }
    for change in (
        {"offset": entry.offset + 1},
        {"offset": 0},
        {"offset": 10**9},
        {"offset": -1, "span": 0},
        {"length": entry.length + 1},
        {"length": entry.length - 1},
        {"length": 0},
        {"length": 1 << 40},
        {"span": -1},
        {"span": entry.offset + 1},
        {"offset": HEADER_FRAME_BYTES, "length": entry.span, "span": 0},
        {"container": "log/00000000000000000099.0.seg"},
        {"container": "packs/x.pack"},
        {"container": "../lock"},
    ):
        with pytest.raises(LogCorruptionError):
            log.reader.entry(**(place | change))


def test_keeps_few_files_open_and_reads_from_many_threads(tmp_path, monkeypatch):
    monkeypatch.setattr("ckptlog.log.reader._DESCRIPTORS_MAX", 3)
    root = tmp_path / "many"
    writer = create_log(root, segment_bytes=2_000)
    names = [f"n{number}" for number in range(12)]
    fill(writer, names, record_bytes=2000)
    entries = [entry for commit in writer.reader.commits() for entry in commit.entries]
    assert len(segment_paths(root)) == 12
    failures: list[object] = []

    def read(shift):
        for turn in range(100):
            wanted = entries[(turn * 5 + shift) % len(entries)]
            found, _ = writer.reader.entry(
                wanted.container, wanted.offset, wanted.length, wanted.span
            )
            if found != wanted:
                failures.append(found)
            if len(writer.reader._open) > 3:
                failures.append("too many")

    threads = [threading.Thread(target=read, args=(shift,)) for shift in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    writer.close()
    assert not writer.reader._open


def test_a_boundary_in_a_segment_that_begins_later_is_refused(log, root):
    """What a view says of places is a hint: believing this one would skip events."""
    for name in (f"log/{segment_paths(root)[2].name}", "log/00000000000000000077.0.seg"):
        with pytest.raises(LogCorruptionError, match="behind position 0"):
            list(log.reader.commits(name, HEADER_FRAME_BYTES, 0))
