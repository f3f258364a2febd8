"""Prometheus: a collector for prometheus_client. Needs `pip install "ckptlog[metrics]"`.

    from prometheus_client import CollectorRegistry, start_http_server
    registry = CollectorRegistry()
    registry.register(PrometheusCollector(service, monitoring))
    start_http_server(9464, registry=registry)

Nothing is registered by itself, nor measured before a scrape. Names: specs/monitoring.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

PREFIX: Final = "ckptlog_"
_label = re.compile(r"(?!__)[A-Za-z_][A-Za-z0-9_]*").fullmatch


class PrometheusCollector:
    """Gives the figures of sources to a registry.

    Args:
        sources: See `monitor.figure.Figures`.
        labels: Constant labels of each sample, such as {"system": "billing"}: two collectors
            in one registry need different ones.

    Raises:
        ImportError: prometheus_client is missing.
        ArgumentError: A source cannot be measured, or a label is none.

    Threads: safe.
    """

    def __init__(
        self, *sources: Any, health: bool = True, labels: dict[str, str] | None = None
    ) -> None:
        with needs_metrics("PrometheusCollector", "prometheus_client"):
            import prometheus_client  # noqa: F401 - whether it is there
        self._figures = Figures(*sources, health=health)
        self._labels = constants("labels", labels)
        if odd := [name for name in self._labels if not _label(name)]:
            raise ArgumentError(
                f"labels names {quoted(odd[0])}, which Prometheus does not take.",
                hint="A name is of A-Z a-z 0-9 and _, begins with no digit, and not with __.",
                argument="labels",
            )

    def describe(self) -> list[Metric]:
        """Name the metrics without measuring, for the registry."""
        return [self._metric(one) for one in DEFINITIONS]

    def collect(self) -> Iterator[Metric]:
        """Measure (called by the registry for each scrape)."""
        values = self._figures.values()
        for definition in DEFINITIONS:
            mine = [one for one in values if one.name == definition.name]
            if mine:
                metric = self._metric(definition)
                for one in mine:
                    self._sample(metric, definition, one)
                yield metric

    def _metric(self, definition: Definition) -> Metric:
        from prometheus_client.metrics_core import Metric

        return Metric(PREFIX + definition.name, definition.help, definition.kind)

    def _sample(self, metric: Metric, definition: Definition, one: Value) -> None:
        labels = {**self._labels, **dict(zip(definition.labels, one.labels, strict=True))}
        name = metric.name
        if definition.kind == COUNTER:
            name += "_total"
        elif definition.kind == SUMMARY and one.part in ("count", "sum"):
            name += f"_{one.part}"
        elif definition.kind == SUMMARY:
            labels["quantile"] = one.part
        metric.add_sample(name, labels, one.value)
