"""A turn in a row of answers: halves against one by one, with answers that nobody knows."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from ckptlog.policy.search import Turn, find_turn

answers = st.lists(st.sampled_from((True, False, None)), max_size=60)


def steps(length, turn, unknown=()):
    return [None if index in unknown else index >= turn for index in range(length)]


def asking(row):
    asked = []

    def judge(index):
        asked.append(index)
        return row[index]

    return judge, asked


@given(st.integers(0, 200), st.integers(0, 200))
def test_halves_find_what_one_by_one_finds(length, turn):
    row = steps(length, turn)
    judge, asked = asking(row)
    found = find_turn(length, judge)
    assert (found.first, found.before) == (turn if turn < length else None, _before(length, turn))
    assert len(asked) == len(set(asked)) == found.asked
    assert len(asked) <= 2 + math.ceil(math.log2(length + 1))


def _before(length, turn):
    last_false = min(turn, length) - 1
    return last_false if last_false >= 0 else None


@given(st.integers(1, 60), st.integers(0, 60), st.sets(st.integers(0, 59)))
def test_halves_with_unknown_answers(length, turn, unknown):
    """What is monotone but for unknown answers: the turn is the answer, or one of the doubtful."""
    row = steps(length, turn, unknown)
    found = find_turn(length, row.__getitem__)
    one_by_one = find_turn(length, row.__getitem__, is_linear=True)
    assert found.first == one_by_one.first
    assert found.before == one_by_one.before
    assert set(found.doubtful) <= set(one_by_one.doubtful)
    if found.first is not None:
        assert row[found.first] is True
        assert found.before is None or row[found.before] is False
        assert turn in (found.first, *found.doubtful)


@given(answers)
def test_any_row(row):
    """Nothing is assumed here: a turn that is found is one, and one by one it is the first."""
    judge, asked = asking(row)
    found = find_turn(len(row), judge)
    assert len(asked) == len(set(asked)) == found.asked
    if found.first is not None:
        assert row[found.first] is True
        if found.before is not None:
            assert row[found.before] is False
            between = row[found.before + 1 : found.first]
            assert between == [None] * len(between)
            assert found.doubtful == tuple(range(found.before + 1, found.first))
    one_by_one = find_turn(len(row), row.__getitem__, is_linear=True)
    assert one_by_one.first == (row.index(True) if True in row else None)
    falses = [index for index, answer in enumerate(row[: one_by_one.first]) if answer is False]
    assert one_by_one.before == (falses[-1] if falses else None)
    start = 0 if one_by_one.before is None else one_by_one.before + 1
    stop = len(row) if one_by_one.first is None else one_by_one.first
    assert one_by_one.doubtful == tuple(range(start, stop))


def test_nothing_to_ask():
    assert find_turn(0, lambda index: 1 / 0) == Turn(None, None, (), 0)
    assert find_turn(0, lambda index: 1 / 0, is_linear=True) == Turn(None, None, (), 0)


def test_unknown_ones_are_looked_for_from_the_middle_outwards():
    judge, asked = asking([False, False, None, None, None, True, True, True, True])
    found = find_turn(9, judge)
    assert found == Turn(5, 1, (2, 3, 4), 7)
    assert asked[:3] == [8, 0, 4]
