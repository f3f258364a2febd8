"""Alerts: alarms that went on or off, as events of the log, as callbacks, as a list."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Any

from ckptlog.errors import CheckpointError
from ckptlog.manager.manager import CheckpointManager
from ckptlog.model.checkpoint import time_text
from ckptlog.model.event import ALERT_CLEARED, ALERT_RAISED
from ckptlog.policy.alarm import Reading, turns
from ckptlog.service import listener
from ckptlog.service.listener import Listeners
from ckptlog.service.operation import moment

_logger = logging.getLogger("ckptlog.service")


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


class Alerts:
    """The alerts of one service.

    Threads: safe.
    """

    def __init__(self, manager: CheckpointManager, system: str, listeners: Listeners) -> None:
        self._manager = manager
        self._system = system
        self._listeners = listeners
        self._lock = Lock()
        self.on: dict[str, Alert] = {}

    def take(self, readings: list[Reading]) -> None:
        """Let alarms go on and off by what was measured; never raises."""
        with self._lock:
            changes = turns(self.on, readings)
            told = []
            for turn in changes:
                one = turn.reading
                if turn.is_on:
                    since = moment(self._manager.store.environment.now_us())
                    alert = Alert(one.alarm, one.value, one.limit, since, one.detail)
                    self.on = {**self.on, one.alarm: alert}
                else:
                    alert = self.on[one.alarm]
                    self.on = {name: old for name, old in self.on.items() if name != one.alarm}
                told.append((turn.is_on, alert, one))
        for is_on, alert, one in told:
            self._tell(alert, one, is_on=is_on)

    def _tell(self, alert: Alert, one: Reading, *, is_on: bool) -> None:
        facts: dict[str, int | str] = {
            "alert": alert.name,
            "value": f"{one.value:.6g}",
            "limit": f"{one.limit:.6g}",
        }
        if one.detail:
            facts["detail"] = one.detail[:200]
        level = logging.WARNING if is_on else logging.INFO
        word = "raised" if is_on else "cleared"
        _logger.log(level, "Alert %s %s: %s", alert.name, word, facts)
        try:
            kind = ALERT_RAISED if is_on else ALERT_CLEARED
            self._manager.record(kind, facts, task=self._system)
        except CheckpointError as error:  # a full disk is what many alerts are about
            _logger.warning("Alert %s was not recorded: %s", alert.name, error)
        self._listeners.tell(listener.ALERT_RAISED if is_on else listener.ALERT_CLEARED, alert)
