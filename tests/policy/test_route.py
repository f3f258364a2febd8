"""Ways through the states: legal, shortest, and found wherever there is one."""

from __future__ import annotations

import itertools

import pytest

from ckptlog.model.state import TRANSITIONS, CheckpointState, is_legal
from ckptlog.policy.route import route

CREATED, ACTIVE, COMPLETED, FAILED, RESTORED = CheckpointState


def ways(before, length):
    """Return every legal way of a length."""
    found = [(before,)]
    for _ in range(length):
        found = [(*way, state) for way in found for state in TRANSITIONS[way[-1]]]
    return [way[1:] for way in found]


@pytest.mark.parametrize("must_move", [False, True])
@pytest.mark.parametrize(("before", "target"), list(itertools.product(CheckpointState, repeat=2)))
def test_the_way_is_legal_and_shortest(before, target, must_move):
    found = route(before, target, must_move=must_move)
    if before is target and not must_move:
        assert found == ()
        return
    lengths = [n for n in range(1, 5) if any(way[-1] is target for way in ways(before, n))]
    if not lengths:
        assert found is None
        return
    assert len(found) == lengths[0]
    assert found[-1] is target
    for one, other in itertools.pairwise((before, *found)):
        assert is_legal(one.value, other.value)


def test_some_ways():
    assert route(CREATED, COMPLETED, must_move=False) == (COMPLETED,)
    assert route(COMPLETED, FAILED, must_move=False) == (RESTORED, FAILED)
    assert route(COMPLETED, COMPLETED, must_move=True) == (RESTORED, COMPLETED)
    assert route(ACTIVE, ACTIVE, must_move=True) == (ACTIVE,)
    assert route(CREATED, CREATED, must_move=True) is None
    assert route(ACTIVE, CREATED, must_move=False) is None
