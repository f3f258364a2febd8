"""Each setting of the specification does what its page says, seen in a service at work."""

from __future__ import annotations

import os
import random
import threading
import time

import pytest

import ckptlog
from ckptlog import CaptureFailedError, CheckpointConfiguration, SystemConfiguration
from ckptlog.errors import CircuitOpenError, RecoveryFailedError, SettingsError
from ckptlog.recovery.guard import guards_of
from ckptlog.service.dependency import components_of
from ckptlog.service.service import CheckpointService
from ckptlog.storage.environment import Environment
from tests.service.system import settings, until


class Holder:
    """A manager whose state is set, and whose calls can be slow or hang."""

    def __init__(self, state, pause_s=0.0):
        self.state = {"state": state}
        self.pause_s = pause_s
        self.hold = threading.Event()
        self.hold.set()

    def get_state(self):
        self.hold.wait(60)
        time.sleep(self.pause_s)
        return self.state

    def set_state(self, state):
        time.sleep(self.pause_s)
        self.state = state


def serve(path, *holders, **more):
    """Return a service over some holders, whose own captures begin after a minute."""
    more = {"intervalSeconds": 60, **more}
    names = ("agentManager", "memoryManager", "queueManager", "taskManager", "systemManager")
    return ckptlog.create_checkpoint_system(
        settings(path, **more), dict(zip(names, holders, strict=False))
    )


def alert_names(service):
    return [one.name for one in service.alerts]


def text(count, seed):
    chance = random.Random(seed)
    words = [chance.randbytes(chance.randint(1, 4)).hex() for _ in range(3000)]
    return " ".join(words[min(2999, int(chance.paretovariate(0.9)))] for _ in range(count))


def test_the_level_decides_how_small_captures_are(tmp_path):
    ratios = {}
    for level in (1, 9):
        # A second capture would store nothing, and count: on a slow machine a minute is not enough.
        more = {"compressionLevel": level, "intervalSeconds": 3600}
        with serve(tmp_path / f"s{level}", Holder(text(200_000, 1)), **more) as one:
            one.create_checkpoint()
            ratios[level] = one.get_metrics().compression_ratio
    assert ratios[9] > ratios[1] * 1.05


def test_the_cache_has_a_size_and_an_age(tmp_path):
    held = {}
    for size in (0, 100):
        more = {"storage": {"local": {"path": str(tmp_path / f"s{size}")}, "cacheSize": size}}
        with serve(tmp_path / f"s{size}", Holder(text(50_000, 2)), **more) as service:
            info = service.create_checkpoint()
            service._manager.get_checkpoint(info.id)
            held[size] = service.store.blobs.cached_bytes
    assert held[0] == 0
    assert held[100] > 0
    storage = {"local": {"path": str(tmp_path / "old")}, "cacheSize": 100, "cacheTtl": 0.1}
    with serve(tmp_path / "old", Holder(text(50_000, 2)), storage=storage) as service:
        info = service.create_checkpoint()
        service._manager.get_checkpoint(info.id)
        until(lambda: service.store.blobs.cached_bytes == 0, "letting go of the cache")


@pytest.mark.parametrize(("batch", "most"), [(1, 1), (3, 3)])
def test_so_many_components_are_captured_at_once(tmp_path, batch, most):
    lock, at_work, seen = threading.Lock(), [0], []

    class Counted(Holder):
        def get_state(self):
            with lock:
                at_work[0] += 1
                seen.append(at_work[0])
            time.sleep(0.1)
            with lock:
                at_work[0] -= 1
            return self.state

    holders = [Counted(number) for number in range(5)]
    with serve(tmp_path / "s", *holders, performance={"batchSize": batch}) as service:
        service.create_checkpoint()
        assert max(seen) == most


def test_a_component_has_its_deadline(tmp_path):
    slow = Holder(1)
    service = serve(tmp_path / "s", Holder(0), slow, deadlineSeconds=0.3)
    service.initialize()
    slow.hold.clear()
    with pytest.raises(CaptureFailedError) as caught:
        service.create_checkpoint()
    assert caught.value.context["reason"] == "deadline"
    assert caught.value.context["component"] == "memory"
    slow.hold.set()
    service.close()


def test_slow_recoveries_and_saves_are_told_never_aborted(tmp_path):
    holder = Holder(1, pause_s=0.05)
    performance = {"maxRecoveryTimeMs": 20, "maxSaveTimeMs": 86_400_000}
    with serve(tmp_path / "s", holder, performance=performance) as service:
        first = service.create_checkpoint()
        assert "save_time" not in alert_names(service)
        holder.state = {"state": 2}
        assert service.recover_from_checkpoint(first.id).status == "completed"
        assert "recovery_time" in alert_names(service)
        assert holder.state == {"state": 1}
    alerts = {"saveTimeMs": 10}  # before performance.maxSaveTimeMs
    with serve(tmp_path / "t", holder, alerts=alerts, performance=performance) as service:
        service.create_checkpoint()
        (alert,) = [one for one in service.alerts if one.name == "save_time"]
        assert "agents" in alert.detail


class Passing(Holder):
    """Refuses to be restored, with an error that may pass."""

    def __init__(self, failures):
        super().__init__(1)
        self.left, self.tried = failures, 0

    def set_state(self, state):
        self.tried += 1
        if self.left:
            self.left -= 1
            raise TimeoutError("not now")
        self.state = state


@pytest.mark.parametrize(("attempts", "succeeds"), [(1, False), (3, False), (4, True)])
def test_a_restore_is_tried_so_often(tmp_path, attempts, succeeds):
    holder = Passing(3)
    recovery = {"retryAttempts": attempts, "retryDelaySeconds": 0}
    with serve(tmp_path / "s", holder, recovery=recovery) as service:
        good = service.create_checkpoint()
        holder.state = {"state": 2}
        if succeeds:
            assert service.recover_from_checkpoint(good.id).status == "completed"
            assert holder.tried == attempts
        else:
            with pytest.raises(RecoveryFailedError) as caught:
                service.recover_from_checkpoint(good.id)
            # The rollback tries as well, so often, or until it succeeds.
            assert caught.value.context["rolled_back"]
            assert holder.tried == min(2 * attempts, 4)
            assert holder.state == {"state": 2}


def test_waits_between_attempts_have_limits_that_grow(tmp_path, monkeypatch):
    limits = []
    monkeypatch.setattr(
        "ckptlog.recovery.retry.random.uniform", lambda _, most: limits.append(most) or 0.0
    )
    holder = Passing(5)
    recovery = {
        "retryAttempts": 6,
        "retryDelaySeconds": 0.5,
        "retryFactor": 3,
        "retryDelayMaxSeconds": 10,
    }
    with serve(tmp_path / "s", holder, recovery=recovery) as service:
        good = service.create_checkpoint()
        assert service.recover_from_checkpoint(good.id).status == "completed"
    assert limits == [0.5, 1.5, 4.5, 10, 10]


def test_what_fails_again_and_again_is_left_alone(tmp_path):
    holder = Passing(1000)
    recovery = {
        "retryAttempts": 1,
        "breakerFailures": 2,
        "breakerRestSeconds": 500,
        "breakerRestMaxSeconds": 900,
    }
    with serve(tmp_path / "s", holder, recovery=recovery) as service:
        good = service.create_checkpoint()
        for _ in range(2):
            with pytest.raises(RecoveryFailedError):
                service.recover_from_checkpoint(good.id)
        tried = holder.tried
        with pytest.raises(CircuitOpenError) as caught:
            service.recover_from_checkpoint(good.id)
        assert 1 < caught.value.context["wait_s"] <= 500
        assert holder.tried == tried


@pytest.mark.parametrize(("most", "rests"), [(0.02, 1), (100, 4)])
def test_the_rest_grows_to_its_limit(tmp_path, most, rests):
    """A trial that fails doubles it: after so many it is longer than anybody waits here."""
    holder = Passing(1000)
    recovery = {
        "retryAttempts": 1,
        "breakerFailures": 1,
        "breakerRestSeconds": 0.02,
        "breakerRestMaxSeconds": most,
    }
    seen = []

    def has_failed():
        try:
            service.recover_from_checkpoint(good.id)
        except RecoveryFailedError:
            return True
        except CircuitOpenError as error:
            seen.append(error.context["wait_s"])
            return False
        raise AssertionError("it was recovered")

    with serve(tmp_path / "s", holder, recovery=recovery) as service:
        good = service.create_checkpoint()
        for _ in range(4):
            until(has_failed, "a trial")
        guards = guards_of(service._engine.capturer, None)
        assert guards.component("agents").wait_s(time.monotonic()) <= 0.02 * 2 ** (rests - 1)
        assert all(one <= most for one in seen)
        assert guards.component("agents").settings.rest_max_s == most


@pytest.mark.parametrize(("factor", "failures"), [(1, 5), (16, 2)])
def test_a_failed_capture_makes_the_interval_longer_by_the_factor(tmp_path, factor, failures):
    holder = Holder(1)
    more = {"intervalSeconds": 0.05, "maxIntervalSeconds": 1000, "backoffFactor": factor}
    with serve(tmp_path / "s", holder, **more) as service:
        until(lambda: service.get_metrics().total_checkpoints, "the first capture")
        assert service.get_metrics().interval_seconds == 0.05
        holder.state = {"cannot be stored": object()}
        until(lambda: service.get_metrics().failures_in_a_row >= failures, "failures")
        until(lambda: service.get_metrics().interval_seconds >= 0.05 * factor**failures, "it")
        assert service.get_metrics().interval_seconds == pytest.approx(0.05 * factor**failures)


def test_a_ratio_below_the_target_is_told(tmp_path):
    holder = Holder(os.urandom(1_500_000))
    with serve(tmp_path / "s", holder, performance={"compressionTarget": 10}) as service:
        service.create_checkpoint()
        assert "compression" in alert_names(service)
    holder = Holder(text(600_000, 3))
    with serve(tmp_path / "t", holder, performance={"compressionTarget": 1.2}) as service:
        service.create_checkpoint()
        assert "compression" not in alert_names(service)


def test_what_did_not_change_is_captured_where_it_shall_be(tmp_path):
    more = {"intervalSeconds": 0.1, "skipUnchanged": False, "maxCheckpoints": 0}
    with serve(tmp_path / "s", Holder(1), **more) as service:
        until(lambda: len(service.list_checkpoints()) >= 3, "captures of one state")
        assert len({one.digest for one in service.list_checkpoints()}) == 1
        assert service.get_metrics().skipped == 0


def test_a_state_that_was_not_saved_for_long_is_stale(tmp_path):
    with serve(tmp_path / "s", Holder(1), alerts={"staleSeconds": 0.2}) as service:
        service.create_checkpoint()
        service.pause()
        until(lambda: "stale" in alert_names(service), "the alert")
        service.create_checkpoint()
        assert "stale" not in alert_names(service)


class Later(Environment):
    """The real world, some days on."""

    days = 0.0

    def now_us(self):
        return super().now_us() + int(self.days * 86_400_000_000)


def test_what_is_older_goes_but_for_the_newest(tmp_path):
    environment = Later()
    config = SystemConfiguration.from_dict(
        settings(tmp_path / "s", intervalSeconds=3600, maxAgeDays=7, maxCheckpoints=0)
    )
    holder = Holder(0)
    with ckptlog.open(tmp_path / "s", create=True, environment=environment) as store:
        service = CheckpointService(config, components_of({"agents": holder}), store=store)
        service.initialize()
        for day in (0, 3, 6):
            environment.days = day
            holder.state = {"state": day}
            service.create_checkpoint()
        environment.days = 11
        assert service._engine.clean_up() != []
        assert [one.number for one in service.list_checkpoints()] == [3]
        environment.days = 100
        service._engine.clean_up()
        assert [one.number for one in service.list_checkpoints()] == [3]
        service.close()


def test_what_a_service_would_not_obey_is_refused_by_name():
    policy = {"keep_last": 3}
    with pytest.raises(SettingsError, match="retention") as caught:
        SystemConfiguration.from_dict({"retention": policy})
    assert "maxCheckpoints" in str(caught.value.hint)
    config = CheckpointConfiguration(retention=policy)
    with pytest.raises(SettingsError, match="retention"):
        SystemConfiguration.from_checkpoint_configuration(config)
