"""Lines of a pack's index: where frames of chunks lie (specs/pack.md); many of them, packed.

A million lines as tuples take 200 MB, and the garbage collector goes through them; packed 44 MB.
"""

from __future__ import annotations

import struct
from collections.abc import Set as AbstractSet
from itertools import pairwise, starmap
from typing import Final

from ckptlog.kernel import native

LINE: Final = struct.Struct("<32sQI")
"""Digest, offset and length of a frame."""
KEY_BYTES: Final = 16
"""What of a digest is looked for."""
Lines = list[tuple[bytes, int, int]]
"""Digest, offset and length of the frames of chunks."""

# A key's first bytes name its bit in a sieve; with so many bits a key one other in 16 passes.
_SIEVE_KEY_BITS: Final = 16
_SIEVE_BYTES_MAX: Final = 1024 * 1024


def lines_among(body: bytes, keys: AbstractSet[bytes] | None, sieve: bytes = b"") -> Lines:
    """Return the lines of chunks that are asked for, in their order.

    Args:
        body: Whole lines.
        keys: The first 16 bytes of the digests of those to return; None returns all.
        sieve: That of the keys; for who asks often.
    """
    if native is not None:
        return native.lines_among(body, keys, sieve)
    return _lines_among(body, keys)


def _lines_among(body: bytes, keys: AbstractSet[bytes] | None) -> Lines:
    lines: Lines = list(LINE.iter_unpack(body))
    return lines if keys is None else [line for line in lines if line[0][:KEY_BYTES] in keys]


def met_among(body: bytes, keys: AbstractSet[bytes], sieve: bytes) -> tuple[set[bytes], int, int]:
    """Return what `lines_among` would, counted: keys, lines, and bytes of the frames."""
    if native is not None:
        return native.met_among(body, keys, sieve)
    return _met_among(body, keys)


def _met_among(body: bytes, keys: AbstractSet[bytes]) -> tuple[set[bytes], int, int]:
    lines = _lines_among(body, keys)
    met = {digest[:KEY_BYTES] for digest, _, _ in lines}
    return met, len(lines), sum([length for _, _, length in lines])


def sieve_of(keys: AbstractSet[bytes]) -> bytes:
    """Return a table of bits: a key is not among the keys where its bit is 0."""
    size = 1 << (len(keys) * _SIEVE_KEY_BITS // 8).bit_length()
    size = min(size, _SIEVE_BYTES_MAX)
    return native.sieve_of(keys, size) if native is not None else _sieve_of(keys, size)


def _sieve_of(keys: AbstractSet[bytes], size: int) -> bytes:
    bits = bytearray(size)
    for key in keys:
        number = int.from_bytes(key[:4], "little") % (8 * size)
        bits[number >> 3] |= 1 << (number & 7)
    return bytes(bits)


def sorted_lines(lines: Lines) -> bytes:
    """Return lines packed, by digest."""
    return native.sorted_lines(lines) if native is not None else _sorted_lines(lines)


def _sorted_lines(lines: Lines) -> bytes:
    return b"".join(sorted(starmap(LINE.pack, lines)))


def order_of(body: bytes, first: int, stop: int) -> tuple[bool, bool]:
    """Say of whole lines whether each digest is above the one before, and whether all lie inside.

    Args:
        first, stop: Between which offsets the frames lie.
    """
    if native is not None:
        return native.order_of_lines(body, first, stop)
    return _order_of(body, first, stop)


def _order_of(body: bytes, first: int, stop: int) -> tuple[bool, bool]:
    lines: Lines = list(LINE.iter_unpack(body))
    ascends = all(one[0] < other[0] for one, other in pairwise(lines))
    return ascends, all(offset >= first and offset + size <= stop for _, offset, size in lines)
