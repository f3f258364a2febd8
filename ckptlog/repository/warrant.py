"""Leaf hashes of lost events that signed heads vouch for (specs/repair.md).

    whole events, headers, the end -> known
    a second copy's events, tombstones, the cache of leaf hashes -> offered, each unproven by itself
      -> one leaf hash for each position -> roots at the sizes of heads -> proven, where one agrees
      -> from there on to the next

A root is a hash over every leaf below it: where it agrees, each of them is right, wherever it came
from. Where none agrees, nothing offered is known to be right, and none of it is believed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

import msgspec

from ckptlog.formats.head import Head
from ckptlog.formats.merkle import HASH_BYTES, Frontier

NO_LEAF: Final = bytes(HASH_BYTES)
"""What a power cut leaves in a file of leaf hashes; no event has this one."""


class LeafRow:
    """Leaf hashes by position, some of them missing.

    Args:
        size: Positions; what is put behind it is left out.

    Cost: 32 bytes for each position below the last that is there.
    """

    def __init__(self, size: int, leaves: Iterable[bytes | bytearray] = ()) -> None:
        self._size = size
        self._data = bytearray().join(leaves)

    def __len__(self) -> int:
        return len(self._data) // HASH_BYTES

    def get(self, position: int) -> bytes | None:
        """Return a leaf hash, None where it is missing."""
        leaf = bytes(self._data[position * HASH_BYTES : (position + 1) * HASH_BYTES])
        return None if leaf in (b"", NO_LEAF) else leaf

    def put(self, position: int, leaf: bytes) -> None:
        """Enter a leaf hash where there is none."""
        if position >= self._size or self.get(position) is not None:
            return
        begin = position * HASH_BYTES
        self._data.extend(bytes(max(0, begin + HASH_BYTES - len(self._data))))
        self._data[begin : begin + HASH_BYTES] = leaf


class Evidence(msgspec.Struct, frozen=True):
    """What tells leaf hashes.

    known: Of whole events, and what headers and the published end name. stand_ins: Of tombstones,
        as they have them now. copied: Of whole events of copies. cached: The cache's.
    """

    known: LeafRow
    stand_ins: LeafRow
    copied: LeafRow
    cached: LeafRow

    def ways(self) -> Iterable[Callable[[int], bytes | None]]:
        """Yield what may have been the log's leaf hashes, the likeliest first."""
        known, stand_ins, copied, cached = self.known, self.stand_ins, self.copied, self.cached
        yield partial(_first, (known, copied, stand_ins, cached))
        yield partial(_first, (known, stand_ins, copied, cached))
        yield partial(_first, (known, stand_ins, cached))


def nothing_told(size: int, cached: Iterable[bytes] = ()) -> Evidence:
    """Return evidence that is to be gathered, about so many positions."""
    return Evidence(LeafRow(size), LeafRow(size), LeafRow(size), LeafRow(size, cached))


def _first(rows: Sequence[LeafRow], position: int) -> bytes | None:
    for row in rows:
        leaf = row.get(position)
        if leaf is not None:
            return leaf
    return None


_Step = tuple[bytes | bytearray, Frontier]
"""Leaf hashes, one behind the other, and the tree after the last of them."""


class Warrant:
    """What the signed heads of a store prove.

    Args:
        heads: Them. gather: Gathers what they are compared with, once it is asked for.

    Threads: one at a time.        Cost: reads the whole log at the first question that a head
        covers; two hashes an event, at most three times between two heads that agree. Five times
        32 bytes an event are in memory, and the largest segment.
    """

    def __init__(self, heads: Iterable[Head], gather: Callable[[], Evidence]) -> None:
        self._heads = sorted((one.size, one.root) for one in heads if one.size)
        self._gather = gather
        self._leaves: LeafRow | None = None
        self._refuted = 0

    @property
    def reach(self) -> int:
        """The size of the largest head, 0 where there is none."""
        return self._heads[-1][0] if self._heads else 0

    def covers(self, position: int) -> bool:
        """Say whether a signed head rests on the event at a position."""
        return position < self.reach

    def proven(self, position: int) -> bytes | None:
        """Return the leaf hash that a head proves; None where none does."""
        return self._proven().get(position) if self.covers(position) else None

    def restored(self, position: int) -> bytes | None:
        """Return it if every head over that position agrees: none rests on what is there now."""
        leaf = self.proven(position)
        return leaf if position >= self._refuted else None

    def _proven(self) -> LeafRow:
        if self._leaves is None:
            self._leaves = leaves = self._longest(self._gather())
            is_whole = len(leaves) == self.reach
            self._refuted = self._refuted_below(leaves) if is_whole else len(leaves)
        return self._leaves

    def _longest(self, evidence: Evidence) -> LeafRow:
        """Return the leaves below the largest head that agreeing ones lead to.

        Each step goes the one way that leads farthest, so that of two heads of different histories
        the larger counts; of two ways that lead as far, the first.
        """
        leaves, frontier = bytearray(), Frontier()
        while frontier.size < self.reach:
            best: _Step = b"", frontier
            for leaf_at in evidence.ways():
                found = self._agreed(leaf_at, frontier)
                best = max(best, found, key=lambda one: len(one[0]))
                if best[1].size == self.reach:
                    break
            if not best[0]:
                break
            leaves += best[0]
            frontier = best[1]
        return LeafRow(self.reach, (leaves,))

    def _agreed(self, leaf_at: Callable[[int], bytes | None], start: Frontier) -> _Step:
        """Return the leaves from a start to the largest head that agrees with them."""
        roots, frontier = set(self._heads), start.copy()
        sizes = {size for size, _ in roots}
        leaves, agreed = bytearray(), start
        for position in range(start.size, self.reach):
            leaf = leaf_at(position)
            if leaf is None:
                break
            leaves += leaf
            frontier.add(leaf)
            if frontier.size in sizes and (frontier.size, frontier.root) in roots:
                agreed = frontier.copy()
        del leaves[(agreed.size - start.size) * HASH_BYTES :]
        return leaves, agreed

    def _refuted_below(self, leaves: LeafRow) -> int:
        """Return the size of the largest head that does not agree, 0 where all do."""
        frontier, refuted = Frontier(), 0
        waiting = list(self._heads)
        for position in range(len(leaves)):
            frontier.add(leaves.get(position) or NO_LEAF)
            while waiting and waiting[0][0] == frontier.size:
                size, root = waiting.pop(0)
                refuted = refuted if root == frontier.root else size
        return refuted
