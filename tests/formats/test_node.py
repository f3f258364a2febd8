"""The node: exact, bounded, cut by content (specs/node.md)."""

from __future__ import annotations

from itertools import accumulate

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import FormatError
from ckptlog.formats import node
from ckptlog.formats.node import Child
from tests.formats.mutation import Refused, cuts, flips, is_refused, mutated, outcome
from tests.formats.strategies import children, nodes
from tests.formats.vectors import check, every

CHILDREN = [Child(bytes([n]) * 32, 2048 + n) for n in range(3)]
DATA = node.encode(1, CHILDREN)


@every("node")
def test_golden(vector):
    check(vector, node.decode, lambda value: node.encode(*value))


def test_bytes_are_those_of_the_page():
    rows = [bytes([n]) * 32 + (2048 + n).to_bytes(8, "little") for n in range(3)]
    assert b"\x01" + b"".join(rows) == DATA


@given(value=nodes)
def test_round_trip(value):
    data = node.encode(*value)
    assert node.decode(data) == value
    assert node.decode(memoryview(data)) == value


def exact(data: bytes) -> bool:
    found = outcome(node.decode, data)
    return isinstance(found, Refused) or node.encode(*found) == data


def test_a_flipped_bit_is_refused_or_is_another_node():
    assert all(exact(data) for data in flips(DATA))


def test_a_cut_is_refused_except_behind_a_child():
    whole = {1 + 40, 1 + 80}
    assert all(is_refused(node.decode, cut) for cut in cuts(DATA) if len(cut) not in whole)


@given(data=mutated(DATA) | st.binary(max_size=130))
def test_arbitrary_bytes_end_in_our_errors_or_in_themselves(data):
    assert exact(data)


@pytest.mark.parametrize(
    ("level", "count"), [(0, 1), (9, 1), (256, 1), (-1, 1), (1, 0), (1, node.FANOUT_MAX + 1)]
)
def test_what_could_not_be_read_is_not_written(level, count):
    with pytest.raises(FormatError):
        node.encode(level, CHILDREN[:1] * count)


def test_a_huge_node_is_refused_by_its_length_alone():
    assert is_refused(node.decode, b"\x01" + bytes(40) * 100_000)


@given(run=st.lists(children, max_size=300))
def test_groups_are_the_run_in_order_and_each_fits_a_node(run):
    groups = node.group(run)
    assert [child for group in groups for child in group] == run
    assert all(len(group) <= node.FANOUT_MAX for group in groups)
    assert all(len(group) >= node.FANOUT_MIN for group in groups[:-1])
    assert len(groups) < len(run) or len(run) <= 1
    for group in groups[:-1]:
        assert len(group) == node.FANOUT_MAX or group[-1].digest[0] % node.FANOUT_MEAN == 0


@given(seed=st.binary(max_size=8), at=st.integers(0, 1000))
def test_an_insertion_changes_few_groups(seed, at):
    names = [blake3(seed + b"%d" % number).digest() for number in range(1000)]
    run = [Child(name, 2048) for name in names]
    before = node.group(run)
    after = node.group([*run[:at], Child(blake3(seed).digest(), 7), *run[at:]])
    # The last group may end because the run does; an addition goes on in it.
    ends = list(accumulate(map(len, before[:-1])))
    whole = sum(end <= at for end in ends)
    assert after[:whole] == before[:whole]
    assert sum(group not in after for group in before) < len(before) / 2
