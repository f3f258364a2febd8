"""Tiles: how a log is published as files that never change (C2SP tlog-tiles).

    tile/<L>/<N>[.p/<W>]          W hashes of 32 bytes, 256 where there is no `.p`
    tile/entries/<N>[.p/<W>]      the same entries, each behind its length (16 bits, big-endian)

Hash i of tile N at level L is the root over the 256**L leaves from (256 * N + i) * 256**L on.
N is written in groups of three digits, all but the last behind an `x`: 1234067 is x001/x234/067.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from ckptlog.errors import FormatError
from ckptlog.formats.event import ENTRY_BYTES_MAX
from ckptlog.formats.merkle import HASH_BYTES

WIDTH: Final = 256
HEIGHT: Final = 8
LEVEL_MAX: Final = 7

_LENGTH_BYTES = 2


def number_path(number: int) -> str:
    """Return a tile's number as it stands in its path."""
    groups = [f"{number % 1000:03d}"]
    while number >= 1000:
        number //= 1000
        groups.append(f"x{number % 1000:03d}")
    return "/".join(reversed(groups))


def tile_path(level: int | str, number: int, width: int = WIDTH) -> str:
    """Return the path of a tile of hashes; of entries where level is "entries"."""
    partial = "" if width == WIDTH else f".p/{width}"
    return f"tile/{level}/{number_path(number)}{partial}"


def levels(size: int) -> Iterator[tuple[int, int]]:
    """Yield (level, hashes at that level) of a tree, from the leaves up, as far as there are."""
    for level in range(LEVEL_MAX + 1):
        count = size >> (HEIGHT * level)
        if not count:
            return
        yield level, count


def encode_entries(entries: Sequence[bytes]) -> bytes:
    """Return a tile of entries.

    Raises:
        FormatError: There are more than 256, or one is too long.
    """
    if not 0 < len(entries) <= WIDTH:
        raise FormatError(f"A tile of {len(entries)} entries cannot be.")
    parts = []
    for entry in entries:
        if len(entry) > ENTRY_BYTES_MAX:
            raise FormatError(f"An entry of {len(entry)} bytes is over {ENTRY_BYTES_MAX}.")
        parts += [len(entry).to_bytes(_LENGTH_BYTES, "big"), entry]
    return b"".join(parts)


def decode_entries(data: bytes) -> list[bytes]:
    """Return the entries of a tile.

    Raises:
        FormatError: It is none.
    """
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        stop = at + _LENGTH_BYTES + int.from_bytes(data[at : at + _LENGTH_BYTES], "big")
        if at + _LENGTH_BYTES > len(data) or stop > len(data) or len(entries) == WIDTH:
            raise FormatError(f"A tile of entries is cut, or has more than {WIDTH}.")
        entries.append(data[at + _LENGTH_BYTES : stop])
        at = stop
    if not entries:
        raise FormatError("A tile of entries is empty.")
    return entries


def decode_hashes(data: bytes) -> list[bytes]:
    """Return the hashes of a tile.

    Raises:
        FormatError: It is none.
    """
    count, rest = divmod(len(data), HASH_BYTES)
    if rest or not 0 < count <= WIDTH:
        raise FormatError(f"A tile of {len(data)} bytes cannot be.")
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]
