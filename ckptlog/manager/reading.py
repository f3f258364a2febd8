"""Everything that only reads: lookups, lists, history, differences, recovery points."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from ckptlog.blobs.tree_reader import Stored
from ckptlog.errors import (
    ArgumentError,
    CheckpointCorruptionError,
    CheckpointError,
    CheckpointNotFoundError,
    MissingBlobError,
    NoSuchPartError,
)
from ckptlog.model import value as values
from ckptlog.model.callback import refuse_deferred
from ckptlog.model.checkpoint import CheckpointData, time_text
from ckptlog.model.difference import Difference, differences
from ckptlog.model.entry import Entry
from ckptlog.model.event import DELETED, TASK_DELETED, Reference
from ckptlog.model.identifier import CHECKPOINT_ID_CHARACTERS_MAX, check_id
from ckptlog.model.position import check_position
from ckptlog.model.quotation import quoted
from ckptlog.model.state import CheckpointState, state_of
from ckptlog.policy.recovery_point import Candidate, choose
from ckptlog.repository.snapshot import snapshot
from ckptlog.repository.store import Store
from ckptlog.repository.trail import events_of
from ckptlog.views.entry import entry_of
from ckptlog.views.query import Filter
from ckptlog.views.row import Row

_PAGE_ROWS = 200
_ENDS = (DELETED, TASK_DELETED)

Records = dict[bytes, bytes]
OnDamage = Callable[[str, CheckpointError], object]


@dataclass(frozen=True)
class HistoryEntry:
    """One event of a checkpoint's life.

    position: In the log. time: UTC. data_bytes: Size of the data after it, before compression.
    new_bytes: What it added to the store.
    """

    position: int
    time: datetime
    type: str
    actor: str
    state: str
    step_number: int
    data_bytes: int
    new_bytes: int
    load: Callable[[], CheckpointData | None] = field(repr=False, compare=False)

    @property
    def checkpoint(self) -> CheckpointData | None:
        """The checkpoint as of then, read when it is asked for, a new object each time.

        None for its deletion (`checkpoint.deleted`), and for that of its task (`task.deleted`).

        Raises:
            CheckpointCorruptionError: The bytes of that time are damaged.
        """
        return self.load()


class CheckpointReader:
    """Reads one store's checkpoints.

    Values that are returned belong to the caller: changing them changes nothing stored or cached.

    Threads: safe.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    # --- one checkpoint -----------------------------------------------------------------------

    def get_checkpoint(self, checkpoint_id: str) -> CheckpointData | None:
        """Return a checkpoint, or None where there is none or it was deleted.

        Raises:
            ArgumentError: checkpoint_id cannot be an id.
            CheckpointCorruptionError: Its stored bytes are damaged.
        """
        check_id("checkpoint_id", checkpoint_id, CHECKPOINT_ID_CHARACTERS_MAX)
        found = self.store.read(checkpoint_id)
        return None if found is None else snapshot(self.store, *found)

    def get_part(self, checkpoint_id: str, *path: str | int) -> Any:
        """Return a part of a checkpoint's data: `get_part(id, "messages", -1)`.

        Only the chunks are read that lead to the part and that hold it.

        Args:
            path: Keys of dicts; indices of lists and tuples, from the end where negative.

        Raises:
            CheckpointNotFoundError: There is no such checkpoint, or it was deleted.
            NoSuchPartError: Its data has nothing there.
            CheckpointCorruptionError: The stored bytes are damaged.
        """
        check_id("checkpoint_id", checkpoint_id, CHECKPOINT_ID_CHARACTERS_MAX)
        for step in path:
            if type(step) not in {str, int}:
                raise ArgumentError(
                    f"{quoted(step)} is no step of a path; a key or an index is needed.",
                    argument="path",
                )
        data = self._data_of(checkpoint_id)
        return values.decode(self.store.blobs.part(data, path), self.store.codecs)

    def stored(self, checkpoint_id: str) -> Stored:
        """Return a checkpoint's data to be read by parts, of any size; nothing is read yet.

            for path, entry in manager.stored(id).get("files").items(): ...

        Raises:
            CheckpointNotFoundError: There is no such checkpoint, or it was deleted.
            NoSuchPartError: It has no data.
        """
        return self.store.stored(self._data_of(checkpoint_id))

    def _data_of(self, checkpoint_id: str) -> Reference:
        check_id("checkpoint_id", checkpoint_id, CHECKPOINT_ID_CHARACTERS_MAX)
        found = self.store.read(checkpoint_id)
        if found is None:
            raise not_found(checkpoint_id)
        data = found[0].event.data
        if data is None:
            raise NoSuchPartError(f"{checkpoint_id!r} has no data.", checkpoint_id=checkpoint_id)
        return data

    def get_latest_checkpoint(self, task_id: str) -> CheckpointData | None:
        """Return the task's checkpoint that was created last, or None."""
        check_id("task_id", task_id)
        found = self.store.read_latest(task_id)
        return None if found is None else snapshot(self.store, *found)

    def get_checkpoint_at(self, checkpoint_id: str, position: int) -> CheckpointData | None:
        """Return a checkpoint as it was just after the event at `position`; None before it began.

        Deleted checkpoints have a past too, as long as their bytes are kept.
        """
        check_position("position", position)
        for entry in self._events_of(checkpoint_id):
            if entry.position <= position:
                return None if entry.event.type in _ENDS else snapshot(self.store, entry)
        return None

    def history(self, checkpoint_id: str) -> list[HistoryEntry]:
        """Return every event of a checkpoint, oldest first, with its state as of then."""
        entries = list(self._events_of(checkpoint_id))
        return [self._history_entry(entry) for entry in reversed(entries)]

    def _history_entry(self, entry: Entry) -> HistoryEntry:
        event = entry.event
        return HistoryEntry(
            position=entry.position,
            time=datetime.fromisoformat(event.time),
            type=event.type,
            actor=event.actor,
            state=event.state,
            step_number=event.step,
            data_bytes=event.data.size if event.data else 0,
            new_bytes=event.new,
            load=lambda: None if event.type in _ENDS else snapshot(self.store, entry),
        )

    def _events_of(self, checkpoint_id: str) -> Iterator[Entry]:
        check_id("checkpoint_id", checkpoint_id, CHECKPOINT_ID_CHARACTERS_MAX)
        return events_of(self.store, checkpoint_id)

    def diff(self, before_id: str, after_id: str) -> list[Difference]:
        """Return what differs between the data and metadata of two checkpoints, path by path.

        Raises:
            CheckpointNotFoundError: One of them is not there.
        """
        return differences(
            comparable(self._require(before_id)),
            comparable(self._require(after_id)),
            codecs=self.store.codecs,
        )

    def _require(self, checkpoint_id: str) -> CheckpointData:
        checkpoint = self.get_checkpoint(checkpoint_id)
        if checkpoint is None:
            raise not_found(checkpoint_id)
        return checkpoint

    # --- many ---------------------------------------------------------------------------------

    def get_task_checkpoints(self, task_id: str) -> list[CheckpointData]:
        """Return all checkpoints of a task, in the order of creation."""
        return list(self.iterate(task_id=check_id("task_id", task_id)))

    def get_checkpoints_by_state(
        self, state: CheckpointState, *, after: str | None = None, limit: int | None = None
    ) -> list[CheckpointData]:
        """Return all checkpoints in a state, in the order of creation.

        Args:
            after: Id of the last checkpoint of the page before; None for the first page.
            limit: Most checkpoints to return; None for all.
        """
        return list(self.iterate(state=state_of(state).value, after=after, limit=limit))

    def get_checkpoints_by_worker(
        self, worker_id: str, *, after: str | None = None, limit: int | None = None
    ) -> list[CheckpointData]:
        """Return all checkpoints of a worker, in the order of creation; paging as by state."""
        worker_id = check_id("worker_id", worker_id)
        return list(self.iterate(worker_id=worker_id, after=after, limit=limit))

    def get_children(self, checkpoint_id: str) -> list[CheckpointData]:
        """Return the checkpoints whose parent is checkpoint_id, in the order of creation."""
        check_id("checkpoint_id", checkpoint_id, CHECKPOINT_ID_CHARACTERS_MAX)
        return list(self.iterate(parent_checkpoint_id=checkpoint_id))

    def iterate(
        self,
        *,
        task_id: str | None = None,
        state: CheckpointState | str | None = None,
        worker_id: str | None = None,
        namespace: str | None = None,
        parent_checkpoint_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        after: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
        on_damage: OnDamage | None = None,
    ) -> Iterator[CheckpointData]:
        """Yield the living checkpoints that match every filter given, in the order of creation.

        No lock is held between two of them; one that is deleted meanwhile is left out.

        Args:
            since, until: Bounds on the creation time, since <= created_at < until; aware.
            namespace, worker_id, parent_checkpoint_id: "" means: those that have none.
            metadata: Names at the top of the metadata, and what they must equal; an index serves
                texts and numbers.
            after: Id of a checkpoint; only those beyond it in the order of the iteration.
            limit: Most to yield; None for all.
            on_damage: Called with the id of each checkpoint whose bytes are damaged or lost, and
                the error; the iteration goes on without it.

        Raises:
            ArgumentError: At once, not with the first checkpoint.
            CheckpointCorruptionError, MissingBlobError: The bytes of the next one are damaged or
                lost, and there is no on_damage; this ends the iteration.
        """
        wanted = Filter(
            task=None if task_id is None else check_id("task_id", task_id),
            state=None if state is None else state_of(state).value,
            worker=_checked("worker_id", worker_id),
            namespace=_checked("namespace", namespace),
            parent=_checked("parent_checkpoint_id", parent_checkpoint_id),
            created_since=_iso("since", since),
            created_until=_iso("until", until),
            entries=_entries(metadata),
        )
        if type(newest_first) is not bool:
            raise ArgumentError(
                f"newest_first is {quoted(newest_first)}; True or False is needed.",
                argument="newest_first",
            )
        check_iteration(limit, on_damage)
        start = None if after is None else self._origin_of(after)
        # How many rows are needed is not known where some of them are left out.
        rows_max = None if metadata or on_damage is not None else limit
        rows = self._rows(wanted, start, rows_max, newest_first=newest_first)
        found = self._found(rows, on_damage)
        stop = None if limit is None else min(limit, sys.maxsize)
        return islice((one for one in found if _has(one.metadata, metadata or {})), stop)

    def _found(self, rows: Iterator[Row], on_damage: OnDamage | None) -> Iterator[CheckpointData]:
        for row in rows:
            try:
                found = self.store.read_row(row)
                checkpoint = None if found is None else snapshot(self.store, *found)
            except (CheckpointCorruptionError, MissingBlobError) as error:
                if on_damage is None:
                    raise
                on_damage(row.id, error)
                continue
            if checkpoint is not None:
                yield checkpoint

    def _rows(
        self, wanted: Filter, after: int | None, limit: int | None, *, newest_first: bool
    ) -> Iterator[Row]:
        left = limit
        while left is None or left > 0:
            size = _PAGE_ROWS if left is None else min(_PAGE_ROWS, left)
            rows = self.store.select(wanted, after=after, limit=size, newest_first=newest_first)
            yield from rows
            if len(rows) < size:
                return
            after = rows[-1].origin
            left = None if left is None else left - len(rows)

    def _origin_of(self, checkpoint_id: str) -> int:
        check_id("after", checkpoint_id, CHECKPOINT_ID_CHARACTERS_MAX)
        entry = self.store.newest_ever(checkpoint_id)
        if entry is None:
            raise not_found(checkpoint_id)
        return entry.origin

    # --- recovery points ----------------------------------------------------------------------

    def can_recover_task(self, task_id: str) -> bool:
        """Say whether a task has something to resume from and is not complete."""
        latest = self.get_latest_entry(task_id)
        if latest is None or self._is_complete(latest):
            return False
        return self.get_recovery_point(task_id) is not None

    def _is_complete(self, latest: Entry) -> bool:
        event = latest.event
        is_last_step = not event.total or event.step >= event.total
        return event.state == CheckpointState.COMPLETED.value and is_last_step

    def get_latest_entry(self, task_id: str) -> Entry | None:
        """Return the newest event of the task's latest checkpoint."""
        check_id("task_id", task_id)
        return self.store.latest(task_id)

    def get_recovery_point(self, task_id: str) -> CheckpointData | None:
        """Return the checkpoint that a task should resume from, with verified data, or None.

        The latest one that did not fail and whose data verifies; a failed one only if nothing
        else is left. `explain_recovery_point` tells why.
        """
        chosen = choose(self._candidates(task_id)).chosen
        return None if chosen is None else self.get_checkpoint(chosen)

    def explain_recovery_point(self, task_id: str) -> dict[str, Any]:
        """Return the choice of `get_recovery_point`: every candidate, newest first, and why."""
        choice = choose(self._candidates(task_id))
        return {
            "task_id": task_id,
            "chosen": choice.chosen,
            "reason": choice.reason,
            "can_recover": self.can_recover_task(task_id),
            "candidates": [
                {
                    "checkpoint_id": candidate.checkpoint,
                    "state": candidate.state,
                    "step_number": candidate.step,
                    "is_verified": candidate.fault is None,
                    "reason": reason,
                }
                for candidate, reason in choice.candidates
            ],
        }

    def _candidates(self, task_id: str) -> Iterator[Candidate]:
        check_id("task_id", task_id)
        for row in self._rows(Filter(task=task_id), None, None, newest_first=True):
            try:
                found = self.store.read_row(row)
            except CheckpointCorruptionError as error:
                yield Candidate(row.id, row.state, row.step, error.message)
                continue
            if found is not None:
                event = found[0].event
                yield Candidate(row.id, event.state, event.step, self._fault(*found))

    def _fault(self, entry: Entry, records: Records) -> str | None:
        try:
            snapshot(self.store, entry, records)
        except CheckpointError as error:
            return error.message
        return None


def _entries(metadata: Any) -> tuple[tuple[str, str], ...]:
    """Return what the index of metadata is asked for."""
    if metadata is None:
        return ()
    if not isinstance(metadata, Mapping) or not all(type(name) is str for name in metadata):
        raise ArgumentError(
            f"metadata is {quoted(metadata)}; a dictionary with names for keys is needed.",
            argument="metadata",
        )
    entries = (entry_of(name, value) for name, value in metadata.items())
    return tuple(entry for entry in entries if entry is not None)


def check_iteration(limit: object, on_damage: object) -> None:
    """Refuse a limit or a callback that an iteration cannot go by.

    Raises:
        ArgumentError: By name.
    """
    if limit is not None and (type(limit) is not int or limit < 0):
        raise ArgumentError(
            f"limit is {quoted(limit)}; a whole number from 0 on is needed.", argument="limit"
        )
    if on_damage is not None and not callable(on_damage):
        raise ArgumentError(
            f"on_damage is {quoted(on_damage)}; a function is needed.", argument="on_damage"
        )
    refuse_deferred("on_damage", on_damage)


def _has(metadata: dict[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(metadata.get(name) == value for name, value in wanted.items())


def not_found(checkpoint_id: str) -> CheckpointError:
    """Return the error for an id that names no living checkpoint."""
    return CheckpointNotFoundError(
        f"There is no checkpoint {checkpoint_id!r}.",
        hint="It may have been deleted; ckptlog list shows what is there.",
        checkpoint_id=checkpoint_id,
    )


def comparable(checkpoint: CheckpointData) -> dict[str, Any]:
    """Return what a difference between two checkpoints looks at."""
    return {
        "state": checkpoint.state.value,
        "step_number": checkpoint.step_number,
        "total_steps": checkpoint.total_steps,
        "task_title": checkpoint.task_title,
        "step_description": checkpoint.step_description,
        "data": checkpoint.data,
        "metadata": checkpoint.metadata,
    }


def _checked(name: str, identifier: str | None) -> str | None:
    if identifier is None or identifier == "":
        return identifier
    return check_id(name, identifier, CHECKPOINT_ID_CHARACTERS_MAX)


def _iso(name: str, moment: object) -> str | None:
    if moment is None:
        return None
    hint = "Use an aware datetime, UTC for example."
    if not isinstance(moment, datetime):
        raise ArgumentError(f"{name} is {quoted(moment)}, no datetime.", hint=hint, argument=name)
    if moment.tzinfo is None:
        raise ArgumentError(f"{name} has no time zone.", hint=hint, argument=name)
    try:
        return time_text(moment)
    except OverflowError:
        raise ArgumentError(
            f"{name} is {moment}, which UTC cannot express.", argument=name
        ) from None
