"""Roots over stretches of the RFC 6962 tree, against its definition written out."""

from __future__ import annotations

import random
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import FormatError
from ckptlog.formats.merkle import node_hash
from ckptlog.formats.stretch import Fold, Gap, widths

LEAVES = [sha256(b"%d" % number).digest() for number in range(300)]


def tree(leaves):
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256().digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + tree(leaves[:split]) + tree(leaves[split:])).digest()


def cover(size, seed):
    """Return the leaves up to size as items: some as they are, some as subtrees."""
    chance, items, at = random.Random(seed), [], 0
    while at < size:
        stop = chance.choice([at + 1, chance.randint(at + 1, size)])
        if stop == at + 1:
            items.append((at, 1, LEAVES[at]))
        else:
            gap, first = Gap(at), at
            for leaf in LEAVES[at:stop]:
                gap.add(leaf)
            for width, digest in zip(widths(at, stop), gap.hashes, strict=True):
                items.append((first, width, digest))
                first += width
        at = stop
    return items


@given(size=st.integers(0, 300), seed=st.integers())
def test_leaves_and_subtrees_lead_to_the_root(size, seed):
    fold = Fold()
    for _, width, digest in cover(size, seed):
        fold.add(digest, width)
    assert fold.size == size
    assert fold.root == tree(LEAVES[:size])


def test_known_roots():
    assert Fold().root.hex().startswith("e3b0c44298fc1c14")
    fold = Fold()
    fold.add(LEAVES[0])
    assert fold.root == LEAVES[0]
    fold.add(LEAVES[1])
    assert fold.root == node_hash(LEAVES[0], LEAVES[1])


@pytest.mark.parametrize(("before", "width"), [(1, 2), (2, 4), (0, 3), (0, 0), (4, 8)])
def test_a_subtree_stands_where_its_width_divides(before, width):
    fold = Fold()
    for leaf in LEAVES[:before]:
        fold.add(leaf)
    with pytest.raises(FormatError):
        fold.add(LEAVES[0], width)
