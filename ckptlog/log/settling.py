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
from pathlib import Path
from typing import Final, Generic, NamedTuple, TypeVar

from ckptlog.errors import FormatError, LogCorruptionError, operating_system_door
from ckptlog.formats import event, frame, segment, settled
from ckptlog.formats.outline import Outline, events_in, outline
from ckptlog.formats.relocation import Place, relocate
from ckptlog.formats.segment import HEADER_FRAME_BYTES, SegmentHeader
from ckptlog.log.segments import Segments
from ckptlog.storage import files

# What a reader decompresses to see one event; larger blocks hardly shrink further.
_BLOCK_BYTES: Final = 64 * 1024
EVENT_FRAME_BYTES: Final = frame.HEADER_BYTES + event.PREFIX_BYTES
"""What an event's frame has in front of its stored bytes."""
# Of what a walk yields at once.
_ITEMS_MAX: Final = 100_000
# A segment has no more, or its outline is not remembered.
_WHOLE_ITEMS_MAX: Final = 2 * _ITEMS_MAX
# What walks remember, in memory: 44 bytes for each chunk; rows, which take so much besides.
_OUTLINES_BYTES_MAX: Final = 24 * 1024 * 1024
_ROWS_BYTES_MAX: Final = 10 * 1024 * 1024
_ROW_BYTES: Final = 250

Kept = TypeVar("Kept")
_Key = tuple[int, int, int, int, bytes]


class Sealed(NamedTuple):
    """A written segment that nothing is appended to any more.

    header: Its own. length: Its valid bytes. stop: Position after its last event. leaf: That one's
    leaf hash.
    """

    header: SegmentHeader
    length: int
    stop: int
    leaf: bytes


class Walks:
    """What walks over sealed segments found, and the events that were read: each touches all pages.

    Some 35 MB at most; of what is more nothing is remembered. Of outlines as little is believed as
    of the headers that they come from; rows were checked, to the end of their segment.

    Threads: one.
    """

    def __init__(self) -> None:
        self._outlines = _Memory[Outline](_OUTLINES_BYTES_MAX)
        self._rows = _Memory[list[settled.Row]](_ROWS_BYTES_MAX)

    def outline_of(self, sealed: Sealed) -> Outline | None:
        """Return the outline of a whole segment, None where that is not known."""
        return self._outlines.get(sealed)

    def remember_outline(self, sealed: Sealed, found: Outline) -> None:
        """Take note of the outline of a whole segment, if there is room."""
        self._outlines.put(sealed, found, len(found.lines) + len(found.events))

    def forget_chunks(self, sealed: Sealed) -> None:
        """Make room: nobody asks for a segment's chunks any more."""
        self._outlines.drop(sealed)

    def rows_of(self, sealed: Sealed) -> list[settled.Row] | None:
        """Return the checked rows of a segment, None where they are not known."""
        return self._rows.get(sealed)

    def has_room_for_rows(self, size: int) -> bool:
        """Say whether rows of so many bytes would be remembered."""
        return size <= self._rows.room

    def remember_rows(self, sealed: Sealed, rows: list[settled.Row], size: int) -> None:
        """Take note of all rows of a segment, checked; if there is room."""
        self._rows.put(sealed, rows, size)


class _Memory(Generic[Kept]):
    """What is known of segments, up to so many bytes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._kept: dict[_Key, tuple[Kept, int]] = {}

    def get(self, sealed: Sealed) -> Kept | None:
        found = self._kept.get(_key(sealed))
        return None if found is None else found[0]

    def put(self, sealed: Sealed, found: Kept, size: int) -> None:
        self.drop(sealed)
        if size <= self.room:
            self.room -= size
            self._kept[_key(sealed)] = found, size

    def drop(self, sealed: Sealed) -> None:
        _, size = self._kept.pop(_key(sealed), (None, 0))
        self.room += size


def _key(sealed: Sealed) -> _Key:
    header = sealed.header
    return header.first, header.generation, sealed.length, sealed.stop, sealed.leaf


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
