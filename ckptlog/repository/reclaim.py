"""What an earlier repair has told lost, found whole in a second copy now (specs/repair.md).

    mended bytes -> tombstones and fillers (stand-ins), in groups between events that are there
                 -> those as gaps -> salvage with the copies -> taken if every leaf is as it was

A tombstone that knows the leaf hash of what stood there has that leaf hash itself: the event that
is put back changes no root, no proof and no header. One that does not know it stays: signed heads
may rest upon it. It gives way only where every signed head over it proves what stood there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

import msgspec

from ckptlog.errors import FormatError
from ckptlog.formats import event, frame, tombstone
from ckptlog.formats.segment import HEADER_FRAME_BYTES
from ckptlog.model.leaf import leaf_hash
from ckptlog.repository.gap import Judge, Piece
from ckptlog.repository.salvage import Leaves, Patch, Salvage, written

Group = frozenset[int]
"""Offsets of the frames that stand for what was lost between two events."""
Again = Callable[[bytes, Callable[[Judge], Judge], Leaves], Salvage]
"""Salvages whole bytes once more, with the copies, a stricter judge and known leaf hashes."""


class Reclaimed(msgspec.Struct, frozen=True):
    """What came back: the bytes to write where, the events, and how many frames."""

    patches: tuple[Patch, ...] = ()
    positions: tuple[int, ...] = ()
    copied: int = 0


class _Part(msgspec.Struct, frozen=True):
    """A frame of a segment. position: Of an event, else -1. leaf: Of an event."""

    offset: int
    offset_end: int
    position: int
    leaf: bytes
    is_tombstone: bool
    is_stand_in: bool


class _Strict:
    """Makes gaps of some stand-ins, and refuses what is not what was lost there.

    Attributes:
        leaves: Of all events of the segment, those that were lost too.
    """

    def __init__(self, parts: Sequence[_Part], offsets: frozenset[int], container: str) -> None:
        self._container = container
        self._offsets = offsets
        self._lost = {one.position for one in parts if one.offset in offsets}
        self.leaves = {one.position: one.leaf for one in parts if one.position >= 0}

    def stricter(self, judge: Judge) -> Judge:
        def strict(found: frame.Frame) -> Piece:
            body = bytes(found.body)
            if found.kind != frame.EVENT:
                is_ours = found.offset in self._offsets
                if is_ours and tombstone.is_filler(self._container, found.offset, body):
                    raise FormatError("It stands for what was lost.")
                return judge(found)
            piece = judge(found)
            is_lost = piece.position in self._lost
            if is_lost and tombstone.is_tombstone(body[event.PREFIX_BYTES :]):
                raise FormatError("It stands for what was lost.")
            if piece.leaf != self.leaves.get(piece.position):
                raise FormatError("It is not the event that was lost.")
            return piece

        return strict


class Reclaim:
    """Takes back what a segment has lost before.

    Args:
        again: Salvages the segment's bytes with the copies.
        leaves: What signed heads prove, and the schema of events that the store writes.
    """

    def __init__(self, seed: int, container: str, leaves: Leaves, again: Again) -> None:
        self._seed = seed
        self._container = container
        self._leaves = leaves
        self._again = again

    def run(self, data: bytes, limit: int) -> Reclaimed:
        """Return what copies have of it.

        Args:
            data: The segment's bytes; up to the limit every frame is whole.
        """
        if tombstone.MARK not in data:
            return Reclaimed()
        parts = [*self._parts(data[:limit])]
        found, waiting = Reclaimed(), [_groups(parts)]
        while waiting:
            some = waiting.pop()
            one = self._taken(data, parts, some)
            if one is None:  # one of them fits in no way: it is looked for by halves
                middle = len(some) // 2
                waiting += [half for half in (some[middle:], some[:middle]) if middle]
            elif one.positions:
                data = written(data, one.patches)
                parts = [*self._parts(data[:limit])]
                found = Reclaimed(
                    found.patches + one.patches,
                    found.positions + one.positions,
                    found.copied + one.copied,
                )
        return found

    def _parts(self, data: bytes, *, is_before: bool = True) -> Iterator[_Part]:
        """Yield the frames; before, a tombstone has the leaf hash that heads prove."""
        base = HEADER_FRAME_BYTES
        for kind, _, begin, end in frame.walk(self._seed, base, data[base:]):
            at, stop = base + begin, base + end
            body = data[at + frame.HEADER_BYTES : stop]
            if kind != frame.EVENT:
                is_filler = tombstone.is_filler(self._container, at, body)
                yield _Part(at, stop, -1, b"", is_tombstone=False, is_stand_in=is_filler)
                continue
            position, _ = event.decode_prefix(body)
            entry = body[event.PREFIX_BYTES :]
            is_lost = tombstone.is_tombstone(entry)
            leaf = leaf_hash(entry)
            proven = self._leaves.restored(position) if is_lost and is_before else None
            if proven is not None and proven != leaf:
                yield _Part(at, stop, position, proven, is_tombstone=True, is_stand_in=True)
                continue
            is_known = is_lost and tombstone.is_leaf_known(entry)
            yield _Part(at, stop, position, leaf, is_tombstone=is_lost, is_stand_in=is_known)

    def _taken(self, data: bytes, parts: Sequence[_Part], groups: list[Group]) -> Reclaimed | None:
        """Return what the copies have for some groups; None where it does not fit."""
        while groups:
            strict = _Strict(parts, frozenset[int]().union(*groups), self._container)
            leaves = Leaves(strict.leaves.get, is_trusted=True, schema=self._leaves.schema)
            try:
                found = self._again(data, strict.stricter, leaves)
            except FormatError:
                return None
            helped = _helped(groups, parts, found.copied_at)
            if len(helped) == len(groups):
                return self._checked(data, parts, found)
            groups = helped  # the others stay byte for byte as they are
        return Reclaimed()

    def _checked(self, data: bytes, parts: Sequence[_Part], found: Salvage) -> Reclaimed | None:
        """Return what was found if nothing that stood there is another: no leaf, no frame."""
        now, stop = written(data, found.patches), parts[-1].offset_end
        after = [*self._parts(now[:stop], is_before=False)]
        leaves = [(one.position, one.leaf) for one in parts if one.position >= 0]
        kept = [(one.offset, one.offset_end) for one in parts if not one.is_stand_in]
        kept.append((stop, max(len(data), len(now))))
        is_same = [(one.position, one.leaf) for one in after if one.position >= 0] == leaves
        if not is_same or any(now[begin:end] != data[begin:end] for begin, end in kept):
            return None
        lost = {one.position for one in after if one.is_tombstone}
        back = tuple(one.position for one in parts if one.is_tombstone and one.position not in lost)
        patches = tuple(_joined(found.patches)) if back else ()
        return Reclaimed(patches, back, found.copied if back else 0)


def _groups(parts: Sequence[_Part]) -> list[Group]:
    """Return the stand-ins between each two events that are there, where events are among them."""
    groups: list[Group] = []
    here: list[_Part] = []
    for part in (*parts, _Part(-1, -1, 0, b"", is_tombstone=False, is_stand_in=False)):
        if part.is_stand_in:
            here.append(part)
        elif part.position >= 0:
            if any(one.is_tombstone for one in here):
                groups.append(frozenset(one.offset for one in here))
            here = []
    return groups


def _helped(groups: list[Group], parts: Sequence[_Part], copied_at: Sequence[int]) -> list[Group]:
    """Return the groups in which frames of a copy were put."""
    copied = sorted(copied_at)
    ends = {one.offset: one.offset_end for one in parts}

    def is_helped(offset: int) -> bool:
        return bisect_left(copied, offset) < bisect_left(copied, ends[offset])

    return [group for group in groups if any(map(is_helped, group))]


def _joined(patches: Sequence[Patch]) -> Iterator[Patch]:
    """Yield patches, those that touch as one: each is written at once."""
    start, waiting = 0, b""
    for offset, patch in sorted(patches):
        if waiting and start + len(waiting) == offset:
            waiting += patch
            continue
        if waiting:
            yield start, waiting
        start, waiting = offset, patch
    if waiting:
        yield start, waiting
