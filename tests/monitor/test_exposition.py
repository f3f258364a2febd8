"""Prometheus and OpenTelemetry, by their own parser and reader."""

from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ckptlog import (
    ArgumentError,
    AsyncCheckpointService,
    CheckpointManager,
    CheckpointMonitoring,
    CheckpointPerformanceMonitor,
    PrometheusCollector,
    TelemetryMetrics,
)
from tests.architecture.tree import ROOT
from tests.service.system import serve, until


def scraped(registry):
    text = generate_latest(registry).decode()
    return {
        (one.name, *sorted(one.labels.items())): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def collected(reader):
    found = {}
    for resource in reader.get_metrics_data().resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    found[(metric.name, *sorted(point.attributes.items()))] = point.value
    return found


@pytest.fixture
def sources(tmp_path):
    with CheckpointManager(tmp_path / "s") as manager:
        manager.complete_checkpoint(manager.create_checkpoint("t", "T", 1))
        monitoring = CheckpointMonitoring()
        monitoring.attach(manager)
        monitoring.log_checkpoint_operation("save", {"duration_ms": 250})
        monitoring.emit_checkpoint_metric('odd "name"\n\\', 7)
        performance = CheckpointPerformanceMonitor(manager)
        performance.track_operation_latency("create", 10)
        yield manager, monitoring, performance
        monitoring.close()


def test_prometheus(sources):
    registry = CollectorRegistry()
    before = list(REGISTRY.collect())
    registry.register(PrometheusCollector(*sources, labels={"system": "billing"}))
    found = scraped(registry)
    mine = ("system", "billing")
    save = ("operation", "save")
    assert found["ckptlog_store_events_total", mine] == 2
    assert found["ckptlog_store_checkpoints", ("state", "completed"), mine] == 1
    assert found["ckptlog_operations_total", save, ("outcome", "succeeded"), mine] == 1
    assert found["ckptlog_operation_duration_seconds_count", save, mine] == 1
    assert found["ckptlog_operation_duration_seconds_sum", save, mine] == 0.25
    assert found["ckptlog_operation_duration_seconds", save, ("quantile", "0.5"), mine] == 0.25
    assert found["ckptlog_metric", ("metric", 'odd "name"\n\\'), mine] == 7
    assert found["ckptlog_health", ("check", "store"), mine] == 1
    assert found["ckptlog_process_memory_bytes", mine] > 1e6
    assert len(list(REGISTRY.collect())) == len(before)


def test_telemetry(sources):
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    metrics = TelemetryMetrics(provider.get_meter("ckptlog"), *sources, attributes={"host": "h"})
    found, mine = collected(reader), ("host", "h")
    save = ("operation", "save")
    assert found["ckptlog.store.events", mine] == 2
    assert found["ckptlog.operations", mine, save, ("outcome", "succeeded")] == 1
    assert found["ckptlog.operation.duration.count", mine, save] == 1
    assert found["ckptlog.operation.duration.sum", mine, save] == 0.25
    assert found["ckptlog.operation.duration.quantile", mine, save, ("quantile", "0.99")] == 0.25
    assert found["ckptlog.health", ("check", "store"), mine] == 1
    metrics.close()
    data = reader.get_metrics_data()
    assert data is None or not any(
        metric.data.data_points
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )
    provider.shutdown()


def test_a_service(tmp_path):
    with serve(tmp_path / "s", intervalSeconds=3600) as service:
        service.create_checkpoint()
        registry = CollectorRegistry()
        registry.register(PrometheusCollector(service))
        found = scraped(registry)
        assert found["ckptlog_service_captures",] >= 1
        assert found["ckptlog_service_success_ratio",] == 1


def test_what_cannot_be_measured_is_refused():
    for sources in ((), (3,)):
        with pytest.raises(ArgumentError):
            PrometheusCollector(*sources)
    with pytest.raises(ArgumentError):
        TelemetryMetrics(object(), CheckpointMonitoring())


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("prometheus_client", "PrometheusCollector(m)"),
        ("opentelemetry", "TelemetryMetrics(None, m)"),
    ],
)
def test_a_missing_library_is_named_with_the_extra(package, call):
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        f"import ckptlog; m = ckptlog.CheckpointMonitoring()\n"
        f"try: ckptlog.{call}\nexcept ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert 'pip install "ckptlog[metrics]"' in done.stdout, done.stderr
    assert package in done.stdout


@pytest.mark.parametrize("is_async", [False, True])
def test_a_service_that_was_closed_raises_no_alert(tmp_path, caplog, is_async):
    caplog.set_level("INFO", "ckptlog")
    raised = []
    service = serve(tmp_path / "s")
    given = AsyncCheckpointService(service) if is_async else service
    monitoring = CheckpointMonitoring(service.config)
    monitoring.on("alertRaised", raised.append)
    performance = CheckpointPerformanceMonitor()
    registry = CollectorRegistry()
    with service:
        monitoring.attach(given)
        performance.follow(given)
        registry.register(PrometheusCollector(given, monitoring, performance))
        service.create_checkpoint()
        until(lambda: "capture" in performance.operations(), "the capture is counted")
        living = scraped(registry)
        assert living["ckptlog_service_captures",] >= 1
        assert living["ckptlog_health", ("check", "store")] == 1
    caplog.clear()
    for _ in range(2):
        left = scraped(registry)
        assert not [key for key in left if key[0].startswith(("ckptlog_store", "ckptlog_service"))]
        assert not [key for key in left if key[0] == "ckptlog_alert"]
        looked_at = {key[1] for key in left if key[0] == "ckptlog_health"}
        assert looked_at <= {("check", "error_rate")}  # of what was counted
        key = ("ckptlog_operations_total", ("operation", "capture"), ("outcome", "succeeded"))
        assert left[key] >= living[key]
    assert (raised, monitoring.alerts) == ([], [])
    assert not caplog.records
    found = monitoring.check_system_health()
    assert (found["status"], found["checks"]["store"]["status"]) == ("unknown", "unknown")
    assert monitoring.generate_health_report()["storage"] is None


def test_a_manager_that_was_closed_raises_no_alert(tmp_path):
    manager = CheckpointManager(tmp_path / "s")
    monitoring, performance = CheckpointMonitoring(), CheckpointPerformanceMonitor(manager)
    monitoring.attach(manager)
    performance.track_operation_latency("create", 10)
    registry = CollectorRegistry()
    registry.register(PrometheusCollector(manager, monitoring, performance))
    assert ("ckptlog_store_events_total",) in scraped(registry)
    manager.close()
    left = {name for name, *_ in scraped(registry)}
    assert "ckptlog_operation_duration_seconds_count" in left
    assert not left & {"ckptlog_store_events_total", "ckptlog_alert", "ckptlog_health"}


@pytest.mark.parametrize(
    "labels",
    [
        {"operation": "x"},
        {"quantile": "x"},
        {"1st": "x"},
        {"__name": "x"},
        {"a-b": "x"},
        {"": "x"},
        {"a": 1},
        {"a": "\udc80"},
        [("a", "b")],
    ],
)
def test_labels_that_would_spoil_the_exposition_are_refused(tmp_path, labels):
    with CheckpointManager(tmp_path / "s") as manager, pytest.raises(ArgumentError, match="labels"):
        PrometheusCollector(manager, labels=labels)


@pytest.mark.parametrize("attributes", [{"state": "x"}, {"a": 1}, 5])
def test_attributes_that_would_be_lost_are_refused(tmp_path, attributes):
    meter = MeterProvider(metric_readers=[InMemoryMetricReader()]).get_meter("x")
    with (
        CheckpointManager(tmp_path / "s") as manager,
        pytest.raises(ArgumentError, match="attributes"),
    ):
        TelemetryMetrics(meter, manager, attributes=attributes)
