"""Payloads that a collection let go of: told apart from those that are missing.

    a payload lacks a chunk -> what the log says of its event -> "was collected", and when

A payload may be gone once a `gc.settled` with a fence above its event stands in the log, and by
that fence the checkpoint was deleted, or the event replaced where the collection dropped such
(specs/collection.md). Of anything else a missing chunk is damage.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from ckptlog.errors import CheckpointError, MissingBlobError, PayloadCollectedError
from ckptlog.model.entry import Entry
from ckptlog.model.event import (
    CHECKPOINT_TYPES,
    DELETED,
    SETTLED,
    TASK_DELETED,
    fence_of,
)
from ckptlog.repository.fate import DROPPED, SUPERSEDED

if TYPE_CHECKING:
    from ckptlog.repository.store import Store


class Collection(NamedTuple):
    """What one event of a collection said."""

    position: int
    time: str
    fence: int
    drops: bool


class Gone(NamedTuple):
    """Why a payload may be gone: the collection, and the event that ended or replaced the state."""

    by: Collection
    end: int
    is_deleted: bool


class Outcomes:
    """What became of each state, and what collections have said, of events in order.

    Memory: 8 bytes for each event, some 100 for each deletion.
    """

    def __init__(self) -> None:
        self._collections: list[Collection] = []
        self._ends: dict[int, int] = {}
        self._task_ends: dict[str, list[int]] = {}
        self._replaced: array[int] = array("q")

    @property
    def position(self) -> int:
        """After the last event."""
        return len(self._replaced)

    def add(self, entry: Entry) -> None:
        """Take in the next event; some may be missing before it."""
        position, event = entry.position, entry.event
        self._replaced.extend([0] * (position + 1 - len(self._replaced)))
        if event.type in CHECKPOINT_TYPES:
            if event.type == DELETED:
                self._ends[event.origin] = position
            if event.origin >= 0 and 0 <= event.previous < position:
                self._replaced[event.previous] = position
        elif event.type == TASK_DELETED:
            self._task_ends.setdefault(event.subject.task, []).append(position)
        elif event.type == SETTLED:
            drops = event.facts.get(SUPERSEDED) == DROPPED
            self._collections.append(Collection(position, event.time, fence_of(event), drops))

    def gone(self, entry: Entry) -> Gone | None:
        """Return why the payload of an event may be gone; None where it must be there."""
        end, replaced = self._end_of(entry), self._replaced[entry.position]
        for found in self._collections:
            if end is not None and end < found.fence:
                return Gone(found, end, is_deleted=True)
            if found.drops and 0 < replaced < found.fence:
                return Gone(found, replaced, is_deleted=False)
        return None

    def _end_of(self, entry: Entry) -> int | None:
        """Return the position at which the checkpoint of an event was deleted."""
        event = entry.event
        if event.type not in CHECKPOINT_TYPES:
            return None
        origin = entry.position if event.origin < 0 else event.origin
        ends = [one for one in self._task_ends.get(event.subject.task, ()) if one > origin]
        if origin in self._ends:
            ends.append(self._ends[origin])
        return min(ends, default=None)


class CollectedPast:
    """What collections may have let go of in an open store; read when it is first asked.

    Threads: safe.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._outcomes = Outcomes()

    def error_for(self, store: Store, entry: Entry) -> PayloadCollectedError | None:
        """Return what to say of an event whose payload is not there; None where it should be.

        Cost: the events that were appended since the last call, some 10 us each.
        """
        with self._lock:
            outcomes, start = self._outcomes, self._outcomes.position
            # Not by the store's door: what a history returned is also read after a close.
            end = store.log.published.read()
            if end is None or start < end.position:
                for commit in store.log.reader.commits("", 0, start):
                    for one in commit.entries:
                        if one.position >= start:
                            outcomes.add(one)
            gone = outcomes.gone(entry)
        return None if gone is None else _error(entry, gone)


@contextmanager
def told_apart(store: Store, entry: Entry) -> Iterator[None]:
    """Raise a PayloadCollectedError where a payload of an event is missing for good reason.

    Raises:
        PayloadCollectedError: A collection let go of it.
        MissingBlobError: It should be there.
    """
    try:
        yield
    except PayloadCollectedError:
        raise
    except MissingBlobError as error:
        try:
            found = store.collected.error_for(store, entry)
        except CheckpointError:  # the store was closed, or its log is damaged
            found = None
        if found is None:
            raise
        raise found from error


def _error(entry: Entry, gone: Gone) -> PayloadCollectedError:
    name, by = entry.event.subject.checkpoint, gone.by
    why = f"it was deleted by event {gone.end}"
    if not gone.is_deleted:
        why = f"event {gone.end} replaced that state"
    return PayloadCollectedError(
        f"The data of {name!r} after event {entry.position} was collected: {why}, and the "
        f"compaction of {by.time} (event {by.position}) let go of it.",
        hint="Nothing is damaged: the event and its proofs are kept. An older backup may have the "
        "data; a compaction keeps what lives, and past states unless told to drop them.",
        checkpoint_id=name,
        position=entry.position,
        collected_by=by.position,
        collected_at=by.time,
    )
