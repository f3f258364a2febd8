"""Reading the log in bulk: runs of raw events, checked as frames, not yet made into objects.

For consumers that take in millions of events and make columns of them, an object for each event
and each chunk costs more than all the rest. What is checked here is what `log.scan` checks of
frames: their checksums and order, that commits are whole, that positions are dense, and that each
segment ends where its successor, or the published end, says, with that leaf hash. What an event
says is left to who decodes it.

Where anything is odd this reader just ends, having yielded whole commits only; `LogReader` is the
one that tells damage from a segment that was replaced meanwhile (specs/log.md).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from ckptlog.errors import CheckpointCorruptionError
from ckptlog.formats import chunk, event, frame, segment
from ckptlog.formats.end import End
from ckptlog.formats.segment import HEADER_FRAME_BYTES, SegmentHeader
from ckptlog.log.scan import Window
from ckptlog.log.segments import Segments, container_of, parse_container
from ckptlog.model.cursor import Cursor
from ckptlog.model.leaf import leaf_hash

EVENT_FRAME_BYTES = frame.HEADER_BYTES + event.PREFIX_BYTES
"""What an event's frame has in front of its stored bytes."""
_RAW_LENGTH_AT = frame.HEADER_BYTES + chunk.RAW_LENGTH_AT
_RECORD_BYTES_MIN = frame.HEADER_BYTES + 52
_LENGTH = struct.Struct("<I")
_DIGEST_BYTES = 32
# Bounds what a run holds, however large its events and chunks are.
_STRETCH_BYTES = 8 * 1024 * 1024


class Stretch(NamedTuple):
    """A run of whole commits of one segment.

    first: Position of the first event. start: Offset at which the first commit begins.
    entries: Stored bytes of the events (formats.event decodes them), in order.
    commits: For each, the position of the first event of its commit.
    ends: For each, the offset after its frame; chunks that came with it lie before the frame.
    chunks: For each, the number of those chunks, and
    raw_bytes: the sum of their sizes before compression.
    container, offset_end: Where the run ends.
    records: The chunks' records by digest, not yet verified, where they were asked for.
    places: Digest, offset and length of the chunks' frames, in order, where that was asked for.
    """

    first: int
    start: int
    entries: list[bytes]
    commits: list[int]
    ends: list[int]
    chunks: list[int]
    raw_bytes: list[int]
    container: str
    offset_end: int
    records: dict[bytes, bytes]
    places: list[tuple[bytes, int, int]]

    @property
    def position_next(self) -> int:
        """Position after the last event."""
        return self.first + len(self.entries)

    @property
    def cursor(self) -> Cursor:
        """The cursor of a consumer that has taken it."""
        leaf = leaf_hash(self.entries[-1])
        return Cursor(self.position_next, leaf, self.container, self.offset_end)


class BulkReader:
    """Reads one store's segments in runs.

    Threads: safe.
    """

    def __init__(self, segments: Segments, store_id: bytes) -> None:
        self._segments = segments
        self._store_id = store_id

    def stretches(
        self,
        place: Cursor,
        stop: End,
        *,
        events: int,
        with_records: bool = False,
        with_places: bool = False,
        with_settled: bool = True,
    ) -> Iterator[Stretch]:
        """Yield runs of at least so many events, or of 8 MiB, the last of each segment excepted.

        Args:
            place: A commit boundary, as it is in this log; without a container: the beginning of
                the segment that holds its position.
            stop: The published end to read up to.
            with_records: Keep the records of the chunks.
            with_places: Tell where the chunks lie.
            with_settled: Read segments that are settled, which have no chunks any more; else of
                each comes one run without events, at its end.

        Cost: 3 to 4 us for an event and its chunks.
        """
        try:
            for run in self._runs(place, stop):
                if not with_settled and not run.is_written:
                    yield run.empty()
                    continue
                yield from run.stretches(events, with_records=with_records, with_places=with_places)
                if not run.is_complete:
                    return
        except CheckpointCorruptionError:  # a segment is missing, or its header damaged
            return

    def _runs(self, place: Cursor, stop: End) -> Iterator[_Run]:
        self._segments.follow(stop.first, stop.generation)
        named = parse_container(place.container)
        if named is None:
            header = self._segments.holding(min(place.position, stop.first))
            offset, position = HEADER_FRAME_BYTES, header.first
        else:
            header, offset, position = self._segments.header(*named), place.offset, place.position
        while header.first < stop.first:
            after = self._segments.successor(header)
            if after is None:
                return
            ends = (after.previous_length, after.first, after.leaf)
            yield self._run(header, offset, position, ends)
            header, offset, position = after, HEADER_FRAME_BYTES, after.first
        if (header.first, header.generation) == (stop.first, stop.generation):
            ends = (stop.offset, stop.position, stop.leaf)
            yield self._run(header, offset, position, ends)

    def _run(
        self, header: SegmentHeader, offset: int, position: int, ends: tuple[int, int, bytes]
    ) -> _Run:
        name = (header.first, header.generation)
        seed = segment.seed(self._store_id, *name)
        segments, container = self._segments, container_of(*name)
        return _Run(segments, name, seed, container, offset=offset, position=position, ends=ends)


class _Run:
    """One pass over the durable part of a segment.

    Args:
        ends: Offset, position and leaf hash where that part ends.

    Attributes:
        is_complete: Whether the pass came to that end.
    """

    def __init__(
        self,
        segments: Segments,
        name: tuple[int, int],
        seed: int,
        container: str,
        *,
        offset: int,
        position: int,
        ends: tuple[int, int, bytes],
    ) -> None:
        self._segments = segments
        self._name = name
        self._seed = seed
        self._container = container
        self._offset = offset
        self._position = position
        self._ends = ends
        self.is_complete = False

    @property
    def is_written(self) -> bool:
        """Whether the segment is there as it was written."""
        return self._segments.exists(*self._name)

    def empty(self) -> Stretch:
        """Return a run of nothing, at the segment's end."""
        offset, position, _ = self._ends
        return self._new(position, offset)

    def stretches(self, events: int, *, with_records: bool, with_places: bool) -> Iterator[Stretch]:
        """Yield the whole commits of the segment, in runs of at least so many events."""
        stop, position, leaf = self._ends
        if self._offset >= stop:
            self.is_complete = (self._offset, self._position) == (stop, position)
            return
        file = self._segments.open(*self._name)
        try:
            last: Stretch | None = None
            for last in self._collect(
                Window(file), events, with_records=with_records, with_places=with_places
            ):
                yield last
        finally:
            file.close()
        if last is not None and (last.offset_end, last.position_next) == (stop, position):
            self.is_complete = leaf_hash(last.entries[-1]) == leaf

    def _collect(  # noqa: C901, PLR0912 - the one loop over all frames
        self, window: Window, events: int, *, with_records: bool, with_places: bool
    ) -> Iterator[Stretch]:
        """The one loop over frames: plain locals, nothing called that need not be."""
        commit = position = self._position
        run = self._new(position, self._offset)
        entries, commits, ends, chunks, sizes = run[2:7]
        records, places = run.records, run.places
        count = size = room = 0
        offset, stop = self._offset, self._ends[0]
        is_settled = window.is_settled
        while offset < stop and self._bring(window, offset, stop):
            offset = window.start
            base, data = window.start, window.data
            for kind, flags, begin, end in frame.walk(self._seed, base, data):
                offset = base + end
                if offset > stop:
                    return
                if kind == frame.EVENT and end - begin > EVENT_FRAME_BYTES:
                    if event.prefix_at(data, begin + frame.HEADER_BYTES)[0] != position:
                        return
                    position += 1
                    entries.append(data[begin + EVENT_FRAME_BYTES : end])
                    commits.append(commit)
                    ends.append(offset)
                    if is_settled:
                        count, size = window.brought(base + begin) or (0, 0)
                    chunks.append(count)
                    sizes.append(size)
                    count = size = 0
                    room += end - begin
                    if flags & frame.COMMIT:
                        commit = position
                        if len(entries) >= events or offset == stop or room >= _STRETCH_BYTES:
                            yield run._replace(offset_end=offset)
                            run = self._new(position, offset)
                            entries, commits, ends, chunks, sizes = run[2:7]
                            records, places, room = run.records, run.places, 0
                elif kind == frame.CHUNK and flags == 0 and end - begin >= _RECORD_BYTES_MIN:
                    count += 1
                    size += _LENGTH.unpack_from(data, begin + _RAW_LENGTH_AT)[0]
                    if with_records or with_places:
                        record = data[begin + frame.HEADER_BYTES : end]
                        digest = record[:_DIGEST_BYTES]
                        if with_records:
                            records[digest] = record
                            room += end - begin
                        if with_places:
                            places.append((digest, base + begin, end - begin))
                else:
                    return

    def _new(self, first: int, start: int) -> Stretch:
        return Stretch(first, start, [], [], [], [], [], self._container, start, {}, [])

    def _bring(self, window: Window, offset: int, stop: int) -> bool:
        """Bring at least the whole frame at offset into the window; say whether there is one."""
        offset = window.seek(offset)
        window.move(offset, frame.HEADER_BYTES, stop)
        size = frame.body_length(window.data[: frame.HEADER_BYTES])
        if size is None:
            return False
        length = frame.HEADER_BYTES + size
        if len(window.data) < length:
            window.move(offset, length, stop)
        # Where the first frame does not check, a walk would end before it and never get on.
        walk = frame.walk(self._seed, offset, window.data)
        return len(window.data) >= length and next(walk, None) is not None
