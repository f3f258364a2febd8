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

import msgspec

from ckptlog.blobs.pack import PackWriter, read_index
from ckptlog.blobs.store import BlobStore
from ckptlog.errors import CheckpointError
from ckptlog.formats import chunk, frame
from ckptlog.log.segments import Segments
from ckptlog.log.settling import Sealed, reading
from ckptlog.model.entry import Placement
from ckptlog.model.event import PackEntry

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


class Survey(msgspec.Struct):
    """What is in a container: chunks and their bytes, and those of them that are wanted."""

    chunks: int = 0
    chunk_bytes: int = 0
    live_chunks: int = 0
    live_bytes: int = 0

    def add(self, length: int, *, is_live: bool) -> None:
        """Count a chunk's frame."""
        self.chunks += 1
        self.chunk_bytes += length
        if is_live:
            self.live_chunks += 1
            self.live_bytes += length


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
        live: Container[bytes],
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

    def survey(self, source: Source) -> Survey:
        """Return what is in a container.

        Raises:
            CheckpointError: It is damaged or missing.
        """
        found, live = Survey(), self._live
        if source.sealed is None:
            for place in self._packed(source):
                found.add(place.length, is_live=place.digest in live)
            return found
        with reading(self._segments, source.sealed) as reader:
            for met in reader.frames():
                if met.kind == frame.CHUNK:
                    found.add(met.length, is_live=met.digest in live)
        return found

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
        # In the order of the file: a base stands before what differs from it.
        for place in sorted(self._packed(source), key=lambda one: one.offset):
            if self._is_wanted(place.digest, source, writer):
                self._put(place.digest, self._blobs.read_record(place), writer)

    def _move_sealed(self, source: Source, sealed: Sealed, writer: PackWriter) -> None:
        with reading(self._segments, sealed) as reader:
            for met in reader.frames():
                if met.kind == frame.CHUNK and self._is_wanted(met.digest, source, writer):
                    self._put(met.digest, reader.body(met), writer)

    def _packed(self, source: Source) -> tuple[Placement, ...]:
        return read_index(self._root / source.container, self._store_id)

    def _is_wanted(self, digest: bytes, source: Source, writer: PackWriter) -> bool:
        return (
            digest in self._live
            and not writer.has(digest)
            and not self._is_held_later(digest, source)
        )

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
            self._blobs.read_record(place)
        except CheckpointError:
            return False
        return True

    def _put(self, digest: bytes, record: bytes, writer: PackWriter) -> None:
        writer.make_room(len(record))
        base = chunk.base_in(record)
        if base and not writer.has_beside(base):
            ((_, record),) = self._blobs.whole([(digest, record)])
        writer.add(digest, record)


def file_bytes(root: Path, container: str) -> int | None:
    """Return the size of a container's file; None where there is none."""
    try:
        return os.stat(root / container).st_size
    except FileNotFoundError:
        return None
