"""The pack: header, index, trailer (specs/pack.md)."""

from __future__ import annotations

import struct
import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import FormatError, UnsupportedError
from ckptlog.formats import frame, pack
from ckptlog.formats.pack import PackedChunk, PackHeader
from tests.formats.mutation import Refused, cuts, flips, is_refused, mutated, outcome
from tests.formats.strategies import digests, pack_headers, positions, store_ids
from tests.formats.vectors import check, every

STORE, ID = bytes(range(16)), bytes(range(32, 48))
HEADER = PackHeader(STORE, ID, 41)
NAME = pack.pack_name(41, ID)
SEED = pack.seed(STORE, 41, ID)
HEAD = pack.encode_header(HEADER)
ROWS = [PackedChunk(bytes([n]) * 32, 60 + 100 * n, 100) for n in range(3)]
BOTH = pack.encode_index(SEED, 360, ROWS)
INDEX, TRAILER = BOTH[:-32], BOTH[-32:]
SIZE = 360 + len(BOTH)


def decode_header(data):
    return pack.decode_header(STORE, NAME, data)


def decode_index(data):
    return pack.decode_index(SEED, 360, data)


def decode_trailer(data):
    return pack.decode_trailer(SEED, SIZE, data)


PARTS = ["header", "index", "trailer"]
DECODERS = [(decode_header, HEAD), (decode_index, INDEX), (decode_trailer, TRAILER)]


@every("pack", "header")
def test_golden_header(vector):
    context = vector["context"]
    owner = bytes.fromhex(context["store_id"])
    check(
        vector,
        lambda data: pack.decode_header(owner, context["name"], data),
        pack.encode_header,
    )


@every("pack", "index")
def test_golden_index(vector):
    offset = vector["context"]["offset"]
    check(
        vector,
        lambda data: pack.decode_index(SEED, offset, data),
        lambda rows: pack.encode_index(SEED, offset, rows)[: -pack.TRAILER_FRAME_BYTES],
    )


@every("pack", "trailer")
def test_golden_trailer(vector):
    size = vector["context"]["size"]
    check(vector, lambda data: pack.decode_trailer(SEED, size, data), None)


def test_bytes_are_those_of_the_page():
    assert HEAD[16:] == bytes([1, 0, 0, 0]) + STORE + ID + (41).to_bytes(8, "little")
    lines = [
        row.digest + row.offset.to_bytes(8, "little") + row.length.to_bytes(4, "little")
        for row in ROWS
    ]
    assert INDEX[16:] == b"".join(lines)
    assert TRAILER[16:] == (360).to_bytes(8, "little") + (3).to_bytes(8, "little")
    assert len(HEAD) == pack.HEADER_FRAME_BYTES == 60
    assert len(TRAILER) == pack.TRAILER_FRAME_BYTES == 32


@given(header=pack_headers, after=st.binary(max_size=20))
def test_header_round_trip(header, after):
    name = pack.pack_name(header.base, header.pack_id)
    assert pack.decode_header(header.store_id, name, pack.encode_header(header) + after) == header


@given(
    names=st.lists(digests, unique=True, max_size=20),
    offset=st.integers(60 + 20 * 100, 2**40),
    shuffle=st.randoms(use_true_random=False),
)
def test_index_and_trailer_round_trip(names, offset, shuffle):
    rows = [PackedChunk(digest, 60 + 100 * n, 100) for n, digest in enumerate(names)]
    shuffle.shuffle(rows)
    data = pack.encode_index(SEED, offset, rows)
    size = offset + len(data)
    found, count = pack.decode_trailer(SEED, size, data[-pack.TRAILER_FRAME_BYTES :])
    assert (found, count) == (offset, len(rows))
    assert pack.decode_index(SEED, offset, data) == sorted(rows, key=lambda row: row.digest)


@pytest.mark.parametrize(("decode", "data"), DECODERS, ids=PARTS)
def test_every_flipped_bit_and_every_cut_is_refused(decode, data):
    assert all(is_refused(decode, flip) for flip in flips(data))
    assert all(is_refused(decode, cut) for cut in cuts(data))


@pytest.mark.parametrize(("decode", "data"), DECODERS, ids=PARTS)
@given(draw=st.data())
def test_a_mutation_never_shows_another_value(decode, data, draw):
    damaged = draw.draw(mutated(data) | st.binary(max_size=200))
    found = outcome(decode, damaged)
    assert isinstance(found, Refused) or found == decode(data)


@given(body=st.binary(max_size=100), size=st.integers(0, 400))
def test_any_body_under_a_true_checksum_ends_in_our_errors_or_in_itself(body, size):
    head = frame.encode(SEED, 0, frame.PACK, 0, body)
    found = outcome(decode_header, head)
    assert isinstance(found, Refused) or pack.encode_header(found) == head
    index = frame.encode(SEED, 360, frame.PACK_INDEX, 0, body)
    found = outcome(decode_index, index)
    assert isinstance(found, Refused) or pack.encode_index(SEED, 360, found)[:-32] == index
    trailer = frame.encode(SEED, max(0, size - 32), frame.PACK_TRAILER, 0, body)
    found = outcome(lambda data: pack.decode_trailer(SEED, size, data), trailer)
    assert isinstance(found, Refused) or found[0] + 16 + 44 * found[1] + 32 == size


@given(version=st.integers(2, 65_535), rest=st.binary(max_size=100))
def test_a_later_version_is_refused_by_name_whatever_its_length(version, rest):
    data = frame.encode(SEED, 0, frame.PACK, 0, struct.pack("<H", version) + rest)
    with pytest.raises(UnsupportedError, match=f"format {version} is newer"):
        decode_header(data)


@given(other=store_ids.filter(lambda owner: owner != STORE))
def test_a_header_of_another_store_is_refused(other):
    with pytest.raises(FormatError, match="checksum"):
        pack.decode_header(other, NAME, HEAD)


@pytest.mark.parametrize(
    ("decode", "data", "offset"),
    [(decode_header, HEAD, 0), (decode_index, INDEX, 360), (decode_trailer, TRAILER, SIZE - 32)],
    ids=PARTS,
)
def test_another_kind_of_frame_is_no_part_of_a_pack(decode, data, offset):
    body = data[frame.HEADER_BYTES :]
    with pytest.raises(FormatError):
        decode(frame.encode(SEED, offset, frame.CHUNK, 0, body))


@given(offset=st.integers(0, 2**64 - 1), count=st.integers(0, 2**64 - 1))
def test_a_hostile_trailer_allocates_nothing(offset, count):
    body = struct.pack("<QQ", offset, count)
    data = frame.encode(SEED, SIZE - 32, frame.PACK_TRAILER, 0, body)
    tracemalloc.start()
    assert is_refused(decode_trailer, data) or (offset, count) == (360, 3)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    "rows",
    [
        [ROWS[0], ROWS[0]],
        [PackedChunk(bytes(32), 360, 1)],
        [PackedChunk(bytes(32), 59, 100)],
    ],
)
def test_an_index_that_could_not_be_read_is_not_written(rows):
    with pytest.raises(FormatError):
        pack.encode_index(SEED, 360, rows)


def test_too_many_chunks_are_neither_written_nor_read(monkeypatch):
    monkeypatch.setattr(pack, "CHUNKS_MAX", 2)
    with pytest.raises(FormatError, match="3 chunks"):
        pack.encode_index(SEED, 360, ROWS)
    with pytest.raises(FormatError, match="3 chunks"):
        decode_index(INDEX)
    with pytest.raises(FormatError, match="agree"):
        decode_trailer(TRAILER)


@pytest.mark.parametrize("change", [{"store_id": b""}, {"pack_id": bytes(15)}])
def test_fields_of_the_wrong_size_are_not_written(change):
    with pytest.raises(FormatError, match="16 bytes"):
        pack.encode_header(msgspec.structs.replace(HEADER, **change))


@given(base=positions, pack_id=store_ids)
def test_a_name_is_read_back(base, pack_id):
    assert pack.parse_name(pack.pack_name(base, pack_id)) == (base, pack_id)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x.pack",
        NAME.upper(),
        NAME + "\n",
        NAME[1:],
        NAME.replace("41", "4\u0661"),
        f"../{NAME}",
    ],
)
def test_another_name_is_no_pack(name):
    assert pack.parse_name(name) is None
    with pytest.raises(FormatError, match="not the name"):
        pack.decode_header(STORE, name, HEAD)
