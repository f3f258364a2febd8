"""Brings the tasks of an archive into a store, through the one write path.

    verify all of it -> look for conflicts -> one command for each event, in the order of the log

Ids, states, steps and payloads arrive as they were; where an event comes from stands in
`metadata["imported"]` after it. Command ids come from the leaf hashes of the origin, so that what
was imported is never imported twice, and a run that was killed is gone on with.
Page: specs/archive.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from blake3 import blake3

from ckptlog.errors import (
    BusyError,
    CheckpointError,
    FormatError,
    ImportConflictError,
)
from ckptlog.manager.preparation import Content, Preparation, holder_of
from ckptlog.model.entry import Entry
from ckptlog.model.event import CHECKPOINT_TYPES, CREATED, DELETED, IMPORTED, Event, Reference
from ckptlog.model.identifier import CHECKPOINT_ID_CHARACTERS_MAX, check_id
from ckptlog.model.state import EVENT_OF_STATE, CheckpointState, is_legal
from ckptlog.model.value import Prepared
from ckptlog.policy.command import AnyCommand, Change, Create, Record
from ckptlog.policy.decide import Stale
from ckptlog.policy.sanitise import Sanitiser
from ckptlog.repository.archive_reader import ArchiveReader, Contents, Told
from ckptlog.repository.intent import Intent, Step
from ckptlog.repository.report import Progress
from ckptlog.repository.store import Store
from ckptlog.storage.lock import WriterLock
from ckptlog.views.query import Filter

LOCK: Final = "import.lock"
KEY: Final = "imported"
_PREFIX: Final = "import-"
_PAYLOAD_BYTES_MAX: Final = 1 << 40
_ATTEMPTS_MAX: Final = 100
_PAGE: Final = 256


class ArchiveImport(msgspec.Struct, kw_only=True):
    """What an import did, or a verification found.

    path, origin, size, root: The file; the store it is of; the log that proves it. note: The signed
    head in it, as text. imported: Events that are new here. unchanged: Events that were here
    already. left_out: Earlier states whose payloads the origin no longer had. deleted: Checkpoints
    that are deleted, there or here, and were not brought.
    """

    path: str
    origin: str
    size: int
    root: str
    note: str
    tasks: tuple[str, ...]
    events: int
    chunks: int
    imported: int = 0
    unchanged: int = 0
    left_out: int = 0
    deleted: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return everything, safe for JSON."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        fields["tasks"] = list(fields["tasks"])
        return fields


def verify_archive(
    path: str | os.PathLike[str], *, progress: Progress | None = None
) -> ArchiveImport:
    """Check an archive, without a store.

    Raises:
        FormatError, UnsupportedError: It is damaged, or newer.
    """
    with ArchiveReader(Path(path)) as reader:
        return _report(reader, reader.verify(progress))


def import_archive(
    store: Store,
    path: str | os.PathLike[str],
    *,
    actor: str | None = None,
    progress: Progress | None = None,
) -> ArchiveImport:
    """Bring the tasks of an archive into a store.

    Raises:
        FormatError, UnsupportedError: The archive is damaged, or newer; nothing was imported.
        ImportConflictError: It cannot be brought in beside what is here; nothing was imported.
        LockTimeoutError: Another import is at work.
        CheckpointStorageError: The store refused; what was imported is there, run it again.

    Durability: as the store's commits.
    """
    with ArchiveReader(Path(path)) as reader:
        contents = reader.verify(progress)
        report = _report(reader, contents)
        with _alone(store.opened()):
            run = _Import(store, reader, report, actor or store.environment.actor())
            run.plan()
            run.carry_out(progress)
        return report


def _report(reader: ArchiveReader, contents: Contents) -> ArchiveImport:
    return ArchiveImport(
        path=str(reader.path),
        origin=contents.store,
        size=contents.size,
        root=contents.root.hex(),
        note=contents.note.decode(errors="replace"),
        tasks=contents.tasks,
        events=contents.events,
        chunks=contents.chunks,
    )


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    """Be the only import into a store: what was looked up stays true until it is used."""
    lock = WriterLock(store.path / LOCK, store.environment)
    try:
        if store.read_only:
            yield  # the first commit says that it cannot be
            return
        lock.acquire(store.timeout_s)
        try:
            yield
        finally:
            lock.release()
    finally:
        lock.close()


class _Past(msgspec.Struct):
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


class _Import:
    """One import."""

    def __init__(
        self, store: Store, reader: ArchiveReader, report: ArchiveImport, actor: str
    ) -> None:
        self._store = store
        self._reader = reader
        self._report = report
        self._actor = check_id("actor", actor)
        self._contents = reader.contents
        self._preparation = Preparation(store, Sanitiser(), size_bytes_max=_PAYLOAD_BYTES_MAX)
        self._pasts: dict[str, _Past] = {}

    # --- before anything is written -----------------------------------------------------------

    def plan(self) -> None:
        """Look for everything that could stop the import half-way.

        Raises:
            ImportConflictError, FormatError: It would.
        """
        if self._contents.store == self._store.id:
            raise ImportConflictError(
                f"The archive {self._report.path} is of this very store ({self._store.id}).",
                hint="What it holds is here, or was deleted here, which is for good.",
                store=self._store.id,
            )
        for task in self._contents.tasks:
            check_id("task_id", task)
        for told in self._told():
            self._follow(told)
        for name, past in self._pasts.items():
            self._refuse_conflict(name, past)
        for task in self._contents.tasks:
            self._refuse_strangers(task)

    def _told(self) -> Iterator[Told]:
        """Yield the events to bring: of checkpoints that are not deleted in the archive."""
        deleted = self._contents.deleted
        for told in self._reader.events():
            name = told.event.subject.checkpoint
            if told.event.type in CHECKPOINT_TYPES - {DELETED} and name not in deleted:
                yield told

    def _follow(self, told: Told) -> None:
        event, name = told.event, told.event.subject.checkpoint
        past = self._pasts.get(name)
        _check_event(told, past)
        if past is None:
            here = self._store.newest_ever(name)
            is_gone = here is not None and self._store.newest(name) is None
            past = self._pasts[name] = _Past(event.state, told.position, here, is_gone)
        past.state, past.position = event.state, told.position
        if self._is_lacking(event):
            return
        if past.here is not None and past.here.event.id in _ids(told):
            past.is_ours = True
        past.is_known = past.is_known and self._store.command(_id(told)) is not None

    def _refuse_conflict(self, name: str, past: _Past) -> None:
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
        return command.startswith(_PREFIX) and entry.event.fingerprint == self._fingerprint(command)

    def _refuse_strangers(self, task: str) -> None:
        """Refuse a task that has living checkpoints here that did not come from that store."""
        after: int | None = None
        while rows := self._store.select(Filter(task=task), after=after, limit=_PAGE):
            for row in rows:
                if row.id not in self._pasts and not self._is_from_there(row.origin):
                    raise ImportConflictError(
                        f"The task {task!r} has checkpoints in this store that did not come "
                        f"from the archive's ({row.id!r}).",
                        hint="Nothing was imported. Import into another store.",
                        task_id=task,
                        checkpoint_id=row.id,
                    )
            after = rows[-1].origin

    def _is_lacking(self, event: Event) -> bool:
        return any(
            reference is not None and self._reader.is_lacking(reference)
            for reference in (event.data, event.meta)
        )

    # --- writing ------------------------------------------------------------------------------

    def carry_out(self, progress: Progress | None) -> None:
        """Write what is not here yet."""
        report, total = self._report, max(1, self._report.events)
        for done, told in enumerate(self._told(), 1):
            self._bring(told)
            if progress:
                progress(min(done, total), total)
        gone = [name for name, past in self._pasts.items() if past.is_gone]
        report.deleted = len(gone) + len(self._contents.deleted)
        if report.imported:
            self._record()

    def _bring(self, told: Told) -> None:
        event, report = told.event, self._report
        past = self._pasts[event.subject.checkpoint]
        if past.is_gone:
            return
        if self._is_lacking(event):
            report.left_out += 1
            return
        if self._store.command(_id(told)) is not None:
            report.unchanged += 1
            return
        here = self._store.newest(event.subject.checkpoint)
        if here is None:
            is_new = event.state == CheckpointState.CREATED.value
            suffix = "" if is_new else "-create"
            self._submit(lambda: self._create(told, _id(told) + suffix))
            if is_new:
                report.imported += 1
                return
        target = CheckpointState(event.state)
        if not is_legal(self._present(told).event.state, target.value):
            self._submit(
                lambda: self._change(told, CheckpointState.RESTORED, f"{_id(told)}-restored")
            )
        self._submit(lambda: self._change(told, target, _id(told)))
        report.imported += 1

    def _present(self, told: Told) -> Entry:
        entry = self._store.newest(told.event.subject.checkpoint)
        if entry is None:
            raise ImportConflictError(
                f"The checkpoint {told.event.subject.checkpoint!r} was deleted while it was "
                "imported.",
                hint="Run the import again.",
            )
        return entry

    def _create(self, told: Told, command: str) -> tuple[AnyCommand, Content]:
        event, subject = told.event, told.event.subject
        holder = holder_of(self._store.latest(subject.task))
        content = self._preparation.content(self._data(event.data), self._meta(told), holder)
        create = Create(
            actor=self._actor,
            checkpoint=subject.checkpoint,
            command=command,
            fingerprint=self._fingerprint(command),
            is_late_accepted=True,
            namespace=subject.namespace,
            parent=subject.parent,
            payloads=content.payloads,
            step=event.step,
            task=subject.task,
            total=event.total,
            worker=subject.worker,
        )
        return create, content

    def _change(
        self, told: Told, state: CheckpointState, command: str
    ) -> tuple[AnyCommand, Content]:
        event, here = told.event, self._present(told)
        is_same = event.data is None or event.data == here.event.data
        content = self._preparation.content(
            None if is_same else self._data(event.data), self._meta(told), holder_of(here)
        )
        change = Change(
            actor=self._actor,
            checkpoint=event.subject.checkpoint,
            command=command,
            expected=here.position,
            fingerprint=self._fingerprint(command),
            parent=event.subject.parent,
            payloads=content.payloads,
            state=state,
            step=event.step,
            total=event.total,
        )
        return change, content

    def _submit(self, draft: Callable[[], tuple[AnyCommand, Content]]) -> None:
        """Commit a command; prepare it anew where another writer came first."""
        why = ""
        for _ in range(_ATTEMPTS_MAX):
            command, content = draft()
            step = Step(command, content.records)
            self._preparation.learn(content)
            outcome = self._store.submit(Intent((step,), content.packs, content.placements))
            if not isinstance(outcome, Stale):
                self._preparation.remember(content)
                return
            why = outcome.why
        raise BusyError(
            f"Other writers came first {_ATTEMPTS_MAX} times: {why}.", hint="Run the import again."
        )

    def _fingerprint(self, command: str) -> str:
        return blake3(f"{self._contents.store} {command}".encode()).hexdigest()[:32]

    def _data(self, reference: Reference | None) -> Prepared | None:
        return None if reference is None else Prepared(self._reader.wire(reference))

    def _meta(self, told: Told) -> Prepared:
        """Return an event's meta with where it comes from."""
        reference = told.event.meta
        meta = {} if reference is None else _loaded(self._reader.wire(reference), told)
        metadata = meta.get("metadata", {})
        if type(metadata) is not dict:
            raise FormatError(f"The metadata of event {told.position} are no object.")
        source = {
            "store": self._contents.store,
            "position": told.position,
            "time": told.event.time,
            "actor": told.event.actor,
            "leaf": told.leaf.hex(),
        }
        if KEY in metadata:
            source["before"] = metadata[KEY]
        whole = {"title": "", "description": "", **meta, "metadata": {**metadata, KEY: source}}
        return Prepared(json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode())

    def _record(self) -> None:
        """Append the fact of the import."""
        report = self._report
        facts: dict[str, int | str] = {
            "failed": 0,
            "imported": report.imported,
            "origin": report.origin,
            "size": report.size,
            "unchanged": report.unchanged,
        }
        command = Record(
            actor=self._actor,
            command=self._preparation.command_id(),
            type=IMPORTED,
            facts=facts,
        )
        self._store.submit(Intent((Step(command),)))


def _id(told: Told) -> str:
    return f"{_PREFIX}{told.leaf.hex()}"


def _ids(told: Told) -> tuple[str, ...]:
    own = _id(told)
    return own, f"{own}-create", f"{own}-restored"


def _loaded(wire: bytes, told: Told) -> dict[str, Any]:
    try:
        meta = json.loads(wire)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"The meta of event {told.position} is no JSON: {error}") from error
    if type(meta) is not dict:
        raise FormatError(f"The meta of event {told.position} is no object.")
    return meta


def _check_event(told: Told, past: _Past | None) -> None:
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
