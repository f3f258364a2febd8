"""What stands beyond an older published end, as who only looks judges it: just as recovery does."""

from __future__ import annotations

import shutil

import pytest

from ckptlog.errors import InputOutputError, LogCorruptionError
from ckptlog.formats import end as end_format
from ckptlog.log.outlook import look
from ckptlog.log.recovery import Recovery
from ckptlog.log.segments import Segments
from ckptlog.storage.disk import Disk
from tests.log.sample import (
    STORE_ID,
    StillEnvironment,
    append,
    create_log,
    group,
    open_log,
    segment_paths,
)

ROLLED, SHORT = 1100, 600


class LookingDisk(Disk):
    """Lets nobody change anything."""

    def refuse(self, *given):
        raise AssertionError(given)

    create = open_write = write = sync = sync_directory = refuse
    truncate = rename = remove = write_atomically = refuse


class HastyDisk(Disk):
    """Syncs nothing: thousands of recoveries are run here."""

    def sync(self, fd):
        pass

    def sync_directory(self, path):
        pass

    def write_atomically(self, path, data):
        path.write_bytes(data)


def end_of(root):
    path = root / "log" / "end"
    return end_format.decode(path.read_bytes(), STORE_ID) if path.exists() else None


def looked(root, disk=None, published=None):
    disk = disk or LookingDisk()
    segments = Segments(root / "log", STORE_ID, disk)
    return look(segments, STORE_ID, StillEnvironment(disk), published or (lambda: end_of(root)))


def recovered(root):
    """Return where recovery ends; None where it raises."""
    disk = HastyDisk()
    run = Recovery(Segments(root / "log", STORE_ID, disk), STORE_ID, StillEnvironment(disk)).run
    try:
        tail = run(end_of(root)).tail
    except LogCorruptionError:
        return None
    return tail.position, tail.first, tail.offset, tail.leaf


def place(end):
    return end.position, end.first, end.offset, end.leaf


def grown(root, segment_bytes):
    """Make a log of nine events, the last append one of two commits; its end is that of two."""
    log = create_log(root, segment_bytes=segment_bytes)
    append(log, group("a", record_bytes=80))
    append(log, group("b"))
    old = (root / "log" / "end").read_bytes()
    append(log, group("c", record_bytes=90))
    append(log, group("d", "e"))
    append(log, group("f", record_bytes=100))
    append(log, group("g", record_bytes=80), group("h", "i", record_bytes=80))
    log.close()
    (root / "log" / "end").write_bytes(old)
    return root


@pytest.fixture(params=["flat", "rolled"])
def root(request, tmp_path):
    found = grown(tmp_path / "store", 1 << 20 if request.param == "flat" else ROLLED)
    assert (len(segment_paths(found)) > 1) == (request.param == "rolled")
    return found


def damaged(data, at, kind, length):
    """Return data with one damage; the length is that of the frames about it, or more."""
    data = bytearray(data)
    if kind == "flip":
        data[at] ^= 0x41
    elif kind == "cut":
        del data[at:]
    else:
        data[at : at + length] = (b"\0" if kind == "zero" else b"\x5a") * len(
            data[at : at + length]
        )
    return bytes(data)


@pytest.mark.parametrize(
    ("kind", "length"), [("flip", 1), ("cut", 1), ("zero", 300), ("noise", 30)]
)
def test_who_looks_says_damaged_where_recovery_raises(root, tmp_path, kind, length):
    """All over the bytes beyond the end; where nothing is damaged it ends where recovery does."""
    end, seen = end_of(root), set()
    for path in segment_paths(root):
        sound = path.read_bytes()
        start = end.offset if int(path.name[:20]) == end.first else 0
        for at in range(start, len(sound), 7):
            path.write_bytes(damaged(sound, at, kind, length))
            found = looked(root)
            shutil.rmtree(tmp_path / "other", ignore_errors=True)
            shutil.copytree(root, tmp_path / "other")
            there = recovered(tmp_path / "other")
            assert (found.damage is None) == (there is not None), (path.name, at)
            if there is not None:
                assert place(found.end) == there, (path.name, at)
            seen.add(found.damage is None)
        path.write_bytes(sound)
    assert False in seen or kind == "cut"
    assert True in seen


def test_a_missing_segment_beyond_the_end(tmp_path):
    root = grown(tmp_path / "store", SHORT)
    whole = looked(root)
    assert len(segment_paths(root)) > 2
    segment_paths(root)[1].unlink()
    found = looked(root)
    assert (found.damage is not None, found.end) == (True, whole.end)
    assert "one is missing" in found.damage.message
    assert found.where == "log"


def spots(root):
    """Return the offset of each event beyond the end of a log of one segment."""
    log = open_log(root, read_only=True)
    entries = [one for commit in log.reader.commits() for one in commit.entries]
    log.close()
    return {one.event.id: (one.offset, one.length) for one in entries}


@pytest.fixture
def flat(tmp_path):
    """A log of one segment, where its events stand, and its real end."""
    root = grown(tmp_path / "store", 1 << 20)
    old = (root / "log" / "end").read_bytes()
    whole = looked(root).end
    (root / "log" / "end").write_bytes(end_format.encode(whole))
    places = spots(root)
    (root / "log" / "end").write_bytes(old)
    return root, places, whole


def blot(root, offset, length):
    (path,) = segment_paths(root)
    data = path.read_bytes()
    path.write_bytes(data[:offset] + bytes(length) + data[offset + length :])


def test_over_damage_the_log_ends_where_it_ended(flat):
    root, places, whole = flat
    blot(root, *places["c"])
    found = looked(root)
    assert (found.damage.code, found.end) == ("log.corrupt", whole)
    assert found.where == f"{found.file}:{end_of(root).offset}"


def test_a_torn_tail_behind_damage_stays_one(flat):
    """The last append was torn: what is damaged before it was durable, and nothing of it counts."""
    root, places, _ = flat
    blot(root, *places["c"])
    offset, length = places["f"]
    blot(root, offset + length, 60)  # the last append, from its beginning on
    found = looked(root)
    assert found.damage is not None
    assert (found.end.position, found.end.offset) == (6, offset + length)


def test_damage_that_goes_on_into_the_last_append(flat):
    """Nothing tells how many events lie before it: what is whole behind counts."""
    root, places, whole = flat
    begin = places["f"][0]
    blot(root, begin, places["h"][0] - begin)
    found = looked(root)
    assert (found.damage is not None, found.end) == (True, whole)


def test_nothing_tells_the_end_where_headers_contradict_it(tmp_path):
    """A segment says that less was valid of the one before it than was published."""
    root = grown(tmp_path / "store", ROLLED)
    whole = looked(root).end
    first = segment_paths(root)[0]
    end = end_of(root)
    other = end_format.End(
        STORE_ID, whole.first - 1, 0, 0, first.stat().st_size + 90, end.leaf, end.boot
    )
    (root / "log" / "end").write_bytes(end_format.encode(other))
    found = looked(root)
    assert (found.damage is not None, found.end) == (True, None)
    assert recovered(root) is None


def test_nothing_tells_the_end_where_the_newest_segment_is_lost(tmp_path):
    root = grown(tmp_path / "store", ROLLED)
    path = segment_paths(root)[-1]
    path.write_bytes(b"\x5a" * path.stat().st_size)
    found = looked(root)
    assert (found.damage is not None, found.end, found.file) == (True, None, f"log/{path.name}")


def test_an_end_that_moves_was_recovered_by_who_moved_it(flat):
    root, places, whole = flat
    blot(root, *places["c"])
    ends = iter([end_of(root), whole])
    found = looked(root, published=lambda: next(ends))
    assert (found.end, found.damage) == (whole, None)


def test_a_lost_end_is_not_judged(flat):
    root, _, _ = flat
    (root / "log" / "end").unlink()
    found = looked(root)
    assert (found.end, found.damage) == (None, None)


def test_a_medium_that_refuses_is_told_and_the_published_end_stays(flat):
    class Refusing(LookingDisk):
        def read(self, fd, length, offset):
            if offset >= end_of(root).offset:
                raise InputOutputError("no")
            return super().read(fd, length, offset)

    root, _, _ = flat
    found = looked(root, Refusing())
    assert (found.end, found.damage.code) == (end_of(root), InputOutputError.code)
