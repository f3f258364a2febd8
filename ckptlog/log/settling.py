"""Writes the settled form of a segment: its events, without the chunks that came with them.

    frames of the segment, in order -> rows -> blocks -> temporary file -> synced -> renamed

While the written segment is there, the settled one does not count (log.segments), so it may be made
at any time and made again. Only a durable `gc.settled` lets the written one go.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from ckptlog.errors import FormatError, LogCorruptionError, operating_system_door
from ckptlog.formats import chunk, event, frame, segment, settled
from ckptlog.formats.segment import HEADER_FRAME_BYTES, SegmentHeader
from ckptlog.log.segments import Segments
from ckptlog.storage import files

# What a reader decompresses to see one event; larger blocks hardly shrink further.
_BLOCK_BYTES: Final = 64 * 1024
_HEAD_BYTES: Final = frame.HEADER_BYTES + chunk.HEADER_BYTES
_RAW_AT: Final = frame.HEADER_BYTES + chunk.RAW_LENGTH_AT


class Sealed(NamedTuple):
    """A written segment that nothing is appended to any more.

    header: Its own. length: Its valid bytes. stop: Position after its last event. leaf: That one's
    leaf hash.
    """

    header: SegmentHeader
    length: int
    stop: int
    leaf: bytes


class Met(NamedTuple):
    """One frame of a segment: kind, offset, bytes in all; a chunk's digest, b"" for an event."""

    kind: int
    offset: int
    length: int
    digest: bytes


class SealedReader:
    """The frames of a sealed segment, walked over by their headers.

    Nothing is believed that is kept: `body` checks. A walk that does not end at the valid length
    raises.

    Threads: one.
    """

    def __init__(self, data: mmap.mmap, sealed: Sealed, where: str, seed: int) -> None:
        self._data = data
        self._sealed = sealed
        self._where = where
        self._seed = seed

    def frames(self) -> Iterator[Met]:
        """Yield every frame after the header.

        Cost: a microsecond each; the bodies of chunks are not touched.
        """
        data, at, stop = self._data, HEADER_FRAME_BYTES, self._sealed.length
        length_of = frame.body_length
        while at < stop:
            head = data[at : at + _HEAD_BYTES]
            size = length_of(head)
            if size is None or head[2] not in (frame.EVENT, frame.CHUNK):
                raise self.damaged(at)
            length = frame.HEADER_BYTES + size
            is_chunk = head[2] == frame.CHUNK
            digest = head[frame.HEADER_BYTES : frame.HEADER_BYTES + 32] if is_chunk else b""
            yield Met(head[2], at, length, digest)
            at += length
        if at != stop:
            raise self.damaged(at)

    def body(self, met: Met) -> bytes:
        """Return the checked body of a frame.

        Raises:
            LogCorruptionError: It is damaged.
        """
        data = self._data[met.offset : met.offset + met.length]
        try:
            checked = frame.decode(self._seed, met.offset, data)
        except FormatError as error:
            raise self.damaged(met.offset) from error
        return bytes(checked.body)

    def whole(self, met: Met) -> bytes:
        """Return a whole checked frame."""
        self.body(met)
        return self._data[met.offset : met.offset + met.length]

    def raw_length(self, met: Met) -> int:
        """Return what a chunk claims to be before compression, bytes."""
        at = met.offset + _RAW_AT
        return int.from_bytes(self._data[at : at + 4], "little")

    def damaged(self, offset: int) -> LogCorruptionError:
        """Return the error for damage at an offset."""
        return LogCorruptionError(
            f"{self._where} is damaged at offset {offset}.",
            hint="Run ckptlog verify. Nothing of it was collected.",
            path=self._where,
            offset=offset,
        )


@contextmanager
def reading(segments: Segments, sealed: Sealed) -> Iterator[SealedReader]:
    """Open a sealed, written segment for a walk.

    Raises:
        LogCorruptionError: It is shorter than it must be.
        CheckpointStorageError: It cannot be opened.
    """
    name = (sealed.header.first, sealed.header.generation)
    path = segments.path(*name)
    with operating_system_door("Cannot open a segment"):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_size < sealed.length:
            raise LogCorruptionError(
                f"{path} is shorter than {sealed.length} bytes.",
                hint="Restore it from a backup.",
                path=str(path),
            )
        with mmap.mmap(fd, sealed.length, prot=mmap.PROT_READ) as data:
            seed = segment.seed(sealed.header.store_id, *name)
            yield SealedReader(data, sealed, str(path), seed)
    finally:
        os.close(fd)


def settle(segments: Segments, sealed: Sealed) -> int:
    """Write the settled form of a segment; return its bytes.

    Raises:
        LogCorruptionError: The segment is damaged; nothing was written.
        CheckpointStorageError: It cannot be written; nothing is left of it.

    Durability: bytes and name, when it returns.
    """
    with reading(segments, sealed) as source:
        return _write(segments, sealed, source)


def _write(segments: Segments, sealed: Sealed, source: SealedReader) -> int:
    header = sealed.header
    path = segments.settled_path(header.first, header.generation)
    fd, temporary = files.create_temporary(path)
    try:
        writer = _Writer(lambda data, offset: files.write_all(fd, data, offset), header)
        position, leaf = header.first, header.leaf
        for row, entry in _rows(source):
            if event.decode_prefix(entry)[0] != position:
                raise source.damaged(row.offset)
            leaf = event.leaf_hash(entry[event.PREFIX_BYTES :])
            position += 1
            writer.add(row)
        if (position, leaf) != (sealed.stop, sealed.leaf):
            raise source.damaged(sealed.length)
        size = writer.finish(sealed.length)
        files.sync_file(fd)
    except BaseException:
        os.close(fd)
        files.remove(temporary)
        raise
    os.close(fd)
    files.publish(temporary, path)
    return size


def settled_bytes(header: SegmentHeader, rows: Iterable[settled.Row], valid_length: int) -> bytes:
    """Return a settled segment's bytes from its events.

    Args:
        rows: In order, without a gap from the header up to the valid length.

    Raises:
        FormatError: They do not fill it.
    """
    out = bytearray()

    def write(data: bytes, _offset: int) -> None:
        out.extend(data)

    writer = _Writer(write, header)
    for row in rows:
        writer.add(row)
    writer.finish(valid_length)
    return bytes(out)


def _rows(source: SealedReader) -> Iterator[tuple[settled.Row, bytes]]:
    chunks = raw_bytes = 0
    for met in source.frames():
        if met.kind == frame.CHUNK:
            chunks += 1
            raw_bytes += source.raw_length(met)
            continue
        data = source.whole(met)
        yield settled.Row(met.offset, data, chunks, raw_bytes), data[frame.HEADER_BYTES :]
        chunks = raw_bytes = 0


class _Writer:
    """The file, block by block."""

    def __init__(self, write: Callable[[bytes, int], None], header: SegmentHeader) -> None:
        self._write = write
        self._place = settled.seed(header.store_id, header.first, header.generation)
        self._lines: list[settled.Line] = []
        self._rows: list[settled.Row] = []
        self._bytes = 0
        self._events = 0
        self._start = HEADER_FRAME_BYTES
        self._size = 0
        self._put(settled.encode_header(header))

    def add(self, row: settled.Row) -> None:
        self._rows.append(row)
        self._bytes += len(row.data)
        self._events += 1
        if self._bytes >= _BLOCK_BYTES:
            self._close_block()

    def finish(self, valid_length: int) -> int:
        if self._rows:
            self._close_block()
        self._put(
            settled.encode_end(
                self._place,
                self._size,
                self._lines,
                valid_length=valid_length,
                events=self._events,
            )
        )
        return self._size

    def _close_block(self) -> None:
        data, stop = settled.encode_block(self._place, self._size, self._start, self._rows)
        self._lines.append(settled.Line(self._start, stop, self._size, len(data)))
        self._put(data)
        self._start, self._rows, self._bytes = stop, [], 0

    def _put(self, data: bytes) -> None:
        self._write(data, self._size)
        self._size += len(data)
