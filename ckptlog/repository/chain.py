"""The chain of segments, read to the published end whatever stands in between (specs/segment.md).

A reader stops at the first damage; verification goes on behind it:

    whole commits ... damage ... whole frames up to an event -> commits again ... next segment

A frame's checksum binds it to its file and offset, so that what is found behind damage is real.
Where a chunk is damaged, its event is still read. The positions in between are lost; whoever
folds the history asks `is_lost` before complaining.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from operator import itemgetter

from ckptlog.errors import CheckpointError, FormatError
from ckptlog.formats import event, frame, segment
from ckptlog.formats.end import End
from ckptlog.formats.event import LEAF_EMPTY
from ckptlog.formats.segment import HEADER_FRAME_BYTES, SegmentHeader
from ckptlog.log.scan import Scan, Window
from ckptlog.log.segment_file import SegmentFile, SettledSegment
from ckptlog.log.segments import Segments, container_of
from ckptlog.model.entry import Commit
from ckptlog.model.event import LOST
from ckptlog.repository.report import Book

CORRUPT = "log.corrupt"


class Chain:
    """One pass over all segments.

    Attributes:
        position, leaf: After what was read last; None for the leaf hash that damage hides.
        lost: Stretches of positions (start, stop), ascending, that could not be read, or that hold
            tombstones.
        tombstones: Positions of them, ascending. bereft: Containers (of segments) with any.
        is_broken: Whether something could not be read.
    """

    def __init__(self, segments: Segments, store_id: bytes, book: Book) -> None:
        self._segments = segments
        self._store_id = store_id
        self._book = book
        self.position = 0
        self.leaf: bytes | None = LEAF_EMPTY
        self.lost: list[tuple[int, int]] = []
        self.tombstones: list[int] = []
        self.bereft: set[str] = set()
        self.is_broken = False
        self._density = 1.0

    def is_lost(self, position: int) -> bool:
        """Say whether the event at a position could not be read, or was lost before a repair."""
        index = bisect_right(self.lost, position, key=itemgetter(0)) - 1
        return index >= 0 and position < self.lost[index][1]

    def is_there(self, position: int) -> bool:
        """Say whether the event at a position was read, and is no tombstone."""
        return position < self.position and not self.is_lost(position)

    def commits(self, end: End | None) -> Iterator[tuple[Commit, Window]]:
        """Yield every whole commit below the end, and a window on its file; report the rest.

        Args:
            end: The published end; None reads to where nothing follows.
        """
        if end is None:
            self._book.problem(
                CORRUPT,
                "The published end is missing or damaged. `ckptlog repair` finds it again: with "
                "--from, where there is a second copy of this store.",
                "log/end",
            )
        headers = self._headers(end)
        for index, header in enumerate(headers):
            after = headers[index + 1] if index + 1 < len(headers) else None
            self._check_start(header)
            yield from self._segment(header, self._limit(header, after, end))
            if after is not None:
                self._check_link(header, after)
        if end is not None:
            self._check_end(headers[-1] if headers else None, end)

    # --- the chain --------------------------------------------------------------------------

    def _headers(self, end: End | None) -> list[SegmentHeader]:
        best: dict[int, SegmentHeader] = {}
        for first, generation in self._segments.names():
            name = container_of(first, generation)
            is_same = end is not None and first == end.first
            is_beyond = end is not None and (first > end.first or is_same)
            if end is not None and is_beyond and (first, generation) != (end.first, end.generation):
                self._book.notes.append(f"{name} is not the segment that the log ends in.")
                continue
            try:
                best[first] = self._segments.header(first, generation)
            except FormatError as error:
                self._book.notes.append(f"The header of {name} is damaged: {error.message}")
            except CheckpointError as error:
                self._book.problem(error.code, str(error), name)
        return [best[first] for first in sorted(best)]

    def _check_start(self, header: SegmentHeader) -> None:
        name = container_of(header.first, header.generation)
        if header.first != self.position:
            self.is_broken = True
        if self.leaf is None:  # damage before it, already told
            self._lose(self.position, header.first)
        elif header.first != self.position:
            self._lose(self.position, header.first)
            self._book.problem(
                CORRUPT,
                f"It begins at position {header.first}; {self.position} is expected. "
                "Restore the missing file from a backup.",
                name,
            )
        elif header.leaf != self.leaf:
            self._book.problem(
                CORRUPT, "Its header does not know the event before it (leaf hash).", name
            )
        self.position = header.first

    def _check_link(self, header: SegmentHeader, after: SegmentHeader) -> None:
        if not _follows(header, after):
            self._book.problem(
                CORRUPT,
                f"Its header names {container_of(after.previous_first, after.previous_generation)} "
                f"as the one before it, not {container_of(header.first, header.generation)}.",
                container_of(after.first, after.generation),
            )

    def _limit(
        self, header: SegmentHeader, after: SegmentHeader | None, end: End | None
    ) -> int | None:
        """Return the segment's valid length; None where nothing sound tells it."""
        if end is not None and (header.first, header.generation) == (end.first, end.generation):
            return end.offset
        if after is not None and _follows(header, after):
            return after.previous_length
        return None

    def _check_end(self, last: SegmentHeader | None, end: End) -> None:
        where = container_of(end.first, end.generation)
        if last is None or (last.first, last.generation) != (end.first, end.generation):
            self.is_broken = True
            self._lose(self.position, end.position)
            # A segment that was begun and holds no event yet may be missing without a loss.
            self._book.problem(
                CORRUPT, "The log ends in this segment, which is missing or has no header.", where
            )
        elif self.position != end.position:
            self.is_broken = True
            self._lose(self.position, end.position)
            self._book.problem(
                CORRUPT,
                f"The log was published up to position {end.position}; events are there up to "
                f"{self.position}.",
                where,
            )
        elif self.leaf is not None and self.leaf != end.leaf:
            self._book.problem(
                CORRUPT, "The published end knows another last event (leaf hash).", "log/end"
            )

    def _lose(self, start: int, stop: int) -> None:
        if start >= stop:
            return
        if self.lost and self.lost[-1][1] >= start:
            self.lost[-1] = (self.lost[-1][0], max(stop, self.lost[-1][1]))
        else:
            self.lost.append((start, stop))

    # --- one segment ------------------------------------------------------------------------

    def _segment(self, header: SegmentHeader, limit: int | None) -> Iterator[tuple[Commit, Window]]:
        self.leaf = header.leaf
        try:
            file = self._segments.open(header.first, header.generation, is_lenient=True)
            try:
                self._density = self._density_of(file, header)
                self._advance(0, HEADER_FRAME_BYTES)
                yield from self._stretches(file, header, limit)
            finally:
                file.close()
        except CheckpointError as error:  # the medium: EIO, denied, gone meanwhile
            self.leaf, self.is_broken = None, True
            self._book.problem(error.code, str(error), self._name(header))

    def _stretches(
        self, file: SegmentFile, header: SegmentHeader, limit: int | None
    ) -> Iterator[tuple[Commit, Window]]:
        """Yield the commits of one file, stepping over damage."""
        window = Window(file)
        offset: int | None = HEADER_FRAME_BYTES
        while offset is not None:
            scan = Scan(
                Window(file),
                segment.seed(self._store_id, header.first, header.generation),
                container_of(header.first, header.generation),
                offset=offset,
                position=self.position,
                leaf=self.leaf or LEAF_EMPTY,
                stop=limit,
            )
            for commit in scan:
                if limit is not None and commit.offset_end > limit:
                    break
                self.position, self.leaf = commit.position_next, commit.leaf
                self._book.commits += 1
                self._advance(offset, commit.offset_end)
                offset = commit.offset_end
                self._check_events(commit, window)
                yield commit, window
            flaw = scan.flaw
            if isinstance(file, SettledSegment):
                flaw = file.fault or flaw
            if offset == limit or (limit is None and flaw is None):
                return
            self._report(header, offset, limit, flaw)
            offset = self._resume(file, header, offset, limit)

    def _check_events(self, commit: Commit, window: Window) -> None:
        """Report entries that another parser could read as another event (specs/event.md)."""
        for entry in commit.entries:
            if entry.event.type == LOST:
                self._book.events_lost += 1
                self.tombstones.append(entry.position)
                self.bereft.add(entry.container)
                self._lose(entry.position, entry.position + 1)
            begin = window.locate(entry.offset, entry.length)
            start = begin + frame.HEADER_BYTES + event.PREFIX_BYTES
            raw = bytes(window.view[start : begin + entry.length])
            if not event.is_canonical(raw, entry.event):
                self._book.problem(
                    "format.malformed",
                    f"Event {entry.position} is not canonical JSON.",
                    f"{entry.container}:{entry.offset}",
                    position=entry.position,
                )

    def _report(
        self, header: SegmentHeader, offset: int, limit: int | None, flaw: str | None
    ) -> None:
        valid = "" if limit is None else f" {limit} bytes of this file were durable."
        self._book.problem(
            CORRUPT,
            f"Damaged at position {self.position}: {flaw or 'no whole commit stands there.'}"
            f"{valid} Restore the file from a backup.",
            f"{self._name(header)}:{offset}",
            position=self.position,
        )
        self.is_broken = True

    def _resume(
        self, file: SegmentFile, header: SegmentHeader, offset: int, limit: int | None
    ) -> int | None:
        """Find where whole frames lead up to an event again; None where nothing does."""
        size = file.size
        stop = size if limit is None else min(size, limit)
        data = file.read(max(0, stop - offset), offset)
        seed = segment.seed(self._store_id, header.first, header.generation)
        start = after = 0
        for found in _frames(data, seed, offset):
            if found.offset != after:
                start = found.offset
            after = found.offset_end
            if found.kind == frame.EVENT:
                position, _ = event.decode_prefix(found.body)
                self._lose(self.position, position)
                self.position = position
                self._advance(offset, start)
                return start
        self._advance(offset, offset + len(data))
        self.leaf = None
        return None

    def _density_of(self, file: SegmentFile, header: SegmentHeader) -> float:
        """Return how many bytes of the file stand for one of the segment: 1, unless it is settled.

        Offsets of a settled one are those of the file that it stands for, which was longer.
        """
        if not isinstance(file, SettledSegment):
            return 1.0
        path = self._segments.settled_path(header.first, header.generation)
        try:
            return path.stat().st_size / file.size
        except OSError:  # gone since it was opened
            return 0.0

    def _advance(self, start: int, stop: int) -> None:
        """Enter that a stretch of offsets was read."""
        self._book.advance(round(stop * self._density) - round(start * self._density))

    def _name(self, header: SegmentHeader) -> str:
        return container_of(header.first, header.generation)


def _frames(data: bytes, seed: int, base: int) -> Iterator[frame.Frame]:
    """Yield every whole frame behind the first byte of data, which lies at base."""
    at = data.find(frame.MAGIC, 1)
    while at >= 0:
        try:
            found = frame.decode(seed, base + at, data, at)
        except FormatError:
            at = data.find(frame.MAGIC, at + 1)
        else:
            yield found
            at = data.find(frame.MAGIC, found.offset_end - base)


def _follows(header: SegmentHeader, after: SegmentHeader) -> bool:
    named = (after.previous_first, after.previous_generation)
    return named == (header.first, header.generation)
