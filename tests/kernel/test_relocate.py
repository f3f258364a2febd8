"""What the kernel makes of chunks that are moved is what Python makes of them, to the byte."""

from __future__ import annotations

import gc
import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.formats import chunk, frame, relocation
from ckptlog.formats.relocation import Place
from ckptlog.kernel import native

SOURCE, TARGET = 0x0123456789ABCDEF, 0xFEDCBA9876543210
needs_kernel = pytest.mark.skipif(native is None, reason="the kernel was not compiled here")


def record_of(body: bytes) -> bytes:
    """Return the record of a chunk, whatever its name says."""
    digest = random.Random(body).randbytes(chunk.DIGEST_BYTES)
    return chunk.encode_plain(0, chunk.LEAF, digest, len(body), body)


def framed(records, base=0, seed=SOURCE):
    """Return frames back to back, and their lines."""
    data, lines = b"", []
    for record in records:
        one = frame.encode(seed, base + len(data), frame.CHUNK, 0, record)
        lines.append((record[:32], base + len(data), len(one)))
        data += one
    return data, lines


def both(data, base, lines, source, target):
    """Relocate in both ways."""
    expected = relocation._relocate(data, base, lines, source, target)
    assert relocation.relocate(data, base, lines, source, target) == expected
    return expected


# Every way that the checksum has of going over its input, and the seams between them.
SIZES = (0, 1, 59, 60, 61, 62, 171, 172, 173, 174, 300, 891, 955, 956, 957, 958, 1020, 1021)
sizes = st.sampled_from(SIZES) | st.integers(0, 5000)
seeds = st.sampled_from([0, 1, (1 << 64) - 1]) | st.integers(0, (1 << 64) - 1)


@given(st.lists(sizes, max_size=6), seeds, seeds, st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_chunks_of_every_size(sizes, source, target, base, at):
    records = [record_of(random.Random(size).randbytes(size)) for size in sizes]
    data, lines = framed(records, base, source)
    frames, count = both(data, base, lines, source, Place(target, at))
    assert count == len(records)
    assert frames == framed(records, at, target)[0]


def test_each_length_up_to_some_blocks():
    for size in range(2300):
        data, lines = framed([record_of(bytes([size & 255]) * size)])
        assert both(data, 0, lines, SOURCE, Place(TARGET, 7))[1] == 1


@given(st.lists(st.integers(0, 400), min_size=1, max_size=5), st.data())
def test_whatever_is_damaged_ends_it(sizes, data):
    whole, lines = framed([record_of(bytes(size)) for size in sizes])
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8
    hit = next(at for at, (_, offset, length) in enumerate(lines) if bit // 8 < offset + length)
    frames, count = both(bytes(damaged), 0, lines, SOURCE, Place(TARGET, 0))
    assert count == hit
    assert len(frames) == sum(length for _, _, length in lines[:hit])


@given(st.lists(st.integers(0, 100), min_size=1, max_size=4), st.data())
def test_whatever_the_lines_say(sizes, data):
    whole, lines = framed([record_of(bytes(size)) for size in sizes], 1000)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        digest, offset, length = lines[at]
        lines[at] = data.draw(
            st.sampled_from(
                [
                    (bytes(32), offset, length),
                    (digest, offset + data.draw(st.integers(-2000, 2000)), length),
                    (digest, offset, data.draw(st.integers(-5, 1 << 40))),
                    (digest, data.draw(st.sampled_from([-1, 0, 999, (1 << 62)])), length),
                ]
            )
        )
    cut = data.draw(st.integers(0, len(whole)))
    both(whole[:cut], 1000, lines, SOURCE, Place(TARGET, 0))


def test_what_is_no_plain_chunk_ends_it():
    plain, whole = record_of(b"a"), record_of(b"b")
    difference = chunk.encode_delta(chunk.LEAF, bytes(32), 5, b"stored", bytes([7]) * 32)
    data, lines = framed([plain, difference, whole])
    assert both(data, 0, lines, SOURCE, Place(TARGET, 0))[1] == 1
    event = frame.encode(SOURCE, 0, frame.EVENT, 0, plain)
    flagged = frame.encode(SOURCE, 0, frame.CHUNK, frame.COMMIT, plain)
    short = frame.encode(SOURCE, 0, frame.CHUNK, 0, plain[:51])
    for one in (event, flagged, short):
        assert both(one, 0, [(plain[:32], 0, len(one))], SOURCE, Place(TARGET, 0)) == (b"", 0)


@needs_kernel
def test_what_is_no_argument():
    line = (bytes(32), 0, 68)
    for arguments in (
        (b"", 0, (), 0, 0, 0),
        (b"", 0, [()], 0, 0, 0),
        (b"", 0, [(bytes(31), 0, 68)], 0, 0, 0),
        (b"", 0, [(bytes(32), "", 68)], 0, 0, 0),
        (b"", 0, [(bytes(32), 1 << 70, 68)], 0, 0, 0),
        (b"", -1, [line], 0, 0, 0),
        (b"", 0, [line], -1, 0, 0),
        (b"", 0, [line], 0, 1 << 64, 0),
        (b"", 0, [line], 0, 0, -1),
        ("", 0, [line], 0, 0, 0),
        (b"", 0, [line], 0, 0),
    ):
        with pytest.raises((TypeError, ValueError, OverflowError)):
            native.relocate(*arguments)


@needs_kernel
def test_nothing_is_leaked():
    data, lines = framed([record_of(bytes(size)) for size in range(50)])
    bad = [*lines[:20], (bytes(32), 0, 68)]
    gc.collect()
    blocks = sys.getallocatedblocks()
    for _ in range(2000):
        native.relocate(data, 0, lines, SOURCE, TARGET, 9)
        native.relocate(data, 0, bad, SOURCE, TARGET, 9)
    assert sys.getallocatedblocks() - blocks < 200
