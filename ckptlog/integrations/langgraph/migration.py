"""Copies what another checkpointer of LangGraph's has stored into a store, and verifies it.

    source row -> decoded, strictly -> put (checkpoint and writes in one commit)
               -> read back through a second, read-only handle -> compared

What is promised (specs/langgraph.md, section 8):
* The source is only read; ids, order, metadata, writes with their tasks, indices and paths arrive
  as they were. Parents are copied before their children.
* Each checkpoint is compared after it was copied, or found: as wires, which are equal for equal
  values alone.
* Running it again goes on: what is there is compared and left; writes that the source has got
  since are added. What the store has more, because the thread went on there, stays.
* Nothing is overwritten, and what was deleted here stays deleted, unless the thread is named.
* A checkpoint that cannot be read or stored whole is reported, and not stored in part.
* One checkpoint is in memory at a time, and the ids of those that came early.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ckptlog.errors import (
    ArgumentError,
    CheckpointCorruptionError,
    CheckpointError,
    CheckpointNotFoundError,
    CheckpointStorageError,
    CreationRefusedError,
    LogCorruptionError,
    QuotaError,
    UnregisteredTypeError,
    operating_system_door,
)
from ckptlog.formats.segment import segment_name
from ckptlog.integrations.langgraph import opening
from ckptlog.integrations.langgraph.address import Address
from ckptlog.integrations.langgraph.name import task_of
from ckptlog.integrations.langgraph.original import Key, Opened, Original, Source, opened
from ckptlog.integrations.langgraph.outcome import Fault, MigrationReport
from ckptlog.integrations.langgraph.reader import Found, Question, Reader
from ckptlog.integrations.langgraph.record import Wiring, Write
from ckptlog.integrations.langgraph.rereading import Rereader, UnreadableError
from ckptlog.integrations.langgraph.writer import Rules, Writer
from ckptlog.log.segments import FOLDER
from ckptlog.manager.manager import CheckpointManager
from ckptlog.manager.preparation import Preparation
from ckptlog.manager.quota import Quota
from ckptlog.model.codec import TypeCodec
from ckptlog.model.event import IMPORTED
from ckptlog.model.quotation import quoted
from ckptlog.policy.sanitise import sanitiser_of
from ckptlog.repository.opening import open_store
from ckptlog.repository.statistics import measure
from ckptlog.repository.store import Store

DIFFERS: Final = "import.differs"
_MEBIBYTE: Final = 1024 * 1024
_CACHE_BYTES: Final = 16 * _MEBIBYTE

Progress = Callable[[int, int], None]


def import_sqlite(
    target: Store | CheckpointManager, path: str | Path, **options: Any
) -> MigrationReport:
    """Copy the database of a SqliteSaver (or AsyncSqliteSaver) into a store.

    Args:
        options: As those of `import_source`.

    Raises:
        ArgumentError: The file is none, or another program's.
    """
    from ckptlog.integrations.langgraph.sqlite import SqliteSource

    source = SqliteSource(path)
    try:
        return import_source(target, source, **options)
    finally:
        source.close()


def import_postgres(target: Store | CheckpointManager, dsn: str, **options: Any) -> MigrationReport:
    """Copy the tables of a PostgresSaver into a store. Needs psycopg.

    Args:
        dsn: As psycopg takes it. It is never shown or stored.
        options: As those of `import_source`.

    Raises:
        ArgumentError: psycopg is missing, or the database is another program's.
        CheckpointStorageError: The server cannot be reached.
    """
    from ckptlog.integrations.langgraph.postgres import PostgresSource

    source = PostgresSource(dsn)
    try:
        return import_source(target, source, **options)
    finally:
        source.close()


def import_source(
    target: Store | CheckpointManager,
    source: Source,
    *,
    types: Iterable[type | TypeCodec] = (),
    threads: Sequence[str] | None = None,
    is_dry_run: bool = False,
    progress: Progress | None = None,
) -> MigrationReport:
    """Copy what a source has, and compare it.

    Args:
        types: Classes of your own in the states, as `CkptlogSaver` takes them; what is not named
            is not read.
        threads: Only these; they are copied even if they were deleted here. None for all.
        is_dry_run: Decode and prepare everything, and store nothing.
        progress: Called with the numbers of checkpoints done and of all.

    Returns:
        What was done; look at `failed`: a bad checkpoint does not raise.

    Raises:
        ArgumentError: A thread that is named is not there.
        CheckpointStorageError: The store, or the source, refused; what was copied is there.

    Durability: as the store's commits; stopped anywhere, the next run goes on.
    """
    began_s = time.monotonic()
    manager = opening.manager_of(target)
    report = MigrationReport(source.name, is_dry_run)
    before = stored_bytes(manager.store)
    with open_store(manager.store.path, read_only=True, cache_bytes=_CACHE_BYTES) as reading:
        copier = _Copier(manager, reading, source, list(types), report)
        named = None if threads is None else list(dict.fromkeys(threads))
        total = _count(source, named)
        for done, place in enumerate(_places(source, named, report, copier), 1):
            copier.copy(*place)
            if progress is not None:
                progress(done, max(total, done))
    if not is_dry_run and (report.copied or report.completed):
        _record(manager, report)
    report.source_size_bytes = source.size_bytes()
    report.store_size_bytes = stored_bytes(manager.store)
    report.stored_bytes = report.store_size_bytes - before
    report.took_s = time.monotonic() - began_s
    return report


def _places(
    source: Source, threads: list[str] | None, report: MigrationReport, copier: _Copier
) -> Iterator[tuple[Key, str]]:
    """Yield what is to be copied, and count the threads."""
    last, is_wanted = None, True
    for key in source.keys(threads):
        if key.thread != last:
            last = key.thread
            report.threads += 1
            is_wanted = threads is not None or not copier.is_deleted(key.thread)
        for identifier in ordered(source, key):
            if is_wanted:
                yield key, identifier
            else:
                report.checkpoints += 1
                report.deleted += 1


def _count(source: Source, threads: list[str] | None) -> int:
    """Return the number of checkpoints.

    Raises:
        ArgumentError: A thread that is named is not there.
    """
    if threads is None:
        return source.count(None)
    total = 0
    for thread in threads:
        number = source.count([thread])
        if not number:
            raise ArgumentError(
                f"{source.name} has no thread {quoted(thread)}.",
                hint="Check the name; without one, all threads are copied.",
                thread_id=thread,
            )
        total += number
    return total


def ordered(source: Source, key: Key) -> Iterator[str]:
    """Yield the ids of a namespace's checkpoints, the oldest first, each after its parent."""
    early: set[str] = set()
    after = None
    while page := source.page(key, after):
        for identifier, parent in page:
            after = identifier
            if identifier in early:
                early.discard(identifier)
                continue
            chain = [identifier]
            # Ids rise with time; a parent that stands behind its child is rare.
            while parent > identifier and parent not in early and parent not in chain:
                grandparent = source.parent(key, parent)
                if grandparent is None:
                    break
                chain.append(parent)
                parent = grandparent  # noqa: PLW2901 - up the chain
            early.update(chain[1:])
            yield from reversed(chain)


def stored_bytes(store: Store) -> int:
    """Return what a store takes, without its views, its reserve, and the room kept for appends."""
    end = store.log.end()
    segment = store.path / FOLDER / segment_name(end.first, end.generation)
    with operating_system_door("Looking at the log failed"):
        kept = segment.stat().st_size - end.offset if segment.exists() else 0
    return measure(store.path).stored - max(kept, 0)


def _record(manager: CheckpointManager, report: MigrationReport) -> None:
    """Append the fact of the import; a run that found nothing new appends nothing."""
    facts: dict[str, int | str] = {
        "completed": report.completed,
        "copied": report.copied,
        "failed": report.failed,
        "unchanged": report.unchanged,
        "writes": report.writes,
    }
    manager.record(IMPORTED, facts)


class _Copier:
    """Copies single checkpoints.

    Args:
        reading: Another handle of the manager's store: what it reads was stored.
    """

    def __init__(
        self,
        manager: CheckpointManager,
        reading: Store,
        source: Source,
        types: list[type | TypeCodec],
        report: MigrationReport,
    ) -> None:
        options = opening.options_of({"types": types})
        self._store = manager.store
        self._source = source
        self._report = report
        self._wiring = Wiring(
            opening.registry(options, manager.store.codecs),
            None,
            leaves_out_id=manager.store.info.event_schema > 1,
        )
        self._reader = Reader(reading, self._wiring)
        self._reading = reading
        preparation = Preparation(
            manager.store,
            sanitiser_of(manager.config),
            size_bytes_max=int(options.state_size_mb_max * _MEBIBYTE),
        )
        quota = Quota(manager.store, manager.config.max_storage_size_gb)
        self._writer = Writer(manager, preparation, self._wiring, quota, Rules())
        self._reread = Rereader(
            one.kind if isinstance(one, TypeCodec) else one for one in options.types
        )

    def is_deleted(self, thread: str) -> bool:
        """Say whether a thread was deleted here, and has not begun anew."""
        if not self._store.incarnation(task_of(thread)):
            return False
        return next(self._reader.named(Question(thread)), None) is None

    def copy(self, key: Key, identifier: str) -> None:
        """Copy a checkpoint, or see that it is here; faults go into the report."""
        self._report.checkpoints += 1
        try:
            original = self._source.read(key, identifier)
            if original is not None:  # else deleted there meanwhile
                self._copy(key, original, opened(original, self._reread))
        except UnreadableError as error:
            self._fail(key, identifier, error.path, (error.code, error.reason))
        except (LogCorruptionError, QuotaError):
            raise  # all others would end so too
        except (CheckpointCorruptionError, UnregisteredTypeError) as error:
            # A row that cannot be read, there or here.
            self._fail(key, identifier, "", (error.code, error.message))
        except CheckpointStorageError:
            raise
        except CheckpointError as error:
            path = str(error.context.get("path", ""))
            self._fail(key, identifier, path, (error.code, error.message))

    def _fail(self, key: Key, identifier: str, path: str, what: tuple[str, str]) -> None:
        self._report.add(Fault(key.thread, key.space, identifier, path, *what))

    def _copy(self, key: Key, original: Original, whole: Opened) -> None:
        address = Address(key.thread, key.thread, key.space, original.identifier)
        found = self._reader.get(address)
        missing = _missing(found, whole.writes)
        if self._report.is_dry_run:
            self._try(found, missing, whole)
            return self._count(found, missing, original)
        try:
            now = found
            if now is None:
                parent = address._replace(checkpoint=original.parent or None)
                self._writer.put(parent, whole.checkpoint, whole.metadata, whole.writes)
                now = self._reader.get(address)
            # New in the source; or, where writes stood here before their checkpoint, its others.
            if left := _missing(now, whole.writes):
                self._writer.put_writes(address, left)
                now = self._reader.get(address)
        except (CreationRefusedError, CheckpointNotFoundError):
            self._report.deleted += 1
            return None
        self._count(found, missing, original)
        difference = self._difference(now, original, whole)
        if difference is None:
            self._report.verified += 1
        else:
            self._fail(key, original.identifier, *difference)
        return None

    def _try(self, found: Found | None, missing: list[Write], whole: Opened) -> None:
        """Refuse what could not be stored."""
        if found is None:
            self._wiring.checkpoint(whole.checkpoint, whole.writes)
            self._wiring.meta("", "", whole.metadata)
        elif missing:
            self._wiring.writes(missing)

    def _count(self, found: Found | None, missing: list[Write], original: Original) -> None:
        report = self._report
        report.writes += len(missing)
        if found is None:
            report.copied += 1
            report.copied_bytes += original.size_bytes
        elif missing:
            report.completed += 1
        else:
            report.unchanged += 1

    def _difference(
        self, found: Found | None, original: Original, whole: Opened
    ) -> tuple[str, tuple[str, str]] | None:
        """Return where a checkpoint here is another one, and how; None where it is the same."""
        if found is None:
            return "", (DIFFERS, "It is not found after it was stored.")
        for path, here, there in (
            ("parent", found.parent or "", original.parent),
            ("checkpoint", self._state(found.checkpoint), self._state(whole.checkpoint)),
            ("metadata", self._wire(found.metadata), self._wire(whole.metadata)),
        ):
            if here != there:
                return path, (DIFFERS, _OTHER)
        stored = {(write.task, write.number): write for write in found.writes}
        for number, write in enumerate(sorted(whole.writes, key=lambda one: one.order)):
            same = stored.get((write.task, write.number))
            if same is None or self._wire({"": list(same)}) != self._wire({"": list(write)}):
                return f"writes[{number}]", (DIFFERS, _OTHER)
        return None

    def _state(self, checkpoint: dict[str, Any]) -> bytes:
        return self._wiring.checkpoint(checkpoint).wire  # with the channels at one place

    def _wire(self, value: dict[str, Any]) -> bytes:
        return self._wiring.prepare(value).wire


_OTHER: Final = (
    "The store has another value. Nothing was overwritten: the thread has gone on here, or the "
    "source was changed after it was copied."
)


def _missing(found: Found | None, writes: list[Write]) -> list[Write]:
    there = {(write.task, write.number) for write in found.writes} if found else set()
    return [write for write in writes if (write.task, write.number) not in there]
