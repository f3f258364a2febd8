"""CheckpointMonitoring: the specification's monitoring and logging, with alerts.

By hand: `log_checkpoint_operation` and `emit_checkpoint_metric`. By itself: `attach` follows a
manager's or a store's log (of all processes), or a service. Memory is bounded
(`monitor.tally`). Page: specs/monitoring.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import islice
from threading import Lock, RLock
from typing import Any, Final

from ckptlog.errors import ArgumentError, CheckpointError, SettingsError
from ckptlog.manager.events import CheckpointEvent, CheckpointEvents
from ckptlog.manager.manager import CheckpointManager
from ckptlog.model import event as kinds
from ckptlog.model.checkpoint import time_text, utc_now
from ckptlog.model.configuration import CheckpointConfiguration
from ckptlog.model.quotation import quoted
from ckptlog.model.setting import camel, nearest, snake
from ckptlog.model.system_configuration import SystemConfiguration
from ckptlog.monitor import health
from ckptlog.monitor.alert import Alert, AlertBook
from ckptlog.monitor.examination import Examination
from ckptlog.monitor.face import service_of
from ckptlog.monitor.logger import LoggerFactory
from ckptlog.monitor.name import check_name
from ckptlog.monitor.sketch import ERROR, Sketch, checked, not_negative
from ckptlog.monitor.tally import Tally
from ckptlog.policy.alarm import STORE, Reading
from ckptlog.policy.sanitise import sanitiser_of
from ckptlog.repository.store import Store
from ckptlog.storage.fork import free_in_child
from ckptlog.watch.bus import ANY_TYPE, InProcessEventBus

OPERATION: Final = "operation"
METRIC: Final = "metric"
ALERT_RAISED: Final = "alert_raised"
ALERT_CLEARED: Final = "alert_cleared"
EVENTS: Final = (OPERATION, METRIC, ALERT_RAISED, ALERT_CLEARED)
_DAY_S: Final = 86_400.0
_FAILURES_TOLD: Final = 10
_FAILED_WORDS: Final = frozenset({"failed", "failure", "error"})
_FAILURES: Final = frozenset({kinds.CAPTURE_FAILED, kinds.RECOVERY_FAILED})

Configuration = CheckpointConfiguration | SystemConfiguration | Mapping[str, Any]


class CheckpointMonitoring:
    """Monitors one store, and the system that is saved in it.

    Args:
        config: A CheckpointConfiguration, a SystemConfiguration, or settings of one in a dict. Its
            directory is looked at, read-only, unless something is attached.
        stale_seconds: Age from which on the newest capture is stale. By default what a
            SystemConfiguration says; a day with a CheckpointConfiguration, which has no interval.
        structure_interval_s: How long a verification of the structure counts for
            `check_system_health`; a report makes a new one.

    Threads: safe. Callbacks run in the thread that told, under no lock.
    """

    def __init__(
        self,
        config: Configuration | None = None,
        *,
        stale_seconds: float | None = None,
        structure_interval_s: float = 60.0,
    ) -> None:
        self.config, self.settings, stale_s = _settings(config)
        given = None if stale_seconds is None else checked("stale_seconds", stale_seconds)
        self._stale_s = stale_s if given is None else given
        self._examination = Examination(
            self.config.storage_dir,
            self.settings,
            stale_s=self._stale_s,
            structure_s=checked("structure_interval_s", structure_interval_s),
        )
        self._tally = Tally(sanitiser_of(self.config))
        self._log = LoggerFactory.get_logger("monitor")
        self._bus = InProcessEventBus()
        self._lock, self._health_lock = Lock(), RLock()
        free_in_child(self, "_lock", "_health_lock")
        self._store: Store | None = None
        self._service: Any = None
        self._fresh_us = 0
        self._ends: list[Callable[[], None]] = []
        self._book = AlertBook(None, self.settings.system, self._tell_alert)

    # --- the specification's methods ----------------------------------------------------------

    def log_checkpoint_operation(
        self, operation: str, details: Mapping[str, Any] | None = None
    ) -> None:
        """Count an operation and log it, with its details as fields of the record.

        Args:
            details: Secrets are replaced as in checkpoints. `duration_ms` is taken into the
                operation's latencies; `error`, a `status` of failed or error, or `success` False
                make it a failed one.

        Raises:
            ArgumentError: operation is no name, details are no dictionary, duration_ms is no number
                from 0 on.
        """
        check_name("operation", operation)
        if details is not None and not isinstance(details, Mapping):
            raise ArgumentError(
                f"details are {quoted(details)}; a dictionary is needed.", argument="details"
            )
        given = dict(details or {})
        duration = given.get("duration_ms")
        duration_ms = None if duration is None else not_negative("duration_ms", duration)
        is_failed = _is_failed(given)
        entry = self._tally.entry(operation, given, is_failed=is_failed)
        self._tally.count(operation, duration_ms, is_failed=is_failed)
        self._tally.keep(entry)
        level = logging.WARNING if is_failed else logging.INFO
        word = "failed" if is_failed else "done"
        self._log.log(level, "%s %s", operation, word, extra=entry)
        self._bus.publish(OPERATION, entry)
        self._book.take(self._own_readings())

    def emit_checkpoint_metric(self, metric_name: str, value: float) -> None:
        """Take in a metric's value, and tell the callbacks of `metric`.

        Raises:
            ArgumentError: metric_name is no name, or value no finite number.
        """
        check_name("metric_name", metric_name)
        real = checked("value", value)
        self._tally.measure(metric_name, real)
        self._log.debug("%s = %g", metric_name, real, extra={"metric": metric_name, "value": real})
        self._bus.publish(METRIC, {"metric": metric_name, "value": real})

    def check_system_health(self) -> dict[str, Any]:
        """Look at everything, let alerts go on and off, and return what was found; JSON-safe.

        It raises for nothing that may be wrong with a store: that is a failed check.
        """
        return self._health(is_fresh=False)

    def generate_health_report(self) -> dict[str, Any]:
        """Return the health, with a new verification of the structure, and all that was counted."""
        found = self._health(is_fresh=True)
        return {
            **found,
            "operations": self.operations(),
            "metrics": {name: one.summary() for name, one in self.metrics().items()},
            "recent_failures": self._tally.failures(_FAILURES_TOLD),
            "storage": self._examination.statistics(self._store),
            "service": self._service_figures(),
            "limits": {
                "error_rate": self.settings.alerts.error_rate,
                "save_time_ms": self.settings.save_time_ms,
                "storage_pressure": self.settings.alerts.storage_pressure,
                "stale_seconds": self._stale_s,
                "recovery_time_ms": self.settings.performance.max_recovery_time_ms,
                "storage_bytes": self.settings.storage.local.max_size_bytes,
            },
            "percentile_error": ERROR,
        }

    # --- who is watched, who is told ----------------------------------------------------------

    def attach(self, target: Any) -> Callable[[], None]:
        """Watch a manager, a store or an initialised service; return what ends that.

        Through a manager or a service alerts become events of the log. A service raises most of
        them itself; what is told here of one is what it does not look at (`store`).

        Raises:
            ArgumentError: It is none of them, or something is attached already.
        """
        with self._lock:
            if self._store is not None:
                raise ArgumentError("Something is attached already.", hint="Call close() first.")
        target = service_of(target)
        if isinstance(target, Store):
            ends = [self._follow(target)]
        elif isinstance(target, CheckpointManager):
            ends = [self._follow(target.store)]
            self._book.manager = target
        elif callable(getattr(target, "on", None)) and hasattr(target, "get_metrics"):
            ends = self._listen(target)
        else:
            raise ArgumentError(
                f"target is {quoted(target)}; a manager, a store or a service is needed.",
                argument="target",
            )
        with self._lock:
            self._ends = ends
        return self.close

    def on(self, event: str, callback: Callable[[Any], object]) -> Callable[[], None]:
        """Call a function for each `operation`, `metric`, `alertRaised`, `alertCleared`, or "*".

        Either spelling will do. What a callback raises is logged. Returns what ends it.

        Raises:
            ArgumentError: There is no such event, or nothing to call.
        """
        name = snake(event) if type(event) is str else ""
        if name not in EVENTS and event != ANY_TYPE:
            meant = nearest(name, EVENTS)
            raise ArgumentError(
                f"There is no event {quoted(event)}.",
                hint=(f"Did you mean {camel(meant)!r}? " if meant else "")
                + f"Events are: {', '.join(map(camel, EVENTS))}.",
                argument="event",
            )
        return self._bus.subscribe(name or ANY_TYPE, callback)

    @property
    def alerts(self) -> list[Alert]:
        """Alerts that are on; an attached service's are among them."""
        own = list(self._book.on.values())
        service = self._service
        return own if service is None else [*own, *service.alerts]

    def close(self) -> None:
        """Watch no more. Twice is fine; what was counted stays."""
        with self._lock:
            ends, self._ends = self._ends, []
            self._store = self._service = None
        self._book.manager = None
        for end in ends:
            end()

    def _follow(self, store: Store) -> Callable[[], None]:
        events = CheckpointEvents()
        events.on(ANY_TYPE, self._committed)
        relay = events.follow(store, other_processes=True)
        self._store = store
        return relay.close

    def _listen(self, service: Any) -> list[Callable[[], None]]:
        self._store = service.store
        self._service = service
        return [
            service.on("checkpoint_created", self._captured),
            service.on("checkpoint_skipped", self._skipped),
            service.on("recovery_completed", self._recovered),
            service.on("operation_failed", self._failed),
            service.on("alert_raised", lambda alert: self._bus.publish(ALERT_RAISED, alert)),
            service.on("alert_cleared", lambda alert: self._bus.publish(ALERT_CLEARED, alert)),
        ]

    def _committed(self, event: CheckpointEvent) -> None:
        if event.type in (kinds.ALERT_RAISED, kinds.ALERT_CLEARED, kinds.FENCE):
            return
        is_failed = event.type in _FAILURES
        self._tally.count(event.type, None, is_failed=is_failed)
        details: dict[str, Any] = {
            "task": event.task_id,
            "checkpoint": event.checkpoint_id,
            "position": event.position,
        }
        if is_failed:
            details |= self._facts(event.position)
        self._followed(event.type, details, is_failed=is_failed)
        self._book.take(self._own_readings())

    def _facts(self, position: int) -> dict[str, Any]:
        """Return what an event of the log says of a failure: the component, the reason."""
        store = self._store
        with suppress(CheckpointError):
            for entry in () if store is None else islice(store.events(position), 1):
                return dict(entry.event.facts)
        return {}

    def _captured(self, info: Any) -> None:
        self._tally.count("capture", info.seconds * 1000)
        self._followed("capture", {"checkpoint": info.id, "reason": info.reason})

    def _recovered(self, progress: Any) -> None:
        duration_ms = None
        if progress.started_at and progress.finished_at:
            seconds = (progress.finished_at - progress.started_at).total_seconds()
            duration_ms = max(0.0, seconds) * 1000
        self._tally.count("recovery", duration_ms)
        self._followed("recovery", {"checkpoint": progress.capture_id})

    def _skipped(self, _: Any) -> None:
        store = self._store
        if store is not None:
            self._fresh_us = store.environment.now_us()

    def _failed(self, operation: Any) -> None:
        self._tally.count(operation.kind, None, is_failed=True)
        details = {
            "checkpoint": operation.checkpoint_id,
            "reason": operation.reason,
            "component": operation.component,
            "error": str(operation.error),
        }
        self._followed(operation.kind, details, is_failed=True)

    def _followed(
        self, operation: str, details: dict[str, Any], *, is_failed: bool = False
    ) -> None:
        """Tell what was done without us; of it only failures are kept."""
        entry = self._tally.entry(operation, details, is_failed=is_failed)
        if is_failed:
            self._tally.keep(entry)
        self._bus.publish(OPERATION, entry)

    # --- what was counted ---------------------------------------------------------------------

    def operations(self) -> dict[str, dict[str, Any]]:
        """Return count, failed and latencies of each operation, by name."""
        return self._tally.operations()

    def metrics(self) -> dict[str, Sketch]:
        """Return the sketch of each metric that was emitted."""
        return self._tally.metrics()

    def latencies(self) -> dict[str, Sketch]:
        """Return the sketch of each operation's milliseconds."""
        return self._tally.latencies()

    def _own_readings(self) -> list[Reading]:
        if self._service is not None:
            return []  # the service raises these itself
        return self._tally.readings(self.settings.alerts.error_rate, self.settings.save_time_ms)

    def _tell_alert(self, alert: Alert, is_on: bool) -> None:  # noqa: FBT001 - AlertBook's call
        self._bus.publish(ALERT_RAISED if is_on else ALERT_CLEARED, alert)

    # --- health -------------------------------------------------------------------------------

    def _health(self, *, is_fresh: bool) -> dict[str, Any]:
        with self._health_lock:
            checks = [
                *self._examination.checks(self._store, self._fresh_us, is_fresh=is_fresh),
                self._tally.errors(self.settings.alerts.error_rate),
            ]
        readings = [one.reading for one in checks if one.reading is not None]
        if self._service is not None:
            readings = [one for one in readings if one.alarm == STORE]
        self._book.take([*readings, *self._own_readings()])
        return {
            "status": health.overall(checks),
            "checked_at": time_text(utc_now()),
            "system": self.settings.system,
            "store": self.config.storage_dir if self._store is None else str(self._store.path),
            "checks": {one.name: one.to_dict() for one in checks},
            "alerts": [one.to_dict() for one in self.alerts],
        }

    def _service_figures(self) -> dict[str, Any] | None:
        service = self._service
        if service is None:
            return None
        try:
            found: dict[str, Any] = service.get_metrics().to_dict()
        except CheckpointError:
            return None
        return found


def _settings(
    config: Configuration | None,
) -> tuple[CheckpointConfiguration, SystemConfiguration, float]:
    """Return both kinds of settings, and the age from which on a capture is stale."""
    if config is None:
        config = CheckpointConfiguration()
    if isinstance(config, CheckpointConfiguration):
        return config, SystemConfiguration.from_checkpoint_configuration(config), _DAY_S
    if isinstance(config, Mapping):
        config = SystemConfiguration.from_dict(config)
    if isinstance(config, SystemConfiguration):
        return config.checkpoint_configuration(), config, config.stale_s
    raise SettingsError(
        f"config is {quoted(config)}.",
        hint="Give a CheckpointConfiguration, a SystemConfiguration, or a dict of settings.",
        argument="config",
    )


def _is_failed(details: dict[str, Any]) -> bool:
    status = details.get("status")
    return (
        bool(details.get("error"))
        or details.get("success") is False
        or (isinstance(status, str) and status.lower() in _FAILED_WORDS)
    )
