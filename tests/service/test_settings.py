"""Each setting of the specification does what its page says, seen in a service at work."""

from __future__ import annotations

import os
import random
import threading
import time

import pytest

import ckptlog
from ckptlog import CaptureFailedError, CheckpointConfiguration, SystemConfiguration
from ckptlog.errors import SettingsError
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
        with serve(tmp_path / f"s{level}", Holder(text(200_000, 1)), compressionLevel=level) as one:
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
