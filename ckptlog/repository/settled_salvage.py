"""What of a damaged settled segment can be saved, and the file that takes its place.

    its own blocks -> events by position <- blocks, or frames, of a second copy
                   -> tombstones for the rest -> blocks, index and trailer, made anew

Every event keeps its offset in the segment, as specs/settled.md demands; so blocks may be cut
otherwise than before. An event's frame has a checksum that binds it to its segment and offset,
wherever it was found; so what is whole is what stood there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from ckptlog.errors import CheckpointError, FormatError
from ckptlog.formats import chunk, event, frame, segment, settled, tombstone
from ckptlog.formats.segment import HEADER_FRAME_BYTES, SegmentHeader
from ckptlog.log.settling import settled_bytes
from ckptlog.model.leaf import leaf_hash
from ckptlog.repository.gap import Admits, Piece, Walk, is_stand_in, judge_by
from ckptlog.repository.salvage import SEGMENT_KINDS, Bounds, LeafAt, Leaves, Salvage, is_like

_KINDS: Final = frozenset({frame.BLOCK, frame.BLOCK_INDEX, frame.BLOCK_TRAILER})
_RAW_AT: Final = frame.HEADER_BYTES + chunk.RAW_LENGTH_AT

Name = tuple[int, int]


class Known(NamedTuple):
    """An event that was found whole.

    begin: Where the event before it ended, in the segment. piece: Its position, leaf hash, flags.
    """

    begin: int
    row: settled.Row
    piece: Piece


def _event_of(seed: int, offset: int, data: bytes) -> Piece | None:
    """Return what the frame of an event says; None for anything else."""
    try:
        found = frame.decode(seed, offset, data)
        piece = judge_by(lambda _digest, _record: None)(found)
    except CheckpointError:
        return None
    return piece if piece.kind == frame.EVENT and piece.length == len(data) else None


class SettledRows:
    """The events that can be read in a settled segment's bytes, whatever is damaged.

    Attributes:
        known: By position. bits: Frames that were brought back by a bit.
        header, trailer: None where damaged. chunks: None are there.
    """

    chunks: Sequence[Piece] = ()

    def __init__(self, store_id: bytes, name: Name, data: bytes) -> None:
        self._seed = segment.seed(store_id, *name)
        self._place = settled.seed(store_id, *name)
        self.known: dict[int, Known] = {}
        self.header: SegmentHeader | None = None
        self.trailer: settled.Trailer | None = None
        try:
            self.header = settled.decode_header(store_id, *name, data)
        except FormatError:
            self.header = None
        self._bodies: list[bytes] = []
        walk = Walk(self._place, data, self._judge, ())
        walk.run(HEADER_FRAME_BYTES, len(data), kinds=_KINDS)
        self.bits = len(walk.mended)
        for body in self._bodies:
            self._add(body)
        self._read_trailer(walk, data)

    def image(self, limit: int) -> bytes:
        """Return the segment as it was written up to a limit, zeros where nothing is known.

        What reaches over it is left out: whoever made these bytes may name any offset.
        """
        rows = [one.row for one in self.known.values()]
        rows = [row for row in rows if row.offset + len(row.data) <= limit]
        out = bytearray(max((row.offset + len(row.data) for row in rows), default=0))
        for row in rows:
            out[row.offset : row.offset + len(row.data)] = row.data
        return bytes(out)

    def _judge(self, found: frame.Frame) -> Piece:
        length = found.offset_end - found.offset
        if found.kind == frame.BLOCK:
            body = bytes(found.body)
            settled.body_rows(body)
            self._bodies.append(body)
        return Piece(found.kind, found.offset, length)

    def _add(self, body: bytes) -> None:
        begin, _ = settled.body_span(body)
        for row in settled.body_rows(body):
            piece = _event_of(self._seed, row.offset, row.data)
            if piece is not None:
                self.known.setdefault(piece.position, Known(begin, row, piece))
            begin = row.offset + len(row.data)

    def _read_trailer(self, walk: Walk, data: bytes) -> None:
        last = next((one for one in walk.pieces if one.kind == frame.BLOCK_TRAILER), None)
        if last is None:
            return
        mended = {one.offset: one.data for one in walk.mended}
        whole = mended.get(last.offset, data[last.offset : last.offset_end])
        try:
            self.trailer = settled.decode_trailer(self._place, last.offset_end, whole)
        except FormatError:
            self.trailer = None


class WrittenRows:
    """The events of a segment as it was written; see `SettledRows`. chunks: Whole."""

    def __init__(self, store_id: bytes, name: Name, data: bytes) -> None:
        seed = segment.seed(store_id, *name)
        self.known: dict[int, Known] = {}
        self.header: SegmentHeader | None = None
        self.trailer: settled.Trailer | None = None
        try:
            self.header = segment.decode(store_id, *name, data)
        except FormatError:
            self.header = None
        walk = Walk(seed, data, judge_by(lambda _digest, _record: None), ())
        walk.run(HEADER_FRAME_BYTES, len(data), kinds=SEGMENT_KINDS)
        container = f"log/{segment.segment_name(*name)}"
        self.chunks = [
            one
            for one in walk.pieces
            if one.kind == frame.CHUNK
            and not is_stand_in(container, one, data[one.offset : one.offset_end])
        ]
        self._add(walk, data, name[0])

    def _add(self, walk: Walk, data: bytes, expected: int) -> None:
        mended = {one.offset: one.data for one in walk.mended}
        begin, chunks, raw_bytes = HEADER_FRAME_BYTES, 0, 0
        for piece in walk.pieces:
            if piece.kind == frame.CHUNK:
                at = piece.offset + _RAW_AT
                chunks += 1
                raw_bytes += int.from_bytes(data[at : at + 4], "little")
                continue
            if expected != piece.position:  # what was before it is lost here, too
                begin, chunks, raw_bytes = piece.offset, 0, 0
            whole = mended.get(piece.offset, data[piece.offset : piece.offset_end])
            row = settled.Row(piece.offset, whole, chunks, raw_bytes)
            self.known[piece.position] = Known(begin, row, piece)
            begin, chunks, raw_bytes, expected = piece.offset_end, 0, 0, piece.position + 1


Source = Callable[[], SettledRows | WrittenRows]
Shelf = dict[int, Known]
"""Tombstones by position, taken away for what a copy has."""


class SettledSalvage:
    """Saves one settled segment; see `salvage.SegmentSalvage`.

    Args:
        admits: Says which events of second copies may stand here.
        takes_back: Let tombstones that are there give way to them.

    Attributes:
        sources: Give what second copies have of it; asked only for what is missing.
    """

    def __init__(
        self,
        store_id: bytes,
        made: SegmentHeader,
        bounds: Bounds,
        *,
        leaves: Leaves,
        time: str,
        admits: Admits,
        takes_back: bool = True,
    ) -> None:
        self._takes_back = takes_back
        self._store_id = store_id
        self._made = made
        self._bounds = bounds
        self._leaves = leaves
        self._time = time
        self._admits = admits
        self._seed = segment.seed(store_id, made.first, made.generation)
        self._container = f"log/{settled.settled_name(made.first, made.generation)}"
        self.sources: list[Source] = []
        self._read: list[SettledRows | WrittenRows] | None = None

    def run(self, data: bytes | None) -> Salvage:
        """Return what becomes of the segment.

        Args:
            data: The file's bytes, None where it is missing.

        Raises:
            FormatError: Two things contradict each other, or what was lost does not fit.
        """
        own = SettledRows(self._store_id, (self._made.first, self._made.generation), data or b"")
        shelves = self._shelves(own) if self.sources and self._takes_back else []
        found = self._tried(data, own, shelves)
        if found is None:  # one of them fits in no way: each by itself
            good: list[Shelf] = []
            for shelf in shelves:
                good += [shelf] if self._tried(data, own, [*good, shelf]) else []
            found = self._tried(data, own, good)
        return found or self._run(data, own, {})

    def _shelves(self, own: SettledRows) -> list[Shelf]:
        """Return the tombstones, each run of them, that an event of a copy may take the place of.

        Those that do not know the leaf hash of what was lost stay, unless signed heads prove it:
        others may rest upon their own.
        """
        shelves: list[Shelf] = []
        for position, one in sorted(own.known.items()):
            entry = _entry_of(one.row)
            if not tombstone.is_tombstone(entry):
                continue
            proven = self._leaves.restored(position)
            if tombstone.is_leaf_known(entry) or proven not in (None, one.piece.leaf):
                if not shelves or position - 1 not in shelves[-1]:
                    shelves.append({})
                shelves[-1][position] = one
        return shelves

    def _tried(self, data: bytes | None, own: SettledRows, shelves: list[Shelf]) -> Salvage | None:
        """Return what becomes of it if those may be replaced; None where that does not fit."""
        if not shelves:
            return None
        helped = [one for one in shelves if self._is_helped(one)]
        try:
            return self._run(data, own, {at: one for shelf in helped for at, one in shelf.items()})
        except FormatError:
            return None

    def _is_helped(self, shelf: Shelf) -> bool:
        return any(self._offered(position, one) for position, one in shelf.items())

    def _offered(self, position: int, lost: Known) -> Known | None:
        """Return the event that was lost, if a copy has it."""
        for other in self._others():
            one = other.known.get(position)
            if one is not None and one.piece.leaf == self._wanted(lost) and not is_lost(one.row):
                return one
        return None

    def _wanted(self, lost: Known) -> bytes:
        """Return the leaf hash of what a tombstone stands for."""
        return self._leaves.restored(lost.piece.position) or lost.piece.leaf

    def _others(self) -> list[SettledRows | WrittenRows]:
        if self._read is None:
            self._read = [source() for source in self.sources]
        return self._read

    def _run(self, data: bytes | None, own: SettledRows, shelved: Shelf) -> Salvage:
        made = self._made
        found = Salvage(self._container, 0, patches=[], events_lost=[], chunks_lost=[], clues=[])
        found.was_missing, found.bits = data is None, own.bits
        known = {at: one for at, one in own.known.items() if at not in shelved}
        offered = {at: self._offered(at, one) for at, one in shelved.items()}
        back = {at: one for at, one in offered.items() if one is not None}
        known.update(back)
        found.copied = len(back)
        stop, limit = self._ends(own)
        told = self._leaf_at(own.known)

        def leaf_at(position: int) -> bytes | None:
            return self._wanted(shelved[position]) if position in shelved else told(position)

        header = own.header
        for number in range(len(self.sources)):
            if header is not None and stop is not None and len(known) == stop - made.first:
                break
            other = self._others()[number]
            if header is None and other.header is not None and is_like(other.header, made):
                header = other.header
            found.copied += self._take(known, other, shelved)
        found.header = header = header or made
        stop = max(known, default=made.first - 1) + 1 if stop is None else stop
        rows, lost, end = self._filled(known, stop, limit, leaf_at)
        found.events_lost = [one for one in lost if one not in shelved]
        self._check_last(rows, end, stop)
        self._check_shelved(rows, shelved)
        found.position_next, found.limit = stop, end
        found.last_leaf = _leaf_of(rows[-1]) if rows else header.leaf
        whole = settled_bytes(header, rows, end)
        if whole != data:
            found.patches = [(0, whole)]
        return found

    def _check_shelved(self, rows: list[settled.Row], shelved: Shelf) -> None:
        """See that every event that was lost before has the leaf hash that it must have."""
        for row in rows:
            piece = _event_of(self._seed, row.offset, row.data)
            old = None if piece is None else shelved.get(piece.position)
            if piece is not None and old is not None and piece.leaf != self._wanted(old):
                raise FormatError(f"{self._container} would have another history.")

    def _ends(self, own: SettledRows) -> tuple[int | None, int | None]:
        """Return the position after the last event, and the valid length, as far as told.

        Where the segment behind it is gone without a trace, what that held stands here, too.
        """
        stop, limit = self._bounds.position_next, self._bounds.limit
        if own.trailer is not None:
            end = self._made.first + own.trailer.events
            stop = end if stop is None else stop
            limit = own.trailer.valid_length if limit is None and stop <= end else limit
        return stop, limit

    def _leaf_at(self, known: dict[int, Known]) -> LeafAt:
        told = [(one.piece.position, one.piece.leaf) for one in known.values()]
        return self._leaves.believed(self._bounds, self._made, told)

    def _take(
        self, known: dict[int, Known], other: SettledRows | WrittenRows, shelved: Shelf
    ) -> int:
        """Take what a copy has and is missing here; return how many events.

        Its frames' checksums bind them to store, segment and offset; the cache is bound to nothing.
        """
        count, stop = 0, self._bounds.position_next
        for position, one in other.known.items():
            is_ours = position >= self._made.first and (stop is None or position < stop)
            if position in known or position in shelved or not is_ours:
                continue
            if self._admits(one.piece, one.row.data):
                known[position] = one
                count += 1
        return count

    def _filled(
        self, known: dict[int, Known], stop: int, limit: int | None, leaf_at: LeafAt
    ) -> tuple[list[settled.Row], list[int], int]:
        """Return the segment's events, tombstones among them; those lost; and where it ends."""
        rows: list[settled.Row] = []
        lost: list[int] = []
        at, expected = HEADER_FRAME_BYTES, self._made.first
        for position in sorted(known):
            one = known[position]
            if not expected <= position < stop:
                raise FormatError(f"{self._container} has event {position} out of place.")
            if position > expected:
                rows += self._tombstones(range(expected, position), at, one.begin, leaf_at)
                lost += range(expected, position)
                at = one.begin
            if one.row.offset < at:
                raise FormatError(f"{self._container} has two events at offset {one.row.offset}.")
            rows.append(settled.Row(*one.row))
            at, expected = one.row.offset + len(one.row.data), position + 1
        if expected < stop:
            rows += self._tombstones(range(expected, stop), at, limit, leaf_at)
            lost += range(expected, stop)
            at = rows[-1].offset + len(rows[-1].data)
        if limit not in (None, at):
            raise FormatError(f"{self._container} ends at {at}; {limit} is where it must end.")
        return rows, lost, at

    def _tombstones(
        self, positions: range, start: int, stop: int | None, leaf_at: LeafAt
    ) -> list[settled.Row]:
        """Return tombstones that end at `stop`, or right behind `start` where that is not told."""
        lost = [tombstone.Lost(one, leaf_at(one), self._leaves.schema) for one in positions]
        room = sum(tombstone.room_of(one, self._time) for one in lost)
        stop = start + room if stop is None else stop
        at = max(start, stop - room)
        if at >= stop:
            raise FormatError(f"{self._container} has no room for what was lost at {start}.")
        filled = tombstone.fill(self._seed, self._container, at, stop - at, lost, time=self._time)
        return [
            settled.Row(at + begin, filled[begin:end], 0, 0)
            for kind, _, begin, end in frame.walk(self._seed, at, filled)
            if kind == frame.EVENT
        ]

    def _check_last(self, rows: list[settled.Row], end: int, stop: int) -> None:
        if not rows:
            raise FormatError(f"{self._container} holds nothing, and nothing tells what it held.")
        last = _event_of(self._seed, rows[-1].offset, rows[-1].data)
        if last is None or not last.ends_commit:
            raise FormatError(f"{self._container} ends in the middle of a commit, at {end}.")
        known = self._bounds.leaf
        if known is not None and last.leaf != known and not is_lost(rows[-1]):
            raise FormatError(
                f"{self._container} does not end with the event that what follows it names."
            )
        if last.position != stop - 1:
            raise FormatError(f"{self._container} ends with event {last.position}.")


def _leaf_of(row: settled.Row) -> bytes:
    return leaf_hash(_entry_of(row))


def is_lost(row: settled.Row) -> bool:
    """Say whether a row is a tombstone."""
    return tombstone.is_tombstone(_entry_of(row))


def _entry_of(row: settled.Row) -> bytes:
    return row.data[frame.HEADER_BYTES + event.PREFIX_BYTES :]
