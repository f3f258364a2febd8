"""What the kernel finds of raw leaves is what Python finds, and what the codec would verify."""

from __future__ import annotations

import gc
import random
import sys

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.blobs.codec import Codec
from ckptlog.errors import CheckpointError
from ckptlog.formats import chunk, frame, raw_leaf
from ckptlog.kernel import native

SEED = 0x0123456789ABCDEF
needs_kernel = pytest.mark.skipif(native is None, reason="the kernel was not compiled here")
CODEC = Codec()


def raw_record(raw: bytes, domain: int = chunk.LEAF) -> bytes:
    return chunk.encode_plain(chunk.CODEC_RAW, domain, chunk.digest_of(domain, raw), len(raw), raw)


def framed(records, base=0, seed=SEED):
    data = b""
    for record in records:
        data += frame.encode(seed, base + len(data), frame.CHUNK, 0, record)
    return bytearray(data)


def both(seed, base, data):
    """Look in both ways; nothing is left of what was written meanwhile."""
    before = bytes(data)
    expected = raw_leaf._raw_leaves(seed, base, memoryview(data))
    if native is not None:
        assert native.raw_leaves(seed, base, memoryview(data), False) == expected
        assert native.raw_leaves(seed, base, memoryview(data), True) == [
            (digest, begin, end)
            for digest, begin, end in expected
            if blake3(b"\0" + data[begin + raw_leaf.RAW_AT : end]).digest() == digest
        ]
    assert bytes(data) == before
    return expected


def verified(seed, base, data):
    """Return, by the long way, what is whole and a raw leaf: begin -> digest and length."""
    found = {}
    begin = 0
    while (size := frame.body_length(data[begin : begin + 16])) is not None:
        end = begin + 16 + size
        if end > len(data) or data[begin + 2] != frame.CHUNK or size < chunk.HEADER_BYTES:
            break
        record = memoryview(data)[begin + 16 : end]
        try:
            _, flags, _ = frame.measure(seed, base + begin, bytes(data[begin:end]))
            domain, raw = CODEC.verified(record, bytes(record[:32]))
            if domain == chunk.LEAF and record[32] == chunk.CODEC_RAW and not flags:
                found[begin] = (bytes(record[:32]), len(raw))
        except CheckpointError:
            pass
        begin = end
    return found


# Every way that the checksum has of going over its input, and the seams between them.
SIZES = (0, 1, 59, 60, 61, 62, 171, 172, 173, 174, 300, 891, 955, 956, 957, 958, 1020, 1021)
sizes = st.sampled_from(SIZES) | st.integers(0, 5000)
seeds = st.sampled_from([0, 1, (1 << 64) - 1]) | st.integers(0, (1 << 64) - 1)


TEXT = b"text " * 40
# Kind, flags and body of sound frames.
FRAMES = {
    "leaf": (frame.CHUNK, 0, raw_record(b"x")),
    "branch": (frame.CHUNK, 0, raw_record(TEXT, chunk.BRANCH)),
    "zstd": (frame.CHUNK, 0, CODEC.record(chunk.LEAF, TEXT * 30)[1]),
    "event": (frame.EVENT, 0, raw_record(TEXT)),
    "flag": (frame.CHUNK, frame.COMMIT, raw_record(TEXT)),
    "difference": (frame.CHUNK, 0, chunk.encode_delta(0, bytes(32), 5, b"stored", bytes(32))),
    "short": (frame.CHUNK, 0, raw_record(b"")[:51]),
}


@given(st.lists(sizes, max_size=6), seeds, st.integers(0, 1 << 40))
def test_leaves_of_every_size(sizes, seed, base):
    records = [raw_record(random.Random(size).randbytes(size)) for size in sizes]
    data = framed(records, base, seed)
    found = both(seed, base, data)
    assert [digest for digest, _, _ in found] == [record[:32] for record in records]
    whole = raw_leaf.whole_leaves(seed, base, memoryview(data))
    assert [length for _, length in whole.values()] == sizes


def test_each_length_up_to_some_blocks():
    for size in range(2300):
        assert len(both(SEED, 0, framed([raw_record(bytes([size & 255]) * size)]))) == 1


@pytest.mark.parametrize("hashes", [True, False])
def test_leaves_are_whole_with_and_without_wide_registers(hashes, monkeypatch):
    """Where the kernel would hash slowly the library does it, and finds the same."""
    if native is not None:
        monkeypatch.setattr(native, "HASHES", hashes)
    records = [raw_record(bytes(size)) for size in SIZES]
    data = framed(records)
    assert len(raw_leaf.whole_leaves(SEED, 0, memoryview(data))) == len(SIZES)
    data[-1] ^= 1
    assert len(raw_leaf.whole_leaves(SEED, 0, memoryview(data))) == len(SIZES) - 1
    records[3] = bytes([records[3][0] ^ 1]) + records[3][1:]
    assert len(raw_leaf.whole_leaves(SEED, 0, memoryview(framed(records)))) == len(SIZES) - 1


@given(st.lists(st.sampled_from([*FRAMES]), max_size=6), seeds, st.integers(0, 1 << 40))
def test_whatever_else_stands_there_is_passed_over(kinds, seed, base):
    data = bytearray()
    for kind in kinds:
        data += frame.encode(seed, base + len(data), *FRAMES[kind])
    both(seed, base, data)
    whole = raw_leaf.whole_leaves(seed, base, memoryview(data))
    assert whole == verified(seed, base, data)
    stopped = next((at for at, kind in enumerate(kinds) if kind in {"event", "short"}), None)
    assert len(whole) == kinds[:stopped].count("leaf")


@given(st.lists(st.integers(0, 400), min_size=1, max_size=5), st.data())
def test_no_damaged_leaf_is_whole(sizes, data):
    whole = framed([raw_record(bytes([size & 255]) * size) for size in sizes])
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    begins = sorted(raw_leaf.whole_leaves(SEED, 0, memoryview(whole)))
    hit = max(begin for begin in begins if begin <= bit // 8)
    whole[bit // 8] ^= 1 << bit % 8
    both(SEED, 0, whole)
    found = raw_leaf.whole_leaves(SEED, 0, memoryview(whole))
    assert hit not in found
    assert found == verified(SEED, 0, whole)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=3), st.data())
def test_no_leaf_is_whole_whose_sum_fits_and_whose_bytes_do_not(sizes, data):
    records = [bytearray(raw_record(bytes([size & 255]) * size)) for size in sizes]
    at = data.draw(st.integers(0, len(records) - 1))
    bit = data.draw(st.integers(0, 8 * len(records[at]) - 1))
    records[at][bit // 8] ^= 1 << bit % 8
    framed_data = framed([bytes(record) for record in records])
    both(SEED, 0, framed_data)
    found = raw_leaf.whole_leaves(SEED, 0, memoryview(framed_data))
    assert len(found) == len(records) - 1
    assert found == verified(SEED, 0, framed_data)


def test_a_leaf_longer_than_any_may_be_is_none():
    for size in (chunk.RAW_BYTES_MAX, chunk.RAW_BYTES_MAX + 1):
        raw = bytes(size)
        record = bytearray(raw_record(b"")) + raw
        record[:32] = blake3(b"\0" + raw).digest()
        record[44:48] = record[48:52] = size.to_bytes(4, "little")
        found = both(SEED, 0, framed([bytes(record)]))
        assert len(found) == (size == chunk.RAW_BYTES_MAX)


@given(st.binary(max_size=200), st.integers(0, 200))
def test_whatever_bytes_stand_there(noise, cut):
    whole = framed([raw_record(b"a" * 50), raw_record(b"b")])
    both(SEED, 0, bytearray(whole[:cut]) + noise)
    both(SEED, 0, bytearray(noise))


@needs_kernel
def test_what_is_no_argument():
    for arguments in (
        (),
        (0, 0, bytearray(5)),
        (-1, 0, bytearray(5), True),
        (0, -1, bytearray(5), True),
        (0, 1 << 64, bytearray(5), True),
        (0, 0, b"not writable", True),
        (0, 0, "text", True),
        (0, 0, bytearray(5), True, 1),
    ):
        with pytest.raises((TypeError, ValueError, OverflowError, BufferError)):
            native.raw_leaves(*arguments)


@needs_kernel
def test_nothing_is_leaked():
    data = framed([raw_record(bytes(size)) for size in range(50)])
    gc.collect()
    blocks = sys.getallocatedblocks()
    for _ in range(2000):
        native.raw_leaves(SEED, 0, memoryview(data), True)
        native.raw_leaves(SEED, 1, memoryview(data), False)
    assert sys.getallocatedblocks() - blocks < 200
