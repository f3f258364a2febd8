"""Health: what can be told of a store and a system right now, each thing beside its limit.

Nothing here writes an event, and nothing is made: a store that is not there is a finding. Limits
are those of the configuration. Page: specs/monitoring.md, section 3.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from ckptlog.capture.catalogue import Catalogue
from ckptlog.errors import CheckpointError
from ckptlog.manager.manager import CheckpointManager
from ckptlog.model.configuration import MEBIBYTE
from ckptlog.model.system_configuration import SystemConfiguration
from ckptlog.policy.alarm import INCOMPLETE, STALE, STORAGE_PRESSURE, STORE, Reading
from ckptlog.recovery.journal import Journal
from ckptlog.repository.report import Report
from ckptlog.repository.statistics import measure
from ckptlog.repository.store import Store

OK: Final = "ok"
WARNING: Final = "warning"
FAILED: Final = "failed"
UNKNOWN: Final = "unknown"
HEALTHY: Final = "healthy"
DEGRADED: Final = "degraded"
UNHEALTHY: Final = "unhealthy"
# A segment is written into room that is taken before: with less than this, commits soon fail.
DISK_FREE_BYTES_MIN: Final = 64 * MEBIBYTE
_MILLION: Final = 1_000_000


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. status: ok, warning, failed, or unknown (it cannot be told)."""

    name: str
    status: str
    message: str
    value: float | None = None
    limit: float | None = None
    code: str = ""
    reading: Reading | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it, safe for JSON."""
        found: dict[str, Any] = {
            "status": self.status,
            "message": self.message,
            "value": self.value,
            "limit": self.limit,
        }
        return {**found, "code": self.code} if self.code else found


def overall(checks: list[Check]) -> str:
    """Return healthy, degraded (a warning) or unhealthy (something failed)."""
    statuses = {one.status for one in checks}
    return UNHEALTHY if FAILED in statuses else DEGRADED if WARNING in statuses else HEALTHY


def unopened(error: CheckpointError) -> Check:
    """Return the check of a store that cannot be opened."""
    reading = Reading(STORE, 1.0, 1.0, error.code)
    return Check("store", FAILED, str(error), code=error.code, reading=reading)


class Probe:
    """Looks at one open store.

    Args:
        fresh_us: When the state was last known to be saved without a capture (it had not changed).

    Threads: one at a time.
    """

    def __init__(
        self,
        store: Store,
        settings: SystemConfiguration,
        *,
        stale_s: float,
        fresh_us: int = 0,
    ) -> None:
        self._store = store
        self._settings = settings
        self._stale_s = stale_s
        self._fresh_us = fresh_us
        self._manager = CheckpointManager(store=store)

    def checks(self, verified: Callable[[Store], Report]) -> list[Check]:
        """Return all checks; none raises.

        Args:
            verified: Gives a verification of the structure, new or of a short while ago.
        """
        return [
            self._asked("store", lambda: self._structure(verified)),
            self._asked("disk", self._disk),
            self._asked("pressure", self._pressure),
            self._asked("stale", self._stale),
            self._asked("recovery", self._recovery),
            self._asked("leases", self._leases),
        ]

    def _asked(self, name: str, probe: Callable[[], Check]) -> Check:
        try:
            return probe()
        except CheckpointError as error:
            return Check(name, FAILED, str(error), code=error.code)
        except OSError as error:  # what a file system does not tell
            return Check(name, UNKNOWN, f"It cannot be told: {error}")

    def _structure(self, verified: Callable[[Store], Report]) -> Check:
        report = verified(self._store)
        count = report.problems_total
        reading = Reading(STORE, float(count), 1.0, report.problems[0].code if count else "")
        if count:
            first = report.problems[0]
            message = f"{count} problem(s); the first: {first}. Run: ckptlog doctor."
            return Check("store", FAILED, message, count, 0, first.code, reading)
        message = f"{report.events} events, verified by structure"
        return Check("store", OK, message, 0, 0, reading=reading)

    def _disk(self) -> Check:
        free = shutil.disk_usage(Path(self._store.path)).free
        status = WARNING if free < DISK_FREE_BYTES_MIN else OK
        message = f"{free / MEBIBYTE:,.0f} MiB are free"
        return Check("disk", status, message, free, DISK_FREE_BYTES_MIN)

    def _pressure(self) -> Check:
        path = Path(self._store.path)
        sizes = measure(path)
        used = sizes.total - sizes.reserve
        room = min(self._settings.storage.local.max_size_bytes, used + shutil.disk_usage(path).free)
        share, limit = used / max(1, room), self._settings.alerts.storage_pressure
        status = FAILED if share >= 1 else WARNING if share >= limit else OK
        message = f"{used / MEBIBYTE:,.1f} of {room / MEBIBYTE:,.1f} MiB are used"
        reading = Reading(STORAGE_PRESSURE, share, limit)
        return Check("pressure", status, message, round(share, 6), limit, reading=reading)

    def _stale(self) -> Check:
        newest = Catalogue(self._store, self._settings.system).latest()
        if newest is None:
            message = f"Nothing was captured of the system {self._settings.system!r} yet"
            return Check("stale", UNKNOWN, message, limit=self._stale_s)
        saved_us = max(self._fresh_us, int(newest.created_at.timestamp() * _MILLION))
        age_s = max(0.0, (self._store.environment.now_us() - saved_us) / _MILLION)
        status = WARNING if age_s >= self._stale_s else OK
        reading = Reading(STALE, age_s, self._stale_s, newest.id)
        message = f"The state was saved {age_s:,.0f} s ago ({newest.id})"
        return Check("stale", status, message, round(age_s, 3), self._stale_s, reading=reading)

    def _recovery(self) -> Check:
        found = Journal(self._manager, self._settings.system).unfinished()
        if found is None:
            reading = Reading(INCOMPLETE, 0.0, 1.0)
            return Check("recovery", OK, "No recovery is unfinished", 0, 0, reading=reading)
        entry = self._store.event_at(found.position)
        now_us = self._store.environment.now_us()
        began_us = now_us if entry is None else _micros(entry.event.time)
        age_ms = (now_us - began_us) / 1000
        is_late = age_ms > self._settings.performance.max_recovery_time_ms
        # Within its time it may be at work right now.
        reading = Reading(INCOMPLETE, 1.0 if is_late else 0.0, 1.0, found.capture)
        message = (
            f"The recovery of {found.capture} began {age_ms / 1000:,.0f} s ago and has not ended"
        )
        status = FAILED if is_late else WARNING
        return Check("recovery", status, message, 1, 0, reading=reading)

    def _leases(self) -> Check:
        leases = self._manager.list_leases()
        expired = [one for one in leases if not one.is_live or one.is_dead]
        message = (
            f"{len(leases) - len(expired)} live, "
            f"{len(expired)} expired, or of a dead process, and not released"
        )
        if expired:
            message += ": " + ", ".join(f"{one.task} ({one.holder})" for one in expired[:5])
        return Check("leases", WARNING if expired else OK, message, len(expired), 0)


def _micros(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * _MILLION)
