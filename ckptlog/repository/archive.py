"""Writes tasks of a store into one file: events, the chunks they need, and their proof.

    pass 1, over the log: events of the tasks as they stand, all others folded into subtrees
    pass 2, over the log: the chunks of what living checkpoints name, each once

The file has a temporary name until it is whole and synced. Memory: the names of the tasks'
checkpoints, one million digests at most (a chunk that comes again much later may be written twice),
one payload's digests, one chunk. Page: specs/archive.md.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import msgspec
from blake3 import blake3

from ckptlog.blobs import payload
from ckptlog.blobs.codec import Codec
from ckptlog.errors import (
    ArgumentError,
    CheckpointNotFoundError,
    LogCorruptionError,
    MissingBlobError,
    operating_system_door,
)
from ckptlog.formats import archive, chunk, event
from ckptlog.formats.end import End
from ckptlog.formats.merkle import HASH_BYTES
from ckptlog.formats.stretch import Fold, Gap
from ckptlog.log.bulk import BulkReader
from ckptlog.model import event as kinds
from ckptlog.model.cursor import BEGINNING
from ckptlog.model.event import CHECKPOINT_TYPES, Event, Reference
from ckptlog.model.identifier import check_id
from ckptlog.model.leaf import leaf_hash
from ckptlog.repository.output_file import OutputFile
from ckptlog.repository.report import Progress

if TYPE_CHECKING:
    from ckptlog.repository.store import Store

_STRETCH_EVENTS: Final = 4096
_SEEN_MAX: Final = 500_000
_ROOTS_MAX: Final = 50_000
_HEADS_BYTES_MAX: Final = archive.LIMITS[archive.NOTE]
_LACKS_IN_RECORD: Final = archive.LIMITS[archive.LACK] // HASH_BYTES
# Exact in canonical JSON but for `facts`: inside of a text each quote has a backslash before it.
_TASK: Final = re.compile(rb'"task":("(?:[^"\\]|\\.)*")')


class ArchiveReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive holds.

    path, store, size, root: Of the file; of the log that it is proven to be of (hexadecimal).
    is_signed: Whether a signed head of the store is in it. lacks: Payloads of earlier states that
    the store no longer has. bytes: Of the file.
    """

    path: str
    store: str
    size: int
    root: str
    tasks: tuple[str, ...]
    events: int
    chunks: int
    lacks: int
    bytes: int
    is_signed: bool

    def to_dict(self) -> dict[str, Any]:
        """Return everything, safe for JSON."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        fields["tasks"] = list(fields["tasks"])
        fields["signed"] = fields.pop("is_signed")
        return fields


def export_archive(
    store: Store,
    tasks: Sequence[str],
    path: str | os.PathLike[str],
    *,
    is_replaced: bool = False,
    progress: Progress | None = None,
) -> ArchiveReport:
    """Write tasks into an archive.

    Args:
        is_replaced: Whether a file that is there may be replaced.
        progress: Called now and then with events passed and events in all (twice the log's).

    Raises:
        ArgumentError: No task, a wrong id, the file exists, or it lies in a store or a backup.
        CheckpointNotFoundError: A task has no event in the store.
        CheckpointCorruptionError, MissingBlobError: What a living checkpoint needs is damaged.

    Durability: the file is on the medium, whole, when it returns; else it is as it was. A pipe or
    a device is written through.
    Threads: safe beside writers.
    """
    names = _checked(tasks)
    target = OutputFile(path, is_replaced=is_replaced)
    with target.writing() as file:
        return _Export(store.opened(), names, file, progress).run(target.path)


def _checked(tasks: Sequence[str]) -> list[str]:
    if isinstance(tasks, str) or not tasks:
        raise ArgumentError("No task is named.", hint="Name one or more.", argument="tasks")
    names = sorted({check_id("task_id", task) for task in tasks}, key=str.encode)
    if len(names) > archive.TASKS_MAX:
        raise ArgumentError(f"At most {archive.TASKS_MAX} tasks fit.", argument="tasks")
    return names


class _Seen:
    """Digests that were met lately: a million at most."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._new: set[bytes] = set()
        self._old: set[bytes] = set()

    def add(self, digest: bytes) -> bool:
        """Enter a digest; say whether it is new."""
        if digest in self._new or digest in self._old:
            return False
        if len(self._new) >= self._most:
            self._old, self._new = self._new, set()
        self._new.add(digest)
        return True


class _Export:
    """One export."""

    def __init__(
        self, store: Store, tasks: list[str], file: BinaryIO, progress: Progress | None
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._needles = {msgspec.json.encode(task) for task in tasks}
        self._file = file
        self._progress = progress
        self._offset = 0
        self._hasher = blake3()
        self._events = self._chunks = 0
        self._found: set[str] = set()
        self._deleted: set[str] = set()
        # Living checkpoints of each task, for the deletion of a task.
        self._living: dict[str, set[str]] = {task: set() for task in tasks}
        self._seen = _Seen(_SEEN_MAX)
        self._roots = _Seen(_ROOTS_MAX)
        self._lacks: dict[bytes, None] = {}
        self._codec = Codec()

    def run(self, target: Path) -> ArchiveReport:
        end = self._store.log.end()
        head = self._head(end)
        size = head[0] if head else end.position
        created = datetime.fromtimestamp(self._store.environment.now_us() / 1e6, UTC)
        self._put_raw(archive.MAGIC)
        told = archive.Head(
            created.isoformat(timespec="seconds"),
            archive.FORMAT,
            archive.KIND,
            size,
            self._store.id,
            len(self._tasks),
        )
        self._put(archive.HEAD, archive.encode_head(told))
        for task in self._tasks:
            self._put(archive.TASK, task.encode())
        if head:
            self._put(archive.NOTE, head[2])
        root = self._put_events(end, size)
        if head and root != head[1]:
            raise LogCorruptionError(
                f"The log is not the one that the head of size {size} was signed for.",
                hint="Run ckptlog verify and ckptlog audit.",
            )
        self._refuse_unknown()
        self._put_chunks(end, size)
        self._put_lacks()
        done = archive.Done(
            self._events, self._chunks, len(self._lacks), root, self._hasher.digest()
        )
        self._put(archive.DONE, archive.encode_done(done))
        return ArchiveReport(
            path=str(target),
            store=told.store,
            size=size,
            root=root.hex(),
            tasks=tuple(self._tasks),
            events=self._events,
            chunks=self._chunks,
            lacks=len(self._lacks),
            bytes=self._offset,
            is_signed=head is not None,
        )

    def _put(self, tag: bytes, body: bytes) -> None:
        self._put_raw(archive.encode(tag, self._offset, body))

    def _put_raw(self, data: bytes) -> None:
        with operating_system_door("Cannot write the archive"):
            self._file.write(data)
        self._hasher.update(data)
        self._offset += len(data)

    def _advance(self, done: int, total: int) -> None:
        if self._progress:
            self._progress(done, total)

    # --- the log ------------------------------------------------------------------------------

    def _raw_events(self, end: End, size: int) -> Iterator[tuple[int, list[bytes]]]:
        """Yield runs of events as they stand: the first one's position, and their bytes."""
        log, at = self._store.log, BEGINNING
        bulk = BulkReader(log.segments, self._store.info.id_bytes)
        for stretch in bulk.stretches(at, end, events=_STRETCH_EVENTS):
            yield stretch.first, stretch.entries[: max(0, size - stretch.first)]
            at = stretch.cursor
        if at.position >= min(size, end.position):
            return
        # It ends where anything is odd: the careful reader goes on, and tells what.
        for commit in log.reader.commits(at.container, at.offset, at.position, stop=end):
            raw = commit.raw or (event.encode(commit.entries[0].event),)
            first = commit.entries[0].position
            if leaf_hash(raw[-1]) != commit.leaf:
                raise LogCorruptionError(f"Event {first} is not canonical.", position=first)
            if first >= at.position:
                yield first, list(raw)[: max(0, size - first)]

    def _is_wanted(self, entry: bytes) -> bool:
        return any(found in self._needles for found in _TASK.findall(entry))

    def _wanted(self, end: End, size: int) -> Iterator[tuple[int, Event]]:
        for first, entries in self._raw_events(end, size):
            for number, entry in enumerate(entries):
                if self._is_wanted(entry):
                    fact = event.decode(entry)
                    if fact.subject.task in self._living:
                        yield first + number, fact

    def _put_events(self, end: End, size: int) -> bytes:
        """Write the events of the tasks and the subtrees between them; return the root."""
        fold, gap = Fold(), Gap(0)
        for first, entries in self._raw_events(end, size):
            for position, entry in enumerate(entries, first):
                leaf = leaf_hash(entry)
                fold.add(leaf)
                if self._is_wanted(entry) and self._take(entry):
                    self._put_gap(gap)
                    self._put(archive.EVENT, archive.encode_event(position, entry))
                    self._events += 1
                    gap = Gap(position + 1)
                else:
                    gap.add(leaf)
            self._advance(first + len(entries), 2 * size)
        self._put_gap(gap)
        if fold.size != size:
            raise LogCorruptionError(f"Only {fold.size} of {size} events could be read.")
        return fold.root

    def _put_gap(self, gap: Gap) -> None:
        if gap.stop > gap.start:
            self._put(archive.SKIP, archive.encode_skip(gap.start, gap.stop, gap.hashes))

    def _take(self, entry: bytes) -> bool:
        """Say whether an event is of the tasks, and follow who is deleted."""
        fact = event.decode(entry)
        subject = fact.subject
        living = self._living.get(subject.task)
        if living is None:
            return False
        self._found.add(subject.task)
        if fact.type == kinds.TASK_DELETED:
            self._deleted |= living
            living.clear()
        elif fact.type == kinds.DELETED:
            self._deleted.add(subject.checkpoint)
            living.discard(subject.checkpoint)
        elif fact.type in CHECKPOINT_TYPES:
            living.add(subject.checkpoint)
        return True

    def _refuse_unknown(self) -> None:
        unknown = [task for task in self._tasks if task not in self._found]
        if unknown:
            raise CheckpointNotFoundError(
                f"The store has nothing of the task {unknown[0]!r}.",
                hint="ckptlog list shows what is there.",
                task_id=unknown[0],
            )

    # --- chunks -------------------------------------------------------------------------------

    def _put_chunks(self, end: End, size: int) -> None:
        for position, fact in self._wanted(end, size):
            name = fact.subject.checkpoint
            if fact.type in CHECKPOINT_TYPES and name not in self._deleted:
                for reference in (fact.data, fact.meta):
                    if reference is not None:
                        self._put_payload(reference, name, position)
            self._advance(size + position, 2 * size)

    def _put_payload(self, reference: Reference, name: str, position: int) -> None:
        root = bytes.fromhex(reference.root)
        if root in self._lacks or not self._roots.add(root):
            return
        try:
            for digest, domain, raw in self._chunks_of(reference):
                self._put(archive.CHUNK, self._codec.encode(domain, digest, raw))
                self._chunks += 1
        except MissingBlobError:
            newest = self._store.newest(name)
            if newest is not None and newest.position <= position:
                raise
            self._lacks[root] = None

    def _chunks_of(self, reference: Reference) -> Iterator[tuple[bytes, int, bytes]]:
        """Yield digest, domain and bytes of each chunk of a payload that was not written yet."""
        inner: list[tuple[bytes, int, bytes]] = []
        blobs = self._store.blobs

        def read(digest: bytes, domain: int) -> bytes:
            raw = blobs.raw(digest, domain)
            inner.append((digest, domain, raw))
            return raw

        digests = payload.digests_of(reference, read)
        nodes = {digest for digest, _, _ in inner}
        yield from ((d, domain, raw) for d, domain, raw in inner if self._seen.add(d))
        inner.clear()
        for digest in sorted(digests - nodes):
            if self._seen.add(digest):
                yield digest, chunk.LEAF, blobs.raw(digest, chunk.LEAF)

    def _put_lacks(self) -> None:
        digests = list(self._lacks)
        for at in range(0, len(digests), _LACKS_IN_RECORD):
            self._put(archive.LACK, b"".join(digests[at : at + _LACKS_IN_RECORD]))

    # --- signed heads -------------------------------------------------------------------------

    def _head(self, end: End) -> tuple[int, bytes, bytes] | None:
        """Return size, root and text of the newest signed head that covers the tasks' events."""
        ours = [note for note in self._notes() if is_origin(note, self._store.id)]
        found = [one for one in map(parse_note, ours) if one and one[0] <= end.position]
        if not found:
            return None
        newest = max(found)
        last = max((position for position, _ in self._wanted(end, end.position)), default=-1)
        return newest if newest[0] > last else None

    def _notes(self) -> Iterable[bytes]:
        folder = self._store.path / "heads"
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            return
        for name in names:
            with operating_system_door("Cannot read a signed head"):
                path = folder / name
                if path.is_file() and path.stat().st_size <= _HEADS_BYTES_MAX:
                    yield path.read_bytes()


def is_origin(note: bytes, store: str) -> bool:
    """Say whether a signed head names the log of a store: itself, or what it is since a fork."""
    origin = note.partition(b"\n")[0]
    return (
        re.fullmatch(rb"ckptlog/%b(/[0-9a-f]{8})?" % re.escape(store.encode()), origin) is not None
    )


def parse_note(note: bytes) -> tuple[int, bytes, bytes] | None:
    """Return size, root and text of a signed head; None for what is none.

    Only its text is read (origin, size, root); signatures are for who has the key.
    """
    lines = note.split(b"\n")
    if len(lines) < 5 or b"" not in lines[3:] or not lines[1].isdigit() or len(lines[1]) > 16:
        return None
    try:
        root = base64.b64decode(lines[2], validate=True)
    except binascii.Error:
        return None
    return (int(lines[1]), root, note) if len(root) == HASH_BYTES else None
