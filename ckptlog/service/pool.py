"""The threads of an asynchronous service: its calls wait there, for the system and for each other.

The loop's default threads are few, and components whose coroutines use them (asyncio.to_thread)
would wait for threads that wait for them.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

from ckptlog.recovery.pictures import Either
from ckptlog.recovery.request import Cancel
from ckptlog.storage.fork import renewed_in_child
from ckptlog.storage.pool import Pool as Threads

# One call works, the others wait for it; a thread is made when it is needed.
_THREADS_MAX: Final = 64

T = TypeVar("T")


class Stoppable(Either):
    """A cancel that can be set: by the caller's own, or by `stop`.

    Threads: safe.
    """

    def __init__(self, cancel: Cancel | None) -> None:
        self._stop = threading.Event()
        super().__init__(self._stop, cancel)

    def stop(self) -> None:
        """Set it."""
        self._stop.set()


class Pool:
    """Threads that are made when they are needed, and end with `close`; then they are made anew.

    Where none is to be had (the main thread has returned, say) the loop waits for each call.

    Threads: in those of the loop.
    """

    def __init__(self) -> None:
        self.renew_in_child()
        renewed_in_child(self)

    def renew_in_child(self) -> None:
        """Have no threads: in a forked child they are the parent's."""
        self._threads: Threads | None = None

    async def call(self, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Call a function in a thread; who is cancelled does not wait for it any more."""
        if self._threads is None:
            self._threads = Threads(_THREADS_MAX, "ckptlog-async")
        context = contextvars.copy_context()
        call = partial(context.run, function, *arguments, **options)
        job = self._threads.begin(call)
        if job is None:
            self._threads = None  # the next call asks anew
            return call()
        return await asyncio.wrap_future(job)

    async def ended(self, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Call a function in a thread, and leave it only when it has ended.

        Args:
            options: Of the function. Where `cancel` is a Stoppable it is stopped when the caller
                is cancelled.
        """
        work = asyncio.ensure_future(self.call(function, *arguments, **options))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            if isinstance(cancel := options.get("cancel"), Stoppable):
                cancel.stop()
            while not work.done():
                with suppress(asyncio.CancelledError):  # once more: it is ending already
                    await asyncio.wait([work])
            if not work.cancelled():
                work.exception()  # who is cancelled is told that, not how the work ended
            raise

    def close(self) -> None:
        """Let the threads end that have nothing to do."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.close(wait=False)
