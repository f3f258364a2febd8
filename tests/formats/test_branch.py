"""The branch: exact, bounded, one encoding for one run of parts (specs/branch.md)."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.formats import branch
from ckptlog.formats.branch import BRANCH, BYTES, LEAF, Link
from tests.formats.mutation import Refused, cuts, flips, grown, is_refused, mutated, outcome
from tests.formats.strategies import parts
from tests.formats.vectors import check, every

NAME = bytes(range(32))
PARTS = [
    b"[",
    Link(LEAF, NAME, 300, 31),
    Link(BRANCH, NAME, 70_000, 900),
    b",1]",
    Link(BYTES, NAME, 9),
]
DATA = branch.encode(PARTS)


@every("branch")
def test_golden(vector):
    check(vector, branch.decode, branch.encode)


def test_bytes_are_those_of_the_page():
    text, leaf = b"\x04[", b"\x7d\xac\x02" + NAME
    inner = b"\x92\x1c\xf0\xa2\x04" + NAME
    assert text + leaf + inner + b"\x0c,1]" + b"\x03\x09" + NAME == DATA


@given(value=parts)
def test_round_trip(value):
    assert branch.decode(branch.encode(value)) == value


def exact(data: bytes) -> bool:
    found = outcome(branch.decode, data)
    return isinstance(found, Refused) or branch.encode(found) == data


def test_a_flipped_bit_is_refused_or_is_another_branch():
    assert all(exact(data) for data in flips(DATA))


def test_a_cut_is_refused_except_behind_a_part():
    ends = [len(branch.encode(PARTS[:count])) for count in range(1, len(PARTS))]
    for cut in cuts(DATA):
        assert is_refused(branch.decode, cut) == (len(cut) not in ends)
    assert all(map(exact, grown(DATA)))


@given(data=mutated(DATA) | st.binary(max_size=130))
def test_arbitrary_bytes_end_in_our_errors_or_in_themselves(data):
    assert exact(data)


@pytest.mark.parametrize("head", [b"\xfc" + b"\xff" * 7 + b"\x7f", b"\xff" * 200])
def test_huge_numbers_allocate_nothing(head):
    tracemalloc.start()
    assert is_refused(branch.decode, head + bytes(40))
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()
