from __future__ import annotations

import os
import struct

import msgspec
import pytest

from ckptlog.errors import UnsupportedError
from ckptlog.formats import event as event_format
from ckptlog.formats import frame, segment
from ckptlog.formats.segment import HEADER_FRAME_BYTES
from ckptlog.log.scan import Scan, Window, durable_after, event_before
from ckptlog.log.segment_file import WrittenSegment
from ckptlog.storage.disk import Disk
from tests.log.sample import STORE_ID, append, create_log, event, group, record, segment_paths

SEED = segment.seed(STORE_ID, 0, 0)
CONTAINER = "log/00000000000000000000.0.seg"
LEAF = bytes(32)


@pytest.fixture
def commits(tmp_path):
    """A closed log of four commits: 1, 2 with records, 1, and 3 events."""
    log = create_log(tmp_path / "store")
    made = append(log, group("a"), group("b", "c", record_bytes=3000), group("d"))
    made += append(log, group("e", "f", "g", record_bytes=60))
    log.close()
    return made


@pytest.fixture
def path(commits, tmp_path):
    (path,) = segment_paths(tmp_path / "store")
    return path


class Scanned:
    def __init__(self, path, *, window_bytes=1 << 20, **options):
        fd = os.open(path, os.O_RDONLY)
        try:
            window = Window(WrittenSegment(Disk(), fd), window_bytes)
            options = {"offset": HEADER_FRAME_BYTES, "position": 0, "leaf": LEAF, **options}
            self.scan = Scan(window, SEED, CONTAINER, **options)
            self.commits = list(self.scan)
        finally:
            os.close(fd)


@pytest.mark.parametrize("window_bytes", [1, 16, 17, 1000, 4096, 1 << 20])
def test_reads_what_was_appended(path, commits, window_bytes):
    scanned = Scanned(path, window_bytes=window_bytes)
    assert tuple(scanned.commits) == commits
    assert scanned.scan.flaw is None
    assert scanned.scan.offset == path.stat().st_size == commits[-1].offset_end
    assert (scanned.scan.position, scanned.scan.leaf) == (7, commits[-1].leaf)


def test_an_entry_and_its_chunks_lie_where_it_says(path, commits):
    data = path.read_bytes()
    for commit in commits:
        assert commit.container == CONTAINER
        for entry in commit.entries:
            found = frame.decode(SEED, entry.offset, data, entry.offset)
            assert found.offset_end - found.offset == entry.length
            assert event_format.decode_prefix(found.body)[0] == entry.position
            brought = [p for p in commit.placements if entry.offset - entry.span <= p.offset]
            before = [p for p in brought if p.offset < entry.offset]
            assert sum(p.length for p in before) == entry.span
        for placement in commit.placements:
            found = frame.decode(SEED, placement.offset, data, placement.offset)
            assert found.kind == frame.CHUNK
            assert bytes(found.body[:32]) == placement.digest
    assert commits[1].placements[0].digest == record("b", 3000)[:32]


def test_begins_at_any_commit_boundary(path, commits):
    for index, commit in enumerate(commits):
        after = Scanned(path, offset=commit.offset_end, position=commit.position_next)
        assert tuple(after.commits) == commits[index + 1 :]
        assert after.scan.flaw is None


def test_another_position_than_expected_is_a_flaw(path):
    scanned = Scanned(path, position=1)
    assert scanned.commits == []
    assert "position 0" in str(scanned.scan.flaw)


def test_stops_where_it_is_told(path, commits):
    for index, commit in enumerate(commits):
        scanned = Scanned(path, stop=commit.offset_end)
        assert tuple(scanned.commits) == commits[: index + 1]
        assert scanned.scan.flaw is None


def test_a_commit_that_goes_on_beyond_the_stop_is_not_shown(path, commits):
    scanned = Scanned(path, stop=commits[1].offset_end - 1)
    assert tuple(scanned.commits) == commits[:1]
    assert "goes on beyond" in str(scanned.scan.flaw)


def test_zeros_and_the_end_of_the_file_are_nothing(path, commits):
    with path.open("ab") as file:
        file.write(bytes(5000))
    scanned = Scanned(path)
    assert tuple(scanned.commits) == commits
    assert scanned.scan.flaw is None


def boundaries(commits):
    return {HEADER_FRAME_BYTES, *(commit.offset_end for commit in commits)}


def test_every_cut_ends_at_the_last_whole_commit(path, commits):
    size = path.stat().st_size
    for length in range(size - 1, HEADER_FRAME_BYTES - 1, -1):
        if HEADER_FRAME_BYTES + 50 < length < size - 1000 and length % 97:
            continue
        os.truncate(path, length)
        scanned = Scanned(path)
        whole = [commit for commit in commits if commit.offset_end <= length]
        assert scanned.commits == whole
        assert (scanned.scan.flaw is None) == (length in boundaries(commits))


def test_zeros_inside_a_commit_are_a_flaw(path, commits):
    data = path.read_bytes()
    second = commits[1]
    middle = second.entries[0].offset
    path.write_bytes(data[:middle] + bytes(len(data) - middle))
    scanned = Scanned(path)
    assert tuple(scanned.commits) == commits[:1]
    assert "not whole" in str(scanned.scan.flaw)


def written(path, *frames):
    """Write frames of (kind, flags, body) where the first commit begins."""
    data, offset = path.read_bytes()[:HEADER_FRAME_BYTES], HEADER_FRAME_BYTES
    for kind, flags, body in frames:
        data += frame.encode(SEED, offset, kind, flags, body)
        offset = len(data)
    path.write_bytes(data)
    return path


def body(position, name="x", durable=HEADER_FRAME_BYTES):
    return event_format.encode_body(position, durable, event_format.encode(event(name)))


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([(frame.SEGMENT, 0, b"s"), (frame.EVENT, 1, body(0))], "is misplaced"),
        ([(frame.PACK_INDEX, 0, b"s"), (frame.EVENT, 1, body(0))], "is misplaced"),
        ([(frame.CHUNK, 1, record("c", 100))], "is misplaced"),
        ([(frame.CHUNK, 0, record("c", 100))], "not whole"),
        ([(frame.EVENT, 0, body(0))], "not whole"),
        ([(frame.EVENT, 1, body(1))], "position 1"),
        ([(frame.EVENT, 0, body(0)), (frame.EVENT, 1, body(0))], "position 0"),
        ([(frame.EVENT, 1, b"short")], "is misplaced"),
        ([(frame.EVENT, 1, body(0)[:-3])], "no event"),
        ([(frame.CHUNK, 0, b"no digest"), (frame.EVENT, 1, body(0))], "is misplaced"),
    ],
)
def test_whole_frames_in_a_wrong_order_are_a_flaw(path, frames, words):
    scanned = Scanned(written(path, *frames))
    assert scanned.commits == []
    assert scanned.scan.flaw is not None
    assert words in str(scanned.scan.flaw)
    assert scanned.scan.offset == HEADER_FRAME_BYTES


def test_an_event_of_a_newer_version_is_refused_and_not_taken_for_a_flaw(path):
    newer = event_format.encode(event("x")).replace(b'"schema":1', b'"schema":3')
    written(path, (frame.EVENT, 1, event_format.encode_body(0, 0, newer)))
    with pytest.raises(UnsupportedError):
        Scanned(path)


def test_knows_the_highest_durable_that_was_named(path):
    frames = [(frame.EVENT, 1, body(n, f"n{n}", durable=d)) for n, d in enumerate((108, 500, 300))]
    assert Scanned(written(path, *frames)).scan.durable == 500


def test_finds_events_after_damage(path, commits):
    data = path.read_bytes()
    last = commits[-1]
    damaged = commits[0].offset_end
    rest = bytearray(data[damaged:])
    rest[3] ^= 0xFF
    # The last commit was appended where the first batch had ended, and that was durable then.
    assert durable_after(bytes(rest), SEED, damaged) == commits[2].offset_end
    assert durable_after(bytes(rest), SEED, damaged + 1) == 0, "bound to the offset"
    assert durable_after(bytes(rest), segment.seed(STORE_ID, 1, 0), damaged) == 0
    assert durable_after(data[last.offset_end :], SEED, last.offset_end) == 0
    assert durable_after(b"CK" * 500 + b"CK\x02", SEED, 0) == 0
    assert durable_after(b"", SEED, 0) == 0


@pytest.mark.parametrize("size", [10, 3_000, 5_000, 60_000])
def test_finds_the_event_before_a_place(path, size):
    """However long it is, and whatever looks like a frame inside of it."""
    facts = {"text": ("CK\x02" * size)[:size].replace("\x02", "+")}
    fact = msgspec.structs.replace(event("x"), facts=facts)
    body_ = event_format.encode_body(7, 108, event_format.encode(fact))
    written(path, (frame.CHUNK, 0, record("c", 100)), (frame.EVENT, 1, body_))
    end = path.stat().st_size
    fd = os.open(path, os.O_RDONLY)
    leaf = event_format.leaf_hash(event_format.encode(fact))
    assert event_before(WrittenSegment(Disk(), fd), SEED, end) == (7, leaf, True)
    for wrong in (end - 1, end + 1, HEADER_FRAME_BYTES + 116, HEADER_FRAME_BYTES, 0):
        assert event_before(WrittenSegment(Disk(), fd), SEED, wrong) is None
    assert event_before(WrittenSegment(Disk(), fd), SEED + 1, end) is None
    os.close(fd)


def test_an_event_inside_a_chunk_is_no_witness_of_its_own(tmp_path):
    """A record may hold the bytes of a log; a search must not step into a checked frame."""
    root = tmp_path / "outer"
    log = create_log(root)
    (path,) = segment_paths(root)
    inner = frame.encode(SEED, 10_000, frame.EVENT, 1, body(3, durable=9_999))
    log.close()
    written(path, (frame.CHUNK, 0, record("c", 32) + inner), (frame.EVENT, 1, body(0)))
    rest = path.read_bytes()[HEADER_FRAME_BYTES:]
    # Its checksum names another offset, so it does not count even where the search finds it.
    assert durable_after(rest, SEED, HEADER_FRAME_BYTES) == HEADER_FRAME_BYTES


# --- stepping over damage ---------------------------------------------------------------------


def frames_of(path):
    return list(frame.walk(SEED, 0, path.read_bytes()))


def steps(path, **options):
    return Scanned(path, stop=path.stat().st_size, steps_over=True, **options)


def spoil(path, begin, end, data=None):
    whole = path.read_bytes()
    path.write_bytes(whole[:begin] + (data or bytes(end - begin)) + whole[end:])


@pytest.mark.parametrize("window_bytes", [1, 17, 1000, 1 << 20])
@pytest.mark.parametrize("what", ["body", "zeros", "noise", "length", "kind", "magics"])
def test_the_events_behind_a_damaged_chunk_are_read(path, commits, what, window_bytes):
    begin, end = next((b, e) for kind, _, b, e in frames_of(path) if kind == frame.CHUNK)
    damage = {
        "body": (begin + 100, begin + 101),
        "zeros": (begin, end),
        "noise": (begin, end, os.urandom(end - begin)),
        "length": (begin + 4, begin + 8, b"\xff\xff\x01\x00"),
        "kind": (begin + 2, begin + 3, b"\x02"),
        "magics": (begin, end, (b"CK\x03\x00\x20\x00\x00\x00" * end)[: end - begin]),
    }[what]
    spoil(path, *damage)
    strict, scanned = Scanned(path), steps(path, window_bytes=window_bytes)
    assert len(strict.commits) == 1
    assert [one.entries for one in scanned.commits] == [one.entries for one in commits]
    assert [one.raw for one in scanned.commits] == [one.raw for one in commits]
    assert (scanned.scan.position, scanned.scan.flaw) == (7, None)
    places = [place for one in scanned.commits for place in one.placements]
    whole = [place for one in commits for place in one.placements]
    # Where its head is whole, who looks for that chunk finds it damaged.
    assert places == (whole if what == "body" else whole[1:])


def test_of_neighbours_that_are_damaged_none_hides_an_event(path, commits):
    """Every pair of frames: only where both are chunks are the events all there."""
    frames, whole = frames_of(path), path.read_bytes()
    for (one, _, begin, _), (other, _, _, end) in zip(frames[1:], frames[2:], strict=False):
        spoil(path, begin, end)
        scanned = steps(path)
        is_told = scanned.scan.flaw is not None or scanned.scan.position != 7
        assert is_told == (frame.EVENT in (one, other))
        shown = [entry for commit in scanned.commits for entry in commit.entries]
        assert shown == [entry for commit in commits for entry in commit.entries][: len(shown)]
        path.write_bytes(whole)


def test_an_event_in_a_chunk_s_bytes_counts_for_nothing(tmp_path):
    """Somebody stored a whole event frame, made for the place where it comes to lie."""
    log = create_log(tmp_path / "store")
    append(log, group("a"))
    start = log.published.read().offset
    at = start + frame.HEADER_BYTES + 52 + 40
    body = struct.pack("<QQ", 1, start) + event_format.encode(event("forged"))
    forged = frame.encode(SEED, at, frame.EVENT, frame.COMMIT, body)
    payload = record("x", 92) + forged
    made = append(log, [msgspec.structs.replace(group("b")[0], records=(payload,))], group("c"))
    log.close()
    (path,) = segment_paths(tmp_path / "store")
    spoil(path, start + 40, start + 41)
    assert steps(path).commits[1].entries == made[0].entries, "its length leads over it"
    spoil(path, start + 4, start + 8, b"\xff\xff\xff\x0f")
    scanned = steps(path)
    assert scanned.scan.flaw, "where the length is lost the true event contradicts the forged one"
