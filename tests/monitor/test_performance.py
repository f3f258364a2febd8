from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from ckptlog import (
    ArgumentError,
    CheckpointManager,
    CheckpointNotFoundError,
    CheckpointPerformanceMonitor,
    CheckpointPerformanceRequirements,
    create_checkpoint_system,
)
from ckptlog.monitor.performance import OPERATIONS_MAX
from tests.service.system import settings, until


def test_by_hand():
    monitor = CheckpointPerformanceMonitor()
    for duration_ms in (10, 20, 200):
        monitor.track_operation_latency("create", duration_ms)
    monitor.track_throughput(250.0)
    monitor.track_memory_usage(600)
    monitor.track_storage_usage(2048)
    report = monitor.get_performance_report()
    create = report["operations"]["create"]
    assert (create["count"], create["total_ms"], create["max_ms"]) == (3, 230, 200)
    assert (create["limit_ms"], create["over_limit"], create["failed"]) == (100, 1, 0)
    assert abs(create["p50_ms"] - 20) <= 0.2
    assert report["throughput"]["max_per_s"] == 250
    assert report["storage"]["last_mb"] == 2048
    assert report["violations"] == ["MAX_CHECKPOINT_CREATION_TIME_MS", "MAX_MEMORY_USAGE_MB"]
    met = {one["name"]: one["met"] for one in report["requirements"]}
    assert met["MIN_CHECKPOINTS_PER_SECOND"] is met["MAX_TOTAL_STORAGE_GB"] is True
    assert met["MAX_CHECKPOINT_QUERY_TIME_MS"] is None
    assert report["now"]["memory_mb"] > 1
    assert report["now"]["storage_mb"] is None


@pytest.mark.parametrize(
    "call",
    [
        lambda one: one.track_operation_latency("", 1),
        lambda one: one.track_operation_latency("x" * 201, 1),
        lambda one: one.track_operation_latency("create", -1),
        lambda one: one.track_throughput(float("nan")),
        lambda one: one.track_memory_usage("1"),
        lambda one: one.track_storage_usage(True),
        lambda one: one.attach(),
        lambda one: one.follow(object()),
        lambda one: CheckpointPerformanceMonitor("manager"),
    ],
)
def test_what_is_wrong_is_refused(call):
    with pytest.raises(ArgumentError):
        call(CheckpointPerformanceMonitor())


def test_it_times_the_calls_of_its_manager(tmp_path):
    with CheckpointManager(tmp_path / "s") as manager:
        monitor = CheckpointPerformanceMonitor(manager)
        monitor.attach()
        name = manager.create_checkpoint("t", "T", 1, data={"a": 1})
        manager.update_checkpoint(name, data={"a": 2})
        assert manager.get_checkpoint(name).data == {"a": 2}
        with pytest.raises(CheckpointNotFoundError):
            manager.update_checkpoint("cp_none", data={})
        with pytest.raises(ArgumentError):
            CheckpointPerformanceMonitor(manager).attach()
        sample = monitor.sample()
        assert sample["operations_per_second"] > 0
        assert sample["storage_mb"] > 0
        monitor.close()
        manager.complete_checkpoint(name)
        found = monitor.get_performance_report()["operations"]
        counts = {key: (one["count"], one["failed"]) for key, one in found.items()}
        assert counts == {"create": (1, 0), "update": (2, 1), "query": (1, 0)}


def requirement(monitor, name):
    found = monitor.get_performance_report()["requirements"]
    return next((one["value"], one["met"]) for one in found if one["name"] == name)


def test_each_constant_of_the_specification_is_in_the_report():
    report = CheckpointPerformanceMonitor().get_performance_report()
    constants = {name for name in vars(CheckpointPerformanceRequirements) if name.isupper()}
    assert len(constants) == 9
    assert {one["name"] for one in report["requirements"]} == constants
    assert all(one["met"] is None for one in report["requirements"])
    assert report["violations"] == []


def test_sizes_open_checkpoints_and_the_cache_are_measured(tmp_path):
    with CheckpointManager(tmp_path / "s") as manager:
        monitor = CheckpointPerformanceMonitor(manager)
        monitor.attach()
        name = manager.create_checkpoint("t", "T", 1, data={"a": "x" * 1024 * 1024})
        manager.create_checkpoint("t", "T", 2)
        manager.complete_checkpoint(checkpoint_id=name)
        manager.update_checkpoint(manager.create_checkpoint("t", "T", 3), data={"a": 1})
        monitor.sample()
        size, is_small = requirement(monitor, "MAX_CHECKPOINT_SIZE_MB")
        assert 1 <= size < 1.1
        assert is_small
        assert requirement(monitor, "MAX_CONCURRENT_CHECKPOINTS") == (2, True)
        cache, is_bounded = requirement(monitor, "MAX_CACHE_SIZE_MB")
        assert 0 < cache < 100
        assert is_bounded
        monitor.close()


def test_an_idle_program_violates_nothing(tmp_path):
    with CheckpointManager(tmp_path / "s") as manager:
        monitor = CheckpointPerformanceMonitor(manager)
        monitor.attach()
        for _ in range(3):
            monitor.sample()
        manager.get_checkpoint("cp_none")
        monitor.sample()
        value, met = requirement(monitor, "MIN_CHECKPOINTS_PER_SECOND")
        assert (value, met) == (0, None)
        assert monitor.get_performance_report()["throughput"]["count"] == 4
        monitor.close()


def test_checkpoints_per_second_are_judged_by_what_was_told():
    monitor = CheckpointPerformanceMonitor()
    for _ in range(1000):
        monitor.track_operation_latency("query", 0)
    monitor.sample()
    assert requirement(monitor, "MIN_CHECKPOINTS_PER_SECOND") == (0, None)
    for _ in range(1000):
        monitor.track_operation_latency("create", 0)
    rate = monitor.sample()["operations_per_second"]
    assert requirement(monitor, "MIN_CHECKPOINTS_PER_SECOND")[0] == rate
    monitor.track_throughput(50)
    assert requirement(monitor, "MIN_CHECKPOINTS_PER_SECOND") == (50, False)
    monitor.track_throughput(150)
    assert requirement(monitor, "MIN_CHECKPOINTS_PER_SECOND") == (150, True)


def test_it_follows_a_service(tmp_path):
    monitor = CheckpointPerformanceMonitor()
    config = settings(tmp_path / "s", intervalSeconds=3600)
    with create_checkpoint_system(config, {"memoryManager": {"a": 1}}) as service:
        monitor.follow(service)
        service.create_checkpoint()
        service.recover_from_checkpoint(dry_run=True)
        service.recover_from_checkpoint()
        until(lambda: {"capture", "recovery"} <= monitor.operations().keys(), "both")
        monitor.close()
    assert monitor.operations()["recovery"][0].count == 1


def test_names_and_threads_are_bounded_and_safe():
    monitor = CheckpointPerformanceMonitor()

    def work():
        for number in range(OPERATIONS_MAX + 50):
            monitor.track_operation_latency(f"op {number}", 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    found = monitor.operations()
    assert len(found) == OPERATIONS_MAX + 1
    assert sum(sketch.count for sketch, _ in found.values()) == 4 * (OPERATIONS_MAX + 50)


def test_limits_may_be_others():
    limits = SimpleNamespace(
        MAX_CHECKPOINT_CREATION_TIME_MS=1,
        MAX_CHECKPOINT_UPDATE_TIME_MS=1,
        MAX_CHECKPOINT_QUERY_TIME_MS=1,
        MIN_CHECKPOINTS_PER_SECOND=1,
        MAX_TOTAL_STORAGE_GB=1,
        MAX_MEMORY_USAGE_MB=1,
    )
    monitor = CheckpointPerformanceMonitor(requirements=limits)
    monitor.track_operation_latency("create", 2)
    assert monitor.get_performance_report()["violations"] == ["MAX_CHECKPOINT_CREATION_TIME_MS"]
