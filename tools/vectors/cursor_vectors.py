"""Vectors of a consumer's cursor."""

from __future__ import annotations

import struct
from typing import Final

from xxhash import xxh3_64_intdigest

from ckptlog.formats import cursor
from ckptlog.formats.cursor import CursorRecord
from ckptlog.model.cursor import BEGINNING, Cursor
from tools.vectors.vector import LEAF, STORE_ID, Document, flipped, good, refusals

PLACE: Final = Cursor(43, LEAF, "log/00000000000000000042.1.seg", 4096)


def cursors() -> dict[str, Document]:
    """Vectors of one record."""
    made = CursorRecord(STORE_ID, "mailer", 7, PLACE, 1_700_000_000_123_456)
    start = CursorRecord(STORE_ID, "a", 1, BEGINNING, 0)
    named = CursorRecord(STORE_ID, "Größe 🚀/..", 2, Cursor(9, LEAF), 0)
    longest = CursorRecord(STORE_ID, "🚀" * 200, 2**64 - 1, PLACE, 2**64 - 1)
    data, begin = cursor.encode(made), cursor.encode(start)

    def sealed(at: int, with_: bytes) -> bytes:
        fields = data[:at] + with_ + data[at + len(with_) : -8]
        return fields + struct.pack("<Q", xxh3_64_intdigest(fields))

    return {
        "good-later": good("Behind event 42.", data, made),
        "good-beginning": good("At the beginning.", begin, start),
        "good-name": good("A name of any script.", cursor.encode(named), named),
        "good-longest": good("The longest name.", cursor.encode(longest), longest),
        **refusals(
            {
                "bad-magic": ("Another version.", sealed(7, b"2"), "magic"),
                "bad-cut": ("Cut.", data[:-1], "1024 bytes"),
                "bad-appended": ("Too long.", data + b"\x00", "1024 bytes"),
                "bad-nothing": ("Nothing.", b"", "1024 bytes"),
                "bad-zeros": ("Never written.", bytes(cursor.BYTES), "magic"),
                "bad-torn": ("Half old, half new.", data[:80] + begin[80:], "checksum"),
                "bad-checksum": ("A bit of the sum.", flipped(data, 1023), "checksum"),
                "bad-serial": ("Serial 0.", sealed(24, bytes(8)), "serial"),
                "bad-nameless": ("No name.", sealed(136, bytes(2)), "name"),
                "bad-name-long": ("A name of 801.", sealed(136, b"\x21\x03"), "name"),
                "bad-name-cut": ("More than the name.", sealed(136, b"\x05\x00"), "reserved"),
                "bad-name-text": ("A name of no text.", sealed(138, b"\xff"), "no text"),
                "bad-container": ("A container of no text.", sealed(80, b"\xff"), "no text"),
                "bad-reserved": ("Reserved bytes.", sealed(1015, b"\x01"), "reserved"),
            }
        ),
    }
