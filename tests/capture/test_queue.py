"""Queues: order, limit, unfinished tasks, and who waits."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
from collections import deque
from multiprocessing import SimpleQueue as ProcessQueue

import pytest

from ckptlog import Capturer, CheckpointManager, Recovery
from ckptlog.capture.queue import AsyncQueueComponent, QueueComponent
from ckptlog.errors import ComponentError, ForeignPayloadError, SourceBusyError, SourceError


def captured(items, *, kind=queue.Queue, limit=0):
    target = kind(limit)
    for item in items:
        target.put_nowait(item)
    return QueueComponent("q", target).capture()


@pytest.mark.parametrize("items", [[], [3], [3, 1, 2]])
def test_who_waits_for_an_item_gets_the_restored_ones(items):
    async def scenario():
        target = asyncio.Queue()
        part = AsyncQueueComponent("q", target)
        getters = [asyncio.create_task(target.get()) for _ in range(2)]
        await asyncio.sleep(0)
        part.restore(captured(items))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        got = [task.result() for task in getters if task.done()]
        assert got == items[:2]
        for task in getters:
            task.cancel()
        return target.qsize()

    assert asyncio.run(scenario()) == max(0, len(items) - 2)


def test_who_waits_for_room_gets_it():
    async def scenario():
        target = asyncio.Queue(2)
        part = AsyncQueueComponent("q", target)
        target.put_nowait("old")
        target.put_nowait("older")
        putters = [asyncio.create_task(target.put(number)) for number in range(3)]
        await asyncio.sleep(0)
        part.restore(captured(["new"], limit=2))
        for _ in range(4):
            await asyncio.sleep(0)
        assert [task.done() for task in putters] == [True, False, False]
        got = [await target.get() for _ in range(4)]
        assert got == ["new", 0, 1, 2]

    asyncio.run(scenario())


def test_join_returns_when_restored_items_and_those_in_hand_are_done():
    async def scenario():
        target = asyncio.Queue()
        part = AsyncQueueComponent("q", target)
        for number in range(3):
            target.put_nowait(number)
        payload = part.capture()
        target.get_nowait()  # in hand from now on
        joined = asyncio.create_task(target.join())
        await asyncio.sleep(0)
        part.restore(payload)
        for _ in range(3):
            await asyncio.sleep(0)
            assert not joined.done()
            target.get_nowait()
            target.task_done()
        await asyncio.sleep(0)
        assert not joined.done()
        target.task_done()  # the one in hand
        await joined
        with pytest.raises(ValueError, match="too many"):
            target.task_done()

    asyncio.run(scenario())


def test_join_does_not_return_in_the_middle_of_a_restore():
    async def scenario():
        target = asyncio.Queue()
        part = AsyncQueueComponent("q", target)
        target.put_nowait(1)
        payload = part.capture()
        joined = asyncio.create_task(target.join())
        await asyncio.sleep(0)
        part.restore(payload)
        for _ in range(3):
            await asyncio.sleep(0)
        assert not joined.done()
        target.get_nowait()
        target.task_done()
        await joined

    asyncio.run(scenario())


def test_an_emptied_queue_lets_join_return():
    async def scenario():
        target = asyncio.Queue()
        part = AsyncQueueComponent("q", target)
        payload = part.capture()
        target.put_nowait(1)
        joined = asyncio.create_task(target.join())
        await asyncio.sleep(0)
        part.restore(payload)
        await joined

    asyncio.run(scenario())


def test_items_in_hand_are_no_part_of_a_capture():
    target = queue.Queue()
    for number in range(3):
        target.put(number)
    target.get()
    assert QueueComponent("q", target).capture() == {
        "form": "queue-2",
        "order": "first",
        "limit": 0,
        "items": [1, 2],
    }


class Former(QueueComponent):
    """As it was in schema version 1."""

    schema_version = 1

    def capture(self):
        return {**super().capture(), "form": "queue-1", "in_hand": 3}


def test_captures_that_told_what_was_in_hand_are_recovered(tmp_path):
    target = queue.Queue()
    target.put(1)
    with CheckpointManager(tmp_path / "store") as manager:
        Capturer(manager, "system", [Former("q", target)]).capture()
        target.put(2)
        recovery = Recovery(Capturer(manager, "system", [QueueComponent("q", target)]))
        planned = recovery.recover(dry_run=True)
        assert [one.path for one in planned.plans["q"].changes] == ["items"]
        assert recovery.recover().status == "completed"
        assert not recovery.recover(dry_run=True).plans["q"].changes
    assert list(target.queue) == [1]


def test_payloads_of_no_known_version_are_refused():
    part = QueueComponent("q", queue.Queue())
    with pytest.raises(ComponentError, match="version 0"):
        part.migrate({}, 0)
    with pytest.raises(ForeignPayloadError, match="queue-1"):
        part.migrate(captured([1]), 1)


def test_workers_that_take_restored_items_at_once_do_not_fail_a_recovery(tmp_path):
    target, got = queue.Queue(), []
    for number in range(20):
        target.put(number)
    with CheckpointManager(tmp_path / "store") as manager:
        recovery = Recovery(Capturer(manager, "system", [QueueComponent("q", target)]))
        recovery.capturer.capture()
        while target.qsize():
            target.get()
        worker = threading.Thread(
            target=lambda: got.extend(target.get(timeout=30) for _ in range(20))
        )
        worker.start()
        assert recovery.recover().status == "completed"
        worker.join()
    assert got == list(range(20))


def test_coroutines_that_take_restored_items_at_once_do_not_fail_a_recovery(tmp_path):
    async def scenario(manager):
        target = asyncio.Queue()
        for number in range(3):
            target.put_nowait(number)
        recovery = Recovery(Capturer(manager, "system", [AsyncQueueComponent("q", target)]))
        await asyncio.to_thread(recovery.capturer.capture)
        while target.qsize():
            target.get_nowait()
        waiting = [asyncio.create_task(target.get()) for _ in range(3)]
        done = await asyncio.to_thread(recovery.recover)
        assert done.status == "completed"
        assert await asyncio.gather(*waiting) == [0, 1, 2]

    with CheckpointManager(tmp_path / "store") as manager:
        asyncio.run(scenario(manager))


def test_a_queue_that_keeps_less_than_it_was_given_is_told():
    class Lossy(deque):
        def extend(self, items):
            super().extend(item for item in items if item != 2)

    class Odd(asyncio.Queue):
        def _init(self, maxsize):
            self._queue = Lossy()

    part = AsyncQueueComponent("q", Odd())
    part.restore(captured([1, 2, 3]))
    assert "took 3 items and has 2" in part.verify_restored()[0]
    part.restore(captured([1, 3]))
    assert part.verify_restored() == []


def test_threads_that_wait_are_woken():
    target = queue.Queue(1)
    part = QueueComponent("q", target)
    got = []
    getter = threading.Thread(target=lambda: got.append(target.get(timeout=30)))
    getter.start()
    part.restore(captured(["new"], limit=1))
    getter.join()
    assert got == ["new"]
    target.put("full")
    putter = threading.Thread(target=lambda: target.put("late", timeout=30))
    putter.start()
    part.restore(captured([], limit=1))
    putter.join()
    assert target.get() == "late"


def test_join_of_threads_returns_when_all_is_done():
    target = queue.Queue()
    part = QueueComponent("q", target)
    payload = part.capture()
    target.put(1)
    waiter = threading.Thread(target=target.join)
    waiter.start()
    part.restore(payload)
    waiter.join()


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (captured([1], kind=queue.LifoQueue), "first"),
        (captured([1], limit=3), "limit"),
        ({**captured([1]), "items": (1,)}, "tuple"),
        ({**captured([1]), "more": 1}, "unknown key"),
        ({key: one for key, one in captured([1]).items() if key != "items"}, "no 'items'"),
    ],
)
def test_payloads_of_other_queues_are_refused(payload, words):
    target = queue.Queue()
    target.put("kept")
    with pytest.raises(ForeignPayloadError, match=words):
        QueueComponent("q", target).restore(payload)
    assert list(target.queue) == ["kept"]


def test_more_items_than_room_are_refused():
    payload = {**captured([1, 2, 3]), "limit": 2}
    with pytest.raises(ForeignPayloadError, match="room for 2"):
        QueueComponent("q", queue.Queue(2)).restore(payload)


@pytest.mark.parametrize("target", [queue.SimpleQueue(), ProcessQueue(), [], asyncio.Queue()])
def test_other_queues_are_refused_with_advice(target):
    with pytest.raises(ComponentError, match=r"CallableComponent|AsyncQueueComponent"):
        QueueComponent("q", target)
    if not isinstance(target, asyncio.Queue):
        with pytest.raises(ComponentError):
            AsyncQueueComponent("q", target)


def test_a_loop_that_waits_for_the_capture_is_told():
    async def scenario():
        part = AsyncQueueComponent("q", asyncio.Queue(), timeout_s=0.05)
        caught = []

        def act():
            try:
                part.capture()
            except SourceBusyError as error:
                caught.append(error)

        thread = threading.Thread(target=act)
        thread.start()
        thread.join()  # the loop's thread stands still
        assert "did not answer" in caught[0].message

    asyncio.run(scenario())


def test_a_queue_of_no_loop_is_touched_directly():
    target = asyncio.Queue()
    part = AsyncQueueComponent("q", target)
    target.put_nowait(1)
    payload = part.capture()
    target.get_nowait()
    part.restore(payload)
    assert target.get_nowait() == 1


def test_a_queue_that_hides_its_items_is_told():
    class Odd(asyncio.Queue):
        def _init(self, maxsize):
            self.items = []

        def qsize(self):
            return len(self.items)

    with pytest.raises(SourceError, match="cannot be read"):
        AsyncQueueComponent("q", Odd()).capture()


def test_a_queue_that_keeps_its_items_in_a_set_is_told_before_anything_is_changed():
    class Unique(queue.Queue):
        def _init(self, maxsize):
            self.queue = set()

        def _put(self, item):
            self.queue.add(item)

    target = Unique()
    target.put(1)
    part = QueueComponent("q", target)
    with pytest.raises(SourceError, match="keeps its items where"):
        part.capture()
    with pytest.raises(SourceError, match="keeps its items where"):
        part.restore(captured([2]))
    assert target.queue == {1}


@pytest.mark.parametrize(
    ("make", "base"),
    [(QueueComponent, queue.PriorityQueue), (AsyncQueueComponent, asyncio.PriorityQueue)],
)
def test_what_a_class_of_its_own_keeps_beside_each_item_comes_back(make, base):
    class Stable(base):
        def _init(self, maxsize):
            super()._init(maxsize)
            self.serial = itertools.count()

        def _put(self, item):
            super()._put((item["rank"], next(self.serial), item))

        def _get(self):
            return super()._get()[2]

    target = Stable()
    part = make("q", target)
    for number in (3, 1, 2, 1):
        target.put_nowait({"rank": number})
    payload = part.capture()
    target.get_nowait()
    target.put_nowait({"rank": 0})
    part.restore(payload)
    assert part.verify_restored() == []
    assert [target.get_nowait()["rank"] for _ in range(4)] == [1, 1, 2, 3]


@pytest.mark.parametrize(
    ("make", "kind"),
    [(QueueComponent, queue.PriorityQueue), (AsyncQueueComponent, asyncio.PriorityQueue)],
)
def test_items_that_cannot_be_compared_come_back(make, kind):
    target = kind()
    part = make("q", target)
    for item in ((1, {"a": 1}), (2, {"b": 1}), (2, {"c": 1})):
        target.put_nowait(item)
    payload = part.capture()
    target.put_nowait((0, {}))
    part.restore(payload)
    assert part.verify_restored() == []
    assert part.capture() == payload


def test_a_queue_that_was_shut_down_is_left_alone():
    target = asyncio.Queue()
    part = AsyncQueueComponent("q", target)
    payload = part.capture()
    target._is_shutdown = True  # what Python 3.13's shutdown() sets
    with pytest.raises(SourceError, match="shut down"):
        part.restore(payload)


def test_the_loops_own_error_comes_out():
    async def scenario():
        part = AsyncQueueComponent("q", asyncio.Queue(), timeout_s=30)
        del part._queue._queue
        with pytest.raises(SourceError, match="cannot be read"):
            await asyncio.to_thread(part.capture)

    asyncio.run(scenario())
