"""The parts and links that the kernel finds in a branch are those of the walk in Python."""

from __future__ import annotations

import gc
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import FormatError
from ckptlog.formats import branch
from ckptlog.formats.branch import BRANCH, BYTES, LEAF, Link
from ckptlog.formats.chunk import RAW_BYTES_MAX
from ckptlog.kernel import native

needs_kernel = pytest.mark.skipif(native is None, reason="the kernel was not compiled here")

numbers = st.sampled_from([1, 31, 32, 127, 128, 8191, 8192, (1 << 40) + 5]) | st.integers(
    1, 1 << 53
)
links = st.builds(
    Link,
    st.sampled_from([LEAF, BRANCH, BYTES]),
    st.binary(min_size=32, max_size=32),
    numbers,
    st.integers(0, 1 << 20),
)
parts = st.lists(links | st.binary(min_size=1, max_size=300), min_size=1, max_size=12)


def both(raw):
    """Return the links, found in both ways; None where both refuse."""
    try:
        expected = branch._links_in(raw)
    except FormatError:
        expected = None
    if native is not None:
        assert native.links_in(raw) == expected
        assert native.parts_in(raw, Link, RAW_BYTES_MAX) == parts_of(raw)
    return expected


def parts_of(raw):
    """Return the parts, taken in Python; None where it refuses."""
    try:
        return branch._decode(raw)
    except FormatError:
        return None


@given(parts)
def test_every_branch(parts):
    found = both(branch.encode(parts))
    links = [part for part in parts if type(part) is Link]
    assert found is not None
    leaves, others = found
    assert leaves == [link.digest for link in links if link.kind == LEAF]
    assert others == [(link.digest, link.size, link.kind) for link in links if link.kind != LEAF]


@given(parts, st.data())
def test_whatever_stands_there(parts, data):
    damaged = bytearray(branch.encode(parts))
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    both(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))


@given(st.binary(max_size=60))
def test_any_bytes(raw):
    both(raw)


@pytest.mark.parametrize("raw", [b"", b"\x80", b"\x05\x80", b"\x80\x00", b"\x08x", b"\xff" * 12])
def test_what_is_no_branch(raw):
    assert both(raw) is None
    with pytest.raises(FormatError):
        branch.links_in(raw)


@needs_kernel
def test_what_is_no_argument():
    for arguments in (("",), (None,), (), (b"", b"")):
        with pytest.raises(TypeError):
            native.links_in(*arguments)
    for arguments in (("", Link, 1), (b"", Link, ""), (b"", Link, -1), (b"", Link), ()):
        with pytest.raises((TypeError, OverflowError)):
            native.parts_in(*arguments)


@needs_kernel
def test_what_makes_a_link_may_fail():
    def broken(*_fields):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        native.parts_in(branch.encode([b"text", Link(LEAF, bytes(32), 5)]), broken, 9)


@needs_kernel
def test_nothing_is_leaked():
    raw = branch.encode([b"text", Link(LEAF, bytes(32), 5), Link(BRANCH, bytes(32), 1 << 30, 7)])
    gc.collect()
    blocks = sys.getallocatedblocks()
    for _ in range(5000):
        native.links_in(raw)
        native.links_in(raw[:-1])
        native.parts_in(raw, Link, RAW_BYTES_MAX)
        native.parts_in(raw[:-1], Link, RAW_BYTES_MAX)
    assert sys.getallocatedblocks() - blocks < 200
