"""The tally: what `get_metrics` tells, and what alarms go by.

What the log says of the past is read once, at the start (how long the captures that are there took;
what succeeded and failed among the last `LOOK_BACK_EVENTS` events); from then on it is counted.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any, Final

from ckptlog.model.capture import CaptureInfo
from ckptlog.model.event import CAPTURE_FAILED, COMPLETED, RECOVERY_COMPLETED, RECOVERY_FAILED
from ckptlog.model.setting import camel
from ckptlog.policy.alarm import COMPRESSION, ERROR_RATE, RECOVERY_TIME, SAVE_TIME, Reading
from ckptlog.repository.store import Store
from ckptlog.storage.fork import free_in_child

LOOK_BACK_EVENTS: Final = 10_000
_WINDOW: Final = 20
_OPERATIONS_MIN: Final = 3
# Below it, what surrounds the state outweighs it.
_LOGICAL_BYTES_MIN: Final = 1024 * 1024
_DAY_S: Final = 86_400.0
_SAMPLES_MAX: Final = 100_000
RECENT: Final = 1_000


@dataclass(frozen=True)
class ServiceMetrics:
    """How a service does; `to_dict` has the specification's camelCase.

    total_checkpoints: Captures that are there. success_rate, error_rate: 0 to 1, of captures and
    recoveries, also before this start as far as the log was looked at; 1 and 0 without any.
    average_save_time, average_recovery_time: Milliseconds, of the last 1,000; 0 without any.
    storage_usage: Bytes of the store. compression_ratio: Bytes of all captured states to bytes
    stored for them; 0 before the first.
    skipped: Captures that were not needed. refused: Calls with wrong arguments, or at a wrong
    moment. missed: Slots that longer captures have skipped.
    failures_in_a_row, interval_seconds: As the schedule is now. late_seconds_max: Latest begin of
    an automatic capture after its slot, jitter included. slowest_component: Of the last capture.
    stopped_seconds_max: Longest time that the system was held. dropped_callbacks: See `on`.
    alerts: Names of those that are on.
    """

    total_checkpoints: int
    success_rate: float
    average_save_time: float
    average_recovery_time: float
    storage_usage: int
    compression_ratio: float
    error_rate: float
    skipped: int = 0
    refused: int = 0
    missed: int = 0
    failures_in_a_row: int = 0
    interval_seconds: float = 0.0
    late_seconds_max: float = 0.0
    slowest_component: str = ""
    stopped_seconds_max: float = 0.0
    dropped_callbacks: int = 0
    alerts: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return every figure in camelCase, safe for JSON."""
        return {
            camel(name): list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }


class Tally:
    """Counts one service's operations.

    Threads: safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        free_in_child(self, "_lock")
        self.completed = self.failed = self.skipped = self.refused = 0
        self.late_s_max = self.stopped_s_max = 0.0
        self.slowest = self.slowest_recovered = ""
        self._saves_ms: deque[float] = deque(maxlen=RECENT)
        self._recoveries_ms: deque[float] = deque(maxlen=RECENT)
        self._recent: deque[bool] = deque(maxlen=_WINDOW)
        # Of a day: (monotonic seconds, logical bytes, bytes as stored).
        self._day: deque[tuple[float, int, int]] = deque(maxlen=_SAMPLES_MAX)

    def read(self, store: Store, system: str, captures: list[CaptureInfo]) -> None:
        """Take in what the log says of before.

        Successes are counted where failures are: of captures most were deleted since.

        Args:
            captures: The newest ones, newest first.
        """
        with self._lock:
            self._saves_ms.extend(info.seconds * 1000 for info in reversed(captures))
        position = store.position
        for entry in store.events(max(0, position - LOOK_BACK_EVENTS), position):
            event = entry.event
            if event.subject.task != system:
                continue
            if event.type in (CAPTURE_FAILED, RECOVERY_FAILED):
                suppressed = event.facts.get("suppressed", 0)
                self.failed += 1 + (suppressed if isinstance(suppressed, int) else 0)
            elif event.type in (COMPLETED, RECOVERY_COMPLETED):
                self.completed += 1

    def saved(self, info: CaptureInfo, stored_bytes: int, now_s: float) -> None:
        """Count a capture."""
        with self._lock:
            self.completed += 1
            self._recent.append(True)
            self._saves_ms.append(info.seconds * 1000)
            self.slowest = info.slowest
            self.stopped_s_max = max(self.stopped_s_max, info.stopped_s)
            self._day.append((now_s, info.bytes_logical, stored_bytes))
            while self._day[0][0] < now_s - _DAY_S:
                self._day.popleft()

    def skip(self) -> None:
        """Count a capture that was not needed."""
        with self._lock:
            self.skipped += 1
            self._recent.append(True)

    def refuse(self) -> None:
        """Count a request that nobody could have met: a caller's mistake."""
        with self._lock:
            self.refused += 1

    def recovered(self, seconds: float, slowest: str = "") -> None:
        """Count a recovery; slowest is the component that it waited for longest."""
        with self._lock:
            self.slowest_recovered = slowest
            self.completed += 1
            self._recent.append(True)
            self._recoveries_ms.append(seconds * 1000)

    def fail(self) -> None:
        """Count what failed."""
        with self._lock:
            self.failed += 1
            self._recent.append(False)

    def late(self, seconds: float) -> None:
        """Take in how late an automatic capture began."""
        self.late_s_max = max(self.late_s_max, seconds)

    def figures(self) -> dict[str, Any]:
        """Return the rates and means of ServiceMetrics."""
        with self._lock:
            total = self.completed + self.failed
            return {
                "success_rate": self.completed / total if total else 1.0,
                "error_rate": self.failed / total if total else 0.0,
                "average_save_time": _mean(self._saves_ms),
                "average_recovery_time": _mean(self._recoveries_ms),
                "skipped": self.skipped,
                "refused": self.refused,
                "late_seconds_max": self.late_s_max,
                "slowest_component": self.slowest,
                "stopped_seconds_max": self.stopped_s_max,
            }

    def readings(
        self, *, error_rate: float, save_ms: float, recovery_ms: float, target: float
    ) -> list[Reading]:
        """Return what the alarms go by; the arguments are their limits."""
        with self._lock:
            found = []
            if len(self._recent) >= _OPERATIONS_MIN:
                rate = self._recent.count(False) / len(self._recent)
                found.append(Reading(ERROR_RATE, rate, error_rate))
            if self._saves_ms:
                found.append(Reading(SAVE_TIME, self._saves_ms[-1], save_ms, self.slowest))
            if self._recoveries_ms:
                found.append(
                    Reading(
                        RECOVERY_TIME, self._recoveries_ms[-1], recovery_ms, self.slowest_recovered
                    )
                )
            logical = sum(one for _, one, _ in self._day)
            if logical >= _LOGICAL_BYTES_MIN:
                # Greater is worse: how many times the target the ratio should be.
                ratio = logical / max(1, sum(one for *_, one in self._day))
                found.append(Reading(COMPRESSION, target / max(ratio, 1e-9), 1.0, f"{ratio:.1f}"))
            return found


def _mean(values: deque[float]) -> float:
    return round(sum(values) / len(values), 3) if values else 0.0
