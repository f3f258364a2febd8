from __future__ import annotations

import shutil
import threading

import pytest

from ckptlog.errors import LogCorruptionError, OtherTimelineError
from ckptlog.formats.segment import HEADER_FRAME_BYTES
from ckptlog.log.follower import Follower
from ckptlog.model.cursor import BEGINNING, Cursor, after_commit, after_entry
from tests.log.sample import (
    StillEnvironment,
    append,
    create_log,
    fill,
    group,
    open_log,
    segment_paths,
)


@pytest.fixture
def root(tmp_path):
    """Three segments: a b, c d, and e with f and g (one commit of three events)."""
    root = tmp_path / "store"
    log = create_log(root, segment_bytes=13_000)
    fill(log, "abcd", record_bytes=6000)
    append(log, group("e", "f", "g", record_bytes=3000))
    log.close()
    assert len(segment_paths(root)) == 3
    return root


@pytest.fixture
def log(root):
    log = open_log(root, read_only=True)
    yield log
    log.close()


def follower(log, cursor=BEGINNING, **options):
    return Follower(log.reader, log.published, cursor, **options)


def ids(commits):
    return [entry.event.id for commit in commits for entry in commit.entries]


def cursors(log):
    """Return the cursor at every position, inside of commits too."""
    found = [BEGINNING]
    for commit in log.reader.commits():
        pairs = zip(commit.entries, commit.leaves, strict=True)
        found.extend(after_entry(entry, leaf) for entry, leaf in pairs)
    return found


def without_place(cursor):
    return Cursor(cursor.position, cursor.leaf)


def test_delivers_everything_from_the_beginning_and_then_nothing(log):
    one = follower(log)
    assert ids(one.commits()) == [*"abcdefg"]
    assert one.cursor == cursors(log)[-1]
    assert ids(one.commits()) == []
    assert one.lag == 0


@pytest.mark.parametrize("position", range(8))
@pytest.mark.parametrize("change", [lambda cursor: cursor, without_place])
def test_goes_on_at_any_position_with_and_without_a_place(log, position, change):
    one = follower(log, change(cursors(log)[position]))
    assert one.lag == 7 - position
    got = list(one.commits())
    assert ids(got) == [*"abcdefg"][position:]
    if position in (5, 6):  # inside of the last commit: its rest, with the chunks of the rest
        assert len(got[0].placements) == len(got[0].leaves) == 7 - position
        whole = list(log.reader.commits())[-1]
        assert got[0].entries == whole.entries[position - 4 :]
        assert got[0].placements == whole.placements[position - 4 :]
    assert one.cursor == cursors(log)[-1]


@pytest.mark.parametrize("position", range(1, 8))
@pytest.mark.parametrize(
    "wrong",
    [
        {"offset": HEADER_FRAME_BYTES},
        {"offset": 10**9},
        {"offset": 1},
        {"offset": -5},
        {"container": "log/00000000000000000099.0.seg"},
        {"container": "packs/x.pack"},
        {"container": "../lock", "offset": 7},
    ],
)
def test_a_wrong_place_is_only_a_hint(log, position, wrong):
    right = cursors(log)[position]
    fields = {name: getattr(right, name) for name in right.__struct_fields__} | wrong
    assert ids(follower(log, Cursor(**fields)).commits()) == [*"abcdefg"][position:]


def test_who_fails_in_the_middle_gets_the_same_commit_again(log):
    one = follower(log)
    for commit in one.commits():
        if ids([commit]) == ["c"]:
            break
    assert one.cursor.position == 2
    assert ids(one.commits()) == [*"cdefg"]


def test_the_cursor_of_the_commit_in_hand(log):
    one = follower(log)
    for commit in one.commits():
        taken = after_commit(commit)
        assert one.cursor.position == commit.entries[0].position
        assert ids(follower(log, taken).commits()) == [*"abcdefg"][taken.position :]


def test_stops_at_an_older_end(log, root):
    old = log.published.read()
    writer = open_log(root)
    fill(writer, "xy")
    writer.close()
    one = follower(log)
    assert ids(one.commits(old)) == [*"abcdefg"]
    assert ids(one.commits()) == ["x", "y"]


def test_shows_nothing_that_is_not_published(log, root):
    writer = open_log(root, is_durable=False)
    fill(writer, "xy")
    one = follower(log, cursors(log)[-1])
    assert ids(one.commits()) == []
    assert not one.wait(0)
    writer.flush()
    assert one.wait(0)
    assert ids(one.commits()) == ["x", "y"]
    writer.close()


def test_a_cursor_at_a_segment_boundary_may_name_either_side(log, root):
    before = cursors(log)[2]  # names the end of the first segment
    assert before.container.endswith("00000000000000000000.0.seg")
    after = Cursor(2, before.leaf, f"log/{segment_paths(root)[1].name}", HEADER_FRAME_BYTES)
    assert ids(follower(log, before).commits()) == ids(follower(log, after).commits())


# --- other timelines -------------------------------------------------------------------------


@pytest.mark.parametrize("position", range(1, 8))
def test_another_event_before_the_cursor_is_another_timeline(log, position):
    right = cursors(log)[position]
    for wrong in (
        Cursor(position, bytes(31) + b"x", right.container, right.offset),
        Cursor(position, bytes(32)),
    ):
        with pytest.raises(OtherTimelineError) as caught:
            list(follower(log, wrong).commits())
        assert caught.value.context == {"position": position}
        assert caught.value.hint


def test_a_cursor_beyond_the_end_is_another_timeline(log):
    for act in (lambda one: list(one.commits()), lambda one: one.wait(0)):
        with pytest.raises(OtherTimelineError):
            act(follower(log, Cursor(8, bytes(32))))


def test_a_store_set_back_and_written_on_is_noticed_by_who_lives_through_it(root, tmp_path):
    """Shorter, as long, and longer than before; the follower is alive or comes back."""
    backup = tmp_path / "backup"
    shutil.copytree(root, backup)
    for extra, length in (("xyz", 1), ("xyz", 3), ("x", 3)):
        shutil.rmtree(root)
        shutil.copytree(backup, root)
        writer = open_log(root)
        fill(writer, extra)
        reading = open_log(root, read_only=True)
        alive = follower(reading)
        assert ids(alive.commits()) == [*"abcdefg", *extra]
        writer.close()
        # The files are replaced in place, as a restore does.
        for path in backup.joinpath("log").iterdir():
            shutil.copyfile(path, root / "log" / path.name)
        other = open_log(root)
        fill(other, "XYZ"[:length])
        fresh = open_log(root, read_only=True)
        for one in (alive, follower(fresh, alive.cursor)):
            with pytest.raises(OtherTimelineError):
                list(one.commits())
        other.close()
        reading.close()
        fresh.close()


def test_an_end_left_old_by_a_power_cut_is_no_other_timeline(root):
    """The end is not synced: after a power cut an older one can be there, until somebody writes."""
    path = root / "log" / "end"
    old = path.read_bytes()
    writer = open_log(root)
    fill(writer, "xy")
    writer.abandon()
    reading = open_log(root, read_only=True)
    one = follower(reading)
    assert ids(one.commits()) == [*"abcdefgxy"]
    path.write_bytes(old)
    back = follower(reading, one.cursor)
    for each in (one, back):
        assert ids(each.commits()) == []
        assert not each.wait(0)
        assert each.lag == 0
    for wrong in (
        without_place(one.cursor),
        Cursor(9, bytes(32), one.cursor.container, one.cursor.offset),
        Cursor(10, one.cursor.leaf, one.cursor.container, one.cursor.offset),
        Cursor(9, one.cursor.leaf, one.cursor.container, 10**9),
        Cursor(9, one.cursor.leaf, "log/00000000000000000099.0.seg", one.cursor.offset),
    ):
        with pytest.raises(OtherTimelineError):
            list(follower(reading, wrong).commits())
    writer = open_log(root)
    fill(writer, "z")
    assert ids(back.commits()) == ["z"]
    writer.close()
    reading.close()


def test_what_a_failed_sync_left_behind_a_segments_end_is_no_past(tmp_path):
    """The bytes are whole events of this store, at this position; but they are dead."""
    root = tmp_path / "store"
    log = create_log(root, is_durable=False)
    fill(log, "ab")
    log.flush()
    (dead,) = append(log, group("x"))
    log._abandon_segment()  # as a sync error does
    fill(log, "yz")
    log.flush()
    with pytest.raises(OtherTimelineError):
        list(follower(log, after_commit(dead)).commits())
    assert ids(follower(log, cursors(log)[3]).commits()) == ["z"]
    log.close()


def test_a_store_set_back_to_the_beginning_of_the_living_ones_segment(tmp_path):
    """Its header has the same name and another leaf hash; what was read of it is not believed."""
    root, twin = tmp_path / "store", tmp_path / "twin"
    for folder, names in ((root, ("a", "b", "c")), (twin, ("a", "B", "c"))):
        log = create_log(folder, segment_bytes=13_000)
        fill(log, names, record_bytes=6000)
        log.close()
    reading = open_log(root, read_only=True)
    alive = follower(reading)
    for commit in alive.commits():
        if ids([commit]) == ["c"]:
            break
    assert alive.cursor.position == 2
    for path in segment_paths(twin):
        shutil.copyfile(path, root / "log" / path.name)
    shutil.copyfile(twin / "log" / "end", root / "log" / "end")
    with pytest.raises(OtherTimelineError):
        list(alive.commits())
    reading.close()


# --- damage ----------------------------------------------------------------------------------


def test_damage_behind_the_cursor_stops_nobody(root, log):
    at = cursors(log)
    path = segment_paths(root)[1]
    data = bytearray(path.read_bytes())
    data[at[3].offset - 20] ^= 1  # in event c
    path.write_bytes(data)
    assert ids(follower(log, at[3]).commits()) == [*"defg"]
    assert ids(follower(log, at[4]).commits()) == [*"efg"]
    with pytest.raises(LogCorruptionError):
        list(follower(log, without_place(at[3])).commits())
    one = follower(log)
    with pytest.raises(LogCorruptionError):
        list(one.commits())
    assert one.cursor.position == 2


def test_a_damaged_header_at_the_cursor_is_told(root, log):
    at = cursors(log)[2]
    path = segment_paths(root)[1]
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    with pytest.raises(LogCorruptionError) as caught:
        list(follower(log, without_place(at)).commits())
    assert str(path) in caught.value.message
    with pytest.raises(LogCorruptionError):
        log.reader.locate(2)


def test_a_lost_end_is_an_error_and_never_an_empty_log(root, log):
    path = root / "log" / "end"
    kept = path.read_bytes()
    path.unlink()
    one = follower(log)
    with pytest.raises(LogCorruptionError) as caught:
        list(one.commits())
    assert "published end" in caught.value.message
    assert not one.wait(0)
    assert one.lag == 0
    path.write_bytes(kept)
    assert one.wait(0)
    assert one.lag == 7


# --- waiting ---------------------------------------------------------------------------------


class StepEnvironment(StillEnvironment):
    """A clock that sleeping moves."""

    def __init__(self):
        super().__init__()
        self.time_s = 100.0
        self.slept = []

    def monotonic_s(self):
        return self.time_s

    def sleep(self, duration_s):
        self.slept.append(duration_s)
        self.time_s += duration_s


def test_waits_no_longer_than_it_may(log):
    world = StepEnvironment()
    one = follower(log, cursors(log)[-1], environment=world, poll_s=0.4)
    assert not one.wait(1.0)
    assert world.slept == pytest.approx([0.4, 0.4, 0.2])
    world.slept.clear()
    assert not one.wait(0)
    assert world.slept == []


def test_a_wake_up_without_a_cause_and_one_that_never_comes(log, root):
    """Neither is believed: what counts is the end, looked at after each."""
    writer = open_log(root)
    calls = []

    def wake_up(timeout_s):
        calls.append(timeout_s)
        if len(calls) == 5:
            fill(writer, "x")

    one = follower(log, cursors(log)[-1], wake_up=wake_up, poll_s=0.25)
    assert one.wait()
    assert calls == [0.25] * 5
    assert ids(one.commits()) == ["x"]
    writer.close()


def test_wakes_for_what_another_thread_commits(log, root):
    one = follower(log, cursors(log)[-1], poll_s=0.002)
    writer = open_log(root)
    got = []

    def consume():
        while len(got) < 20:
            assert one.wait(60)
            got.extend(ids(one.commits()))

    thread = threading.Thread(target=consume)
    thread.start()
    fill(writer, [f"n{number}" for number in range(20)])
    thread.join()
    assert got == [f"n{number}" for number in range(20)]
    writer.close()
