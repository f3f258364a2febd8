"""Frames in damaged bytes: what is whole, what a turned bit has spoiled, and the gaps between.

    whole frames | gap | whole frames | gap | ... | limit

A frame's checksum binds it to its file and offset, so what is found whole is what stood there. One
that is whole but holds something else than it says (a chunk with other bytes) counts as a gap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from ckptlog.errors import CheckpointError, FormatError, UnsupportedError
from ckptlog.formats import chunk, event, frame, tombstone
from ckptlog.model.leaf import leaf_hash

# A bit is looked for by trying each: up to 8 hashes a byte.
_MENDED_BYTES_MAX: Final = 32 * 1024


class Piece(msgspec.Struct, frozen=True, gc=False):
    """A whole frame. position, leaf: Of an event; -1 and b"" otherwise. digest: Of a chunk."""

    kind: int
    offset: int
    length: int
    ends_commit: bool = False
    position: int = -1
    leaf: bytes = b""
    digest: bytes = b""

    @property
    def offset_end(self) -> int:
        """First byte behind it."""
        return self.offset + self.length


class Mended(msgspec.Struct, frozen=True, gc=False):
    """A frame that was brought back: where, its bytes, and how ("bit" or "copy")."""

    offset: int
    data: bytes
    how: str


# Says what is wrong with a whole frame, or returns its piece: (frame, its bytes) -> Piece.
Judge = Callable[[frame.Frame], Piece]
# Says whether a whole frame of a copy may stand in the container: (piece, the frame's bytes).
Admits = Callable[[Piece, bytes], bool]


class Copy:
    """The bytes of a second copy of a container.

    Args:
        read: Returns all of them; called once, when they are needed.

    Attributes:
        admits: Says which of its frames may be taken.
    """

    def __init__(self, read: Callable[[], bytes], admits: Admits) -> None:
        self._read = read
        self._data: bytes | None = None
        self.admits = admits

    @property
    def data(self) -> bytes:
        """All of them."""
        if self._data is None:
            self._data = self._read()
        return self._data

    def __call__(self, offset: int, length: int) -> bytes:
        """Return some of them."""
        return self.data[offset : offset + length]


def is_stand_in(container: str, piece: Piece, framed: bytes) -> bool:
    """Say whether a frame stands for what was lost: a tombstone or a filler."""
    body = framed[frame.HEADER_BYTES :]
    if piece.kind == frame.EVENT:
        return tombstone.is_tombstone(body[event.PREFIX_BYTES :])
    return piece.kind == frame.CHUNK and tombstone.is_filler(container, piece.offset, body)


def stands_itself(container: str) -> Admits:
    """Return what admits all frames but stand-ins."""
    return lambda piece, framed: not is_stand_in(container, piece, framed)


def judge_by(raw_of: Callable[[bytes, bytes], object]) -> Judge:
    """Return a judge of events and chunks.

    Args:
        raw_of: Decodes and checks a record: (digest, record); raises what is wrong.
    """

    def judge(found: frame.Frame) -> Piece:
        body, length = bytes(found.body), found.offset_end - found.offset
        if found.kind == frame.EVENT:
            position, _ = event.decode_prefix(body)
            entry = body[event.PREFIX_BYTES :]
            with suppress(UnsupportedError):  # newer than we are, and whole
                event.decode(entry)
            ends = bool(found.flags & frame.COMMIT)
            return Piece(
                found.kind, found.offset, length, ends, position=position, leaf=leaf_hash(entry)
            )
        if found.kind == frame.CHUNK and not found.flags:
            digest = chunk.digest_in(body)
            with suppress(UnsupportedError):
                raw_of(digest, body)
            return Piece(found.kind, found.offset, length, digest=digest)
        return Piece(found.kind, found.offset, length)

    return judge


class Walk:
    """One pass over a container's bytes.

    Attributes:
        pieces: Whole frames in order, those that were brought back too.
        mended: What was brought back.
        gaps: (offset, length) of what could not be.
    """

    def __init__(self, seed: int, data: bytes, judge: Judge, copies: Sequence[Copy]) -> None:
        self._seed = seed
        self._data = data
        self._judge = judge
        self._copies = copies
        self._is_framed = False
        self._next_own = -1
        self.pieces: list[Piece] = []
        self.mended: list[Mended] = []
        self.gaps: list[tuple[int, int]] = []

    def run(self, start: int, limit: int, *, kinds: frozenset[int]) -> None:
        """Read frames of some kinds from start up to the limit; data may be shorter."""
        at = start
        while at < limit:
            piece = self._whole(at, limit, kinds)
            if piece is None:
                piece = self._brought_back(at, limit, kinds)
            if piece is None:
                at = self._gap(at, limit, kinds)
            else:
                self.pieces.append(piece)
                at = piece.offset_end

    def _whole(self, at: int, limit: int, kinds: frozenset[int]) -> Piece | None:
        self._is_framed = False
        try:
            found = frame.decode(self._seed, at, self._data, at)
            self._is_framed = True
            if found.kind not in kinds or found.offset_end > limit:
                return None
            return self._judge(found)
        except CheckpointError:
            return None

    def _gap(self, at: int, limit: int, kinds: frozenset[int]) -> int:
        """Enter the gap that begins at a place; return where it ends."""
        end = self._next(at, limit, kinds)
        if self.gaps and sum(self.gaps[-1]) == at:
            start, length = self.gaps.pop()
            self.gaps.append((start, length + end - at))
        else:
            self.gaps.append((at, end - at))
        return end

    def _next(self, at: int, limit: int, kinds: frozenset[int]) -> int:
        """Return where the next whole frame begins behind a place.

        One that is whole as a frame, and no good, is a boundary too: it becomes the next gap.
        """
        if at >= self._next_own:  # else the last one that was found still is the next
            self._next_own = self._next_in(self._data, at, limit, limit, kinds)
        found = self._next_own
        for copy in self._copies:  # of a settled form, say: events here and there
            found = self._next_in(copy.data, at, found, limit, kinds)
        return found

    def _next_in(self, data: bytes, at: int, stop: int, limit: int, kinds: frozenset[int]) -> int:
        """Return where a whole frame begins behind a place, and ends by the limit; else stop.

        One of a copy may reach over frames of ours which are no good, so it may end behind stop.
        """
        found = data.find(frame.MAGIC, at + 1, stop + 1)
        while found >= 0:
            head = data[found : found + frame.HEADER_BYTES]
            size = frame.body_length(head)
            # Bytes that only look like a header are many in some data: first what costs nothing.
            if size is not None and head[frame.KIND_AT] in kinds:
                end = found + frame.HEADER_BYTES + size
                if end <= min(limit, len(data)) and _does_hold(self._seed, found, data[found:end]):
                    return found
            found = data.find(frame.MAGIC, found + 1, stop + 1)
        return stop

    def _brought_back(self, at: int, limit: int, kinds: frozenset[int]) -> Piece | None:
        for how, data, admits in self._candidates(at):
            try:
                found = frame.decode(self._seed, at, data)
                if found.kind not in kinds or found.offset_end > limit:
                    continue
                piece = self._judge(found)
            except CheckpointError:
                continue
            if admits is not None and not admits(piece, data[: piece.length]):
                continue
            self.mended.append(Mended(at, data[: piece.length], how))
            return piece
        return None

    def _candidates(self, at: int) -> Iterator[tuple[str, bytes, Admits | None]]:
        turned = None if self._is_framed else with_a_bit_turned(self._seed, at, self._data)
        if turned is not None:
            yield "bit", turned, None
        for copy in self._copies:
            size = frame.body_length(copy(at, frame.HEADER_BYTES))
            if size is not None:
                yield "copy", copy(at, frame.HEADER_BYTES + size), copy.admits


def with_a_bit_turned(seed: int, at: int, data: bytes) -> bytes | None:
    """Return the frame at a place with the one bit turned that makes its checksum hold."""
    head = bytearray(data[at : at + frame.HEADER_BYTES])
    size = frame.body_length(bytes(head))
    if size is not None and size <= _MENDED_BYTES_MAX:
        whole = bytearray(data[at : at + frame.HEADER_BYTES + size])
        is_cut = len(whole) < frame.HEADER_BYTES + size
        bit = None if is_cut else frame.turned_bit(seed, at, bytes(whole))
        if bit is not None:
            whole[frame.HEADER_BYTES + (bit >> 3)] ^= 1 << (bit & 7)
            return bytes(whole)
    for bit in range(8 * len(head)):
        head[bit >> 3] ^= 1 << (bit & 7)
        size = frame.body_length(bytes(head))
        if size is not None and at + frame.HEADER_BYTES + size <= len(data):
            body = data[at + frame.HEADER_BYTES : at + frame.HEADER_BYTES + size]
            if _does_hold(seed, at, bytes(head) + body):
                return bytes(head) + body
        head[bit >> 3] ^= 1 << (bit & 7)
    return None


def _does_hold(seed: int, at: int, whole: bytes | bytearray) -> bool:
    try:
        return frame.measure(seed, at, memoryview(whole))[2] == len(whole)
    except FormatError:
        return False
