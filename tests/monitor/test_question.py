"""Each question against plain Python over the rows of the model, on random logs."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptlog import ArgumentError
from ckptlog.model.event import COMPLETED, CREATED, FAILED, RESTORED, TASK_DELETED
from ckptlog.monitor import question, sample
from tests.views.history.scribe import ACTS, BEGIN, Scribe, play

US = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
LOGS = st.lists(ACTS, min_size=1, max_size=80)
RANGES = st.sampled_from(
    [(None, None), (BEGIN + HOUR, None), (None, BEGIN + 12 * HOUR), (BEGIN, BEGIN + HOUR)]
)


class Log:
    """A played log: its history, and the rows of the model."""

    def __init__(self, acts):
        folder = tempfile.mkdtemp(prefix="ckptlog-test-")
        scribe = Scribe(Path(folder) / "store")
        try:
            play(scribe, acts)
            self.history = scribe.view().update().to_table()
            self.rows = scribe.rows
        finally:
            scribe.close()
            shutil.rmtree(folder)

    def within(self, since, until):
        return [
            row
            for row in self.rows
            if (since is None or row["time"] >= since) and (until is None or row["time"] < until)
        ]


def bucket(time, width=HOUR):
    return (
        datetime(1970, 1, 1, tzinfo=UTC)
        + (time - datetime(1970, 1, 1, tzinfo=UTC)) // width * width
    )


def buckets(rows):
    starts = [bucket(row["time"]) for row in rows]
    if not starts:
        return []
    count = (max(starts) - min(starts)) // HOUR + 1
    return [min(starts) + n * HOUR for n in range(count)]


def nearest(values, share):
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1]


def check_durations(found, groups, key, name):
    """Compare rows with quantiles of the values of each group."""
    by_key = {row[key]: row for row in found}
    assert set(by_key) == set(groups)
    for group, values in groups.items():
        row = by_key[group]
        assert row[name] == len(values)
        assert row["total_s"] == pytest.approx(sum(values) / 1e6)
        assert row["mean_s"] == pytest.approx(sum(values) / len(values) / 1e6)
        for column, share in (("p50_s", 0.5), ("p95_s", 0.95), ("p99_s", 0.99), ("max_s", 1)):
            assert row[column] == pytest.approx(nearest(values, share) / 1e6)


@settings(max_examples=15)
@given(LOGS, RANGES)
def test_throughput(acts, times):
    log = Log(acts)
    rows = log.within(*times)
    found = question.throughput(log.history, since=times[0], until=times[1]).to_pylist()
    assert [row["start"] for row in found] == buckets(rows)
    for row in found:
        own = [one for one in rows if bucket(one["time"]) == row["start"]]
        kinds = Counter(one["type"] for one in own)
        assert row == {
            "start": row["start"],
            "events": len(own),
            "commits": len({one["commit"] for one in own}),
            "events_per_s": pytest.approx(len(own) / 3600),
            "created": kinds[CREATED],
            "completed": kinds[COMPLETED],
            "failed": kinds[FAILED],
            "logical_bytes": sum(one["logical_bytes"] for one in own),
            "stored_bytes": sum(one["stored_bytes"] for one in own),
        }


@settings(max_examples=15)
@given(LOGS, RANGES, st.sampled_from(["task", "worker", None]))
def test_step_latency(acts, times, by):
    log = Log(acts)
    groups = defaultdict(list)
    for row in log.within(*times):
        if row["type"] == COMPLETED and (by is None or row[by] is not None):
            groups[row[by] if by else ""].append(row["age_us"])
    found = question.step_latency(log.history, by=by, since=times[0], until=times[1]).to_pylist()
    assert [row["p50_s"] for row in found] == sorted((row["p50_s"] for row in found), reverse=True)
    for row in found:
        row.setdefault("", "")
    check_durations(found, groups, by or "", "steps")


@settings(max_examples=15)
@given(LOGS, RANGES)
def test_failure_rate_and_failures(acts, times):
    log = Log(acts)
    rows = [row for row in log.within(*times) if row["type"] in {COMPLETED, FAILED}]
    found = question.failure_rate(log.history, since=times[0], until=times[1]).to_pylist()
    assert [row["start"] for row in found] == buckets(rows)
    for row in found:
        own = [one["type"] for one in rows if bucket(one["time"]) == row["start"]]
        assert (row["completed"], row["failed"]) == (own.count(COMPLETED), own.count(FAILED))
        assert row["rate"] == (own.count(FAILED) / len(own) if own else None)
    failed = [row for row in rows if row["type"] == FAILED]
    classes = Counter(row["error_class"] for row in failed)
    told = question.failures(log.history, since=times[0], until=times[1]).to_pylist()
    assert {row["error_class"]: row["failures"] for row in told} == classes
    assert [row["failures"] for row in told] == sorted(classes.values(), reverse=True)
    for row in told:
        own = [one for one in failed if one["error_class"] == row["error_class"]]
        assert row["tasks"] == len({one["task"] for one in own})
        assert row["last"] == max(one["time"] for one in own)
        assert row["share"] == pytest.approx(len(own) / len(failed))


@settings(max_examples=15)
@given(LOGS, RANGES)
def test_time_in_state(acts, times):
    log = Log(acts)
    groups = defaultdict(list)
    for row in log.within(*times):
        if row["state_us"] is not None:
            groups[row["state_before"]].append(row["state_us"])
    now = {}
    for row in log.within(None, times[1]):
        if row["type"] == TASK_DELETED:
            now = {key: one for key, one in now.items() if one["task"] != row["task"]}
        elif row["checkpoint"]:
            now[row["checkpoint"]] = row
    # A clock that was set back can leave rows out of the range that came before others in it.
    is_ordered = all(a["time"] <= b["time"] for a, b in zip(log.rows, log.rows[1:]))
    counts = Counter(row["state_after"] for row in now.values() if row["state_after"])
    found = question.time_in_state(log.history, since=times[0], until=times[1]).to_pylist()
    assert [row["state"] for row in found] == sorted(row["state"] for row in found)
    if is_ordered or times[1] is None:
        assert {row["state"]: row["now"] for row in found if row["now"]} == counts
    ended = [row for row in found if row["times"]]
    check_durations(ended, groups, "state", "times")
    assert all(row["p50_s"] is None for row in found if not row["times"])


@settings(max_examples=15)
@given(LOGS, RANGES)
def test_savings(acts, times):
    log = Log(acts)
    rows = log.within(*times)
    found = question.savings(log.history, since=times[0], until=times[1]).to_pylist()
    assert [row["start"] for row in found] == buckets(rows)
    all_logical = all_stored = 0
    for row in found:
        own = [one for one in rows if bucket(one["time"]) == row["start"]]
        logical, raw, stored = (
            sum(one[name] for one in own) for name in ("logical_bytes", "raw_bytes", "stored_bytes")
        )
        all_logical, all_stored = all_logical + logical, all_stored + stored
        assert row["saves"] == sum(one["logical_bytes"] > 0 for one in own)
        assert (row["logical_bytes"], row["stored_bytes"]) == (logical, stored)
        assert row["ratio"] == (pytest.approx(logical / stored) if stored else None)
        assert row["dedup_ratio"] == (pytest.approx(logical / raw) if raw else None)
        assert row["compression_ratio"] == (pytest.approx(raw / stored) if stored else None)
        assert row["ratio_so_far"] == (
            pytest.approx(all_logical / all_stored) if all_stored else None
        )


@settings(max_examples=15)
@given(LOGS, RANGES, st.integers(1, 4))
def test_top_tasks(acts, times, limit):
    log = Log(acts)
    rows = [row for row in log.within(*times) if row["task"] is not None]
    sums = Counter()
    for row in rows:
        sums[row["task"]] += row["stored_bytes"]
    found = question.top_tasks(log.history, limit=limit, since=times[0], until=times[1]).to_pylist()
    assert [row["task"] for row in found] == sorted(sums, key=lambda task: (-sums[task], task))[
        :limit
    ]
    for row in found:
        own = [one for one in rows if one["task"] == row["task"]]
        logical = sum(one["logical_bytes"] for one in own)
        whole = sum(sums.values())
        assert row["stored_bytes"] == sums[row["task"]]
        assert row["logical_bytes"] == logical
        assert row["share"] == (pytest.approx(sums[row["task"]] / whole) if whole else None)
        assert row["ratio"] == (
            pytest.approx(logical / sums[row["task"]]) if sums[row["task"]] else None
        )
        assert row["checkpoints"] == sum(one["type"] == CREATED for one in own)
        assert row["events"] == len(own)
        assert row["last"] == max(one["time"] for one in own)


@settings(max_examples=15)
@given(LOGS, RANGES)
def test_recovery_times(acts, times):
    log = Log(acts)
    expected = []
    for row in log.within(*times):
        if row["type"] == RESTORED:
            of_task = [one for one in log.rows if one["task"] == row["task"]]
            index = of_task.index(row)
            after = of_task[index + 1]["time"] if index + 1 < len(of_task) else None
            expected.append(
                {
                    **{
                        name: row[name]
                        for name in ("position", "time", "task", "checkpoint", "state_before")
                    },
                    "down_s": pytest.approx((row["time"] - of_task[index - 1]["time"]) / US / 1e6),
                    "resumed_s": None
                    if after is None
                    else pytest.approx((after - row["time"]) / US / 1e6),
                }
            )
    found = question.recovery_times(log.history, since=times[0], until=times[1]).to_pylist()
    assert found == expected


# --- edges ----------------------------------------------------------------------------------

ALL = (
    question.throughput,
    question.step_latency,
    question.failure_rate,
    question.failures,
    question.time_in_state,
    question.savings,
    question.top_tasks,
    question.recovery_times,
)


@pytest.fixture(scope="module")
def log():
    return Log([("create", 1, 1, True), ("update", 1, 1, True), ("complete", 1, 30, True)])


@pytest.mark.parametrize("ask", ALL, ids=lambda ask: ask.__name__)
def test_nothing_is_asked_of_an_empty_history(ask):
    assert ask(Log([]).history).num_rows == 0


@pytest.mark.parametrize("ask", ALL, ids=lambda ask: ask.__name__)
def test_a_question_names_its_columns(ask, log):
    told = ask.__doc__.split("Returns:")[1]
    for name in ask(log.history).column_names:
        assert name in told, name


@pytest.mark.parametrize("ask", ALL, ids=lambda ask: ask.__name__)
def test_something_else_than_a_history_is_refused(ask):
    with pytest.raises(ArgumentError):
        ask([1, 2, 3])


@pytest.mark.parametrize("width", [0, -1, math.nan, math.inf, True, "1h", None, 10**12])
def test_odd_buckets_are_refused(log, width):
    for ask in (question.throughput, question.failure_rate, question.savings):
        with pytest.raises(ArgumentError):
            ask(log.history, bucket_s=width)


def test_too_many_buckets_are_refused(log):
    with pytest.raises(ArgumentError, match="buckets"):
        question.throughput(log.history, bucket_s=1e-6)


@pytest.mark.parametrize("limit", [0, -1, True, 2.0, None])
def test_odd_limits_are_refused(log, limit):
    for ask in (question.top_tasks, question.failures):
        with pytest.raises(ArgumentError):
            ask(log.history, limit=limit)


def test_latency_by_something_else_is_refused(log):
    with pytest.raises(ArgumentError):
        question.step_latency(log.history, by="time")


def test_times_without_a_zone_are_utc(log):
    naive = BEGIN.replace(tzinfo=None) + timedelta(seconds=2)
    found = question.throughput(log.history, since=naive)
    assert found["events"].to_pylist() == [2]


def test_whole_parts_are_rounded_down_before_1970_too():
    import pyarrow as pa

    numbers = pa.chunked_array([[-7, -6, -5, -1, 0, 1, 5, 6]])
    assert sample.floor_divide(numbers, 6).to_pylist() == [-2, -1, -1, -1, 0, 0, 0, 1]


QUESTIONS = [
    question.throughput,
    question.step_latency,
    question.failure_rate,
    question.failures,
    question.time_in_state,
    question.savings,
    question.top_tasks,
    question.recovery_times,
]


def test_the_list_of_questions_is_whole():
    asked = {
        name
        for name, one in vars(question).items()
        if getattr(one, "__module__", "") == question.__name__
    }
    assert {name for name in asked if not name.startswith("_")} == {
        one.__name__ for one in QUESTIONS
    }


@pytest.mark.parametrize("ask", QUESTIONS)
def test_a_table_of_something_else_is_refused_by_name(ask):
    import pyarrow as pa

    for table in (
        pa.table({"task": ["a"]}),
        pa.table({}),
        pa.table({"position": [1], "time": [2]}),
    ):
        with pytest.raises(ArgumentError, match="history has no column") as caught:
            ask(table)
        assert caught.value.context["argument"] == "history"


@pytest.mark.parametrize("ask", QUESTIONS)
def test_a_column_of_another_type_is_refused_by_name(ask):
    import pyarrow as pa

    whole = Log([]).history
    for name in whole.column_names:
        changed = whole.set_column(
            whole.column_names.index(name), name, pa.nulls(len(whole), pa.bool_())
        )
        try:
            ask(changed)
        except ArgumentError as error:
            assert f"The column {name!r} of history is of type bool" in error.message
    renamed = whole.drop_columns("date") if "date" in whole.column_names else whole
    with pytest.raises(ArgumentError, match="'date'"):
        ask(renamed, since=BEGIN)


def test_texts_may_come_as_dictionaries():
    import pyarrow as pa

    whole = Log([]).history
    index = whole.column_names.index("task")
    encoded = whole.set_column(index, "task", whole["task"].dictionary_encode())
    question.top_tasks(encoded)
    question.top_tasks(whole.set_column(index, "task", whole["task"].cast(pa.large_string())))
