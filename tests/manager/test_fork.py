"""A forked child never uses its parent's descriptors, locks or connections: it opens anew."""

# mypy: disable-error-code="union-attr"
# What is read of None fails the test by itself.

from __future__ import annotations

import json
import os
import signal
import threading
import time
import traceback

import pytest

import ckptlog
from ckptlog import (
    CheckpointConfiguration,
    CheckpointManager,
    StoreClosedError,
    TaskCheckpointWrapper,
    TaskRecovery,
)
from ckptlog.storage.disk import Disk
from ckptlog.storage.environment import Environment

LIMIT_S = 10


def in_child(work):
    """Run work in a forked child; return what it returned, or its traceback, or "hung"."""
    reader, writer = os.pipe()
    # Threads that hold a lock while the process forks are what some of these tests are about.
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            answer = json.dumps(work())
        except BaseException:
            answer = json.dumps(traceback.format_exc())
        try:
            os.write(writer, answer.encode())
        finally:
            os._exit(0)
    os.close(writer)
    deadline = time.monotonic() + LIMIT_S
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(reader)
            return "hung"
        time.sleep(0.005)
    with os.fdopen(reader) as file:
        return json.loads(file.read() or '"died"')


@pytest.fixture(params=["commit", "interval"])
def manager(tmp_path, request):
    config = CheckpointConfiguration(
        durability=request.param, interval_s=60, cleanup_interval_hours=0
    )
    with CheckpointManager(tmp_path / "s", config=config) as manager:
        yield manager


def test_child_and_parent_both_write(manager):
    first = manager.create_checkpoint("t", "T", 1, data={"by": "parent"})

    def child():
        assert manager.get_checkpoint(first).data == {"by": "parent"}
        name = manager.create_checkpoint("t", "T", 2, data={"by": "child"})
        manager.update_checkpoint(first, data={"child": 1})
        manager.close()
        return name

    second = in_child(child)
    assert manager.get_checkpoint(second).data == {"by": "child"}
    third = manager.create_checkpoint("t", "T", 3, data={"by": "parent"})
    manager.update_checkpoint(first, data={"parent": 1})
    assert manager.get_checkpoint(first).data == {"by": "parent", "child": 1, "parent": 1}
    names = [one.checkpoint_id for one in manager.get_task_checkpoints("t")]
    assert names == [first, second, third]
    assert manager.validate_checkpoint_integrity() == []


def test_both_write_at_the_same_time(manager):
    def write(who):
        return [
            manager.create_checkpoint("t", "T", step, data={"by": who}) for step in range(1, 16)
        ]

    manager.create_checkpoint("t", "T", 1)
    own: list[str] = []
    thread = threading.Thread(target=lambda: own.extend(write("parent")))
    thread.start()
    theirs = in_child(lambda: write("child"))
    thread.join()
    assert len({*own, *theirs}) == 30
    found = {one.checkpoint_id: one.data for one in manager.get_task_checkpoints("t")[1:]}
    assert found == {
        **{name: {"by": "parent"} for name in own},
        **{name: {"by": "child"} for name in theirs},
    }
    ids = [entry.event.id for entry in manager.store.events()]
    assert len(set(ids)) == len(ids)
    assert manager.validate_checkpoint_integrity() == []


def test_command_ids_of_one_microsecond_on_both_sides(tmp_path):
    """The child's counter goes on where the parent's does, and the clock may be the same."""
    environment = Environment()
    with ckptlog.open(tmp_path / "s", create=True, environment=environment) as store:
        manager = CheckpointManager(store=store)
        manager.create_checkpoint("t", "T", 1)
        environment.now_us = lambda: 1_700_000_000_000_000  # type: ignore[method-assign]
        in_child(lambda: [manager.create_checkpoint("t", "T", 1) for _ in range(3)])
        for _ in range(3):
            manager.create_checkpoint("t", "T", 1)
        ids = [entry.event.id for entry in store.events()]
        assert len(set(ids)) == len(ids) == 7


def test_a_child_that_only_leaves(manager):
    """Neither closing nor ending disturbs what the parent has open."""
    name = manager.create_checkpoint("t", "T", 1)
    assert in_child(lambda: None) is None
    assert in_child(manager.close) is None
    assert in_child(manager.store.close) is None
    manager.update_checkpoint(name, data={"a": 1})
    assert [one.data for one in manager.get_task_checkpoints("t")] == [{"a": 1}]


def test_a_store_closed_before_the_fork_stays_closed(manager):
    manager.close()

    def child():
        with pytest.raises(StoreClosedError):
            manager.get_task_checkpoints("t")
        return "right"

    assert in_child(child) == "right"


def test_a_batch_open_in_the_parent(manager):
    """Whoever commits first has it; the other one's ids are taken then."""
    context = manager.batch()
    batch = context.__enter__()
    name = batch.create_checkpoint("t", "T", 1, data={"a": 1})

    def child():
        batch.update_checkpoint(name, data={"child": 1})
        context.__exit__(None, None, None)
        return manager.get_checkpoint(name).data

    assert in_child(child) == {"a": 1, "child": 1}
    other = batch.create_checkpoint("t", "T", 2)
    with pytest.raises(Exception, match="already used"):
        context.__exit__(None, None, None)
    assert manager.get_checkpoint(other) is None
    assert manager.get_checkpoint(name).data == {"a": 1, "child": 1}


def wrapped(manager):
    wrapper = TaskCheckpointWrapper(manager, "t", "T")
    wrapper.checkpoint("a step")
    return wrapper


def resumed(manager):
    manager.update_checkpoint(manager.create_checkpoint("t", "T", 1))
    return TaskRecovery(manager, "w").claim("t").task


@pytest.mark.parametrize("error", [None, SystemExit(0), ValueError("wrong")])
@pytest.mark.parametrize(
    "begin", [wrapped, resumed, lambda manager: manager.checkpoint_context("t", "T", 1)]
)
def test_a_child_that_leaves_its_parents_block_ends_nothing(manager, begin, error):
    def leave():
        try:
            block.__exit__(error and type(error), error, None)
        except BaseException as raised:
            assert raised is error
        return manager.get_latest_checkpoint("t").state.value

    block = begin(manager)
    block.__enter__()
    here = manager.get_latest_checkpoint("t").state.value
    assert here in ("active", "restored")
    assert in_child(leave) == here
    assert len(manager.list_leases()) == (begin is resumed)
    if begin is not resumed or error is not None:  # the end of a resumed block is its lease's
        assert leave() == ("failed" if error else "completed")
    else:
        leave()
    assert manager.list_leases() == []


def test_threads_of_a_child_that_begin_at_once(manager):
    """The first of them opens anew; none of the others gets hold of the parent's half."""
    for step in range(1, 6):
        manager.create_checkpoint("t", "T", step)

    def child():
        barrier = threading.Barrier(8)
        answers = []

        def work(number):
            barrier.wait()
            try:
                name = manager.create_checkpoint("u", "U", 1, data={"n": number})
                answers.append(manager.get_checkpoint(name).data == {"n": number})
            except BaseException:
                answers.append(traceback.format_exc())

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers

    assert in_child(child) == [True] * 8
    assert len(manager.get_task_checkpoints("u")) == 8
    assert manager.validate_checkpoint_integrity() == []


def test_a_grandchild(manager):
    first = manager.create_checkpoint("t", "T", 1)

    def child():
        second = manager.create_checkpoint("t", "T", 2)
        third = in_child(lambda: manager.create_checkpoint("t", "T", 3))
        return [first, second, third, manager.create_checkpoint("t", "T", 4)]

    names = in_child(child)
    assert [one.checkpoint_id for one in manager.get_task_checkpoints("t")] == names


class HoldingDisk(Disk):
    """Stops a thread inside of a read, with whatever locks it holds there."""

    def __init__(self):
        self.is_armed = False
        self.entered, self.leave = threading.Event(), threading.Event()

    def read(self, fd, length, offset):
        if self.is_armed:
            self.is_armed = False
            self.entered.set()
            self.leave.wait(LIMIT_S)
        return super().read(fd, length, offset)


def test_a_thread_of_the_parent_reads_while_it_forks(tmp_path):
    """What that thread has locked stays locked in the child for ever: it must not be needed."""
    disk = HoldingDisk()
    with CheckpointManager(tmp_path / "s") as manager:
        name = manager.create_checkpoint("t", "T", 1, data={"a": 1})
    with ckptlog.open(tmp_path / "s", environment=Environment(disk)) as store:
        manager = CheckpointManager(store=store)
        disk.is_armed = True
        thread = threading.Thread(target=lambda: manager.get_checkpoint(name))
        thread.start()
        assert disk.entered.wait(LIMIT_S)
        try:
            assert in_child(lambda: manager.get_checkpoint(name).data) == {"a": 1}
        finally:
            disk.leave.set()
            thread.join()


LOCKS = (type(threading.Lock()), type(threading.RLock()))


def locks_of(thing, seen, path):
    """Return every lock that can be reached from an object through our own ones, by its path."""
    if id(thing) in seen:
        return {}
    seen.add(id(thing))
    if isinstance(thing, LOCKS):
        return {path: thing}
    found: dict = {}
    if type(thing).__module__.startswith("ckptlog") or isinstance(thing, threading.Condition):
        for name in {*getattr(thing, "__dict__", ()), *getattr(type(thing), "__slots__", ())}:
            found |= locks_of(getattr(thing, name, None), seen, f"{path}.{name}")
    return found


def test_whatever_a_thread_of_the_parent_has_locked(manager):
    name = manager.create_checkpoint("t", "T", 1, data={"a": 1})
    manager.get_task_checkpoints("t")
    # The one of the writer's queue is held for moments only, and belongs to who is asked to wait.
    locks = locks_of(manager, set(), "manager")
    assert {path.split(".")[-1] for path in locks} >= {"fold_lock", "_drain_lock", "_lock"}

    def child():
        manager.update_checkpoint(name, data={"b": 1})
        return [manager.get_checkpoint(name).data, len(manager.get_task_checkpoints("t"))]

    held, leave = threading.Event(), threading.Event()

    def hold():
        for lock in locks.values():
            lock.acquire()
        held.set()
        leave.wait(LIMIT_S * 2)
        for lock in locks.values():
            lock.release()

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(LIMIT_S)
    try:
        answer = in_child(child)
    finally:
        leave.set()
        thread.join()
    assert answer == [{"a": 1, "b": 1}, 1], sorted(locks)
