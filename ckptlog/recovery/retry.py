"""Retries: an error that may pass is met again, later and later, at moments of chance.

The jitter is full (any moment up to the bound), so that several who failed together do not come
back together.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from ckptlog.errors import CheckpointError

_Result = TypeVar("_Result")
_PASSING: Final = frozenset(
    {errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ETIMEDOUT, errno.ESTALE, errno.ETXTBSY}
)


@dataclass(frozen=True)
class Backoff:
    """attempts: In all. first_s: The first bound. factor: From one bound to the next."""

    attempts: int = 3
    first_s: float = 0.2
    factor: float = 2.0
    longest_s: float = 10.0

    def bound_s(self, failures: int) -> float:
        """Return the longest wait after so many failures (from 1)."""
        return float(min(self.first_s * self.factor ** min(failures - 1, 64), self.longest_s))

    def wait_s(self, failures: int) -> float:
        """Return how long to wait after so many failures (from 1)."""
        return random.uniform(0, self.bound_s(failures))  # noqa: S311 - no secret


def may_pass(error: BaseException) -> bool:
    """Say whether the same call may succeed later, unchanged."""
    if isinstance(error, CheckpointError):
        return error.retryable
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    return isinstance(error, OSError) and error.errno in _PASSING


def retried(
    call: Callable[[], _Result],
    backoff: Backoff,
    *,
    sleep: Callable[[float], object],
    told: Callable[[Exception, float], object] | None = None,
) -> _Result:
    """Return what a call returns, made again where its error may pass.

    Args:
        sleep: Waits; what it raises (a cancellation) ends the retries.
        told: Called with each error that is met again, and the wait.
    """
    failures = 0
    while True:
        try:
            return call()
        except Exception as error:
            failures += 1
            if failures >= backoff.attempts or not may_pass(error):
                raise
            wait_s = backoff.wait_s(failures)
            if told is not None:
                told(error, wait_s)
        sleep(wait_s)
