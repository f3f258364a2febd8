"""What signed heads prove of leaf hashes that nobody can read any more."""

from __future__ import annotations

import hashlib

import pytest

from ckptlog.formats.head import Head
from ckptlog.formats.merkle import Frontier
from ckptlog.repository.warrant import NO_LEAF, Warrant, nothing_told

LEAVES = [hashlib.sha256(bytes([n])).digest() for n in range(20)]
FALSE = hashlib.sha256(b"false").digest()


def head(size, leaves=LEAVES):
    frontier = Frontier()
    for leaf in leaves[:size]:
        frontier.add(leaf)
    return Head("o", size, frontier.root)


def changed(**other):
    return [other.get(f"at_{n}", leaf) for n, leaf in enumerate(LEAVES)]


def known_but(*lost):
    return {n: leaf for n, leaf in enumerate(LEAVES) if n not in lost}


def warrant(heads, *, lost=(), stand_ins=None, copied=None, cached=()):
    told = nothing_told(len(LEAVES), cached)
    rows = (told.known, known_but(*lost)), (told.stand_ins, stand_ins), (told.copied, copied)
    for row, leaves in rows:
        for position, leaf in (leaves or {}).items():
            row.put(position, leaf)
    return Warrant(heads, lambda: told)


def test_without_heads_nothing_is_asked_for():
    def never():
        pytest.fail("asked")

    one = Warrant([], never)
    assert not one.covers(0)
    assert one.proven(0) is one.restored(0) is None


def test_a_cache_is_believed_below_the_head_that_agrees_alone():
    one = warrant([head(9), head(15)], lost=(3, 11), cached=changed(at_11=FALSE))
    assert one.proven(3) == LEAVES[3]
    assert one.covers(11)
    assert one.proven(11) is None
    assert one.proven(15) is None
    assert not one.covers(15)


@pytest.mark.parametrize("leaf", [FALSE, NO_LEAF])
def test_a_false_cache_proves_nothing(leaf):
    one = warrant([head(9)], lost=(3, 5), cached=changed(at_3=leaf))
    assert one.proven(5) is None


def test_a_copy_goes_before_a_false_tombstone_and_a_false_cache():
    one = warrant(
        [head(9)],
        lost=(3,),
        stand_ins={3: FALSE},
        copied={3: LEAVES[3]},
        cached=changed(at_3=FALSE),
    )
    assert one.restored(3) == LEAVES[3]


def test_a_copy_of_another_history_is_passed_over():
    one = warrant([head(9)], lost=(3,), copied={3: FALSE}, cached=LEAVES)
    assert one.proven(3) == LEAVES[3]


def test_nothing_is_restored_below_a_head_that_rests_on_the_tombstone():
    since = changed(at_3=FALSE)
    one = warrant(
        [head(9), head(12, since)], lost=(3,), stand_ins={3: FALSE}, copied={3: LEAVES[3]}
    )
    assert one.proven(3) == FALSE
    assert one.restored(3) is None


def test_nothing_is_restored_below_a_head_that_cannot_be_compared():
    one = warrant([head(9), head(12)], lost=(3, 10), stand_ins={3: FALSE}, copied={3: LEAVES[3]})
    assert one.proven(3) == LEAVES[3]
    assert one.restored(3) is None


def test_another_way_is_tried_from_one_head_to_the_next():
    """One way for the whole log would prove nothing above the first head."""
    one = warrant(
        [head(6), head(15)],
        lost=(3, 9),
        stand_ins={3: LEAVES[3], 9: FALSE},
        copied={3: FALSE, 9: LEAVES[9]},
    )
    assert (one.proven(3), one.proven(9)) == (LEAVES[3], LEAVES[9])
    assert one.restored(9) == LEAVES[9]


def test_what_is_told_of_positions_that_no_head_covers_takes_no_room():
    one = nothing_told(9).copied
    one.put(1 << 60, LEAVES[0])
    assert len(one) == 0
    one.put(8, LEAVES[8])
    assert (len(one), one.get(7), one.get(8), one.get(9)) == (9, None, LEAVES[8], None)
