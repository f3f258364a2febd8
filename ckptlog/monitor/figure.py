"""Figures: what monitors, stores and services measure, for whoever exports it; no library needed.

One table, `DEFINITIONS`, fixes names, kinds and labels. Prometheus and OpenTelemetry both show it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from threading import Lock
from typing import Any, Final, NamedTuple

from ckptlog.errors import (
    ArgumentError,
    CheckpointError,
    ServiceStateError,
    StoreClosedError,
)
from ckptlog.manager.manager import CheckpointManager
from ckptlog.model.configuration import MEBIBYTE
from ckptlog.model.quotation import quoted
from ckptlog.model.state import CheckpointState
from ckptlog.monitor.face import service_of
from ckptlog.monitor.monitoring import CheckpointMonitoring
from ckptlog.monitor.name import is_text
from ckptlog.monitor.performance import CheckpointPerformanceMonitor
from ckptlog.monitor.sketch import SHARES, Sketch
from ckptlog.repository.statistics import ask, measure
from ckptlog.repository.store import Store
from ckptlog.storage.fork import free_in_child

COUNTER: Final = "counter"
GAUGE: Final = "gauge"
SUMMARY: Final = "summary"
_logger = logging.getLogger("ckptlog.monitor")


class Definition(NamedTuple):
    """One figure. name: Without the prefix and without units' endings that a library adds."""

    name: str
    kind: str
    unit: str
    help: str
    labels: tuple[str, ...] = ()


DEFINITIONS: Final = (
    Definition("operations", COUNTER, "", "Operations.", ("operation", "outcome")),
    Definition("operation_duration_seconds", SUMMARY, "s", "Time of operations.", ("operation",)),
    Definition("metric", GAUGE, "", "Last value of a metric that was emitted.", ("metric",)),
    Definition("process_memory_bytes", GAUGE, "By", "Resident memory of the process."),
    Definition("store_events", COUNTER, "", "Events in the log."),
    Definition("store_checkpoints", GAUGE, "", "Living checkpoints by state.", ("state",)),
    Definition("store_bytes", GAUGE, "By", "Bytes on the disk by what they are for.", ("part",)),
    Definition("health", GAUGE, "", "1 ok, 0.5 warning, 0 failed.", ("check",)),
    Definition("alert", GAUGE, "", "1 for each alert that is on.", ("alert",)),
    Definition("service_captures", GAUGE, "", "Captures that are there."),
    Definition("service_success_ratio", GAUGE, "1", "Captures and recoveries that succeeded."),
    Definition("service_error_ratio", GAUGE, "1", "Captures and recoveries that failed."),
    Definition("service_save_seconds", GAUGE, "s", "Mean time of a save."),
    Definition("service_recovery_seconds", GAUGE, "s", "Mean time of a recovery."),
    Definition("service_compression_ratio", GAUGE, "1", "Captured to stored bytes."),
    Definition("service_interval_seconds", GAUGE, "s", "Interval as it is now."),
    Definition("service_skipped", COUNTER, "", "Captures that were not needed."),
    Definition("service_missed", COUNTER, "", "Slots that longer captures have skipped."),
)
BY_NAME: Final = {one.name: one for one in DEFINITIONS}
_OF_SERVICE: Final = (
    ("service_captures", "total_checkpoints", 1.0),
    ("service_success_ratio", "success_rate", 1.0),
    ("service_error_ratio", "error_rate", 1.0),
    ("service_save_seconds", "average_save_time", 0.001),
    ("service_recovery_seconds", "average_recovery_time", 0.001),
    ("service_compression_ratio", "compression_ratio", 1.0),
    ("service_interval_seconds", "interval_seconds", 1.0),
    ("service_skipped", "skipped", 1.0),
    ("service_missed", "missed", 1.0),
)
_OF_HEALTH: Final = {"ok": 1.0, "warning": 0.5, "failed": 0.0}


_TAKEN: Final = frozenset({"quantile", *(label for one in DEFINITIONS for label in one.labels)})


def constants(argument: str, given: dict[str, str] | None) -> dict[str, str]:
    """Return constant labels, checked.

    Raises:
        ArgumentError: They are no texts by name, or have the name of a figure's own label.
    """
    found: object = {} if given is None else given
    if not isinstance(found, dict) or not all(
        is_text(name) and name and is_text(text) for name, text in found.items()
    ):
        raise ArgumentError(
            f"{argument} is {quoted(found)}; a dict of texts is needed.",
            hint='For example: {"system": "billing"}.',
            argument=argument,
        )
    if taken := _TAKEN & found.keys():
        raise ArgumentError(
            f"{argument} names {quoted(min(taken))}, which figures have themselves.",
            hint="Choose another name.",
            argument=argument,
        )
    return dict(found)


class Value(NamedTuple):
    """One value of a figure. part: Of a summary: "", "count", "sum", or a share as text."""

    name: str
    labels: tuple[str, ...]
    value: float
    part: str = ""


class Figures:
    """Asks sources for all their figures.

    Args:
        sources: Managers, stores, initialised services, CheckpointMonitoring,
            CheckpointPerformanceMonitor. Of two that measure the same, the first one counts.
        health: Whether CheckpointMonitoring is asked for the health, which may verify the store's
            structure (at most once in its structure_interval_s).

    Threads: safe.
    """

    def __init__(self, *sources: Any, health: bool = True) -> None:
        if not sources:
            raise ArgumentError("There is nothing to measure.", argument="sources")
        sources = tuple(service_of(one) for one in sources)
        for one in sources:
            if _reader_of(one) is None:
                raise ArgumentError(
                    f"{quoted(one)} cannot be measured.",
                    hint="Give managers, stores, services, CheckpointMonitoring or "
                    "CheckpointPerformanceMonitor.",
                    argument="sources",
                )
        self._sources = sources
        self._health = health
        self._lock = Lock()
        free_in_child(self, "_lock")

    def values(self) -> list[Value]:
        """Return every value now; a source that fails is logged, and gives what it gave so far.

        One that was closed gives what needs no store, and is nothing to log.
        """
        found: dict[tuple[str, tuple[str, ...], str], Value] = {}
        with self._lock:
            for source in self._sources:
                try:
                    for one in self._of(source):
                        found.setdefault((one.name, one.labels, one.part), one)
                except (StoreClosedError, ServiceStateError) as error:
                    _logger.debug("Figures are missing: %s (%s)", error, error.code)
                except CheckpointError as error:
                    _logger.warning("Figures are missing: %s (%s)", error, error.code)
        return list(found.values())

    def _of(self, source: Any) -> Iterator[Value]:
        reader = _reader_of(source)
        if reader == "monitoring":
            yield from _of_monitoring(source, is_health_asked=self._health)
        elif reader == "performance":
            yield from _of_performance(source)
        elif reader == "service":
            yield from _of_service(source)
        else:
            yield from _of_store(getattr(source, "store", source))


def _reader_of(source: Any) -> str | None:
    if isinstance(source, CheckpointMonitoring):
        return "monitoring"
    if isinstance(source, CheckpointPerformanceMonitor):
        return "performance"
    if isinstance(source, Store | CheckpointManager):
        return "store"
    return "service" if hasattr(source, "get_metrics") and hasattr(source, "alerts") else None


def _of_monitoring(source: CheckpointMonitoring, *, is_health_asked: bool) -> Iterator[Value]:
    for name, one in source.operations().items():
        yield from _outcomes(name, one["count"], one["failed"])
    for name, sketch in source.latencies().items():
        yield from _summary(name, sketch)
    for name, sketch in source.metrics().items():
        yield Value("metric", (name,), sketch.last)
    if is_health_asked:
        for name, check in source.check_system_health()["checks"].items():
            if check["status"] in _OF_HEALTH:
                yield Value("health", (name,), _OF_HEALTH[check["status"]])
    yield from (Value("alert", (one.name,), 1.0) for one in source.alerts)


def _of_performance(source: CheckpointPerformanceMonitor) -> Iterator[Value]:
    for name, (sketch, failed) in source.operations().items():
        yield from _outcomes(name, sketch.count, failed)
        yield from _summary(name, sketch)
    memory_mb = source.measured()["memory_mb"]
    if memory_mb is not None:
        yield Value("process_memory_bytes", (), memory_mb * MEBIBYTE)
    if source.checkpoint_manager is not None:
        yield from _of_store(source.checkpoint_manager.store)


def _of_service(source: Any) -> Iterator[Value]:
    figures = source.get_metrics()
    for name, attribute, factor in _OF_SERVICE:
        yield Value(name, (), float(getattr(figures, attribute)) * factor)
    yield from (Value("alert", (one.name,), 1.0) for one in source.alerts)
    yield from _of_store(source.store)


def _of_store(store: Store) -> Iterator[Value]:
    store.catch_up()
    yield Value("store_events", (), float(store.position))
    counts = ask(store, lambda view: view.counts_by_state())
    for state in CheckpointState:
        yield Value("store_checkpoints", (state.value,), float(counts.get(state.value, 0)))
    sizes = measure(store.path)
    for part in ("log", "packs", "views", "reserve", "other"):
        yield Value("store_bytes", (part,), float(getattr(sizes, part)))


def _outcomes(name: str, count: int, failed: int) -> Iterable[Value]:
    yield Value("operations", (name, "succeeded"), float(count - failed))
    yield Value("operations", (name, "failed"), float(failed))


def _summary(name: str, sketch: Sketch) -> Iterator[Value]:
    for _, share in SHARES:
        value = sketch.quantile(share)
        if value is not None:
            yield Value("operation_duration_seconds", (name,), value / 1000, str(share))
    yield Value("operation_duration_seconds", (name,), float(sketch.count), "count")
    yield Value("operation_duration_seconds", (name,), sketch.sum / 1000, "sum")
