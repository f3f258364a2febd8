"""Progress as an iterator, in both kinds of service; callbacks in the loop; loops that come late."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

import pytest

from ckptlog import AsyncCheckpointService, create_checkpoint_system
from ckptlog.errors import (
    ArgumentError,
    RecoveryCancelledError,
    RecoveryIncompleteError,
    ServiceStateError,
)
from tests.service.system import settings
from tests.threadless import threadless


class Manager:
    def __init__(self, value):
        self.value = value

    def get_state(self):
        return {"value": self.value}

    def set_state(self, state):
        self.value = state["value"]


class Coroutines(Manager):
    """One that belongs to a loop."""

    async def get_state(self):
        self.loop = asyncio.get_running_loop()
        return {"value": self.value}

    async def set_state(self, state):
        self.value = state["value"]


def quiet(path):
    return settings(path, intervalSeconds=600)


def test_the_pictures_of_a_recovery_as_an_iterator(tmp_path):
    agents, memory = Manager(1), Manager("a")
    with create_checkpoint_system(
        quiet(tmp_path / "s"), {"agents": agents, "memory": memory}
    ) as service:
        good = service.create_checkpoint()
        agents.value, memory.value = 2, "b"
        pictures = list(service.iterate_recovery(good.id, ["agents"]))
        assert [one.status for one in pictures][-1] == "completed"
        assert "agents" in [one.component for one in pictures]
        assert (agents.value, memory.value) == (1, "b")
        with pytest.raises(ArgumentError):
            service.iterate_recovery(components="agents")
        with pytest.raises(ArgumentError, match="on_progress"):
            service.iterate_recovery(on_progress=print)


def test_without_a_thread_the_pictures_come_behind_the_recovery(tmp_path):
    agents = Manager(1)
    with create_checkpoint_system(quiet(tmp_path / "s"), {"agents": agents}) as service:
        good = service.create_checkpoint()
        agents.value = 2
        with threadless():
            pictures = list(service.iterate_recovery(good.id))
        assert pictures[-1].status == "completed"
        assert agents.value == 1


def test_who_stops_iterating_cancels_and_everything_is_as_before(tmp_path):
    agents, memory = Manager(1), Manager("a")
    with create_checkpoint_system(
        quiet(tmp_path / "s"), {"agents": agents, "memory": memory}
    ) as service:
        good = service.create_checkpoint()
        agents.value, memory.value = 2, "b"
        real, entered, go_on = memory.set_state, threading.Event(), threading.Event()

        def slow(state):
            entered.set()
            go_on.wait(30)
            real(state)

        service.components[1]._restore = slow
        for picture in service.iterate_recovery(good.id):
            if picture.component == "memory" and picture.status == "restoring":
                assert entered.wait(30)
                threading.Timer(0.1, go_on.set).start()
                break
        assert (agents.value, memory.value) == (2, "b")
        assert service.alerts == []


def test_coroutine_callbacks_are_awaited_in_the_loop(tmp_path):
    async def scenario():
        memory = Manager("a")
        service = AsyncCheckpointService.create(quiet(tmp_path / "s"), {"memory": memory})
        async with service:
            good = await service.create_checkpoint()
            memory.value = "b"
            seen, plain = [], []

            async def take(picture):
                await asyncio.sleep(0)
                seen.append((picture.status, asyncio.get_running_loop()))

            await service.recover_from_checkpoint(good.id, on_progress=take)
            assert memory.value == "a"
            assert seen[-1] == ("completed", asyncio.get_running_loop())
            await service.recover_from_checkpoint(
                good.id, on_progress=lambda _: plain.append(asyncio.get_running_loop())
            )
            assert set(plain) == {asyncio.get_running_loop()}
            with pytest.raises(ArgumentError, match="on_progress"):
                await service.recover_from_checkpoint(on_progress=5)
            assert await service.resume_recovery() is None
            assert await service.roll_back_recovery() is None

    asyncio.run(scenario())


def test_the_pictures_as_an_asynchronous_iterator(tmp_path):
    async def scenario():
        memory = Manager("a")
        service = AsyncCheckpointService.create(quiet(tmp_path / "s"), {"memory": memory})
        async with service:
            good = await service.create_checkpoint()
            memory.value = "b"
            statuses = [one.status async for one in service.iterate_recovery(good.id)]
            assert statuses[-1] == "completed"
            assert memory.value == "a"
            memory.value = "c"
            async with aclosing(service.iterate_recovery(good.id)) as pictures:
                async for _ in pictures:
                    break
            assert memory.value == "c"  # cancelled before it touched anything
            stop = threading.Event()
            stop.set()
            with pytest.raises(RecoveryCancelledError):
                async for _ in service.iterate_recovery(good.id, cancel=stop):
                    pass

    asyncio.run(scenario())


def test_a_task_that_is_cancelled_while_it_iterates_ends_the_recovery(tmp_path):
    async def scenario():
        memory, entered, go_on = Manager("a"), threading.Event(), threading.Event()
        service = AsyncCheckpointService.create(quiet(tmp_path / "s"), {"memory": memory})
        async with service:
            good = await service.create_checkpoint()
            memory.value = "b"
            real = memory.set_state

            def slow(state):
                entered.set()
                go_on.wait(30)
                real(state)

            service.sync.components[0]._restore = slow

            async def follow():
                async with aclosing(service.iterate_recovery(good.id)) as pictures:
                    async for _ in pictures:
                        pass

            task = asyncio.create_task(follow())
            assert await asyncio.to_thread(entered.wait, 30)
            task.cancel()
            await asyncio.sleep(0.05)
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert memory.value == "b"
            assert (await service.create_checkpoint()).reason == "manual"

    asyncio.run(scenario())


def test_a_service_that_is_made_before_its_loop_runs(tmp_path):
    agents = Coroutines(1)
    service = AsyncCheckpointService.create(quiet(tmp_path / "s"), {"agents": agents})
    seen = []
    told = asyncio.Event()

    def take(_info):
        seen.append(asyncio.get_running_loop())
        told.set()

    end = service.on("checkpointCreated", take)
    assert callable(end)
    with pytest.raises(ArgumentError):
        service.on("checkpointCreated", 5)

    async def scenario():
        async with service:
            good = await service.create_checkpoint()
            assert agents.loop is asyncio.get_running_loop()
            agents.value = 2
            await service.recover_from_checkpoint(good.id)
            assert agents.value == 1
            await told.wait()
            assert seen[0] is asyncio.get_running_loop()

    asyncio.run(asyncio.wait_for(scenario(), 60))


@pytest.mark.parametrize("is_resumed", [False, True])
def test_a_cancelled_recovery_is_put_back_before_its_caller_goes_on(tmp_path, is_resumed):
    async def scenario():
        first, second = Manager("a"), Manager("a")
        service = AsyncCheckpointService.create(
            quiet(tmp_path / "s"), {"one": first, "two": second}
        )
        entered, go_on = threading.Event(), threading.Event()
        async with service:
            good = await service.create_checkpoint()
            first.value = second.value = "b"
            part = service.sync.components[1]
            real = part._restore

            def fails(state):
                second.value = "half"
                raise ValueError(state)

            def slow(state):
                entered.set()
                assert go_on.wait(30)
                real(state)

            if is_resumed:
                part._restore = fails
                with pytest.raises(RecoveryIncompleteError):
                    await service.recover_from_checkpoint(good.id)
            part._restore = slow
            call = service.resume_recovery() if is_resumed else service.recover_from_checkpoint()
            task = asyncio.create_task(call)
            assert await asyncio.to_thread(entered.wait, 30)
            task.cancel()
            await asyncio.sleep(0.05)
            task.cancel()  # who is impatient waits too
            await asyncio.sleep(0.05)
            assert not task.done(), "it is restored behind its caller's back"
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (first.value, second.value) == ("b", "b")
            assert service.current_operation is None
            assert (await service.create_checkpoint()).reason == "manual"

    asyncio.run(scenario())


class Needy(Manager):
    """One whose coroutines need the loop's own threads."""

    async def get_state(self):
        return await asyncio.to_thread(super().get_state)

    async def set_state(self, state):
        await asyncio.to_thread(super().set_state, state)


def test_many_calls_leave_the_loops_threads_to_its_components(tmp_path):
    async def scenario():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        agents = Needy(1)
        service = AsyncCheckpointService.create(quiet(tmp_path / "s"), {"agents": agents})
        async with service:
            calls = [service.create_checkpoint(str(number)) for number in range(6)]
            made = await asyncio.gather(*calls)
            agents.value = 2
            await service.recover_from_checkpoint(made[0].id)
            assert agents.value == 1
        with pytest.raises(ServiceStateError):
            await service.list_checkpoints()

    asyncio.run(scenario())
