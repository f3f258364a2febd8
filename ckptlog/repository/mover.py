"""Moves the chunks that are still wanted out of containers, into new packs.

A chunk stays behind where a later container holds it, too: that one never lets it go without
copying it (specs/collection.md, rule LATEST). The index says where to look; only a frame that was
read and checked counts.

A difference is copied as it is where its base goes into the same pack; else it is made whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Final

import msgspec

from ckptlog.blobs.live_set import LiveSet
from ckptlog.blobs.pack import PackIndex, PackReader, PackWriter
from ckptlog.blobs.run import KEY_BYTES
from ckptlog.blobs.store import BlobStore
from ckptlog.errors import CheckpointError
from ckptlog.formats import chunk
from ckptlog.formats.line import Lines, lines_among
from ckptlog.formats.outline import Outline
from ckptlog.log.sealed import Sealed, SealedReader, reading
from ckptlog.log.segments import Segments
from ckptlog.log.walks import Walks
from ckptlog.model.entry import Placement
from ckptlog.model.event import PackEntry

# Lines of a pack that are remembered from the survey to the move, at most.
_FEW: Final = 8
# Those of segments, whose outlines take longer: of all together, some 20 MB.
_KNOWN_MAX: Final = 100_000
# Chunks that are copied together; few, where many are differences.
_RUN_MIN: Final = 16
_RUN_MAX: Final = 1024

Order = tuple[int, int]
"""How late a container was registered: a position; at one position a segment comes first."""


class Source(msgspec.Struct, frozen=True):
    """A container that may be emptied.

    order: See `Order`. bytes: Of its file. sealed: What it is, if it is a segment.
    """

    container: str
    order: Order
    bytes: int
    sealed: Sealed | None = None


class Survey(msgspec.Struct, frozen=True):
    """What is in a container: chunks and their frames' bytes, and those of them that are wanted."""

    chunks: int
    chunk_bytes: int
    live_chunks: int
    live_bytes: int


class _Tally:
    """Counts the wanted chunks of a container; gathers their keys where there is room for that."""

    def __init__(self, live: LiveSet) -> None:
        self.chunks = self.bytes = 0
        self.keys: set[bytes] = set()
        self._is_gathering = live.in_memory() is not None

    def add(self, lines: Lines) -> None:
        self.chunks += len(lines)
        self.bytes += sum([length for _, _, length in lines])
        if self._is_gathering:
            self.keys.update([digest[:KEY_BYTES] for digest, _, _ in lines])


class Mover:
    """Reads containers of one store.

    Args:
        live: The chunks that are wanted.
        orders: Of every container that counts, by name.
        removed: Containers that count no more.
        walks: What is known of segments; of those that are surveyed the chunks are forgotten.

    Threads: one.
    """

    def __init__(
        self,
        root: Path,
        store_id: bytes,
        segments: Segments,
        blobs: BlobStore,
        *,
        live: LiveSet,
        orders: dict[str, Order],
        removed: Container[str],
        walks: Walks,
    ) -> None:
        self._root = root
        self._store_id = store_id
        self._segments = segments
        self._blobs = blobs
        self._live = live
        self._orders = orders
        self._removed = removed
        self._walks = walks
        # Wanted chunks of what was surveyed, and those that more than one container has; while
        # all of them fit into memory.
        self._met: set[bytes] = set()
        self._double: set[bytes] = set()
        # Of packs with next to nothing that is wanted: they need not be opened again.
        self._few: dict[str, Lines] = {}
        # Of segments: what is wanted of them, while there is room.
        self._known: dict[str, Lines] = {}
        self._room = _KNOWN_MAX

    def survey(self, source: Source) -> Survey:
        """Return what is in a container.

        Raises:
            CheckpointError: It is damaged or missing.
        """
        if source.sealed is None:
            return self._survey_pack(source)
        chunks = chunk_bytes = 0
        tally = _Tally(self._live)
        known: Lines = []
        with reading(self._segments, source.sealed, self._walks) as reader:
            for part in reader.outlines():
                chunks += part.chunks
                chunk_bytes += part.chunk_bytes
                lines = self._in_outline(part)
                tally.add(lines)
                if tally.chunks <= self._room:
                    known += lines
        self._walks.forget_chunks(source.sealed)
        if tally.chunks <= self._room:
            self._room -= tally.chunks
            self._known[source.container] = known
        self._meet(tally.keys)
        return Survey(chunks, chunk_bytes, tally.chunks, tally.bytes)

    def _in_outline(self, part: Outline) -> Lines:
        return self._wanted(lines_among(part.lines, self._live.in_memory(), self._live.sieve()))

    def _wanted(self, lines: Lines) -> Lines:
        """Return those of some chunks that are wanted; all, where only such were asked for."""
        if self._live.in_memory() is not None:
            return lines
        live = self._live.among([digest for digest, _, _ in lines])
        return [line for line in lines if line[0] in live]

    def _survey_pack(self, source: Source) -> Survey:
        index = PackIndex(self._root / source.container, self._store_id)
        keys = self._live.in_memory()
        if keys is not None:
            met, chunks, size = index.met(keys, self._live.sieve())
            self._meet(met)
        else:
            chunks = size = 0
            for lines in self._lines(index):
                chunks += len(lines)
                size += sum([length for _, _, length in lines])
        if chunks <= _FEW:
            few = self._lines(index) if chunks else ()
            self._few[source.container] = [line for lines in few for line in lines]
        return Survey(index.count, index.chunk_bytes, chunks, size)

    def _meet(self, keys: set[bytes]) -> None:
        """Take note of the wanted chunks of a container."""
        if self._live.in_memory() is not None:
            self._double |= self._met & keys
            self._met |= keys

    def unmet(self) -> Iterator[bytes]:
        """Yield the keys of wanted chunks that are in nothing that was surveyed."""
        keys = self._live.in_memory()
        return self._live.unmet() if keys is None else iter(keys - self._met)

    def _lines(self, index: PackIndex) -> Iterator[Lines]:
        return map(self._wanted, index.lines(self._live.in_memory(), self._live.sieve()))

    def move(
        self,
        sources: Iterable[Source],
        writer: PackWriter,
        tell: Callable[[int], None] = lambda _: None,
    ) -> tuple[tuple[PackEntry, ...], tuple[Placement, ...]]:
        """Copy what is wanted of containers into packs; return what to register, and the places.

        Args:
            tell: Is told the bytes of each container that was gone through.

        Raises:
            CheckpointError: A chunk that is wanted is damaged, or the packs cannot be written;
                nothing is left of them.

        Durability: the packs' bytes and names, when it returns.
        """
        try:
            for source in sources:
                if source.sealed is None:
                    self._move_packed(source, writer)
                else:
                    self._move_sealed(source, source.sealed, writer)
                tell(source.bytes)
            return writer.finish()
        except BaseException:
            writer.discard()
            raise

    def _move_packed(self, source: Source, writer: PackWriter) -> None:
        lines = self._few.pop(source.container, None)
        if lines is None:
            index = PackIndex(self._root / source.container, self._store_id)
            lines = [line for some in self._lines(index) for line in some]
        if not lines:
            return
        # In the order of the file: a base stands before what differs from it.
        lines.sort(key=itemgetter(1))
        reader = PackReader(self._root, source.container, self._store_id)
        try:
            self._copy(lines, reader, source, writer)
        finally:
            reader.close()

    def _move_sealed(self, source: Source, sealed: Sealed, writer: PackWriter) -> None:
        known = self._known.get(source.container)
        with reading(self._segments, sealed) as reader:
            if known is not None:
                self._copy(known, reader, source, writer)
                return
            for part in reader.outlines():
                self._copy(self._in_outline(part), reader, source, writer)

    def _copy(
        self, lines: Lines, reader: PackReader | SealedReader, source: Source, writer: PackWriter
    ) -> None:
        """Copy what must be of some chunks of a container, in their order.

        Whole runs at a time; a difference, and what is damaged, alone.
        """
        lines = self._fresh(lines, source, writer)
        at, step = 0, _RUN_MIN
        while at < len(lines):
            count = writer.copy(lines[at : at + step], reader.relocated)
            at += count
            step = min(2 * step, _RUN_MAX) if count == step else _RUN_MIN
            if not count:
                digest, offset, length = lines[at]
                self._put(digest, reader.record(offset, length, digest), writer)
                at += 1

    def _fresh(self, lines: Lines, source: Source, writer: PackWriter) -> Lines:
        """Return those of some live chunks that must be copied, each once."""
        found: dict[bytes, tuple[bytes, int, int]] = {}
        for line in lines:
            found.setdefault(line[0], line)
        has, is_held = writer.has, self._is_held_later
        fresh = [line for line in found.values() if not has(line[0])]
        if self._live.in_memory() is not None:
            # What no other container has need not be looked for. Of what came after the survey
            # nothing is known then: to copy a chunk is always right.
            double, size = self._double, KEY_BYTES
            return [
                line
                for line in fresh
                if line[0][:size] not in double or not is_held(line[0], source)
            ]
        return [line for line in fresh if not is_held(line[0], source)]

    def _is_held_later(self, digest: bytes, source: Source) -> bool:
        """Say whether a container that was registered later holds a chunk, read and checked."""
        place = self._blobs.index.get(digest)
        if place is None or place.container == source.container:
            return False
        # One that is not known to us was registered after we looked.
        order = self._orders.get(place.container)
        if place.container in self._removed or (order is not None and order <= source.order):
            return False
        try:
            self._blobs.check(digest, self._blobs.read_record(place))
        except CheckpointError:
            return False
        return True

    def _put(self, digest: bytes, record: bytes, writer: PackWriter) -> None:
        base = chunk.base_in(record)
        if base:
            writer.make_room(len(record))
            if not writer.has_beside(base):
                ((_, record),) = self._blobs.whole([(digest, record)])
        writer.add(digest, record)


def file_bytes(root: Path, container: str) -> int | None:
    """Return the size of a container's file; None where there is none."""
    try:
        return os.stat(root / container).st_size
    except FileNotFoundError:
        return None
