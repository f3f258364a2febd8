"""A sealed segment, nothing is appended to which any more: walked over by the headers of frames."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from ckptlog.errors import FormatError, LogCorruptionError, operating_system_door
from ckptlog.formats import event, frame, segment, settled
from ckptlog.formats.outline import Outline, events_in, outline
from ckptlog.formats.relocation import Place, relocate
from ckptlog.formats.segment import HEADER_FRAME_BYTES, SegmentHeader
from ckptlog.log.segments import Segments
from ckptlog.log.walks import Walks

EVENT_FRAME_BYTES: Final = frame.HEADER_BYTES + event.PREFIX_BYTES
"""What an event's frame has in front of its stored bytes."""
# Of what a walk yields at once.
_ITEMS_MAX: Final = 100_000
# A segment has no more, or its outline is not remembered.
_WHOLE_ITEMS_MAX: Final = 2 * _ITEMS_MAX
_ROW_BYTES: Final = 250


class Sealed(NamedTuple):
    """A written segment that nothing is appended to any more.

    header: Its own. length: Its valid bytes. stop: Position after its last event. leaf: That one's
    leaf hash.
    """

    header: SegmentHeader
    length: int
    stop: int
    leaf: bytes


class SealedReader:
    """The frames of a sealed segment, walked over by their headers.

    Nothing is believed that is kept: `rows`, `record` and `relocated` check. A walk that does not
    end at the valid length raises.

    Threads: one.
    """

    def __init__(
        self, data: mmap.mmap, sealed: Sealed, where: str, seed: int, walks: Walks
    ) -> None:
        self._data = data
        self._walks = walks
        self._sealed = sealed
        self._where = where
        self._seed = seed

    def outlines(self) -> Iterator[Outline]:
        """Yield the outlines of the frames after the header.

        Cost: the bodies of chunks are not touched; memory for some 100,000 of what is there, or
            for what is remembered of a segment.
        """
        known = self._walks.outline_of(self._sealed)
        if known is not None:
            yield known
            return
        whole = _Whole()
        at, stop = HEADER_FRAME_BYTES, self._sealed.length
        while at < stop:
            part = outline(self._data, at, stop, _ITEMS_MAX)
            whole.add(part)
            yield part
            if part.end == at or (part.end < stop and part.items < _ITEMS_MAX):
                raise self.damaged(part.end)
            at = part.end
        if whole.found is not None:
            self._walks.remember_outline(self._sealed, whole.found)

    def rows(self) -> Iterator[tuple[int, settled.Row]]:
        """Yield position and row of every event.

        Raises:
            LogCorruptionError: One is damaged, or what was yielded does not end as it must.
        """
        known = self._walks.rows_of(self._sealed)
        if known is not None:
            yield from enumerate(known, self._sealed.header.first)
            return
        rows: list[settled.Row] = []
        size = 0
        for position, row in self._checked():
            size += _ROW_BYTES + len(row.data)
            if self._walks.has_room_for_rows(size):
                rows.append(row)
            else:
                rows.clear()
            yield position, row
        self._walks.remember_rows(self._sealed, rows, size)

    def _checked(self) -> Iterator[tuple[int, settled.Row]]:
        """Yield what `rows` does, as the segment has it."""
        position, leaf = self._sealed.header.first, self._sealed.header.leaf
        for part in self.outlines():
            for offset, length, chunks, raw_bytes in events_in(part.events):
                data = self.whole(offset, length)
                if event.decode_prefix(data[frame.HEADER_BYTES : EVENT_FRAME_BYTES])[0] != position:
                    raise self.damaged(offset)
                leaf = event.leaf_hash(data[EVENT_FRAME_BYTES:])
                yield position, settled.Row(offset, data, chunks, raw_bytes)
                position += 1
        if (position, leaf) != (self._sealed.stop, self._sealed.leaf):
            raise self.damaged(self._sealed.length)

    def record(self, offset: int, length: int, digest: bytes) -> bytes:
        """Return the record of a chunk, its frame checked.

        Raises:
            LogCorruptionError: It is damaged, or another one stands there.
        """
        found = self.whole(offset, length)[frame.HEADER_BYTES :]
        if not found.startswith(digest):
            raise self.damaged(offset)
        return found

    def relocated(self, lines: list[tuple[bytes, int, int]], target: Place) -> tuple[bytes, int]:
        """Return the frames of chunks for another place, and of how many lines (see `relocate`)."""
        return relocate(self._data, 0, lines, self._seed, target)

    def whole(self, offset: int, length: int) -> bytes:
        """Return a whole checked frame.

        Raises:
            LogCorruptionError: It is damaged.
        """
        data = self._data[offset : offset + length]
        try:
            end = frame.measure(self._seed, offset, data)[2]
        except FormatError as error:
            raise self.damaged(offset) from error
        if end != length:
            raise self.damaged(offset)
        return data

    def check(self) -> None:
        """Check every frame, chunks too.

        Raises:
            LogCorruptionError: One is damaged.
        """
        end = 0
        for _, _, _, end in frame.walk(self._seed, 0, self._data):  # noqa: B007 - the last one's
            pass
        if end != self._sealed.length:
            raise self.damaged(end)

    def damaged(self, offset: int) -> LogCorruptionError:
        """Return the error for damage at an offset."""
        return LogCorruptionError(
            f"{self._where} is damaged at offset {offset}.",
            hint="Run ckptlog verify. Nothing of it was collected.",
            path=self._where,
            offset=offset,
        )


@contextmanager
def reading(
    segments: Segments, sealed: Sealed, walks: Walks | None = None
) -> Iterator[SealedReader]:
    """Open a sealed, written segment for a walk.

    Args:
        walks: What is known of such segments, and learnt of this one.

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
            yield SealedReader(data, sealed, str(path), seed, walks or Walks())
    finally:
        os.close(fd)


class _Whole:
    """The outline of a whole segment, from its parts; `found` is None where they are too many."""

    def __init__(self) -> None:
        self.found: Outline | None = Outline(HEADER_FRAME_BYTES, 0, b"", b"")

    def add(self, part: Outline) -> None:
        found = self.found
        if found is None or found.items + part.items > _WHOLE_ITEMS_MAX:
            self.found = None
        elif not found.items:
            self.found = part
        else:
            size = found.chunk_bytes + part.chunk_bytes
            lines, events = found.lines + part.lines, found.events + part.events
            self.found = Outline(part.end, size, lines, events)
