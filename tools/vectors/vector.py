"""What a golden vector is: bytes, what the decoder is told besides, and what must come out.

about        what it shows
context      what the decoder is told besides the bytes (store id, name, offset, ...)
hex | text   the bytes; text where people read the format
value        what they decode to, and what encodes to them again; or
error, says  the code of the error, and words that its message holds
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

Document = dict[str, Any]
Refusal = tuple[str, bytes, str] | tuple[str, bytes, str, str]

MALFORMED: Final = "format.malformed"
UNSUPPORTED: Final = "store.unsupported"
FOREIGN: Final = "store.not_a_store"

STORE_ID: Final = bytes(range(16))
OTHER_STORE: Final = bytes(range(16, 32))
PACK_ID: Final = bytes(range(32, 48))
LEAF: Final = bytes(range(64, 96))


# Fields that are younger than the first vectors: left out where they say nothing, so that what
# was fixed then stays as it is.
_YOUNGER: Final = frozenset({"removes"})


def plain(value: Any) -> Any:
    """Return a decoded value as JSON: structs by field, bytes as hexadecimal digits."""
    if isinstance(value, msgspec.Struct):
        fields = {name: getattr(value, name) for name in value.__struct_fields__}
        shown = {n: item for n, item in fields.items() if n not in _YOUNGER or item}
        return {name: plain(item) for name, item in shown.items()}
    if isinstance(value, bytes | memoryview):
        return value.hex()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return value


def good(about: str, data: bytes, value: Any, **context: Any) -> Document:
    """Return the vector of bytes that decode to value."""
    return {"about": about, "context": plain(context), "hex": data.hex(), "value": plain(value)}


def bad(
    about: str, data: bytes, says: str, error: str = MALFORMED, *, context: Document
) -> Document:
    """Return the vector of bytes that are refused."""
    shown = {"about": about, "context": plain(context), "hex": data.hex()}
    return shown | {"error": error, "says": says}


def refusals(table: dict[str, Refusal], **context: Any) -> dict[str, Document]:
    """Return vectors of bytes that are all refused in one context."""
    return {name: bad(*row, context=context) for name, row in table.items()}


def as_text(document: Document) -> Document:
    """Show the bytes of a vector as text, where they are text."""
    data = bytes.fromhex(document["hex"])
    try:
        shown = data.decode()
    except UnicodeDecodeError:
        return document
    return {name: item for name, item in document.items() if name != "hex"} | {"text": shown}


def flipped(data: bytes, at: int, bits: int = 1) -> bytes:
    """Return data with some bits of one byte turned over."""
    return data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]
