"""The settled segment: header, blocks, index, trailer (specs/settled.md)."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import FormatError
from ckptlog.formats import frame, segment, settled
from ckptlog.formats.settled import Line, Row, Trailer
from tests.formats.mutation import Refused, cuts, flips, is_refused, mutated, outcome
from tests.formats.strategies import segment_headers
from tests.formats.vectors import bytes_of, check, every
from tools.vectors import settled_vectors
from tools.vectors.settled_vectors import FIRST, GENERATION, SEED, START, STORE_ID, stored

HEADER = settled_vectors.HEADER
HEAD = settled.encode_header(HEADER)
ROWS = settled_vectors.rows()
BLOCK, STOP = settled.encode_block(SEED, START, START, ROWS)
LINE = Line(START, STOP, START, len(BLOCK))
LINES = [LINE, Line(STOP, 4096, START + len(BLOCK), 100)]
INDEX_AT = START + len(BLOCK) + 100
END = settled.encode_end(SEED, INDEX_AT, LINES, valid_length=4096, events=9)
INDEX, TRAILER = END[: -settled.TRAILER_FRAME_BYTES], END[-settled.TRAILER_FRAME_BYTES :]
SIZE = INDEX_AT + len(END)
SAID = Trailer(INDEX_AT, 2, 4096, 9)


def decode_header(data):
    return settled.decode_header(STORE_ID, FIRST, GENERATION, data)


def decode_block(data, line=LINE):
    return settled.decode_block(SEED, line, data)


def decode_index(data):
    return settled.decode_index(SEED, SAID, data)


def decode_trailer(data):
    return settled.decode_trailer(SEED, SIZE, data)


PARTS = ["header", "block", "index", "trailer"]
DECODERS = [
    (decode_header, HEAD),
    (decode_block, BLOCK),
    (decode_index, INDEX),
    (decode_trailer, TRAILER),
]


@every("settled", "header")
def test_golden_header(vector):
    context = vector["context"]
    owner = bytes.fromhex(context["store_id"])
    check(
        vector,
        lambda data: settled.decode_header(owner, context["first"], context["generation"], data),
        settled.encode_header,
    )


@every("settled", "block")
def test_golden_block(vector):
    line = Line(*vector["context"]["line"])
    check(vector, lambda data: settled.decode_block(SEED, line, data), None)


@every("settled", "index")
def test_golden_index(vector):
    trailer = Trailer(*vector["context"]["trailer"])
    check(
        vector,
        lambda data: settled.decode_index(SEED, trailer, data),
        lambda lines: settled.encode_end(
            SEED, trailer.index_at, lines, valid_length=trailer.valid_length, events=trailer.events
        )[: -settled.TRAILER_FRAME_BYTES],
    )


@every("settled", "trailer")
def test_golden_trailer(vector):
    size = vector["context"]["size"]
    check(vector, lambda data: settled.decode_trailer(SEED, size, data), None)


def test_bytes_are_those_of_the_page():
    written = segment.encode(HEADER)
    assert HEAD[frame.HEADER_BYTES :] == written[frame.HEADER_BYTES :]
    assert written != HEAD, "its checksum is bound to the other file"
    table = b"".join(
        gap.to_bytes(4, "little")
        + len(row.data).to_bytes(4, "little")
        + row.chunks.to_bytes(4, "little")
        + row.raw_bytes.to_bytes(8, "little")
        for gap, row in zip((0, 300), ROWS, strict=True)
    )
    raw = table + b"".join(row.data for row in ROWS)
    body = BLOCK[frame.HEADER_BYTES :]
    assert body[:24] == struct.pack("<QQII", START, STOP, 2, len(raw))
    assert zstandard.decompress(body[24:]) == raw
    assert INDEX[16:] == b"".join(struct.pack("<QQQI", *line) for line in LINES)
    assert TRAILER[16:] == struct.pack("<QQQQ", INDEX_AT, 2, 4096, 9)
    assert len(TRAILER) == settled.TRAILER_FRAME_BYTES == 48


@given(header=segment_headers)
def test_header_round_trip(header):
    data = settled.encode_header(header)
    place = (header.store_id, header.first, header.generation)
    assert settled.decode_header(*place, data) == header
    assert is_refused(lambda data: segment.decode(*place, data), data)


row_lists = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 5000]) | st.integers(0, 2**32 - 1),
        st.binary(min_size=17, max_size=200),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**64 - 1),
    ),
    min_size=1,
    max_size=20,
)


@given(start=st.integers(START, 2**40), offset=st.integers(START, 2**40), parts=row_lists)
def test_block_round_trip(start, offset, parts):
    rows, at = [], start
    for gap, data, chunks, raw_bytes in parts:
        rows.append(Row(at + gap, data, chunks, raw_bytes))
        at += gap + len(data)
    data, stop = settled.encode_block(SEED, offset, start, rows)
    assert stop == at
    assert settled.decode_block(SEED, Line(start, stop, offset, len(data)), data) == rows
    for wrong in (
        Line(start - 1, stop, offset, len(data)),
        Line(start, stop + 1, offset, len(data)),
        Line(start, stop, offset, len(data) + 1),
        Line(start, stop, offset + 1, len(data)),
    ):
        assert is_refused(lambda data, wrong=wrong: decode_block(data, wrong), data)


def test_end_round_trip():
    assert decode_trailer(TRAILER) == SAID
    assert decode_index(INDEX) == LINES


@pytest.mark.parametrize(("decode", "data"), DECODERS, ids=PARTS)
def test_every_flipped_bit_and_every_cut_is_refused(decode, data):
    assert all(is_refused(decode, damaged) for damaged in flips(data))
    assert all(is_refused(decode, damaged) for damaged in cuts(data))


@pytest.mark.parametrize(("decode", "data"), DECODERS, ids=PARTS)
@given(data_strategy=st.data())
def test_a_mutation_never_shows_another_value(decode, data, data_strategy):
    found = outcome(decode, data_strategy.draw(mutated(data)))
    assert isinstance(found, Refused) or found == decode(data)


@pytest.mark.parametrize(("decode", "data"), DECODERS, ids=PARTS)
def test_what_follows_is_not_part_of_it(decode, data):
    assert decode(data + b"more") == decode(data)


# --- lies with true checksums -----------------------------------------------------------------


def lying(body: bytes) -> tuple[bytes, Line]:
    data = frame.encode(SEED, START, frame.BLOCK, 0, body)
    start, stop = struct.unpack_from("<QQ", body.ljust(16, b"\0"))
    return data, Line(start, stop, START, len(data))


@given(body=st.binary(max_size=120) | mutated(BLOCK[frame.HEADER_BYTES :]))
def test_a_block_of_lies_ends_in_our_errors(body):
    data, line = lying(body)
    found = outcome(lambda data: decode_block(data, line), data)
    if not isinstance(found, Refused):
        assert found[0].offset >= line.start
        assert found[-1].offset + len(found[-1].data) == line.stop


tables = st.lists(
    st.tuples(
        st.integers(0, 2**32 - 1) | st.integers(0, 100),
        st.sampled_from([0, 16, 17, 40, 65_567, 2**32 - 1]) | st.integers(0, 100),
        st.integers(0, 3),
        st.integers(0, 9),
    ),
    max_size=4,
)


@given(table=tables, rest=st.binary(max_size=150), count=st.integers(0, 5))
def test_a_table_of_lies_ends_in_our_errors(table, rest, count):
    raw = b"".join(struct.pack("<IIIQ", *row) for row in table) + rest
    stop = START + sum(gap + length for gap, length, _, _ in table)
    body = struct.pack("<QQII", START, stop, count, len(raw)) + stored(raw)
    data, line = lying(body)
    found = outcome(lambda data: decode_block(data, line), data)
    if isinstance(found, Refused):
        return
    assert count == len(found) > 0
    assert b"".join(row.data for row in found) == raw[count * 20 :]
    assert all(len(row.data) > frame.HEADER_BYTES for row in found)


@pytest.mark.parametrize("claim", [2**21, 2**31, 2**40, 2**63])
def test_a_zstd_frame_that_claims_much_allocates_nothing(claim):
    raw = b"".join(row.data for row in ROWS)
    body = struct.pack("<QQII", START, STOP, 2, len(raw)) + stored(raw, claim)
    data, line = lying(body)
    tracemalloc.start()
    with pytest.raises(FormatError):
        decode_block(data, line)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("has_size", [True, False], ids=["said", "unsaid"])
def test_a_bomb_is_not_unpacked(has_size):
    bomb = zstandard.ZstdCompressor(write_content_size=has_size).compress(bytes(200_000_000))
    body = struct.pack("<QQII", START, STOP, 2, 1000) + bomb
    data, line = lying(body)
    tracemalloc.start()
    with pytest.raises(FormatError):
        decode_block(data, line)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_a_raw_length_above_the_bound_is_refused_even_where_it_is_true():
    size = settled.BLOCK_RAW_BYTES_MAX + 1
    body = struct.pack("<QQII", START, STOP, 2, size) + zstandard.compress(bytes(size))
    data, line = lying(body)
    with pytest.raises(FormatError, match="index"):
        decode_block(data, line)


def test_what_could_not_be_read_is_not_written():
    with pytest.raises(FormatError, match="0 events"):
        settled.encode_block(SEED, START, START, [])
    big = [Row(START, bytes(settled.BLOCK_RAW_BYTES_MAX), 0, 0)]
    with pytest.raises(FormatError, match="1 events"):
        settled.encode_block(SEED, START, START, big)
    for lines in (LINES[::-1], LINES[:1], []):
        with pytest.raises(FormatError):
            settled.encode_end(SEED, INDEX_AT, lines, valid_length=4096, events=9)


def test_a_file_too_short_for_a_trailer_is_refused():
    for size in (0, 47, 48):
        with pytest.raises(FormatError):
            settled.decode_trailer(SEED, size, TRAILER)


# --- names ------------------------------------------------------------------------------------


@given(first=st.integers(0, 10**20 - 1), generation=st.integers(0, 10**9 - 1))
def test_names(first, generation):
    name = settled.settled_name(first, generation)
    assert settled.parse_name(name) == (first, generation)
    assert segment.parse_name(name) is None
    assert settled.parse_name(segment.segment_name(first, generation)) is None
    assert settled.seed(STORE_ID, first, generation) != segment.seed(STORE_ID, first, generation)


@pytest.mark.parametrize(
    "name",
    ["", "1.0.set", f"{1:020d}.01.set", f"{1:020d}.0.set.tmp", f"{1:020d}.0.SET", f"{1:020d}.0.se"],
)
def test_other_names_are_none(name):
    assert settled.parse_name(name) is None


def test_vectors_of_blocks_hold_what_the_writer_would_write():
    """The stored form and the compressed one say the same."""
    (good,) = (
        document
        for name, document in settled_vectors.settled_segments().items()
        if name == "good-block"
    )
    line = Line(*good["context"]["line"])
    assert settled.decode_block(SEED, line, bytes_of(good)) == ROWS == decode_block(BLOCK)


def test_no_event_stands_farther_behind_the_last_than_a_row_can_say():
    with pytest.raises(FormatError, match="No event is at offset"):
        settled.encode_block(SEED, START, START, [Row(START + (1 << 32), b"x" * 60, 0, 0)])
