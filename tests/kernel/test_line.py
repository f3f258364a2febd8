"""The lines of packs' indexes, sorted, checked and searched in both ways."""

from __future__ import annotations

import gc
import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.formats import line
from ckptlog.kernel import native

needs_kernel = pytest.mark.skipif(native is None, reason="the kernel was not compiled here")

digests = st.binary(min_size=32, max_size=32) | st.integers(0, 3).map(
    lambda one: bytes((one,)) * 32
)
one_line = st.tuples(digests, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
some_lines = st.lists(one_line, max_size=20)


def packed(lines):
    return b"".join(line.LINE.pack(*one) for one in lines)


@given(some_lines, st.data())
def test_those_that_are_asked_for(lines, data):
    body = packed(lines)
    chosen = data.draw(st.sets(st.sampled_from(lines))) if lines else set()
    for keys in (None, set(), {digest[:16] for digest, _, _ in chosen}):
        expected = line._lines_among(body, keys)
        assert expected == [one for one in lines if keys is None or one[0][:16] in keys]
        assert line.lines_among(body, keys) == expected
        if keys is not None:
            sieve = line.sieve_of(keys)
            assert line.lines_among(body, keys, sieve) == expected
            counted = (
                {one[0][:16] for one in expected},
                len(expected),
                sum(n for _, _, n in expected),
            )
            assert line._met_among(body, keys) == counted
            assert line.met_among(body, keys, sieve) == line.met_among(body, keys, b"") == counted


@given(st.sets(st.binary(min_size=16, max_size=16), max_size=50), st.integers(0, 8))
def test_a_sieve_passes_every_key(keys, log2):
    expected = line._sieve_of(keys, 1 << log2)
    if native is not None:
        assert native.sieve_of(keys, 1 << log2) == expected
    body = packed([(key * 2, 0, 0) for key in sorted(keys)])
    assert len(line.lines_among(body, keys, expected)) == len(keys)


def test_a_sieve_holds_others_back():
    source = random.Random(5)
    keys = {source.randbytes(16) for _ in range(1000)}
    sieve = line.sieve_of(keys)
    others = [source.randbytes(16) for _ in range(1000)]
    bits = [int.from_bytes(key[:4], "little") % (8 * len(sieve)) for key in others]
    assert sum(sieve[bit >> 3] >> (bit & 7) & 1 for bit in bits) < 200


@given(some_lines)
def test_sorted_by_digest(lines):
    lines = list({one[0]: one for one in lines}.values())  # each digest once
    expected = packed(sorted(lines))
    assert line._sorted_lines(lines) == line.sorted_lines(lines) == expected


@given(some_lines, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.booleans())
def test_the_order(lines, first, stop, is_sorted):
    lines = sorted(lines) if is_sorted else lines
    found = line._order_of(packed(lines), first, stop)
    assert line.order_of(packed(lines), first, stop) == found
    names = [one[0] for one in lines]
    inside = all(first <= at and at + size <= stop for _, at, size in lines)
    assert found == (names == sorted(set(names)), inside)


@needs_kernel
def test_what_is_no_argument():
    wrong = {
        native.lines_among: [(b"x", None, b""), ("", None, b""), (b"", [], b""), (b"", None)],
        native.met_among: [(b"x", set(), b""), (b"", None, b""), (b"", [], b""), (b"", set())],
        native.sieve_of: [(set(), 0), (set(), 3), ([], 4), ({b"short"}, 4), ({1}, 4), (set(),)],
        native.sorted_lines: [((),), ([(b"short", 0, 0)],), ([(bytes(32), 0)],), ([1],)],
        native.order_of_lines: [(b"x", 0, 0), (b"", None, 0), (b"", 0, None), (b"",)],
    }
    for function, calls in wrong.items():
        for arguments in calls:
            with pytest.raises(TypeError):
                function(*arguments)
    for sieve in (b"abc", bytearray(4), None):
        with pytest.raises(TypeError):
            native.lines_among(b"", set(), sieve)
        with pytest.raises(TypeError):
            native.met_among(b"", set(), sieve)
    for one in ((bytes(32), -1, 0), (bytes(32), 0, 2**32), (bytes(32), 2**64, 0)):
        with pytest.raises(OverflowError):
            native.sorted_lines([one])


@needs_kernel
def test_nothing_is_leaked():
    source = random.Random(1)
    lines = [(source.randbytes(32), at, 1) for at in range(50)]
    body, keys = packed(lines), {lines[7][0][:16]}
    gc.collect()
    blocks = sys.getallocatedblocks()
    for _ in range(2000):
        native.lines_among(body, keys, native.sieve_of(keys, 8))
        native.lines_among(body, None, b"")
        native.met_among(body, keys, b"")
        native.order_of_lines(native.sorted_lines(lines), 0, 9)
    assert sys.getallocatedblocks() - blocks < 200
