"""What the questions have in common: rows in a range of times, buckets, exact quantiles.

Everything is Arrow's work on whole columns; nothing here visits rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, cast

from ckptlog.errors import ArgumentError
from ckptlog.model.checkpoint import as_utc

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

    History: TypeAlias = ds.Dataset | pa.Table

SECOND_US: Final = 1_000_000
# A hundred years.
_BUCKET_S_MAX: Final = 100 * 366 * 86_400.0
BUCKETS_MAX: Final = 1_000_000
_SHARES: Final = {"p50_s": 0.5, "p95_s": 0.95, "p99_s": 0.99, "max_s": 1.0}


def rows(
    history: History,
    columns: Sequence[str],
    *,
    where: Condition | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> pa.Table:
    """Return columns of the rows that match, in the order of the log where they hold `position`.

    Args:
        history: A dataset (`Store.history`), or a table of its rows.
        since, until: Times; the first is included, the second is not. Without a zone: UTC.

    Raises:
        ArgumentError: history is something else, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds

    if isinstance(history, pa.Table):
        history = ds.dataset(history)
    if not isinstance(history, ds.Dataset):
        raise ArgumentError(
            f"history is of type {type(history).__name__}; a dataset is needed.",
            hint="Use store.history().",
            argument="history",
        )
    looked_at = [*columns, *([where.name] if where else [])]
    looked_at += ["time", "date"] if since is not None or until is not None else []
    _check_columns(history, looked_at)
    conditions = [*([where.expression()] if where else []), *_range(since, until)]
    found = history.to_table(
        columns=list(columns), filter=reduce(and_, conditions) if conditions else None
    )
    return found.sort_by("position") if "position" in columns else found


def _check_columns(history: ds.Dataset, columns: Sequence[str]) -> None:
    """Refuse a table that is not of the history's rows: a column is missing, or of another type.

    Raises:
        ArgumentError: By name.
    """
    from ckptlog.views.history import column

    schema, wanted = history.schema, column.schema()
    missing = [name for name in columns if name not in schema.names]
    if missing:
        raise ArgumentError(
            f"history has no column {', '.join(map(repr, missing))}.",
            hint="Use store.history(), or rows of it with all their columns.",
            argument="history",
        )
    for name in columns:
        index = wanted.get_field_index(name)
        if index >= 0 and not _is_alike(schema.field(name).type, wanted.field(index).type):
            raise ArgumentError(
                f"The column {name!r} of history is of type {schema.field(name).type}; "
                f"{wanted.field(index).type} is needed.",
                hint="Use store.history(), or rows of it as they are.",
                argument="history",
            )


def _is_alike(kind: pa.DataType, wanted: pa.DataType) -> bool:
    """Say whether a column may stand for another: texts may come as dictionaries of them."""
    import pyarrow.types as kinds

    plain = kind.value_type if kinds.is_dictionary(kind) else kind
    is_text = kinds.is_string(plain) or kinds.is_large_string(plain) or kinds.is_string_view(plain)
    return bool(kind == wanted or (kinds.is_string(wanted) and is_text))


def _range(since: datetime | None, until: datetime | None) -> list[ds.Expression]:
    import pyarrow.dataset as ds

    # The day too: it is in the folders' names, and files of other days are not opened.
    time, day = ds.field("time"), ds.field("date")
    conditions = []
    if since is not None:
        conditions += [time >= _moment(since), day >= as_utc(since).date()]
    if until is not None:
        conditions += [time < _moment(until), day <= as_utc(until).date()]
    return conditions


def _moment(time: datetime) -> Any:
    import pyarrow as pa

    return pa.scalar(as_utc(time), pa.timestamp("us", "UTC"))


class Condition(NamedTuple):
    """That a column holds one of some values."""

    name: str
    values: tuple[str, ...]

    def expression(self) -> ds.Expression:
        """Return it as datasets take it."""
        import pyarrow as pa
        import pyarrow.dataset as ds

        return ds.field(self.name).isin(pa.array(self.values, pa.string()))


def one_of(name: str, *values: str) -> Condition:
    """Return the condition that a column holds one of some values."""
    return Condition(name, values)


# --- buckets --------------------------------------------------------------------------------


def bucketed(table: pa.Table, bucket_s: float, aggregates: Sequence[tuple[str, str]]) -> pa.Table:
    """Return aggregates of the rows of each stretch of time, from the first to the last of them.

    Args:
        table: With a column `time`; rows without a time are left out.
        bucket_s: Seconds of a bucket; they begin at multiples of it since 1970, UTC.
        aggregates: (column, function) as in `TableGroupBy.aggregate`.

    Returns:
        `start`, then the aggregates in their order. A bucket without rows has null in them.
    """
    numbered = in_buckets(table, bucket_s)
    return filled(numbered.group_by("bucket").aggregate(list(aggregates)), bucket_s)


def in_buckets(table: pa.Table, bucket_s: float) -> pa.Table:
    """Return the rows that have a time, with the number of the bucket of each in `bucket`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    width = _width_us(bucket_s)
    table = table.filter(pc.is_valid(table["time"]))
    return table.append_column("bucket", floor_divide(table["time"].cast(pa.int64()), width))


def filled(table: pa.Table, bucket_s: float) -> pa.Table:
    """Return `start` in the place of `bucket`, in order, with a row for each empty bucket too."""
    import pyarrow as pa
    import pyarrow.compute as pc

    every = pa.table({"bucket": _every(table["bucket"])})
    joined = every.join(table, "bucket").sort_by("bucket")
    start = pc.multiply(joined["bucket"], _width_us(bucket_s)).cast(pa.timestamp("us", "UTC"))
    return joined.drop_columns("bucket").add_column(0, "start", start)


def floor_divide(numbers: pa.ChunkedArray, by: int) -> pa.ChunkedArray:
    """Return whole parts, rounded down for negative numbers too (times before 1970)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    part = pc.divide(numbers, by)
    is_below = pc.less(numbers, pc.multiply(part, by))
    return pc.subtract(part, is_below.cast(pa.int64()))


def _width_us(bucket_s: float) -> int:
    check_number("bucket_s", bucket_s, most=_BUCKET_S_MAX)
    return max(1, round(bucket_s * SECOND_US))


def check_number(name: str, value: object, *, most: float) -> None:
    """Refuse what is not a number above 0.

    Raises:
        ArgumentError: By name.
    """
    if type(value) not in {int, float} or not 0 < cast("float", value) <= most:
        raise ArgumentError(
            f"{name} is {value!r}; it must be a number above 0, at most {most:g}.", argument=name
        )


def _every(buckets: pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not len(buckets):
        return pa.array([], pa.int64())
    first, last = pc.min(buckets).as_py(), pc.max(buckets).as_py()
    if last - first >= BUCKETS_MAX:
        raise ArgumentError(
            f"That would be {last - first + 1:,} buckets.",
            hint="Choose a larger bucket_s, or a shorter range (since, until).",
            argument="bucket_s",
        )
    return pa.array(range(first, last + 1), pa.int64())


# --- durations ------------------------------------------------------------------------------


def durations(table: pa.Table, key: str | None, value: str, name: str) -> pa.Table:
    """Return number, sum, mean and exact quantiles (nearest rank) of a column of microseconds.

    Args:
        table: Rows with null in `value` or the key are left out.
        key: The column to group by; None for one group.
        name: What the numbers count.

    Returns:
        The key (where there is one), `name`, total_s, mean_s, p50_s, p95_s, p99_s, max_s; a row
        for each group, in ascending order.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if key is None:
        key = "group"
        table = table.append_column(key, pa.nulls(table.num_rows, pa.string()).fill_null(""))
    table = table.select([key, value]).drop_null()
    ordered = table.sort_by([(key, "ascending"), (value, "ascending")]).combine_chunks()
    ends = _run_ends(ordered[key])
    starts = [0, *ends][: len(ends)]
    sums = table.group_by(key).aggregate([(value, "sum")]).sort_by(key)[f"{value}_sum"]
    numbers = pa.array([e - s for s, e in zip(starts, ends, strict=True)], pa.int64())
    found = {
        key: ordered[key].take(pa.array(starts, pa.int64())),
        name: numbers,
        "total_s": seconds(sums),
        "mean_s": pc.divide(seconds(sums), numbers),
    }
    for column, share in _SHARES.items():
        ranks = [s + math.ceil(share * (e - s)) - 1 for s, e in zip(starts, ends, strict=True)]
        found[column] = seconds(ordered[value].take(pa.array(ranks, pa.int64())))
    whole = pa.table(found)
    return whole.drop_columns("group") if key == "group" else whole


def _run_ends(keys: pa.ChunkedArray) -> list[int]:
    import pyarrow.compute as pc

    if not len(keys):
        return []
    ends: list[int] = pc.run_end_encode(keys.combine_chunks()).run_ends.to_pylist()
    return ends


# --- small arithmetic -----------------------------------------------------------------------


def seconds(microseconds: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return microseconds as seconds."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.divide(microseconds.cast(pa.float64()), float(SECOND_US))


def ratio(whole: pa.Array, part: pa.Array) -> pa.Array:
    """Return whole to part; null where part is 0 or either is null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    real = part.cast(pa.float64())
    return pc.divide(whole.cast(pa.float64()), pc.if_else(pc.equal(real, 0), None, real))


def count(values: pa.Array) -> pa.Array:
    """Return sums or counts with 0 in place of null: nothing happened there."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.fill_null(values, 0).cast(pa.int64())
