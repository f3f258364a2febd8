"""Reads an archive: a stranger's file until every byte of it was checked.

`verify` goes through all of it once: records, order, proof, events, chunks, payloads. Only then are
events and payloads given out. Memory: one record, one payload, 34 bytes for each chunk (the same
runs as the chunk index's), the roots that are lacking. Page: specs/archive.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import msgspec
from blake3 import blake3

from ckptlog.blobs import payload
from ckptlog.blobs.cache import Cache
from ckptlog.blobs.codec import Codec
from ckptlog.blobs.index import ChunkIndex
from ckptlog.errors import (
    ArgumentError,
    CheckpointError,
    FormatError,
    MissingBlobError,
    UnsupportedError,
    operating_system_door,
)
from ckptlog.formats import archive, chunk, event
from ckptlog.formats.stretch import Fold
from ckptlog.model import value as values
from ckptlog.model.entry import Commit, Entry, Placement
from ckptlog.model.event import (
    CHECKPOINT_TYPES,
    DELETED,
    SCHEMA,
    TASK_DELETED,
    Event,
    Reference,
    Subject,
)
from ckptlog.model.leaf import leaf_hash
from ckptlog.model.quotation import quoted
from ckptlog.repository.archive import is_origin, parse_note
from ckptlog.repository.report import Progress

_BUFFER_BYTES: Final = 1024 * 1024
_BATCH: Final = 4096
_SOUND_MAX: Final = 50_000
_CACHE_BYTES: Final = 32 * 1024 * 1024
_PLACE: Final = "archive"
_NOTHING: Final = Event(actor="", id="", schema=SCHEMA, subject=Subject(), time="", type="")
# What may follow what; EVNT and SKIP in any order.
_STAGES: Final = (
    (archive.HEAD,),
    (archive.TASK,),
    (archive.NOTE,),
    (archive.EVENT, archive.SKIP),
    (archive.CHUNK,),
    (archive.LACK,),
    (archive.DONE,),
)
_STAGE_OF: Final = {tag: stage for stage, tags in enumerate(_STAGES) for tag in tags}


class Told(msgspec.Struct, frozen=True):
    """One event of an archive. leaf: Its leaf hash in the log that it comes from."""

    position: int
    event: Event
    leaf: bytes


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What a verified archive holds.

    size, root: Of the log that its events are proven to be in. note: A signed head of it, or empty;
    who has the key checks the signature. deleted: Checkpoints that were deleted in it.
    """

    store: str
    created: str
    size: int
    root: bytes
    note: bytes
    tasks: tuple[str, ...]
    events: int
    chunks: int
    lacks: frozenset[bytes]
    deleted: frozenset[str]


class ArchiveReader:
    """An open archive.

    Raises (every method):
        FormatError: It is damaged, or not an archive; the message has the offset.
        UnsupportedError: A newer version wrote it.

    Threads: one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _open(path)
        self.bytes = os.fstat(self._file.fileno()).st_size
        self._codec = Codec()
        self._index = ChunkIndex(None, bytes(16))
        self._pending: list[Placement] = []
        self._count = 0
        self._raw: Cache[tuple[bytes, int], bytes] = Cache(_CACHE_BYTES)
        self._sound: Cache[tuple[str, str, int], bool] = Cache(_SOUND_MAX)
        self.contents: Contents

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._index.close()
        self._file.close()

    # --- verification -------------------------------------------------------------------------

    def verify(self, progress: Progress | None = None) -> Contents:
        """Check everything; return what is in it."""
        check = _Check()
        total = 2 * self.bytes
        for offset, tag, body in self._records():
            check.take(tag, body, offset)
            if tag == archive.CHUNK:
                self._take_chunk(offset, body)
            if progress:
                progress(offset, total)
        self.contents = contents = check.close()
        self._learn()
        for told, one in enumerate(self.events(), 1):
            self._check_payloads(one)
            if progress:
                progress(self.bytes + self.bytes * told // max(1, contents.events), total)
        return contents

    def _records(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield offset, tag and body of each record; the hash of the whole is compared."""
        hasher = blake3()
        self._file.seek(0)
        magic = self._read(len(archive.MAGIC))
        if magic != archive.MAGIC:
            raise FormatError(f"{self.path} is not an archive of ckptlog.", path=str(self.path))
        hasher.update(magic)
        offset, tag = len(magic), b""
        while tag != archive.DONE:
            head = self._read(archive.HEADER_BYTES)
            tag, length = archive.decode_header(head, offset)
            body = self._read(length)
            if len(body) < length:
                raise FormatError(f"The archive is cut at offset {offset}.", offset=offset)
            archive.check(head + body, offset)
            if tag == archive.DONE and archive.decode_done(body).blake3 != hasher.digest():
                raise FormatError("The archive's hash is another one than it says.")
            yield offset, tag, body
            hasher.update(head)
            hasher.update(body)
            offset += len(head) + len(body)
        if self._read(1):
            raise FormatError(f"Something stands behind the archive, at offset {offset}.")

    def _read(self, length: int) -> bytes:
        with operating_system_door("Cannot read the archive"):
            return self._file.read(length)

    def _take_chunk(self, offset: int, body: bytes) -> None:
        digest = chunk.digest_in(body)
        self._codec.raw(body, digest)  # a difference has no base here: refused
        self._pending.append(Placement(digest, _PLACE, offset, len(body)))
        if len(self._pending) >= _BATCH:
            self._learn()

    def _learn(self) -> None:
        if not self._pending:
            return
        entry = Entry(_NOTHING, self._count, _PLACE, 0, 0, 0)
        self._count += 1
        self._index.add(Commit((entry,), tuple(self._pending), bytes(32), _PLACE, 0))
        self._pending = []
        self._index.flush()

    def _check_payloads(self, one: Told) -> None:
        if one.event.subject.checkpoint in self.contents.deleted:
            return
        for reference in (one.event.data, one.event.meta):
            if reference is None or self.is_lacking(reference):
                continue
            key = (reference.kind, reference.root, reference.size)
            if self._sound.get(key):
                continue
            try:
                self._check_payload(reference)
            except UnsupportedError:
                raise
            except (CheckpointError, RecursionError) as error:
                raise FormatError(
                    f"A payload of event {one.position} in the archive cannot be read: {error}",
                    position=one.position,
                ) from error
            self._sound.put(key, True, 1)

    def _check_payload(self, reference: Reference) -> None:
        if reference.kind == payload.TREE_KIND and reference.size > payload.DECODED_BYTES_MAX:
            for _ in self.chunks(reference):
                pass
        elif type(values.decode(self.wire(reference), opaque=True)) is not dict:
            raise FormatError("It is no dictionary.")

    # --- reading ------------------------------------------------------------------------------

    def events(self) -> Iterator[Told]:
        """Yield the events in order."""
        for _, tag, body in self._records():
            if tag == archive.EVENT:
                position, entry = archive.decode_event(body)
                yield Told(position, event.decode(entry), leaf_hash(entry))
            elif _STAGE_OF[tag] > _STAGE_OF[archive.EVENT]:
                return

    def is_lacking(self, reference: Reference) -> bool:
        """Say whether the archive says that it does not have a payload."""
        return bytes.fromhex(reference.root) in self.contents.lacks

    def wire(self, reference: Reference) -> bytes:
        """Return the verified bytes of a payload."""
        return payload.assemble(reference, self._chunk)

    def is_planted(self, reference: Reference) -> bool:
        """Say whether a payload must come by its chunks (`payload.is_planted`)."""
        return payload.is_planted(reference, self._chunk)

    def chunks(self, reference: Reference) -> Iterator[tuple[bytes, int, bytes]]:
        """Yield digest, domain and verified bytes of each chunk of a tree of branches."""
        branches: set[bytes] = set()

        def read(digest: bytes, domain: int) -> bytes:
            branches.add(digest)
            return self._chunk(digest, domain)

        for digest in sorted(payload.digests_of(reference, read)):
            domain = chunk.BRANCH if digest in branches else chunk.LEAF
            yield digest, domain, self._chunk(digest, domain)

    def _chunk(self, digest: bytes, domain: int) -> bytes:
        raw = self._raw.get((digest, domain))
        if raw is not None:
            return raw
        place = self._index.get(digest)
        if place is None:
            raise MissingBlobError(
                f"Chunk {digest.hex()} is not in the archive.", digest=digest.hex()
            )
        with operating_system_door("Cannot read the archive"):
            body = os.pread(self._file.fileno(), place.length, place.offset + archive.HEADER_BYTES)
        raw = self._codec.raw(body, digest, domain=domain)
        self._raw.put((digest, domain), raw, len(raw))
        return raw


class _Check:
    """Order and numbers of the records, the proof, the events."""

    def __init__(self) -> None:
        self._stage = -1
        self._head: archive.Head
        self._tasks: list[str] = []
        self._known: frozenset[str] = frozenset()
        self._note = b""
        self._fold = Fold()
        self._events = self._chunks = self._lacks = 0
        self._lacking: set[bytes] = set()
        self._living: dict[str, set[str]] = {}
        self._deleted: set[str] = set()
        self._done: archive.Done

    def take(self, tag: bytes, body: bytes, offset: int) -> None:
        """Take the next record."""
        stage = _STAGE_OF[tag]
        if stage < self._stage or (stage == self._stage and tag in (archive.HEAD, archive.NOTE)):
            raise FormatError(f"A {tag.decode()} stands where none may.", offset=offset)
        if self._stage < 0 and tag != archive.HEAD:
            raise FormatError("The archive does not begin with its head.", offset=offset)
        if stage > _STAGE_OF[archive.TASK] >= self._stage:
            self._close_tasks()
        if stage > _STAGE_OF[archive.EVENT] >= self._stage:
            self._close_events()
        self._stage = stage
        self._takers[tag](self, body)

    def close(self) -> Contents:
        """Return what was found, after the last record."""
        head, done = self._head, self._done
        counted = (self._events, self._chunks, len(self._lacking))
        if counted != (done.events, done.chunks, done.lacks):
            raise FormatError(f"The archive holds {counted}, and says otherwise at its end.")
        if self._fold.root != done.root:
            raise FormatError("The events are not in the log that the archive names.")
        told = parse_note(self._note) if self._note else None
        if self._note and (told is None or told[:2] != (head.size, done.root)):
            raise FormatError("The signed head in the archive is of another log.")
        if self._note and not is_origin(self._note, head.store):
            raise FormatError(
                f"The archive says that it is of the store {head.store}, and its signed head does "
                "not."
            )
        return Contents(
            store=head.store,
            created=head.created,
            size=head.size,
            root=done.root,
            note=self._note,
            tasks=tuple(self._tasks),
            events=self._events,
            chunks=self._chunks,
            lacks=frozenset(self._lacking),
            deleted=frozenset(self._deleted),
        )

    def _close_tasks(self) -> None:
        if len(self._tasks) != self._head.tasks:
            raise FormatError(f"{len(self._tasks)} tasks are there, not {self._head.tasks}.")
        self._known = frozenset(self._tasks)

    def _close_events(self) -> None:
        if self._fold.size != self._head.size:
            raise FormatError(f"{self._fold.size} leaves are there, not {self._head.size}.")

    def _take_head(self, body: bytes) -> None:
        self._head = archive.decode_head(body)

    def _take_task(self, body: bytes) -> None:
        try:
            task = body.decode()
        except UnicodeDecodeError as error:
            raise FormatError("A task's id is no text.") from error
        if self._tasks and body <= self._tasks[-1].encode():
            raise FormatError("The tasks are not in order.")
        self._tasks.append(task)

    def _take_note(self, body: bytes) -> None:
        self._note = body

    def _take_skip(self, body: bytes) -> None:
        start, stop, subtrees = archive.decode_skip(body)
        if start != self._fold.size or stop > self._head.size:
            raise FormatError(f"A skip begins at {start}; {self._fold.size} is expected.")
        for width, digest in subtrees:
            self._fold.add(digest, width)

    def _take_event(self, body: bytes) -> None:
        position, entry = archive.decode_event(body)
        if position != self._fold.size or position >= self._head.size:
            raise FormatError(f"Event {position} stands where {self._fold.size} should.")
        fact = event.decode(entry)
        if not event.is_canonical(entry, fact):
            raise FormatError(f"Event {position} is not canonical.")
        subject = fact.subject
        if subject.task not in self._known:
            raise FormatError(f"Event {position} is of another task.")
        self._fold.add(leaf_hash(entry))
        self._events += 1
        living = self._living.setdefault(subject.task, set())
        if fact.type == TASK_DELETED:
            self._deleted |= living
            living.clear()
        elif fact.type == DELETED:
            self._deleted.add(subject.checkpoint)
            living.discard(subject.checkpoint)
        elif fact.type in CHECKPOINT_TYPES:
            living.add(subject.checkpoint)

    def _take_chunk(self, body: bytes) -> None:
        del body
        self._chunks += 1

    def _take_lack(self, body: bytes) -> None:
        self._lacking.update(archive.decode_lack(body))

    def _take_done(self, body: bytes) -> None:
        self._done = archive.decode_done(body)

    _takers: Final = {
        archive.HEAD: _take_head,
        archive.TASK: _take_task,
        archive.NOTE: _take_note,
        archive.EVENT: _take_event,
        archive.SKIP: _take_skip,
        archive.CHUNK: _take_chunk,
        archive.LACK: _take_lack,
        archive.DONE: _take_done,
    }


def _open(path: Path) -> BinaryIO:
    with operating_system_door("Cannot open the archive"):
        if not path.is_file():  # who opens a FIFO that nobody writes to waits for ever
            raise ArgumentError(
                f"{quoted(str(path))} is no file.", hint="Name an archive.", argument="path"
            )
        return open(path, "rb", buffering=_BUFFER_BYTES)
