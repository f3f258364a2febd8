"""The outline of a segment or pack: where its chunks are, going by headers or index lines alone.

Nothing is checked but what the next step needs: that a header can be one of a segment's, and that
its frame ends before the segment does. What is kept of it is checked by who reads it.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from ckptlog.formats import chunk, frame
from ckptlog.kernel import native

KEY_BYTES: Final = 16
"""What of a digest is looked for."""

_LINE: Final = struct.Struct("<32sQI")
_RAW_LENGTH: Final = struct.Struct("<I")
_HEAD_BYTES: Final = frame.HEADER_BYTES + chunk.HEADER_BYTES
_RAW_AT: Final = frame.HEADER_BYTES + chunk.RAW_LENGTH_AT
_DIGEST_END: Final = frame.HEADER_BYTES + chunk.DIGEST_BYTES


class Outline(NamedTuple):
    """A stretch of frames.

    end: Where it ends: behind an event, at the stop, or at what is no frame of a segment.
    chunks, chunk_bytes: How many chunks, and the bytes of their frames.
    kept: Digest, offset and length of the frames of the chunks that were asked for.
    events: Of each event's frame offset and length; the chunks that stand between the event before
    and it, and their bytes before compression.
    """

    end: int
    chunks: int
    chunk_bytes: int
    kept: list[tuple[bytes, int, int]]
    events: list[tuple[int, int, int, int]]


def outline(
    data: bytes | mmap.mmap, at: int, stop: int, keys: AbstractSet[bytes] | None, items_max: int
) -> Outline:
    """Return the outline of the frames from an offset on.

    Args:
        stop: Where the last one ends; not behind the end of data.
        keys: The first 16 bytes of the digests of the chunks to keep; None keeps all.
        items_max: After so many events and kept chunks it ends behind the next event.

    Cost: of a chunk that is not kept a tenth of a microsecond in C; bodies are not touched.
    """
    if native is not None:
        return Outline(*native.outline(data, at, stop, keys, items_max))
    return _outline(data, at, stop, keys, items_max)


def _outline(
    data: bytes | mmap.mmap, at: int, stop: int, keys: AbstractSet[bytes] | None, items_max: int
) -> Outline:
    chunks = chunk_bytes = count = raw_bytes = 0
    kept: list[tuple[bytes, int, int]] = []
    events: list[tuple[int, int, int, int]] = []
    while at < stop:
        head = data[at : at + _HEAD_BYTES]
        size = frame.body_length(head)
        if size is None or size > stop - at - frame.HEADER_BYTES:
            break
        length = frame.HEADER_BYTES + size
        if head[2] == frame.EVENT:
            events.append((at, length, count, raw_bytes))
            count = raw_bytes = 0
        elif head[2] == frame.CHUNK and length >= _HEAD_BYTES:
            chunks += 1
            chunk_bytes += length
            count += 1
            raw_bytes += _RAW_LENGTH.unpack_from(head, _RAW_AT)[0]
            digest = head[frame.HEADER_BYTES : _DIGEST_END]
            if keys is None or digest[:KEY_BYTES] in keys:
                kept.append((digest, at, length))
        else:
            break
        at += length
        if head[2] == frame.EVENT and len(events) + len(kept) >= items_max:
            break
    return Outline(at, chunks, chunk_bytes, kept, events)


def lines_among(body: bytes, keys: AbstractSet[bytes] | None) -> list[tuple[bytes, int, int]]:
    """Return digest, offset and length of the chunks in the body of a pack's index.

    Args:
        body: Whole lines (specs/pack.md).
        keys: The first 16 bytes of the digests of the chunks to return; None returns all.
    """
    if native is not None:
        return native.lines_among(body, keys)
    return _lines_among(body, keys)


def _lines_among(body: bytes, keys: AbstractSet[bytes] | None) -> list[tuple[bytes, int, int]]:
    lines: list[tuple[bytes, int, int]] = list(_LINE.iter_unpack(body))
    return lines if keys is None else [line for line in lines if line[0][:KEY_BYTES] in keys]
