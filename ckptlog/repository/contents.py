"""What the log's events rely on: chunks in segments and packs, and the payloads made of them.

Every chunk is decompressed and hashed where it lies, and each payload that any event names is put
together and decoded once, from the medium and past every cache. The places of chunks come from
the containers themselves, never from the store's index, whose word is only compared.

A damaged payload is one problem, however many events name it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from ckptlog.blobs import payload
from ckptlog.blobs.cache import Cache
from ckptlog.blobs.chunker import Chunker
from ckptlog.blobs.codec import Codec
from ckptlog.blobs.index import ChunkIndex
from ckptlog.blobs.pack import FOLDER, read_index
from ckptlog.blobs.store import BlobStore
from ckptlog.errors import CheckpointError, FormatError, UnsupportedError
from ckptlog.formats import frame, pack
from ckptlog.formats.store import StoreInfo
from ckptlog.log.scan import Window
from ckptlog.log.segment_file import WrittenSegment
from ckptlog.model import value as values
from ckptlog.model.entry import Commit, Entry, Placement
from ckptlog.model.event import PackEntry, Reference
from ckptlog.repository.report import Book
from ckptlog.storage.disk import Disk

# A chunk that many differences lead to is undone once.
_BASES_BYTES: Final = 4 * 1024 * 1024
# Versions of one value share most of their chunks: this saves hashing them for each again.
_CHUNK_CACHE_BYTES: Final = 32 * 1024 * 1024
# A root comes again with the next events of its checkpoint; much later it is simply read again.
_ROOTS_REMEMBERED: Final = 50_000

Key = tuple[str, str, int]


class _Bad(msgspec.Struct):
    """A payload that cannot be read, and by which events it is named."""

    error: CheckpointError
    first: Entry
    role: str
    uses: int = 1
    last: dict[str, int] = {}


class Contents:
    """Checks chunks and payloads, commit by commit.

    Args:
        knows: Says whether the store's index knows a chunk; None where there is none to ask.
    """

    def __init__(
        self,
        root: Path,
        info: StoreInfo,
        disk: Disk,
        book: Book,
        knows: Callable[[bytes], bool] | None,
    ) -> None:
        self._root = root
        self._store_id = info.id_bytes
        self._disk = disk
        self._book = book
        self._knows = knows
        self._unknown = 0
        self._codec = Codec()
        self._index = ChunkIndex(None, self._store_id)
        # A tenth of it holds chunks that others are differences from; the rest is not used here.
        self._blobs = BlobStore(
            root,
            self._store_id,
            self._index,
            self._codec,
            Chunker(info.chunker),
            cache_bytes=10 * _BASES_BYTES,
        )
        self._raw: Cache[tuple[bytes, int], bytes] = Cache(_CHUNK_CACHE_BYTES)
        self._sound: Cache[Key, bool] = Cache(_ROOTS_REMEMBERED)
        self._bad: dict[Key, _Bad] = {}
        self._unread: set[str] = set()

    def add(self, commit: Commit, window: Window, packs: list[Placement]) -> None:
        """Check the next commit: its chunks, then the payloads that its events name.

        Args:
            window: On the commit's file.
            packs: The chunks of the packs that it registers.
        """
        # First: a chunk may be a difference from another one of the commit.
        self._learn(commit, packs)
        for place in commit.placements:
            begin = window.locate(place.offset, place.length) + frame.HEADER_BYTES
            record = window.view[begin : begin + place.length - frame.HEADER_BYTES]
            self._chunk(place, record)
        for entry in commit.entries:
            for role, reference in (("data", entry.event.data), ("meta", entry.event.meta)):
                if reference is not None:
                    self._payload(entry, role, reference)

    def report(self, newest: Callable[[str], int]) -> None:
        """Report damaged payloads, and what is worth a note.

        Args:
            newest: Returns the position of a checkpoint's last event; -1 where it is deleted.
        """
        for bad in self._bad.values():
            self._report_payload(bad, newest)
        if self._unknown:
            self._book.notes.append(
                f"{self._unknown} chunks are not in the chunk index; `ckptlog replay` renews it."
            )
        for reason in sorted(self._unread):
            self._book.notes.append(f"Some values were not decoded: {reason}")

    def close(self) -> None:
        """Close the containers."""
        self._blobs.close()

    def wire(self, reference: Reference) -> bytes:
        """Return a payload's bytes, read from the medium and verified."""
        return payload.assemble(reference, self._read)

    # --- chunks -----------------------------------------------------------------------------

    def pack(self, entry: PackEntry) -> list[Placement]:
        """Check a registered pack, every frame of it, and return where its chunks lie."""
        places = read_pack(self._root, self._store_id, entry, self._book)
        if not places:
            return places
        name = pack_of(entry)
        try:
            fd = self._disk.open_read(self._root / FOLDER / name)
            try:
                self._pack_frames(fd, frame.container_seed(self._store_id, name), places)
            finally:
                self._disk.close(fd)
        except CheckpointError as error:  # the medium, or the file went meanwhile
            self._book.problem(error.code, str(error), f"{FOLDER}/{name}")
        return places

    def _pack_frames(self, fd: int, seed: int, places: list[Placement]) -> None:
        window = Window(WrittenSegment(self._disk, fd))
        expected = pack.HEADER_FRAME_BYTES
        for place in sorted(places, key=lambda place: place.offset):
            if place.offset != expected:
                self._damaged(place, f"{expected} is where it should begin")
            expected = place.offset + place.length
            self._book.advance(place.length)
            begin = window.locate(place.offset, place.length)
            try:
                found = frame.decode(seed, place.offset, window.view, begin)
            except FormatError as error:
                self._damaged(place, error.message)
                continue
            if found.kind != frame.CHUNK or found.offset_end != expected:
                self._damaged(place, "another frame stands there")
                continue
            self._chunk(place, found.body)

    def _chunk(self, place: Placement, record: bytes | memoryview) -> None:
        self._book.chunks += 1
        try:
            self._blobs.check(place.digest, bytes(record))
        except CheckpointError as error:
            self._book.problem(error.code, error.message, _where(place))
        if self._knows and not self._knows(place.digest):
            self._unknown += 1

    def _damaged(self, place: Placement, why: str) -> None:
        self._book.problem(
            "blob.corrupt", f"Chunk {place.digest.hex()} is not there: {why}", _where(place)
        )

    def _learn(self, commit: Commit, packs: list[Placement]) -> None:
        if not self._index.add(commit, packs):
            # Positions before it were lost: the index would wait for them for ever.
            first = msgspec.structs.replace(commit.entries[0], position=self._index.position)
            bridged = msgspec.structs.replace(commit, entries=(first, commit.entries[-1]))
            self._index.add(bridged, packs)
        self._index.flush()

    # --- payloads ---------------------------------------------------------------------------

    def _payload(self, entry: Entry, role: str, reference: Reference) -> None:
        key = (reference.kind, reference.root, reference.size)
        if bad := self._bad.get(key):
            bad.uses += 1
            bad.last[entry.event.subject.checkpoint] = entry.position
            return
        if self._sound.get(key):
            return
        self._book.payloads += 1
        try:
            value = values.decode(self.wire(reference), opaque=True)
            if type(value) is not dict:
                raise FormatError(f"It is of type {type(value).__name__}; a dictionary is needed.")
        except UnsupportedError as error:
            self._unread.add(error.message)
        except CheckpointError as error:
            last = {entry.event.subject.checkpoint: entry.position}
            self._bad[key] = _Bad(error, entry, role, last=last)
            return
        self._sound.put(key, True, 1)

    def _read(self, digest: bytes, domain: int) -> bytes:
        raw = self._raw.get((digest, domain))
        if raw is None:
            raw = self._blobs.raw(digest, domain)
            self._raw.put((digest, domain), raw, len(raw))
        return raw

    def _report_payload(self, bad: _Bad, newest: Callable[[str], int]) -> None:
        broken = [name for name, position in bad.last.items() if newest(name) == position]
        shown = ", ".join(broken[:3]) + (", ..." if len(broken) > 3 else "")
        needed = f"Present state of: {shown}." if broken else "Only past states need it."
        first = bad.first
        self._book.problem(
            bad.error.code,
            f"The {bad.role} of {first.event.subject.checkpoint!r} after event {first.position} "
            f"cannot be read: {bad.error.message} {bad.uses} events name it. {needed}",
            f"{first.container}:{first.offset}",
        )


def pack_of(entry: PackEntry) -> str:
    """Return the file name of a registered pack."""
    return pack.pack_name(entry.base, bytes.fromhex(entry.id))


def read_pack(root: Path, store_id: bytes, entry: PackEntry, book: Book) -> list[Placement]:
    """Return where the chunks of a registered pack lie; report it if it is not whole."""
    name = pack_of(entry)
    path = root / FOLDER / name
    try:
        places = list(read_index(path, store_id))
        size = os.stat(path).st_size
        if size != entry.bytes:
            raise FormatError(f"It has {size} bytes; {entry.bytes} were registered.")
    except CheckpointError as error:
        book.problem(error.code, error.message, f"{FOLDER}/{name}")
    except OSError as error:
        book.problem("storage.io", str(error), f"{FOLDER}/{name}")
    else:
        return places
    return []


def left_overs(root: Path, registered: set[str]) -> Iterator[str]:
    """Yield a line for each file that does not count: unregistered packs, torn, temporary."""
    for folder in ("", "log", FOLDER, "views", "views/chunks"):
        try:
            names = sorted(os.listdir(root / folder))
        except OSError:
            continue
        for name in names:
            where = f"{folder}/{name}" if folder else name
            if name.endswith(".tmp"):
                yield f"{where} is a temporary file; it does not count."
            elif folder == "log" and name.startswith("torn-"):
                yield f"{where} was cut off by a recovery; it does not count."
            elif folder == FOLDER and name not in registered:
                yield f"{where} is registered by no event that was read; it does not count."


def _where(place: Placement) -> str:
    return f"{place.container}:{place.offset}"
