from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

import ckptlog
from ckptlog import ArgumentError, CheckpointManager, StoreMissingError
from ckptlog.monitor.collector import MetricsCollector, PerformanceTrends, TrendPoint
from ckptlog.storage.environment import Environment

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


class Clock(Environment):
    """A clock that the test sets."""

    time = NOW

    def now_us(self):
        self.time += timedelta(microseconds=1)
        return round(self.time.timestamp() * 1e6)


@pytest.fixture
def path(tmp_path):
    clock = Clock()
    path = tmp_path / ".ckptlog"
    store = ckptlog.open(path, create=True, environment=clock)
    with store, CheckpointManager(store=store) as manager:
        for hours, seconds, ends in (
            (30, 5, "completed"),
            (2, 3, "completed"),
            (2, 9, "failed"),
            (1, 7, "completed"),
        ):
            clock.time = NOW - timedelta(hours=hours)
            name = manager.create_checkpoint("t", "T", 1, data={"text": f"{seconds} " * 400})
            clock.time += timedelta(seconds=seconds)
            (manager.complete_checkpoint if ends == "completed" else manager.fail_checkpoint)(name)
    return path


def test_trends_of_the_last_hours(path):
    trends = MetricsCollector(path).get_performance_trends(24, now=NOW)
    assert isinstance(trends, PerformanceTrends)
    assert [round(point.value, 3) for point in trends.save_time_trend] == [3.0, 7.0]
    assert [point.start for point in trends.save_time_trend] == [
        NOW - timedelta(hours=n) for n in (2, 1)
    ]
    assert [point.count for point in trends.success_rate_over_time] == [2, 1]
    assert [point.value for point in trends.success_rate_over_time] == [0.5, 1.0]
    assert all(point.value > 1 for point in trends.compression_ratio_trend)
    assert trends.bucket_s == 3600


def test_more_hours_show_more_and_gaps_are_shown(path):
    trends = MetricsCollector(path).get_performance_trends(48, now=NOW, bucket_s=3600)
    values = [point.value for point in trends.save_time_trend]
    assert len(values) == 30
    assert [round(value) for value in values if value is not None] == [5, 3, 7]
    assert trends.save_time_trend[1] == TrendPoint(NOW - timedelta(hours=29), None, 0)


def test_nothing_happened(path):
    trends = MetricsCollector(path).get_performance_trends(1, now=NOW + timedelta(days=9))
    assert trends.save_time_trend == trends.success_rate_over_time == []
    assert trends.compression_ratio_trend == []


@pytest.mark.parametrize("kind", ["path", "text", "store", "manager", "found", "environment"])
def test_the_store_may_be_given_in_any_way(path, kind, monkeypatch, tmp_path):
    with CheckpointManager(path) as manager:
        given = {"path": path, "text": str(path), "store": manager.store, "manager": manager}.get(
            kind
        )
        if kind == "found":
            (tmp_path / "deep" / "er").mkdir(parents=True)
            monkeypatch.chdir(tmp_path / "deep" / "er")
        if kind == "environment":
            monkeypatch.chdir("/")
            monkeypatch.setenv("CKPTLOG_STORE", str(path))
        trends = MetricsCollector(given).get_performance_trends(now=NOW)
        assert len(trends.save_time_trend) == 2
        assert manager.store.position == 8  # what was given stays open


def test_a_path_is_that_of_the_working_directory_at_first(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    collector = MetricsCollector(path.name)
    monkeypatch.chdir("/")
    assert len(collector.get_performance_trends(now=NOW).save_time_trend) == 2


def test_a_store_that_may_only_be_read_is_read(path, monkeypatch):
    from ckptlog.errors import ReadOnlyError
    from ckptlog.repository import layout

    def refuse(root):
        raise ReadOnlyError("It cannot be written.")

    monkeypatch.setattr(layout, "refuse_read_only", refuse)
    assert len(MetricsCollector(path).get_performance_trends(now=NOW).save_time_trend) == 2


def test_no_store_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreMissingError) as caught:
        MetricsCollector().get_performance_trends()
    assert "MetricsCollector(PATH)" in caught.value.hint


class Agent:
    """A component whose captures take what the clock is moved by, or fail."""

    name = "agent"

    def __init__(self, clock):
        self.clock, self.number, self.is_broken = clock, 0, False

    def capture(self):
        if self.is_broken:
            raise RuntimeError("broken")
        self.number += 1
        return {"number": self.number}

    def restore(self, payload):
        self.number = payload["number"]


@pytest.fixture
def system(tmp_path):
    clock = Clock()
    store = ckptlog.open(tmp_path / "sys", create=True, environment=clock)
    with store, CheckpointManager(store=store) as manager:
        clock.time = NOW - timedelta(hours=1)
        agent = Agent(clock)
        yield manager, agent, ckptlog.Capturer(manager, "system", [agent])


def trends_of(store):
    trends = MetricsCollector(store).get_performance_trends(24, now=NOW)
    return trends.save_time_trend, trends.success_rate_over_time


def test_captures_that_failed_count_each(system):
    manager, agent, capturer = system
    for is_broken in (False, True, True, True, False, True, True, False, True, False):
        agent.is_broken = is_broken
        if is_broken:
            with pytest.raises(ckptlog.CaptureFailedError):
                capturer.capture()
        else:
            capturer.capture()
    _, rates = trends_of(manager)
    (point,) = rates
    assert (point.count, point.value) == (10, 0.4)


def test_a_capture_took_what_it_took(system):
    manager, _, capturer = system
    infos = [capturer.capture() for _ in range(3)]
    expected = sorted(info.seconds for info in infos)
    assert expected[0] > 0
    (point,), _ = trends_of(manager)
    assert point.count == 3
    assert point.value == pytest.approx(expected[1], abs=1e-6)
    # Also of those that were cleaned up since.
    manager.delete_checkpoint(infos[0].id)
    (point,), _ = trends_of(manager)
    assert point.count == 3
    # Others count from their creation to their completion, in one commit too.
    with manager.batch() as batch:
        for number in range(1, 8):
            batch.complete_checkpoint(batch.create_checkpoint("plain", "P", number))
    (point,), _ = trends_of(manager)
    assert (point.count, point.value) == (10, 0)


def test_captures_of_odd_metadata_are_left_out(system):
    manager, _, capturer = system
    capturer.capture()
    for seconds in ("1", None, -1, float("inf"), 1e300):
        with manager.batch() as batch:
            metadata = {"capture": {"seconds": seconds}}
            name = batch.create_checkpoint("system", "S", 9, metadata=metadata)
            batch.complete_checkpoint(name)
    (point,), _ = trends_of(manager)
    assert point.count == 1


@pytest.mark.parametrize("hours", [0, -1, float("nan"), "24", None, True, 10**9])
def test_odd_hours_are_refused(path, hours):
    with pytest.raises(ArgumentError):
        MetricsCollector(path).get_performance_trends(hours)


def test_something_else_than_a_store_is_refused():
    with pytest.raises(ArgumentError):
        MetricsCollector(3)


def test_trends_are_safe_for_json_and_for_notebooks(path):
    trends = MetricsCollector(path).get_performance_trends(now=NOW)
    told = json.loads(json.dumps(trends.to_dict()))
    assert told["save_time_trend"][0]["count"] == 1
    shown = trends._repr_html_()
    assert shown.count("<table>") == 4
    assert "2026-03-02T10:00:00" in shown


def test_the_collector_is_public():
    assert ckptlog.MetricsCollector is MetricsCollector
