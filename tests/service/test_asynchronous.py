"""The service of asyncio where something ends too soon: a task, a loop, a thread, a process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time

import pytest

from ckptlog import AsyncCheckpointService, CheckpointManager
from ckptlog.errors import ArgumentError
from ckptlog.service.pool import Pool
from tests.architecture.tree import ROOT
from tests.service.system import WAIT_S, settings, until
from tests.service.test_stopping import Part
from tests.threadless import threadless

FORKED = """
import asyncio, os, sys, traceback
from ckptlog import AsyncCheckpointService, CheckpointManager
from tests.service.system import Agents, settings

service = AsyncCheckpointService.create(settings(sys.argv[1]), {"agentManager": Agents()})

async def main():
    await service.start()
    await service.create_checkpoint()
    await asyncio.sleep(0.3)  # a thread is there that waits for work

async def child():
    await asyncio.wait_for(service.stop(), 10)
    print((await asyncio.wait_for(service.get_metrics(), 10)).total_checkpoints > 0, flush=True)

asyncio.run(main())
pid = os.fork()
if pid == 0:
    try:
        asyncio.run(child())
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)
os.waitpid(pid, 0)
service.sync.close()
"""


def made(path):
    part = Part("a")
    return AsyncCheckpointService.create(settings(path, intervalSeconds=600), [part]), part


def test_a_forked_child_has_threads_of_its_own(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FORKED, str(tmp_path / "s")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert done.stdout == "True\n", done.stderr


def test_who_is_cancelled_twice_waits_for_the_rollback_too(tmp_path):
    async def main():
        service, part = made(tmp_path / "s")
        async with service:
            first = await service.create_checkpoint()
            part.value, part.held = 2, "restore"

            async def work():
                async for _ in service.iterate_recovery(first.id):
                    pass

            working = asyncio.ensure_future(work())
            await service._pool.call(part.is_called.wait, WAIT_S)
            for _ in range(3):
                working.cancel()
                await asyncio.wait([working], timeout=0.05)
            assert not working.done(), "it left a recovery at work"
            part.may_go_on.set()
            await asyncio.wait([working])
            assert working.cancelled()
            assert service.current_operation is None
            assert part.value == 2

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("is_closed", [False, True])
def test_a_recovery_whose_loop_has_gone_goes_on(tmp_path, is_closed):
    service, part = made(tmp_path / "s")
    loop, tasks, is_asked = asyncio.new_event_loop(), [], asyncio.Event()

    async def picture(_now):
        is_asked.set()
        await asyncio.sleep(3600)

    async def begin():
        await service.start()
        first = await service.create_checkpoint()
        part.value = 2
        tasks.append(
            loop.create_task(service.recover_from_checkpoint(first.id, on_progress=picture))
        )
        await is_asked.wait()

    loop.run_until_complete(begin())
    if is_closed:
        loop.close()
    until(lambda: service.current_operation is None, "the end")
    assert part.value == 1
    if not is_closed:
        loop.run_until_complete(tasks[0])
        assert tasks[0].result().status == "completed"
        loop.close()
    service.sync.close()


def test_where_no_thread_is_to_be_had_the_loop_waits(tmp_path):
    pool, here = Pool(), threading.current_thread()

    async def main():
        with threadless():
            assert await pool.call(threading.current_thread) is here
        assert await pool.call(threading.current_thread) is not here
        service, part = made(tmp_path / "s")
        pictures = []

        async def picture(now):
            pictures.append(now.status)

        async with service:
            first = await service.create_checkpoint()
            part.value = 2
            service._pool.close()
            with threadless():
                await service.recover_from_checkpoint(first.id, on_progress=picture)
                await asyncio.sleep(0)
            assert part.value == 1
            assert pictures[-1] == "completed"

    asyncio.run(asyncio.wait_for(main(), WAIT_S))
    pool.close()


def test_the_loops_default_threads_stay_free(tmp_path, monkeypatch):
    monkeypatch.setattr(asyncio, "to_thread", None)

    async def main():
        service, _ = made(tmp_path / "s")
        async with service:
            info = await service.create_checkpoint()
            assert await service.pin_checkpoint(info.id)
            assert await service.unpin_checkpoint(info.id)
        config = settings(tmp_path / "quick", intervalSeconds=600)
        async with await AsyncCheckpointService.quick_start(config=config) as quick:
            assert (await quick.create_checkpoint()).reason == "manual"

    asyncio.run(main())


def test_callbacks_that_would_never_run_are_refused(tmp_path):
    async def coroutine(_what):
        raise AssertionError

    def generator(_what):
        yield

    async def main():
        service, _ = made(tmp_path / "s")
        async with service:
            service.on("checkpointCreated", coroutine)()
            for call in (service.on, service.sync.on):
                with pytest.raises(ArgumentError, match="generator function"):
                    call("checkpointCreated", generator)
            with pytest.raises(ArgumentError, match="generator function"):
                await service.recover_from_checkpoint(on_progress=generator)
            for callback in (coroutine, generator):
                with pytest.raises(ArgumentError, match="would never run"):
                    service.sync.on("checkpointCreated", callback)
                with pytest.raises(ArgumentError, match="would never run"):
                    service.sync.recover_from_checkpoint(on_progress=callback)

    asyncio.run(main())


def test_coroutines_are_captured_once_more_behind_their_loop(tmp_path):
    class Agents:
        number = 1

        async def get_state(self):
            await asyncio.sleep(0)
            return {"number": self.number}

        async def set_state(self, state):
            self.number = state["number"]

    agents = Agents()
    service = AsyncCheckpointService.create(
        settings(tmp_path / "s", intervalSeconds=600, captureOnShutdown=True),
        {"agentManager": agents},
    )

    async def main():
        await service.start()
        await service.create_checkpoint()
        agents.number = 2

    asyncio.run(main())
    service.sync.stop()  # as the interpreter's end does
    last = service.sync.list_checkpoints()[0]
    assert last.reason == "shutdown"
    assert service.sync._engine.capturer.stored(last)["agents"].value() == {"number": 2}
    service.sync.close()


def test_a_block_whose_start_is_cancelled_closes_the_service(tmp_path, monkeypatch):
    async def main():
        service, _ = made(tmp_path / "s")
        start, is_started = service.sync.start, threading.Event()

        def slow(**options):
            time.sleep(0.5)
            try:
                start(**options)
            finally:
                is_started.set()

        monkeypatch.setattr(service.sync, "start", slow)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(service.__aenter__(), 0.1)
        await asyncio.to_thread(is_started.wait, WAIT_S)
        return service

    service = asyncio.run(main())
    until(lambda: service.state == "closed", "the close")
    with CheckpointManager(tmp_path / "s") as manager:
        assert manager.list_leases() == []
