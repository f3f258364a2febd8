"""Relocation: the frames of chunks as they stand in another container.

A frame's sum is bound to its container and offset, so a copy gets a new one; before that the old
one is checked where it stands. Whatever is not a sound, plain chunk of the name that is asked for
is left to the caller: a difference, whose base must come along, or damage, which needs words.
"""

from __future__ import annotations

import mmap
from typing import NamedTuple

from ckptlog.errors import FormatError
from ckptlog.formats import chunk, frame
from ckptlog.kernel import native


class Place(NamedTuple):
    """Where the copies go: the seed of a container, and an offset in it."""

    seed: int
    offset: int


def relocate(
    data: bytes | mmap.mmap,
    base: int,
    lines: list[tuple[bytes, int, int]],
    source: int,
    target: Place,
) -> tuple[bytes, int]:
    """Return the frames of chunks for another place, back to back, and of how many lines.

    It ends before the first line where no sound frame of that chunk stands, or a difference.

    Args:
        base: Offset of data in its container.
        lines: Digest, offset and length of the frames, offsets as in the container.
        source: The seed of that container.

    Cost: in C what copying and twice summing the bytes takes.
    """
    if native is not None:
        return native.relocate(data, base, lines, source, *target)
    return _relocate(data, base, lines, source, target)


def _relocate(
    data: bytes | mmap.mmap,
    base: int,
    lines: list[tuple[bytes, int, int]],
    source: int,
    target: Place,
) -> tuple[bytes, int]:
    frames = bytearray()
    count = 0
    for digest, offset, length in lines:
        begin = offset - base
        if begin < 0 or length < frame.HEADER_BYTES + chunk.HEADER_BYTES:
            break
        piece = data[begin : begin + length]
        try:
            kind, flags, end = frame.measure(source, offset, piece)
        except FormatError:
            break
        record = piece[frame.HEADER_BYTES :]
        if (kind, flags, end) != (frame.CHUNK, 0, length) or not record.startswith(digest):
            break
        if chunk.base_in(record):
            break
        frames += frame.encode(target.seed, target.offset + len(frames), kind, 0, record)
        count += 1
    return bytes(frames), count
