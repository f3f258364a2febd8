"""The asynchronous face: each method runs its synchronous twin in a thread of the saver's own.

The event loop never waits for a disk or a lock. A task that is cancelled stops waiting; what its
thread has begun is finished, so a cancelled put may have been stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from ckptlog.storage.fork import renewed_in_child

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import (
        ChannelVersions,
        Checkpoint,
        CheckpointMetadata,
        CheckpointTuple,
        DeltaChannelHistory,
    )

Answer = TypeVar("Answer")

# Checkpoints that one trip to a thread brings; the first alone, as many ask for no more.
_BATCH: Final = 16


class AsynchronousMethods:
    """The methods with an `a`; see their twins for what they do and raise.

    Threads: safe; any number of tasks and event loops.
    """

    get_tuple: Callable[..., Any]
    list: Callable[..., Iterator[Any]]
    put: Callable[..., Any]
    put_writes: Callable[..., None]
    delete_thread: Callable[..., None]
    delete_for_runs: Callable[..., None]
    copy_thread: Callable[..., None]
    prune: Callable[..., None]
    get_delta_channel_history: Callable[..., Any]
    close: Callable[[], None]

    def _begin_calls(self, workers_max: int) -> None:
        self._calls = _Calls(workers_max)

    def _end_calls(self) -> None:
        self._calls.close()

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Do as `get_tuple`."""
        return await self._calls.run(self.get_tuple, config)

    async def aget(self, config: RunnableConfig) -> Checkpoint | None:
        """Do as `get`."""
        found = await self.aget_tuple(config)
        return None if found is None else found.checkpoint

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's signature
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Do as `list`."""
        found = self.list(config, filter=filter, before=before, limit=limit)
        size = 1
        while batch := await self._calls.run(lambda: list(islice(found, size))):  # noqa: B023
            for one in batch:
                yield one
            size = _BATCH

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Do as `put`."""
        answer: RunnableConfig = await self._calls.run(
            self.put, config, checkpoint, metadata, new_versions
        )
        return answer

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Do as `put_writes`."""
        await self._calls.run(self.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """Do as `delete_thread`."""
        await self._calls.run(self.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Do as `delete_for_runs`."""
        await self._calls.run(self.delete_for_runs, run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Do as `copy_thread`."""
        await self._calls.run(self.copy_thread, source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Do as `prune`."""
        await self._calls.run(partial(self.prune, thread_ids, strategy=strategy))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Do as `get_delta_channel_history`."""
        call = partial(self.get_delta_channel_history, config=config, channels=channels)
        return await self._calls.run(call)

    async def aclose(self) -> None:
        """Do as `close`."""
        await asyncio.to_thread(self.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


class _Calls:
    """The threads; made when the first asynchronous call needs one, anew in a forked child."""

    def __init__(self, workers_max: int) -> None:
        self._workers_max = workers_max
        self.renew_in_child()
        renewed_in_child(self)

    def renew_in_child(self) -> None:
        """Have no threads: in a forked child they are the parent's."""
        self._lock = Lock()
        self._pool: ThreadPoolExecutor | None = None

    async def run(self, call: Callable[..., Answer], *arguments: Any) -> Answer:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads(), partial(call, *arguments))

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._workers_max, "ckptlog-saver")
            return self._pool

    def close(self) -> None:
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()
