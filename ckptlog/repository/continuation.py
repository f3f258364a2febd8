"""Where a log whose published end is lost went on, as a second copy tells it (specs/repair.md).

    the copy's end -> the segments that it names, one by the other, back to the first
      -> every segment of ours is one of them, and each event that both have is the same one
      -> signed heads over what the copy has more: the largest agrees, or cannot be compared

Only then it is an end of this log; else the copy went another way, or is older.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

from ckptlog.errors import CheckpointError
from ckptlog.formats.end import End
from ckptlog.formats.head import Head
from ckptlog.formats.segment import SegmentHeader
from ckptlog.formats.tombstone import ROOM_BYTES_MIN
from ckptlog.log.segments import FOLDER, Segments
from ckptlog.repository.second_copy import FILE_BYTES_MAX, SecondCopy, read_whole
from ckptlog.repository.settled_salvage import Known, SettledRows, WrittenRows, is_lost
from ckptlog.repository.warrant import Evidence, LeafRow, Warrant, nothing_told
from ckptlog.storage.disk import Disk
from ckptlog.views.leaf import LeafCache

Name = tuple[int, int]


class Continuation:
    """What a second copy has behind the last event that is left of a log.

    Args:
        segments: The log's. heads: Verified ones that it answers for. cache: Of leaf hashes.

    Attributes:
        note: Why the copy's end is none of this log's, where only the cache tells it.

    Cost: reads both logs whole.
    """

    def __init__(
        self,
        segments: Segments,
        copy: SecondCopy,
        store_id: bytes,
        disk: Disk,
        *,
        heads: list[Head],
        cache: LeafCache,
    ) -> None:
        self._ours = segments
        self._copy = copy
        self._theirs = Segments(copy.path / FOLDER, store_id, disk)
        self._store_id = store_id
        self._disk = disk
        self._heads = heads
        self._cache = cache
        self.note: str | None = None

    def end(self) -> End | None:
        """Return where the log ended when the copy was made; None where that is not told."""
        try:
            end = self._copy.end()
            return end if end is not None and end.position and self._is_ours(end) else None
        except CheckpointError:  # it cannot be read: a copy helps as far as it can be
            return None

    def _is_ours(self, end: End) -> bool:
        stops = self._stops(end)
        live = [(one.first, one.generation) for one in self._ours.refresh()]
        if not stops or not set(live) <= set(stops):
            return False
        newest = [name for name in self._ours.names() if not live or name >= live[-1]]
        if any(max(self._known(self._ours, at), default=-1) >= stops.get(at, 0) for at in newest):
            return False  # ours is longer
        told = self._told(stops)
        last = told.known.get(end.position - 1) or told.copied.get(end.position - 1)
        if last != end.leaf or not _is_same(told) or _is_refuted(told, self._heads):
            return False
        denied = self._denied(told)
        if denied is not None:
            self.note = (
                f"The copy's end was not taken: from event {denied} on it is another history of "
                "this store, as the cache of leaf hashes knows of another event."
            )
        return denied is None

    def _denied(self, told: Evidence) -> int | None:
        """Return the first event of the copy that a cache of leaf hashes speaks against."""
        size = len(told.copied)
        cached = LeafRow(size, self._cache.read(0, min(size, self._cache.position_sound)))
        left = [at for at in range(len(told.known)) if told.known.get(at)]
        if not left or any(cached.get(at) not in (None, told.known.get(at)) for at in left):
            return None
        alike = max((at for at in left if told.copied.get(at)), default=-1)
        begin = max([alike + 1, *(one.size for one in self._heads)])
        for at in range(begin, size):
            if told.copied.get(at) and cached.get(at) not in (None, told.copied.get(at)):
                return at
        return None

    def _stops(self, end: End) -> dict[Name, int]:
        """Return the segments that an end leads back to, and the position behind each.

        None of them where the way breaks off, or names more events than can be there.
        """
        stops: dict[Name, int] = {}
        name, stop, length = (end.first, end.generation), end.position, end.offset
        while _has_room(stop - name[0], length) and (header := self._header(name)) is not None:
            stops[name] = stop
            if not header.previous_length:
                return {} if header.first else stops
            name, stop = (header.previous_first, header.previous_generation), header.first
            length = header.previous_length
            if name[0] >= stop:
                break
        return {}

    def _header(self, name: Name) -> SegmentHeader | None:
        """Return a segment's header; None where none is left, or the two are not the same."""
        found: dict[tuple[int | bytes, ...], SegmentHeader] = {}
        for segments in (self._theirs, self._ours):
            with suppress(CheckpointError):
                one = segments.header(*name)
                before = one.previous_first, one.previous_generation, one.previous_length
                found[(*before, one.leaf)] = one
        return next(iter(found.values())) if len(found) == 1 else None

    def _told(self, stops: Mapping[Name, int]) -> Evidence:
        size = max(stops.values())
        told, left_out = nothing_told(size), LeafRow(0)
        for name, stop in stops.items():
            for segments, kept, lost in (
                (self._ours, told.known, told.stand_ins),
                (self._theirs, told.copied, left_out),
            ):
                for position, one in self._known(segments, name).items():
                    if name[0] <= position < stop:
                        (lost if is_lost(one.row) else kept).put(position, one.piece.leaf)
        return told

    def _known(self, segments: Segments, name: Name) -> dict[int, Known]:
        """Return the whole events of a segment, by position."""
        if (path := segments.path(*name)).exists():
            return WrittenRows(self._store_id, name, read_whole(self._disk, path)).known
        if (path := segments.settled_path(*name)).exists():
            return SettledRows(self._store_id, name, read_whole(self._disk, path)).known
        return {}


def _has_room(count: int, length: int) -> bool:
    """Say whether a segment of such a length can have so many events."""
    return 0 <= count * ROOM_BYTES_MIN <= length <= FILE_BYTES_MAX


def _is_same(told: Evidence) -> bool:
    """Say whether no position has an event here and another one there."""
    pairs = ((told.known.get(at), told.copied.get(at)) for at in range(len(told.known)))
    return all(ours == theirs for ours, theirs in pairs if ours and theirs)


def _is_refuted(told: Evidence, heads: Iterable[Head]) -> bool:
    """Say whether the largest head over what only the copy has is another history's."""
    ours, stop = max(len(told.known), len(told.stand_ins)), len(told.copied)
    within = [one for one in heads if one.size <= stop]
    top = max((one.size for one in within), default=0)
    rows = told.known, told.copied, told.stand_ins
    is_comparable = all(any(row.get(at) for row in rows) for at in range(top))
    return top > ours and is_comparable and Warrant(within, lambda: told).proven(top - 1) is None
