"""Leaf hashes of lost events that signed heads vouch for (specs/repair.md).

    whole events, headers, the end -> known
    a second copy's events, tombstones, the cache of leaf hashes -> offered, each unproven by itself
      -> one leaf hash for each position -> roots at the sizes of heads -> proven, where one agrees

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


class Evidence(msgspec.Struct):
    """What tells leaf hashes, by position.

    known: Of whole events, and what headers and the published end name. stand_ins: Of tombstones,
        as they have them now. copied: Of whole events of copies. cached: The cache, from 0 on.
    """

    known: dict[int, bytes]
    stand_ins: dict[int, bytes]
    copied: dict[int, bytes]
    cached: Sequence[bytes]

    def ways(self) -> Iterable[Callable[[int], bytes | None]]:
        """Yield what may have been the log's leaf hashes, the likeliest first."""
        known, stand_ins, copied = self.known, self.stand_ins, self.copied
        for sources in ((known, copied, stand_ins), (known, stand_ins, copied), (known, stand_ins)):
            yield partial(self._first, sources)

    def _first(self, sources: Sequence[dict[int, bytes]], position: int) -> bytes | None:
        for source in sources:
            if position in source:
                return source[position]
        leaf = self.cached[position] if position < len(self.cached) else NO_LEAF
        return None if leaf == NO_LEAF else leaf


class Warrant:
    """What the signed heads of a store prove.

    Args:
        heads: Them. gather: Gathers what they are compared with, once it is asked for.

    Threads: one at a time.        Cost: reads the whole log at the first question that a head
        covers; two hashes an event, at most three times.
    """

    def __init__(self, heads: Iterable[Head], gather: Callable[[], Evidence]) -> None:
        self._heads = sorted((one.size, one.root) for one in heads if one.size)
        self._gather = gather
        self._leaves: list[bytes] | None = None
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
        leaves = self._proven() if self.covers(position) else []
        return leaves[position] if position < len(leaves) else None

    def restored(self, position: int) -> bytes | None:
        """Return it if every head over that position agrees: none rests on what is there now."""
        leaf = self.proven(position)
        return leaf if position >= self._refuted else None

    def _proven(self) -> list[bytes]:
        if self._leaves is None:
            best: list[bytes] = []
            for leaf_at in self._gather().ways():
                leaves = self._agreed(leaf_at)
                best = max(best, leaves, key=len)  # of two that reach as far, the first
                if len(best) == self.reach:
                    break
            self._leaves = best
            self._refuted = len(best) if len(best) < self.reach else self._refuted_below(best)
        return self._leaves

    def _agreed(self, leaf_at: Callable[[int], bytes | None]) -> list[bytes]:
        """Return the leaves below the largest head that agrees with them."""
        roots, frontier = set(self._heads), Frontier()
        sizes = {size for size, _ in roots}
        leaves: list[bytes] = []
        agreed = 0
        for position in range(self.reach):
            leaf = leaf_at(position)
            if leaf is None:
                break
            leaves.append(leaf)
            frontier.add(leaf)
            if frontier.size in sizes and (frontier.size, frontier.root) in roots:
                agreed = frontier.size
        return leaves[:agreed]

    def _refuted_below(self, leaves: list[bytes]) -> int:
        """Return the size of the largest head that does not agree, 0 where all do."""
        frontier, refuted = Frontier(), 0
        waiting = list(self._heads)
        for leaf in leaves:
            frontier.add(leaf)
            while waiting and waiting[0][0] == frontier.size:
                size, root = waiting.pop(0)
                refuted = refuted if root == frontier.root else size
        return refuted
