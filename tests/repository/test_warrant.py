"""What signed heads prove of leaf hashes that nobody can read any more."""

from __future__ import annotations

import hashlib

import pytest

from ckptlog.formats.head import Head
from ckptlog.formats.merkle import Frontier
from ckptlog.repository.warrant import NO_LEAF, Evidence, Warrant

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
    told = Evidence(known_but(*lost), stand_ins or {}, copied or {}, cached)
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
