"""Interval durability: acknowledged when written, durable and published a moment later."""

from __future__ import annotations

import os

import pytest

from ckptlog.errors import OutcomeUnknownError
from tests.faults.fault_disk import FaultDisk
from tests.faults.medium import Medium
from tests.log.sample import (
    append,
    create_log,
    durables,
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
def lazy(root):
    log = create_log(root, is_durable=False)
    yield log
    log.close()


def test_unsynced_commits_are_not_published_until_a_flush(lazy, root):
    reader = open_log(root, read_only=True)
    fill(lazy, "abc")
    assert lazy.is_lagging
    assert published_ids(reader) == []
    assert tail_of(lazy).position == 3
    lazy.flush()
    assert not lazy.is_lagging
    assert published_ids(reader) == [*"abc"]
    reader.close()


def test_a_flush_with_nothing_to_do_does_nothing(root):
    create_log(root).close()
    disk = FaultDisk(Medium(root))
    log = open_log(root, disk=disk, is_durable=False)
    log.flush()
    assert disk.trace == []
    append(log, group("a"))
    log.flush()
    count = len(disk.trace)
    log.flush()
    assert len(disk.trace) == count
    log.close()


def test_another_process_finds_unsynced_commits_and_makes_them_durable(lazy, root):
    fill(lazy, "ab")
    other = open_log(root)
    fill(other, "c")
    assert published_ids(other) == [*"abc"]
    fill(lazy, "d")
    lazy.flush()
    assert published_ids(other) == [*"abcd"]
    assert lazy.epoch == 0
    other.close()


def test_a_kill_loses_no_unsynced_commit(lazy, root):
    fill(lazy, "ab")
    lazy.abandon()
    other = open_log(root)
    assert other.recover_if_free()
    assert published_ids(other) == [*"ab"]
    other.close()


def test_a_close_makes_unsynced_commits_durable(root):
    log = create_log(root, is_durable=False)
    fill(log, "ab")
    log.close()
    reader = open_log(root, read_only=True)
    assert published_ids(reader) == [*"ab"]
    reader.close()


@pytest.mark.parametrize("loses", [True, False])
def test_after_a_sync_error_the_unsynced_are_gone_and_the_epoch_says_so(root, loses):
    create_log(root, is_durable=False).close()
    disk = FaultDisk(Medium(root))
    log = open_log(root, disk=disk, is_durable=False)
    fill(log, "ab")
    log.flush()
    fill(log, "cd")
    disk.fail("sync segment", loses=loses)
    with pytest.raises(OutcomeUnknownError) as caught:
        log.flush()
    assert caught.value.context["position"] == 2
    assert log.epoch == 1
    assert tail_of(log).position == 2
    fill(log, "e")
    log.flush()
    assert published_ids(log) == [*"abe"]
    assert log.epoch == 1
    log.close()


def test_unsynced_commits_that_come_back_are_not_reported_as_lost(root):
    """Sync and the new segment fail; the next hold finds the commits in the cache, whole."""
    create_log(root, is_durable=False).close()
    disk = FaultDisk(Medium(root))
    log = open_log(root, disk=disk, is_durable=False)
    fill(log, "ab")
    disk.fail("sync segment")
    disk.fail("create segment")
    with pytest.raises(OutcomeUnknownError):
        log.flush()
    fill(log, "c")
    log.flush()
    assert published_ids(log) == [*"abc"]
    assert log.epoch == 0
    log.close()


def give_up(log, disk):
    """A sync fails, and the new segment too: the log gives its unsynced commits up."""
    disk.fail("sync segment")
    disk.fail("create segment")
    with pytest.raises(OutcomeUnknownError):
        log.flush()
    assert not disk.faults


def test_unsynced_commits_that_another_process_adopted_are_not_lost(root):
    create_log(root, is_durable=False).close()
    disk = FaultDisk(Medium(root))
    log, other = open_log(root, disk=disk, is_durable=False), open_log(root)
    fill(log, "ab")
    give_up(log, disk)
    fill(other, "c")
    fill(log, "d")
    log.flush()
    assert published_ids(log) == [*"abcd"]
    assert log.epoch == 0
    log.close()
    other.close()


def test_unsynced_commits_that_others_replaced_are_lost_although_the_count_is_the_same(root):
    """After the failed sync the cache forgets its pages; another process appends there."""
    create_log(root, is_durable=False).close()
    disk = FaultDisk(Medium(root))
    log, other = open_log(root, disk=disk, is_durable=False), open_log(root)
    fill(log, "ab")
    log.flush()
    durable = log._tail.offset
    fill(log, "cd")
    give_up(log, disk)
    os.truncate(segment_paths(root)[0], durable)
    fill(other, "xy")
    assert tail_of(log).position == 4
    assert log.epoch == 1
    assert published_ids(log) == [*"abxy"]
    log.close()
    other.close()


def test_the_timer_makes_durable_what_an_interrupt_left_unsynced(root):
    create_log(root, is_durable=False).close()
    disk = FaultDisk(Medium(root))
    log = open_log(root, disk=disk, is_durable=False)
    fill(log, "ab")
    disk.interrupt("after", "write segment")
    with pytest.raises(BaseException, match="write segment"):
        append(log, group("c"))
    log.flush()
    assert published_ids(log) == [*"abc"]
    log.close()


def test_with_interval_events_name_the_last_sync_as_durable(root):
    log = create_log(root, is_durable=False)
    first = tail_of(log).offset
    commits = append(log, group("a")) + append(log, group("b"))
    log.flush()
    second = tail_of(log).offset
    commits += append(log, group("c")) + append(log, group("d"))
    (path,) = segment_paths(root)
    assert durables(path, commits) == {"a": first, "b": first, "c": second, "d": second}
    log.close()
