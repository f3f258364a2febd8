from __future__ import annotations

import struct
import threading
from pathlib import Path
from unittest import mock

import msgspec
import pytest
import zstandard
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.blobs.codec import DICTIONARY_RAW_MAX, LEVELS, Codec
from ckptlog.errors import BlobCorruptionError, SettingsError, UnsupportedError
from ckptlog.formats import chunk
from ckptlog.formats.dictionary import DICTIONARY
from tests.blobs.sample import noise, text

CODEC = Codec()
TEXT = text(6)


def forge(raw, stored, *, raw_length=None, codec=chunk.CODEC_ZSTD, domain=chunk.LEAF):
    """Return (digest, record) that claim what they are told to."""
    digest = chunk.digest_of(domain, raw)
    length = len(raw) if raw_length is None else raw_length
    return digest, chunk.encode(chunk.Record(digest, codec, 0, 0, domain, 0, length, stored))


def zstd_head(*, content_bytes=None, window_log=None, dictionary=0):
    """Return the beginning of a zstd frame that claims these things, and an empty last block."""
    descriptor, fields = 0, b""
    if window_log is not None:
        fields += bytes([(window_log - 10) << 3])
    else:
        descriptor |= 0x20  # single segment: the window is the content
    if dictionary:
        descriptor |= 0x03
        fields += struct.pack("<I", dictionary)
    if content_bytes is not None:
        descriptor |= 0xC0
        fields += struct.pack("<Q", content_bytes)
    return b"\x28\xb5\x2f\xfd" + bytes([descriptor]) + fields + b"\x01\x00\x00"


@given(st.binary(max_size=3000), st.sampled_from([chunk.LEAF, chunk.NODE]), st.booleans())
def test_round_trip(data, domain, repeat):
    raw = data * 9 if repeat else data
    digest, record = CODEC.record(domain, raw)
    assert digest == chunk.digest_of(domain, raw)
    assert CODEC.raw(record, digest) == raw
    assert CODEC.raw(memoryview(record), digest, domain=domain) == raw


@pytest.mark.parametrize("level", [1, 3, 19])
def test_every_level_reads_what_another_wrote(level):
    digest, record = Codec(level).record(chunk.LEAF, TEXT)
    assert CODEC.raw(record, digest) == TEXT
    assert len(record) < len(TEXT)


@pytest.mark.parametrize("level", [0, 20, -1])
def test_unknown_levels_are_refused(level):
    assert level not in LEVELS
    with pytest.raises(SettingsError):
        Codec(level)


@pytest.mark.parametrize(
    ("raw", "codec"),
    [
        (b"", chunk.CODEC_RAW),
        (b"a" * 159, chunk.CODEC_RAW),  # below the trial
        (b"a" * 160, chunk.CODEC_ZSTD),
        (noise(4000), chunk.CODEC_RAW),
        (noise(140) + b"a" * 30, chunk.CODEC_RAW),  # saves less than 32 bytes
        (noise(2000) + b"a" * 100, chunk.CODEC_RAW),  # saves less than 1/16
        (noise(2000) + b"a" * 200, chunk.CODEC_ZSTD),
        (TEXT, chunk.CODEC_ZSTD),
    ],
)
def test_compresses_only_where_it_pays(raw, codec):
    digest, record = CODEC.record(chunk.LEAF, raw)
    found = chunk.decode(record)
    assert found.codec == codec
    assert found.raw_length == len(raw)
    if codec == chunk.CODEC_ZSTD:
        saved = len(raw) - len(found.stored)
        assert saved >= 32
        assert saved >= len(raw) // 16
        parameters = zstandard.get_frame_parameters(found.stored)
        assert parameters.content_size == len(raw)
        assert not parameters.has_checksum
    assert CODEC.raw(record, digest) == raw


def test_a_compressor_that_fails_leaves_the_bytes_raw():
    class Failing:
        def compress(self, raw):
            raise zstandard.ZstdError("no memory")

    codec = Codec()
    codec._local.compressor_0 = Failing()
    digest, record = codec.record(chunk.LEAF, TEXT)
    assert chunk.decode(record).codec == chunk.CODEC_RAW
    assert codec.raw(record, digest) == TEXT


@pytest.mark.parametrize("domain", [chunk.LEAF, chunk.NODE])
@pytest.mark.parametrize("raw", [TEXT[:100], noise(40)], ids=["zstd", "raw"])
def test_every_flipped_bit_is_noticed(domain, raw):
    digest, record = CODEC.record(domain, raw)
    for bit in range(len(record) * 8):
        damaged = bytearray(record)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises((BlobCorruptionError, UnsupportedError), match=digest.hex()):
            CODEC.raw(bytes(damaged), digest, domain=domain)


def test_every_cut_is_noticed():
    digest, record = CODEC.record(chunk.LEAF, TEXT)
    for length in range(0, len(record), 7):
        with pytest.raises(BlobCorruptionError):
            CODEC.raw(record[:length], digest)
    with pytest.raises(BlobCorruptionError):
        CODEC.raw(record + b"\0", digest)


def test_another_chunk_is_noticed():
    _, record = CODEC.record(chunk.LEAF, TEXT)
    other, _ = CODEC.record(chunk.LEAF, b"other")
    with pytest.raises(BlobCorruptionError, match=other.hex()):
        CODEC.raw(record, other)


def test_a_leaf_is_no_node():
    digest, record = CODEC.record(chunk.LEAF, TEXT)
    assert chunk.digest_of(chunk.NODE, TEXT) != digest
    with pytest.raises(BlobCorruptionError, match="domain"):
        CODEC.raw(record, digest, domain=chunk.NODE)


def test_right_sizes_of_wrong_bytes_are_noticed():
    digest, record = forge(TEXT, TEXT[:-1] + b"?", codec=chunk.CODEC_RAW)
    with pytest.raises(BlobCorruptionError, match="hash"):
        CODEC.raw(record, digest)


BOMBS = {
    "four gigabytes": (zstd_head(content_bytes=4 << 30), 1000),
    "more than said": (zstd_head(content_bytes=4_000_000), 1000),
    "less than said": (zstd_head(content_bytes=999), 1000),
    "size unknown": (zstd_head(window_log=10), 1000),
    "window of 2 GiB": (zstd_head(content_bytes=1000, window_log=31), 1000),
    "window of 8 MiB": (zstd_head(content_bytes=1000, window_log=23), 1000),
    "a dictionary": (zstd_head(content_bytes=1000, dictionary=7), 1000),
    "a skippable frame": (b"\x50\x2a\x4d\x18" + struct.pack("<I", 4) + bytes(4), 1000),
    "no frame": (b"not zstd at all", 1000),
    "nothing": (b"", 1000),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_anything_is_allocated(name):
    stored, raw_length = BOMBS[name]
    digest, record = forge(b"whatever", stored, raw_length=raw_length)
    codec = Codec()
    codec._local.decompressor = mock.Mock()
    with pytest.raises(BlobCorruptionError, match=digest.hex()):
        codec.raw(record, digest)
    codec._local.decompressor.decompress.assert_not_called()


def test_a_claim_over_the_limit_is_refused_by_the_record():
    digest, record = forge(b"x", b"x", codec=chunk.CODEC_RAW)
    claim = bytearray(record)
    struct.pack_into("<I", claim, 44, chunk.RAW_BYTES_MAX + 1)
    with pytest.raises(BlobCorruptionError, match="limit"):
        CODEC.raw(bytes(claim), digest)


@pytest.mark.parametrize(
    "stored",
    [
        zstandard.ZstdCompressor().compress(bytes(1000))[:-1],
        zstandard.ZstdCompressor().compress(bytes(1000)) + b"more",
        zstandard.ZstdCompressor().compress(bytes(1000)) * 2,
        zstd_head(content_bytes=1000),  # promises 1000 bytes, has none
    ],
    ids=["cut", "followed", "twice", "empty"],
)
def test_frames_that_do_not_hold_what_they_say(stored):
    digest, record = forge(bytes(1000), stored)
    with pytest.raises(BlobCorruptionError, match=digest.hex()):
        CODEC.raw(record, digest)


@pytest.mark.parametrize(
    "change", [{"codec": 9}, {"flags": chunk.SEALED}, {"scheme": chunk.SCHEME_KEYED}]
)
def test_newer_records_are_unsupported_not_damaged(change):
    digest, record = CODEC.record(chunk.LEAF, b"x")
    newer = chunk.encode(msgspec.structs.replace(chunk.decode(record), **change))
    with pytest.raises(UnsupportedError, match=digest.hex()):
        CODEC.raw(newer, digest)


def test_threads_do_not_disturb_each_other():
    codec, wrong = Codec(), []

    def work(seed):
        raw = (seed + TEXT) * 3
        for _ in range(50):
            digest, record = codec.record(chunk.LEAF, raw)
            if codec.raw(record, digest) != raw:
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(bytes([n]) * 50,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- differences ----------------------------------------------------------------------------------


def from_base(base, raw, domain=chunk.LEAF):
    """Return (digest, record) of raw as it is encoded with a base."""
    digest = chunk.digest_of(domain, raw)
    return digest, CODEC.encode_from(domain, digest, raw, (chunk.digest_of(domain, base), base))


@given(
    st.integers(0, 3000),
    st.binary(max_size=300),
    st.integers(0, 3000),
    st.sampled_from([chunk.LEAF, chunk.BRANCH]),
)
def test_a_difference_reads_back_and_is_shorter_than_the_whole(size, change, at, domain):
    base = (TEXT + noise(2000))[-size:] if size else b""
    raw = base[:at] + change + base[at:]
    digest, record = from_base(base, raw, domain)
    asked = []

    def base_of(name):
        asked.append(name)
        return base

    assert CODEC.raw(record, digest, domain=domain, base_of=base_of) == raw
    if chunk.base_in(record):
        assert asked == [chunk.digest_of(domain, base)]
        assert len(record) < len(CODEC.encode(domain, digest, raw))
    else:
        assert asked == []
        assert record == CODEC.encode(domain, digest, raw)


def test_what_is_much_alike_is_a_difference():
    base = noise(4000)
    _, record = from_base(base, base + b"one more item")
    assert chunk.base_in(record) == chunk.digest_of(chunk.LEAF, base)
    assert len(record) < 200


@pytest.mark.parametrize(
    ("base", "raw"),
    [
        (noise(4000), noise(4000, b"other")),
        (noise(200), noise(200) + noise(300, b"other")),
        (noise(4000), noise(200)),
        (b"", noise(4000)),
    ],
)
def test_what_would_not_be_clearly_shorter_is_whole(base, raw):
    digest, record = from_base(base, raw)
    assert record == CODEC.encode(chunk.LEAF, digest, raw)


def test_a_compressor_that_fails_leaves_a_whole_record():
    base = noise(4000)
    failing = mock.Mock(**{"return_value.compress.side_effect": zstandard.ZstdError("no memory")})
    with mock.patch("ckptlog.blobs.codec.zstandard.ZstdCompressor", failing):
        digest = chunk.digest_of(chunk.LEAF, base + b"x")
        record = Codec().encode_from(chunk.LEAF, digest, base + b"x", (digest, base))
    assert chunk.decode(record).codec == chunk.CODEC_RAW


# --- the dictionary -------------------------------------------------------------------------------

MESSAGE = (
    b'{"writes":[],"checkpoint":{"v":2,"id":null,"ts":"2026-03-04T05:06:07.080910+00:00",'
    b'"channel_versions":{"messages":"00000000000000000000000000000007.0.5"},"versions_seen":{},'
    b'"pending_sends":[],"updated_channels":null,"channel_values":{"messages":[{"$type":'
    b'["lc.HumanMessage",[{"content":"hello","additional_kwargs":{},"response_metadata":{},'
    b'"type":"human","name":null,"id":"7"},{},null]]}]}}}'
)


def test_the_dictionary_is_what_the_page_says_for_ever():
    page = (Path(__file__).parents[2] / "specs" / "chunk.md").read_text(encoding="utf-8")
    assert blake3(DICTIONARY).hexdigest() in page


@pytest.mark.parametrize("level", [1, 3, 9, 19])
@pytest.mark.parametrize("size", [1, 7])
def test_a_short_chunk_is_stored_against_the_dictionary_where_the_store_has_it(level, size):
    raw = MESSAGE * size
    digest, record = Codec(level, has_dictionary=True).record(chunk.LEAF, raw)
    _, without = Codec(level).record(chunk.LEAF, raw)
    assert chunk.decode(record).codec == chunk.CODEC_ZSTD_DICTIONARY
    assert chunk.decode(without).codec == chunk.CODEC_ZSTD
    assert len(record) < len(without) - 100
    for reader in (Codec(), Codec(19, has_dictionary=True)):
        assert reader.raw(record, digest) == reader.raw(without, digest) == raw


def test_a_long_chunk_needs_no_dictionary():
    raw = b"".join(MESSAGE.replace(b"hello", b"%d" % number) for number in range(80))
    _, record = Codec(has_dictionary=True).record(chunk.LEAF, raw)
    assert len(raw) > DICTIONARY_RAW_MAX
    assert chunk.decode(record).codec == chunk.CODEC_ZSTD


def test_a_chunk_that_needs_the_dictionary_and_does_not_say_so_is_damaged():
    digest, record = Codec(has_dictionary=True).record(chunk.LEAF, MESSAGE)
    odd = bytearray(record)
    odd[32] = chunk.CODEC_ZSTD
    with pytest.raises(BlobCorruptionError):
        Codec().raw(bytes(odd), digest)
