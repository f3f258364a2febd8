"""What recovery makes of a folder: torn tails, whole commits, torn rolls, corruption.

The order of its writes, and what a crash at each of them leaves, is in faults/test_crash_table.
"""

from __future__ import annotations

import os
import shutil

import pytest

from ckptlog.errors import FullError, InputOutputError, LogCorruptionError, UnsupportedError
from ckptlog.formats import end as end_format
from ckptlog.formats import frame, segment
from ckptlog.formats.event import LEAF_EMPTY
from ckptlog.formats.segment import HEADER_FRAME_BYTES, SegmentHeader
from ckptlog.log.published import PublishedEnd
from ckptlog.log.recovery import Recovery
from ckptlog.log.segments import Segments
from ckptlog.storage.disk import Disk
from tests.log.sample import (
    STORE_ID,
    StillEnvironment,
    append,
    create_log,
    fill,
    group,
    open_log,
    published_ids,
    segment_paths,
)


class RecordingDisk(Disk):
    """Notes every change, without syncing."""

    def __init__(self):
        self.acts = []

    def write(self, fd, data, offset):
        self.acts.append(("write", offset, len(data)))
        super().write(fd, data, offset)

    def sync(self, fd):
        self.acts.append(("sync",))

    def sync_directory(self, path):
        self.acts.append(("sync folder",))

    def truncate(self, fd, length):
        self.acts.append(("truncate", length))
        super().truncate(fd, length)

    def rename(self, old, new):
        self.acts.append(("rename", old.name))
        super().rename(old, new)

    def write_atomically(self, path, data):
        self.acts.append(("aside", path.name, len(data)))
        super().write_atomically(path, data)


def recover(root, disk=None, end=True):
    """Run a recovery from the end on disk (None: from an end given), return (recovered, acts)."""
    disk = disk or RecordingDisk()
    if end is True:
        end = PublishedEnd(root / "log" / "end", STORE_ID, disk, read_only=True).read()
    segments = Segments(root / "log", STORE_ID, disk)
    return Recovery(segments, STORE_ID, StillEnvironment(disk)).run(end), disk.acts


def tree(root):
    return {path.name: path.read_bytes() for path in (root / "log").iterdir()}


@pytest.fixture
def root(tmp_path):
    """Two segments, closed; the newest holds commits d (small), e and f (1 batch), g."""
    root = tmp_path / "store"
    log = create_log(root, segment_bytes=20_000)
    fill(log, "abc", record_bytes=6000)
    fill(log, "d", record_bytes=6000)
    append(log, group("e", record_bytes=3000), group("f", record_bytes=3000))
    fill(log, "g", record_bytes=100)
    log.close()
    assert len(segment_paths(root)) == 2
    return root


@pytest.fixture
def newest(root):
    return segment_paths(root)[-1]


def commits_of(root):
    log = open_log(root, read_only=True)
    commits = list(log.reader.commits())
    log.close()
    return commits


def old_end(root, count):
    """Publish an end as it was after `count` commits."""
    commit = commits_of(root)[count - 1]
    first = int(commit.container[4:24])
    path = root / "log" / "end"
    boot = end_format.decode(path.read_bytes(), STORE_ID).boot
    end = end_format.End(
        STORE_ID, commit.position_next, first, 0, commit.offset_end, commit.leaf, boot
    )
    path.write_bytes(end_format.encode(end))
    return commit


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def check_corrupt(root, words, path=None):
    before = tree(root)
    with pytest.raises(LogCorruptionError) as caught:
        recover(root)
    assert words in caught.value.message
    assert tree(root) == before, "nothing may be changed"
    if path is not None:
        assert caught.value.context["path"] == str(path)
    return caught.value


# --- nothing to mend -------------------------------------------------------------------------


def test_a_closed_log_is_left_alone(root, newest):
    before = tree(root)
    recovered, acts = recover(root)
    assert acts == []
    assert tree(root) == before
    tail = recovered.tail
    assert (tail.position, tail.first, tail.generation) == (7, 3, 0)
    assert tail.offset == tail.durable == newest.stat().st_size
    assert (recovered.adopted, recovered.notes) == (0, ())


def test_zeros_after_the_end_are_left_for_the_next_commits(root, newest):
    size = newest.stat().st_size
    with newest.open("ab") as file:
        file.write(bytes(100_000))
    recovered, acts = recover(root)
    assert acts == []
    assert recovered.tail.offset == size


# --- whole commits beyond the end ------------------------------------------------------------


def test_whole_commits_beyond_the_end_are_written_again_and_synced(root):
    kept = old_end(root, 5)
    commits = commits_of(root)
    size = segment_paths(root)[-1].stat().st_size
    before = tree(root)
    recovered, acts = recover(root)
    assert recovered.adopted == 2
    assert acts == [("write", kept.offset_end, size - kept.offset_end), ("sync",)]
    assert tree(root) == before
    assert recovered.tail.position == 7
    assert len(commits) == 5


def test_an_end_in_an_older_segment_is_followed_through_the_roll(root, newest):
    old_end(root, 2)
    recovered, acts = recover(root)
    assert recovered.adopted == 5
    # The newest segment is in doubt as a whole: its header and its name too.
    assert acts == [("write", 0, newest.stat().st_size), ("sync",), ("sync folder",)]
    assert (recovered.tail.first, recovered.tail.position) == (3, 7)


def test_large_tails_are_written_again_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr("ckptlog.log.recovery._COPY_BYTES", 1000)
    root = tmp_path / "store"
    log = create_log(root)
    fill(log, "ab", record_bytes=3000)
    log.close()
    first = end_format.End(STORE_ID, 0, 0, 0, HEADER_FRAME_BYTES, LEAF_EMPTY, bytes(16))
    (root / "log" / "end").write_bytes(end_format.encode(first))
    before = tree(root)
    _, acts = recover(root)
    writes = [(act[1], act[2]) for act in acts if act[0] == "write"]
    stop = HEADER_FRAME_BYTES + sum(n for _, n in writes)
    assert [start for start, _ in writes] == list(range(HEADER_FRAME_BYTES, stop, 1000))
    assert tree(root) == before


# --- a torn tail -----------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [1, 3, 15, 16, 17, 100, 200])
def test_a_torn_commit_is_kept_aside_and_cut(root, newest, keep):
    kept = old_end(root, 6)
    data = newest.read_bytes()
    torn = data[kept.offset_end :][:keep]
    newest.write_bytes(data[: kept.offset_end] + torn + bytes(5000))
    recovered, acts = recover(root)
    assert recovered.tail.position == 6
    assert newest.read_bytes() == data[: kept.offset_end]
    (aside,) = (root / "log").glob("torn-*")
    assert aside.read_bytes() == torn.rstrip(b"\0")
    assert [act[0] for act in acts] == ["aside", "truncate", "sync"]
    (note,) = recovered.notes
    assert str(aside) in note


def test_whole_commits_before_a_torn_one_are_kept(root, newest):
    old_end(root, 3)
    data = newest.read_bytes()
    newest.write_bytes(data[:-50])
    recovered, _ = recover(root)
    assert recovered.tail.position == 6
    assert recovered.adopted == 3


def test_a_tail_that_begins_with_zeros_and_goes_on_is_torn(root, newest):
    """After a power cut the pages of a commit may be there in any order."""
    kept = old_end(root, 6)
    data = newest.read_bytes()
    rest = data[kept.offset_end :]
    newest.write_bytes(data[: kept.offset_end] + bytes(20) + rest[20:])
    recovered, _ = recover(root)
    assert recovered.tail.position == 6
    assert newest.stat().st_size == kept.offset_end


def test_a_batch_that_was_torn_in_the_middle_proves_nothing_about_itself(root, newest):
    """A later commit of the same write is whole: it names no more than where the write began."""
    kept = old_end(root, 4)
    middle = commits_of(root)[3].offset_end
    assert middle == kept.offset_end
    data = newest.read_bytes()
    both = data[: end_of(root, newest, 6)]
    newest.write_bytes(both)
    flip(newest, middle + 200)
    recovered, _ = recover(root)
    assert recovered.tail.position == 4
    assert newest.stat().st_size == kept.offset_end


def end_of(root, path, position):
    """Return the offset after the commit that ends before a position, read with the last end."""
    recovered, _ = recover(root)
    assert recovered.tail.position == 7
    log = open_log(root, read_only=True)
    end = end_format.End(STORE_ID, 7, 3, 0, recovered.tail.offset, recovered.tail.leaf, bytes(16))
    commits = list(log.reader.commits(stop=end))
    log.close()
    return next(c.offset_end for c in commits if c.position_next == position)


def test_no_room_to_keep_a_torn_rest_must_not_keep_the_store_from_opening(root, newest):
    class FullDisk(RecordingDisk):
        def write_atomically(self, path, data):
            raise FullError("No space is left.")

    kept = old_end(root, 6)
    newest.write_bytes(newest.read_bytes()[:-50])
    recovered, _ = recover(root, FullDisk())
    assert recovered.tail.position == 6
    assert newest.stat().st_size == kept.offset_end
    assert "no room" in recovered.notes[0]


def test_an_error_while_it_keeps_a_torn_rest_leaves_the_rest_where_it_was(root, newest):
    class SickDisk(RecordingDisk):
        def write_atomically(self, path, data):
            raise InputOutputError("The medium reported an error.")

    old_end(root, 6)
    newest.write_bytes(newest.read_bytes()[:-50])
    before = tree(root)
    with pytest.raises(InputOutputError):
        recover(root, SickDisk())
    assert tree(root) == before


# --- corruption ------------------------------------------------------------------------------


def test_a_flaw_before_commits_that_name_it_durable_is_corruption(root, newest):
    """Commits e and f were appended when d was durable, so a flaw in d is no torn tail."""
    kept = old_end(root, 3)
    assert "00.0.seg" in kept.container
    flip(newest, HEADER_FRAME_BYTES + 500)
    error = check_corrupt(root, "later commits say", newest)
    assert error.context["offset"] == HEADER_FRAME_BYTES
    assert error.context["position"] == 3


def test_a_flaw_before_a_successor_is_corruption(root):
    old_end(root, 1)
    older, _ = segment_paths(root)
    flip(older, older.stat().st_size - 100)
    check_corrupt(root, "its successor", older)


def test_a_segment_shorter_than_was_published_is_corruption(root, newest):
    os.truncate(newest, newest.stat().st_size - 1)
    check_corrupt(root, "were durable", newest)


def test_a_segment_shorter_than_its_successor_says_is_corruption(root):
    old_end(root, 1)
    older, _ = segment_paths(root)
    os.truncate(older, older.stat().st_size - 1)
    check_corrupt(root, "were durable", older)


def test_a_missing_newest_segment_is_corruption(root, newest):
    os.unlink(newest)
    check_corrupt(root, "missing", newest)


def test_a_missing_middle_segment_is_corruption(tmp_path):
    root = tmp_path / "store"
    log = create_log(root, segment_bytes=5_000)
    fill(log, "abc", record_bytes=6000)
    log.close()
    old_end(root, 1)
    os.unlink(segment_paths(root)[1])
    check_corrupt(root, "one is missing")


def test_a_log_without_any_segment_is_corruption(root):
    for path in segment_paths(root):
        os.unlink(path)
    check_corrupt(root, "missing")


def test_a_segment_that_ends_elsewhere_than_its_successor_says_is_corruption(root):
    """Files of two times side by side: the newer one's header contradicts the published end."""
    older, newest = segment_paths(root)
    kept = old_end(root, 3)
    header = SegmentHeader(STORE_ID, 3, 0, 0, 0, kept.offset_end - 500, kept.leaf, 1)
    newest.write_bytes(segment.encode(header))
    check_corrupt(root, "were published", older)


def test_a_successor_that_follows_other_events_is_corruption(root, newest):
    """A restored copy of a segment whose history went on differently."""
    kept = old_end(root, 2)
    commits = commits_of(root)
    assert len(commits) == 2
    older, _ = segment_paths(root)
    header = SegmentHeader(STORE_ID, 3, 0, 0, 0, older.stat().st_size, kept.leaf, 1)
    newest.write_bytes(segment.encode(header))
    check_corrupt(root, "its successor", older)


# --- a torn roll -----------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 60, HEADER_FRAME_BYTES - 1, HEADER_FRAME_BYTES, 4096])
def test_a_new_segment_without_a_whole_header_is_kept_aside(root, length):
    header = SegmentHeader(STORE_ID, 7, 0, 3, 0, 100, bytes(32), 1)
    path = root / "log" / segment.segment_name(7, 0)
    data = segment.encode(header)[: length and min(length, HEADER_FRAME_BYTES - 10)]
    path.write_bytes(data.ljust(length, b"\0"))
    recovered, acts = recover(root)
    assert recovered.tail.position == 7
    assert recovered.tail.first == 3
    assert not path.exists()
    assert acts == [("rename", path.name), ("sync folder",)]
    assert len(recovered.notes) == 1


def test_a_new_segment_whose_header_is_whole_is_gone_on_in(root, newest):
    tail = recover(root)[0].tail
    header = SegmentHeader(STORE_ID, 7, 0, 3, 0, tail.offset, tail.leaf, 1)
    (root / "log" / segment.segment_name(7, 0)).write_bytes(segment.encode(header))
    recovered, acts = recover(root)
    assert (recovered.tail.first, recovered.tail.offset) == (7, HEADER_FRAME_BYTES)
    assert acts == [("write", 0, HEADER_FRAME_BYTES), ("sync",), ("sync folder",)]


def test_an_empty_segment_that_was_replaced_is_gone_on_in_the_newer_generation(root):
    """The end still names the generation that met the sync error."""
    tail = recover(root)[0].tail
    folder = root / "log"
    for generation in (0, 1):
        header = SegmentHeader(STORE_ID, 7, generation, 3, 0, tail.offset, tail.leaf, 1)
        (folder / segment.segment_name(7, generation)).write_bytes(segment.encode(header))
    end = end_format.End(STORE_ID, 7, 7, 0, HEADER_FRAME_BYTES, tail.leaf, bytes(16))
    (folder / "end").write_bytes(end_format.encode(end))
    recovered, _ = recover(root)
    assert (recovered.tail.first, recovered.tail.generation) == (7, 1)
    log = open_log(root)
    fill(log, "h")
    assert published_ids(log) == [*"abcdefgh"]
    log.close()


@pytest.mark.parametrize("is_old", [False, True])
def test_a_damaged_header_in_front_of_commits_is_corruption(root, newest, is_old):
    """Never a torn roll, even when the published end is older: commits come after the header."""
    if is_old:
        old_end(root, 2)
    flip(newest, 30)
    check_corrupt(root, "header", newest)


def test_a_damaged_header_of_an_older_segment_is_corruption(root):
    older, _ = segment_paths(root)
    flip(older, 30)
    check_corrupt(root, "header", older)


def test_a_segment_of_a_newer_version_is_refused(root, newest):
    data = bytearray(newest.read_bytes()[:HEADER_FRAME_BYTES])
    body = bytearray(data[frame.HEADER_BYTES :])
    body[0] = 2
    newest.write_bytes(frame.encode(segment.seed(STORE_ID, 3, 0), 0, frame.SEGMENT, 0, bytes(body)))
    before = tree(root)
    with pytest.raises(UnsupportedError):
        recover(root)
    assert tree(root) == before


# --- afterwards ------------------------------------------------------------------------------


def test_recovery_twice_finds_nothing_more_to_do(root, newest):
    old_end(root, 3)
    newest.write_bytes(newest.read_bytes()[:-50])
    first, _ = recover(root)
    log = open_log(root)
    with log.exclusive(1.0) as tail:
        assert tail == first.tail
    log.close()
    _, acts = recover(root)
    assert acts == []


def test_a_copy_of_a_log_under_another_store_id_is_refused(root, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    disk = RecordingDisk()
    segments = Segments(copy / "log", bytes(16), disk)
    end = end_format.decode((copy / "log" / "end").read_bytes(), STORE_ID)
    with pytest.raises(LogCorruptionError):
        Recovery(segments, bytes(16), StillEnvironment(disk)).run(end)
    assert disk.acts == []
