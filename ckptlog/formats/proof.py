"""RFC 6962 over a stretch of the log: roots from leaves and perfect subtrees, and paths.

A tree of n leaves falls into perfect subtrees from the left, the largest first; folding them from
the right gives the root. So who has, for every leaf from 0 to n, either the leaf or a perfect
subtree that covers it, can compute the root, and needs log2(n) hashes of memory for it.

    leaf = SHA-256(00 + entry)    node = SHA-256(01 + left + right)    no leaves: SHA-256 of nothing
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256

from ckptlog.errors import FormatError
from ckptlog.formats.merkle import HASH_BYTES, node_hash

__all__ = ["HASH_BYTES", "Fold", "Gap", "node_hash", "path", "root_of_path", "widths"]


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
        if not self._stack:
            return sha256().digest()
        root = self._stack[-1][1]
        for _, left in reversed(self._stack[:-1]):
            root = node_hash(left, root)
        return root


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


Item = tuple[int, int, bytes]
"""A leaf or a perfect subtree: its first leaf, its width, its hash."""


def path(items: Sequence[Item], index: int, size: int) -> list[bytes]:
    """Return the inclusion proof of a leaf (RFC 6962, 2.1.1), which must be one of the items.

    Args:
        items: They cover all leaves from 0 to size, in order.
    """
    start, stop, found = 0, size, []
    while stop - start > 1:
        split = start + (1 << (stop - start - 1).bit_length() - 1)
        if index < split:
            found.append(_root(items, split, stop))
            stop = split
        else:
            found.append(_root(items, start, split))
            start = split
    return found[::-1]


def _root(items: Iterable[Item], start: int, stop: int) -> bytes:
    # Widths divide positions, and start is a multiple of what the stretch spans, so it may be
    # folded as a tree of its own.
    fold = Fold()
    for first, width, digest in items:
        if start <= first < stop:
            fold.add(digest, width)
    return fold.root


def root_of_path(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """Return the root that a leaf's inclusion proof leads to (RFC 9162, 2.1.3.2).

    Raises:
        FormatError: It is no proof for that index and size.
    """
    if not 0 <= index < size:
        raise FormatError(f"A log of {size} leaves has no leaf {index}.")
    at, last, root = index, size - 1, leaf
    for one in proof:
        if last == 0:
            raise FormatError("The proof is too long.")
        if at & 1 or at == last:
            root = node_hash(one, root)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            root = node_hash(root, one)
        at, last = at >> 1, last >> 1
    if last:
        raise FormatError("The proof is too short.")
    return root
