"""OpenTelemetry: instruments that are asked at each collection. Needs `ckptlog[metrics]`.

    meter = meter_provider.get_meter("ckptlog")
    metrics = TelemetryMetrics(meter, service, monitoring)
    ...
    metrics.close()

The meter is the caller's: no global provider is read or set. Names have dots:
`ckptlog.store.bytes`.
A summary is three instruments: `....quantile` (a gauge with the attribute `quantile`), `....count`
and `....sum`, since OpenTelemetry has none that is observed. Page: specs/monitoring.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from ckptlog.errors import ArgumentError
from ckptlog.model.quotation import quoted
from ckptlog.monitor.extra import needs_metrics
from ckptlog.monitor.figure import (
    COUNTER,
    DEFINITIONS,
    SUMMARY,
    Definition,
    Figures,
    Value,
    constants,
)
from ckptlog.storage.fork import free_in_child

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation

PREFIX: Final = "ckptlog."
# Instruments of one collection are asked one after the other; all of them see one measurement.
_SHARED_S: Final = 0.5
_MADE: Final = {name: PREFIX + name for name in ("operations", "metric", "health", "alert")} | {
    "operation_duration_seconds": "ckptlog.operation.duration",
    "process_memory_bytes": "ckptlog.process.memory",
}


class TelemetryMetrics:
    """Makes observable instruments of a meter.

    Args:
        meter: Of OpenTelemetry's API.
        sources: See `monitor.figure.Figures`.
        attributes: Constant attributes of each observation.

    Raises:
        ImportError: opentelemetry is missing.

    Threads: safe. Instruments cannot be taken back: after `close` they observe nothing.
    """

    def __init__(
        self,
        meter: Meter,
        *sources: Any,
        health: bool = True,
        attributes: dict[str, str] | None = None,
    ) -> None:
        with needs_metrics("TelemetryMetrics", "opentelemetry"):
            import opentelemetry.metrics  # noqa: F401 - whether it is there
        if not callable(getattr(meter, "create_observable_gauge", None)):
            raise ArgumentError(f"{quoted(meter)} is no meter.", argument="meter")
        self._figures: Figures | None = Figures(*sources, health=health)
        self._attributes = constants("attributes", attributes)
        self._lock = Lock()
        free_in_child(self, "_lock")
        self._values: list[Value] = []
        self._measured_s: float | None = None
        for definition in DEFINITIONS:
            self._make(meter, definition)

    def close(self) -> None:
        """Observe nothing any more. Twice is fine."""
        with self._lock:
            self._figures, self._values = None, []

    def _make(self, meter: Meter, definition: Definition) -> None:
        name = telemetry_name(definition.name)
        if definition.kind == SUMMARY:
            parts = (("quantile", GAUGE_OF), ("count", COUNTER_OF), ("sum", COUNTER_OF))
            for part, method in parts:
                unit = "" if part == "count" else definition.unit
                callback = self._callback(definition, part)
                make = getattr(meter, method)
                make(f"{name}.{part}", [callback], unit, definition.help)
            return
        method = COUNTER_OF if definition.kind == COUNTER else GAUGE_OF
        callback = self._callback(definition, "")
        getattr(meter, method)(name, [callback], definition.unit, definition.help)

    def _callback(
        self, definition: Definition, part: str
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            from opentelemetry.metrics import Observation

            for one in self._now():
                if one.name != definition.name:
                    continue
                labels = dict(zip(definition.labels, one.labels, strict=True))
                if definition.kind == SUMMARY:
                    is_quantile = one.part not in ("count", "sum")
                    if (part == "quantile") != is_quantile or part not in ("quantile", one.part):
                        continue
                    if is_quantile:
                        labels["quantile"] = one.part
                yield Observation(one.value, {**self._attributes, **labels})

        return observe

    def _now(self) -> list[Value]:
        with self._lock:
            figures, now_s = self._figures, time.monotonic()
            if figures is None:
                return []
            if self._measured_s is None or now_s - self._measured_s > _SHARED_S:
                self._values = figures.values()
                self._measured_s = time.monotonic()
            return self._values


GAUGE_OF: Final = "create_observable_gauge"
COUNTER_OF: Final = "create_observable_counter"


def telemetry_name(name: str) -> str:
    """Return a figure's name as OpenTelemetry has it: dots, units apart."""
    made = _MADE.get(name)
    return made or PREFIX + name.removesuffix("_seconds").replace("_", ".", 1)
