"""Writes the settled form of a segment: its events, without the chunks that came with them.

    frames of the segment, in order -> rows -> blocks -> temporary file -> synced -> renamed

While the written segment is there, the settled one does not count (log.segments), so it may be made
at any time and made again. Only a durable `gc.settled` lets the written one go.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from ckptlog.formats import settled
from ckptlog.formats.segment import HEADER_FRAME_BYTES, SegmentHeader
from ckptlog.log.sealed import Sealed, reading
from ckptlog.log.segments import Segments
from ckptlog.log.walks import Walks
from ckptlog.storage import files

# What a reader decompresses to see one event; larger blocks hardly shrink further.
_BLOCK_BYTES: Final = 64 * 1024


class Written:
    """A settled form under a temporary name: nobody reads it before it is published.

    Many may be written before the first is published: one sync of the medium serves all.

    Attributes:
        size: Its bytes.

    Threads: one.
    """

    def __init__(self, path: Path, header: SegmentHeader) -> None:
        self._path = path
        self._fd, self._temporary = files.create_temporary(path)
        self._header = header
        self.size = 0

    def fill(self, rows: Iterable[settled.Row], valid_length: int) -> None:
        """Write everything; errors are those of `write`."""
        writer = _Writer(self._write, self._header)
        for row in rows:
            writer.add(row)
        self.size = writer.finish(valid_length)
        files.begin_writing_back(self._fd, 0, self.size)

    def _write(self, data: bytes, offset: int) -> None:
        files.write_all(self._fd, data, offset)

    def publish(self) -> None:
        """Give it its name.

        Raises:
            CheckpointStorageError: It cannot be made durable, or cannot be named.

        Durability: its bytes, when this returns; for its name the folder must be synced.
        """
        files.sync_file(self._fd)
        files.publish(self._temporary, self._path, durable=False)
        self._close()

    def discard(self) -> None:
        """Remove it, unless it was published."""
        if self._fd >= 0:
            files.remove(self._temporary)
            self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)


def write(segments: Segments, sealed: Sealed, walks: Walks | None = None) -> Written:
    """Write the settled form of a segment, to be published or discarded.

    Args:
        walks: As for `reading`.

    Raises:
        LogCorruptionError: The segment is damaged; nothing was written.
        CheckpointStorageError: It cannot be written; nothing is left of it.
    """
    path = segments.settled_path(sealed.header.first, sealed.header.generation)
    with reading(segments, sealed, walks) as source:
        written = Written(path, sealed.header)
        try:
            written.fill((row for _, row in source.rows()), sealed.length)
        except BaseException:
            written.discard()
            raise
    return written


def settle(segments: Segments, sealed: Sealed, walks: Walks | None = None) -> int:
    """Write the settled form of a segment; return its bytes. Errors are those of `write`.

    Durability: its bytes and its name, when it returns.
    """
    written = write(segments, sealed, walks)
    try:
        written.publish()
        files.sync_directory(segments.path(sealed.header.first, sealed.header.generation).parent)
    finally:
        written.discard()
    return written.size


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
