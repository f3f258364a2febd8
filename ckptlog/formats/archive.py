"""The archive's bytes: tasks of a store in one file, with what proves where they come from.

    magic, HEAD, TASK.., [NOTE], (EVNT | SKIP).., CHNK.., LACK.., DONE

Each record has a tag, a length and a checksum that is bound to its offset. Limits are checked
before anything is allocated. Page: specs/archive.md.
"""

from __future__ import annotations

import re
import struct
from typing import Final

import msgspec
from xxhash import xxh3_64_intdigest

from ckptlog.errors import FormatError, UnsupportedError
from ckptlog.formats import chunk, event
from ckptlog.formats.merkle import HASH_BYTES
from ckptlog.formats.stretch import widths

MAGIC: Final = b"CKPTARC1"
FORMAT: Final = 1
KIND: Final = "ckptlog-archive"

HEAD: Final = b"HEAD"
TASK: Final = b"TASK"
NOTE: Final = b"NOTE"
EVENT: Final = b"EVNT"
SKIP: Final = b"SKIP"
CHUNK: Final = b"CHNK"
LACK: Final = b"LACK"
DONE: Final = b"DONE"

LIMITS: Final = {
    HEAD: 4 * 1024,
    TASK: 1024,
    NOTE: 64 * 1024,
    EVENT: 8 + event.ENTRY_BYTES_MAX,
    SKIP: 4 * 1024,
    CHUNK: chunk.HEADER_BYTES + chunk.RAW_BYTES_MAX,
    LACK: 32 * 1024,
    DONE: 88,
}
HEADER_BYTES: Final = 16
TASKS_MAX: Final = 1_000_000
_HEADER = struct.Struct("<4sIQ")
_BOUND = struct.Struct("<Q4sI")
_POSITION = struct.Struct("<Q")
_STRETCH = struct.Struct("<QQ")
_DONE = struct.Struct("<QQQ32s32s")
_ID = re.compile("[0-9a-f]{32}")
_encoder = msgspec.json.Encoder(order="deterministic")


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the archive is. size: Events in the log that it is proven to be of."""

    created: str
    format: int
    kind: str
    size: int
    store: str
    tasks: int


class Done(msgspec.Struct, frozen=True):
    """What the archive holds, and its hashes: of the log's tree, and of the file up to here."""

    events: int
    chunks: int
    lacks: int
    root: bytes
    blake3: bytes


class _Mark(msgspec.Struct):
    format: int
    kind: str


def encode(tag: bytes, offset: int, body: bytes) -> bytes:
    """Return a record to stand at an offset of the file."""
    if len(body) > LIMITS[tag]:
        raise FormatError(f"A {tag.decode()} of {len(body)} bytes is over {LIMITS[tag]}.")
    return _HEADER.pack(tag, len(body), _sum(offset, tag, body)) + body


def _sum(offset: int, tag: bytes, body: bytes) -> int:
    return xxh3_64_intdigest(_BOUND.pack(offset, tag, len(body)) + body)


def decode_header(data: bytes, offset: int) -> tuple[bytes, int]:
    """Return the tag and the length of the record at an offset; its sum is not checked yet.

    Raises:
        UnsupportedError: A newer version wrote it.
        FormatError: No record begins here, or it claims too much.
    """
    if len(data) < HEADER_BYTES:
        raise _at(offset, "the file ends in a record")
    tag, length, _ = _HEADER.unpack_from(data)
    limit = LIMITS.get(tag)
    if limit is None:
        if tag.isalpha() and tag.isupper() and tag.isascii():
            raise UnsupportedError(
                f"The archive has a record {tag.decode()} that this version does not know.",
                hint="Install a newer ckptlog.",
            )
        raise _at(offset, "no record begins here")
    if length > limit:
        raise _at(offset, f"a {tag.decode()} claims {length} bytes; {limit} are allowed")
    return tag, length


def check(data: bytes, offset: int) -> None:
    """Refuse a whole record, header and all, whose sum is wrong."""
    tag, _, sum_ = _HEADER.unpack_from(data)
    if sum_ != _sum(offset, tag, data[HEADER_BYTES:]):
        raise _at(offset, f"the checksum of the {tag.decode()} is wrong")


def _at(offset: int, why: str) -> FormatError:
    return FormatError(
        f"The archive is damaged at offset {offset}: {why}.",
        hint="Take another copy of the file, or export the tasks again.",
        offset=offset,
    )


def encode_head(head: Head) -> bytes:
    """Return the body of a HEAD."""
    return _encoder.encode(head)


def decode_head(body: bytes) -> Head:
    """Return what a HEAD says.

    Raises:
        UnsupportedError: A newer version wrote it.
        FormatError: It is none.
    """
    try:
        mark = msgspec.json.decode(body, type=_Mark)
        if mark.kind == KIND and mark.format > FORMAT:
            raise UnsupportedError(
                f"The archive has format {mark.format}; this version knows {FORMAT}.",
                hint="Install a newer ckptlog.",
            )
        head = msgspec.json.decode(body, type=Head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"The archive's head cannot be read: {error}") from error
    is_sound = head.kind == KIND and head.format == FORMAT and bool(_ID.fullmatch(head.store))
    is_sound = is_sound and 0 <= head.size < 2**53 and 1 <= head.tasks <= TASKS_MAX
    if not is_sound or encode_head(head) != body:
        raise FormatError("The archive's head says what no archive's head says.")
    return head


def encode_event(position: int, entry: bytes) -> bytes:
    """Return the body of an EVNT."""
    return _POSITION.pack(position) + entry


def decode_event(body: bytes) -> tuple[int, bytes]:
    """Return position and entry of an EVNT."""
    if len(body) < _POSITION.size:
        raise FormatError(f"An event record of {len(body)} bytes is too short.")
    return _POSITION.unpack_from(body)[0], body[_POSITION.size :]


def encode_skip(start: int, stop: int, hashes: list[bytes]) -> bytes:
    """Return the body of a SKIP."""
    return _STRETCH.pack(start, stop) + b"".join(hashes)


def decode_skip(body: bytes) -> tuple[int, int, list[tuple[int, bytes]]]:
    """Return start, stop, and width and hash of each subtree of a SKIP."""
    if len(body) < _STRETCH.size:
        raise FormatError(f"A skip of {len(body)} bytes is too short.")
    start, stop = _STRETCH.unpack_from(body)
    if not start < stop < 2**53:
        raise FormatError(f"A skip from {start} to {stop} skips nothing, or too much.")
    wide = list(widths(start, stop))
    if len(body) != _STRETCH.size + HASH_BYTES * len(wide):
        raise FormatError(f"A skip from {start} to {stop} has not {len(wide)} hashes.")
    hashes = (body[at : at + HASH_BYTES] for at in range(_STRETCH.size, len(body), HASH_BYTES))
    return start, stop, list(zip(wide, hashes, strict=True))


def decode_lack(body: bytes) -> list[bytes]:
    """Return the digests of a LACK."""
    if not body or len(body) % HASH_BYTES:
        raise FormatError(f"A list of digests of {len(body)} bytes is none.")
    return [body[at : at + HASH_BYTES] for at in range(0, len(body), HASH_BYTES)]


def encode_done(done: Done) -> bytes:
    """Return the body of a DONE."""
    return _DONE.pack(done.events, done.chunks, done.lacks, done.root, done.blake3)


def decode_done(body: bytes) -> Done:
    """Return what a DONE says."""
    if len(body) != _DONE.size:
        raise FormatError(f"A DONE of {len(body)} bytes is none.")
    return Done(*_DONE.unpack(body))
