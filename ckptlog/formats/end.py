"""The published end of the log (specs/end.md): 128 bytes, rewritten in place at each commit.

    offset  size  field
    0       8     magic "CKPTEND1"
    8       16    store id
    24      8     position of the next event
    32      8     first position of the segment that the log ends in
    40      4     its generation
    44      4     zero
    48      8     offset in that segment
    56      32    leaf hash of the last event (zeros in an empty log)
    88      16    boot id of the machine that wrote it
    104     16    zero
    120     8     checksum: xxh3-64 of bytes 0..120

Readers trust it for "durable up to here"; nothing else tells that no event came after.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec
from xxhash import xxh3_64_intdigest

from ckptlog.errors import FormatError

MAGIC: Final = b"CKPTEND1"
BYTES: Final = 128
_FIELDS = struct.Struct("<8s16sQQIIQ32s16s16s")
_CHECKSUM = struct.Struct("<Q")


class End(msgspec.Struct, frozen=True, gc=False):
    """Up to where the log is durable; offsets in bytes."""

    store_id: bytes
    position: int
    first: int
    generation: int
    offset: int
    leaf: bytes
    boot: bytes


def encode(end: End) -> bytes:
    """Return the 128 bytes of the record."""
    if (len(end.store_id), len(end.leaf), len(end.boot)) != (16, 32, 16):
        raise FormatError("An end needs ids of 16 bytes and a hash of 32.")
    fields = _FIELDS.pack(
        MAGIC,
        end.store_id,
        end.position,
        end.first,
        end.generation,
        0,
        end.offset,
        end.leaf,
        end.boot,
        b"",
    )
    return fields + _CHECKSUM.pack(xxh3_64_intdigest(fields))


def is_torn(data: bytes, store_id: bytes) -> bool:
    """Say whether bytes that are no record may be words of two: all of a store begin alike."""
    return len(data) == BYTES and data.startswith(MAGIC + store_id)


def decode(data: bytes, store_id: bytes) -> End:
    """Return the record.

    Raises:
        FormatError: It is torn, damaged, or another store's.
    """
    if len(data) != BYTES or data[:8] != MAGIC:
        raise FormatError("The published end is not 128 bytes with its magic.")
    if xxh3_64_intdigest(data[:-8]) != _CHECKSUM.unpack(data[-8:])[0]:
        raise FormatError("The checksum of the published end is wrong.")
    _, owner, position, first, generation, zero, offset, leaf, boot, zeros = _FIELDS.unpack(
        data[:-8]
    )
    if owner != store_id:
        raise FormatError("The published end belongs to another store.")
    if zero or any(zeros):
        raise FormatError("The published end has something in its reserved bytes.")
    return End(owner, position, first, generation, offset, leaf, boot)
