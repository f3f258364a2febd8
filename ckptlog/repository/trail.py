"""The events of one checkpoint, or of one task: what a look back goes along.

Trails are positions instead of events, so that a long life takes 8 bytes an event;
`Store.event_at` reads any of them in a fraction of a millisecond.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptlog.errors import CheckpointCorruptionError
from ckptlog.model.entry import Entry
from ckptlog.model.event import CHECKPOINT_TYPES, DELETED

if TYPE_CHECKING:
    from ckptlog.repository.store import Store

_LEFT = CHECKPOINT_TYPES - {DELETED}


def events_of(store: Store, checkpoint: str) -> Iterator[Entry]:
    """Yield a checkpoint's events, newest first, along the links that each holds.

    The first may be its deletion, or its task's, told as the checkpoint's own.

    Raises:
        CheckpointCorruptionError: The links between its events lead elsewhere.
    """
    entry = store.newest_ever(checkpoint)
    while entry is not None:
        if entry.event.subject.checkpoint != checkpoint:
            raise CheckpointCorruptionError(
                f"The history of {checkpoint!r} leads to event {entry.position}, which is about "
                f"{entry.event.subject.checkpoint!r}.",
                hint="Run ckptlog verify.",
                position=entry.position,
            )
        yield entry
        previous = entry.event.previous
        entry = store.event_at(previous) if 0 <= previous < entry.position else None


def trail_of_checkpoint(store: Store, checkpoint: str) -> array[int]:
    """Return the positions of a checkpoint's events, oldest first, deletions left out.

    Empty where there never was such a checkpoint.

    Raises:
        CheckpointCorruptionError: As `events_of`.
    """
    found = [one.position for one in events_of(store, checkpoint) if one.event.type in _LEFT]
    return array("Q", reversed(found))


def trail_of_task(store: Store, task: str) -> array[int]:
    """Return the positions of the events of every checkpoint of a task, deletions left out.

    Cost: reads the whole log once; nothing else knows the checkpoints that were deleted.
    """
    positions = array("Q")
    for entry in store.events():
        if entry.event.subject.task == task and entry.event.type in _LEFT:
            positions.append(entry.position)
    return positions
