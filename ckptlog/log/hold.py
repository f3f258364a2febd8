"""The right to write: this process's mutex and the store's flock, taken and given back together.

An interrupt (Ctrl-C, a signal that raises) can end any call at any point, also the one that gives
the lock back. So:

* `give_back` may be called again and again; what is not held by this thread is left alone;
* it says how deep the caller was before, not "one less", so that a call that was cut off after its
  work is repeated without harm;
* who takes it does so inside of a `try`, and repeats `give_back` where that was interrupted.

Only the thread that holds the mutex reads or writes the depth.
"""

from __future__ import annotations

from contextlib import suppress
from threading import RLock, get_ident

from ckptlog.errors import LockTimeoutError
from ckptlog.storage.environment import Environment
from ckptlog.storage.lock import WriterLock

_NOBODY = 0


class Hold:
    """One process's hold on a store's writer's lock. It nests in one thread.

    Threads: safe; that is its purpose.
    """

    def __init__(self, lock: WriterLock, environment: Environment) -> None:
        self.mutex = RLock()
        self._lock = lock
        self._environment = environment
        self._owner = _NOBODY
        self._depth = 0

    @property
    def depth(self) -> int:
        """How many holds the calling thread has inside one another."""
        return self._depth if self._owner == get_ident() else 0

    def take(self, timeout_s: float) -> None:
        """Take the lock, or go one deeper.

        Raises:
            LockTimeoutError: Another thread or process held it for timeout_s.
        """
        if self._owner == get_ident():
            self._depth += 1
            return
        left_s = self._wait_for_threads(timeout_s)
        self._owner = get_ident()
        self._depth = 1
        self._lock.acquire(left_s)

    def give_back(self, depth: int = 0) -> None:
        """Be as deep as before `take`; at 0 others may have the lock. Twice is fine."""
        if depth > 0:
            if self._owner == get_ident():
                self._depth = depth
            return
        if self._owner == get_ident():
            self._depth = 0
            self._lock.release()
            self._owner = _NOBODY
        with suppress(RuntimeError):  # not ours, or given back already
            self.mutex.release()

    def _wait_for_threads(self, timeout_s: float) -> float:
        """Take the mutex; return what is left of the time."""
        if self.mutex.acquire(blocking=False):
            return timeout_s
        begin_s = self._environment.monotonic_s()
        if not self.mutex.acquire(timeout=max(0.0, timeout_s)):
            raise LockTimeoutError(
                f"Another thread of this process was writing for {timeout_s:g} s.",
                hint="Call again later; the medium may be slow, or the store very busy.",
                holder="this process",
            )
        return max(0.0, timeout_s - (self._environment.monotonic_s() - begin_s))
