from __future__ import annotations

import gc
import os
import shutil
import threading
import time

import pytest

from ckptlog.errors import (
    ArgumentError,
    CheckpointStorageError,
    ConsumerBusyError,
    LogCorruptionError,
    OtherTimelineError,
    StoreClosedError,
    UnacknowledgedError,
)
from ckptlog.formats import cursor as cursor_format
from ckptlog.model.cursor import BEGINNING, Cursor
from ckptlog.storage.environment import Environment
from tests.log.sample import STORE_ID, open_log, segment_paths
from tests.watch.conftest import Room, ids
from tests.watch.test_consumer import FaultyDisk


def stored(room, name="one"):
    """Return the position that a restart would begin at."""
    return cursor_format.newest(room.cursor_file(name).read_bytes()).cursor.position


# --- what is delivered -----------------------------------------------------------------------


def test_delivers_in_order_what_is_there_and_what_comes(room):
    room.add("a")
    room.add("b", "c")
    with room.watch() as events:
        assert ids([next(events), next(events), next(events)]) == [*"abc"]
        room.add("d")
        event = next(events)
        assert (event.event.id, event.position, event.type) == ("d", 3, "checkpoint.created")
        assert (event.checkpoint, event.task, event.state) == ("cp-d", "", "")
        assert event.time == "2026-01-01T00:00:00.000000Z"
        assert "cp-d" in repr(event)
        assert event.to_cloud_event()["source"] == f"urn:ckptlog:store:{STORE_ID.hex()}"
        assert event.id.startswith("3-")


def test_across_segments_and_with_chunks(room):
    names = [f"n{number}" for number in range(30)]
    for name in names:
        room.add(name, record_bytes=3000)
    assert len(segment_paths(room.root)) > 5
    assert room.take("one") == names


def test_without_follow_it_ends_at_the_end(room):
    assert room.take() == []
    room.add("a")
    assert room.take() == ["a"]


def test_ends_when_nothing_came_for_so_long(room):
    room.add("a")
    with room.watch(timeout_s=0.05) as events:
        assert ids(events) == ["a"]
        room.add("b")
        time.sleep(0.1)  # a slow consumer has not waited
        assert ids(events) == ["b"]
    with room.watch(timeout_s=0) as events:
        assert ids(events) == [*"ab"]


def test_events_that_are_not_durable_are_not_shown(room):
    writer = open_log(room.root, is_durable=False)
    from tests.log.sample import fill

    fill(writer, "xy")
    assert room.take() == []
    writer.flush()
    assert room.take() == [*"xy"]
    writer.close()


# --- acknowledging ---------------------------------------------------------------------------


def test_goes_on_behind_what_was_acknowledged(room):
    for names in ("a", "bcd", "e"):
        room.add(*names)
    for upto, rest in ((0, "bcde"), (2, "de"), (2, "de"), (3, "e"), (4, "")):
        with room.watch("one", follow=False) as events:
            for event in events:
                if event.position == upto:
                    events.ack(event)
        assert room.process().open("one", {"follow": False}) is not None
        gc.collect()
        with room.watch("one", follow=False) as events:
            assert ids(events) == [*rest]


def test_an_ack_is_durable_when_it_returns(room):
    room.add(*"abc")
    events = room.watch("one")
    assert stored(room) == 0
    for position in range(3):
        events.ack(next(events))
        assert stored(room) == position + 1
    events.close()


def test_an_ack_may_wait_to_become_durable(room):
    room.add(*"abc")
    events = room.watch("one", ack_interval_s=1000)
    for _ in range(3):
        events.ack(next(events))
    assert (stored(room), events.position, events.lag) == (0, 3, 0)
    events.close()
    assert stored(room) == 3


def test_an_ack_covers_everything_before_it(room):
    room.add(*"abcd")
    with room.watch("one") as events:
        taken = [next(events) for _ in range(3)]
        events.ack(taken[1])
        assert (events.position, events.lag) == (2, 2)
        events.ack(taken[0])  # older: nothing
        assert events.position == 2
        events.ack(taken[2].entry)
        assert events.position == 3
        events.ack(2)
        events.ack()
        assert (events.position, stored(room)) == (3, 3)
        next(events)
        events.ack(3)
        assert events.lag == 0


def test_what_was_not_delivered_cannot_be_acknowledged(room):
    room.add(*"ab")
    with room.watch("one") as events:
        with pytest.raises(ArgumentError):
            events.ack(0)
        next(events)
        for wrong in (1, 2, "a", 1.0):
            with pytest.raises(ArgumentError):
                events.ack(wrong)
        assert stored(room) == 0


def test_acknowledged_when_the_next_one_is_asked_for(room):
    room.add(*"abc")
    with room.watch("one", auto_ack=True, ack_interval_s=0) as events:
        next(events)
        assert stored(room) == 0
        next(events)
        assert stored(room) == 1
    with room.watch("one", auto_ack=True, follow=False) as events:
        assert ids(events) == [*"bc"]
    assert stored(room) == 3


def test_stopping_in_the_middle_of_one_leaves_it_to_come_again(room):
    room.add(*"abc")
    with pytest.raises(ZeroDivisionError), room.watch("one", auto_ack=True) as events:
        [1 / (1 - event.position) for event in events]
    assert room.take("one") == [*"bc"]


def test_a_cursor_that_cannot_be_written_is_an_error_and_can_be_written_later(room):
    room.add(*"abc")
    disk = FaultyDisk()
    process = room.process(environment=Environment(disk))
    events = process.open("one", {"watcher": False})
    first = next(events)
    disk.fails = "sync"
    for _ in range(2):
        with pytest.raises(CheckpointStorageError):
            events.ack(first)
    with pytest.raises(CheckpointStorageError):
        events.close()
    disk.fails = ""
    room.watch("one").close()  # the name is free all the same
    assert room.take("one") in ([*"abc"], [*"bc"])


def test_an_unnamed_one_has_nothing_to_acknowledge(room):
    room.add(*"abc")
    with room.watch(in_flight_max=1) as events:
        assert ids([next(events) for _ in range(3)]) == [*"abc"]
        events.ack()
        assert events.consumer == ""
    assert not (room.root / "consumers").exists()


# --- filters ---------------------------------------------------------------------------------


def test_what_is_left_out_moves_the_cursor_too(room):
    for name in ("a", "b", "x1", "c", "x2", "x3"):
        room.add(name)
    wanted = {"where": lambda entry: entry.event.id in "abc"}
    events = room.watch("one", follow=False, **wanted)
    assert ids(events) == [*"abc"]
    events.ack(1)
    assert (events.position, stored(room)) == (2, 2)
    events.ack(3)
    assert (events.position, events.lag, stored(room)) == (6, 0, 6)
    events.close()
    only = room.watch("other", follow=False, checkpoints="cp-none")
    assert ids(only) == []
    assert only.position == 6
    only.close()
    assert stored(room, "other") == 6


def test_an_error_in_the_filter_ends_nothing_and_loses_nothing(room):
    room.add("a")
    room.add("b", "c")
    faults = [ZeroDivisionError, None]

    def where(entry):
        if entry.event.id == "c" and (fault := faults.pop(0)):
            raise fault
        return True

    with room.watch("one", where=where, follow=False) as events:
        assert next(events).event.id == "a"
        with pytest.raises(ZeroDivisionError):
            next(events)
        assert ids(events) == [*"bc"]


# --- back-pressure ---------------------------------------------------------------------------


def test_no_more_is_taken_than_may_be_in_flight(room):
    for name in "abcdef":
        room.add(name)
    with room.watch("one", in_flight_max=3, ack_patience_s=0) as events:
        taken = [next(events) for _ in range(3)]
        for _ in range(2):
            with pytest.raises(UnacknowledgedError) as caught:
                next(events)
        assert caught.value.context["position"] == 0
        assert caught.value.retryable
        events.ack(taken[0])
        assert next(events).event.id == "d"
        events.ack()
        assert next(events).event.id == "e"


def test_the_next_one_waits_for_an_acknowledgement_of_another_thread(room):
    for name in "abc":
        room.add(name)
    with room.watch("one", in_flight_max=1, ack_patience_s=60) as events:
        first = next(events)
        timer = threading.Timer(0.05, events.ack, [first])
        timer.start()
        assert next(events).event.id == "b"
        timer.join()


def test_memory_holds_one_commit_however_much_there_is(room):
    for number in range(50):
        room.add(f"n{number}", f"m{number}")
    with room.watch("one") as events:
        for event in events:
            assert len(events._buffer) < 2
            assert len(events._in_flight) <= 2
            events.ack(event)
            if event.position == 99:
                break


# --- one at a time, ends ---------------------------------------------------------------------


def test_a_name_is_taken_once_in_a_process_too(room):
    events = room.watch("one")
    with pytest.raises(ConsumerBusyError):
        room.watch("one")
    with pytest.raises(ConsumerBusyError):
        room.watcher.reset("one", "end")
    with pytest.raises(ConsumerBusyError):
        room.watcher.remove("one")
    room.watch("two").close()
    events.close()
    room.watch("one").close()


def test_one_that_is_dropped_lets_go_of_its_name(room):
    room.add("a")
    for event in room.watch("one", auto_ack=True):
        assert event.position == 0
        break
    gc.collect()
    assert room.take("one") == ["a"]


def test_closed_it_gives_nothing_and_closing_again_is_fine(room):
    room.add(*"abc")
    events = room.watch("one")
    next(events)
    assert "position 0" in repr(events)
    events.close()
    events.close()
    assert "closed" in repr(events)
    assert ids(events) == []


def test_closing_wakes_whoever_waits(room):
    got = []
    for ending in (lambda events: events.close(), lambda events: room.watcher.close()):
        events = room.watch("one", poll_s=0.02)
        thread = threading.Thread(target=lambda: got.extend(events))  # noqa: B023
        thread.start()
        ending(events)
        thread.join(60)
        assert not thread.is_alive()
    assert got == []


def test_a_filter_may_close_it(room):
    room.add("a")
    events = room.watch("one", where=lambda entry: events.close() or True)
    assert ids(events) == []


def test_finish_delivers_what_is_there_and_ends(room):
    room.add("a")
    events = room.watch("one")
    assert next(events).event.id == "a"
    room.add("b")
    events.finish()
    room.add("c")
    assert ids(events)[:1] == ["b"]
    events.close()


def test_many_threads_take_each_event_once(room):
    names = [f"n{number}" for number in range(300)]
    for start in range(0, 300, 3):
        room.add(*names[start : start + 3])
    got = []
    with room.watch("one", follow=False) as events:

        def take():
            for event in events:
                got.append(event.event.id)

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(got) == sorted(names)


def test_a_forked_child_cannot_use_its_parents(room):
    room.add("a")
    events = room.watch("one")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            next(events)
        except StoreClosedError:
            events.close()
            status = 0
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    events.ack(next(events))
    with pytest.raises(ConsumerBusyError):
        room.watch("one")
    events.close()
    assert stored(room) == 1


# --- other histories, damage -----------------------------------------------------------------


def replaced(room, tmp_path, *names):
    """Set the store back to what it was, in place, and write on."""
    for path in (tmp_path / "backup" / "log").iterdir():
        shutil.copyfile(path, room.root / "log" / path.name)
    other = open_log(room.root)
    from tests.log.sample import fill

    fill(other, names)
    other.close()


@pytest.mark.parametrize("names", ["", "X", "XY", "XYZ"])
def test_a_store_that_was_set_back_is_noticed_by_the_living_and_by_those_who_return(
    room, tmp_path, names
):
    room.add("a")
    room.log.close()
    shutil.copytree(room.root, tmp_path / "backup")
    room.log = open_log(room.root)
    room.add("x")
    room.add("y")
    room.watch("later", start=2).close()
    alive = room.watch("one")
    events = [next(alive) for _ in range(3)]
    alive.ack(events[-1])
    room.log.abandon()
    replaced(room, tmp_path, *names)
    with pytest.raises(OtherTimelineError):
        next(alive)
    alive.close()
    faults = {one.name: one.fault for one in room.watcher.consumers()}
    assert faults == dict.fromkeys(("one", "later"), "log.other_timeline")
    for name in ("one", "later"):
        with pytest.raises(OtherTimelineError) as caught, room.watch(name) as events:
            next(events)
        assert caught.value.hint
    if len(names) < 3:
        room.watcher.reset("one", "beginning")
        assert room.take("one") == ["a", *names]
        assert room.watcher.consumers()[1].fault == ""
    room.log = open_log(room.root)


def test_a_store_whose_folder_was_replaced_is_read_where_it_is_now(room, tmp_path):
    """Whoever keeps the old file open would look at it for ever."""
    room.add("a")
    with room.watch("one") as events:
        events.ack(next(events))
        room.log.close()
        shutil.copytree(room.root, tmp_path / "copy")
        shutil.move(room.root, tmp_path / "aside")
        shutil.move(tmp_path / "copy", room.root)
        assert next(room.watch(timeout_s=0.05, start="end"), None) is None
        room.log = open_log(room.root)
        timer = threading.Timer(0.05, room.add, "b")
        timer.start()
        assert next(events).event.id == "b"
        timer.join()


def test_damage_where_the_store_was_replaced_is_told_as_that(room, monkeypatch):
    room.add("a")
    with room.watch("one") as events:
        next(events)
        other = Cursor(1, bytes(32), "log/00000000000000000000.0.seg", 500)
        monkeypatch.setattr(events, "_read", other)

        def damaged():
            raise LogCorruptionError("other events stood there")
            yield

        monkeypatch.setattr(events._follower, "commits", damaged)
        with pytest.raises(OtherTimelineError):
            next(events)


def test_damage_is_told_and_what_was_before_it_delivered(room):
    room.add("a")
    (path,) = segment_paths(room.root)
    with room.watch("one") as events:
        first = next(events)
        room.add("b")
        room.add("c")
        data = path.read_bytes()
        flipped = bytearray(data)
        flipped[first.entry.offset + first.entry.length + 40] ^= 1
        path.write_bytes(flipped)
        for _ in range(2):
            with pytest.raises(LogCorruptionError):
                next(events)
        path.write_bytes(data)
        assert ids([next(events), next(events)]) == [*"bc"]


def test_a_clock_that_goes_back_changes_nothing(tmp_path):
    class Backwards(Environment):
        us = 10**18

        def now_us(self):
            self.us -= 3_600_000_000
            return self.us

    room = Room(tmp_path / "store")
    process = room.process(environment=Backwards())
    for number in range(5):
        room.add(f"n{number}")
        with process.open("one", {"follow": False, "watcher": False}) as events:
            assert ids(events) == [f"n{number}"]
            events.ack()
    room.close()


def test_a_cursor_before_time_began_can_be_written(room):
    class Early(Environment):
        def now_us(self):
            return -5

    with room.process(environment=Early()).open("one", {"follow": False}) as events:
        assert events.position == BEGINNING.position
