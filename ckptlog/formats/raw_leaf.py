"""Raw leaves: chunks that are leaves, stored as they are. What does not compress is mostly such.

    frame   | head 16 | record: digest 32, codec ... key, lengths | raw bytes |
                                                                 ^
                      the last byte of the record's head is 0 in a raw leaf, and so is the tag of
                      leaves: what is hashed lies there as it is, in one piece

A run of them is checked at one stroke, and the hashing alone remains. Whatever else stands in a
container is passed over: the long way (`formats.frame`, `blobs.codec`) reads it, and says what is
wrong with it.
"""

from __future__ import annotations

from typing import Final

from blake3 import blake3

from ckptlog.errors import FormatError, UnsupportedError
from ckptlog.formats import chunk, frame
from ckptlog.kernel import native

RAW_AT: Final = frame.HEADER_BYTES + chunk.HEADER_BYTES
"""Where in a frame the raw bytes begin."""
_TAGGED_AT: Final = RAW_AT - 1


def whole_leaves(seed: int, base: int, data: memoryview) -> dict[int, tuple[bytes, int]]:
    """Return the raw leaves that are what they say: where in data it begins -> digest, raw length.

    Frames stand back to back from the beginning of data; it ends where none seems to begin.

    Args:
        seed: The container's.
        base: Offset of data in it.
        data: Writable: heads of frames are written to for a moment.

    Cost: what summing and hashing the bytes takes; other threads run meanwhile.
    """
    if native is not None and native.HASHES:
        leaves = native.raw_leaves(seed, base, data, True)
    else:
        if native is None:
            sound = _raw_leaves(seed, base, data)
        else:
            sound = native.raw_leaves(seed, base, data, False)
        leaves = [
            (digest, begin, end)
            for digest, begin, end in sound
            if blake3(data[begin + _TAGGED_AT : end]).digest() == digest
        ]
    return {begin: (digest, end - begin - RAW_AT) for digest, begin, end in leaves}


def _raw_leaves(seed: int, base: int, data: memoryview) -> list[tuple[bytes, int, int]]:
    """Return the digest in each sound frame of a raw leaf, and where in data it begins and ends."""
    found = []
    begin = 0
    while (size := frame.body_length(data[begin : begin + frame.HEADER_BYTES])) is not None:
        end = begin + frame.HEADER_BYTES + size
        is_chunk = data[begin + frame.KIND_AT] == frame.CHUNK and size >= chunk.HEADER_BYTES
        if not is_chunk or end > len(data):
            break
        digest = _digest_in(seed, base + begin, data[begin:end])
        if digest is not None:
            found.append((digest, begin, end))
        begin = end
    return found


def _digest_in(seed: int, offset: int, framed: memoryview) -> bytes | None:
    """Return the digest in the frame of a raw leaf; None where it is none, or not sound."""
    try:
        _, flags, _ = frame.measure_long(seed, offset, framed)
        record = chunk.decode(framed[frame.HEADER_BYTES :], is_copied=False)
    except (FormatError, UnsupportedError):
        return None
    is_raw = (record.codec, record.domain) == (chunk.CODEC_RAW, chunk.LEAF)
    return record.digest if is_raw and not (flags or record.flags) else None
