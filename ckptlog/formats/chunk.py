"""The chunk record: the self-describing bytes of one chunk, in segments and packs alike.

    offset  size  field
    0       32    digest: the chunk's id over its domain tag and raw bytes
    32      1     codec: 0 raw, 1 zstd, 2 zstd with the base as dictionary,
                  3 zstd with dictionary 1 (formats.dictionary)
    33      1     flags: bit 0 sealed (encrypted), bit 1 delta (a base digest follows)
    34      1     id scheme: 0 plain BLAKE3, 1 keyed BLAKE3
    35      1     domain: 0 leaf, 1 node, 2 branch
    36      8     key id; 0 where the chunk is not sealed
    44      4     raw length
    48      4     stored length
    52      32    base digest, only when the delta flag is set
    ..      n     stored bytes

Little-endian. The digest names raw bytes, so recompressing a chunk never changes its id
(specs/chunk.md).
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec
from blake3 import blake3

from ckptlog.errors import FormatError, UnsupportedError

CODEC_RAW: Final = 0
CODEC_ZSTD: Final = 1
CODEC_ZSTD_DELTA: Final = 2
CODEC_ZSTD_DICTIONARY: Final = 3
CODECS_READ: Final = frozenset({CODEC_RAW, CODEC_ZSTD, CODEC_ZSTD_DELTA, CODEC_ZSTD_DICTIONARY})

SEALED: Final = 1
DELTA: Final = 2

SCHEME_PLAIN: Final = 0
SCHEME_KEYED: Final = 1

LEAF: Final = 0
NODE: Final = 1
BRANCH: Final = 2

DIGEST_BYTES: Final = 32
# Bounds what decompression may allocate for one record: a bomb is refused before it.
RAW_BYTES_MAX: Final = 4 * 1024 * 1024
HEADER_BYTES: Final = 52
_HEADER = struct.Struct("<32sBBBBQII")
_CODEC_AT: Final = 32
RAW_LENGTH_AT: Final = 44
_DOMAIN_TAGS: Final = (b"\x00", b"\x01", b"\x02")
# Up to here copying the bytes behind their tag is cheaper than a second call of the hasher.
_JOINED_BYTES_MAX: Final = 16 * 1024


class Record(msgspec.Struct, frozen=True, gc=False):
    """One chunk as stored. `stored` is the raw or compressed bytes; base is empty or 32 bytes."""

    digest: bytes
    codec: int
    flags: int
    scheme: int
    domain: int
    key: int
    raw_length: int
    stored: bytes
    base: bytes = b""


def digest_of(domain: int, raw: bytes | memoryview) -> bytes:
    """Return the plain id of raw bytes in a domain: BLAKE3-256 over tag and bytes; 32 bytes."""
    if len(raw) <= _JOINED_BYTES_MAX:
        return blake3(_DOMAIN_TAGS[domain] + raw).digest()
    hasher = blake3(_DOMAIN_TAGS[domain])
    hasher.update(raw)
    return hasher.digest()


def encode(record: Record) -> bytes:
    """Return the record's bytes."""
    base_bytes = DIGEST_BYTES if record.flags & DELTA else 0
    if len(record.digest) != DIGEST_BYTES or len(record.base) != base_bytes:
        raise FormatError("A chunk record needs a digest of 32 bytes, and a base only as a delta.")
    if (record.codec == CODEC_ZSTD_DELTA) != bool(base_bytes):
        raise FormatError(f"A chunk of codec {record.codec} cannot have flags {record.flags:#x}.")
    if record.raw_length > RAW_BYTES_MAX or len(record.stored) > RAW_BYTES_MAX:
        raise FormatError(f"A chunk of {record.raw_length} bytes is over {RAW_BYTES_MAX}.")
    head = _HEADER.pack(
        record.digest,
        record.codec,
        record.flags,
        record.scheme,
        record.domain,
        record.key,
        record.raw_length,
        len(record.stored),
    )
    return head + record.base + record.stored


def encode_plain(codec: int, domain: int, digest: bytes, raw_length: int, stored: bytes) -> bytes:
    """Return the bytes of a record that is neither sealed nor a delta: `encode` for the hot path.

    Args:
        digest: 32 bytes, from `digest_of`.
        raw_length: At most RAW_BYTES_MAX; stored is no longer than that.
    """
    if raw_length > RAW_BYTES_MAX:
        raise FormatError(f"A chunk of {raw_length} bytes is over {RAW_BYTES_MAX}.")
    return _HEADER.pack(digest, codec, 0, SCHEME_PLAIN, domain, 0, raw_length, len(stored)) + stored


def encode_delta(domain: int, digest: bytes, raw_length: int, base: bytes, stored: bytes) -> bytes:
    """Return the bytes of a record that holds a chunk as a difference from its base.

    Args:
        base: Digest of the chunk whose raw bytes are the dictionary; it lies in the same container.
        raw_length: At most RAW_BYTES_MAX; stored is no longer than that.
    """
    if raw_length > RAW_BYTES_MAX:
        raise FormatError(f"A chunk of {raw_length} bytes is over {RAW_BYTES_MAX}.")
    head = _HEADER.pack(
        digest, CODEC_ZSTD_DELTA, DELTA, SCHEME_PLAIN, domain, 0, raw_length, len(stored)
    )
    return head + base + stored


def base_in(data: bytes | memoryview) -> bytes:
    """Return the digest of a record's base, empty where it is no delta; the rest is not checked."""
    if len(data) < HEADER_BYTES + DIGEST_BYTES or data[_CODEC_AT] != CODEC_ZSTD_DELTA:
        return b""
    if data[_CODEC_AT + 1] != DELTA:
        return b""
    return bytes(data[HEADER_BYTES : HEADER_BYTES + DIGEST_BYTES])


def digest_in(data: bytes | memoryview) -> bytes:
    """Return the digest at the head of a record's bytes, without checking the rest."""
    if len(data) < HEADER_BYTES:
        raise FormatError(f"A chunk record of {len(data)} bytes is too short.")
    return bytes(data[:DIGEST_BYTES])


def outline(data: bytes | memoryview) -> tuple[int, int]:
    """Return (domain, raw length) of a record by its head alone.

    Raises:
        FormatError: It is too short, or claims what no chunk has.
    """
    if len(data) < HEADER_BYTES:
        raise FormatError(f"A chunk record of {len(data)} bytes is too short.")
    _, _, _, _, domain, _, raw, _ = _HEADER.unpack_from(data)
    if domain not in (LEAF, NODE, BRANCH) or raw > RAW_BYTES_MAX:
        raise FormatError(f"A chunk has domain {domain} and {raw} bytes; no such thing.")
    return domain, raw


def decode(data: bytes | memoryview, *, is_copied: bool = True) -> Record:
    """Return the record that data is, whole.

    Args:
        is_copied: Whether `stored` is bytes of its own, or a part of data, which must stay.

    Raises:
        UnsupportedError: It needs a codec, flag or scheme that this version does not have.
        FormatError: It is malformed, or claims more than a chunk may.
    """
    if len(data) < HEADER_BYTES:
        raise FormatError(f"A chunk record of {len(data)} bytes is too short.")
    digest, codec, flags, scheme, domain, key, raw, stored = _HEADER.unpack_from(data)
    _refuse_unknown(codec, flags, scheme, domain)
    begin = HEADER_BYTES + (DIGEST_BYTES if flags & DELTA else 0)
    if raw > RAW_BYTES_MAX or stored > RAW_BYTES_MAX:
        raise FormatError(f"A chunk claims {raw} raw and {stored} stored bytes; over the limit.")
    if len(data) != begin + stored:
        raise FormatError(f"A chunk record claims {stored} bytes; {len(data) - begin} are there.")
    if key or (codec == CODEC_RAW and raw != stored):
        raise FormatError(f"A plain chunk has key {key}, {raw} raw and {stored} stored bytes.")
    if (codec == CODEC_ZSTD_DELTA) != bool(flags & DELTA):
        raise FormatError(f"A chunk has codec {codec} and flags {flags:#x}; no such thing.")
    base = bytes(data[HEADER_BYTES:begin])
    rest = data[begin:]
    kept: Any = bytes(rest) if is_copied else rest
    return Record(digest, codec, flags, scheme, domain, key, raw, kept, base)


def _refuse_unknown(codec: int, flags: int, scheme: int, domain: int) -> None:
    if domain not in (LEAF, NODE, BRANCH) or flags & ~(SEALED | DELTA):
        raise FormatError(f"A chunk has domain {domain} and flags {flags:#x}; no such thing.")
    wants = []
    if codec not in CODECS_READ:
        wants.append(f"codec {codec}")
    if flags & SEALED:
        wants.append("encryption")
    if scheme != SCHEME_PLAIN:
        wants.append(f"id scheme {scheme}")
    if wants:
        raise UnsupportedError(
            f"A chunk needs {', '.join(wants)}, which this version does not have.",
            hint="Install a newer ckptlog.",
        )
