"""The service in one process: its life, its schedule, its faults, who is told."""

from __future__ import annotations

import os
import threading
import time

import pytest

import ckptlog
from ckptlog.errors import (
    CaptureFailedError,
    LeaseHeldError,
    LeaseRequiredError,
    ServiceStateError,
)
from ckptlog.service.service import CheckpointService
from ckptlog.storage.environment import Environment
from tests.service.system import Agents, serve, settings, until


def numbers(service):
    return [one.number for one in service.list_checkpoints()]


def log_types(store):
    return [entry.event.type for entry in store.events()]


def test_it_captures_at_its_interval_and_what_was_captured_is_there(tmp_path):
    target = Agents()
    seen = []
    with serve(tmp_path / "s", target, maxCheckpoints=0) as service:
        service.on("checkpointCreated", seen.append)
        until(lambda: len(seen) >= 4, "captures")
        assert service.state == "running"
        found = service.list_checkpoints()
        info = found[0]
        stored = service._engine.capturer.stored(info)["agents"].value()
        assert stored["step"] == info.number
        assert {one.reason for one in found} == {"interval"}
    assert service.state == "closed"
    assert target.at_once_max == 1
    with ckptlog.open(tmp_path / "s") as store:
        kinds = log_types(store)
        assert kinds.count("service.started") == kinds.count("service.stopped") == 1
        assert kinds[-1] == "lease.released"


def test_by_hand_with_description_and_tags_while_paused(tmp_path):
    with serve(tmp_path / "s", intervalSeconds=0.05) as service:
        service.pause()
        service.pause()
        assert service.state == "paused"
        before = service.create_checkpoint("before the deployment", ["deployment", "keep"])
        time.sleep(0.2)
        (after, *_) = service.list_checkpoints()
        assert after.number <= before.number + 1  # one that was at work when it was paused
        assert (before.description, before.tags) == (
            "before the deployment",
            ("deployment", "keep"),
        )
        service.resume()
        until(lambda: numbers(service)[0] > before.number + 1, "a capture after the pause")
        assert service.state == "running"


def test_what_did_not_change_is_not_written_again(tmp_path):
    skipped = []
    service = ckptlog.create_checkpoint_system(settings(tmp_path / "s"), {"memory": {"a": 1}})
    with service:
        service.on("checkpoint_skipped", skipped.append)
        until(lambda: len(skipped) >= 3, "skips")
        assert numbers(service) == [1]
        assert service.get_metrics().skipped >= 3
        assert service.create_checkpoint().number == 2


def test_the_newest_stay_and_those_that_are_kept(tmp_path):
    with serve(tmp_path / "s", intervalSeconds=3600, maxCheckpoints=3) as service:
        until(lambda: numbers(service) == [1], "the first capture")
        kept = service.create_checkpoint("", ["keep"])
        with pytest.raises(LeaseRequiredError):  # the system is leased
            service._manager.delete_checkpoint(service.create_checkpoint().id)
        for _ in range(6):
            service.create_checkpoint()
        assert numbers(service) == [9, 8, 7, 2]
        assert kept.number == 2


def test_failures_are_told_counted_and_do_not_end_it(tmp_path):
    target, failed, raised, cleared = Agents(), [], [], []
    target.fault = RuntimeError("no")
    with serve(tmp_path / "s", target, maxIntervalSeconds=0.2) as service:
        service.on("operationFailed", failed.append)
        service.on("alertRaised", raised.append)
        service.on("alertCleared", cleared.append)
        until(lambda: raised, "the alert")
        with pytest.raises(CaptureFailedError) as caught:
            service.create_checkpoint()
        assert caught.value.context["component"] == "agents"
        assert failed[0].component == "agents"
        assert failed[0].to_dict()["error"]["code"] == "capture.failed"
        assert raised[0].name == "error_rate"
        assert [one.name for one in service.alerts] == ["error_rate"]
        metrics = service.get_metrics()
        assert metrics.error_rate == 1
        assert metrics.failures_in_a_row >= 1
        assert metrics.interval_seconds == 0.2
        target.fault = None
        until(lambda: cleared, "the end of the alert")
        assert service.get_metrics().failures_in_a_row == 0
    with ckptlog.open(tmp_path / "s") as store:
        kinds = log_types(store)
        assert kinds.count("alert.raised") == kinds.count("alert.cleared") == 1
        assert "capture.failed" in kinds


def test_callbacks_that_raise_or_hang_hold_up_nothing(tmp_path):
    hold, seen = threading.Event(), []

    def hang(_):
        hold.wait(60)

    def fail(_):
        raise ValueError("mine")

    with serve(tmp_path / "s") as service:
        service.on("checkpointCreated", fail)
        service.on("checkpointCreated", seen.append)
        service.on("checkpointCreated", hang)
        until(lambda: seen, "a callback")
        first = numbers(service)[0]
        until(lambda: numbers(service)[0] > first + 2, "captures beside a hanging callback")
        hold.set()


def test_a_slow_save_names_its_component(tmp_path):
    target, raised = Agents(), []
    target.pause_s = 0.05
    more = {"performance": {"maxSaveTimeMs": 10}}
    with serve(tmp_path / "s", target, intervalSeconds=3600, **more) as service:
        service.on("alert_raised", raised.append)
        service.create_checkpoint()
        until(lambda: raised, "the alert")
        assert (raised[0].name, raised[0].detail) == ("save_time", "agents")
        assert service.get_metrics().slowest_component == "agents"


def test_stop_waits_for_a_capture_and_captures_what_changed(tmp_path):
    target = Agents()
    target.pause_s = 0.3
    service = serve(tmp_path / "s", target, captureOnShutdown=True).start()
    assert target.is_called.wait(30)
    service.stop()
    assert target.at_once == 0
    assert service.state == "stopped"
    service.stop()
    first = service.list_checkpoints()
    assert first[0].reason == "shutdown"
    assert service._engine.lease is None
    service.start()  # and again
    until(lambda: numbers(service)[0] > first[0].number, "a capture after the second start")
    service.close()
    service.close()


def test_states_in_which_a_call_is_refused(tmp_path):
    service = serve(tmp_path / "s")
    assert service.state == "new"
    for call in (service.create_checkpoint, service.get_metrics, service.pause):
        with pytest.raises(ServiceStateError):
            call()
    assert service.initialize().initialize().state == "ready"
    assert service.create_checkpoint().number == 1  # without start
    service.close()
    with pytest.raises(ServiceStateError):
        service.start()


def test_two_services_on_one_system(tmp_path):
    first = serve(tmp_path / "s").start()
    second = serve(tmp_path / "s")
    with pytest.raises(LeaseHeldError):
        second.start()
    with pytest.raises(LeaseRequiredError):
        second.create_checkpoint()
    gained = []
    third = serve(tmp_path / "s", standby=True, leaseSeconds=0.5)
    third.on("ownershipGained", gained.append)
    third.start()
    assert third.state == "standby"
    first.close()
    until(lambda: gained, "the take-over")
    assert third.state == "running"
    other = serve(tmp_path / "s", system="other").start()  # another system, the same store
    until(lambda: numbers(other), "its capture")
    for service in (second, third, other):
        service.close()


def test_one_that_is_overtaken_writes_no_more(tmp_path):
    lost, gained = [], []
    with serve(tmp_path / "s", leaseSeconds=0.5) as service:
        service.on("ownershipLost", lost.append)
        service.on("ownershipGained", gained.append)
        until(lambda: numbers(service), "a capture")
        with ckptlog.CheckpointManager(tmp_path / "s") as manager:
            manager.release_lease("system", force=True)
            lease = manager.acquire_lease("system", ttl_s=60)
            until(lambda: lost, "the loss")
            assert service.state == "standby"
            assert [one.name for one in service.alerts] == ["lease"]
            count = len(numbers(service))
            with pytest.raises(LeaseRequiredError):
                service.create_checkpoint()
            assert len(numbers(service)) == count
            lease.release()
            until(lambda: gained, "the way back")
            assert service.alerts == []


class Jumping(Environment):
    """A wall clock that is set, and random numbers that are not."""

    offset_us = 0

    def now_us(self):
        return super().now_us() + self.offset_us


def test_clock_jumps(tmp_path):
    environment = Jumping()
    store = ckptlog.open(tmp_path / "s", create=True, environment=environment)
    config = ckptlog.SystemConfiguration.from_dict(
        settings(tmp_path / "s", intervalSeconds=40, leaseSeconds=86_400)
    )
    from ckptlog.service.dependency import components_of

    with CheckpointService(config, components_of({"agents": Agents()}), store=store) as service:
        until(lambda: len(numbers(service)) == 1, "the first")
        environment.offset_us -= 3_600_000_000  # set back: nothing
        time.sleep(1.5)
        assert len(numbers(service)) == 1
        environment.offset_us += 2 * 3_600_000_000  # forward, as after a suspension: one
        until(lambda: len(numbers(service)) == 2, "one after the jump")
        time.sleep(1.5)
        assert [one.reason for one in service.list_checkpoints()] == ["resumed", "interval"]
    store.close()


def test_storage_pressure_makes_captures_rarer_and_says_so(tmp_path):
    raised = []
    alerts = {"storagePressure": 0.01}
    with serve(
        tmp_path / "s",
        alerts=alerts,
        storage={"local": {"path": str(tmp_path / "s"), "maxSizeBytes": 50_000_000}},
        maxIntervalSeconds=0.4,
    ) as service:
        service.on("alertRaised", raised.append)
        until(lambda: raised, "the alert")
        assert raised[0].name == "storage_pressure"
        until(lambda: service.get_metrics().interval_seconds == 0.4, "a longer interval")


def test_a_forked_child_leaves_its_parents_service_alone(tmp_path):
    with serve(tmp_path / "s") as service:
        until(lambda: numbers(service), "a capture")
        child = os.fork()
        if child == 0:
            status = 1
            try:
                service.create_checkpoint()
            except ServiceStateError:
                service.stop()
                service.close()
                status = 0
            os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        first = numbers(service)[0]
        until(lambda: numbers(service)[0] > first + 1, "captures after the fork")
        assert service.state == "running"


def test_figures_have_the_names_of_the_specification(tmp_path):
    with serve(tmp_path / "s", intervalSeconds=3600) as service:
        service.create_checkpoint()
        until(lambda: len(service.list_checkpoints()) == 2, "the automatic one")
        found = service.get_metrics()
        names = (
            "totalCheckpoints", "successRate", "averageSaveTime", "averageRecoveryTime",
            "storageUsage", "compressionRatio", "errorRate",
        )  # fmt: skip
        assert set(names) <= set(found.to_dict())
        assert found.total_checkpoints == len(service.list_checkpoints())
        assert (found.success_rate, found.error_rate) == (1, 0)
        assert found.storage_usage > 0
        assert found.average_save_time > 0
    # What the log says of before counts.
    with serve(tmp_path / "s", intervalSeconds=3600) as service:
        assert service.get_metrics().average_save_time > 0


def test_rates_are_the_same_behind_a_restart_though_most_captures_were_deleted(tmp_path):
    target, rates = Agents(), []
    with serve(tmp_path / "s", target, intervalSeconds=3600, maxCheckpoints=2) as service:
        until(service.list_checkpoints, "the first one")
        for number in range(18):
            service.create_checkpoint(str(number))
        target.fault = RuntimeError("broken")
        with pytest.raises(CaptureFailedError):
            service.create_checkpoint()
        rates.append(service.get_metrics().error_rate)
    with serve(tmp_path / "s", intervalSeconds=3600, maxCheckpoints=2) as service:
        found = service.get_metrics()
        rates.append(found.error_rate)
        assert (found.total_checkpoints, found.success_rate) == (2, 0.95)
    assert rates == [0.05, 0.05]


def test_the_current_operation(tmp_path):
    target = Agents()
    target.pause_s = 0.3
    with serve(tmp_path / "s", target, intervalSeconds=3600) as service:
        assert target.is_called.wait(30)
        current = service.current_operation
        assert (current.kind, current.reason, current.status) == ("capture", "interval", "running")
        until(lambda: service.current_operation is None, "its end")
        assert current.status == "completed"
        assert current.to_dict()["checkpointId"] == current.checkpoint_id != ""
