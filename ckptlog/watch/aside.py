"""A thread beside the event loop, in which one subscription takes its blocking steps.

Of its own, because the event loop's default executor has a few threads for everybody: a
subscription that waits there keeps one, and a handful of them would keep all. An idle thread
costs some kilobytes; it ends with the subscription.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

Answer = TypeVar("Answer")


class Aside:
    """One thread, made when it is first needed.

    Threads: safe.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._is_closed = False

    async def run(self, step: Callable[[], Answer]) -> Answer:
        """Return what a call returns that was made in the thread, behind those before it.

        Who is cancelled while waiting does not end the call. Once this is closed, calls are made
        where they are asked for: nothing blocks any more.
        """
        from asyncio import get_running_loop
        from concurrent.futures import ThreadPoolExecutor

        loop, context = get_running_loop(), copy_context()
        with self._lock:
            if not self._is_closed:
                if self._executor is None:
                    self._executor = ThreadPoolExecutor(1, "ckptlog-async")
                made = loop.run_in_executor(self._executor, lambda: context.run(step))
            else:
                made = None
        return step() if made is None else await made

    def close(self) -> None:
        """Let the thread end with the call that it is in; do not wait for it."""
        with self._lock:
            self._is_closed = True
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)
