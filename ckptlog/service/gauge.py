"""The gauge: how full the store is, how old the state; and the alarms that go by both."""

from __future__ import annotations

import logging
import math
import shutil
from contextlib import suppress

from ckptlog.errors import CheckpointError
from ckptlog.manager.manager import CheckpointManager
from ckptlog.model.system_configuration import SystemConfiguration
from ckptlog.policy.alarm import (
    CALM_INTERVALS,
    RELIEF_STORAGE,
    STALE,
    STORAGE_PRESSURE,
    Reading,
)
from ckptlog.repository.statistics import measure
from ckptlog.service.alerting import Alerts
from ckptlog.service.tally import Tally

_logger = logging.getLogger("ckptlog.service")


class Gauge:
    """Measures one system and its store.

    Attributes:
        slowdown: Factor of the interval under storage pressure.

    Threads: as the engine's operations: one at a time.
    """

    def __init__(
        self, manager: CheckpointManager, config: SystemConfiguration, tally: Tally, alerts: Alerts
    ) -> None:
        self._manager = manager
        self._config = config
        self._environment = manager.store.environment
        self._tally = tally
        self._alerts = alerts
        self.slowdown = 1.0
        self._fresh_s = self._environment.monotonic_s()
        # When there was pressure last.
        self._pressed_s = -math.inf

    def freshen(self) -> float:
        """Note that the state is saved as it is now; return the clock."""
        self._fresh_s = self._environment.monotonic_s()
        return self._fresh_s

    def pressure(self) -> float:
        """Return the used part of the room: of the store's limit, or of the disk."""
        path = self._manager.store.path
        sizes = measure(path)
        used_bytes = sizes.total - sizes.reserve
        room_bytes = self._config.storage.local.max_size_bytes
        with suppress(OSError):  # a file system that does not tell
            room_bytes = min(room_bytes, used_bytes + shutil.disk_usage(path).free)
        return used_bytes / max(1, room_bytes)

    @property
    def stale_s(self) -> float:
        """Age from which on the state is stale: by the interval that storage pressure makes."""
        alerts = self._config.alerts
        return alerts.stale_seconds or self._config.stale_s * self.slowdown

    def _pressure_reading(self, pressure: float) -> list[Reading]:
        """Return what the alarm goes by; none where the room has come back just now."""
        limit, now_s = self._config.alerts.storage_pressure, self._environment.monotonic_s()
        if pressure >= limit * RELIEF_STORAGE:
            self._pressed_s = now_s
        elif (
            now_s - self._pressed_s < CALM_INTERVALS * self._config.interval_seconds * self.slowdown
        ):
            return []
        return [Reading(STORAGE_PRESSURE, pressure, limit)]

    def look(self, *, is_owner: bool) -> float:
        """Measure, and let alarms go on and off; return the storage pressure.

        Args:
            is_owner: Whoever does not own the system does not save it: another process does.
        """
        config = self._config
        try:
            pressure = self.pressure()
            measured = self._pressure_reading(pressure)
        except CheckpointError as error:  # the other alarms need no store
            _logger.warning("The store was not measured: %s", error)
            pressure, measured = 0.0, []
        age_s = self._environment.monotonic_s() - self._fresh_s if is_owner else 0.0
        self._alerts.take(
            [
                *measured,
                *self._tally.readings(
                    error_rate=config.alerts.error_rate,
                    save_ms=config.save_time_ms,
                    recovery_ms=config.performance.max_recovery_time_ms,
                    target=config.performance.compression_target,
                ),
                Reading(STALE, age_s, self.stale_s),
            ]
        )
        return pressure
