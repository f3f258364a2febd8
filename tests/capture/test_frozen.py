"""Frozen values: their parts put together are what the store would write; nothing is kept of
what goes on changing."""

from __future__ import annotations

import os
import random

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog import UnstorableError
from ckptlog.capture import frozen
from ckptlog.capture.frozen import Mapping, Raw, Text, freeze, text_of
from ckptlog.capture.offspring import fork
from ckptlog.errors import CaptureFailedError
from ckptlog.model.value import prepare


def text(value, **options):
    return b"".join(text_of(freeze(value, path="x", **options)))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(frozen, "RAW_BYTES_MIN", 24)


LEAVES = st.one_of(
    st.integers(-5, 5),
    st.text(max_size=3),
    st.binary(max_size=60),
    st.binary(max_size=60).map(bytearray),
    st.floats(),
    st.sampled_from(
        [
            numpy.arange(12.0),
            numpy.arange(12).reshape(3, 4).T,
            numpy.arange(24).reshape(4, 6)[::2, ::3],
            numpy.arange(24, dtype=">i4").reshape(2, 3, 4),
            numpy.array(5.0),
            numpy.zeros((0, 9)),
            numpy.zeros(40, bool),
            numpy.array(["ab", "c"] * 9),
            numpy.array(["2020-01-01"] * 9, "M8[D]"),
            numpy.asfortranarray(numpy.arange(20.0).reshape(4, 5)),
            numpy.arange(9, dtype="c16"),
        ]
    ),
)
KEYS = st.one_of(st.text(max_size=4), st.sampled_from(["$bytes", "$x", 'q"', "\\"]))
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=4),
        st.tuples(inner, inner),
    ),
    max_leaves=12,
)


@given(VALUES, st.booleans())
def test_the_parts_are_the_stored_form(value, is_live):
    assert text(value, is_live=is_live) == prepare(value).wire


@given(VALUES)
def test_a_child_gives_the_same(value):
    child = fork([lambda: freeze(value, path="x")])[0]
    try:
        assert b"".join(text_of(child.frozen())) == prepare(value).wire
    finally:
        child.close()


def test_large_bytes_are_not_copied_and_small_ones_are_text():
    data = bytes(range(100))
    parts = freeze({"a": data, "b": b"small"}, path="x")
    assert isinstance(parts, Mapping)
    found = dict(parts.items)
    assert isinstance(found["a"], Raw)
    assert next(iter(found["a"].data)).obj is data
    assert isinstance(found["b"], Text)


def test_nothing_is_kept_of_what_is_live():
    array, several = numpy.arange(50.0), bytearray(b"x" * 50)
    value = {"a": array, "b": [several], "c": {"n": 1}}
    before = prepare(value).wire
    parts = freeze(value, path="x", is_live=True)
    array[:] = 0
    several[:] = b"yy"
    value["c"]["n"] = 2
    value["d"] = 1
    assert b"".join(text_of(parts)) == before


def test_a_child_does_not_see_what_is_changed_after_the_fork():
    value = {"a": numpy.arange(5000.0), "n": [1]}
    before = prepare(value).wire
    child = fork([lambda: freeze(value, path="x")])[0]
    value["a"][:] = 0
    value["n"].append(2)
    assert b"".join(text_of(child.frozen())) == before
    child.close()
    child.close()


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": b"x" * 50, "b": [1, {2, object()}]}, r"x\.b\[1\]"),
        ({"a": b"x" * 50, 3: 1}, "key of type int"),
        ({"a": [b"x" * 50, {"\ud800": 1}]}, "surrogate"),
        ([numpy.zeros(9, object)], "dtype"),
    ],
)
def test_what_cannot_be_stored_is_told_with_its_path(value, path):
    for is_live in (False, True):
        with pytest.raises(UnstorableError, match=path):
            text(value, is_live=is_live)
    child = fork([lambda: freeze(value, path="x")])[0]
    with pytest.raises(UnstorableError, match=path):
        list(text_of(child.frozen()))
    child.close()


def nested(depth, inner):
    for _ in range(depth):
        inner = [inner]
    return inner


def test_the_limit_on_depth_is_that_of_the_whole():
    raw = b"x" * 50
    assert text({"a": raw, "b": nested(199, 1)}) == prepare({"a": raw, "b": nested(199, 1)}).wire
    with pytest.raises(UnstorableError, match="deeper than 200"):
        text({"a": raw, "b": nested(200, 1)})


def test_a_child_that_dies_is_told():
    def die():
        os._exit(3)

    (child,) = fork([die])
    with pytest.raises(CaptureFailedError, match="child died"):
        child.frozen()
    child.close()


def test_a_child_that_nobody_reads_is_ended():
    value = random.Random(1).randbytes(5_000_000)
    child = fork([lambda: freeze(value, path="x")])[0]
    child.close()


def test_one_child_gives_several_values_and_outlives_who_gives_up():
    large = random.Random(1).randbytes(5_000_000)
    children = fork([lambda one=one: freeze(one, path="x") for one in ([large], {"n": 1}, "text")])
    assert len({id(child._child) for child in children}) == 1
    children[0].close()
    for child, value in zip(children[1:], ({"n": 1}, "text"), strict=True):
        assert b"".join(text_of(child.frozen())) == prepare(value).wire
        child.close()
    with pytest.raises(ChildProcessError):
        os.waitpid(children[0]._child._pid, 0)
