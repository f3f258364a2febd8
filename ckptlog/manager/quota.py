"""The limit on a store's size, looked at often enough and no more.

    below 90 %   nothing
    from  90 %   one event `storage.pressure` for each crossing
    from 100 %   creates are refused

Completing, failing, deleting and cleaning up are never refused: they are how work ends well. What
counts is the store's directory without the reserve. A size is measured by its files, which costs
some 0.1 ms; the more room is left, the more creates pass unmeasured, within a second at most.

What is planted (captures) is known to the byte before it is committed, and is refused where the
store would pass the limit with it. The zeros that the log writes ahead of itself count, because
they take room; so it writes no more of them than there is room for, and gives them back before
anything is refused for them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Final

from ckptlog.errors import CheckpointError, QuotaError
from ckptlog.model.configuration import GIBIBYTE
from ckptlog.model.event import STORAGE_PRESSURE
from ckptlog.policy.command import Record
from ckptlog.repository.intent import Intent, Step
from ckptlog.repository.statistics import measure
from ckptlog.repository.store import Store
from ckptlog.storage.fork import free_in_child

PRESSURE: Final = 0.9
# Below it the pressure is over; between the two nothing changes, so that a store at the edge does
# not tell again and again.
RELIEF: Final = 0.85
_INTERVAL_S: Final = 1.0
_CHECKS_MAX: Final = 256
_BYTES_PER_CHECK: Final = 64 * 1024
_NEAR_BYTES: Final = 2 * 1024 * 1024
# What a commit adds beside its chunks: its events, and rows of views with SQLite's log of them.
_BESIDE_BYTES: Final = 128 * 1024
_LOCK_S: Final = 5.0
# Another process, or this one before a restart, may have told already.
_LOOK_BACK_EVENTS: Final = 1000

_logger = logging.getLogger("ckptlog")


class Quota:
    """Watches one store.

    Args:
        max_storage_size_gb: The limit in GiB.
        on_pressure: Called once for each crossing of 90 %, in the thread that met it.

    Threads: safe.
    """

    def __init__(
        self,
        store: Store,
        max_storage_size_gb: float,
        *,
        on_pressure: Callable[[], None] | None = None,
    ) -> None:
        self._store = store
        self._limit_bytes = int(max_storage_size_gb * GIBIBYTE)
        self._on_pressure = on_pressure
        self._lock = Lock()
        free_in_child(self, "_lock")
        self._used_bytes = 0
        self._checks_left = 0
        self._measured_at_s = 0.0
        self._is_pressed = False

    def check(self, more_bytes: int | None = None, *, is_due: bool = False) -> None:
        """Refuse to add more to a store that is full.

        Args:
            more_bytes: Bytes that are about to be written; where that is much, the files are
                measured now. None where it is not known.
            is_due: Whether to measure whatever was measured when.

        Raises:
            QuotaError: The limit is reached, or would be passed.
        """
        self._checks_left -= 1
        now_s = self._store.environment.monotonic_s()
        is_due |= self._checks_left < 0 or now_s - self._measured_at_s >= _INTERVAL_S
        # Measuring is nothing beside writing so much, nor where little room is left.
        is_near = self._limit_bytes - self._used_bytes < _NEAR_BYTES
        is_due |= more_bytes is not None and (is_near or more_bytes >= _BYTES_PER_CHECK)
        if is_due and self._lock.acquire(blocking=False):
            try:
                self._measure(now_s)
            finally:
                self._lock.release()
        if self._is_over(more_bytes):
            self._give_back(now_s)
        if self._is_over(more_bytes):
            raise self._refusal(more_bytes)

    def _is_over(self, more_bytes: int | None) -> bool:
        if more_bytes is None:
            return self._used_bytes >= self._limit_bytes
        return self._used_bytes + more_bytes + _BESIDE_BYTES > self._limit_bytes

    def _give_back(self, now_s: float) -> None:
        """Let the log cut its zeros, and the views theirs; where that fails, they count."""
        with self._lock, suppress(CheckpointError):
            self._store.trim_views()
            self._store.log.give_back_zeros(_LOCK_S)
            self._measure(now_s)

    def _refusal(self, more_bytes: int | None) -> QuotaError:
        more = f", and {more_bytes / 1e6:.1f} MB were to be added" if more_bytes else ""
        return QuotaError(
            f"The store {self._store.path} takes {self._used_bytes / 1e6:.1f} MB{more}; the limit "
            f"is {self._limit_bytes / 1e6:.1f} MB.",
            hint="Raise the limit (max_storage_size_gb; of a service "
            "storage.local.maxSizeBytes), or go on in another store. Completing, failing and "
            "deleting still work.",
            used_bytes=self._used_bytes,
            limit_bytes=self._limit_bytes,
        )

    def _spare_bytes(self) -> int:
        """Return how many zeros the log may write ahead: those for which there is room now."""
        try:
            sizes = measure(self._store.path)
        except CheckpointError:
            return 0
        return max(0, self._limit_bytes - (sizes.total - sizes.reserve) - _BESIDE_BYTES)

    def _measure(self, now_s: float) -> None:
        self._store.log.spare_bytes = self._spare_bytes
        sizes = measure(self._store.path)
        self._used_bytes = sizes.total - sizes.reserve
        self._measured_at_s = now_s
        room_bytes = self._limit_bytes - self._used_bytes
        self._checks_left = max(0, min(_CHECKS_MAX, room_bytes // _BYTES_PER_CHECK))
        if self._used_bytes < RELIEF * self._limit_bytes:
            self._is_pressed = False
        elif self._used_bytes >= PRESSURE * self._limit_bytes and not self._is_pressed:
            self._is_pressed = True
            self._tell()

    def _tell(self) -> None:
        """Record the crossing; that this fails is no reason to refuse a create."""
        try:
            if not self._was_told():
                self._record()
            if self._on_pressure is not None:
                self._on_pressure()
        except CheckpointError as error:
            _logger.warning("The storage pressure was not recorded: %s (%s)", error, error.code)

    def _was_told(self) -> bool:
        position = self._store.position
        recent = self._store.events(max(0, position - _LOOK_BACK_EVENTS), position)
        return any(entry.event.type == STORAGE_PRESSURE for entry in recent)

    def _record(self) -> None:
        environment = self._store.environment
        command = Record(
            actor=environment.actor(),
            command=f"{environment.now_us():014x}{environment.random_bytes(5).hex()}",
            type=STORAGE_PRESSURE,
            facts={"limit_bytes": self._limit_bytes, "used_bytes": self._used_bytes},
        )
        self._store.submit(Intent((Step(command),)))
