"""MetricsCollector: how a store's saves, failures and sizes have gone, as the specification asks.

It reads the history that notebooks read (`Store.history`), so what it says of the past is the
same whenever and wherever it is asked, and needs nobody to have collected anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ckptlog.errors import (
    ArgumentError,
    CheckpointError,
    DeniedError,
    ReadOnlyError,
    StoreMissingError,
    UnsupportedError,
)
from ckptlog.model import html
from ckptlog.model.capture import METADATA_KEY, is_capture
from ckptlog.model.checkpoint import as_utc, time_text, utc_now
from ckptlog.model.event import COMPLETED
from ckptlog.monitor import question, sample
from ckptlog.monitor.face import service_of
from ckptlog.repository.discovery import find_store
from ckptlog.repository.opening import directory_of, open_store
from ckptlog.repository.store import Store

if TYPE_CHECKING:
    from pyarrow import Table

    from ckptlog.manager.manager import CheckpointManager
    from ckptlog.monitor.sample import History

_POINTS: Final = 24
_HOURS_MAX: Final = 24 * 366 * 100
_SECONDS_MAX: Final = 86_400.0 * 366


class TrendPoint(msgspec.Struct, frozen=True):
    """One stretch of time.

    start: UTC. value: None where nothing happened that could be measured. count: What it is
    made of: completions, ends, saves.
    """

    start: datetime
    value: float | None
    count: int


class PerformanceTrends(msgspec.Struct, frozen=True):
    """How things went over the last hours; points from the first event to the last.

    hours: That were asked for. bucket_s: Seconds of each point.
    save_time_trend: Median seconds of a save: of a capture what it took, of another checkpoint
        those from its creation to its completion.
    success_rate_over_time: Completed to completed and failed, captures that failed among them.
    compression_ratio_trend: What whole copies would take to what was stored for it.
    """

    hours: float
    bucket_s: float
    save_time_trend: list[TrendPoint]
    success_rate_over_time: list[TrendPoint]
    compression_ratio_trend: list[TrendPoint]

    def to_dict(self) -> dict[str, Any]:
        """Return everything, safe for JSON."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        return fields

    def _repr_html_(self) -> str:
        """Show it in a notebook."""
        names = ("save_time_trend", "success_rate_over_time", "compression_ratio_trend")
        parts = []
        for name in names:
            points: list[TrendPoint] = getattr(self, name)
            rows = (
                (time_text(point.start)[:19], _rounded(point.value), point.count)
                for point in points
            )
            parts.append(html.table(("start", name, "count"), rows, total=len(points)))
        return html.card("Performance trends", {"hours": self.hours}, *parts)


class MetricsCollector:
    """Answers questions about one store's past.

    Args:
        store: A store, a manager, an open service, or the path of a store. By default the one that
            the command line would take: $CKPTLOG_STORE, or the nearest from the working directory
            upwards.

    Threads: safe.
    """

    def __init__(
        self, store: Store | CheckpointManager | str | os.PathLike[str] | None = None
    ) -> None:
        face = service_of(store)
        inner = getattr(face, "store", face)
        if not isinstance(inner, Store | str | os.PathLike | None):
            raise ArgumentError(
                f"store is of type {type(store).__name__}.",
                hint="Give a store, a manager, or the path of a store.",
                argument="store",
            )
        is_path = isinstance(inner, str | os.PathLike)
        self._store = directory_of(inner) if is_path else inner

    def get_performance_trends(
        self, hours: float = 24, *, bucket_s: float | None = None, now: datetime | None = None
    ) -> PerformanceTrends:
        """Return the trends of the last hours.

        Args:
            hours: Above 0.
            bucket_s: Seconds of a point; by default a 24th of the whole.
            now: The end of the range; by default the present.

        Raises:
            ArgumentError: hours or bucket_s is out of range.
            StoreMissingError: No store was given, and none was found.
        """
        sample.check_number("hours", hours, most=_HOURS_MAX)
        width_s = hours * 3600 / _POINTS if bucket_s is None else bucket_s
        until = utc_now() if now is None else as_utc(now)
        since = until - timedelta(hours=hours)
        with self._opened() as store:
            history = store.history()
            return PerformanceTrends(
                hours=hours,
                bucket_s=width_s,
                save_time_trend=_save_times(store, history, width_s, since, until),
                success_rate_over_time=_success_rates(history, width_s, since, until),
                compression_ratio_trend=_ratios(history, width_s, since, until),
            )

    @contextmanager
    def _opened(self) -> Iterator[Store]:
        if isinstance(self._store, Store):
            yield self._store
            return
        path = self._store
        if path is None:
            path = _nearest()
        try:
            store = open_store(path)
        except (ReadOnlyError, DeniedError, UnsupportedError):
            store = open_store(path, read_only=True)
        with store:
            yield store


def _nearest() -> Path:
    try:
        return find_store(None, os.environ, Path.cwd()).path
    except StoreMissingError as error:
        raise StoreMissingError(
            error.message,
            hint="Name one: MetricsCollector(PATH), or give an open store, manager or service; or "
            "set $CKPTLOG_STORE.",
            **error.context,
        ) from None


def _save_times(
    store: Store, history: History, bucket_s: float, since: datetime, until: datetime
) -> list[TrendPoint]:
    completed = sample.one_of("type", COMPLETED)
    columns = ["position", "time", "task", "age_us"]
    rows = sample.rows(history, columns, where=completed, since=since, until=until)
    numbered = sample.in_buckets(_with_captures(store, rows), bucket_s)
    found = sample.filled(sample.durations(numbered, "bucket", "age_us", "saves"), bucket_s)
    return _points(found["start"], found["p50_s"], sample.count(found["saves"]))


def _with_captures(store: Store, rows: Table) -> Table:
    """Return completions with what captures took as their age, null where that is not known.

    A capture is created and completed in one commit: by its age it took no time.

    Cost: the metadata of each capture; of other tasks that of one checkpoint.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    at_once = rows.filter(pc.equal(rows["age_us"], 0))
    are_captures: dict[str, bool] = {}  # by task, as its first one shows
    ages: dict[int, int | None] = {}
    pairs = zip(at_once["task"].to_pylist(), at_once["position"].to_pylist(), strict=True)
    for task, position in pairs:
        if are_captures.get(task, True):
            metadata = _metadata_at(store, position)
            if metadata is not None:
                are_captures.setdefault(task, is_capture(metadata))
            if are_captures.get(task):
                ages[position] = _took_us(metadata or {})
    if not ages:
        return rows
    told = zip(rows["position"].to_pylist(), rows["age_us"].to_pylist(), strict=True)
    column = pa.array([ages.get(position, age) for position, age in told], pa.int64())
    return rows.set_column(rows.column_names.index("age_us"), "age_us", column)


def _metadata_at(store: Store, position: int) -> dict[str, Any] | None:
    """Return the metadata of an event's checkpoint; None where they are erased or damaged."""
    try:
        entry = store.event_at(position)
        about = None if entry is None else store.value(entry.event.meta)
    except CheckpointError:
        return None
    found = about.get("metadata", {}) if isinstance(about, dict) else None
    return found if isinstance(found, dict) else None


def _took_us(metadata: dict[str, Any]) -> int | None:
    told = metadata.get(METADATA_KEY)
    seconds = told.get("seconds") if isinstance(told, dict) else None
    if isinstance(seconds, int | float) and 0 <= seconds <= _SECONDS_MAX:
        return round(seconds * 1_000_000)
    return None


def _success_rates(
    history: History, bucket_s: float, since: datetime, until: datetime
) -> list[TrendPoint]:
    found = question.failure_rate(history, bucket_s=bucket_s, since=since, until=until)
    points = zip(*(found[name].to_pylist() for name in found.column_names), strict=True)
    return [
        TrendPoint(start, None if rate is None else 1 - rate, completed + failed)
        for start, completed, failed, rate in points
    ]


def _ratios(
    history: History, bucket_s: float, since: datetime, until: datetime
) -> list[TrendPoint]:
    found = question.savings(history, bucket_s=bucket_s, since=since, until=until)
    return _points(found["start"], found["ratio"], found["saves"])


def _points(*columns: Any) -> list[TrendPoint]:
    return [TrendPoint(*row) for row in zip(*(one.to_pylist() for one in columns), strict=True)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
