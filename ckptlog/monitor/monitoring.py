"""CheckpointMonitoring: the specification's monitoring and logging, with alerts.

By hand: `log_checkpoint_operation` and `emit_checkpoint_metric`. By itself: `attach` follows a
manager's or a store's log (of all processes), or a service. Memory is bounded: sketches and counts
by name, `NAMES_MAX` of each; the newest `RECENT` operations. Page: specs/monitoring.md.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import islice
from threading import Lock, RLock
from typing import Any, Final, TypeVar

from ckptlog.errors import ArgumentError, CheckpointError, SettingsError, StoreClosedError
from ckptlog.manager.events import CheckpointEvent, CheckpointEvents
from ckptlog.manager.manager import CheckpointManager
from ckptlog.model import event as kinds
from ckptlog.model.checkpoint import time_text, utc_now
from ckptlog.model.configuration import CheckpointConfiguration
from ckptlog.model.quotation import quoted
from ckptlog.model.setting import camel, nearest, snake
from ckptlog.model.system_configuration import SystemConfiguration
from ckptlog.model.value import lower
from ckptlog.monitor import health
from ckptlog.monitor.alert import Alert, AlertBook
from ckptlog.monitor.face import service_of
from ckptlog.monitor.health import Check, Probe
from ckptlog.monitor.logger import LoggerFactory
from ckptlog.monitor.sketch import ERROR, Sketch, checked
from ckptlog.policy.alarm import ERROR_RATE, SAVE_TIME, STORE, Reading
from ckptlog.policy.sanitise import sanitiser_of
from ckptlog.repository.opening import open_store
from ckptlog.repository.report import Report
from ckptlog.repository.store import Store
from ckptlog.watch.bus import ANY_TYPE, InProcessEventBus

OPERATION: Final = "operation"
METRIC: Final = "metric"
ALERT_RAISED: Final = "alert_raised"
ALERT_CLEARED: Final = "alert_cleared"
EVENTS: Final = (OPERATION, METRIC, ALERT_RAISED, ALERT_CLEARED)
NAMES_MAX: Final = 1000
OTHER: Final = "other"
RECENT: Final = 1000
WINDOW: Final = 20
_WINDOW_MIN: Final = 3
_DAY_S: Final = 86_400.0
_TEXT_MAX: Final = 500
_DETAILS_MAX: Final = 32
_FAILED_WORDS: Final = frozenset({"failed", "failure", "error"})
_FAILURES: Final = frozenset({kinds.CAPTURE_FAILED, kinds.RECOVERY_FAILED})

Kind = TypeVar("Kind")
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
        self._structure_s = checked("structure_interval_s", structure_interval_s)
        self._sanitiser = sanitiser_of(self.config)
        self._log = LoggerFactory.get_logger("monitor")
        self._bus = InProcessEventBus()
        self._lock, self._health_lock = Lock(), RLock()
        self._store: Store | None = None
        self._service: Any = None
        self._fresh_us = 0
        self._verified: tuple[float, str, Report] | None = None
        self._sketches: dict[str, Sketch] = {}
        self._metrics: dict[str, Sketch] = {}
        self._counts: dict[str, list[int]] = {}
        self._window: deque[bool] = deque(maxlen=WINDOW)
        self._recent: deque[dict[str, Any]] = deque(maxlen=RECENT)
        self._save_ms: float | None = None
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
            ArgumentError: operation is no name, details are no dictionary, duration_ms no number.
        """
        _check_name("operation", operation)
        if details is not None and not isinstance(details, Mapping):
            raise ArgumentError(
                f"details are {quoted(details)}; a dictionary is needed.", argument="details"
            )
        given = dict(details or {})
        duration = given.get("duration_ms")
        duration_ms = None if duration is None else checked("duration_ms", duration)
        is_failed = _is_failed(given)
        entry = self._entry(operation, given, is_failed=is_failed)
        self._count(operation, duration_ms, is_failed=is_failed)
        with self._lock:
            self._recent.append(entry)
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
        _check_name("metric_name", metric_name)
        real = checked("value", value)
        with self._lock:
            sketch = _bounded(self._metrics, metric_name, Sketch)
        sketch.add(real)
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
        with self._lock:
            failures = [one for one in self._recent if one["failed"]][-10:]
        return {
            **found,
            "operations": self.operations(),
            "metrics": {name: one.summary() for name, one in self.metrics().items()},
            "recent_failures": failures,
            "storage": self._statistics(),
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
        self._count(event.type, None, is_failed=is_failed)
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
        self._count("capture", info.seconds * 1000)
        self._followed("capture", {"checkpoint": info.id, "reason": info.reason})

    def _recovered(self, progress: Any) -> None:
        duration_ms = None
        if progress.started_at and progress.finished_at:
            seconds = (progress.finished_at - progress.started_at).total_seconds()
            duration_ms = max(0.0, seconds) * 1000
        self._count("recovery", duration_ms)
        self._followed("recovery", {"checkpoint": progress.capture_id})

    def _skipped(self, _: Any) -> None:
        store = self._store
        if store is not None:
            self._fresh_us = store.environment.now_us()

    def _failed(self, operation: Any) -> None:
        self._count(operation.kind, None, is_failed=True)
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
        entry = self._entry(operation, details, is_failed=is_failed)
        if is_failed:
            with self._lock:
                self._recent.append(entry)
        self._bus.publish(OPERATION, entry)

    def _entry(self, operation: str, details: dict[str, Any], *, is_failed: bool) -> dict[str, Any]:
        return {
            "operation": operation,
            "time": time_text(utc_now()),
            "failed": is_failed,
            "details": self._cleaned(details),
        }

    # --- what was counted ---------------------------------------------------------------------

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

    def _count(self, operation: str, duration_ms: float | None, *, is_failed: bool = False) -> None:
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

    def _cleaned(self, details: dict[str, Any]) -> dict[str, Any]:
        """Return details without secrets, safe for JSON, texts cut."""
        found: dict[str, Any] = {}
        for key, value in details.items():
            name = str(key)[:_TEXT_MAX]
            shown = repr(value) if isinstance(value, BaseException) else value
            try:
                found |= lower({name: shown}, sanitiser=self._sanitiser)
            except CheckpointError:  # no value that a checkpoint could hold
                with suppress(CheckpointError):
                    found |= lower({name: repr(shown)[:_TEXT_MAX]}, sanitiser=self._sanitiser)
        return {key: _cut(value) for key, value in islice(found.items(), _DETAILS_MAX)}

    def _own_readings(self) -> list[Reading]:
        if self._service is not None:
            return []  # the service raises these itself
        with self._lock:
            found = []
            if len(self._window) >= _WINDOW_MIN:
                rate = self._window.count(False) / len(self._window)
                found.append(Reading(ERROR_RATE, rate, self.settings.alerts.error_rate))
            if self._save_ms is not None:
                found.append(Reading(SAVE_TIME, self._save_ms, self.settings.save_time_ms))
            return found

    def _tell_alert(self, alert: Alert, is_on: bool) -> None:  # noqa: FBT001 - AlertBook's call
        self._bus.publish(ALERT_RAISED if is_on else ALERT_CLEARED, alert)

    # --- health -------------------------------------------------------------------------------

    def _health(self, *, is_fresh: bool) -> dict[str, Any]:
        with self._health_lock:
            checks = [*self._probed(is_fresh=is_fresh), self._errors()]
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

    def _probed(self, *, is_fresh: bool) -> list[Check]:
        def verified(store: Store) -> Report:
            return self._structure(store, is_fresh=is_fresh)

        def checks_of(store: Store) -> list[Check]:
            fresh_us, stale_s = self._fresh_us, self._stale_s
            probe = Probe(store, self.settings, stale_s=stale_s, fresh_us=fresh_us)
            return probe.checks(verified)

        try:
            if self._store is not None:
                self._store.catch_up()
                return checks_of(self._store)
            with open_store(self.config.storage_dir, read_only=True) as store:
                return checks_of(store)
        except StoreClosedError:
            return [health.closed("store")]
        except CheckpointError as error:
            return [health.unopened(error)]

    def _structure(self, store: Store, *, is_fresh: bool) -> Report:
        now_s = store.environment.monotonic_s()
        if not is_fresh and self._verified is not None:
            then_s, identity, report = self._verified
            if identity == store.id and now_s - then_s < self._structure_s:
                return report
        report = store.verify("structure")
        self._verified = (now_s, store.id, report)
        return report

    def _errors(self) -> Check:
        limit = self.settings.alerts.error_rate
        with self._lock:
            count = len(self._window)
            rate = self._window.count(False) / count if count else 0.0
        if count < _WINDOW_MIN:
            message = f"{count} operations are too few to tell"
            return Check("error_rate", health.UNKNOWN, message, rate, limit)
        status = health.WARNING if rate >= limit else health.OK
        message = f"{rate:.0%} of the last {count} operations failed"
        return Check("error_rate", status, message, round(rate, 6), limit)

    def _statistics(self) -> dict[str, Any] | None:
        try:
            if self._store is not None:
                return self._store.stats()
            with open_store(self.config.storage_dir, read_only=True) as store:
                return store.stats()
        except CheckpointError:
            return None

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


def _bounded(table: dict[str, Kind], name: str, make: Callable[[], Kind]) -> Kind:
    if name not in table and len(table) >= NAMES_MAX:
        name = OTHER
    return table.setdefault(name, make())


def _cut(value: Any) -> Any:
    """Return a detail, or the beginning of its text where that is long: a thousand are kept."""
    text = value if isinstance(value, str) else repr(value)
    return value if len(text) <= _TEXT_MAX else text[:_TEXT_MAX]


def _is_failed(details: dict[str, Any]) -> bool:
    status = details.get("status")
    return (
        bool(details.get("error"))
        or details.get("success") is False
        or (isinstance(status, str) and status.lower() in _FAILED_WORDS)
    )


def _check_name(argument: str, name: object) -> None:
    if type(name) is not str or not name.strip() or len(name) > 200:
        raise ArgumentError(
            f"{argument} is {quoted(name)}; a name of 1 to 200 characters is needed.",
            argument=argument,
        )
