"""The history of every checkpoint, folded from the log and judged: is each step legal?

    created -> state changes by the table of model.state -> deleted, or ended with its task; then
    nothing. Each event names the one before it, and everything else of a checkpoint stays.

Memory: some 500 bytes for each checkpoint ever created and 16 for each event, whatever the
events hold.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
from xxhash import xxh3_64_intdigest

from ckptlog.model import event as kinds
from ckptlog.model.entry import Commit, Entry
from ckptlog.model.event import CHECKPOINT_TYPES, Event, saved_bytes
from ckptlog.model.state import EVENT_OF_STATE, is_legal
from ckptlog.repository.report import Book
from ckptlog.views.row import encode, row_of

ILLEGAL: Final = "history.illegal"
ROW_DIGEST_BYTES: Final = 8
_TYPE_OF: Final = {state.value: kind for state, kind in EVENT_OF_STATE.items()}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_BUCKETS: Final = 256


class Life(msgspec.Struct, gc=False):
    """One checkpoint as its events so far leave it.

    origin, position: Of its creation and of its last event, or of the end of its task.
    created, subject: Hashes of what never changes.
    row: Digest of the row that a view should have, without the cached payload.
    """

    origin: int
    position: int
    state: str
    task: str
    created: int
    subject: int
    row: bytes
    is_deleted: bool = False


class History:
    """Folds commits in order.

    Args:
        is_lost: Says whether the event at a position could not be read.

    Attributes:
        lives: Every checkpoint by id, deleted ones too.
        logical, new: Sums over the events, bytes (views.row.Totals).
    """

    def __init__(self, book: Book, is_lost: Callable[[int], bool]) -> None:
        self._book = book
        self._is_lost = is_lost
        self.lives: dict[str, Life] = {}
        self.logical = 0
        self.new = 0
        self._tasks: dict[str, list[str]] = {}
        # Hashes of command ids, and where each stood: 16 bytes an event, where a set of the ids
        # would take 100.
        self._commands = [(array("Q"), array("Q")) for _ in range(_BUCKETS)]

    @property
    def living(self) -> int:
        """How many checkpoints are there."""
        return sum(not life.is_deleted for life in self.lives.values())

    def add(self, commit: Commit) -> None:
        """Take in the next commit."""
        for entry in commit.entries:
            event = entry.event
            self._book.events += 1
            self._command(event.id, entry.position)
            if not _TIME.fullmatch(event.time):
                self._illegal(entry, f"its time is {event.time!r}.")
            if event.packs and entry is not commit.entries[-1]:
                self._illegal(entry, "it registers packs, but does not end its commit.")
            if event.type in CHECKPOINT_TYPES:
                self._checkpoint(entry)
            elif event.type == kinds.TASK_DELETED:
                self._end_task(entry)
            self._count(event)

    def close(self) -> None:
        """Report what only the whole shows: command ids that were used twice."""
        for hashes, positions in self._commands:
            if len(set(hashes)) < len(hashes):
                for first, second in _twice(hashes, positions):
                    self._book.problem(
                        ILLEGAL, f"Events {first} and {second} have the same command id."
                    )

    def _command(self, command: str, position: int) -> None:
        number = xxh3_64_intdigest(command.encode())
        hashes, positions = self._commands[number % _BUCKETS]
        hashes.append(number)
        positions.append(position)

    def _count(self, event: Event) -> None:
        self.new += event.new
        self.logical += saved_bytes(event)

    # --- one checkpoint ---------------------------------------------------------------------

    def _checkpoint(self, entry: Entry) -> None:
        event = entry.event
        name = event.subject.checkpoint
        life = self.lives.get(name)
        fault = _birth_fault(event, life) if event.type == kinds.CREATED else None
        if event.type != kinds.CREATED:
            fault = self._change_fault(event, life)
        if fault:
            self._illegal(entry, fault)
        if life is not None and life.is_deleted:
            return
        if life is None:
            life = self._birth(name, entry)
        life.position = entry.position
        if event.type == kinds.DELETED:
            life.is_deleted = True
            return
        life.state = event.state
        life.row = encode(row_of(entry, None))[:ROW_DIGEST_BYTES]

    def _birth(self, name: str, entry: Entry) -> Life:
        event = entry.event
        created, subject = hash(entry.created), _identity(event)
        task = event.subject.task
        life = Life(entry.origin, entry.position, event.state, task, created, subject, b"")
        self.lives[name] = life
        self._tasks.setdefault(task, []).append(name)
        return life

    def _change_fault(self, event: Event, life: Life | None) -> str | None:
        """Say why an event cannot follow what was before; None where it can."""
        if life is None:
            is_hidden = event.origin >= 0 and self._is_lost(event.origin)
            return None if is_hidden else "there is no such checkpoint before it."
        if life.is_deleted:
            return f"the checkpoint was deleted at {life.position}."
        if fault := _identity_fault(event, life):
            return fault
        if event.previous != life.position:
            is_hidden = event.previous > life.position and self._is_lost(event.previous)
            named = f"it follows event {life.position}, it says {event.previous}."
            return None if is_hidden else named
        return _step_fault(event, life.state)

    def _end_task(self, entry: Entry) -> None:
        for name in self._tasks.pop(entry.event.subject.task, ()):
            life = self.lives[name]
            if not life.is_deleted:
                life.is_deleted, life.position = True, entry.position

    def _illegal(self, entry: Entry, why: str) -> None:
        event = entry.event
        about = event.subject.checkpoint or event.subject.task
        self._book.problem(
            ILLEGAL,
            f"Event {entry.position} ({event.type} of {about!r}) cannot stand there: {why}",
            f"{entry.container}:{entry.offset}",
            position=entry.position,
        )


def _birth_fault(event: Event, life: Life | None) -> str | None:
    if life is not None:
        return f"the id was used before, at {life.origin}."
    if not event.subject.checkpoint or not event.subject.task:
        return "it names no checkpoint or no task."
    if event.state != "created" or event.origin >= 0 or event.previous >= 0 or event.created:
        return "it is no beginning (state, origin, previous or created)."
    return None


def _identity_fault(event: Event, life: Life) -> str | None:
    if event.origin != life.origin or hash(event.created) != life.created:
        return f"it names another creation than that at {life.origin}."
    if _identity(event) != life.subject:
        return "it names another task, namespace or worker than the creation."
    return None


def _identity(event: Event) -> int:
    """Return what stays the same in a life; the parent may be named later, or anew."""
    subject = event.subject
    return hash((subject.checkpoint, subject.namespace, subject.task, subject.worker))


def _step_fault(event: Event, state: str) -> str | None:
    if event.type == kinds.DELETED:
        return None if event.state == state else f"the state is {state}, it says {event.state}."
    if event.type in kinds.PIN_TYPES:
        return None if event.state == state else f"the state is {state}, it says {event.state}."
    if _TYPE_OF.get(event.state) != event.type:
        return f"its state is {event.state!r}."
    if state not in _TYPE_OF or not is_legal(state, event.state):
        return f"{state} cannot become {event.state}."
    return None


def _twice(hashes: array[int], positions: array[int]) -> Iterator[tuple[int, int]]:
    first: dict[int, int] = {}
    for number, position in zip(hashes, positions, strict=True):
        if number in first:
            yield first[number], position
        first.setdefault(number, position)
