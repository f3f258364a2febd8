from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ckptlog.views.history import span
from ckptlog.views.history.span import Span, common, spans

POSITIONS = st.integers(0, 1000)


@given(POSITIONS)
def test_spans_cover_every_position_once_and_few_are_small(position):
    found = spans(position)
    edges = [0, *(one.stop for one in found)]
    assert [one.start for one in found] == edges[:-1]
    assert edges[-1] == position
    sizes = [one.stop - one.start for one in found]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(size < 64 for size in sizes) <= 3 + 3 + 1


@given(POSITIONS, POSITIONS)
def test_what_two_lengths_have_in_common(one, other):
    position = common(one, other)
    assert position <= min(one, other)
    before, after = spans(one), spans(other)
    assert [x for x in before if x.stop <= position] == [x for x in after if x.stop <= position]
    nexts = [next((x for x in each if x.start == position), None) for each in (before, after)]
    assert nexts[0] != nexts[1] or nexts == [None, None]


@given(POSITIONS, POSITIONS)
def test_final_spans_stay(one, more):
    final = [each for each in spans(one) if each.is_final]
    assert final == spans(one + more)[: len(final)]


def test_a_row_is_written_four_times_at_most():
    written = dict.fromkeys(range(200), 0)
    for position in range(200):
        start = common(position, position + 4) if position % 4 == 0 else None
        if start is None:
            continue
        for one in spans(position + 4):
            if one.start >= start:
                for row in range(*one):
                    written[row] += 1
    assert max(written.values()) <= len(span.SIZES) + 1


def test_the_sizes_that_are_used():
    assert span.__doc__
    assert "131,072" in span.__doc__
    assert Span(0, 64).is_final
    assert not Span(0, 63).is_final
