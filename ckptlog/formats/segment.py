"""The segment's name and header (specs/segment.md).

A segment is `log/<first>.<generation>.seg`: frames, the first of which is the header. The header
says where the log ended before this segment: the segment before it, how many of that one's bytes
are valid, and the leaf hash of the last event. What lies beyond the valid length is dead.
"""

from __future__ import annotations

import re
import struct
from typing import Final

import msgspec

from ckptlog.errors import FormatError, UnsupportedError
from ckptlog.formats import frame

VERSION: Final = 1
_HEADER = struct.Struct("<HH16sQIQIQ32sQ")
HEADER_FRAME_BYTES: Final = frame.HEADER_BYTES + _HEADER.size
# One name for each segment: ASCII digits, and no leading zero in the generation.
_NAME = re.compile(r"([0-9]{20})\.(0|[1-9][0-9]{0,8})\.seg")


class SegmentHeader(msgspec.Struct, frozen=True, gc=False):
    """What the first frame of a segment says.

    store_id: 16 bytes.
    first: Position of the first event in the segment.
    generation: Tells segments with the same first position apart; the highest counts.
    previous_first, previous_generation: The segment before it; both 0 where there is none.
    previous_length: That segment's valid bytes; 0 where there is none.
    leaf: Leaf hash of event first - 1; 32 zero bytes where there is none.
    created_us: Unix time in microseconds.
    """

    store_id: bytes
    first: int
    generation: int
    previous_first: int
    previous_generation: int
    previous_length: int
    leaf: bytes
    created_us: int


def segment_name(first: int, generation: int) -> str:
    """Return the file name of a segment."""
    return f"{first:020d}.{generation}.seg"


def parse_name(name: str) -> tuple[int, int] | None:
    """Return (first, generation) of a segment's file name, None for any other name."""
    match = _NAME.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else None


def seed(store_id: bytes, first: int, generation: int) -> int:
    """Return the checksum seed of a segment."""
    return frame.container_seed(store_id, segment_name(first, generation))


def encode(header: SegmentHeader) -> bytes:
    """Return the header's frame, to stand at offset 0."""
    place = seed(header.store_id, header.first, header.generation)
    return frame.encode(place, 0, frame.SEGMENT, 0, encode_body(header))


def encode_body(header: SegmentHeader) -> bytes:
    """Return what the header's frame holds."""
    if (len(header.store_id), len(header.leaf)) != (16, 32):
        raise FormatError("A segment's header needs a store id of 16 bytes and a hash of 32.")
    return _HEADER.pack(
        VERSION,
        0,
        header.store_id,
        header.first,
        header.generation,
        header.previous_first,
        header.previous_generation,
        header.previous_length,
        header.leaf,
        header.created_us,
    )


def decode(store_id: bytes, first: int, generation: int, data: bytes | memoryview) -> SegmentHeader:
    """Return the header at the start of a segment's bytes.

    Raises:
        UnsupportedError: A newer version wrote it.
        FormatError: It is not this segment's header.
    """
    checked = frame.decode(seed(store_id, first, generation), 0, data)
    return decode_body(store_id, first, generation, checked)


def decode_body(
    store_id: bytes, first: int, generation: int, checked: frame.Frame
) -> SegmentHeader:
    """Return the header that a checked frame holds; errors are those of `decode`."""
    if checked.kind != frame.SEGMENT or len(checked.body) < 2:
        raise FormatError("The first frame of a segment is not its header.")
    (version,) = struct.unpack_from("<H", checked.body)
    if version > VERSION:
        raise UnsupportedError(
            f"Segment format {version} is newer than {VERSION}.", hint="Install a newer ckptlog."
        )
    if version != VERSION or len(checked.body) != _HEADER.size:
        raise FormatError("A segment's header has the wrong length or version.")
    _, reserved, *fields = _HEADER.unpack(checked.body)
    header = SegmentHeader(*fields)
    if reserved:
        raise FormatError("A segment's header has something in its reserved bytes.")
    if (header.store_id, header.first, header.generation) != (store_id, first, generation):
        raise FormatError("A segment's header does not match its name or store.")
    return header
