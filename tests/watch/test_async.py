from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.watch.conftest import ids

LONG_S = 30.0


def test_an_async_iterator_takes_what_is_there_and_what_comes(room):
    room.add(*"ab")

    async def main():
        got = []
        async with room.watch("one") as events:
            async for event in events:
                got.append(event.event.id)
                events.ack(event)
                if event.event.id == "b":
                    threading.Timer(0.02, room.add, ["c", "d"]).start()
                if event.event.id == "d":
                    break
        return got

    assert asyncio.run(main()) == [*"abcd"]
    assert room.take("one") == []


def test_it_ends_where_a_plain_one_ends(room):
    room.add("a")

    async def main(**options):
        with room.watch(**options) as events:
            return [event.event.id async for event in events]

    assert asyncio.run(main(follow=False)) == ["a"]
    assert asyncio.run(main(timeout_s=0.02)) == ["a"]


def test_others_go_on_while_it_waits_and_a_cancelled_wait_loses_nothing(room):
    async def main():
        with room.watch("one", poll_s=0.05) as events:
            for _ in range(5):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(events), 0.01)
            room.add(*"abc")
            got = [await anext(events) for _ in range(3)]
            events.ack(got[-1])
            return ids(got)

    assert asyncio.run(main()) == [*"abc"]


def test_workers_acknowledge_while_it_waits_for_room(room):
    for number in range(20):
        room.add(f"n{number}")

    async def main():
        queue: asyncio.Queue = asyncio.Queue()
        done = []
        with room.watch("one", in_flight_max=2, ack_patience_s=60, follow=False) as events:

            async def work():
                while True:
                    event = await queue.get()
                    await asyncio.sleep(0.001)
                    events.ack(event)
                    done.append(event.event.id)
                    queue.task_done()

            worker = asyncio.create_task(work())
            async for event in events:
                queue.put_nowait(event)
            await queue.join()
            worker.cancel()
        return done

    assert asyncio.run(main()) == [f"n{number}" for number in range(20)]


def test_an_error_in_it_reaches_who_awaits(room):
    room.add("a")

    async def main():
        events = room.watch(where=lambda entry: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await anext(events)
        events.close()

    asyncio.run(main())


def test_who_waits_takes_no_thread_of_the_event_loop(room):
    """The default executor has one thread here, and the filter waits for what runs in it."""
    room.add("a")
    is_free = threading.Event()

    async def main():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        async with room.watch(where=lambda entry: is_free.wait(LONG_S)) as events:
            taking = asyncio.ensure_future(anext(events))
            while not side_threads():  # noqa: ASYNC110 - a thread sets no event of the loop
                await asyncio.sleep(0)
            await asyncio.wait_for(asyncio.to_thread(is_free.set), LONG_S)
            return (await taking).event.id

    assert asyncio.run(main()) == "a"
    assert gone(side_threads())


def test_two_hundred_wait_and_their_threads_end_with_them(room):
    async def take(events):
        async with events:
            return (await anext(events)).event.id

    async def main():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        tasks = [asyncio.create_task(take(room.watch(poll_s=0.1))) for _ in range(200)]
        while len(side_threads()) < 200:  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0.01)
        await asyncio.wait_for(asyncio.to_thread(room.add, "a"), LONG_S)
        room.watcher.notify()
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == ["a"] * 200
    assert gone(side_threads())


def test_a_subscription_that_nobody_closes_keeps_no_thread(room):
    async def main():
        events = room.watch()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.01)

    asyncio.run(main())
    gc.collect()
    assert gone(side_threads())


def test_two_tasks_share_one_and_one_that_is_cancelled_leaves_it_to_the_other(room):
    async def main():
        async with room.watch("one") as events:
            first, second = (asyncio.ensure_future(anext(events)) for _ in range(2))
            await asyncio.sleep(0.05)
            first.cancel()
            room.add("a")
            got = await asyncio.wait_for(second, LONG_S)
            assert first.cancelled()
            return got.event.id

    assert asyncio.run(main()) == "a"


def test_a_loop_that_nobody_runs_any_more_does_not_keep_the_process(room):
    script = """
import asyncio, sys
from pathlib import Path
from ckptlog.storage.environment import Environment
from ckptlog.watch.watcher import Watcher
from tests.log.sample import STORE_ID

events = Watcher(Path(sys.argv[1]), STORE_ID, Environment(), read_only=False).open(None, {})
loop = asyncio.new_event_loop()
task = loop.create_task(anext(events))
loop.run_until_complete(asyncio.sleep(0.05))
print("the end")
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(room.root)],
        capture_output=True,
        text=True,
        check=True,
        timeout=LONG_S,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout == "the end\n"


def test_after_the_end_there_is_nothing_more(room):
    room.add("a")

    async def main():
        events = room.watch()
        async with events:
            await anext(events)
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        async with events:
            pass

    asyncio.run(main())


def side_threads():
    return [one for one in threading.enumerate() if one.name.startswith("ckptlog-async")]


def gone(threads):
    for thread in threads:
        thread.join(LONG_S)
    return not any(thread.is_alive() for thread in threads)
