from __future__ import annotations

import json
import logging
import os
from contextlib import closing

import pytest

import ckptlog
from ckptlog import (
    ArgumentError,
    CaptureFailedError,
    CheckpointConfiguration,
    CheckpointManager,
    CheckpointMonitoring,
    SettingsError,
)
from ckptlog.model.event import RECOVERY_STARTED
from tests.manager.clock import SettableEnvironment, open_at
from tests.service.system import Agents, serve, settings, until


def statuses(health):
    return {name: one["status"] for name, one in health["checks"].items()}


def test_a_sound_store_is_healthy_and_everything_is_safe_for_json(tmp_path):
    path = tmp_path / "s"
    with CheckpointManager(path) as manager:
        manager.create_checkpoint("t", "T", 1)
    monitoring = CheckpointMonitoring(CheckpointConfiguration(storage_dir=str(path)))
    health = monitoring.check_system_health()
    assert health["status"] == "healthy", health
    wanted = {"store", "disk", "pressure", "stale", "recovery", "leases", "error_rate"}
    assert set(health["checks"]) == wanted
    report = monitoring.generate_health_report()
    assert report["storage"]["checkpoints"] == 1
    assert json.loads(json.dumps(report)) == report


def test_a_store_that_is_not_there_or_damaged_is_a_finding_and_nothing_is_made(tmp_path):
    path = tmp_path / "none"
    monitoring = CheckpointMonitoring(CheckpointConfiguration(storage_dir=str(path)))
    health = monitoring.check_system_health()
    assert (health["status"], health["checks"]["store"]["status"]) == ("unhealthy", "failed")
    assert [one["name"] for one in health["alerts"]] == ["store"]
    assert not path.exists()
    with CheckpointManager(path) as manager:
        for step in range(1, 20):
            manager.create_checkpoint("t", "T", step)
    assert monitoring.check_system_health()["alerts"] == []
    (segment,) = [one for one in (path / "log").iterdir() if one.suffix == ".seg"]
    with segment.open("r+b") as file:
        file.seek(2000)
        byte = file.read(1)
        file.seek(2000)
        file.write(bytes([byte[0] ^ 1]))
    report = monitoring.generate_health_report()
    assert report["status"] == "unhealthy"
    assert [one["name"] for one in report["alerts"]] == ["store"]


def test_details_that_cannot_be_told_are_no_error():
    class Shy:
        def __repr__(self):
            raise RuntimeError("no")

        __str__ = __repr__

    monitoring, seen = CheckpointMonitoring(), []
    monitoring.on("operation", seen.append)
    monitoring.log_checkpoint_operation("x", {"a": Shy(), Shy(): 1, "error": ValueError(Shy())})
    assert "Shy" in seen[0]["details"]["a"]
    assert len(seen[0]["details"]) == 3
    json.dumps(monitoring.generate_health_report())


def test_operations_are_counted_and_logged_without_secrets(caplog):
    monitoring = CheckpointMonitoring()
    seen = []
    monitoring.on("operation", seen.append)
    with caplog.at_level(logging.INFO, "ckptlog"):
        monitoring.log_checkpoint_operation(
            "create",
            {"duration_ms": 3, "password": "hunter2", "what": object(), "long": "x" * 9999},
        )
        monitoring.log_checkpoint_operation("create", {"error": ValueError("bad")})
    first, second = (one for one in caplog.records if one.name == "ckptlog.monitor")
    assert (first.levelname, second.levelname) == ("INFO", "WARNING")
    assert first.details["duration_ms"] == 3
    assert "hunter2" not in repr(first.details) + repr(seen)
    assert len(first.details["long"]) == 500
    assert second.details["error"] == "ValueError('bad')"
    assert [one["failed"] for one in seen] == [False, True]
    found = monitoring.operations()["create"]
    assert (found["count"], found["failed"], found["latency"]["count"]) == (2, 1, 1)


def test_metrics_and_callbacks_that_raise():
    monitoring = CheckpointMonitoring()
    seen = []

    def bad(_):
        raise RuntimeError("callback")

    monitoring.on("metric", bad)
    end = monitoring.on("*", seen.append)
    monitoring.emit_checkpoint_metric("queue", -3)
    end()
    monitoring.emit_checkpoint_metric("queue", 4.5)
    assert seen == [{"metric": "queue", "value": -3.0}]
    assert monitoring.metrics()["queue"].summary()["last"] == 4.5


def test_the_error_rate_raises_and_clears_an_alert_in_the_log(tmp_path):
    seen = []
    with CheckpointManager(tmp_path / "s") as manager:
        monitoring = CheckpointMonitoring({"alerts": {"errorRate": 0.5}, "system": "billing"})
        end = monitoring.attach(manager)
        monitoring.on("alertRaised", lambda one: seen.append(("on", one.name)))
        monitoring.on("alert_cleared", lambda one: seen.append(("off", one.name)))
        for _ in range(3):
            monitoring.log_checkpoint_operation("save", {"status": "failed"})
        assert [one.name for one in monitoring.alerts] == ["error_rate"]
        for _ in range(10):
            monitoring.log_checkpoint_operation("save", {"success": True})
        end()
        kinds = [(one.event.type, one.event.subject.task) for one in manager.store.events()]
        assert kinds == [("alert.raised", "billing"), ("alert.cleared", "billing")]
    assert seen == [("on", "error_rate"), ("off", "error_rate")]


def test_events_of_the_log_are_counted_and_only_one_thing_is_attached(tmp_path):
    with CheckpointManager(tmp_path / "s") as manager:
        monitoring = CheckpointMonitoring()
        monitoring.attach(manager.store)
        with pytest.raises(ArgumentError):
            monitoring.attach(manager)
        manager.complete_checkpoint(manager.create_checkpoint("t", "T", 1))
        until(lambda: "checkpoint.completed" in monitoring.operations(), "events")
        monitoring.close()
        monitoring.close()
        assert monitoring.operations()["checkpoint.created"]["count"] == 1


def test_stale_captures_unfinished_recoveries_and_expired_leases(tmp_path):
    environment = SettableEnvironment()
    with serve(tmp_path / "s", captureOnShutdown=False) as service:
        service.create_checkpoint()
    config = ckptlog.SystemConfiguration.from_dict(settings(tmp_path / "s"))
    with open_at(tmp_path / "s", environment) as store, CheckpointManager(store=store) as manager:
        manager.acquire_lease("job", ttl_s=1)
        facts = {"recovery": "r", "capture": "c", "safety": "", "names": "*"}
        manager.record(RECOVERY_STARTED, facts, task="system")
        monitoring = CheckpointMonitoring(config, stale_seconds=3600)
        monitoring.attach(manager)
        found = statuses(monitoring.check_system_health())
        assert (found["stale"], found["recovery"], found["leases"]) == ("ok", "warning", "ok")
        environment.advance(seconds=7200)
        health = monitoring.check_system_health()
        found = statuses(health)
        assert (found["stale"], found["recovery"], found["leases"]) == (
            "warning",
            "failed",
            "warning",
        )
        assert {one["name"] for one in health["alerts"]} == {"stale", "recovery_incomplete"}
        monitoring.close()


def test_the_pressure_goes_by_the_configured_limit(tmp_path):
    path = tmp_path / "s"
    config = {"storage": {"local": {"path": str(path), "maxSizeBytes": 2 * 1024 * 1024}}}
    with CheckpointManager(path) as manager:
        manager.create_checkpoint("t", "T", 1, data={"b": os.urandom(2_200_000)})
    health = CheckpointMonitoring(config).check_system_health()
    assert health["checks"]["pressure"]["status"] == "failed"
    assert "storage_pressure" in {one["name"] for one in health["alerts"]}


def test_a_service_is_watched(tmp_path):
    target = Agents()
    with serve(tmp_path / "s", target, intervalSeconds=3600) as service:
        monitoring = CheckpointMonitoring(service.config)
        monitoring.attach(service)
        service.create_checkpoint()
        target.fault = ValueError("bad")
        with pytest.raises(ckptlog.CaptureFailedError):
            service.create_checkpoint()
        until(lambda: monitoring.operations().get("capture", {}).get("failed"), "the failure")
        report = monitoring.generate_health_report()
        assert report["checks"]["store"]["status"] == "ok"
        assert report["service"]["totalCheckpoints"] >= 1
        target.fault = None
        monitoring.close()


@pytest.mark.parametrize(
    "call",
    [
        lambda one: one.log_checkpoint_operation("", {}),
        lambda one: one.log_checkpoint_operation("x", [1]),
        lambda one: one.log_checkpoint_operation("x", {"duration_ms": "long"}),
        lambda one: one.log_checkpoint_operation("x", {"duration_ms": -1}),
        lambda one: one.log_checkpoint_operation("\udc80", {}),
        lambda one: one.emit_checkpoint_metric("\udc80", 1),
        lambda one: one.emit_checkpoint_metric("x", float("inf")),
        lambda one: one.emit_checkpoint_metric(3, 1),
        lambda one: one.on("nothing", print),
        lambda one: one.attach(object()),
    ],
)
def test_what_is_wrong_is_refused(call):
    with pytest.raises(ArgumentError):
        call(CheckpointMonitoring())
    with pytest.raises(SettingsError):
        CheckpointMonitoring(3)


def test_an_event_that_there_is_not(tmp_path):
    monitoring = CheckpointMonitoring({"storage": {"local": {"path": str(tmp_path / "s")}}})
    with pytest.raises(ArgumentError, match="Did you mean 'alertRaised'") as caught:
        monitoring.on("alertRised", print)
    assert caught.value.hint.endswith("operation, metric, alertRaised, alertCleared.")


class Still(Agents):
    """Its state stays as it is."""

    def get_state(self):
        if self.fault is not None:
            raise self.fault
        return dict(self.state_now)


def test_what_is_followed_is_told_and_its_failures_are_kept(tmp_path):
    agents, seen = Still(), []
    # Not started: nothing is captured but by hand.
    with closing(serve(tmp_path / "s", agents).initialize()) as service:
        by_service, by_log = CheckpointMonitoring(), CheckpointMonitoring()
        by_service.on("operation", seen.append)
        by_service.attach(service)
        by_log.attach(service.store)
        info = service.create_checkpoint()
        agents.fault = RuntimeError("no")
        with pytest.raises(CaptureFailedError):
            service.create_checkpoint()
        agents.fault = None
        service.recover_from_checkpoint(info.id)
        until(lambda: len(seen) == 4, "operations")
        assert [(one["operation"], one["failed"]) for one in seen] == [
            ("capture", False),
            ("capture", True),
            ("capture", False),  # the safety capture of the recovery
            ("recovery", False),
        ]
        report = by_service.generate_health_report()
        latency = report["operations"]["recovery"]["latency"]
        assert latency["count"] == 1
        assert latency["max_ms"] >= 0
        (failure,) = report["recent_failures"]
        assert failure == seen[1]
        assert failure["details"]["component"] == "agents"
        assert "agents" in failure["details"]["error"]
        until(lambda: "recovery.completed" in by_log.operations(), "events")
        (failure,) = by_log.generate_health_report()["recent_failures"]
        assert failure["operation"] == "capture.failed"
        assert failure["details"]["component"] == "agents"
        assert failure["details"]["task"] == "system"
        by_service.close()
        by_log.close()


def test_a_directory_is_that_of_the_working_directory_at_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with CheckpointManager("s") as manager:
        manager.create_checkpoint("t", "T", 1)
    monitoring = CheckpointMonitoring({"storage": {"local": {"path": "s"}}})
    monkeypatch.chdir("/")
    assert statuses(monitoring.check_system_health())["store"] == "ok"
    lost = CheckpointMonitoring({"storage": {"local": {"path": "~nobody-/s"}}})
    assert "not a path" in lost.check_system_health()["checks"]["store"]["message"]
