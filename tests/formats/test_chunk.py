"""The chunk record: exact, bounded, and named when it needs what is not there (specs/chunk.md)."""

from __future__ import annotations

import struct
import tracemalloc

import msgspec
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import FormatError, UnsupportedError
from ckptlog.formats import chunk
from ckptlog.formats.chunk import Record
from tests.formats.mutation import Refused, cuts, flips, grown, is_refused, mutated, outcome
from tests.formats.strategies import records
from tests.formats.vectors import check, every

RAW = b"some raw bytes"
LEAF = Record(chunk.digest_of(chunk.LEAF, RAW), 0, 0, 0, chunk.LEAF, 0, len(RAW), RAW)
DATA = chunk.encode(LEAF)
ZSTD = chunk.encode(msgspec.structs.replace(LEAF, codec=1, raw_length=4096))
BASE = bytes(range(32))
DIFFERENCE = msgspec.structs.replace(
    LEAF, codec=2, flags=chunk.DELTA, raw_length=4096, domain=chunk.BRANCH, base=BASE
)
DELTA = chunk.encode(DIFFERENCE)


@every("chunk")
def test_golden(vector):
    check(vector, chunk.decode, chunk.encode)


def test_bytes_are_those_of_the_page():
    digest = blake3(b"\x00" + RAW).digest()
    numbers = (0).to_bytes(8, "little") + (14).to_bytes(4, "little") * 2
    assert digest + bytes([0, 0, 0, 0]) + numbers + RAW == DATA


def test_every_domain_is_separate():
    assert chunk.digest_of(chunk.BRANCH, RAW) == blake3(b"\x02" + RAW).digest()
    assert chunk.digest_of(chunk.NODE, RAW) == blake3(b"\x01" + RAW).digest()
    assert chunk.digest_of(chunk.NODE, RAW) != chunk.digest_of(chunk.LEAF, RAW)
    assert chunk.digest_of(chunk.LEAF, memoryview(RAW)) == LEAF.digest


@given(record=records)
def test_round_trip(record):
    data = chunk.encode(record)
    assert chunk.decode(data) == record
    assert chunk.decode(memoryview(data)) == record
    assert chunk.digest_in(data) == record.digest


def exact(data: bytes) -> bool:
    """Say whether data is refused, or is the one encoding of what it decodes to."""
    found = outcome(chunk.decode, data)
    return isinstance(found, Refused) or chunk.encode(found) == data


@pytest.mark.parametrize("data", [DATA, ZSTD, DELTA])
def test_a_flipped_bit_is_refused_or_is_another_record(data):
    assert all(exact(flip) for flip in flips(data))


@pytest.mark.parametrize("data", [DATA, ZSTD, DELTA])
def test_every_cut_and_every_addition_is_refused(data):
    assert all(is_refused(chunk.decode, cut) for cut in cuts(data))
    assert all(is_refused(chunk.decode, more) for more in grown(data))


@given(data=mutated(DATA) | mutated(ZSTD) | mutated(DELTA) | st.binary(max_size=150))
def test_arbitrary_bytes_end_in_our_errors_or_in_themselves(data):
    assert exact(data)


headers = st.tuples(
    st.binary(min_size=32, max_size=32),
    st.integers(0, 3),
    st.integers(0, 4),
    st.integers(0, 2),
    st.integers(0, 3),
    st.integers(0, 1),
    st.integers(0, 40),
    st.integers(0, 40),
)


@given(header=headers, rest=st.binary(max_size=72))
def test_plausible_headers_end_in_our_errors_or_in_themselves(header, rest):
    assert exact(struct.pack("<32sBBBBQII", *header) + rest)


@given(raw=st.integers(chunk.RAW_BYTES_MAX + 1, 2**32 - 1))
def test_a_bomb_is_refused_before_anything_is_allocated(raw):
    header = struct.pack("<32sBBBBQII", bytes(32), 1, 0, 0, 0, 0, raw, raw)
    tracemalloc.start()
    assert is_refused(chunk.decode, header)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_everything_that_is_lacking_is_named():
    header = struct.pack("<32sBBBBQII", bytes(32), 9, 3, 1, 0, 7, 5, 0)
    with pytest.raises(UnsupportedError) as caught:
        chunk.decode(header + bytes(32))
    assert "codec 9, encryption, id scheme 1" in caught.value.message
    assert "newer ckptlog" in caught.value.hint


@pytest.mark.parametrize(
    "change",
    [
        {"digest": b"short"},
        {"digest": bytes(33)},
        {"base": bytes(32)},  # without the flag it would be read as stored bytes
        {"flags": chunk.DELTA, "base": b""},
        {"flags": chunk.DELTA, "base": BASE},
        {"codec": chunk.CODEC_ZSTD_DELTA},
        {"raw_length": chunk.RAW_BYTES_MAX + 1},
        {"stored": bytes(chunk.RAW_BYTES_MAX + 1)},
    ],
)
def test_what_could_not_be_read_is_not_written(change):
    with pytest.raises(FormatError):
        chunk.encode(msgspec.structs.replace(LEAF, **change))


def test_a_delta_has_its_base_behind_the_header():
    assert DELTA[52:84] == BASE
    assert DELTA[84:] == RAW
    made = chunk.encode_delta(chunk.BRANCH, LEAF.digest, 4096, BASE, RAW)
    assert made == DELTA


def test_the_base_is_found_without_the_rest():
    assert chunk.base_in(DELTA) == chunk.base_in(memoryview(DELTA)) == BASE
    assert [chunk.base_in(data) for data in (DATA, ZSTD, b"", DELTA[:83])] == [b""] * 4


@given(record=records)
def test_the_base_is_that_of_the_record(record):
    assert chunk.base_in(chunk.encode(record)) == record.base


def test_a_difference_that_is_too_long_is_not_written():
    with pytest.raises(FormatError, match="over"):
        chunk.encode_delta(chunk.LEAF, LEAF.digest, chunk.RAW_BYTES_MAX + 1, BASE, RAW)


@pytest.mark.parametrize("length", [0, 31, 51])
def test_a_digest_is_not_read_from_less_than_a_header(length):
    with pytest.raises(FormatError, match="too short"):
        chunk.digest_in(DATA[:length])
