"""Alerts: alarms that went on or off, as events of the log, as callbacks, as a list."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import Any, Final

from ckptlog.errors import CheckpointError
from ckptlog.manager.manager import CheckpointManager
from ckptlog.model.checkpoint import time_text
from ckptlog.model.event import ALERT_CLEARED, ALERT_RAISED
from ckptlog.policy.alarm import Reading, turns
from ckptlog.storage.fork import free_in_child

_MILLION: Final = 1_000_000
_DETAIL_MAX: Final = 200
_logger = logging.getLogger("ckptlog.alerts")


@dataclass(frozen=True)
class Alert:
    """An alarm that is on. value, limit: As measured when it went on. detail: What is behind it."""

    name: str
    value: float
    limit: float
    since: datetime
    detail: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, safe for JSON."""
        return {
            "name": self.name,
            "value": round(self.value, 6),
            "limit": self.limit,
            "since": time_text(self.since),
            "detail": self.detail,
        }


class AlertBook:
    """The alerts of one system.

    Args:
        manager: Where they are recorded; None records none.
        tell: Called with an alert, and whether it went on; must not raise.

    Threads: safe.
    """

    def __init__(
        self,
        manager: CheckpointManager | None,
        system: str,
        tell: Callable[[Alert, bool], object],
    ) -> None:
        self.manager = manager
        self._system = system
        self._tell = tell
        self._lock = Lock()
        free_in_child(self, "_lock")
        self.on: dict[str, Alert] = {}

    def take(self, readings: list[Reading]) -> None:
        """Let alarms go on and off by what was measured; never raises."""
        told = []
        with self._lock:
            for turn in turns(self.on, readings):
                one = turn.reading
                if turn.is_on:
                    alert = Alert(one.alarm, one.value, one.limit, self._now(), one.detail)
                    self.on = {**self.on, one.alarm: alert}
                else:
                    alert = self.on[one.alarm]
                    self.on = {name: old for name, old in self.on.items() if name != one.alarm}
                told.append((turn.is_on, alert, one))
        for is_on, alert, one in told:
            self._record(alert, one, is_on=is_on)
            self._tell(alert, is_on)

    def _now(self) -> datetime:
        if self.manager is None:
            return datetime.now(UTC)
        return datetime.fromtimestamp(self.manager.store.environment.now_us() / _MILLION, UTC)

    def _record(self, alert: Alert, one: Reading, *, is_on: bool) -> None:
        facts: dict[str, int | str] = {
            "alert": alert.name,
            "value": f"{one.value:.6g}",
            "limit": f"{one.limit:.6g}",
        }
        if one.detail:
            facts["detail"] = one.detail[:_DETAIL_MAX]
        level = logging.WARNING if is_on else logging.INFO
        _logger.log(level, "Alert %s %s: %s", alert.name, "raised" if is_on else "cleared", facts)
        manager = self.manager
        if manager is None or manager.store.read_only:
            return
        try:
            manager.record(ALERT_RAISED if is_on else ALERT_CLEARED, facts, task=self._system)
        except CheckpointError as error:  # a full disk is what many alerts are about
            _logger.warning("Alert %s was not recorded: %s", alert.name, error)
