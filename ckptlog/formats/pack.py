"""The pack: chunks outside the log, written whole and never changed (specs/pack.md).

    packs/<base>-<id>.pack := header frame, chunk frames, index frame, trailer frame

The header frame (kind PACK) holds version (u16), two zero bytes, store id (16), pack id (16) and
base (u64): the log position at which the pack's preparation began, which lets collection tell an
orphan from an upload in flight. The index frame (kind PACK_INDEX) holds, sorted by digest, for
each chunk: digest (32), offset (u64) and length (u32) of its frame. The trailer frame (kind
PACK_TRAILER) is the last 32 bytes of the file: offset of the index (u64) and count (u64).
A pack counts only once a commit's event registers it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from typing import Final

import msgspec

from ckptlog.errors import FormatError, UnsupportedError
from ckptlog.formats import frame
from ckptlog.formats.line import LINE, lines_among, order_of, sorted_lines

VERSION: Final = 1
CHUNKS_MAX: Final = 1_000_000
_HEADER = struct.Struct("<HH16s16sQ")
_TRAILER = struct.Struct("<QQ")
TRAILER_FRAME_BYTES: Final = frame.HEADER_BYTES + _TRAILER.size
HEADER_FRAME_BYTES: Final = frame.HEADER_BYTES + _HEADER.size
_NAME = re.compile(r"([0-9]{20})-([0-9a-f]{32})\.pack")


class PackHeader(msgspec.Struct, frozen=True, gc=False):
    """What the first frame of a pack says."""

    store_id: bytes
    pack_id: bytes
    base: int


class PackedChunk(msgspec.Struct, frozen=True, gc=False):
    """One line of a pack's index: where the chunk's frame lies."""

    digest: bytes
    offset: int
    length: int


def pack_name(base: int, pack_id: bytes) -> str:
    """Return the file name of a pack."""
    return f"{base:020d}-{pack_id.hex()}.pack"


def parse_name(name: str) -> tuple[int, bytes] | None:
    """Return (base, pack id) of a pack's file name, None for any other name."""
    match = _NAME.fullmatch(name)
    return (int(match[1]), bytes.fromhex(match[2])) if match else None


def seed(store_id: bytes, base: int, pack_id: bytes) -> int:
    """Return the checksum seed of a pack."""
    return frame.container_seed(store_id, pack_name(base, pack_id))


def encode_header(header: PackHeader) -> bytes:
    """Return the header's frame, to stand at offset 0."""
    if (len(header.store_id), len(header.pack_id)) != (16, 16):
        raise FormatError("A pack's header needs ids of 16 bytes.")
    body = _HEADER.pack(VERSION, 0, header.store_id, header.pack_id, header.base)
    place = seed(header.store_id, header.base, header.pack_id)
    return frame.encode(place, 0, frame.PACK, 0, body)


def decode_header(store_id: bytes, name: str, data: bytes | memoryview) -> PackHeader:
    """Return the header at the start of a pack's bytes.

    Raises:
        UnsupportedError: A newer version wrote it.
        FormatError: It is not the header of the pack of that name.
    """
    parsed = parse_name(name)
    if parsed is None:
        raise FormatError(f"{name!r} is not the name of a pack.")
    base, pack_id = parsed
    checked = frame.decode(seed(store_id, base, pack_id), 0, data)
    if checked.kind != frame.PACK or len(checked.body) < 2:
        raise FormatError("The first frame of a pack is not its header.")
    (version,) = struct.unpack_from("<H", checked.body)
    if version > VERSION:
        raise UnsupportedError(
            f"Pack format {version} is newer than {VERSION}.", hint="Install a newer ckptlog."
        )
    if version != VERSION or len(checked.body) != _HEADER.size:
        raise FormatError("A pack's header has the wrong length or version.")
    _, reserved, owner, own_id, own_base = _HEADER.unpack(checked.body)
    if (reserved, owner, own_id, own_base) != (0, store_id, pack_id, base):
        raise FormatError("A pack's header does not match its name or store.")
    return PackHeader(owner, own_id, own_base)


def encode_index(place: int, offset: int, chunks: Iterable[PackedChunk]) -> bytes:
    """Return index and trailer frames, to stand at `offset`; place is the pack's seed."""
    return encode_lines(place, offset, [(one.digest, one.offset, one.length) for one in chunks])


def encode_lines(place: int, offset: int, lines: list[tuple[bytes, int, int]]) -> bytes:
    """Do the same from tuples of digest, offset and length."""
    body = sorted_lines(lines)
    _check_lines(body, offset)
    index = frame.encode(place, offset, frame.PACK_INDEX, 0, body)
    trailer = _TRAILER.pack(offset, len(lines))
    return index + frame.encode(place, offset + len(index), frame.PACK_TRAILER, 0, trailer)


def decode_trailer(place: int, size: int, data: bytes | memoryview) -> tuple[int, int]:
    """Return (offset of the index, chunks) from a pack's last 32 bytes; size is the file's."""
    if size < HEADER_FRAME_BYTES + TRAILER_FRAME_BYTES:
        raise FormatError(f"A file of {size} bytes is too short for a pack.")
    checked = frame.decode(place, size - TRAILER_FRAME_BYTES, data)
    if checked.kind != frame.PACK_TRAILER or len(checked.body) != _TRAILER.size:
        raise FormatError("The last frame of a pack is not its trailer.")
    offset, count = _TRAILER.unpack(checked.body)
    if count > CHUNKS_MAX or offset + frame.HEADER_BYTES + count * LINE.size != (
        size - TRAILER_FRAME_BYTES
    ):
        raise FormatError("A pack's trailer does not agree with the file's size.")
    return offset, count


def decode_index(place: int, offset: int, data: bytes | memoryview) -> list[PackedChunk]:
    """Return the lines of the index frame that stands at `offset`, checked and sorted."""
    return [PackedChunk(*fields) for fields in decode_lines(place, offset, data)]


def decode_lines(place: int, offset: int, data: bytes | memoryview) -> list[tuple[bytes, int, int]]:
    """Return the same as tuples of digest, offset and length: for who reads a million."""
    return lines_among(decode_body(place, offset, data), None)


def decode_body(place: int, offset: int, data: bytes | memoryview) -> bytes:
    """Return the same packed (formats.line)."""
    checked = frame.decode(place, offset, data)
    if checked.kind != frame.PACK_INDEX or len(checked.body) % LINE.size:
        raise FormatError("A pack's index frame is malformed.")
    body = bytes(checked.body)
    _check_lines(body, offset)
    return body


def _check_lines(body: bytes, offset: int) -> None:
    count = len(body) // LINE.size
    if count > CHUNKS_MAX:
        raise FormatError(f"A pack has {count} chunks; {CHUNKS_MAX} are allowed.")
    ascends, is_inside = order_of(body, HEADER_FRAME_BYTES, offset)
    if not ascends:
        raise FormatError("A pack's index is not sorted, or names a chunk twice.")
    if not is_inside:
        raise FormatError("A pack's index names bytes outside of its chunks.")
