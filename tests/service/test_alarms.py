"""Alarms that must not cry wolf, and those that must be heard though the store is gone."""

from __future__ import annotations

import math
import os
import time

import pytest

import ckptlog
from ckptlog import create_checkpoint_system
from ckptlog.errors import ComponentError, LeaseHeldError, ServiceStateError
from tests.service.system import Agents, serve, settings, until


def test_a_store_that_is_gone_is_told(tmp_path):
    raised = []
    service = serve(
        tmp_path / "s", intervalSeconds=0.05, maxIntervalSeconds=0.1, alerts={"staleSeconds": 0.3}
    )
    service.on("alertRaised", lambda alert: raised.append(alert.name))
    service.start()
    until(service.list_checkpoints, "the first capture")
    (tmp_path / "s").rename(tmp_path / "gone")
    try:
        until(lambda: {"error_rate", "stale"} <= set(raised), "the alerts")
    finally:
        (tmp_path / "gone").rename(tmp_path / "s")
        service.close()


def test_a_standby_is_not_stale(tmp_path):
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        lease = manager.acquire_lease("system", ttl_s=600)
        more = {"standby": True, "leaseSeconds": 600, "alerts": {"staleSeconds": 0.05}}
        with serve(tmp_path / "s", **more) as service:
            raised = []
            service.on("alertRaised", raised.append)
            time.sleep(0.2)
            service._engine.look()
            assert service.state == "standby"
            assert (raised, service.alerts) == ([], [])
        lease.release()


def test_captures_that_must_be_rare_are_not_stale_in_between(tmp_path):
    with serve(
        tmp_path / "s", intervalSeconds=0.1, minIntervalSeconds=600, alerts={"staleSeconds": 0}
    ) as service:
        until(service.list_checkpoints, "the first capture")
        info = service.create_checkpoint()
        time.sleep(0.7)
        service._engine.look()
        assert [one.id for one in service.list_checkpoints(1)] == [info.id]
        assert service.alerts == []
    with serve(tmp_path / "s", intervalSeconds=0.1, minIntervalSeconds=600) as service:
        time.sleep(0.3)
        assert [one.id for one in service.list_checkpoints(1)] == [info.id]


def test_a_pause_is_no_lateness(tmp_path):
    with serve(tmp_path / "s", intervalSeconds=0.2) as service:
        until(lambda: len(service.list_checkpoints()) >= 2, "captures")
        service.pause()
        before = service.get_metrics()
        time.sleep(1.5)
        number = service.list_checkpoints(1)[0].number
        service.resume()
        until(lambda: service.list_checkpoints(1)[0].number > number, "a capture")
        after = service._runner.state
        # The pause was seven slots long; a slow machine may miss some, but not for the pause.
        assert service.get_metrics().late_seconds_max < 1.4
        assert after.missed - before.missed < 6


class Large:
    def get_state(self):
        return {"bytes": os.urandom(800_000)}

    def set_state(self, state):
        pass


@pytest.fixture(scope="module")
def pressed(tmp_path_factory):
    """Serve a state that fills its store; return what was told, and the greatest usage."""
    path = tmp_path_factory.mktemp("pressed") / "s"
    limit = 16 * 1024 * 1024
    config = settings(
        path,
        intervalSeconds=0.1,
        maxCheckpoints=0,
        compactionIntervalSeconds=0,
        storage={"local": {"path": str(path), "maxSizeBytes": limit}},
    )
    service = create_checkpoint_system(config, {"agents": Large()})
    told, used = [], []
    for name in ("intervalChanged", "alertRaised", "alertCleared", "operationFailed"):
        service.on(name, lambda what, name=name: told.append((name, what)))
    with service:

        def is_refused():
            used.append(service._engine.gauge.pressure())
            return any(name == "operationFailed" for name, _ in told)

        until(is_refused, "being full")
        used.append(service._engine.gauge.pressure())
        limits = service._engine.gauge.stale_s, service.get_metrics().interval_seconds
    return told, used, limits


def test_a_store_is_not_filled_over_its_limit(pressed):
    _, used, _ = pressed
    assert max(used) <= 1.1  # the capture that was at work when it became full


def test_a_longer_interval_is_told_and_is_not_stale(pressed):
    told, _, (stale_s, _) = pressed
    changes = [what for name, what in told if name == "intervalChanged"]
    assert changes[0].reason == "storage pressure"
    assert changes[0].seconds > changes[0].before == 0.1
    assert stale_s >= 5 * changes[0].seconds > 0.5
    alerts = [what.name for name, what in told if name == "alertRaised"]
    assert "storage_pressure" in alerts
    assert "stale" not in alerts


def test_the_pressure_alert_does_not_flap(tmp_path, monkeypatch):
    with serve(tmp_path / "s", intervalSeconds=600) as service:
        until(service.list_checkpoints, "the first capture")
        engine = service._engine
        now_s, pressure = [1000.0], [0.95]
        monkeypatch.setattr(engine.gauge, "pressure", lambda: pressure[0])
        real = engine.environment
        fake = type("Clock", (), {"__getattr__": lambda _, name: getattr(real, name)})()
        fake.monotonic_s = lambda: now_s[0]
        monkeypatch.setattr(engine.gauge, "_environment", fake)
        monkeypatch.setattr(engine.gauge, "_fresh_s", math.inf)  # about staleness are other tests
        turns = []
        service.on("alertRaised", lambda alert: turns.append(alert.name))
        for pressure[0] in (0.95, 0.2, 0.95, 0.2, 0.95, 0.8):
            engine.look()
            now_s[0] += 600
            assert [one.name for one in service.alerts] == ["storage_pressure"]
        pressure[0] = 0.2
        now_s[0] += 5 * 600 * engine.gauge.slowdown  # the first capture may have seen the pressure
        engine.look()
        assert service.alerts == []


# --- what is refused, and in which words ----------------------------------------------------------


def test_components_are_looked_at_when_the_service_is_made(tmp_path):
    config = settings(tmp_path / "s")
    for nothing in (None, {}, []):
        with pytest.raises(ComponentError, match="0 components"):
            create_checkpoint_system(config, nothing)
    with pytest.raises(ComponentError, match="x y"):
        create_checkpoint_system(config, {"x y": {}})
    with pytest.raises(ComponentError, match="agent_manager"):
        create_checkpoint_system(config, {"agentManger": {}})
    with ckptlog.CheckpointManager(tmp_path / "m") as manager:
        with pytest.raises(ComponentError, match="0 components"):
            ckptlog.Capturer(manager, "sys", [])
        assert ckptlog.Capturer(manager, "sys").captures() == []
    assert not (tmp_path / "s").exists()


def test_a_system_that_another_service_owns_is_refused_in_words_that_help(tmp_path):
    with serve(tmp_path / "s", Agents()), pytest.raises(LeaseHeldError) as caught:
        serve(tmp_path / "s", Agents()).start()
    assert "standby" in str(caught.value)
    assert "wait_s" not in str(caught.value)


def test_a_service_that_was_not_opened_says_what_to_do(tmp_path):
    service = serve(tmp_path / "s")
    with pytest.raises(ServiceStateError, match=r"is new: it has no open store\. Call initialize"):
        service.create_checkpoint()
    service.close()
    with pytest.raises(ServiceStateError, match=r"is closed: it has no open store\. Make another"):
        service.get_metrics()
