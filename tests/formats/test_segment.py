"""The segment's name and header (specs/segment.md)."""

from __future__ import annotations

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import FormatError, UnsupportedError
from ckptlog.formats import frame, segment
from ckptlog.formats.segment import SegmentHeader
from tests.formats.mutation import Refused, cuts, flips, grown, is_refused, mutated, outcome
from tests.formats.strategies import positions, segment_headers
from tests.formats.vectors import check, every

STORE = bytes(range(16))
HEADER = SegmentHeader(STORE, 42, 1, 17, 3, 4096, bytes(range(32)), 1_700_000_000_000_000)
DATA = segment.encode(HEADER)


def decode(data):
    return segment.decode(STORE, 42, 1, data)


@every("segment")
def test_golden(vector):
    context = vector["context"]
    store_id = bytes.fromhex(context["store_id"])
    check(
        vector,
        lambda data: segment.decode(store_id, context["first"], context["generation"], data),
        segment.encode,
    )


def test_bytes_are_those_of_the_page():
    def number(value: int, size: int) -> bytes:
        return value.to_bytes(size, "little")

    body = b"".join([
        number(1, 2), number(0, 2), STORE, number(42, 8), number(1, 4), number(17, 8),
        number(3, 4), number(4096, 8), bytes(range(32)), number(1_700_000_000_000_000, 8),
    ])  # fmt: skip
    assert len(body) == 92
    assert DATA[16:] == body
    assert frame.decode(segment.seed(STORE, 42, 1), 0, DATA).kind == frame.SEGMENT
    assert len(DATA) == segment.HEADER_FRAME_BYTES == 108


@given(header=segment_headers, after=st.binary(max_size=20))
def test_round_trip(header, after):
    data = segment.encode(header)
    place = (header.store_id, header.first, header.generation)
    assert segment.decode(*place, data + after) == header
    assert segment.decode(*place, memoryview(data)) == header


def test_the_largest_numbers_round_trip():
    most = SegmentHeader(
        STORE, 2**64 - 1, 2**32 - 1, 2**64 - 1, 2**32 - 1, 2**64 - 1, bytes(32), 2**64 - 1
    )
    assert segment.decode(STORE, most.first, most.generation, segment.encode(most)) == most


def test_every_flipped_bit_and_every_cut_is_refused():
    assert all(is_refused(decode, data) for data in flips(DATA))
    assert all(is_refused(decode, data) for data in cuts(DATA))


def test_what_follows_the_header_is_not_part_of_it():
    assert all(decode(data) == HEADER for data in grown(DATA))


@given(data=mutated(DATA) | st.binary(max_size=200))
def test_a_mutation_never_shows_another_value(data):
    found = outcome(decode, data)
    assert isinstance(found, Refused) or found == HEADER


@given(body=st.binary(max_size=120))
def test_any_body_under_a_true_checksum_ends_in_our_errors_or_in_itself(body):
    data = frame.encode(segment.seed(STORE, 42, 1), 0, frame.SEGMENT, 0, body)
    found = outcome(decode, data)
    assert isinstance(found, Refused) or segment.encode(found) == data


@given(version=st.integers(2, 65_535), rest=st.binary(max_size=100))
def test_a_later_version_is_refused_by_name_whatever_its_length(version, rest):
    body = struct.pack("<H", version) + rest
    data = frame.encode(segment.seed(STORE, 42, 1), 0, frame.SEGMENT, 0, body)
    with pytest.raises(UnsupportedError, match=f"format {version} is newer"):
        decode(data)


@pytest.mark.parametrize(
    ("store_id", "first", "generation"), [(bytes(16), 42, 1), (STORE, 43, 1), (STORE, 42, 0)]
)
def test_a_header_of_another_segment_is_refused(store_id, first, generation):
    with pytest.raises(FormatError):
        segment.decode(store_id, first, generation, DATA)


@pytest.mark.parametrize("change", [{"leaf": b"short"}, {"store_id": bytes(17)}, {"leaf": b""}])
def test_fields_of_the_wrong_size_are_not_written(change):
    with pytest.raises(FormatError, match="16 bytes"):
        segment.encode(msgspec.structs.replace(HEADER, **change))


@given(first=positions, generation=st.integers(0, 999_999_999))
def test_a_name_is_read_back(first, generation):
    name = segment.segment_name(first, generation)
    assert segment.parse_name(name) == (first, generation)


def test_names_sort_as_their_positions():
    names = [segment.segment_name(first, 0) for first in (0, 9, 10, 99, 2**53)]
    assert names == sorted(names)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "42.1.seg",
        "00000000000000000042.1.seg.tmp",
        "00000000000000000042.01.seg",  # a second name for generation 1
        "00000000000000000042..seg",
        "00000000000000000042.-1.seg",
        "00000000000000000042.1234567890.seg",
        "0000000000000000004\u0662.1.seg",  # digits of another script
        "00000000000000000042.\u0661.seg",
        "00000000000000000042.1.seg\n",
        " 00000000000000000042.1.seg",
        "00000000000000000042.1.SEG",
        "x/00000000000000000042.1.seg",
    ],
)
def test_another_name_is_no_segment(name):
    assert segment.parse_name(name) is None


@given(name=st.from_regex(r"\d{18,21}\.\d{0,11}\.seg", fullmatch=True) | st.text(max_size=40))
def test_one_segment_has_one_name(name):
    parsed = segment.parse_name(name)
    assert parsed is None or segment.segment_name(*parsed) == name
