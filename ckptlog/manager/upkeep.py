"""Upkeep of a manager's store: clean-up, compaction, figures.

A clean-up deletes; a compaction gives the room back that the deleted ones took.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypedDict, Unpack

import msgspec

from ckptlog.errors import (
    ArgumentError,
    CheckpointCorruptionError,
    CheckpointNotFoundError,
    ConflictError,
)
from ckptlog.manager.fact import is_pinned
from ckptlog.manager.quota import Quota
from ckptlog.model.checkpoint import time_text
from ckptlog.model.event import CLEANED
from ckptlog.model.quotation import quoted
from ckptlog.model.state import CheckpointState
from ckptlog.policy.command import Delete, Record
from ckptlog.policy.decide import Stale
from ckptlog.policy.retention import Policy, Rule
from ckptlog.repository.collection import CollectOptions, spare_bytes
from ckptlog.repository.intent import Intent, Results, Step
from ckptlog.repository.report import Progress
from ckptlog.repository.statistics import ask, measure, statistics
from ckptlog.repository.store import Store
from ckptlog.storage.removal import Removal
from ckptlog.views.query import Filter
from ckptlog.views.row import Row

if TYPE_CHECKING:
    from ckptlog.manager.manager import CheckpointManager

__all__ = ["Quota", "clean_up", "compact", "metrics", "summary"]

# Bounds how long one commit of deletes keeps others waiting.
_DELETES_MAX: Final = 200
_PAGE_ROWS: Final = 1000
_AGE_DAYS_MAX: Final = 365_000
_ENDED: Final = (CheckpointState.COMPLETED.value, CheckpointState.FAILED.value)
# A view made anew takes less than this; what is larger holds mostly free pages.
_VIEW_BYTES_MIN: Final = 1024 * 1024
_ROW_BYTES, _EVENT_BYTES, _CHUNK_BYTES = 4096, 256, 128


# --- clean-up -------------------------------------------------------------------------------------


def clean_up(
    manager: CheckpointManager,
    max_age_days: float,
    *,
    dry_run: bool = False,
    is_stopping: Callable[[], bool] = lambda: False,
) -> int:
    """Delete completed and failed checkpoints that were not updated for max_age_days.

    What is pinned, or changes meanwhile, is spared. Each delete names the clean-up as its cause;
    an event `cleanup.finished` ends it, unless there was nothing to delete. On a full disk the
    store's reserve is used.

    Args:
        max_age_days: 0 or more; 0 takes whatever has ended by now.
        dry_run: Delete nothing, only count.
        is_stopping: Asked between commits; True ends the clean-up early.

    Returns:
        How many were deleted, or would be.

    Raises:
        ArgumentError: max_age_days is not a number from 0 on.
        ReadOnlyError, CheckpointStorageError: What was deleted before stays deleted.
    """
    store = manager.store
    wanted = Filter(states=_ENDED, updated_before=_limit(store, max_age_days))
    if dry_run:
        return sum(len(_loose(store, rows)) for rows in _pages(store, wanted, _PAGE_ROWS))
    cause = manager.new_command_id()
    deleted = spared = 0
    for rows in _pages(store, wanted, _DELETES_MAX):
        if is_stopping():
            break
        gone, kept = _delete(manager, _loose(store, rows), cause)
        deleted, spared = deleted + gone, spared + kept
    if deleted:
        facts: dict[str, int | str] = {
            "deleted": deleted,
            "max_age_days": int(max_age_days)
            if max_age_days == int(max_age_days)
            else str(max_age_days),
            "spared": spared,
        }
        _submit(store, [Record(actor=manager.actor, command=cause, type=CLEANED, facts=facts)])
    return deleted


def age_policy(store: Store, max_age_days: float) -> Policy:
    """Return the policy that says what `clean_up` does.

    Raises:
        ArgumentError: As `clean_up`.
    """
    _limit(store, max_age_days)
    going = tuple(state.value for state in CheckpointState if state.value not in _ENDED)
    rule = Rule(keep_days=max_age_days, keep_states=going)
    return Policy(rules=(rule,), keep_recovery_points=False)


def _loose(store: Store, rows: list[Row]) -> list[Row]:
    """Return the rows of what is not pinned."""
    return [row for row in rows if not is_pinned(store, row)]


def _limit(store: Store, max_age_days: float) -> str:
    is_number = type(max_age_days) in (int, float)
    if not is_number or not 0 <= max_age_days <= _AGE_DAYS_MAX:  # NaN is in no range
        raise ArgumentError(
            f"max_age_days is {quoted(max_age_days)}; "
            f"a number from 0 to {_AGE_DAYS_MAX} is needed.",
            argument="max_age_days",
        )
    now = datetime.fromtimestamp(store.environment.now_us() / 1e6, UTC)
    earliest = datetime(1970, 1, 1, tzinfo=UTC)
    age = timedelta(days=max_age_days)
    return time_text(now - age if now - earliest > age else earliest)


def _delete(manager: CheckpointManager, rows: list[Row], cause: str) -> tuple[int, int]:
    """Delete rows in one commit, or each by itself where one has changed; (deleted, spared)."""
    if not rows:
        return 0, 0
    deletes = [
        Delete(
            actor=manager.actor,
            command=manager.new_command_id(),
            cause=cause,
            checkpoint=row.id,
            expected=row.position,
        )
        for row in rows
    ]
    try:
        return sum(map(bool, _submit(manager.store, deletes))), 0
    except (ConflictError, CheckpointNotFoundError):
        if len(deletes) == 1:
            return 0, 1
    one_by_one = [_delete(manager, [row], cause) for row in rows]
    return sum(gone for gone, _ in one_by_one), sum(kept for _, kept in one_by_one)


def _submit(store: Store, commands: list[Delete] | list[Record]) -> Results:
    steps = tuple(Step(command) for command in commands)
    outcome = store.submit_with_reserve(Intent(steps))
    return () if isinstance(outcome, Stale) else outcome


def _pages(store: Store, wanted: Filter, size: int) -> Iterator[list[Row]]:
    after = None
    while rows := store.select(wanted, after=after, limit=size):
        yield rows
        after = rows[-1].origin


# --- compaction -----------------------------------------------------------------------------------


class CompactOptions(TypedDict, total=False):
    """What `compact` takes; `CollectOptions` says what each means."""

    drop_superseded: bool
    garbage_min: float
    seal_bytes_min: int
    dry_run: bool
    upgrade: bool


def compact(
    manager: CheckpointManager,
    progress: Progress | None = None,
    **options: Unpack[CompactOptions],
) -> dict[str, Any]:
    """Give back the room of deleted checkpoints; compress what of the log is finished.

    The view takes in what it has not yet, and is made anew where it is mostly free pages; the
    chunk index is written and its parts merged. Files that a crash or a recovery left are counted,
    not removed.

    Args:
        progress: Called now and then with bytes gone through and bytes in all.
        options: Those of `repository.collection.CollectOptions`.

    Returns:
        bytes_before, bytes_after, bytes_freed: Of the store's directory, without the room that the
            log makes ahead. spare_bytes: That room afterwards: `statistics` counts it, too.
        view: "kept" or "rebuilt". chunks: Entries of the index.
        torn_files, temporary_files: Files that do not count.
        collection: What `Store.compact` says, as a dictionary.
        statistics: As `Store.stats`.

    Raises:
        CollectionBusyError: Another process collects this store.
        CheckpointCorruptionError: Something that must be kept is damaged.
        ReadOnlyError, UnsupportedError, CheckpointStorageError: It cannot be written, by kind.
    """
    store = manager.store
    before, spare_before = measure(store.path), spare_bytes(store)
    # Views and figures are seen to while the room of what was removed comes back.
    with Removal() as removal:
        asked = CollectOptions(**options, actor=manager.actor)
        collected = store.compact(asked, progress, removal)
        is_rebuilt = not collected.is_dry_run and _has_loose_view(store)
        if is_rebuilt:
            store.rebuild_views()
        store.index.flush(force=True)
        after, spare_after = measure(store.path), spare_bytes(store)
        return {
            "bytes_before": before.total - spare_before,
            "bytes_after": after.total - spare_after,
            "bytes_freed": (before.total - spare_before) - (after.total - spare_after),
            "spare_bytes": spare_after,
            "view": "rebuilt" if is_rebuilt else "kept",
            "chunks": store.index.entries,
            "torn_files": after.torn_files,
            "temporary_files": after.temporary_files,
            "collection": collected.to_dict(),
            "statistics": statistics(store),
        }


def _has_loose_view(store: Store) -> bool:
    """Say whether views hold mostly what is no more, the chunk index among them.

    The history and the files of checkpoints hold no free pages: a rebuild would free nothing.
    """
    totals = ask(store, lambda view: view.totals())
    fresh_bytes = (
        _VIEW_BYTES_MIN
        + _ROW_BYTES * totals.checkpoints
        + _EVENT_BYTES * totals.events
        + _CHUNK_BYTES * store.index.entries
    )
    return measure(store.path).folded > fresh_bytes


# --- figures --------------------------------------------------------------------------------------


def summary(manager: CheckpointManager) -> dict[str, Any]:
    """Return the state of the whole in a few figures, safe for JSON.

    store, store_id: Path and id. total_checkpoints, total_tasks, total_events: Numbers; living
    checkpoints and tasks that have any. by_state: Living checkpoints in each state.
    logical_bytes, stored_bytes, total_bytes, dedup_ratio: As `Store.stats`.
    limit_bytes, used_percent: The configured limit of the store, and how much of it is used.
    last_event_at: UTC, ISO 8601; None in an empty store, or where the log is damaged.
    """
    return _summary(manager, statistics(manager.store))


def _summary(manager: CheckpointManager, figures: dict[str, Any]) -> dict[str, Any]:
    store = manager.store
    limit_bytes = manager.config.storage_size_bytes_max
    used_bytes = figures["total_bytes"] - figures["reserve_bytes"]
    return {
        "store": figures["path"],
        "store_id": figures["id"],
        "total_checkpoints": figures["checkpoints"],
        "total_tasks": figures["tasks"],
        "total_events": figures["events"],
        "by_state": figures["states"],
        "logical_bytes": figures["logical_bytes"],
        "stored_bytes": figures["stored_bytes"],
        "total_bytes": figures["total_bytes"],
        "dedup_ratio": figures["dedup_ratio"],
        "limit_bytes": limit_bytes,
        "used_percent": round(100 * used_bytes / limit_bytes, 3),
        "last_event_at": _last_event_at(store, figures["events"]),
    }


def _last_event_at(store: Store, events: int) -> str | None:
    try:
        last = store.event_at(events - 1) if events else None
    except CheckpointCorruptionError:  # verify tells; the other figures are right
        return None
    return last.event.time if last else None


def metrics(manager: CheckpointManager) -> dict[str, Any]:
    """Return detailed figures, safe for JSON: those of `summary` and more.

    workers, namespaces: How many different ones living checkpoints have (none given: not counted).
    steps: checkpoints_with_total; progress_percent_mean of those, step by total, each at most 100.
    payload: data_bytes_mean, data_bytes_max, meta_bytes_mean, before compression, of the present
        states; new_bytes_per_event, as stored.
    ages: oldest_created_at, newest_created_at, oldest_updated_at, newest_updated_at (UTC, ISO
        8601), and oldest_age_s, seconds since oldest_updated_at.
    storage: The sizes and ratios of `Store.stats`.
    counters: sanitised (secrets replaced), recoveries (what recoveries told since the opening),
        index_problems, cached_bytes.

    Cost: reads every row of the view; 100,000 take about a second.
    """
    store = manager.store
    figures = statistics(store)
    tally = _Tally()
    for rows in _pages(store, Filter(), _PAGE_ROWS):
        for row in rows:
            tally.add(row)
    storage = {
        name: value
        for name, value in figures.items()
        if name.endswith(("_bytes", "_ratio")) and name != "cached_bytes"
    }
    return {
        **_summary(manager, figures),
        **tally.figures(store.environment.now_us()),
        "new_bytes_per_event": _mean(figures["new_bytes"], figures["events"]),
        "storage": storage,
        "counters": {
            "sanitised": figures["sanitised"],
            "recoveries": len(store.log.notes),
            "index_problems": len(store.index.problems),
            "cached_bytes": figures["cached_bytes"],
        },
    }


class _Tally(msgspec.Struct):
    """Sums over living checkpoints."""

    count: int = 0
    with_total: int = 0
    progress: float = 0.0
    data_bytes: int = 0
    data_bytes_max: int = 0
    meta_bytes: int = 0
    workers: set[str] = set()
    namespaces: set[str] = set()
    created: tuple[str, str] | None = None
    updated: tuple[str, str] | None = None

    def add(self, row: Row) -> None:
        """Take in one checkpoint."""
        self.count += 1
        if row.total:
            self.with_total += 1
            self.progress += min(100.0, 100.0 * row.step / row.total)
        self.data_bytes += row.data_size
        self.data_bytes_max = max(self.data_bytes_max, row.data_size)
        self.meta_bytes += row.meta_size
        self.workers.update([row.worker] if row.worker else ())
        self.namespaces.update([row.namespace] if row.namespace else ())
        self.created = _widened(self.created, row.created)
        self.updated = _widened(self.updated, row.updated)

    def figures(self, now_us: int) -> dict[str, Any]:
        """Return what was tallied, under the names that `metrics` documents."""
        created, updated = self.created or (None, None), self.updated or (None, None)
        age_s = None
        if updated[0] is not None:
            age_s = round(now_us / 1e6 - datetime.fromisoformat(updated[0]).timestamp(), 3)
        return {
            "workers": len(self.workers),
            "namespaces": len(self.namespaces),
            "steps": {
                "checkpoints_with_total": self.with_total,
                "progress_percent_mean": _mean(self.progress, self.with_total),
            },
            "payload": {
                "data_bytes_mean": _mean(self.data_bytes, self.count),
                "data_bytes_max": self.data_bytes_max,
                "meta_bytes_mean": _mean(self.meta_bytes, self.count),
            },
            "ages": {
                "oldest_created_at": created[0],
                "newest_created_at": created[1],
                "oldest_updated_at": updated[0],
                "newest_updated_at": updated[1],
                "oldest_age_s": age_s,
            },
        }


def _widened(span: tuple[str, str] | None, time: str) -> tuple[str, str]:
    return (min(span[0], time), max(span[1], time)) if span else (time, time)


def _mean(total: float, count: int) -> float | None:
    return round(total / count, 3) if count else None
