"""The circuit breaker: what fails again and again is left alone for a while.

    closed     calls go through; `failures_max` failures in a row open it
    open       calls are refused, for `rest_s`, twice as long after each failed trial
    half_open  the rest is over: one call is let through as a trial; its success closes the
               breaker, its failure opens it again

Pure: whoever uses it says what time it is, on a clock that never goes back.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

from ckptlog.storage.fork import free_in_child

CLOSED: Final = "closed"
OPEN: Final = "open"
HALF_OPEN: Final = "half_open"


@dataclass(frozen=True)
class BreakerSettings:
    """failures_max: In a row. rest_s, rest_max_s: The first rest, and the longest."""

    failures_max: int = 3
    rest_s: float = 30.0
    rest_max_s: float = 600.0


class Breaker:
    """One breaker.

    Threads: safe.
    """

    def __init__(self, settings: BreakerSettings | None = None) -> None:
        self.settings = settings or BreakerSettings()
        self._lock = threading.Lock()
        free_in_child(self, "_lock")
        self._failures = 0
        self._rest_s = self.settings.rest_s
        self._until_s: float | None = None
        self._is_tried = False

    def state(self, now_s: float) -> str:
        """Return CLOSED, OPEN or HALF_OPEN."""
        with self._lock:
            return self._state(now_s)

    def wait_s(self, now_s: float) -> float:
        """Return how long calls are refused from now on, at least; 0 where one may be made."""
        with self._lock:
            return 0.0 if self._until_s is None else max(self._until_s - now_s, 0.0)

    def allows(self, now_s: float) -> bool:
        """Say whether a call may be made. Where it is a trial, its outcome MUST be told."""
        with self._lock:
            state = self._state(now_s)
            if state == HALF_OPEN and not self._is_tried:
                self._is_tried = True
                return True
            return state == CLOSED

    def succeeded(self) -> None:
        """A call succeeded: begin anew."""
        with self._lock:
            self._failures = 0
            self._rest_s = self.settings.rest_s
            self._until_s = None
            self._is_tried = False

    def failed(self, now_s: float) -> None:
        """A call failed."""
        with self._lock:
            self._failures += 1
            if self._is_tried:
                self._rest_s = min(self._rest_s * 2, self.settings.rest_max_s)
            elif self._until_s is not None or self._failures < self.settings.failures_max:
                return
            self._is_tried = False
            self._until_s = now_s + self._rest_s

    def gave_up(self) -> None:
        """A call that was allowed was not made: the next one is the trial."""
        with self._lock:
            self._is_tried = False

    def _state(self, now_s: float) -> str:
        if self._until_s is None:
            return CLOSED
        return OPEN if now_s < self._until_s else HALF_OPEN
