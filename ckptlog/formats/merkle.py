"""The RFC 6962 tree: roots, proofs that are made, proofs that are verified (specs/tree.md).

    leaf = SHA-256(00 + entry)      node = SHA-256(01 + left + right)      empty tree = SHA-256("")

A tree of n leaves splits at the largest power of two below n. So it is made of *perfect* subtrees
(level k: 2**k leaves, aligned), whose hashes never change as the log grows; whoever can name those
(`Perfect`) can make every root and every proof of every size. Proofs are verified by the loops of
RFC 9162 (sections 2.1.3.2 and 2.1.4.2), which share no line with those that make them.

Everything here is pure. What is verified may be hostile: lengths are checked before use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from ckptlog.errors import ArgumentError, ProofError

HASH_BYTES: Final = 32
ROOT_EMPTY: Final = hashlib.sha256(b"").digest()
SIZE_MAX: Final = 2**63 - 1
# A path has a hash for each level; no tree of SIZE_MAX leaves has more.
PATH_MAX: Final = 63

Perfect = Callable[[int, int], bytes]
"""Returns the hash of the perfect subtree (level, index): leaves index << level and on."""

_sha256 = hashlib.sha256


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node, 32 bytes."""
    return _sha256(b"\x01" + left + right).digest()


def perfect_hash(hashes: Sequence[bytes]) -> bytes:
    """Return the hash over a row of 1, 2, 4, ... neighbouring hashes of one level."""
    row = list(hashes)
    while len(row) > 1:
        row = [node_hash(row[at], row[at + 1]) for at in range(0, len(row), 2)]
    return row[0]


def perfect_nodes(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield the perfect subtrees (level, index) that leaves start to stop are made of, in order.

    Args:
        start: Aligned as a subtree of a tree is: a multiple of the largest of them.
    """
    while start < stop:
        level = (stop - start).bit_length() - 1
        yield level, start >> level
        start += 1 << level


def range_hash(perfect: Perfect, start: int, stop: int) -> bytes:
    """Return the hash of the subtree over leaves start to stop (stop not included)."""
    hashes = [perfect(level, index) for level, index in perfect_nodes(start, stop)]
    if not hashes:
        return ROOT_EMPTY
    return fold(hashes)


def fold(hashes: Sequence[bytes]) -> bytes:
    """Return the hash over perfect subtrees of falling size; at least one."""
    result = hashes[-1]
    for left in reversed(hashes[:-1]):
        result = node_hash(left, result)
    return result


def root_hash(perfect: Perfect, size: int) -> bytes:
    """Return the root of the tree of the first `size` leaves."""
    return range_hash(perfect, 0, size)


class Frontier:
    """The root of a tree that grows leaf by leaf, with log2(n) hashes in memory.

    Threads: one at a time.        Cost: one hash a leaf, on average.
    """

    def __init__(self) -> None:
        self.size = 0
        self._hashes: list[bytes] = []

    def add(self, leaf: bytes) -> None:
        """Take in the next leaf."""
        hashes, size = self._hashes, self.size
        while size & 1:
            leaf = node_hash(hashes.pop(), leaf)
            size >>= 1
        hashes.append(leaf)
        self.size += 1

    def copy(self) -> Frontier:
        """Return another one that grows by itself."""
        other = Frontier()
        other.size, other._hashes = self.size, [*self._hashes]
        return other

    @property
    def root(self) -> bytes:
        """The root of the leaves so far."""
        return fold(self._hashes) if self._hashes else ROOT_EMPTY


# --- making proofs --------------------------------------------------------------------------------


def inclusion_proof(perfect: Perfect, index: int, size: int) -> list[bytes]:
    """Return the hashes from the leaf's sibling up to the root's child.

    Raises:
        ArgumentError: The tree has no such leaf.
    """
    if not 0 <= index < size <= SIZE_MAX:
        raise ArgumentError(f"A tree of {size} events has none at {index}.", argument="index")
    path: list[bytes] = []
    start, stop = 0, size
    while stop - start > 1:
        middle = _split(start, stop)
        if index < middle:
            path.append(range_hash(perfect, middle, stop))
            stop = middle
        else:
            path.append(range_hash(perfect, start, middle))
            start = middle
    return path[::-1]


def consistency_proof(perfect: Perfect, old: int, new: int) -> list[bytes]:
    """Return the hashes that show the tree of `old` leaves to be the beginning of that of `new`.

    Raises:
        ArgumentError: old is above new.
    """
    if not 0 <= old <= new <= SIZE_MAX:
        raise ArgumentError(f"A tree of {new} events has no earlier one of {old}.", argument="old")
    if old in {0, new}:
        return []
    path: list[bytes] = []
    start, stop, is_left = 0, new, True
    while stop != old:
        middle = _split(start, stop)
        if old <= middle:
            path.append(range_hash(perfect, middle, stop))
            stop = middle
        else:
            path.append(range_hash(perfect, start, middle))
            start, is_left = middle, False
    if not is_left:
        path.append(range_hash(perfect, start, stop))
    return path[::-1]


def _split(start: int, stop: int) -> int:
    return start + (1 << ((stop - start - 1).bit_length() - 1))


# --- verifying proofs -----------------------------------------------------------------------------


def verify_inclusion(
    leaf: bytes, index: int, size: int, path: Sequence[bytes], *, root: bytes
) -> None:
    """Check that a leaf stands at an index of the tree with this size and root.

    Raises:
        ProofError: It does not prove that.
    """
    _check_hashes((leaf, root, *path), len(path))
    if not 0 <= index < size <= SIZE_MAX:
        raise ProofError(f"A tree of {size} entries has none at {index}.")
    at, last, result = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise ProofError("The proof has more hashes than the tree has levels.")
        if at & 1 or at == last:
            result = node_hash(sibling, result)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            result = node_hash(result, sibling)
        at, last = at >> 1, last >> 1
    if last:
        raise ProofError("The proof has fewer hashes than the tree has levels.")
    if result != root:
        raise ProofError(f"The proof leads from entry {index} to another root than the head's.")


def verify_consistency(
    old: int, new: int, path: Sequence[bytes], *, old_root: bytes, new_root: bytes
) -> None:
    """Check that the tree of `old` entries is the beginning of the tree of `new` ones.

    Raises:
        ProofError: It does not prove that.
    """
    _check_hashes((old_root, new_root, *path), len(path))
    if not 0 <= old <= new <= SIZE_MAX:
        raise ProofError(f"A tree of {new} entries has no earlier one of {old}.")
    if old in {0, new}:
        _verify_trivial(old, new, path, old_root, new_root)
        return
    rest = list(path)
    if old & (old - 1) == 0:
        rest.insert(0, old_root)
    if not rest:
        raise ProofError("The proof has fewer hashes than the tree has levels.")
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    first, second = _climb(rest, at, last)
    if first != old_root:
        raise ProofError(f"The proof does not begin at the tree of {old} entries.")
    if second != new_root:
        raise ProofError(f"The proof does not end at the tree of {new} entries.")


def _climb(hashes: Sequence[bytes], at: int, last: int) -> tuple[bytes, bytes]:
    """Return the roots of both trees as a consistency proof has them."""
    first = second = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise ProofError("The proof has more hashes than the tree has levels.")
        if at & 1 or at == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        at, last = at >> 1, last >> 1
    if last:
        raise ProofError("The proof has fewer hashes than the tree has levels.")
    return first, second


def _verify_trivial(
    old: int, new: int, path: Sequence[bytes], old_root: bytes, new_root: bytes
) -> None:
    if path:
        raise ProofError(f"From {old} to {new} entries there is nothing to prove.")
    if old == new and old_root != new_root:
        raise ProofError(f"Two different trees of {new} entries.")
    if old == 0 and old_root != ROOT_EMPTY:
        raise ProofError("The root of the empty tree is another one.")


def _check_hashes(hashes: Iterable[bytes], steps: int) -> None:
    if steps > PATH_MAX:
        raise ProofError(f"A proof of {steps} hashes is longer than any can be.")
    if any(len(one) != HASH_BYTES for one in hashes):
        raise ProofError(f"A hash is not {HASH_BYTES} bytes long.")
