from __future__ import annotations

import asyncio
import threading

import pytest

from tests.watch.conftest import ids


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
