"""The frame: bound to store, container and offset; nothing damaged passes (specs/frame.md)."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from ckptlog.errors import FormatError
from ckptlog.formats import frame
from tests.formats.mutation import OURS, Refused, cuts, flips, grown, is_refused, mutated, outcome
from tests.formats.strategies import u64
from tests.formats.vectors import check, every

STORE = bytes(range(16))
SEED = frame.container_seed(STORE, "00000000000000000042.1.seg")
BODY = b"some body"
DATA = frame.encode(SEED, 108, frame.EVENT, frame.COMMIT, BODY)


def decode(data):
    return frame.decode(SEED, 108, data)


@every("frame")
def test_golden(vector):
    context = vector["context"]
    seed = frame.container_seed(bytes.fromhex(context["store_id"]), context["name"])
    offset = context["offset"]
    check(
        vector,
        lambda data: frame.decode(seed, offset, data),
        lambda found: frame.encode(seed, found.offset, found.kind, found.flags, found.body),
    )


def test_bytes_are_those_of_the_page():
    head = b"CK" + bytes([2, 1]) + len(BODY).to_bytes(4, "little")
    seed = xxh3_64_intdigest(STORE + b"00000000000000000042.1.seg")
    check = xxh3_64_intdigest((108).to_bytes(8, "little") + head + BODY, seed)
    assert head + check.to_bytes(8, "little") + BODY == DATA


places = st.tuples(u64, u64)
around = st.tuples(st.binary(max_size=20), st.binary(max_size=20))


@given(
    place=places,
    kind=st.sampled_from(sorted(frame.KINDS)),
    flags=st.integers(0, frame.FLAGS_KNOWN),
    body=st.binary(max_size=300),
    around=around,
)
def test_round_trip_anywhere_in_a_buffer(place, kind, flags, body, around):
    (seed, offset), (before, after) = place, around
    data = frame.encode(seed, offset, kind, flags, body)
    for buffer in (before + data + after, memoryview(before + data + after)):
        found = frame.decode(seed, offset, buffer, len(before))
        assert (found.kind, found.flags, bytes(found.body)) == (kind, flags, body)
        assert found.offset_end == offset + len(data)
    assert frame.body_length(data) == len(body)


def test_every_flipped_bit_is_refused():
    assert all(is_refused(decode, data) for data in flips(DATA))


def test_every_cut_is_refused():
    assert all(is_refused(decode, data) for data in cuts(DATA))


def test_what_follows_a_frame_is_not_part_of_it():
    assert all(decode(data) == decode(DATA) for data in grown(DATA))


@given(data=mutated(DATA))
def test_a_mutation_never_shows_another_value(data):
    found = outcome(decode, data)
    assert isinstance(found, Refused) or found == decode(DATA)


@given(data=st.binary(max_size=200) | st.binary(max_size=40).map(lambda rest: DATA[:4] + rest))
def test_arbitrary_bytes_end_in_our_errors(data):
    assert is_refused(decode, data) or data.startswith(DATA)
    assert frame.body_length(data) is None or len(data) >= frame.HEADER_BYTES


@pytest.mark.parametrize("offset", [0, 107, 109, 108 + 2**32, 2**64 - 1])
def test_a_frame_copied_to_another_offset_is_refused(offset):
    with pytest.raises(FormatError, match="checksum"):
        frame.decode(SEED, offset, DATA)


@pytest.mark.parametrize(
    "seed",
    [
        frame.container_seed(bytes(16), "00000000000000000042.1.seg"),
        frame.container_seed(STORE, "00000000000000000042.2.seg"),
        frame.container_seed(STORE, "00000000000000000043.1.seg"),
        0,
    ],
)
def test_a_frame_copied_to_another_store_or_container_is_refused(seed):
    with pytest.raises(FormatError, match="checksum"):
        frame.decode(seed, 108, DATA)


def hostile(kind: int, size: int) -> bytes:
    """Return a frame that claims size bytes, with a checksum over the bytes that are there."""
    bound = struct.pack("<Q2sBBI", 108, b"CK", kind, 0, size)
    return struct.pack("<2sBBIQ", b"CK", kind, 0, size, xxh3_64_intdigest(bound, SEED))


LIMITS = {
    frame.SEGMENT: 4096,
    frame.EVENT: 131_072,
    frame.CHUNK: 8_388_608,
    frame.PACK: 4096,
    frame.PACK_INDEX: 67_108_864,
    frame.PACK_TRAILER: 4096,
    frame.BLOCK: 1_114_112,
    frame.BLOCK_INDEX: 67_108_864,
    frame.BLOCK_TRAILER: 4096,
}


def test_every_kind_has_a_limit():
    assert set(LIMITS) == frame.KINDS
    assert max(LIMITS.values()) == frame.BODY_BYTES_MAX


@pytest.mark.parametrize("kind", LIMITS)
def test_a_length_above_the_limit_is_no_frame_and_allocates_nothing(kind):
    assert frame.body_length(hostile(kind, LIMITS[kind])) == LIMITS[kind]
    tracemalloc.start()
    for size in (LIMITS[kind] + 1, 2**31, 2**32 - 1):
        assert frame.body_length(hostile(kind, size)) is None
        with pytest.raises(FormatError, match="No frame begins"):
            decode(hostile(kind, size))
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    "kind", [frame.SEGMENT, frame.PACK, frame.PACK_TRAILER, frame.BLOCK_TRAILER]
)
def test_what_could_not_be_read_is_not_written(kind):
    with pytest.raises(FormatError, match="4097 bytes"):
        frame.encode(SEED, 0, kind, 0, bytes(4097))


@pytest.mark.parametrize(("kind", "flags"), [(0, 0), (10, 0), (255, 0), (frame.EVENT, 2)])
def test_unknown_kinds_and_flags_are_not_written(kind, flags):
    with pytest.raises(FormatError, match=f"kind {kind} has flags"):
        frame.encode(SEED, 0, kind, flags, b"")


def test_zeros_never_begin_a_frame():
    assert frame.body_length(bytes(16)) is None
    assert is_refused(decode, bytes(4096))


def test_the_error_says_where():
    with pytest.raises(OURS) as caught:
        frame.decode(SEED, 4242, bytes(64))
    assert "4242" in str(caught.value)
    assert caught.value.context["offset"] == 4242


def sealed(offset: int, kind: int, flags: int, body: bytes, size: int | None = None) -> bytes:
    """Return a frame with a true checksum, whatever is in its header."""
    head = struct.pack("<2sBBI", b"CK", kind, flags, len(body) if size is None else size)
    check = xxh3_64_intdigest(struct.pack("<Q", offset) + head + body, SEED)
    return head + struct.pack("<Q", check) + body


def measured(data: bytes, base: int) -> list[tuple[int, int, int, int]]:
    """Return what `walk` shall yield, frame by frame."""
    found, at = [], 0
    while True:
        try:
            kind, flags, end = frame.measure(SEED, base + at, data, at)
        except FormatError:
            return found
        found.append((kind, flags, at, end))
        at = end


frames = st.lists(
    st.tuples(
        st.sampled_from([1, 2, 2, 2, 3, 3, 6, 7, 10, 0]),
        st.sampled_from([0, 0, 1, 2]),
        st.binary(max_size=40),
    ),
    max_size=5,
)


@given(
    parts=frames, base=st.integers(0, 2**40), rest=st.binary(max_size=40), cut=st.integers(0, 60)
)
def test_a_walk_goes_as_far_as_frames_check(parts, base, rest, cut):
    data = b""
    for kind, flags, body in parts:
        data += sealed(base + len(data), kind, flags, body)
    for whole in (data + rest, data[: max(0, len(data) - cut)], flipped_in_the_middle(data)):
        assert list(frame.walk(SEED, base, whole)) == measured(whole, base)


def flipped_in_the_middle(data: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :] if data else data


@pytest.mark.parametrize("size", [128 * 1024, 128 * 1024 + 1])
def test_a_walk_knows_the_limit_of_each_kind(size):
    data = sealed(0, frame.EVENT, 1, bytes(size))
    assert len(list(frame.walk(SEED, 0, data))) == (size == 128 * 1024)
    assert is_refused(lambda whole: frame.decode(SEED, 0, whole), data) == (size != 128 * 1024)


@given(u64, st.integers(0, 2**40), st.binary(min_size=1, max_size=60), st.data())
def test_a_turned_bit_of_a_body_is_found(seed, offset, body, data):
    whole = bytearray(frame.encode(seed, offset, frame.CHUNK, 0, body))
    assert frame.turned_bit(seed, offset, bytes(whole)) is None
    one, other = data.draw(st.lists(st.integers(0, 8 * len(body) - 1), min_size=2, max_size=2))
    whole[frame.HEADER_BYTES + one // 8] ^= 1 << one % 8
    assert frame.turned_bit(seed, offset, bytes(whole)) == one
    if one != other:
        whole[frame.HEADER_BYTES + other // 8] ^= 1 << other % 8
        assert frame.turned_bit(seed, offset, bytes(whole)) is None


def test_a_body_without_bytes_has_no_bit_to_turn():
    assert frame.turned_bit(SEED, 7, frame.encode(SEED, 7, frame.CHUNK, 0, b"")) is None
