"""A mutex that Ctrl-C cannot leave locked.

A KeyboardInterrupt may be raised between any two steps of the main thread: also behind an acquire()
that has got the lock, before anybody knows. So the lock is one that knows its owner (RLock), it is
taken inside of a `try`, and given back whatever was heard of that. On the way back nothing of
Python's is called before release(): such a call may be interrupted before it begins.

It does not nest all the same: who has it would wait for himself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock, get_ident
from typing import Final

_NOBODY: Final = 0


class Mutex:
    """Lets one thread at a time go on.

    Threads: safe; that is its purpose.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._owner = _NOBODY

    @property
    def is_mine(self) -> bool:
        """Whether the calling thread has it."""
        return self._owner == get_ident()

    @contextmanager
    def held(self, timeout_s: float) -> Iterator[bool]:
        """Have it in a block; False where it could not be had in time, or is this thread's already.

        Inside of the block `take` tries again; its end gives back what was got.
        """
        me = get_ident()
        if self._owner == me:
            yield False
            return
        try:
            yield self.take(timeout_s)
        finally:
            if self._owner == me:
                self._owner = _NOBODY
            try:  # noqa: SIM105 - suppress() is a call, which may be interrupted
                self._lock.release()
            except RuntimeError:  # it was never got
                pass

    def take(self, timeout_s: float) -> bool:
        """Try to take it, inside of `held`; False where that took too long."""
        is_had = self._lock.acquire(timeout=timeout_s)
        if is_had:
            self._owner = get_ident()
        return is_had
