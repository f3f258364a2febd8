"""A consumer's durable cursor (specs/cursor.md): one record of 1,024 bytes, kept in two slots.

    offset  size  field
    0       8     magic "CKPTCUR1"
    8       16    store id
    24      8     serial: one more with each record that was written
    32      8     position of the next event to deliver
    40      32    leaf hash of the event before it (zeros at position 0)
    72      8     offset of the first byte after that event's frame
    80      48    container of that frame, ASCII, zeros behind it
    128     8     Unix time of writing, microseconds; for people
    136     2     length of the consumer's name in bytes
    138     800   its name, UTF-8, zeros behind it
    938     78    zero
    1016    8     checksum: xxh3-64 of bytes 0..1016, seed 0

A new record goes to the slot that the newest one is not in, so a torn write leaves the older one.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec
from xxhash import xxh3_64_intdigest

from ckptlog.errors import FormatError
from ckptlog.model.cursor import Cursor

MAGIC: Final = b"CKPTCUR1"
BYTES: Final = 1024
# Slots lie in different blocks of any file system.
SLOT_BYTES: Final = 4096
SLOTS: Final = 2
FILE_BYTES: Final = SLOTS * SLOT_BYTES
NAME_BYTES_MAX: Final = 800
_FIELDS = struct.Struct("<8s16sQQ32sQ48sQH800s78s")
_CHECKSUM = struct.Struct("<Q")


class CursorRecord(msgspec.Struct, frozen=True, gc=False):
    """How far a consumer of a store has acknowledged.

    store_id: 16 bytes. name: Of the consumer. serial: Tells two records apart; from 1.
    time_us: When it was written; no decision rests on it.
    """

    store_id: bytes
    name: str
    serial: int
    cursor: Cursor
    time_us: int


def encode(record: CursorRecord) -> bytes:
    """Return the bytes of a record.

    Raises:
        FormatError: A field does not fit.
    """
    cursor, name = record.cursor, record.name.encode()
    container = cursor.container.encode("ascii", errors="replace")
    if (len(record.store_id), len(cursor.leaf)) != (16, 32):
        raise FormatError("A cursor needs a store id of 16 bytes and a hash of 32.")
    if not 0 < len(name) <= NAME_BYTES_MAX or len(container) > 48:
        raise FormatError("The name of a consumer or of a container is empty or too long.")
    fields = _FIELDS.pack(
        MAGIC,
        record.store_id,
        record.serial,
        cursor.position,
        cursor.leaf,
        cursor.offset,
        container,
        record.time_us,
        len(name),
        name,
        b"",
    )
    return fields + _CHECKSUM.pack(xxh3_64_intdigest(fields))


def decode(data: bytes) -> CursorRecord:
    """Return the record.

    Raises:
        FormatError: It is torn, damaged, or no record.
    """
    if len(data) != BYTES or data[:8] != MAGIC:
        raise FormatError("A cursor is not 1024 bytes with its magic.")
    if xxh3_64_intdigest(data[:-8]) != _CHECKSUM.unpack(data[-8:])[0]:
        raise FormatError("The checksum of a cursor is wrong.")
    fields = _FIELDS.unpack(data[:-8])
    _, store_id, serial, position, leaf, offset, container, time_us, length, name, zeros = fields
    if not 0 < length <= NAME_BYTES_MAX or serial == 0:
        raise FormatError("A cursor has no name, or no serial.")
    if any(zeros) or any(name[length:]):
        raise FormatError("A cursor has something in its reserved bytes.")
    place = container.rstrip(b"\0")
    try:
        cursor = Cursor(position, leaf, place.decode("ascii"), offset)
        return CursorRecord(store_id, name[:length].decode(), serial, cursor, time_us)
    except UnicodeDecodeError as error:
        raise FormatError(f"A name in a cursor is no text: {error}") from error


def newest(data: bytes) -> CursorRecord | None:
    """Return the record with the highest serial in a file's bytes; None where none is whole."""
    best = None
    for slot in range(SLOTS):
        begin = slot * SLOT_BYTES
        try:
            record = decode(data[begin : begin + BYTES])
        except FormatError:
            continue
        if best is None or record.serial > best.serial:
            best = record
    return best


def slot_of(serial: int) -> int:
    """Return where in the file a record with this serial is written."""
    return serial % SLOTS * SLOT_BYTES
