"""When the cache of leaf hashes is believed about lost events that no signed head covers."""

from __future__ import annotations

import hashlib

import pytest

from ckptlog.formats.segment import SegmentHeader
from ckptlog.model.leaf import LEAF_EMPTY
from ckptlog.repository.salvage import Bounds, Leaves
from ckptlog.repository.warrant import NO_LEAF

CACHED = [hashlib.sha256(bytes([n])).digest() for n in range(10)]
OTHER = hashlib.sha256(b"other").digest()
MADE = SegmentHeader(bytes(16), 0, 0, 0, 0, 0, LEAF_EMPTY, 0)
LOST = 5
NOTHING_TOLD = Bounds()


def told(known, *, bounds=NOTHING_TOLD, made=MADE, is_trusted=False, cached=CACHED):
    def at(position):
        return cached[position] if position < len(cached) else None

    return Leaves(at, is_trusted=is_trusted).believed(bounds, made, known)(LOST)


@pytest.mark.parametrize("is_trusted", [True, False])
def test_one_event_of_which_it_is_wrong_is_enough(is_trusted):
    known = [(3, CACHED[3]), (4, CACHED[4])]
    assert told(known, is_trusted=is_trusted) == CACHED[LOST]
    assert told([*known, (6, OTHER)], is_trusted=is_trusted) is None
    assert told(known, bounds=Bounds(200, 9, OTHER), is_trusted=is_trusted) is None
    made = SegmentHeader(bytes(16), 3, 0, 0, 0, 100, OTHER, 0)
    assert told(known, made=made, is_trusted=is_trusted) is None


def test_of_which_it_is_right_about_nothing_it_is_not_believed():
    assert told([]) is None
    assert told([], is_trusted=True) == CACHED[LOST]
    assert told([(20, OTHER)]) is None
    assert told([(20, OTHER), (3, CACHED[3])]) == CACHED[LOST]


def test_zeros_are_no_leaf_hash():
    cached = [*CACHED[:LOST], NO_LEAF, *CACHED[LOST + 1 :]]
    assert told([(3, CACHED[3])], cached=cached) is None
    assert told([], bounds=Bounds(200, LOST + 1, OTHER), cached=cached) == OTHER
