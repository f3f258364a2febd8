"""What is true at the tail: the fold of the log that decisions are made from.

    lookup = recent events in memory, else the view's row -> the event it names, read and checked

The view is never the truth: a row only says *where* a checkpoint's newest event lies, and the
event itself is read from the log. Events since the view's mark are kept here (`pending`) until
the owner applies them to the view, so memory is bounded by how often it does.

Threads: what changes memory (`absorb`, `release`, `find`) runs under the owner's fold lock; `peek`,
`latest` and `command` are safe anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice, takewhile
from typing import Protocol

import msgspec

from ckptlog.errors import CheckpointError, LogCorruptionError
from ckptlog.model import event as kinds
from ckptlog.model import lease as leases
from ckptlog.model.entry import Commit, Entry
from ckptlog.model.event import CHECKPOINT_TYPES, LEASE_TYPES, Event, Subject, fence_of
from ckptlog.model.identifier import id_time
from ckptlog.model.lease import Grant
from ckptlog.views.current import CurrentView
from ckptlog.views.errors import ViewDamagedError
from ckptlog.views.query import Filter
from ckptlog.views.row import Row

# Remembered look-ups; about 1 KB each.
_REMEMBERED_MAX = 4096

Found = tuple[Entry, bool]
"""A checkpoint's newest event, and whether the checkpoint was deleted."""

ReadEntry = Callable[[str, int, int, int], tuple[Entry, dict[bytes, bytes]]]


class Facts(Protocol):
    """What a stage stands on: the ledger, or another stage."""

    position: int
    id_time_max: int
    fence: int

    def find(self, checkpoint: str) -> Found | None:
        """Return a checkpoint's newest event and whether it is deleted."""

    def command(self, command: str) -> Event | None:
        """Return the event that carried a command id."""

    def may_have_changed(self, task: str, since: int) -> bool:
        """Say whether an event about a task may stand at position `since` or after it."""

    def incarnation(self, task: str) -> int:
        """Return how often a task was deleted."""

    def has_child(self, parent: str, task: str, namespace: str) -> bool:
        """Say whether a living checkpoint of a task has this parent; "" stands for none."""

    def lease(self, task: str) -> Grant | None:
        """Return the lease of a task that was not released; it may have expired."""


class Ledger:
    """The fold of one store's log, as one process knows it."""

    def __init__(self, view: CurrentView, read_entry: ReadEntry) -> None:
        self._read_entry = read_entry
        self.view = view
        self.pending: list[Commit] = []
        self.pending_events = 0
        mark = view.mark
        self.position = mark.position
        self.leaf = mark.leaf
        self.container = mark.container
        self.offset = mark.offset
        self.id_time_max = view.id_time_max
        # Packs whose preparation began before it are registered no more (specs/collection.md).
        self.fence = view.fence
        self._recent: dict[str, Found] = {}
        self._remembered: dict[str, Found] = {}
        self._commands: dict[str, Entry] = {}
        # Deletions of each task, oldest first.
        self._task_ends: dict[str, list[Entry]] = {}
        # The newest living checkpoint of a task by events that the view does not know yet; ""
        # where only the view can tell, once it knows them.
        self._latest: dict[str, str] = {}
        # The same of tasks without such events; any of these may be forgotten.
        self._latest_seen: dict[str, str] = {}
        # How often tasks were deleted; let go when one is deleted again.
        self._lives: dict[str, int] = {}
        # Every lease that was not released, by task; None until somebody asks.
        self._leases: dict[str, Grant] | None = None
        # Rises with every change of what memory knows: what was looked up outside of the fold
        # lock is remembered only if it is still the same.
        self.generation = 0

    # --- look-ups ---------------------------------------------------------------------------

    def known(self, checkpoint: str) -> Found | None:
        """Return what memory alone has of a checkpoint."""
        return self._recent.get(checkpoint) or self._remembered.get(checkpoint)

    def peek(self, checkpoint: str) -> Found | None:
        """Return a checkpoint's newest event and whether it is deleted; None if never there."""
        return self.known(checkpoint) or self._from_view(self.view.row(checkpoint))

    def is_recent(self, task: str) -> bool:
        """Say whether memory, and not the view, knows a task's newest checkpoint."""
        return task in self._latest or task in self._latest_seen

    def is_deleted(self, row: Row) -> bool:
        """Say whether a row's checkpoint was deleted, by itself or with its task."""
        return row.deleted or self._end_of(row) is not None

    def _end_of(self, row: Row) -> Entry | None:
        """Return the deletion of a row's task that the view does not know yet."""
        ends = self._task_ends.get(row.task, ())
        return next((end for end in ends if end.position > row.origin), None)

    def find(self, checkpoint: str) -> Found | None:
        """Do as `peek`, and remember the answer. Under the fold lock."""
        found = self.peek(checkpoint)
        if found is not None and checkpoint not in self._recent:
            self._remember(checkpoint, found)
        return found

    def remember_read(self, entry: Entry, generation: int, *, is_latest: bool = False) -> None:
        """Keep what was read of a living checkpoint. Under the fold lock.

        Args:
            generation: As it was before the first look: where it has changed, what was read may
                be overtaken, and nothing is kept.
            is_latest: The checkpoint is its task's newest one.
        """
        if generation != self.generation:
            return
        subject = entry.event.subject
        if subject.checkpoint not in self._recent:
            self._remember(subject.checkpoint, (entry, False))
        if is_latest and subject.task not in self._latest:
            self._latest_seen[subject.task] = subject.checkpoint
            _shrink(self._latest_seen, _REMEMBERED_MAX)

    def command(self, command: str) -> Event | None:
        """Return the event that carried a command id."""
        entry = self._commands.get(command)
        if entry is not None:
            return entry.event
        position = self.view.command(command)
        if position is None:
            return None
        event = self._event_at(position)
        if event is None or event.id != command:
            raise ViewDamagedError(f"Event {position} does not carry the command {command!r}.")
        return event

    def may_have_changed(self, task: str, since: int) -> bool:
        """Say whether an event about a task may stand at position `since` or after it.

        True also where memory does not reach back so far.
        """
        if since >= self.position:
            return False
        if not self.pending or self.pending[0].entries[0].position > since:
            return True
        recent = (entry for commit in reversed(self.pending) for entry in reversed(commit.entries))
        newer = takewhile(lambda entry: entry.position >= since, recent)
        return any(entry.event.subject.task == task for entry in newer)

    def incarnation(self, task: str) -> int:
        """Return how often a task was deleted, and remember it. Under the fold lock."""
        found = self.peek_incarnation(task)
        if task not in self._lives:
            self._lives[task] = found
            _shrink(self._lives, _REMEMBERED_MAX)
        return found

    def peek_incarnation(self, task: str) -> int:
        """Do as `incarnation`, anywhere."""
        found = self._lives.get(task)
        if found is not None:
            return found
        # Memory first: what is released meanwhile, the view has.
        ends = self._task_ends.get(task, ())
        count, position = self.view.task_deletions(task)
        return count + sum(end.position > position for end in ends)

    def has_child(self, parent: str, task: str, namespace: str) -> bool:
        """Say whether a living checkpoint of a task has this parent; "" stands for none."""
        wanted = (parent, task, namespace)
        if any(_is_child(found, wanted) for found in self._recent.values()):
            return True
        return any(row.meta_root and self._is_living(row) for row in self._children(*wanted))

    def lease(self, task: str) -> Grant | None:
        """Return the lease of a task that was not released. Under the fold lock."""
        known = self._leases
        return (self.leases() if known is None else known).get(task)

    def leases(self) -> dict[str, Grant]:
        """Return every lease that was not released, by task. Under the fold lock."""
        if self._leases is None:
            # Pending first: what is released meanwhile, the view has. Each event tells all of its
            # lease, so it does not matter if the view is further already.
            pending = [entry.event for commit in self.pending for entry in commit.entries]
            found = self.view.leases()
            for event in pending:
                leases.apply(found, event)
            self._leases = found
        return self._leases

    def _children(self, parent: str, task: str, namespace: str) -> Iterator[Row]:
        """Yield the rows that the view has, a few at a time: mostly the first one answers."""
        wanted, after, size = Filter(parent=parent, task=task, namespace=namespace), None, 4
        while rows := self.view.select(wanted, after=after, limit=size):
            yield from rows
            after, size = rows[-1].origin, 256

    def _is_living(self, row: Row) -> bool:
        # What memory has is newer: it may be deleted, or have another parent by now.
        return row.id not in self._recent and not self.is_deleted(row)

    def latest(self, task: str) -> Entry | None:
        """Return the newest event of the task's newest living checkpoint.

        Raises:
            ViewBehindError: Only the view can tell, once `pending` is applied.
        """
        name = self._latest.get(task)
        if name == "":
            raise ViewBehindError
        name = name or self._latest_seen.get(task)
        if name is not None:
            found = self.peek(name)
        else:
            row = self.view.latest_of_task(task)
            # Memory may know a newer event of it than the view does.
            found = None if row is None else self.known(row.id) or self._from_view(row)
        return None if found is None or found[1] else found[0]

    def _from_view(self, row: Row | None) -> Found | None:
        if row is None:
            return None
        entry, _ = self.read_row(row)
        end = None if row.deleted else self._end_of(row)
        if end is not None:
            entry = _end_of_row(end, row, row.position)
        return entry, row.deleted or end is not None

    def read_row(self, row: Row) -> tuple[Entry, dict[bytes, bytes]]:
        """Return the event that a row names, checked, and the chunk records beside it.

        Raises:
            ViewDamagedError: Another event stands there, or none: the row is wrong, or the log
                is; the rebuild that follows tells which.
        """
        try:
            entry, records = self._read_entry(row.container, row.offset, row.length, row.span)
        except LogCorruptionError as error:
            # Raises where the log itself is damaged: then the view is right, and all there is.
            self.scan("", 0, row.position, row.position)
            raise ViewDamagedError(str(error)) from error
        if row.deleted and entry.event.type == kinds.TASK_DELETED:
            entry = _end_of_row(entry, row, row.previous)
        if entry.position != row.position or not _is_of(entry, row):
            raise ViewDamagedError(f"Event {entry.position} stands where {row.id!r} should.")
        return entry, records

    def _event_at(self, position: int) -> Event | None:
        place = self.view.waypoint(position)
        if place is not None:
            with suppress(CheckpointError):  # the view's waypoint may be wrong
                return self.scan(*place, position)
        return self.scan("", 0, position, position)

    # The owner replaces it: reading on from a place takes the log.
    scan: Callable[[str, int, int, int], Event | None]

    # --- folding ----------------------------------------------------------------------------

    def absorb(self, commits: Iterator[Commit] | tuple[Commit, ...]) -> None:
        """Take in commits in order; those already known are skipped. Under the fold lock."""
        for commit in commits:
            if commit.position_next <= self.position:
                continue
            for entry in commit.entries:
                self._fold(entry)
            # An interrupt may have cut off this very step: then the commit is there already.
            if not self.pending or self.pending[-1].position_next < commit.position_next:
                self.pending.append(commit)
                self.pending_events += len(commit.entries)
            self.position = commit.position_next
            self.leaf = commit.leaf
            self.container = commit.container
            self.offset = commit.offset_end
        self.generation += 1

    def pending_at(self, position: int) -> Entry | None:
        """Return the event at a position, if it is one that the view has not applied yet."""
        for commit in self.pending:
            if commit.position_next > position:
                index = position - commit.entries[0].position
                return commit.entries[index] if index >= 0 else None
        return None

    def release(self, position: int) -> None:
        """Forget commits that the view has applied, up to `position`. Under the fold lock."""
        kept = [commit for commit in self.pending if commit.position_next > position]
        gone = self.pending[: len(self.pending) - len(kept)]
        self.pending = kept
        self.pending_events = sum(len(commit.entries) for commit in kept)
        for commit in gone:
            for entry in commit.entries:
                self._release_entry(entry)
        # What is still pending only memory knows: that must stay.
        waiting = {entry.event.subject.task for commit in kept for entry in commit.entries}
        ends = self._task_ends
        self._task_ends = {task: found for task, found in ends.items() if task in waiting}
        latest = self._latest
        self._latest = {task: name for task, name in latest.items() if task in waiting}
        settled = {task: name for task, name in latest.items() if name and task not in waiting}
        self._latest_seen.update(settled)
        _shrink(self._latest_seen, _REMEMBERED_MAX)
        self.generation += 1

    def _release_entry(self, entry: Entry) -> None:
        self._commands.pop(entry.event.id, None)
        if entry.event.type == kinds.TASK_DELETED:
            ended = [name for name, (end, _) in self._recent.items() if _is_same(end, entry)]
        else:
            ended = [entry.event.subject.checkpoint]
        for name in ended:
            found = self._recent.get(name)
            if found is not None and _is_same(found[0], entry):
                self._remember(name, found)
                del self._recent[name]

    def _remember(self, checkpoint: str, found: Found) -> None:
        known = self._remembered.get(checkpoint)
        if known is not None and known[0].position > found[0].position:
            return
        self._remembered[checkpoint] = found
        _shrink(self._remembered, _REMEMBERED_MAX)

    def _fold(self, entry: Entry) -> None:
        event = entry.event
        self._commands[event.id] = entry
        if event.type in CHECKPOINT_TYPES:
            self._fold_checkpoint(entry)
        elif event.type == kinds.TASK_DELETED:
            self._fold_task_deleted(entry)
        elif event.type == kinds.SETTLED:
            self.fence = max(self.fence, fence_of(event))
        elif event.type in LEASE_TYPES and self._leases is not None:
            leases.apply(self._leases, event)

    def _fold_checkpoint(self, entry: Entry) -> None:
        event = entry.event
        subject = event.subject
        name = subject.checkpoint
        is_deleted = event.type == kinds.DELETED
        self._recent[name] = (entry, is_deleted)
        self._remembered.pop(name, None)
        task = subject.task
        if event.type == kinds.CREATED:
            self._name_latest(task, name)
            self.id_time_max = max(self.id_time_max, id_time(name))
        elif is_deleted and self._latest.get(task, self._latest_seen.get(task, name)) == name:
            self._name_latest(task, "")

    def _name_latest(self, task: str, name: str) -> None:
        self._latest[task] = name
        self._latest_seen.pop(task, None)

    def _fold_task_deleted(self, end: Entry) -> None:
        task = end.event.subject.task
        self._lives.pop(task, None)
        if self._leases is not None:
            self._leases.pop(task, None)
        self._task_ends.setdefault(task, []).append(end)
        self._name_latest(task, "")
        for name, (entry, is_deleted) in [*self._remembered.items(), *self._recent.items()]:
            event = entry.event
            if event.subject.task == task and not is_deleted:
                self._recent[name] = (_end_with_task(end, entry), True)
                self._remembered.pop(name, None)


def _end_with_task(end: Entry, last: Entry) -> Entry:
    """Return the deletion of a task as one of its checkpoints meets it: as its last event.

    Args:
        last: The checkpoint's event before it.
    """
    event = msgspec.structs.replace(
        end.event,
        subject=last.event.subject,
        origin=last.origin,
        created=last.created,
        previous=last.position,
        state=last.event.state,
    )
    return msgspec.structs.replace(end, event=event)


def _end_of_row(end: Entry, row: Row, previous: int) -> Entry:
    """Return the same, of a row's checkpoint."""
    event = msgspec.structs.replace(
        end.event,
        subject=_subject_of(row),
        origin=row.origin,
        created=row.created,
        previous=previous,
        state=row.state,
    )
    return msgspec.structs.replace(end, event=event)


def _subject_of(row: Row) -> Subject:
    return Subject(row.id, row.namespace, row.parent, row.task, row.worker)


def _is_of(entry: Entry, row: Row) -> bool:
    """Say whether an event is about the checkpoint of a row, and tells what the row tells."""
    event = entry.event
    return (
        event.subject == _subject_of(row)
        and event.state == row.state
        and entry.origin == row.origin
    )


def _is_same(entry: Entry, other: Entry) -> bool:
    return entry.position == other.position


class ViewBehindError(Exception):
    """Only the view can answer, and it has events to apply first. Never leaves this room."""


class Stage:
    """What would be true after the events decided so far in a round, before they are durable.

    Implements the `State` that `policy.decide` asks. Dropped when the round fails.
    """

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self.position = facts.position
        self.id_time_max = facts.id_time_max
        self.fence = facts.fence
        self.events: list[Event] = []
        self._found: dict[str, Found] = {}
        self._commands: dict[str, Event] = {}
        # How often each task was deleted by the events here.
        self._deleted_tasks: dict[str, int] = {}
        # What the events here have made of leases; None: there is none any more.
        self._leases: dict[str, Grant | None] = {}

    def living(self, checkpoint: str) -> Entry | None:
        """Return the newest event of a checkpoint that was not deleted."""
        found = self.find(checkpoint)
        return None if found is None or found[1] else found[0]

    def is_taken(self, checkpoint: str) -> bool:
        """Say whether an id was ever used."""
        return self.find(checkpoint) is not None

    def find(self, checkpoint: str) -> Found | None:
        """Return a checkpoint's newest event and whether it is deleted."""
        found = self._found.get(checkpoint)
        if found is not None:
            return found
        found = self._facts.find(checkpoint)
        if found is not None and found[0].event.subject.task in self._deleted_tasks:
            return found[0], True
        return found

    def command(self, command: str) -> Event | None:
        """Return the event that carried a command id."""
        return self._commands.get(command) or self._facts.command(command)

    def may_have_changed(self, task: str, since: int) -> bool:
        """Say whether an event about a task may stand at position `since` or after it."""
        is_ours = any(event.subject.task == task for event in self.events)
        return is_ours or self._facts.may_have_changed(task, since)

    def incarnation(self, task: str) -> int:
        """Return how often a task was deleted."""
        return self._deleted_tasks.get(task, 0) + self._facts.incarnation(task)

    def has_child(self, parent: str, task: str, namespace: str) -> bool:
        """Say whether a living checkpoint of a task has this parent; "" stands for none.

        A round that decides a delete and a create of one parent may refuse the create too early.
        """
        wanted = (parent, task, namespace)
        if any(_is_child(found, wanted) for found in self._found.values()):
            return True
        return task not in self._deleted_tasks and self._facts.has_child(*wanted)

    def lease(self, task: str) -> Grant | None:
        """Return the lease of a task that was not released; it may have expired."""
        if self._leases and task in self._leases:
            return self._leases[task]
        return self._facts.lease(task)

    def apply(self, events: tuple[Event, ...]) -> None:
        """Let the events be true for what is decided next."""
        for event in events:
            name = event.subject.checkpoint
            if name:
                entry = Entry(event, self.position, "", 0, 0, 0)
                self._found[name] = (entry, event.type == kinds.DELETED)
                self.id_time_max = max(self.id_time_max, id_time(name))
            elif event.type == kinds.TASK_DELETED:
                self._apply_task_deleted(event.subject.task)
            elif event.type == kinds.SETTLED:
                self.fence = max(self.fence, fence_of(event))
            elif event.type in LEASE_TYPES:
                self._leases[event.subject.task] = leases.lease_after(event)
            self._commands[event.id] = event
            self.events.append(event)
            self.position += 1

    def merge(self, other: Stage) -> None:
        """Take over what a stage that stands on this one has applied."""
        self.apply(tuple(other.events))

    def _apply_task_deleted(self, task: str) -> None:
        self._deleted_tasks[task] = self._deleted_tasks.get(task, 0) + 1
        self._leases[task] = None
        for name, (entry, _) in self._found.items():
            if entry.event.subject.task == task:
                self._found[name] = (entry, True)


def _is_child(found: Found, wanted: tuple[str, str, str]) -> bool:
    entry, is_deleted = found
    subject = entry.event.subject
    is_whole = not is_deleted and entry.event.meta is not None
    return is_whole and (subject.parent, subject.task, subject.namespace) == wanted


def _shrink(names: dict[str, Found] | dict[str, str] | dict[str, int], most: int) -> None:
    """Drop the older half of a dictionary that has grown over `most`."""
    if len(names) > most:
        for name in list(islice(names, len(names) // 2)):
            del names[name]
