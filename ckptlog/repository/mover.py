"""Moves the chunks that are still wanted out of containers, into new packs.

A chunk stays behind where a later container holds it, too: that one never lets it go without
copying it (specs/collection.md, rule LATEST). The index says where to look; only a frame that was
read and checked counts.

A difference is copied as it is where its base goes into the same pack; else it is made whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable
from pathlib import Path
from typing import Final

import msgspec

from ckptlog.blobs.live_set import LiveSet
from ckptlog.blobs.pack import PackIndex, PackReader, PackWriter
from ckptlog.blobs.run import KEY_BYTES
from ckptlog.blobs.store import BlobStore
from ckptlog.errors import CheckpointError
from ckptlog.formats import chunk
from ckptlog.log.segments import Segments
from ckptlog.log.settling import Sealed, reading
from ckptlog.model.entry import Placement
from ckptlog.model.event import PackEntry

# Lines of a pack that are remembered from the survey to the move, at most.
_FEW: Final = 8

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


class Mover:
    """Reads containers of one store.

    Args:
        live: The chunks that are wanted.
        orders: Of every container that counts, by name.
        removed: Containers that count no more.

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
    ) -> None:
        self._root = root
        self._store_id = store_id
        self._segments = segments
        self._blobs = blobs
        self._live = live
        self._orders = orders
        self._removed = removed
        # Wanted chunks of what was surveyed, and those that more than one container has; while
        # all of them fit into memory.
        self._met: set[bytes] = set()
        self._double: set[bytes] = set()
        # Of packs with next to nothing that is wanted: they need not be opened again.
        self._few: dict[str, list[tuple[bytes, int, int]]] = {}

    def survey(self, source: Source) -> Survey:
        """Return what is in a container.

        Raises:
            CheckpointError: It is damaged or missing.
        """
        if source.sealed is None:
            return self._survey_pack(source)
        chunks = chunk_bytes = 0
        kept: list[int] = []
        met: set[bytes] = set()
        with reading(self._segments, source.sealed) as reader:
            for part in reader.outlines(self._live.in_memory()):
                chunks += part.chunks
                chunk_bytes += part.chunk_bytes
                lines = self._wanted(part.kept)
                kept += [length for _, _, length in lines]
                met.update([digest[:KEY_BYTES] for digest, _, _ in lines])
        self._meet(met)
        return Survey(chunks, chunk_bytes, len(kept), sum(kept))

    def _wanted(self, lines: list[tuple[bytes, int, int]]) -> list[tuple[bytes, int, int]]:
        """Return those of some chunks that are wanted; all, where only such were asked for."""
        if self._live.in_memory() is not None:
            return lines
        live = self._live.among([digest for digest, _, _ in lines])
        return [line for line in lines if line[0] in live]

    def _survey_pack(self, source: Source) -> Survey:
        index = PackIndex(self._root / source.container, self._store_id)
        lines = self._lines(index)
        self._meet({digest[:KEY_BYTES] for digest, _, _ in lines})
        if len(lines) <= _FEW:
            self._few[source.container] = lines
        lengths = [length for _, _, length in lines]
        return Survey(index.count, index.chunk_bytes, len(lengths), sum(lengths))

    def _meet(self, keys: set[bytes]) -> None:
        """Take note of the wanted chunks of a container."""
        if self._live.in_memory() is not None:
            self._double |= self._met & keys
            self._met |= keys

    def _lines(self, index: PackIndex) -> list[tuple[bytes, int, int]]:
        return self._wanted(index.lines(self._live.in_memory()))

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
            lines = self._lines(PackIndex(self._root / source.container, self._store_id))
        if not lines:
            return
        # In the order of the file: a base stands before what differs from it.
        wanted = sorted((at, length, digest) for digest, at, length in lines)
        records = PackReader(self._root, source.container, self._store_id)
        try:
            for offset, length, digest in wanted:
                if self._is_wanted(digest, source, writer):
                    self._put(digest, records.record(offset, length, digest), writer)
        finally:
            records.close()

    def _move_sealed(self, source: Source, sealed: Sealed, writer: PackWriter) -> None:
        with reading(self._segments, sealed) as reader:
            for part in reader.outlines(self._live.in_memory()):
                for digest, offset, length in self._wanted(part.kept):
                    if self._is_wanted(digest, source, writer):
                        self._put(digest, reader.body(offset, length), writer)

    def _is_wanted(self, digest: bytes, source: Source, writer: PackWriter) -> bool:
        """Say whether a live chunk must be copied."""
        return not writer.has(digest) and not self._is_held_later(digest, source)

    def _is_held_later(self, digest: bytes, source: Source) -> bool:
        """Say whether a container that was registered later holds a chunk, read and checked."""
        # What no other container has need not be looked for. Of what came after the survey nothing
        # is known then: to copy a chunk is always right.
        if self._live.in_memory() is not None and digest[:KEY_BYTES] not in self._double:
            return False
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
