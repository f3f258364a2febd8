"""A segment's file as its readers see it, as it was written or settled.

A settled segment (formats.settled) has its events only. It answers as the file did that it stands
for: each frame of an event lies at its old offset, and between them nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final, NamedTuple, Protocol

from ckptlog.errors import FormatError, LogCorruptionError
from ckptlog.formats import frame, segment, settled
from ckptlog.formats.segment import HEADER_FRAME_BYTES
from ckptlog.storage.disk import Disk

# Blocks that stay decompressed: a reader goes forward, or asks for neighbours.
_BLOCKS_KEPT: Final = 4


class SegmentFile(Protocol):
    """One open segment.

    is_settled: Whether its chunks are gone.

    Threads: one at a time.
    """

    is_settled: bool

    @property
    def size(self) -> int:
        """Length in bytes; of a settled one, what of it was valid."""

    def read(self, length: int, offset: int) -> bytes:
        """Return up to length bytes from offset; fewer only at the end. Zeros where nothing is."""

    def run(self, length: int, offset: int) -> bytes:
        """Do as `read`, but end where nothing is."""

    def seek(self, offset: int) -> int:
        """Return the first offset from this one on at which something may be."""

    def brought(self, offset: int) -> tuple[int, int] | None:
        """Return chunks, and their bytes before compression, that came with the event there.

        None where they stand before it.
        """

    def close(self) -> None:
        """Close it; twice is fine."""


class WrittenSegment:
    """A segment as it was written, or another file of frames."""

    is_settled = False

    def __init__(self, disk: Disk, fd: int) -> None:
        self._disk = disk
        self._fd = fd

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self._disk.size(self._fd)

    def read(self, length: int, offset: int) -> bytes:
        """Return up to length bytes from offset; fewer only at the end of the file."""
        return self._disk.read(self._fd, length, offset)

    run = read

    def seek(self, offset: int) -> int:
        """Return the offset: something may be anywhere."""
        return offset

    def brought(self, offset: int) -> tuple[int, int] | None:  # noqa: ARG002
        """Return None: chunks stand before their event."""
        return None

    def close(self) -> None:
        """Close the file; twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._disk.close(fd)


class _Block(NamedTuple):
    """A block: where it starts, where each event's frame ends, the events."""

    start: int
    ends: list[int]
    rows: list[settled.Row]


class SettledSegment:
    """A segment of which the events are left.

    Args:
        fd: Of the settled segment's file; it is this object's from now on, whatever happens.
        name: (first, generation). where: The path, for messages.
        is_lenient: Take a damaged block for one without events; `fault` says what is wrong.

    Raises:
        LogCorruptionError: The file is damaged.
    """

    is_settled = True

    def __init__(
        self,
        disk: Disk,
        fd: int,
        store_id: bytes,
        name: tuple[int, int],
        where: str,
        *,
        is_lenient: bool = False,
    ) -> None:
        self.fault = ""
        self._is_lenient = is_lenient
        self._disk = disk
        self._fd = fd
        self._store_id = store_id
        self._name = name
        self._where = where
        self._place = settled.seed(store_id, *name)
        self._blocks: dict[int, _Block] = {}
        # The event that was looked at last: who goes forward asks for it again, or for the next.
        self._near: tuple[_Block, int] | None = None
        try:
            self._lines, self._trailer = self._read_end()
        except FormatError as error:
            self.close()
            raise self._damaged(error) from error
        except BaseException:
            self.close()
            raise
        self._starts = [line.start for line in self._lines]

    @property
    def size(self) -> int:
        """What of the segment was valid, bytes."""
        return self._trailer.valid_length

    @property
    def events(self) -> int:
        """Number of events."""
        return self._trailer.events

    def read(self, length: int, offset: int) -> bytes:
        """Return up to length bytes from offset, zeros where chunks stood."""
        stop = min(offset + length, self.size)
        parts: list[bytes] = []
        at = offset
        while at < stop:
            found = self._row(at)
            if found is None:
                break
            if found.offset > at:
                parts.append(bytes(min(found.offset, stop) - at))
                at = min(found.offset, stop)
            begin = at - found.offset
            parts.append(found.data[begin : begin + stop - at])
            at += len(parts[-1])
        return b"".join(parts)

    def run(self, length: int, offset: int) -> bytes:
        """Return up to length bytes from offset, up to where chunks stood."""
        stop = min(offset + length, self.size)
        parts: list[bytes] = []
        at = offset
        while at < stop:
            found = self._row(at)
            if found is None or found.offset > at:
                break
            begin = at - found.offset
            parts.append(found.data[begin : begin + stop - at])
            at += len(parts[-1])
        return b"".join(parts)

    def seek(self, offset: int) -> int:
        """Return the first offset from this one on at which an event's frame stands."""
        found = self._row(offset)
        return offset if found is None else max(offset, found.offset)

    def brought(self, offset: int) -> tuple[int, int] | None:
        """Return chunks, and their bytes before compression, that came with the event there."""
        found = self._row(offset)
        return None if found is None else (found.chunks, found.raw_bytes)

    def close(self) -> None:
        """Close the file; twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._disk.close(fd)

    def _row(self, offset: int) -> settled.Row | None:
        """Return the event whose frame holds an offset, or else the next one; None behind all."""
        if self._near is not None:
            block, at = self._near
            ends = block.ends
            if (ends[at - 1] if at else block.start) <= offset < ends[at]:
                return block.rows[at]
            if ends[at] <= offset and at + 1 < len(ends) and offset < ends[at + 1]:
                self._near = (block, at + 1)
                return block.rows[at + 1]
        if not self._lines or offset >= self._lines[-1].stop:
            return None
        if offset < HEADER_FRAME_BYTES:
            return self._header()
        block = self._block(bisect_right(self._starts, offset) - 1)
        at = bisect_right(block.ends, offset)
        self._near = (block, at)
        return block.rows[at]

    def _header(self) -> settled.Row:
        """Return the header's frame in the form that the segment had it."""
        data = self._disk.read(self._fd, HEADER_FRAME_BYTES, 0)
        try:
            header = settled.decode_header(self._store_id, *self._name, data)
        except FormatError as error:
            raise self._damaged(error) from error
        return settled.Row(0, segment.encode(header), 0, 0)

    def _block(self, index: int) -> _Block:
        block = self._blocks.get(index)
        if block is None:
            line = self._lines[index]
            rows = self._rows_of(line)
            while len(self._blocks) >= _BLOCKS_KEPT:
                del self._blocks[next(iter(self._blocks))]
            ends = [row.offset + len(row.data) for row in rows]
            block = self._blocks[index] = _Block(line.start, ends, rows)
        return block

    def _rows_of(self, line: settled.Line) -> list[settled.Row]:
        data = self._disk.read(self._fd, line.length, line.offset)
        try:
            return settled.decode_block(self._place, line, data)
        except FormatError as error:
            if not self._is_lenient:
                raise self._damaged(error) from error
            self.fault = f"{self._where} is damaged at offset {line.offset}: {error.message}"
            return [settled.Row(line.stop, b"", 0, 0)]

    def check(self) -> None:
        """Read every block.

        Raises:
            LogCorruptionError: One is damaged.
        """
        count = sum(len(self._rows_of(line)) for line in self._lines)
        if count != self._trailer.events:
            raise self._damaged(FormatError(f"It has {count} events, not {self._trailer.events}."))
        self._header()

    def _read_end(self) -> tuple[list[settled.Line], settled.Trailer]:
        size = self._disk.size(self._fd)
        at = size - settled.TRAILER_FRAME_BYTES
        if at < HEADER_FRAME_BYTES + frame.HEADER_BYTES:
            raise FormatError(f"{size} bytes cannot be a settled segment.")
        data = self._disk.read(self._fd, settled.TRAILER_FRAME_BYTES, at)
        trailer = settled.decode_trailer(self._place, size, data)
        data = self._disk.read(self._fd, at - trailer.index_at, trailer.index_at)
        return settled.decode_index(self._place, trailer, data), trailer

    def _damaged(self, error: FormatError) -> LogCorruptionError:
        return LogCorruptionError(
            f"{self._where} is damaged: {error.message}",
            hint="Run ckptlog verify, then ckptlog repair.",
            path=self._where,
        )
