"""One process's hold on a log. What crashes and failing disks leave is in tests/faults."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ckptlog.errors import (
    FormatError,
    InputOutputError,
    LockTimeoutError,
    LogCorruptionError,
    OutcomeUnknownError,
    ReadOnlyError,
)
from ckptlog.formats import event as event_format
from ckptlog.log.batch import Lost, Won
from ckptlog.log.log import PREALLOCATION_BYTES, Log
from ckptlog.storage.lock import WriterLock
from tests.faults.fault_disk import FaultDisk
from tests.faults.medium import Medium
from tests.log.sample import (
    STORE_ID,
    WAIT_S,
    StillEnvironment,
    append,
    create_log,
    durables,
    event,
    fill,
    group,
    open_log,
    published_ids,
    segment_paths,
    tail_of,
)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def log(root):
    log = create_log(root)
    yield log
    log.close()


# --- appending -------------------------------------------------------------------------------


def test_an_empty_log_begins_at_position_0(log):
    assert tail_of(log).position == 0
    assert published_ids(log) == []


def test_positions_are_dense_over_commits_of_any_size(log):
    append(log, group("a"), group("b", "c", "d"), group("e"))
    append(log, group("f", "g"))
    commits = list(log.reader.commits())
    assert [len(commit.entries) for commit in commits] == [1, 3, 1, 2]
    assert published_ids(log) == [*"abcdefg"]
    assert tail_of(log).position == 7


def test_what_append_returns_is_what_a_reader_finds(log):
    made = append(log, group("a", record_bytes=500), group("b", "c", record_bytes=4000))
    assert tuple(log.reader.commits()) == made


def test_the_leaf_of_a_commit_is_the_hash_of_its_last_entry(log):
    (commit,) = append(log, group("a", "b"))
    entries = [event_format.encode(event(name)) for name in "ab"]
    assert commit.leaf == event_format.leaf_hash(entries[1])
    assert tail_of(log).leaf == commit.leaf


def test_append_at_another_position_is_lost_and_writes_nothing(log, root):
    append(log, group("a"))
    before = segment_paths(root)[0].read_bytes()
    for at in (0, 2, 99):
        outcome = log.append([group("x")], at)
        assert isinstance(outcome, Lost)
        assert outcome.tail.position == 1
    assert segment_paths(root)[0].read_bytes() == before
    assert isinstance(log.append([group("b")], 1), Won)


def test_two_logs_that_decide_for_the_same_position_one_wins(log, root):
    other = open_log(root)
    assert isinstance(log.append([group("a")], 0), Won)
    assert isinstance(other.append([group("b")], 0), Lost)
    assert isinstance(other.append([group("b")], 1), Won)
    assert published_ids(log) == [*"ab"]
    other.close()


def test_holds_nest_and_the_inner_append_is_seen_by_the_outer(log):
    with log.exclusive(WAIT_S) as tail:
        assert isinstance(log.append([group("a")], tail.position), Won)
        with log.exclusive(WAIT_S) as inner:
            assert inner.position == 1
            assert isinstance(log.append([group("b")], 1), Won)
    assert published_ids(log) == [*"ab"]


def test_an_event_that_cannot_be_written_leaves_no_trace(log, root):
    append(log, group("a"))
    before = segment_paths(root)[0].read_bytes()
    with pytest.raises(FormatError):
        log.append([group("b"), group("x" * 70_000)], 1)
    assert segment_paths(root)[0].read_bytes() == before
    append(log, group("c"))
    assert published_ids(log) == [*"ac"]


def test_threads_append_side_by_side(log):
    def work(thread):
        for number in range(20):
            append(log, group(f"{thread}.{number}"))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = published_ids(log)
    assert len(found) == len(set(found)) == 80
    for index in range(4):
        mine = [name for name in found if name.startswith(f"{index}.")]
        assert mine == [f"{index}.{number}" for number in range(20)]


def test_every_event_names_where_its_append_began_as_durable(log, root):
    first = tail_of(log).offset
    commits = append(log, group("a"), group("b", "c"))
    second = tail_of(log).offset
    commits += append(log, group("d"))
    (path,) = segment_paths(root)
    assert durables(path, commits) == {"a": first, "b": first, "c": first, "d": second}


def test_a_durable_log_has_nothing_to_flush_and_no_epochs(root):
    create_log(root).close()
    disk = FaultDisk(Medium(root))
    log = open_log(root, disk=disk)
    fill(log, "ab")
    disk.fail("sync segment")
    with pytest.raises(OutcomeUnknownError):
        append(log, group("c"))
    append(log, group("d"))
    assert log.epoch == 0
    assert published_ids(log) == [*"abd"]
    log.close()


# --- segments --------------------------------------------------------------------------------


def test_rolls_when_the_next_append_would_pass_the_limit(root):
    log = create_log(root, segment_bytes=10_000)
    names = [f"n{number}" for number in range(25)]
    fill(log, names, record_bytes=1500)
    log.close()
    paths = segment_paths(root)
    assert len(paths) == 5
    assert all(path.stat().st_size <= 10_000 for path in paths)
    reader = open_log(root, read_only=True)
    assert published_ids(reader) == names
    headers = reader.segments.refresh()
    assert [header.first for header in headers] == [0, 5, 10, 15, 20]
    for before, after, path in zip(headers, headers[1:], paths, strict=False):
        assert (after.previous_first, after.previous_generation) == (before.first, 0)
        assert after.previous_length == path.stat().st_size
    reader.close()


def test_an_append_larger_than_a_segment_has_one_of_its_own(root):
    log = create_log(root, segment_bytes=10_000)
    append(log, group("small"))
    append(log, group("large", record_bytes=50_000))
    append(log, group("after"))
    log.close()
    assert [int(path.name[:20]) for path in segment_paths(root)] == [0, 1, 2]
    reader = open_log(root, read_only=True)
    assert published_ids(reader) == ["small", "large", "after"]
    reader.close()


def test_an_empty_segment_is_not_rolled(root):
    log = create_log(root, segment_bytes=10_000)
    append(log, group("large", record_bytes=50_000))
    assert len(segment_paths(root)) == 1
    log.close()


def test_a_batch_is_never_split_over_segments(root):
    log = create_log(root, segment_bytes=10_000)
    fill(log, "ab", record_bytes=2000)
    append(log, *(group(name, record_bytes=2000) for name in "cdef"))
    assert [int(path.name[:20]) for path in segment_paths(root)] == [0, 2]
    assert published_ids(log) == [*"abcdef"]
    log.close()


def test_room_is_made_ahead_and_used(root, log):
    (path,) = segment_paths(root)
    append(log, group("a"))
    size = path.stat().st_size
    assert size == tail_of(log).offset + PREALLOCATION_BYTES
    append(log, group("b", record_bytes=1000))
    assert path.stat().st_size == size
    assert path.read_bytes()[tail_of(log).offset :].strip(b"\0") == b""
    append(log, group("c", record_bytes=PREALLOCATION_BYTES))
    assert path.stat().st_size == tail_of(log).offset + PREALLOCATION_BYTES


def test_room_ends_with_the_segment(root):
    log = create_log(root, segment_bytes=10_000)
    append(log, group("a", record_bytes=3000))
    (path,) = segment_paths(root)
    assert path.stat().st_size == 10_000
    append(log, group("b", record_bytes=3000))
    assert path.stat().st_size == 10_000
    log.close()


def test_zeros_are_no_more_than_there_is_room_for(root):
    log = create_log(root)
    path = log.segments.path(0, 0)
    for spare in (1000, 0, -5, 2 * PREALLOCATION_BYTES):
        log.spare_bytes = lambda spare=spare: spare
        append(log, group(f"n{spare}", record_bytes=PREALLOCATION_BYTES))
        expected = max(0, min(spare, PREALLOCATION_BYTES))
        assert path.stat().st_size == tail_of(log).offset + expected
    log.close()


def test_zeros_that_were_given_back_are_made_anew_when_there_is_room(root):
    log = create_log(root)
    append(log, group("a"))
    path = log.segments.path(0, 0)
    assert log.give_back_zeros() == PREALLOCATION_BYTES
    assert path.stat().st_size == tail_of(log).offset
    assert log.give_back_zeros() == 0
    append(log, group("b"))
    assert path.stat().st_size == tail_of(log).offset + PREALLOCATION_BYTES
    # Another writer finds the log where it is, whoever has cut what.
    other = open_log(root)
    append(other, group("c"))
    assert other.give_back_zeros() > 0
    append(log, group("d"))
    assert log.give_back_zeros() > 0
    assert path.stat().st_size == tail_of(log).offset
    assert published_ids(log) == [*"abcd"]
    log.close()
    other.close()


def test_a_clean_close_leaves_no_zeros_and_the_next_opening_goes_on(root):
    log = create_log(root)
    append(log, group("a"))
    log.close()
    (path,) = segment_paths(root)
    assert not path.read_bytes().endswith(bytes(16))
    log = open_log(root)
    append(log, group("b"))
    assert published_ids(log) == [*"ab"]
    log.close()
    log.close()  # twice is fine


@pytest.mark.parametrize("is_durable", [True, False])
def test_after_a_clean_close_a_power_cut_changes_nothing(root, is_durable):
    create_log(root).close()
    medium = Medium(root)
    disk = FaultDisk(medium)
    log = open_log(root, disk=disk, is_durable=is_durable, segment_bytes=5_000)
    fill(log, "abc", record_bytes=2_000)
    assert len(list(medium.images())) > 1
    log.close()
    assert len(list(medium.images())) == 1
    assert disk.trace[-3:] == ["truncate segment", "sync segment", "sync end"]


def test_closing_does_not_cut_what_another_process_has_appended(root, log):
    append(log, group("a"))
    other = open_log(root)
    append(other, group("b"))
    log.close()
    append(other, group("c"))
    assert published_ids(other) == [*"abc"]
    other.close()


# --- the lock --------------------------------------------------------------------------------


def test_only_one_log_holds_the_lock(log, root):
    other = open_log(root)
    with log.exclusive(WAIT_S):
        assert not other.recover_if_free()
        with pytest.raises(LockTimeoutError), other.exclusive(0.02):
            pass
    assert other.recover_if_free()
    other.close()


class OtherBoot(StillEnvironment):
    """The same machine, started again."""

    def boot(self):
        return b"another boot...."


def test_after_a_restart_an_opener_waits_for_who_recovers(log, root):
    """Until somebody has recovered, the end may be older than what was acknowledged."""
    append(log, group("a"))
    log.close()
    second = Log(root, STORE_ID, OtherBoot())
    holder = WriterLock(root / "lock", OtherBoot())
    holder.acquire(WAIT_S)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(second.recover_if_free, WAIT_S)
        with pytest.raises(TimeoutError):
            waiting.result(0.1)
        holder.release()
        assert waiting.result(WAIT_S)
    # Whoever recovers says so, even with nothing to recover: nobody need wait for it again.
    assert second.published.read().boot == OtherBoot().boot()
    holder.acquire(WAIT_S)
    third = Log(root, STORE_ID, OtherBoot())
    assert not third.recover_if_free(10_000.0)
    holder.close()
    second.close()
    third.close()


def test_a_timeout_leaves_nothing_held(log, root):
    other = open_log(root)
    with log.exclusive(WAIT_S), pytest.raises(LockTimeoutError):
        other.append([group("x")], 0, timeout_s=0.01)
    append(other, group("a"))
    append(log, group("b"))
    assert published_ids(log) == [*"ab"]
    other.close()


def test_an_error_inside_a_hold_gives_the_lock_back(log, root):
    with pytest.raises(ZeroDivisionError), log.exclusive(WAIT_S):
        raise ZeroDivisionError
    other = open_log(root)
    append(other, group("a"))
    other.close()


def test_an_error_while_catching_up_gives_the_lock_back(root):
    create_log(root).close()
    disk = FaultDisk(Medium(root))
    log, other = open_log(root, disk=disk), open_log(root)
    disk.fail("read end", errno.EIO)
    with pytest.raises(InputOutputError):
        tail_of(log)
    append(other, group("a"))
    append(log, group("b"))
    assert published_ids(other) == [*"ab"]
    log.close()
    other.close()


@pytest.mark.parametrize("left", [None, b"", b"x", bytes(128), b"CKPTEND1" + bytes(120)])
def test_nobody_who_opens_publishes_a_lost_end(log, root, left):
    """What is left may be a shorter log: who has it open appends no more, and nobody else does."""
    append(log, group("a"))
    other = open_log(root)
    path = root / "log" / "end"
    path.unlink()
    if left is not None:
        path.write_bytes(left)
    segments = {one.name: one.read_bytes() for one in segment_paths(root)}
    for one in (log, other):
        for act in (one.recover_if_free, one.end, lambda one=one: append(one, group("b"))):
            with pytest.raises(LogCorruptionError, match="published end") as caught:
                act()
            assert "ckptlog repair" in caught.value.hint
    other.close()
    log.close()  # and says nothing: all that it acknowledged is durable
    assert (path.read_bytes() if path.exists() else None) == left
    assert {one.name: one.read_bytes().rstrip(b"\0") for one in segment_paths(root)} == {
        name: data.rstrip(b"\0") for name, data in segments.items()
    }


def test_a_log_open_for_reading_refuses_to_write(root):
    create_log(root).close()
    log = open_log(root, read_only=True)
    with pytest.raises(ReadOnlyError) as caught:
        append(log, group("a"))
    assert caught.value.hint
    log.close()


# --- forks -----------------------------------------------------------------------------------


def in_child(work):
    """Run work in a forked child; return what it returns."""
    context = multiprocessing.get_context("fork")
    answer, theirs = context.Pipe(duplex=False)

    def child():
        try:
            theirs.send(work())
        except BaseException as error:
            theirs.send(repr(error))
        finally:
            theirs.close()
            os._exit(0)

    process = context.Process(target=child)
    process.start()
    theirs.close()
    assert answer.poll(WAIT_S), "the child hangs"
    result = answer.recv()
    process.join(WAIT_S)
    return result


def test_a_forked_child_abandons_the_log_and_opens_its_own(log, root):
    append(log, group("a"))

    def child():
        log.abandon()
        mine = open_log(root)
        append(mine, group("b"))
        found = published_ids(mine)
        mine.close()
        return found

    assert in_child(child) == [*"ab"]
    append(log, group("c"))
    assert published_ids(log) == [*"abc"]


def test_a_child_that_abandons_does_not_give_the_parents_lock_back(log, root):
    with log.exclusive(WAIT_S):

        def child():
            log.abandon()
            mine = open_log(root)
            return mine.recover_if_free()

        assert in_child(child) is False
        other = open_log(root)
        assert not other.recover_if_free()
        other.close()


def test_a_child_can_abandon_while_a_thread_of_the_parent_was_reading(log, root):
    """The reader's own lock may be held, for ever, by a thread that the child does not have."""
    append(log, group("a"))
    with log.reader._lock:

        def child():
            log.abandon()
            return "abandoned"

        assert in_child(child) == "abandoned"


def test_a_descriptor_is_forgotten_before_it_is_closed(log, monkeypatch):
    """A child that is forked in between would close it once more: by then it may be another's."""
    append(log, group("a"))
    seen = []
    close = log._disk.close
    monkeypatch.setattr(
        log._disk, "close", lambda fd: (seen.append(fd in (log._fd, log.published._fd)), close(fd))
    )
    log.abandon()
    assert seen
    assert not any(seen)
