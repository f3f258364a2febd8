"""The settled segment: a segment's events without the chunks that came with them, compressed.

    log/<first>.<generation>.set := header frame, block frames, index frame, trailer frame

The header is the segment's own (formats.segment), byte for byte but for its checksum. A block holds
the frames of some events as they stood in the segment, with their offsets, so that every place in
the segment that anybody remembers stays right (specs/settled.md).

Block body: start (u64) of its first event's frame and stop (u64), the end of its last, in the
segment; count (u32) of events; raw length (u32); then zstd of a table of one row for each event
(gap u32: bytes of chunks' frames before it; length u32 of its frame; chunks u32 that came with it;
raw u64: their bytes before compression) and of the frames behind one another.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

import zstandard

from ckptlog.errors import FormatError
from ckptlog.formats import event, frame
from ckptlog.formats.segment import HEADER_FRAME_BYTES, SegmentHeader, decode_body, encode_body

SUFFIX: Final = ".set"
# What a block may claim: enough for the events of one commit frame above the usual size.
BLOCK_RAW_BYTES_MAX: Final = 1024 * 1024
BLOCKS_MAX: Final = 1_000_000
_LEVEL: Final = 9
_NAME: Final = re.compile(r"([0-9]{20})\.(0|[1-9][0-9]{0,8})\.set")
_HEAD: Final = struct.Struct("<QQII")
_ROW: Final = struct.Struct("<IIIQ")
_LINE: Final = struct.Struct("<QQQI")
_TRAILER: Final = struct.Struct("<QQQQ")
TRAILER_FRAME_BYTES: Final = frame.HEADER_BYTES + _TRAILER.size
BODY_BYTES_MIN: Final = _HEAD.size
_FRAME_BYTES_MAX: Final = frame.HEADER_BYTES + event.PREFIX_BYTES + event.ENTRY_BYTES_MAX


class Row(NamedTuple):
    """One event of a block: where its frame stood, its bytes, and what came with it.

    chunks, raw_bytes: Number of chunks that stood before it, and their bytes before compression.
    """

    offset: int
    data: bytes
    chunks: int
    raw_bytes: int


class Line(NamedTuple):
    """One line of the index: what a block spans in the segment, and where its frame lies here."""

    start: int
    stop: int
    offset: int
    length: int


class Trailer(NamedTuple):
    """The last frame: where the index is, its lines, the segment's valid length, events."""

    index_at: int
    blocks: int
    valid_length: int
    events: int


def settled_name(first: int, generation: int) -> str:
    """Return the file name of a settled segment."""
    return f"{first:020d}.{generation}{SUFFIX}"


def parse_name(name: str) -> tuple[int, int] | None:
    """Return (first, generation) of a settled segment's file name, None for any other name."""
    match = _NAME.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else None


def seed(store_id: bytes, first: int, generation: int) -> int:
    """Return the checksum seed of a settled segment."""
    return frame.container_seed(store_id, settled_name(first, generation))


def encode_header(header: SegmentHeader) -> bytes:
    """Return the header's frame, to stand at offset 0."""
    place = seed(header.store_id, header.first, header.generation)
    return frame.encode(place, 0, frame.SEGMENT, 0, encode_body(header))


def decode_header(
    store_id: bytes, first: int, generation: int, data: bytes | memoryview
) -> SegmentHeader:
    """Return the header at the start of a settled segment's bytes.

    Raises:
        UnsupportedError: A newer version wrote it.
        FormatError: It is not the header of the segment of that name.
    """
    return decode_body(
        store_id, first, generation, frame.decode(seed(store_id, first, generation), 0, data)
    )


def encode_block(place: int, offset: int, start: int, rows: Iterable[Row]) -> tuple[bytes, int]:
    """Return a block's frame, to stand at `offset`, and where its last event ended.

    Args:
        start: Where the block begins in the segment: the end of the event before it.
        rows: In order.
    """
    at, count = start, 0
    table, frames = bytearray(), bytearray()
    for row in rows:
        try:
            table += _ROW.pack(row.offset - at, len(row.data), row.chunks, row.raw_bytes)
        except struct.error as error:
            raise FormatError(f"No event is at offset {row.offset} behind {at}.") from error
        frames += row.data
        at = row.offset + len(row.data)
        count += 1
    raw = bytes(table + frames)
    if not count or len(raw) > BLOCK_RAW_BYTES_MAX:
        raise FormatError(f"No block has {count} events and {len(raw)} bytes.")
    body = _HEAD.pack(start, at, count, len(raw)) + zstandard.compress(raw, _LEVEL)
    return frame.encode(place, offset, frame.BLOCK, 0, body), at


def decode_block(place: int, line: Line, data: bytes | memoryview) -> list[Row]:
    """Return the events of the block that a line of the index names.

    Raises:
        FormatError: It is damaged, or not what the line says.
    """
    checked = frame.decode(place, line.offset, data)
    body = bytes(checked.body)
    if checked.kind != frame.BLOCK or checked.offset_end != line.offset + line.length:
        raise FormatError("Another frame stands where a block should.")
    if body_span(body) != (line.start, line.stop):
        raise FormatError("A block does not agree with the index.")
    return body_rows(body)


def body_span(body: bytes) -> tuple[int, int]:
    """Return where the events of a block's body begin and end in the segment."""
    if len(body) < BODY_BYTES_MIN:
        raise FormatError("A block is too short.")
    start, stop, _, _ = _HEAD.unpack_from(body)
    return start, stop


def body_rows(body: bytes) -> list[Row]:
    """Return the events of a block's checked body; see `decode_block`."""
    start, stop = body_span(body)
    _, _, count, size = _HEAD.unpack_from(body)
    if size > BLOCK_RAW_BYTES_MAX:
        raise FormatError("A block does not agree with the index.")
    raw = _decompress(body[_HEAD.size :], size)
    if len(raw) != size or count * _ROW.size > size:
        raise FormatError("A block has another length than it says.")
    return _rows(raw, start, stop, count)


def _decompress(packed: bytes, size: int) -> bytes:
    try:
        # What the frame itself says is what the library would allocate, whatever we say.
        if zstandard.get_frame_parameters(packed).content_size != size:
            raise FormatError("A block cannot be decompressed: it says another length.")
        return zstandard.ZstdDecompressor().decompress(
            packed, max_output_size=size, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise FormatError(f"A block cannot be decompressed: {error}") from error


def _rows(raw: bytes, start: int, stop: int, count: int) -> list[Row]:
    rows = []
    at, begin = start, count * _ROW.size
    for gap, length, chunks, raw_bytes in _ROW.iter_unpack(raw[:begin]):
        at += gap
        if not frame.HEADER_BYTES < length <= _FRAME_BYTES_MAX:
            raise FormatError(f"A block has an event of {length} bytes.")
        rows.append(Row(at, raw[begin : begin + length], chunks, raw_bytes))
        at, begin = at + length, begin + length
    if at != stop or begin != len(raw) or not rows:
        raise FormatError("The events of a block do not fill it.")
    return rows


def encode_end(
    place: int, offset: int, lines: list[Line], *, valid_length: int, events: int
) -> bytes:
    """Return index and trailer frames, to stand at `offset`."""
    _check_lines(lines, offset, valid_length)
    body = b"".join(_LINE.pack(*line) for line in lines)
    index = frame.encode(place, offset, frame.BLOCK_INDEX, 0, body)
    trailer = _TRAILER.pack(offset, len(lines), valid_length, events)
    return index + frame.encode(place, offset + len(index), frame.BLOCK_TRAILER, 0, trailer)


def decode_trailer(place: int, size: int, data: bytes | memoryview) -> Trailer:
    """Return what the last frame of a file of `size` bytes says."""
    if size < TRAILER_FRAME_BYTES:
        raise FormatError(f"{size} bytes are too short for a settled segment.")
    checked = frame.decode(place, size - TRAILER_FRAME_BYTES, data)
    if checked.kind != frame.BLOCK_TRAILER or len(checked.body) != _TRAILER.size:
        raise FormatError("The last frame of a settled segment is not its trailer.")
    found = Trailer(*_TRAILER.unpack(checked.body))
    length = frame.HEADER_BYTES + found.blocks * _LINE.size
    if found.blocks > BLOCKS_MAX or found.index_at + length != size - TRAILER_FRAME_BYTES:
        raise FormatError("A settled segment's trailer does not agree with the file's size.")
    return found


def decode_index(place: int, trailer: Trailer, data: bytes | memoryview) -> list[Line]:
    """Return the lines of the index, checked."""
    checked = frame.decode(place, trailer.index_at, data)
    if checked.kind != frame.BLOCK_INDEX or len(checked.body) != trailer.blocks * _LINE.size:
        raise FormatError("A settled segment's index is malformed.")
    lines = [Line(*fields) for fields in _LINE.iter_unpack(checked.body)]
    _check_lines(lines, trailer.index_at, trailer.valid_length)
    return lines


def _check_lines(lines: list[Line], limit: int, valid_length: int) -> None:
    at = offset = HEADER_FRAME_BYTES
    for line in lines:
        if line.start != at or not line.start < line.stop <= valid_length:
            raise FormatError("The blocks of a settled segment do not follow each other.")
        if line.offset != offset or line.length <= frame.HEADER_BYTES:
            raise FormatError("The index of a settled segment names other bytes than its blocks.")
        at, offset = line.stop, line.offset + line.length
    if offset != limit or at != valid_length:
        raise FormatError("The blocks of a settled segment do not fill it.")
