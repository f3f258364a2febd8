"""What of a second copy may stand in the log (specs/repair.md).

    log      | a | b | c |   | e | f |        a copy that was written on by itself has the same
    copy     | a | b | c | d'| e'| f'|        store id, and events at the same places
                       ^       ^
                  agreed       parted         d' may be ours, or not: it is not taken

Only what is proven is taken behind the last event that both have alike, once they differ.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from ckptlog.formats import frame, settled
from ckptlog.formats.segment import HEADER_FRAME_BYTES
from ckptlog.formats.tombstone import ROOM_BYTES_MIN
from ckptlog.log.segments import FOLDER, container_of
from ckptlog.repository.gap import Admits, Piece, is_stand_in
from ckptlog.repository.lineage import Link, Name
from ckptlog.repository.salvage import Bounds, LeafAt, is_like
from ckptlog.repository.second_copy import FILE_BYTES_MAX
from ckptlog.repository.settled_salvage import SettledRows, WrittenRows, is_lost

_WHOLE: Final = 1 << 62

Data = Callable[[str], bytes | None]
"""Returns the bytes of a container, None where there is none."""
_Rows = SettledRows | WrittenRows


class _Verdict(IntEnum):
    """What a position tells of both; of two about one position the smaller counts.

    DENIED, LIKELY: The cache of leaf hashes has another event than the copy, or the same.
    """

    DIFFERENT = 0
    DENIED = 1
    LIKELY = 2
    ALIKE = 3

    @classmethod
    def of(cls, is_same: bool) -> _Verdict:  # noqa: FBT001 - the one thing that it is of
        return cls.ALIKE if is_same else cls.DIFFERENT


_Told = Iterator[tuple[int, _Verdict]]
"""Positions of which something is told of both."""


class Admission:
    """Compares a second copy with the log, once something of it is wanted.

    Args:
        links: The log's segments. named: Leaf hashes that our headers and the end name.
        proven: Tells leaf hashes that signed heads prove. cached: Those of the cache, which speak
            for an event. believed: Those that speak against one behind the last that both have
            alike, too, where the cache is right about all that is left. ours, theirs: Read
            containers.

    Threads: one at a time.        Cost: reads both logs once; segments that are the same byte for
        byte are not looked into.
    """

    def __init__(
        self,
        store_id: bytes,
        links: Sequence[Link],
        named: dict[int, bytes],
        *,
        proven: LeafAt,
        cached: LeafAt,
        believed: LeafAt,
        ours: Data,
        theirs: Data,
    ) -> None:
        self._store_id = store_id
        self._links = links
        self._named = named
        self._proven = proven
        self._cached = cached
        self._believed = believed
        self._ours = ours
        self._theirs = theirs
        self._is_compared = False
        self._agreed = -1
        self._parted: int | None = None
        self._is_denied = False
        self._stood_for: set[int] = set()  # a header behind a tombstone may be made from that
        self._behind: tuple[Name, list[Piece]] | None = None
        self._own: tuple[Name, list[Piece]] | None = None
        self._bounds = {link.name: _own(link.bounds) for link in links}

    @property
    def note(self) -> str | None:
        """Says from where on the copy is another history, and why; None where it is none.

        None, too, where nothing was asked that made it necessary to compare.
        """
        if self._parted is None:
            return None
        alike = f"up to event {self._agreed}" if self._agreed >= 0 else "nowhere"
        how = ": the cache of leaf hashes knows of another event" if self._is_denied else ""
        return (
            f"From event {self._parted} on the copy is another history of this store{how}. Both "
            f"are alike {alike}; what no header, no signed head and no cache proves was not taken "
            "from behind that."
        )

    def of(self, name: Name) -> Admits:
        """Return what says which frames of a copy may stand in a segment."""
        container = container_of(*name)

        def admits(piece: Piece, framed: bytes) -> bool:
            if is_stand_in(container, piece, framed):
                return False
            if piece.kind != frame.EVENT:
                return self._is_common(_WHOLE) or self._has_chunk(name, piece.offset)
            return self._has_room(name, piece) and self._has_event(piece.position, piece.leaf)

        return admits

    def has_end(self, name: Name, bounds: Bounds) -> bool:
        """Say whether to believe what only the copy's header says of the end of a segment."""
        stop, limit, leaf = bounds.position_next, bounds.limit, bounds.leaf
        if stop is None or limit is None or leaf is None or limit > FILE_BYTES_MAX:
            return False
        if not self._has_event(stop - 1, leaf):
            return False
        for rows in self._rows(name, self._theirs):
            last = rows.known.get(stop - 1)
            if last is None or is_lost(last.row):
                continue
            if (last.piece.offset_end, last.piece.leaf) != (limit, leaf):
                return False
        whole = [one.piece for rows in self._rows(name, self._ours) for one in rows.known.values()]
        return all(one.offset_end <= limit and one.position < stop for one in whole)

    def _has_room(self, name: Name, piece: Piece) -> bool:
        """Say whether those that are missing between an event and ours beside it have room there.

        A frame says any position and its sum holds; each between would be made a tombstone.
        """
        events = self._own_events(name)
        index = bisect(events, piece.offset, key=_begin)
        begin, last = HEADER_FRAME_BYTES, name[0] - 1
        if index:
            begin, last = events[index - 1].offset_end, events[index - 1].position
        bounds = self._bounds[name]
        end, stop = bounds.limit, bounds.position_next
        if index < len(events):
            end, stop = events[index].offset, events[index].position
        if stop is not None and piece.position >= stop:
            return False
        if piece.offset_end > (FILE_BYTES_MAX if end is None else end):
            return False
        missing = piece.position - last - 1
        return 0 <= missing * ROOM_BYTES_MIN <= piece.offset - begin

    def _own_events(self, name: Name) -> list[Piece]:
        if self._own is None or self._own[0] != name:
            limit = self._bounds[name].limit or _WHOLE
            forms = [rows.known.values() for rows in self._rows(name, self._ours)]
            events = {one.piece.offset: one.piece for form in forms for one in form}
            within = [one for one in events.values() if one.offset_end <= limit]
            self._own = name, sorted(within, key=_begin)
        return self._own[1]

    def _has_event(self, position: int, leaf: bytes) -> bool:
        is_common = self._is_common(position)  # enters what our own events say, too
        known = self._known(position)
        if known is not None:
            return known == leaf
        return is_common or self._cached(position) == leaf

    def _has_chunk(self, name: Name, offset: int) -> bool:
        """Say whether the event that a chunk of the copy came with may stand here."""
        if self._behind is None or self._behind[0] != name:
            rows = [one for one in self._rows(name, self._theirs) if isinstance(one, WrittenRows)]
            events = [one.piece for one in rows[0].known.values()] if rows else []
            self._behind = name, sorted(events, key=_begin)
        events = self._behind[1]
        index = bisect(events, offset, key=_begin)
        return index < len(events) and self._has_event(events[index].position, events[index].leaf)

    def _known(self, position: int) -> bytes | None:
        return self._named.get(position) or self._proven(position)

    def _is_common(self, position: int) -> bool:
        """Say whether both have the same history up to a position, as far as anything tells."""
        if not self._is_compared:
            self._is_compared = True
            self._compare()
        return self._parted is None or position <= self._agreed

    # --- comparing ----------------------------------------------------------------------------

    def _compare(self) -> None:
        denied: int | None = None
        for position, verdict in self._all_told():
            if verdict == _Verdict.DIFFERENT:
                self._part(position)
                break
            if verdict == _Verdict.DENIED:
                denied = position if denied is None else denied
                continue
            if verdict == _Verdict.ALIKE:
                denied = None
            self._agreed = max(self._agreed, position)
        if denied is not None and self._is_cache_right():
            self._part(denied)
            self._is_denied = True

    def _part(self, position: int) -> None:
        self._parted, self._agreed = position, min(self._agreed, position - 1)

    def _all_told(self) -> _Told:
        for link in self._links:
            yield from sorted(self._told(link))

    def _is_cache_right(self) -> bool:
        """Say whether the cache is right about every whole event of ours, and there is one."""
        pairs = ((self._cached(position), leaf) for position, leaf in self._left())
        verdicts = {cached == leaf for cached, leaf in pairs if cached is not None}
        return verdicts == {True}

    def _left(self) -> Iterator[tuple[int, bytes]]:
        """Yield the leaf hashes of what is left of the log."""
        yield from self._named.items()
        for link in self._links:
            stop = link.bounds.position_next or _WHOLE
            for rows in self._rows(link.name, self._ours):
                for position, one in rows.known.items():
                    if link.name[0] <= position < stop and not is_lost(one.row):
                        yield position, one.piece.leaf

    def _told(self, link: Link) -> _Told:
        """Yield positions of which both say something, and whether it is the same."""
        name, stop = link.name, link.bounds.position_next
        forms = container_of(*name), f"{FOLDER}/{settled.settled_name(*name)}"
        theirs = [(one, data) for one in forms if (data := self._theirs(one)) is not None]
        if stop is not None and theirs and all(self._ours(one) == data for one, data in theirs):
            yield stop - 1, _Verdict.ALIKE
            return
        owns = [*self._rows(name, self._ours)]
        for other in self._rows(name, self._theirs):
            yield from self._told_before(link, other)
            for own in owns or (None,):
                yield from self._told_of_events(own, other, range(name[0], stop or _WHOLE))
            for own in owns:
                yield from _overlaps(name[0], own, other)
            self._note_end(other, stop)
        for own in owns:
            if (last := self._note_end(own, stop)) is not None:
                self._named.setdefault(last.position, last.leaf)

    def _note_end(self, rows: _Rows, stop: int | None) -> Piece | None:
        """Return the last event of a segment, if it is whole; remember if it is a tombstone."""
        last = rows.known.get(stop - 1) if stop is not None else None
        if last is not None and is_lost(last.row):
            self._stood_for.add(last.piece.position)
            return None
        return last.piece if last is not None else None

    def _told_before(self, link: Link, other: _Rows) -> _Told:
        position = link.name[0] - 1
        if position < 0 or other.header is None or position in self._stood_for:
            return
        if link.header is not None:
            yield position, _Verdict.of(is_like(other.header, link.header))
        elif position in self._named:
            yield position, _Verdict.of(other.header.leaf == self._named[position])

    def _told_of_events(self, own: _Rows | None, other: _Rows, positions: range) -> _Told:
        for position, one in other.known.items():
            if position not in positions or is_lost(one.row):
                continue
            mine = own.known.get(position) if own is not None else None
            if mine is not None and is_lost(mine.row):
                if mine.piece.leaf == one.piece.leaf:
                    yield position, _Verdict.ALIKE
            elif mine is not None:
                is_there = mine.piece.offset == one.piece.offset
                yield position, _Verdict.of(is_there and mine.piece.leaf == one.piece.leaf)
            elif (leaf := self._known(position)) is not None:
                yield position, _Verdict.of(leaf == one.piece.leaf)
            elif self._cached(position) == one.piece.leaf:
                yield position, _Verdict.LIKELY
            elif self._believed(position) is not None:
                yield position, _Verdict.DENIED

    def _rows(self, name: Name, data_of: Data) -> Iterator[_Rows]:
        """Yield the forms of a segment, the written one first."""
        written = data_of(container_of(*name))
        if written is not None:
            yield WrittenRows(self._store_id, name, written)
        other = data_of(f"{FOLDER}/{settled.settled_name(*name)}")
        if other is not None:
            yield SettledRows(self._store_id, name, other)


def _own(bounds: Bounds) -> Bounds:
    """Return what is known of a segment's end without the copy."""
    return Bounds(None, bounds.position_next) if bounds.is_copied else bounds


class _Span(NamedTuple):
    """A frame of a segment.

    what: Leaf hash or digest. position: Of an event; for a chunk, of the next at the earliest.
    """

    begin: int
    end: int
    what: bytes
    position: int


def _begin(piece: Piece) -> int:
    return piece.offset


def _spans(first: int, rows: _Rows) -> list[_Span]:
    """Return the frames of a segment in their order, but for stand-ins."""
    events = [one.piece for one in rows.known.values() if not is_lost(one.row)]
    spans: list[_Span] = []
    position = first
    for piece in sorted((*rows.chunks, *events), key=_begin):
        if piece.kind == frame.EVENT:
            position = piece.position
        what = piece.leaf or piece.digest
        spans.append(_Span(piece.offset, piece.offset_end, what, position))
        position += piece.kind == frame.EVENT
    return spans


def _overlaps(first: int, own: _Rows, other: _Rows) -> _Told:
    """Yield positions of frames of both that take the same place and are not the same."""
    mine, at = _spans(first, own), 0
    for one in _spans(first, other):
        while at < len(mine) and mine[at].end <= one.begin:
            at += 1
        for found in mine[at : bisect(mine, one.end - 1, key=lambda span: span.begin)]:
            if found[:3] != one[:3]:
                yield min(found.position, one.position), _Verdict.DIFFERENT
