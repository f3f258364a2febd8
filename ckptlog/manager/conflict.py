"""What stands in the way of an import, found before anything is written.

A checkpoint id that is taken by another, a checkpoint that went on here by itself, a task that
lives here of its own accord, events that no store can have written. Page: specs/archive.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
from blake3 import blake3

from ckptlog.errors import CheckpointError, FormatError, ImportConflictError
from ckptlog.model.entry import Entry
from ckptlog.model.event import CHECKPOINT_TYPES, CREATED, DELETED, Event
from ckptlog.model.identifier import CHECKPOINT_ID_CHARACTERS_MAX, check_id
from ckptlog.model.state import EVENT_OF_STATE, CheckpointState, is_legal
from ckptlog.repository.archive_reader import ArchiveReader, Told
from ckptlog.repository.store import Store
from ckptlog.views.query import Filter

_PREFIX: Final = "import-"
_PAGE: Final = 256


class Past(msgspec.Struct):
    """What the archive tells of a checkpoint so far.

    state, position: Of its last event there. here: Its newest event in this store, deleted or not.
    is_gone: Whether it was deleted. is_ours: Whether that event came from this archive's past.
    is_known: Whether all events of the archive are here.
    """

    state: str
    position: int
    here: Entry | None
    is_gone: bool
    is_ours: bool = False
    is_known: bool = True


class Plan:
    """What an archive holds, beside what a store holds.

    Attributes:
        pasts: The checkpoints of the archive that are not deleted in it, by id; after `look`.
    """

    def __init__(self, store: Store, reader: ArchiveReader) -> None:
        self._store = store
        self._reader = reader
        self._contents = reader.contents
        self.pasts: dict[str, Past] = {}

    def look(self) -> None:
        """Look for everything that could stop the import half-way.

        Raises:
            ImportConflictError, FormatError: It would.
        """
        if self._contents.store == self._store.id:
            raise ImportConflictError(
                f"The archive {self._reader.path} is of this very store ({self._store.id}).",
                hint="What it holds is here, or was deleted here, which is for good.",
                store=self._store.id,
            )
        for task in self._contents.tasks:
            check_id("task_id", task)
        for told in self.told():
            self._follow(told)
        for name, past in self.pasts.items():
            self._refuse_conflict(name, past)
        for task in self._contents.tasks:
            self._refuse_strangers(task)

    def told(self) -> Iterator[Told]:
        """Yield the events to bring: of checkpoints that are not deleted in the archive."""
        deleted = self._contents.deleted
        for told in self._reader.events():
            name = told.event.subject.checkpoint
            if told.event.type in CHECKPOINT_TYPES - {DELETED} and name not in deleted:
                yield told

    def _follow(self, told: Told) -> None:
        event, name = told.event, told.event.subject.checkpoint
        past = self.pasts.get(name)
        _check_event(told, past)
        if past is None:
            here = self._store.newest_ever(name)
            is_gone = here is not None and self._store.newest(name) is None
            past = self.pasts[name] = Past(event.state, told.position, here, is_gone)
        past.state, past.position = event.state, told.position
        if self.is_lacking(event):
            return
        if past.here is not None and past.here.event.id in _command_ids(told):
            past.is_ours = True
        past.is_known = past.is_known and self.is_here(told, past)

    def is_here(self, told: Told, past: Past) -> bool:
        """Say whether an event was imported; it takes a look-up only where something is here."""
        return past.here is not None and self._store.command(command_id(told)) is not None

    def _refuse_conflict(self, name: str, past: Past) -> None:
        if past.here is None or past.is_gone or past.is_ours or past.is_known:
            return
        if self._is_from_there(past.here.origin):
            raise ImportConflictError(
                f"The checkpoint {name!r} went on in this store after it was imported, and the "
                "archive has more of it.",
                hint="Nothing was imported. Import into another store.",
                checkpoint_id=name,
            )
        raise ImportConflictError(
            f"The checkpoint id {name!r} is taken in this store by another checkpoint.",
            hint="Nothing was imported. Import into another store.",
            checkpoint_id=name,
        )

    def _is_from_there(self, position: int) -> bool:
        """Say whether the creation at a position was imported from the archive's store."""
        entry = self._store.event_at(position)
        if entry is None:
            return False
        command = entry.event.id
        return command.startswith(_PREFIX) and entry.event.fingerprint == self.fingerprint(command)

    def _refuse_strangers(self, task: str) -> None:
        """Refuse a task that has living checkpoints here that did not come from that store."""
        after: int | None = None
        while rows := self._store.select(Filter(task=task), after=after, limit=_PAGE):
            for row in rows:
                if row.id not in self.pasts and not self._is_from_there(row.origin):
                    raise ImportConflictError(
                        f"The task {task!r} has checkpoints in this store that did not come "
                        f"from the archive's ({row.id!r}).",
                        hint="Nothing was imported. Import into another store.",
                        task_id=task,
                        checkpoint_id=row.id,
                    )
            after = rows[-1].origin

    def is_lacking(self, event: Event) -> bool:
        """Say whether the archive lacks a payload of an event."""
        return any(
            reference is not None and self._reader.is_lacking(reference)
            for reference in (event.data, event.meta)
        )

    def fingerprint(self, command: str) -> str:
        """Return the fingerprint of a command: it names the archive's store."""
        return blake3(f"{self._contents.store} {command}".encode()).hexdigest()[:32]


def command_id(told: Told) -> str:
    """Return the id of the command that brings an event."""
    return f"{_PREFIX}{told.leaf.hex()}"


def _command_ids(told: Told) -> tuple[str, ...]:
    own = command_id(told)
    return own, f"{own}-create", f"{own}-restored"


def _check_event(told: Told, past: Past | None) -> None:
    """Refuse an event that no store of ours can have written.

    Raises:
        FormatError: Its ids, its numbers, its state, or how it follows the one before.
    """
    event, subject = told.event, told.event.subject
    try:
        check_id("task_id", subject.task)
        check_id("checkpoint_id", subject.checkpoint, CHECKPOINT_ID_CHARACTERS_MAX)
        for name, word in (("namespace", subject.namespace), ("worker_id", subject.worker)):
            if word:
                check_id(name, word)
        if subject.parent:
            check_id("parent_checkpoint_id", subject.parent, CHECKPOINT_ID_CHARACTERS_MAX)
        state = CheckpointState(event.state)
    except (CheckpointError, ValueError) as error:
        raise FormatError(f"Event {told.position} of the archive: {error}") from error
    if past is None:
        is_sound = event.type == CREATED and state is CheckpointState.CREATED
    else:
        is_sound = event.previous == past.position and is_legal(past.state, state.value)
        is_sound = is_sound and event.type == EVENT_OF_STATE[state]
    if not is_sound or event.step < 1:
        raise FormatError(
            f"Event {told.position} of the archive ({event.type}, {event.state}) cannot follow "
            "what stands before it.",
            position=told.position,
        )
