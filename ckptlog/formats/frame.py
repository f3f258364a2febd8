"""The frame: the one envelope of everything in segments and packs (specs/frame.md).

    offset  size  field
    0       2     magic "CK"
    2       1     kind
    3       1     flags (bit 0: this event ends a commit)
    4       4     length of the body, little-endian
    8       8     checksum: xxh3-64 over offset (u64), bytes 0..8 of the header, and body,
                  seeded with the container's seed
    16      n     body

The seed comes from the store's id and the container's name, and the offset is part of what is
hashed, so a frame that was copied to another store, file or place does not check. The magic lets
a search for frames in a damaged region skip quickly. Zero bytes never start a frame: a
preallocated tail reads as "nothing here".
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from typing import Final

import msgspec
from xxhash import xxh3_64, xxh3_64_digest, xxh3_64_intdigest

from ckptlog.errors import FormatError

SEGMENT: Final = 1
EVENT: Final = 2
CHUNK: Final = 3
PACK: Final = 4
PACK_INDEX: Final = 5
PACK_TRAILER: Final = 6
BLOCK: Final = 7
BLOCK_INDEX: Final = 8
BLOCK_TRAILER: Final = 9

COMMIT: Final = 1
FLAGS_KNOWN: Final = COMMIT

MAGIC: Final = b"CK"
HEADER_BYTES: Final = 16
KIND_AT: Final = 2
# Bounds what a damaged or hostile length can make a reader allocate, and what a search for frames
# hashes at each chance magic. Headers may grow in later versions; a pack's index is the largest
# body: 2**20 chunks of 44 bytes each stay below it.
_BODY_BYTES_MAX: Final = {
    SEGMENT: 4096,
    EVENT: 128 * 1024,
    CHUNK: 8 * 1024 * 1024,
    PACK: 4096,
    PACK_INDEX: 64 * 1024 * 1024,
    PACK_TRAILER: 4096,
    BLOCK: 1024 * 1024 + 64 * 1024,
    BLOCK_INDEX: 64 * 1024 * 1024,
    BLOCK_TRAILER: 4096,
}
KINDS: Final = frozenset(_BODY_BYTES_MAX)
BODY_BYTES_MAX: Final = max(_BODY_BYTES_MAX.values())
_LIMITS: Final = tuple(_BODY_BYTES_MAX.get(kind, -1) for kind in range(256))

_HEAD = struct.Struct("<2sBBI")
_BOUND = struct.Struct("<Q2sBBI")
_CHECKSUM = struct.Struct("<Q")
_WHOLE = struct.Struct("<2sBBIQ")


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One checked frame; body is a view of the caller's buffer or bytes of its own."""

    kind: int
    flags: int
    body: bytes | memoryview
    offset: int

    @property
    def offset_end(self) -> int:
        """First byte after the frame."""
        return self.offset + HEADER_BYTES + len(self.body)


def container_seed(store_id: bytes, name: str) -> int:
    """Return the seed of the checksums in one container.

    Args:
        store_id: 16 bytes.
        name: The container's file name, without folders.
    """
    return xxh3_64_intdigest(store_id + name.encode())


def encode(seed: int, offset: int, kind: int, flags: int, body: bytes) -> bytes:
    """Return the frame of body for this place."""
    size = len(body)
    if size > _BODY_BYTES_MAX.get(kind, -1) or flags & ~FLAGS_KNOWN:
        raise FormatError(f"No frame of kind {kind} has flags {flags:#x} and {size} bytes.")
    bound = _BOUND.pack(offset, MAGIC, kind, flags, size)
    # The digest is in the byte order of a big number; the checksum is written as a little one.
    return bound[8:] + xxh3_64_digest(bound + body, seed)[::-1] + body


def body_length(header: bytes | memoryview) -> int | None:
    """Return the body's length that a header claims, or None when it cannot be a header.

    Only plausibility is checked; `decode` checks the sum.
    """
    if len(header) < HEADER_BYTES:
        return None
    magic, kind, flags, size = _HEAD.unpack_from(header)
    if magic != MAGIC or flags & ~FLAGS_KNOWN or size > _BODY_BYTES_MAX.get(kind, -1):
        return None
    return int(size)


def measure(
    seed: int, offset: int, data: bytes | memoryview, start: int = 0
) -> tuple[int, int, int]:
    """Check the frame at data[start:], which lies at `offset` in its container.

    Returns:
        Kind, flags, and where in data the frame ends; its body begins HEADER_BYTES after start.

    Raises:
        FormatError: No whole, checked frame stands there.

    Cost: one copy of the body. This runs for every frame that is read.
    """
    try:
        magic, kind, flags, size, check = _WHOLE.unpack_from(data, start)
    except struct.error:
        raise FormatError(f"No frame begins at offset {offset}.", offset=offset) from None
    begin = start + HEADER_BYTES
    end = begin + size
    if magic != MAGIC or flags & ~FLAGS_KNOWN or size > _LIMITS[kind]:
        raise FormatError(f"No frame begins at offset {offset}.", offset=offset)
    if end > len(data):
        raise FormatError(
            f"The frame at offset {offset} claims {size} bytes; {len(data) - begin} are there.",
            offset=offset,
        )
    bound = _BOUND.pack(offset, magic, kind, flags, size)
    if check != xxh3_64_intdigest(bound + data[begin:end], seed):
        raise FormatError(f"The checksum of the frame at offset {offset} is wrong.", offset=offset)
    return kind, flags, end


def measure_long(seed: int, offset: int, data: memoryview) -> tuple[int, int, int]:
    """Do as `measure` for a frame of many bytes: nothing is copied, other threads go on."""
    try:
        magic, kind, flags, size, check = _WHOLE.unpack_from(data)
    except struct.error:
        return measure(seed, offset, data)  # which says what is wrong
    end = HEADER_BYTES + size
    if magic != MAGIC or flags & ~FLAGS_KNOWN or size > _LIMITS[kind] or end > len(data):
        return measure(seed, offset, data)
    hasher = xxh3_64(_BOUND.pack(offset, magic, kind, flags, size), seed)
    hasher.update(data[HEADER_BYTES:end])
    if check != hasher.intdigest():
        raise FormatError(f"The checksum of the frame at offset {offset} is wrong.", offset=offset)
    return kind, flags, end


def turned_bit(seed: int, offset: int, data: bytes) -> int | None:
    """Return which bit of a frame's body must be turned for the checksum to hold.

    Args:
        data: As many bytes as the header claims.

    Returns:
        Its number, from the lowest of the body's first byte on; None where none does it.

    Cost: a checksum for each bit, some 8 ms a KiB.
    """
    magic, kind, flags, size, check = _WHOLE.unpack_from(data)
    summed = bytearray(_BOUND.pack(offset, magic, kind, flags, size)) + data[HEADER_BYTES:]
    head = _BOUND.size
    for at in range(head, len(summed)):
        byte = summed[at]
        for bit in range(8):
            summed[at] = byte ^ 1 << bit
            if xxh3_64_intdigest(summed, seed) == check:
                return 8 * (at - head) + bit
        summed[at] = byte
    return None


def walk(seed: int, base: int, data: bytes | mmap.mmap) -> Iterator[tuple[int, int, int, int]]:
    """Yield kind, flags, begin and end of each frame in data, back to back from its beginning.

    Ends before the first frame that is not whole or does not check; `measure` says why.

    Args:
        base: Offset of data in the container.

    Cost: this is `measure` in a loop without calls; a log is read at the speed of it.
    """
    at, length = 0, len(data)
    whole, bind, limits = _WHOLE.unpack_from, _BOUND.pack, _LIMITS
    while at + HEADER_BYTES <= length:
        magic, kind, flags, size, check = whole(data, at)
        begin = at + HEADER_BYTES
        end = begin + size
        if magic != MAGIC or flags & ~FLAGS_KNOWN or size > limits[kind] or end > length:
            return
        bound = bind(base + at, magic, kind, flags, size)
        if check != xxh3_64_intdigest(bound + data[begin:end], seed):
            return
        yield kind, flags, at, end
        at = end


def decode(seed: int, offset: int, data: bytes | memoryview, start: int = 0) -> Frame:
    """Return the frame at data[start:], which lies at `offset` in its container.

    Raises:
        FormatError: No whole, checked frame stands there.
    """
    kind, flags, end = measure(seed, offset, data, start)
    return Frame(kind, flags, data[start + HEADER_BYTES : end], offset)
