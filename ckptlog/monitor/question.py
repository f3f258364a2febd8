"""Ready questions about a history: each takes `store.history()` and returns a pyarrow table.

    from ckptlog.monitor import question
    question.step_latency(store.history()).to_pandas()

Durations are seconds by the writers' clocks, sizes bytes, times UTC. What cannot be told (a rate
of nothing) is null. A range of times (`since`, `until`) chooses rows by the time of their event.
A table of rows of the history, or a filtered dataset, will do in the place of the whole.

Threads: safe; pure but for reading files.        Cost: about a second for a million rows.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from ckptlog.errors import ArgumentError
from ckptlog.model.event import CAPTURE_FAILED, COMPLETED, CREATED, FAILED, RESTORED, TASK_DELETED
from ckptlog.monitor import sample

if TYPE_CHECKING:
    import pyarrow as pa

    from ckptlog.monitor.sample import History

HOUR_S: Final = 3600.0
Group = Literal["task", "worker", "namespace", "actor"]
_GROUPS: Final = ("task", "worker", "namespace", "actor")
# In the facts of a capture that failed (specs/capture.md, section 3).
_SUPPRESSED: Final = r'"suppressed":\s*(?P<count>\d{1,9})\b'


def throughput(
    history: History,
    *,
    bucket_s: float = HOUR_S,
    since: datetime | None = None,
    until: datetime | None = None,
) -> pa.Table:
    """How much was done, over time?

    Returns:
        start: Of the bucket. events, commits: Numbers. created, completed, failed: Checkpoints
        that became so. events_per_s: Mean over the bucket. logical_bytes, stored_bytes: Saved,
        and added to the store for it. A bucket in which nothing happened has zeros.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = ["time", "type", "commit", "logical_bytes", "stored_bytes"]
    table = sample.rows(history, columns, since=since, until=until)
    for name, kind in (("created", CREATED), ("completed", COMPLETED), ("failed", FAILED)):
        table = table.append_column(name, pc.equal(table["type"], kind).cast(pa.int64()))
    sums = ("created", "completed", "failed", "logical_bytes", "stored_bytes")
    aggregates = [
        ("type", "count"),
        ("commit", "count_distinct"),
        *((name, "sum") for name in sums),
    ]
    found = sample.bucketed(table, bucket_s, aggregates)
    numbers = {name: sample.count(found[f"{name}_sum"]) for name in sums}
    events = sample.count(found["type_count"])
    return pa.table(
        {
            "start": found["start"],
            "events": events,
            "commits": sample.count(found["commit_count_distinct"]),
            "events_per_s": pc.divide(events.cast(pa.float64()), float(bucket_s)),
            **numbers,
        }
    )


def step_latency(
    history: History,
    *,
    by: Group | None = "task",
    since: datetime | None = None,
    until: datetime | None = None,
) -> pa.Table:
    """How long does a step take, from the creation of its checkpoint to its completion?

    A checkpoint that is completed again after a restoration counts each time.

    Args:
        by: What to group by; None for one row over all.

    Returns:
        task (or what `by` says), steps, total_s, mean_s, p50_s, p95_s, p99_s, max_s; the slowest
        by p50_s first.
    """
    if by is not None and by not in _GROUPS:
        raise ArgumentError(f"by is {by!r}; it must be one of {', '.join(_GROUPS)}.", argument="by")
    columns = ["age_us"] if by is None else ["age_us", by]
    completed = sample.one_of("type", COMPLETED)
    table = sample.rows(history, columns, where=completed, since=since, until=until)
    return sample.durations(table, by, "age_us", "steps").sort_by([("p50_s", "descending")])


def failure_rate(
    history: History,
    *,
    bucket_s: float = HOUR_S,
    since: datetime | None = None,
    until: datetime | None = None,
) -> pa.Table:
    """What part of the checkpoints that ended, and of the captures, has failed, over time?

    Returns:
        start: Of the bucket. completed, failed: Numbers. rate: failed to both; null where none
        ended.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    ended = sample.one_of("type", COMPLETED, FAILED, CAPTURE_FAILED)
    table = sample.rows(history, ["time", "type", "facts"], where=ended, since=since, until=until)
    completed = pc.equal(table["type"], COMPLETED).cast(pa.int64())
    table = table.append_column("completed", completed).append_column("failed", _failed(table))
    found = sample.bucketed(table, bucket_s, [("completed", "sum"), ("failed", "sum")])
    completed, failed = (sample.count(found[f"{name}_sum"]) for name in ("completed", "failed"))
    return pa.table(
        {
            "start": found["start"],
            "completed": completed,
            "failed": failed,
            "rate": sample.ratio(failed, pc.add(completed, failed)),
        }
    )


def _failed(table: pa.Table) -> pa.ChunkedArray:
    """Return how many failures each row tells: a capture's one and those that it left out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    types, facts = table["type"], table["facts"].cast(pa.string())
    found = pc.struct_field(pc.extract_regex(facts, _SUPPRESSED), "count").cast(pa.int64())
    of_capture = pc.add(pc.fill_null(found, 0), 1)
    of_others = pc.equal(types, FAILED).cast(pa.int64())
    return pc.if_else(pc.equal(types, CAPTURE_FAILED), of_capture, of_others)


def failures(
    history: History,
    *,
    limit: int = 10,
    since: datetime | None = None,
    until: datetime | None = None,
) -> pa.Table:
    """What do checkpoints fail with?

    Returns:
        error_class (null where none was named), failures, share: Of all failures. tasks: That
        were met by it. last: Time of the last one. The most frequent first, `limit` rows at most.
    """
    failed = sample.one_of("type", FAILED)
    columns = ["time", "task", "error_class"]
    table = sample.rows(history, columns, where=failed, since=since, until=until)
    aggregates: list[tuple[str, str]] = [
        ("type", "count"),
        ("task", "count_distinct"),
        ("time", "max"),
    ]
    table = table.append_column("type", table["task"])
    found = table.group_by("error_class").aggregate(aggregates)
    names = {
        "error_class": "error_class",
        "failures": "type_count",
        "tasks": "task_count_distinct",
        "last": "time_max",
    }
    return _ranked(found, names, "failures", limit)


def time_in_state(
    history: History, *, since: datetime | None = None, until: datetime | None = None
) -> pa.Table:
    """How long do checkpoints stay in each state?

    Times that have ended, by a change of state or a deletion of the checkpoint. A deletion of
    the whole task ends states too, but no row says when each began: those are left out.

    Returns:
        state, times: Number of times that a checkpoint left it. total_s, mean_s, p50_s, p95_s,
        p99_s, max_s. now: Living checkpoints that are in it after the last row before `until`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = ["state_before", "state_us"]
    table = sample.rows(history, columns, since=since, until=until)
    ended = sample.durations(table, "state_before", "state_us", "times")
    ended = ended.rename_columns({"state_before": "state"})
    # What is there now may have come there at any time.
    columns = ["position", "type", "task", "origin", "state_after"]
    living = _living(sample.rows(history, columns, until=until))
    now = living.group_by("state_after").aggregate([([], "count_all")])
    now = now.rename_columns({"state_after": "state", "count_all": "now"})
    joined = ended.join(now, "state", join_type="full outer").sort_by("state")
    for name in ("times", "now"):
        index = joined.column_names.index(name)
        joined = joined.set_column(index, name, pc.fill_null(joined[name], 0).cast(pa.int64()))
    return joined


def _living(table: pa.Table) -> pa.Table:
    """Return the last row of each checkpoint that is there after the last of all rows."""
    import pyarrow.compute as pc

    ends = table.filter(pc.equal(table["type"], TASK_DELETED)).group_by("task")
    ends = ends.aggregate([("position", "max")]).rename_columns({"position_max": "ended"})
    of_checkpoints = table.filter(pc.is_valid(table["origin"]))
    last = of_checkpoints.group_by("origin").aggregate([("position", "max")])["position_max"]
    rows = table.filter(pc.is_in(table["position"], last.combine_chunks()))
    rows = rows.filter(pc.is_valid(rows["state_after"])).join(ends, "task")
    is_living = pc.fill_null(pc.greater(rows["origin"], rows["ended"]), True)
    return rows.filter(is_living)


def savings(
    history: History,
    *,
    bucket_s: float = HOUR_S,
    since: datetime | None = None,
    until: datetime | None = None,
) -> pa.Table:
    """How much smaller is what is stored than what was saved, over time?

    Returns:
        start: Of the bucket. saves: Events that saved something. logical_bytes: What whole copies
        would take. stored_bytes: What was added to the store. ratio: The first to the second.
        dedup_ratio, compression_ratio: The two parts of it, over the events whose raw sizes are
        known. ratio_so_far: From the first bucket on.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = ["time", "logical_bytes", "raw_bytes", "stored_bytes"]
    table = sample.rows(history, columns, since=since, until=until)
    table = table.append_column("saves", pc.greater(table["logical_bytes"], 0).cast(pa.int64()))
    for name in ("logical", "stored"):
        known = pc.if_else(pc.is_valid(table["raw_bytes"]), table[f"{name}_bytes"], None)
        table = table.append_column(f"known_{name}", known)
    parts = ("raw_bytes", "known_logical", "known_stored")
    names = ("logical_bytes", "stored_bytes", *parts, "saves")
    found = sample.bucketed(table, bucket_s, [(name, "sum") for name in names])
    sums = {name: sample.count(found[f"{name}_sum"]) for name in names}
    logical, stored, raw = (sums[name] for name in names[:3])
    so_far = [pc.cumulative_sum(column) for column in (logical, stored)]
    return pa.table(
        {
            "start": found["start"],
            "saves": sums["saves"],
            "logical_bytes": logical,
            "stored_bytes": stored,
            "ratio": sample.ratio(logical, stored),
            "dedup_ratio": sample.ratio(sums["known_logical"], raw),
            "compression_ratio": sample.ratio(raw, sums["known_stored"]),
            "ratio_so_far": sample.ratio(*so_far),
        }
    )


def top_tasks(
    history: History,
    *,
    limit: int = 10,
    since: datetime | None = None,
    until: datetime | None = None,
) -> pa.Table:
    """Which tasks fill the store?

    Returns:
        task, stored_bytes, share: Of all stored bytes. logical_bytes, ratio: logical to stored.
        checkpoints: Created. events: Numbers. last: Time of the last event. The largest first,
        `limit` rows at most.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = ["time", "type", "task", "logical_bytes", "stored_bytes"]
    table = sample.rows(history, columns, since=since, until=until)
    table = table.filter(pc.is_valid(table["task"]))
    table = table.append_column("created", pc.equal(table["type"], CREATED).cast(pa.int64()))
    sums = [(name, "sum") for name in ("stored_bytes", "logical_bytes", "created")]
    found = table.group_by("task").aggregate([*sums, ("type", "count"), ("time", "max")])
    found = found.append_column(
        "ratio", sample.ratio(found["logical_bytes_sum"], found["stored_bytes_sum"])
    )
    names = {
        "task": "task",
        "stored_bytes": "stored_bytes_sum",
        "logical_bytes": "logical_bytes_sum",
        "ratio": "ratio",
        "checkpoints": "created_sum",
        "events": "type_count",
        "last": "time_max",
    }
    return _ranked(found, names, "stored_bytes", limit)


def recovery_times(
    history: History, *, since: datetime | None = None, until: datetime | None = None
) -> pa.Table:
    """How long were tasks down before a checkpoint was restored, and when did they go on?

    Returns:
        position, time: Of the restoration. task, checkpoint, state_before. down_s: Since the
        task's last event before it. resumed_s: Until the task's next event; null where none came.
        In the order of the log.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = ["position", "time", "type", "task", "checkpoint", "state_before"]
    restored = sample.rows(
        history, columns, where=sample.one_of("type", RESTORED), since=since, until=until
    )
    # Neighbours may lie outside of the range.
    tasks = pc.unique(restored["task"]).to_pylist()
    table = sample.rows(history, columns, where=sample.one_of("task", *tasks))
    table = table.sort_by([("task", "ascending"), ("position", "ascending")]).combine_chunks()
    numbers = table["time"].cast(pa.int64())
    table = table.append_column("down_s", _since(table["task"], numbers, back=True))
    table = table.append_column("resumed_s", _since(table["task"], numbers, back=False))
    found = table.filter(pc.is_in(table["position"], restored["position"].combine_chunks()))
    return found.drop_columns("type").sort_by("position")


def _since(tasks: pa.ChunkedArray, times: pa.ChunkedArray, *, back: bool) -> pa.Array:
    """Return seconds to the neighbouring row, where it is of the same task; else null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    size = len(times)
    if size < 2:
        return pa.nulls(size, pa.float64())
    is_same = pc.equal(tasks.slice(0, size - 1), tasks.slice(1))
    gaps = sample.seconds(pc.subtract(times.slice(1), times.slice(0, size - 1)))
    gaps = pc.if_else(is_same, gaps, None)
    nothing = pa.chunked_array([pa.nulls(1, pa.float64())])
    parts = (nothing, gaps) if back else (gaps, nothing)
    return pa.chunked_array([chunk for part in parts for chunk in part.chunks])


def _ranked(found: pa.Table, names: dict[str, str], by: str, limit: int) -> pa.Table:
    """Return columns under their names, with the share of `by`, the largest first."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if type(limit) is not int or limit < 1:
        raise ArgumentError(f"limit is {limit!r}; it must be an int from 1.", argument="limit")
    columns: dict[str, Any] = {}
    for name, source in names.items():
        columns[name] = found[source]
        if name == by:
            columns["share"] = sample.ratio(found[source], pc.sum(found[source]))
    first = next(iter(names))
    return pa.table(columns).sort_by([(by, "descending"), (first, "ascending")]).slice(0, limit)
