"""What of a damaged container can be saved, and the bytes that mend it (specs/repair.md).

    original bytes -> Walk -> whole frames, frames brought back, gaps -> patches, and what is lost

Nothing moves: a patch stands where bytes were lost, and takes exactly their place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Final

import msgspec

from ckptlog.blobs import difference
from ckptlog.blobs.cache import Cache
from ckptlog.blobs.codec import Codec
from ckptlog.errors import BlobCorruptionError, FormatError
from ckptlog.formats import frame, pack, segment, tombstone
from ckptlog.formats.segment import HEADER_FRAME_BYTES, SegmentHeader
from ckptlog.formats.tombstone import Lost
from ckptlog.model.event import SCHEMA
from ckptlog.model.leaf import LEAF_EMPTY, leaf_hash
from ckptlog.repository.gap import Copy, Judge, Walk, judge_by
from ckptlog.repository.warrant import NO_LEAF, Warrant

SEGMENT_KINDS: Final = frozenset({frame.EVENT, frame.CHUNK})
PACK_KINDS: Final = frozenset({frame.CHUNK})

Patch = tuple[int, bytes]
LeafAt = Callable[[int], bytes | None]


class Salvage(msgspec.Struct):
    """What becomes of one container.

    container: Its path below the store's root. length: Of the mended file; None keeps what it has.
    limit: Its valid length. patches: What to write where.
    header: Of a segment, whole or made anew. last_leaf: Of its last event.
    position_next: After its last event.
    bits, copied: Frames brought back, by a bit or from a copy. events_lost: Positions.
    chunks_lost: Chunk frames, as far as they were counted. was_missing: Whether there was no file.
    clues: The bytes of gaps, at most some, in which ids may be read.
    copied_at: Where frames of a copy were put. seed: Of a segment's checksums.
    """

    container: str
    length: int | None = None
    limit: int = 0
    patches: list[Patch] = []
    header: SegmentHeader | None = None
    last_leaf: bytes = LEAF_EMPTY
    position_next: int = 0
    bits: int = 0
    copied: int = 0
    events_lost: list[int] = []
    chunks_lost: list[bytes] = []
    was_missing: bool = False
    clues: list[bytes] = []
    copied_at: list[int] = []
    seed: int = 0

    @property
    def is_needed(self) -> bool:
        """Whether anything is to be written."""
        return bool(self.patches)


def mended_bytes(data: bytes, salvage: Salvage) -> bytes:
    """Return a container's bytes with the patches of its salvage."""
    kept = data if salvage.length is None else data[: salvage.length]
    return written(kept, salvage.patches)


def written(data: bytes, patches: Sequence[Patch]) -> bytes:
    """Return bytes with patches in them, in their order."""
    out = bytearray(data)
    for offset, patch in patches:
        out[offset : offset + len(patch)] = patch
    return bytes(out)


class Bounds(msgspec.Struct, frozen=True):
    """What is known of a segment from outside: the header after it, or the published end.

    limit: Its valid length; None where nothing tells it. position_next: After its last event.
    leaf: Of its last event. is_copied: Whether only the header of a copy says so.
    """

    limit: int | None = None
    position_next: int | None = None
    leaf: bytes | None = None
    is_copied: bool = False


def is_like(header: SegmentHeader, made: SegmentHeader) -> bool:
    """Say whether two headers of a segment say the same of the log before it."""
    return msgspec.structs.replace(header, created_us=made.created_us) == made


class Leaves(msgspec.Struct, frozen=True):
    """The cache of leaf hashes. at: Returns one, None where it has none.

    is_trusted: Whether it is right about every event that a sound header, or the end, names.
    schema: Of events that the store writes. warrant: What signed heads prove; where one covers a
        position, nothing else is believed of it.
    """

    at: LeafAt
    is_trusted: bool
    schema: int = SCHEMA
    warrant: Warrant | None = None

    def of_lost(self, position: int, *, is_right: bool) -> bytes | None:
        """Return the leaf hash of a lost event.

        Args:
            is_right: Whether the cache is right about what is whole around it.
        """
        if self.warrant is not None and self.warrant.covers(position):
            return self.warrant.proven(position)
        leaf = self.at(position) if is_right else None
        return None if leaf == NO_LEAF else leaf

    def restored(self, position: int) -> bytes | None:
        """Return the leaf hash for which a tombstone may give way, whatever leaf it has."""
        return None if self.warrant is None else self.warrant.restored(position)

    def believed(
        self, bounds: Bounds, made: SegmentHeader, known: list[tuple[int, bytes]]
    ) -> LeafAt:
        """Return what tells the leaf hashes of lost events of a segment.

        Nothing that the cache says is believed where it is wrong about a whole event.

        Args:
            made: The segment's header.
            known: Positions and leaf hashes of its whole events.
        """
        told = self.at
        last, leaf = bounds.position_next, bounds.leaf
        known = [*known]
        if last and leaf is not None:
            known.append((last - 1, leaf))
        if made.first:
            known.append((made.first - 1, made.leaf))
        is_right = self.is_trusted or any(told(at) == one for at, one in known)
        is_right = is_right and all(told(at) in (None, one) for at, one in known)

        def leaf_at(position: int) -> bytes | None:
            if leaf is not None and last is not None and position == last - 1:
                return leaf
            return self.of_lost(position, is_right=is_right)

        return leaf_at


class SegmentSalvage:
    """Saves one segment.

    Args:
        made: The header that it should have, for where its own is damaged.
        leaves: The cache of leaf hashes.
        time: Of the tombstones.
        copies: Give what second copies have of it, and may stand here.
        stricter: Makes the judge of frames refuse more.
    """

    def __init__(
        self,
        store_id: bytes,
        made: SegmentHeader,
        bounds: Bounds,
        *,
        leaves: Leaves,
        time: str,
        copies: Sequence[Copy],
        stricter: Callable[[Judge], Judge] = lambda judge: judge,
    ) -> None:
        self._store_id = store_id
        self._made = made
        self._bounds = bounds
        self._leaves = leaves
        self._leaf_at = leaves.at
        self._time = time
        self._copies = copies
        self._stricter = stricter
        self._name = segment.segment_name(made.first, made.generation)
        self._seed = segment.seed(store_id, made.first, made.generation)
        self._found = Salvage(f"log/{self._name}", patches=[], events_lost=[], chunks_lost=[])
        self._found.clues = []
        self._found.copied_at = []
        self._found.seed = self._seed

    def run(self, data: bytes | None) -> Salvage:
        """Return what becomes of the segment.

        Args:
            data: Its bytes, None where the file is missing.

        Raises:
            FormatError: Two things contradict each other, or what was lost does not fit.
        """
        found = self._found
        found.was_missing = data is None
        data = self._with_header(data or b"")
        limit = self._bounds.limit
        self._chunks = _Chunks()
        walk = Walk(self._seed, data, self._stricter(judge_by(self._chunks.raw)), self._copies)
        walk.run(HEADER_FRAME_BYTES, len(data) if limit is None else limit, kinds=SEGMENT_KINDS)
        if limit is None:
            self._cut_tail(walk)
        for one in walk.mended:
            found.patches.append((one.offset, one.data))
            found.bits += one.how == "bit"
            if one.how == "copy":
                found.copied += 1
                found.copied_at.append(one.offset)
        known = [(one.position, one.leaf) for one in walk.pieces if one.kind == frame.EVENT]
        self._leaf_at = self._leaves.believed(self._bounds, self._made, known)
        self._fill(walk, data)
        if limit is None and found.length is None:
            found.limit = max((one.offset_end for one in walk.pieces), default=HEADER_FRAME_BYTES)
        if limit is not None:
            found.limit = limit
            found.length = limit if len(data) < limit else None
        found.patches.sort()
        return found

    def _with_header(self, data: bytes) -> bytes:
        """Return the bytes with a sound header; its patch is entered where it was none."""
        made = self._made
        try:
            own = segment.decode(self._store_id, made.first, made.generation, data)
        except FormatError:
            own = None
        for copy in self._copies:
            own = own or self._copied_header(copy)
        is_new = own is None
        self._found.header = header = made if own is None else own
        encoded = segment.encode(header)
        if data[:HEADER_FRAME_BYTES] != encoded:
            self._found.patches.append((0, encoded))
            self._found.copied += not is_new
        return encoded + data[HEADER_FRAME_BYTES:]

    def _copied_header(self, copy: Copy) -> SegmentHeader | None:
        made = self._made
        try:
            data = copy(0, HEADER_FRAME_BYTES)
            found = segment.decode(self._store_id, made.first, made.generation, data)
        except FormatError:
            return None
        return found if is_like(found, made) else None

    def _cut_tail(self, walk: Walk) -> None:
        """Forget what stands behind the last whole commit, where nothing says that it counts.

        Where events are missing behind it, whole chunks and events there are kept.
        """
        pieces = walk.pieces
        ends = [piece.offset_end for piece in pieces if piece.ends_commit]
        stop, wanted = max(ends, default=HEADER_FRAME_BYTES), self._bounds.position_next
        last = max((piece.position for piece in pieces), default=-1)
        if wanted is not None and max(last + 1, self._made.first) < wanted:
            stop = pieces[-1].offset_end if pieces else stop
        walk.pieces = [piece for piece in walk.pieces if piece.offset_end <= stop]
        walk.gaps = [gap for gap in walk.gaps if gap[0] < stop]

    def _fill(self, walk: Walk, data: bytes) -> None:
        """Fill the gaps between one event and the next with what was lost there."""
        found = self._found
        position, leaf = self._made.first, found.header.leaf if found.header else LEAF_EMPTY
        waiting: list[tuple[int, int]] = []
        gaps = iter([*walk.gaps, (1 << 62, 0)])
        gap = next(gaps)
        ends_commit = True
        for piece in walk.pieces:
            while gap[0] < piece.offset:
                waiting.append(gap)
                gap = next(gaps)
            if piece.kind == frame.EVENT:
                self._fill_run(waiting, position, piece.position, data)
                waiting = []
                position, leaf = piece.position + 1, piece.leaf
                ends_commit = piece.ends_commit
            else:
                ends_commit = False
        waiting += [one for one in (gap, *gaps) if one[1]]
        stop = self._bounds.position_next
        if self._bounds.limit is None and stop is not None and position < stop:
            waiting.append(self._room_behind(walk, range(position, stop)))
        stop_here = position if stop is None else stop
        last_lost = self._fill_run(waiting, position, stop_here, data, is_last=True)
        if last_lost is not None:
            position, leaf, ends_commit = last_lost.position + 1, leaf_hash(self._last_entry), True
        if not ends_commit or (stop is not None and position != stop):
            raise FormatError(
                f"log/{self._name} ends at position {position}, in the middle of a commit or "
                f"before {stop}; what is missing has no place.",
            )
        known = self._bounds.leaf
        if known is not None and position > self._made.first and leaf != known:
            raise FormatError(
                f"log/{self._name} does not end with the event that what follows it names."
            )
        found.position_next, found.last_leaf = position, leaf

    def _room_behind(self, walk: Walk, lost: range) -> tuple[int, int]:
        """Return a gap for lost events behind what is left, where nothing tells how long it was."""
        end = walk.pieces[-1].offset_end if walk.pieces else HEADER_FRAME_BYTES
        rooms = (tombstone.room_of(self._lost(one), self._time) for one in lost)
        room = end, sum(rooms)
        self._found.length = self._found.limit = sum(room)
        return room

    def _fill_run(
        self,
        gaps: Sequence[tuple[int, int]],
        start: int,
        stop: int,
        data: bytes,
        *,
        is_last: bool = False,
    ) -> Lost | None:
        """Fill gaps that lie between two events; return the last lost event, if any.

        Args:
            is_last: No event follows: the last gap ends with the last lost event, as it did.
        """
        if stop < start or (stop > start and not gaps):
            raise FormatError(
                f"log/{self._name} has event {stop} where {start} is expected, and nothing between."
            )
        if (stop - start) * tombstone.ROOM_BYTES_MIN > sum(length for _, length in gaps):
            raise FormatError(f"log/{self._name} has no room for events {start} to {stop - 1}.")
        waiting = [self._lost(position) for position in range(start, stop)]
        last = waiting[-1] if waiting else None
        for index, (offset, length) in enumerate(gaps):
            free = waiting[:-1] if is_last else waiting
            here = waiting if index == len(gaps) - 1 else self._fitting(free, length)
            waiting = waiting[len(here) :]
            data_here = data[offset : offset + length]
            self._note_gap(here, data_here)
            filled = tombstone.fill(
                self._seed, self._found.container, offset, length, here, time=self._time
            )
            self._found.patches.append((offset, filled))
            if here and here[-1] is last:
                self._last_entry = entry_at_end(self._seed, offset, filled)
        return last

    def _lost(self, position: int) -> Lost:
        return Lost(position, self._leaf_at(position), self._leaves.schema)

    def _fitting(self, waiting: list[Lost], length: int) -> list[Lost]:
        """Return the first of the lost events that fit into a gap."""
        used = 0
        for index, one in enumerate(waiting):
            used += tombstone.room_of(one, self._time)
            if used > length:
                return waiting[:index]
        return waiting

    def _note_gap(self, lost: Sequence[Lost], data: bytes) -> None:
        found = self._found
        found.events_lost += [one.position for one in lost]
        if len(found.clues) < _CLUES_MAX:
            found.clues.append(data[:_CLUE_BYTES_MAX])
        if not lost:
            found.chunks_lost.append(data[frame.HEADER_BYTES : frame.HEADER_BYTES + 32])


_RAWS_BYTES: Final = 8 * 1024 * 1024
_CHECKPOINT_ID: Final = re.compile(rb'"checkpoint":"((?:[^"\\]|\\.){1,512})"')
_CLUES_MAX: Final = 1000
_CLUE_BYTES_MAX: Final = 256 * 1024


def entry_at_end(seed: int, offset: int, filled: bytes) -> bytes:
    """Return the entry of the last event in frames that stand at an offset."""
    last = (0, 0)
    for _, _, begin, end in frame.walk(seed, offset, filled):
        last = (begin, end)
    return filled[last[0] + frame.HEADER_BYTES + 16 : last[1]]


class _Chunks:
    """Decodes the chunks of one container in order; differences need what came before."""

    def __init__(self) -> None:
        self._codec = Codec()
        self._records: dict[bytes, bytes] = {}
        self._raws: Cache[bytes, bytes] = Cache(_RAWS_BYTES)

    def raw(self, digest: bytes, record: bytes) -> bytes:
        raw = self._codec.raw(record, digest, base_of=self._base)
        self._records.setdefault(digest, record)
        return raw

    def _base(self, digest: bytes) -> bytes:
        return difference.undone(digest, self._record, self._codec, known=self._raws)

    def _record(self, digest: bytes) -> bytes:
        record = self._records.get(digest)
        if record is None:
            raise BlobCorruptionError(f"The base {digest.hex()} is not there.")
        return record


class PackSalvage:
    """Saves one pack.

    Args:
        size: Bytes, as its event has registered it.
    """

    def __init__(self, store_id: bytes, name: str, size: int, *, copy: Copy | None) -> None:
        parsed = pack.parse_name(name)
        if parsed is None:
            raise FormatError(f"{name!r} is not the name of a pack.")
        self._header = pack.PackHeader(store_id, parsed[1], parsed[0])
        self._seed = pack.seed(store_id, *parsed)
        self._size = size
        self._copy = copy
        self._found = Salvage(
            f"packs/{name}", size, patches=[], events_lost=[], chunks_lost=[], clues=[]
        )

    def run(self, data: bytes | None) -> Salvage:
        """Return what becomes of the pack; see `SegmentSalvage.run`."""
        found = self._found
        found.was_missing = data is None
        data = (data or b"")[: self._size]
        head = pack.encode_header(self._header)
        if data[: len(head)] != head:
            found.patches.append((0, head))
        data = head + data[len(head) :]
        rows, stop = self._index(data)
        walk = Walk(self._seed, data, judge_by(_Chunks().raw), (self._copy,) if self._copy else ())
        walk.run(len(head), stop, kinds=PACK_KINDS)
        for one in walk.mended:
            found.patches.append((one.offset, one.data))
            found.bits += one.how == "bit"
            found.copied += one.how == "copy"
        if rows is None:
            stop = self._fit(walk)
        lines = [pack.PackedChunk(one.digest, one.offset, one.length) for one in walk.pieces]
        lines += self._fill(walk, rows, {one.digest for one in walk.pieces})
        tail = pack.encode_index(self._seed, stop, lines)
        if stop + len(tail) != self._size:
            raise FormatError(f"{found.container} cannot be mended to {self._size} bytes.")
        if data[stop:] != tail:
            found.patches.append((stop, tail))
        found.patches.sort()
        return found

    def _index(self, data: bytes) -> tuple[dict[int, pack.PackedChunk] | None, int]:
        """Return the lines by offset, and where chunks end; (None, a bound) without an index."""
        for source in (data, self._copied_end(data)):
            try:
                offset, _ = pack.decode_trailer(
                    self._seed, self._size, source[-pack.TRAILER_FRAME_BYTES :]
                )
                rows = pack.decode_index(self._seed, offset, source[offset:])
                return {row.offset: row for row in rows}, offset
            except FormatError:
                continue
        return None, self._size - _INDEX_BYTES_MIN

    def _copied_end(self, data: bytes) -> bytes:
        return self._copy(0, self._size) if self._copy is not None else data

    def _fit(self, walk: Walk) -> int:
        """Say where the chunks end, where no index tells; the last gap gets what is left over."""
        pieces, gaps = walk.pieces, walk.gaps
        end = max([pack.HEADER_FRAME_BYTES, *(one.offset_end for one in pieces)])
        inner = [gap for gap in gaps if gap[0] < end]
        count = len(pieces) + sum(len(tombstone.pieces(length)) for _, length in inner)
        rest = self._size - end - _INDEX_BYTES_MIN - _LINE_BYTES * count
        walk.gaps = inner
        fillers = 0
        while rest:
            fillers += 1
            room = rest - _LINE_BYTES * fillers
            if room < tombstone.FILLER_BYTES_MIN:
                raise FormatError(f"{self._found.container} does not add up to {self._size} bytes.")
            if len(tombstone.pieces(room)) == fillers:
                walk.gaps.append((end, room))
                return end + room
        return end

    def _fill(
        self, walk: Walk, rows: dict[int, pack.PackedChunk] | None, taken: set[bytes]
    ) -> list[pack.PackedChunk]:
        """Fill the gaps, a filler for each chunk where the index told of them."""
        lines = []
        for offset, length in walk.gaps:
            at = offset
            for size in self._sizes(offset, length, rows):
                row = rows.get(at) if rows else None
                if row is not None:
                    self._found.chunks_lost.append(row.digest)
                digest, framed = tombstone.filler(
                    self._seed, self._found.container, at, size, frozenset(taken)
                )
                taken.add(digest)
                self._found.patches.append((at, framed))
                lines.append(pack.PackedChunk(digest, at, size))
                at += size
        return lines

    def _sizes(
        self, offset: int, length: int, rows: dict[int, pack.PackedChunk] | None
    ) -> list[int]:
        if rows is not None:
            inside = [
                row.length for at, row in sorted(rows.items()) if offset <= at < offset + length
            ]
            if sum(inside) == length:
                return inside
            raise FormatError(f"{self._found.container} has an index that does not fit its chunks.")
        return tombstone.pieces(length)


def made_of_tombstones(header: SegmentHeader, stop: int, *, leaves: Leaves, time: str) -> Salvage:
    """Return a segment for positions of which no file is left, and nothing tells how long it was.

    Args:
        header: Of the segment; stop: position after its last event.
    """
    container = f"log/{segment.segment_name(header.first, header.generation)}"
    positions = range(header.first, stop)
    is_right = leaves.is_trusted
    lost = [
        Lost(position, leaves.of_lost(position, is_right=is_right), leaves.schema)
        for position in positions
    ]
    seed = segment.seed(header.store_id, header.first, header.generation)
    room = sum(tombstone.room_of(one, time) for one in lost)
    body = tombstone.fill(seed, container, HEADER_FRAME_BYTES, room, lost, time=time)
    found = Salvage(container, HEADER_FRAME_BYTES + room, patches=[], events_lost=[*positions])
    found.chunks_lost, found.clues = [], []
    found.limit, found.header, found.was_missing = HEADER_FRAME_BYTES + room, header, True
    found.position_next = stop
    found.last_leaf = header.leaf
    if lost:
        found.last_leaf = leaf_hash(entry_at_end(seed, HEADER_FRAME_BYTES, body))
    found.patches = [(0, segment.encode(header) + body)]
    return found


_LINE_BYTES: Final = 44
_INDEX_BYTES_MIN: Final = frame.HEADER_BYTES + pack.TRAILER_FRAME_BYTES


def gaps_total(salvages: Sequence[Salvage]) -> int:
    """Return how many chunk frames were lost, as far as they were counted."""
    return sum(len(one.chunks_lost) for one in salvages)


def ranges(positions: Sequence[int]) -> list[tuple[int, int]]:
    """Return ascending positions as (first, last) stretches."""
    stretches = []
    for _, run in groupby(enumerate(sorted(positions)), key=lambda pair: pair[1] - pair[0]):
        members = [position for _, position in run]
        stretches.append((members[0], members[-1]))
    return stretches


def named_in(salvages: Sequence[Salvage]) -> set[str]:
    """Return ids of checkpoints that stand in the bytes of lost events."""
    clues = (clue for one in salvages if one.events_lost for clue in one.clues)
    found = (name for clue in clues for name in _CHECKPOINT_ID.findall(clue))
    return {name.decode("utf-8", "replace") for name in found}
