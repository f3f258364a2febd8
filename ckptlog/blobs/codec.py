"""The codec: raw chunks to records and back, compressed where a trial says it pays.

A record (formats.chunk) is named by the digest of its raw bytes, so how it is compressed is free
to change and never trusted: `raw` recomputes the digest of everything it returns. Nothing is
allocated on the word of stored bytes alone; a zstd frame that claims another size than the
record, no size, a dictionary, or a window over the limit is refused before decompression
(specs/payload.md, section 4).

zstandard.ZstdError crosses into our tree in this module, by `_damaged`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import Final

import zstandard

from ckptlog.errors import (
    BlobCorruptionError,
    FormatError,
    SettingsError,
    UnsupportedError,
)
from ckptlog.formats import chunk
from ckptlog.formats.dictionary import DICTIONARY

# Measured on chunks of agent transcripts (2.5 KB mean): level 1 2.56:1 in 12.5 us, level 3 2.59:1
# in 15.2 us, level 5 2.65:1 in 30 us. Two microseconds vanish beside a sync; bytes stay.
LEVEL_DEFAULT: Final = 3
LEVELS: Final = range(1, 20)

# A zstd frame costs some 10 bytes and 2 us to read back: without this saving the raw bytes are the
# better record. Shorter texts than this hardly ever save so much, and the trial takes 4 us (the
# meta payload of most checkpoints is one).
TRIAL_BYTES_MIN: Final = 160
_SAVED_BYTES_MIN: Final = 32
_SAVED_SHIFT: Final = 4  # 1/16 of the raw bytes
# A longer chunk has learned by itself what the dictionary knows.
DICTIONARY_RAW_MAX: Final = 16 * 1024
# With the dictionary level 1 makes what is shortest hardly longer (0.8 %) in 3 us less.
_FAST_BYTES_MAX: Final = 2048
_FAST_LEVEL: Final = 1
# Below this length a difference is hardly shorter than the whole. Level 1 finds what two versions
# have in common as well as level 3 does.
_DELTA_BYTES_MIN: Final = 256
_DELTA_LEVEL: Final = 1
_CLEARLY_SHORTER_SHIFT: Final = 3  # no text of ours is compressed to 1/8 by itself
# The window is what the decoder may allocate besides the output.
_WINDOW_BYTES_MAX: Final = chunk.RAW_BYTES_MAX


class Codec:
    """Encodes and decodes chunk records.

    Args:
        has_dictionary: Whether short chunks may need the dictionary (a feature of the store).

    Threads: safe; zstd contexts are not, so each thread has its own.
    """

    def __init__(self, level: int = LEVEL_DEFAULT, *, has_dictionary: bool = False) -> None:
        if level not in LEVELS:
            raise SettingsError(f"zstd level {level} does not exist; use 1 to 19.")
        self.level = level
        self._has_dictionary = has_dictionary
        self._local = threading.local()

    def record(self, domain: int, raw: bytes) -> tuple[bytes, bytes]:
        """Return (digest, record bytes) of raw."""
        digest = chunk.digest_of(domain, raw)
        return digest, self.encode(domain, digest, raw)

    def encode(self, domain: int, digest: bytes, raw: bytes) -> bytes:
        """Return the record bytes of raw, whose digest is known."""
        size = len(raw)
        codec, stored = chunk.CODEC_RAW, raw
        if size >= TRIAL_BYTES_MIN:
            is_short = self._has_dictionary and size <= DICTIONARY_RAW_MAX
            packed = self._compress(raw, self._short_level(size) if is_short else 0)
            saved = size - len(packed)
            if saved >= _SAVED_BYTES_MIN and saved >= size >> _SAVED_SHIFT:
                codec = chunk.CODEC_ZSTD_DICTIONARY if is_short else chunk.CODEC_ZSTD
                stored = packed
        return chunk.encode_plain(codec, domain, digest, size, stored)

    def encode_from(
        self, domain: int, digest: bytes, raw: bytes, base: tuple[bytes, bytes]
    ) -> bytes:
        """Return the record bytes of raw, as a difference from its base where that is shorter.

        Args:
            base: Digest and raw bytes of the base, which must lie in the same container.
        """
        size = len(raw)
        if size >= _DELTA_BYTES_MIN and len(base[1]) >= _DELTA_BYTES_MIN:
            packed = self._compress_from(raw, base[1])
            if len(packed) <= size >> _CLEARLY_SHORTER_SHIFT:
                return chunk.encode_delta(domain, digest, size, base[0], packed)
            whole = self.encode(domain, digest, raw)
            if len(packed) + chunk.HEADER_BYTES + chunk.DIGEST_BYTES < len(whole) * 3 // 4:
                return chunk.encode_delta(domain, digest, size, base[0], packed)
            return whole
        return self.encode(domain, digest, raw)

    def raw(
        self,
        record_bytes: bytes | memoryview,
        expected_digest: bytes,
        *,
        domain: int | None = None,
        base_of: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        """Return the raw bytes of a record, verified against the digest that they should have.

        Args:
            domain: chunk.LEAF, NODE or BRANCH where the caller knows which it must be.
            base_of: Returns the verified raw bytes of the chunk that a delta differs from.

        Raises:
            BlobCorruptionError: The bytes are not the chunk of that digest.
            UnsupportedError: The record needs what this version does not have.
        """
        record = _decoded(record_bytes, expected_digest)
        if domain is not None and record.domain != domain:
            raise _damaged(expected_digest, f"its domain is {record.domain}, not {domain}")
        return self._verified(record, expected_digest, base_of)

    def verified(
        self,
        record_bytes: memoryview,
        expected_digest: bytes,
        *,
        base_of: Callable[[bytes], bytes] | None = None,
    ) -> tuple[int, bytes | memoryview]:
        """Return domain and raw bytes of a record, verified as by `raw`; nothing is copied.

        Raises:
            BlobCorruptionError, UnsupportedError: As `raw`.
        """
        record = _decoded(record_bytes, expected_digest, is_copied=False)
        return record.domain, self._verified(record, expected_digest, base_of)

    def _verified(
        self,
        record: chunk.Record,
        expected_digest: bytes,
        base_of: Callable[[bytes], bytes] | None,
    ) -> bytes:
        if record.digest != expected_digest:
            raise _damaged(expected_digest, f"its record is that of {record.digest.hex()}")
        raw = record.stored
        if record.codec == chunk.CODEC_ZSTD:
            raw = self._decompress(record, self._decompressor("decompressor"))
        elif record.codec == chunk.CODEC_ZSTD_DICTIONARY:
            raw = self._decompress(record, self._decompressor("decompressor_short"))
        elif record.codec == chunk.CODEC_ZSTD_DELTA:
            if base_of is None:
                raise _damaged(expected_digest, "it is a delta where none may be")
            raw = self._decompress(record, _decompressor_from(base_of(record.base)))
        if chunk.digest_of(record.domain, raw) != expected_digest:
            raise _damaged(expected_digest, "its bytes do not hash to its name")
        return raw

    def _short_level(self, size: int) -> int:
        return (
            _FAST_LEVEL if size <= _FAST_BYTES_MAX and self.level == LEVEL_DEFAULT else self.level
        )

    def _compress(self, raw: bytes, short_level: int) -> bytes:
        """Compress; short_level: with the dictionary at that level, 0: without."""
        name = f"compressor_{short_level}"
        compressor: zstandard.ZstdCompressor | None = getattr(self._local, name, None)
        if compressor is None:
            compressor = zstandard.ZstdCompressor(
                level=short_level or self.level,
                dict_data=_dictionary(short_level) if short_level else None,
                write_checksum=False,  # the digest is the checksum
                write_content_size=True,
                write_dict_id=False,
            )
            setattr(self._local, name, compressor)
        try:
            return compressor.compress(raw)
        except zstandard.ZstdError:
            return raw  # the trial found nothing (no memory for a context): raw is always right

    def _compress_from(self, raw: bytes, base: bytes) -> bytes:
        compressor = zstandard.ZstdCompressor(
            level=_DELTA_LEVEL,
            dict_data=zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT),
            write_checksum=False,
            write_content_size=True,
            write_dict_id=False,
        )
        try:
            return compressor.compress(raw)
        except zstandard.ZstdError:
            return raw

    def _decompressor(self, name: str) -> zstandard.ZstdDecompressor:
        decompressor: zstandard.ZstdDecompressor | None = getattr(self._local, name, None)
        if decompressor is None:
            dictionary = None if name == "decompressor" else _dictionary(self.level)
            decompressor = zstandard.ZstdDecompressor(dict_data=dictionary)
            setattr(self._local, name, decompressor)
        return decompressor

    def _decompress(self, record: chunk.Record, decompressor: zstandard.ZstdDecompressor) -> bytes:
        try:
            claims = zstandard.get_frame_parameters(record.stored)
            _refuse_bomb(record, claims)
            return decompressor.decompress(
                record.stored, max_output_size=record.raw_length, allow_extra_data=False
            )
        except zstandard.ZstdError as error:
            raise _damaged(record.digest, f"zstd says: {error}") from error


@cache
def _dictionary(level: int) -> zstandard.ZstdCompressionDict:
    """Return the dictionary, digested once for a level."""
    made = zstandard.ZstdCompressionDict(DICTIONARY, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    made.precompute_compress(level=level)
    return made


def _decompressor_from(base: bytes) -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor(
        dict_data=zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    )


def _decoded(
    record_bytes: bytes | memoryview, expected: bytes, *, is_copied: bool = True
) -> chunk.Record:
    try:
        return chunk.decode(record_bytes, is_copied=is_copied)
    except UnsupportedError as error:
        raise UnsupportedError(
            f"Chunk {expected.hex()}: {error.message}", hint=error.hint, digest=expected.hex()
        ) from error
    except FormatError as error:
        raise _damaged(expected, error.message.rstrip(".")) from error


def _refuse_bomb(record: chunk.Record, claims: zstandard.FrameParameters) -> None:
    if claims.content_size != record.raw_length:
        raise _damaged(
            record.digest,
            f"its zstd frame claims {claims.content_size} bytes, its record {record.raw_length}",
        )
    if claims.window_size > _WINDOW_BYTES_MAX or claims.dict_id:
        raise _damaged(
            record.digest,
            f"its zstd frame wants a window of {claims.window_size} bytes and the dictionary "
            f"{claims.dict_id}",
        )


def _damaged(digest: bytes, why: str) -> BlobCorruptionError:
    return BlobCorruptionError(
        f"Chunk {digest.hex()} is damaged: {why}.",
        hint="Run ckptlog verify; other checkpoints can still be read.",
        digest=digest.hex(),
    )
