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

from ckptlog.errors import (
    BusyError,
    FormatError,
    ImportConflictError,
)
from ckptlog.formats.chunk import DIGEST_BYTES
from ckptlog.manager.conflict import Plan, command_id
from ckptlog.manager.preparation import Content, Holder, Preparation, holder_of
from ckptlog.model.entry import Entry
from ckptlog.model.event import IMPORTED, Reference
from ckptlog.model.identifier import check_id
from ckptlog.model.state import CheckpointState, is_legal
from ckptlog.model.value import Prepared
from ckptlog.policy.command import AnyCommand, Change, Create, Payloads, Record, Witness
from ckptlog.policy.decide import Stale
from ckptlog.policy.sanitise import Sanitiser
from ckptlog.repository.archive_reader import ArchiveReader, Contents, Told
from ckptlog.repository.intent import Intent, Step
from ckptlog.repository.planting import Before, Planting
from ckptlog.repository.report import Progress
from ckptlog.repository.store import Store
from ckptlog.storage.lock import WriterLock

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
            plan = Plan(store, reader)
            plan.look()
            run = _Import(store, reader, plan, report, actor or store.environment.actor())
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


class _Import:
    """One import."""

    def __init__(
        self, store: Store, reader: ArchiveReader, plan: Plan, report: ArchiveImport, actor: str
    ) -> None:
        self._store = store
        self._reader = reader
        self._plan = plan
        self._report = report
        self._actor = check_id("actor", actor)
        self._contents = reader.contents
        self._preparation = Preparation(store, Sanitiser(), size_bytes_max=_PAYLOAD_BYTES_MAX)

    def carry_out(self, progress: Progress | None) -> None:
        """Write what is not here yet."""
        report, total = self._report, max(1, self._report.events)
        for done, told in enumerate(self._plan.told(), 1):
            self._bring(told)
            if progress:
                progress(min(done, total), total)
        gone = [name for name, past in self._plan.pasts.items() if past.is_gone]
        report.deleted = len(gone) + len(self._contents.deleted)
        if report.imported:
            self._record()

    def _bring(self, told: Told) -> None:
        event, report = told.event, self._report
        past = self._plan.pasts[event.subject.checkpoint]
        if past.is_gone:
            return
        if self._plan.is_lacking(event):
            report.left_out += 1
            return
        if self._plan.is_here(told, past):
            report.unchanged += 1
            return
        here = self._store.newest(event.subject.checkpoint)
        if here is None:
            is_new = event.state == CheckpointState.CREATED.value
            suffix = "" if is_new else "-create"
            self._submit(lambda: self._create(told, command_id(told) + suffix))
            if is_new:
                report.imported += 1
                return
        target = CheckpointState(event.state)
        if not is_legal(self._present(told).event.state, target.value):
            self._submit(
                lambda: self._change(told, CheckpointState.RESTORED, f"{command_id(told)}-restored")
            )
        self._submit(lambda: self._change(told, target, command_id(told)))
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
        content = self._content(event.data, told, holder)
        create = Create(
            actor=self._actor,
            checkpoint=subject.checkpoint,
            command=command,
            fingerprint=self._plan.fingerprint(command),
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
        content = self._content(None if is_same else event.data, told, holder_of(here))
        change = Change(
            actor=self._actor,
            checkpoint=event.subject.checkpoint,
            command=command,
            expected=here.position,
            fingerprint=self._plan.fingerprint(command),
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

    def _content(self, data: Reference | None, told: Told, holder: Holder | None) -> Content:
        meta = self._meta(told)
        if data is None or not self._reader.is_planted(data):
            return self._preparation.content(self._data(data), meta, holder)
        # Chunk by chunk: its text alone would not give this tree, and may be too long for memory.
        self._store.check_plantable(data.size)
        content = self._preparation.content(None, meta, holder)
        before = None
        if holder is not None and holder.data is not None:
            before = Before(holder.checkpoint, holder.data)
        with Planting(self._store, before) as planting:
            for one in self._reader.chunks(data):
                planting.put(*one)
            planting.put_records((record[:DIGEST_BYTES], record) for record in content.records)
            planted = planting.finish()
            planting.keep()
        witnesses = content.payloads.witnesses
        if before is not None:
            witnesses += (Witness(before.checkpoint, before.data.root),)
        new = planted.new + (content.payloads.new if content.packs else 0)
        return Content(
            Payloads(data, content.payloads.meta, new, content.payloads.sanitised, witnesses),
            planted.records,
            content.packs + planted.packs,
            content.placements + planted.placements,
            content.cacheable,
        )

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


def _loaded(wire: bytes, told: Told) -> dict[str, Any]:
    try:
        meta = json.loads(wire)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"The meta of event {told.position} is no JSON: {error}") from error
    if type(meta) is not dict:
        raise FormatError(f"The meta of event {told.position} is no object.")
    return meta
