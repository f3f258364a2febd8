"""Where positions lie: from a position to its leaf hash and place, and from a place back.

A place that somebody remembers is a hint. The frame that ends there says by its checksum that it
belongs there, and by its leaf hash which history it is of; a segment's dead bytes, behind its
valid length, are of none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ckptlog.errors import CheckpointError, FormatError, LogCorruptionError
from ckptlog.formats import segment
from ckptlog.formats.end import End
from ckptlog.formats.segment import HEADER_FRAME_BYTES, SegmentHeader
from ckptlog.log.scan import Before, event_before
from ckptlog.log.segments import Segments, container_of, parse_container
from ckptlog.model.cursor import BEGINNING, Cursor, after_commit, after_entry
from ckptlog.model.entry import Commit


class _Commits(Protocol):
    """`LogReader.commits`."""

    def __call__(self, *, position: int, stop: End) -> Iterator[Commit]: ...


class Places:
    """Finds places in one store's log.

    Threads: safe.
    """

    def __init__(self, store_id: bytes, segments: Segments, commits: _Commits) -> None:
        self._store_id = store_id
        self._segments = segments
        self._commits = commits

    def locate(self, position: int, near: Cursor | None, stop: End) -> Cursor:
        """Return the cursor at a position of this log: its leaf hash and place, as they are.

        Args:
            position: At most the position of `stop`.
            near: A cursor whose place may be right; where it is not, the segment is read from
                its beginning.
            stop: The log is looked at up to there.

        Raises:
            LogCorruptionError: The segment is damaged before that position.

        Cost: one or two reads where `near` is right or the position is the end.
        """
        if position == 0:
            return BEGINNING
        if position == stop.position:
            return Cursor(
                position, stop.leaf, container_of(stop.first, stop.generation), stop.offset
            )
        self._segments.follow(stop.first, stop.generation)
        header = self._segments.holding(min(position, stop.first))
        container = container_of(header.first, header.generation)
        if header.first == position:
            return Cursor(position, self._leaf_before(header), container, HEADER_FRAME_BYTES)
        if near is not None and near.container == container:
            found = self._event_at(header, near.offset, stop)
            if found is not None and found.position == position - 1:
                return Cursor(position, found.leaf, container, near.offset)
        return self._search(position, stop)

    def _leaf_before(self, header: SegmentHeader) -> bytes:
        """Return the leaf hash that stands in a segment's header, read anew.

        What was read of it before may be of a store that was set back since.
        """
        try:
            return self._segments.header(header.first, header.generation).leaf
        except FormatError as error:
            path = self._segments.path(header.first, header.generation)
            raise LogCorruptionError(
                f"The header of {path} is damaged: {error.message}",
                hint="Run ckptlog verify.",
                path=str(path),
            ) from error

    def holds(self, cursor: Cursor) -> bool:
        """Say whether the event before a cursor stands at the cursor's place.

        Also beyond the published end: nothing is shown that is not durable, it is only compared.
        """
        named = parse_container(cursor.container)
        if named is None or not self._segments.is_there(*named):
            return False
        return is_behind(self._before(*named, cursor.offset), cursor)

    def ends_commit(self, cursor: Cursor, stop: End) -> bool | None:
        """Say whether a commit of the log ends at a cursor, and at its very place.

        Returns:
            None where that cannot be told, because the log is damaged before it.

        Cost: one or two reads where it does; else the cursor's segment is read.
        """
        position, place = cursor.position, (cursor.container, cursor.offset)
        if position == 0:
            return True
        if position > stop.position:
            return False
        if position == stop.position:
            if cursor.leaf != stop.leaf:
                return False
            if place == (container_of(stop.first, stop.generation), stop.offset):
                return True
        try:
            return self._ends_commit(cursor, stop)
        except CheckpointError:
            return None

    def _ends_commit(self, cursor: Cursor, stop: End) -> bool:
        position = cursor.position
        self._segments.follow(stop.first, stop.generation)
        header = self._segments.holding(min(position - 1, stop.first))
        if cursor.container == container_of(header.first, header.generation):
            found = self._event_at(header, cursor.offset, stop)
            if is_behind(found, cursor) and found is not None and found.ends_commit:
                return True
        for commit in self._commits(position=position - 1, stop=stop):
            if commit.position_next >= position:
                return after_commit(commit) == cursor
        return False

    def _event_at(self, header: SegmentHeader, offset: int, stop: End) -> Before | None:
        """Return the event whose frame ends at an offset in the valid part of a segment."""
        if header.first == stop.first:
            limit = stop.offset
        else:
            after = self._segments.successor(header)
            limit = after.previous_length if after else 0
        if offset > limit:
            return None
        return self._before(header.first, header.generation, offset)

    def _before(self, first: int, generation: int, offset: int) -> Before | None:
        """Return the event whose frame ends at an offset of a segment's file."""
        if offset <= HEADER_FRAME_BYTES:
            return None
        file = self._segments.open(first, generation)
        try:
            return event_before(file, segment.seed(self._store_id, first, generation), offset)
        finally:
            file.close()

    def _search(self, position: int, stop: End) -> Cursor:
        for commit in self._commits(position=position, stop=stop):
            if commit.position_next >= position:
                index = position - 1 - commit.entries[0].position
                return after_entry(commit.entries[index], commit.leaves[index])
        raise LogCorruptionError(
            f"No event stands at position {position - 1}, which was durable.",
            hint="Run ckptlog verify.",
            position=position - 1,
        )


def is_behind(found: Before | None, cursor: Cursor) -> bool:
    """Say whether a cursor lies behind an event, of its own history."""
    return found is not None and (found.position, found.leaf) == (cursor.position - 1, cursor.leaf)
