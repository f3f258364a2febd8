"""RFC 6962 over a stretch of the log: its perfect subtrees, and roots from those and from leaves.

A tree of n leaves falls into perfect subtrees from the left, the largest first; folding them from
the right gives the root. So who has, for every leaf from 0 to n, either the leaf or a perfect
subtree that covers it, can compute the root, and needs log2(n) hashes of memory for it.

    leaf = SHA-256(00 + entry)    node = SHA-256(01 + left + right)    no leaves: SHA-256 of nothing
"""

from __future__ import annotations

from collections.abc import Iterator

from ckptlog.errors import FormatError
from ckptlog.formats.merkle import HASH_BYTES, ROOT_EMPTY, fold, node_hash


def widths(start: int, stop: int) -> Iterator[int]:
    """Yield the widths of the perfect subtrees that leaves start <= n < stop fall into.

    Always the widest that begins there: its width divides its position and does not pass stop.
    """
    while start < stop:
        width = 1 << ((stop - start).bit_length() - 1)
        if start:
            width = min(width, start & -start)
        yield width
        start += width


class Fold:
    """Takes leaves and perfect subtrees from the left, and knows the root of what it has taken.

    Attributes:
        size: Leaves taken.

    Threads: one.        Cost: one hash for each leaf, on the average.
    """

    def __init__(self) -> None:
        self.size = 0
        self._stack: list[tuple[int, bytes]] = []

    def add(self, digest: bytes, width: int = 1) -> None:
        """Take the next leaf, or a perfect subtree of `width` leaves.

        Raises:
            FormatError: No perfect subtree of that width begins here.
        """
        if width < 1 or width & (width - 1) or self.size % width or len(digest) != HASH_BYTES:
            raise FormatError(f"No subtree of {width} leaves begins at leaf {self.size}.")
        self.size += width
        stack = self._stack
        while stack and stack[-1][0] == width:
            digest = node_hash(stack.pop()[1], digest)
            width *= 2
        stack.append((width, digest))

    @property
    def root(self) -> bytes:
        """The root of the leaves so far."""
        return fold([digest for _, digest in self._stack]) if self._stack else ROOT_EMPTY


class Gap:
    """Gathers leaves that are left out into the subtrees that stand for them.

    Attributes:
        start, stop: The leaves that were gathered.

    Threads: one.        Memory: 2 log2(n) hashes.
    """

    def __init__(self, start: int) -> None:
        self.start = self.stop = start
        self._stack: list[tuple[int, bytes]] = []

    def add(self, leaf: bytes) -> None:
        """Take the next leaf."""
        stack, width = self._stack, 1
        while stack and stack[-1][0] == width and (self.stop + 1) % (2 * width) == 0:
            leaf = node_hash(stack.pop()[1], leaf)
            width *= 2
        stack.append((width, leaf))
        self.stop += 1

    @property
    def hashes(self) -> list[bytes]:
        """The subtrees, from the left, as wide as `widths` says."""
        return [digest for _, digest in self._stack]
