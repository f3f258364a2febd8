"""The tally: what a monitoring has counted and measured, bounded, and its newest operations.

Sketches and counts by name, `NAMES_MAX` of each, the rest under `OTHER`; the newest `RECENT`
operations; the newest `WINDOW` outcomes, of which the error rate is told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from threading import Lock
from typing import Any, Final, TypeVar

from ckptlog.errors import CheckpointError
from ckptlog.model.checkpoint import time_text, utc_now
from ckptlog.model.quotation import shown
from ckptlog.model.value import lower
from ckptlog.monitor import health
from ckptlog.monitor.health import Check
from ckptlog.monitor.sketch import Sketch
from ckptlog.policy.alarm import ERROR_RATE, SAVE_TIME, Reading
from ckptlog.policy.sanitise import Sanitiser
from ckptlog.storage.fork import free_in_child

NAMES_MAX: Final = 1000
OTHER: Final = "other"
RECENT: Final = 1000
WINDOW: Final = 20
_WINDOW_MIN: Final = 3
_TEXT_MAX: Final = 500
_DETAILS_MAX: Final = 32

Kind = TypeVar("Kind")


class Tally:
    """Counts operations and metrics.

    Args:
        sanitiser: Takes secrets out of details.

    Threads: safe.
    """

    def __init__(self, sanitiser: Sanitiser) -> None:
        self._sanitiser = sanitiser
        self._lock = Lock()
        free_in_child(self, "_lock")
        self._sketches: dict[str, Sketch] = {}
        self._metrics: dict[str, Sketch] = {}
        self._counts: dict[str, list[int]] = {}
        self._window: deque[bool] = deque(maxlen=WINDOW)
        self._recent: deque[dict[str, Any]] = deque(maxlen=RECENT)
        self._save_ms: float | None = None

    def count(self, operation: str, duration_ms: float | None, *, is_failed: bool = False) -> None:
        """Count an operation, with its milliseconds where they are known."""
        with self._lock:
            count = _bounded(self._counts, operation, lambda: [0, 0])
            count[0] += 1
            count[1] += is_failed
            self._window.append(not is_failed)
            sketch = None
            if duration_ms is not None:
                sketch = _bounded(self._sketches, operation, Sketch)
                if operation == "capture":
                    self._save_ms = duration_ms
        if sketch is not None and duration_ms is not None:
            sketch.add(duration_ms)

    def measure(self, metric: str, value: float) -> None:
        """Take in a metric's value."""
        with self._lock:
            sketch = _bounded(self._metrics, metric, Sketch)
        sketch.add(value)

    def keep(self, entry: dict[str, Any]) -> None:
        """Keep an operation among the newest."""
        with self._lock:
            self._recent.append(entry)

    def failures(self, count: int) -> list[dict[str, Any]]:
        """Return the newest failed operations of those that are kept."""
        with self._lock:
            return [one for one in self._recent if one["failed"]][-count:]

    def entry(self, operation: str, details: dict[str, Any], *, is_failed: bool) -> dict[str, Any]:
        """Return what is told of an operation."""
        return {
            "operation": operation,
            "time": time_text(utc_now()),
            "failed": is_failed,
            "details": self._cleaned(details),
        }

    def operations(self) -> dict[str, dict[str, Any]]:
        """Return count, failed and latencies of each operation, by name."""
        with self._lock:
            counts = {name: tuple(one) for name, one in sorted(self._counts.items())}
            sketches = dict(self._sketches)
        return {
            name: {
                "count": done,
                "failed": failed,
                "latency": sketches[name].summary("ms") if name in sketches else {"count": 0},
            }
            for name, (done, failed) in counts.items()
        }

    def metrics(self) -> dict[str, Sketch]:
        """Return the sketch of each metric that was emitted."""
        with self._lock:
            return dict(sorted(self._metrics.items()))

    def latencies(self) -> dict[str, Sketch]:
        """Return the sketch of each operation's milliseconds."""
        with self._lock:
            return dict(sorted(self._sketches.items()))

    def readings(self, error_rate: float, save_time_ms: float) -> list[Reading]:
        """Return what alerts go by, beside the limits."""
        with self._lock:
            found = []
            if len(self._window) >= _WINDOW_MIN:
                rate = self._window.count(False) / len(self._window)
                found.append(Reading(ERROR_RATE, rate, error_rate))
            if self._save_ms is not None:
                found.append(Reading(SAVE_TIME, self._save_ms, save_time_ms))
            return found

    def errors(self, limit: float) -> Check:
        """Return the error rate beside its limit."""
        with self._lock:
            count = len(self._window)
            rate = self._window.count(False) / count if count else 0.0
        if count < _WINDOW_MIN:
            message = f"{count} operations are too few to tell"
            return Check("error_rate", health.UNKNOWN, message, rate, limit)
        status = health.WARNING if rate >= limit else health.OK
        message = f"{rate:.0%} of the last {count} operations failed"
        return Check("error_rate", status, message, round(rate, 6), limit)

    def _cleaned(self, details: dict[str, Any]) -> dict[str, Any]:
        """Return details without secrets, safe for JSON, texts cut."""
        found: dict[str, Any] = {}
        for key, value in details.items():
            name = shown(key, str)[:_TEXT_MAX]
            given = shown(value) if isinstance(value, BaseException) else value
            try:
                found |= lower({name: given}, sanitiser=self._sanitiser)
            except CheckpointError:  # no value that a checkpoint could hold
                with suppress(CheckpointError):
                    found |= lower({name: shown(given)[:_TEXT_MAX]}, sanitiser=self._sanitiser)
        return {key: _cut(value) for key, value in islice(found.items(), _DETAILS_MAX)}


def _bounded(table: dict[str, Kind], name: str, make: Callable[[], Kind]) -> Kind:
    if name not in table and len(table) >= NAMES_MAX:
        name = OTHER
    return table.setdefault(name, make())


def _cut(value: Any) -> Any:
    """Return a detail, or the beginning of its text where that is long: a thousand are kept."""
    text = value if isinstance(value, str) else repr(value)
    return value if len(text) <= _TEXT_MAX else text[:_TEXT_MAX]
