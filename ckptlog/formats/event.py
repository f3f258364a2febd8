"""The event's bytes: canonical JSON (RFC 8785, restricted) behind a fixed prefix (specs/event.md).

    offset  size  field
    0       8     position, little-endian
    8       8     durable: every byte of this segment below this offset was durable when the
                  frame was written
    16      n     the event, canonical JSON, at most 65,535 bytes

The JSON is written in one of two schemas; the feature in store.json says which. Schema 1 is the
fields of `Event` as they are; schema 2 says the same in fewer bytes (`short_event`).

Only the JSON is the entry that the RFC 6962 tree hashes: a tile of entries holds 16-bit lengths,
hence the limit. `durable` is what tells a torn tail from corruption (specs/log.md).
"""

from __future__ import annotations

import re
import struct
from typing import Final

import msgspec

from ckptlog.errors import FormatError, UnsupportedError
from ckptlog.formats import short_event
from ckptlog.formats.short_event import SHORT_SCHEMA, Short
from ckptlog.model import leaf
from ckptlog.model.event import FENCE, INTEGER_MAX, SCHEMA, SETTLED, Event

ENTRY_BYTES_MAX: Final = 65_535
ENTRY_BYTES_MIN: Final = len(b'{"actor":"","id":""}')
PREFIX_BYTES: Final = 16
LONG_SCHEMA: Final = 1
LEAF_EMPTY: Final = leaf.LEAF_EMPTY
leaf_hash = leaf.leaf_hash

_PREFIX = struct.Struct("<QQ")
prefix_at = _PREFIX.unpack_from
"""`decode_prefix` for a body inside of a buffer, for who has checked its length."""
# It becomes part of a file's name.
_PACK_ID = re.compile("[0-9a-f]{32}")
_CONTAINER = re.compile(
    r"log/[0-9]{20}\.(0|[1-9][0-9]{0,8})\.seg|packs/[0-9]{20}-[0-9a-f]{32}\.pack"
)
_BACKSLASH = ord("\\")
# An escape other than of a quote or of a backslash: a control character.
_CONTROL = re.compile(rb'[^\\](?:\\\\)*\\[^"\\]')
# Struct fields keep the order of their class; the keys of `facts` are sorted.
_encoder = msgspec.json.Encoder(order="deterministic")
_decode = msgspec.json.Decoder(Event).decode
_decode_short = msgspec.json.Decoder(Short).decode
# The last is met where a field is of another type, on the way to the short form.
_UNWRITABLE: Final = (
    TypeError,
    ValueError,
    OverflowError,
    msgspec.MsgspecError,
    AttributeError,
)
# In a text its quotes would be escaped; in `facts` it can stand.
_LONG_MARK = b'"schema":%d,' % LONG_SCHEMA


class _Schema(msgspec.Struct):
    schema: int | msgspec.UnsetType = msgspec.UNSET


_schema_decoder = msgspec.json.Decoder(_Schema)


def encode(event: Event) -> bytes:
    """Return the event's canonical JSON.

    Raises:
        FormatError: The event is larger than an entry may be, or has no canonical form.
    """
    try:
        # What is in the log must be readable for ever, so it is read before it is written.
        if event.schema == SHORT_SCHEMA:
            # What the kernel writes it has looked at, every byte.
            written = short_event.encoded(event)
            if written is not None:
                return written
            entry = _encoder.encode(short_event.pack(event))
            _decode_short(entry)
        else:
            entry = _encoder.encode(event)
            _decode(entry)
        is_rare = event.facts or event.packs or event.removes
        fault = _fault_rare(event) if is_rare else None
    except (*_UNWRITABLE, FormatError) as error:
        raise FormatError(f"An event cannot be written: {_reason(error)}") from error
    if fault or _has_control(entry):
        raise FormatError(f"An event cannot be written: {fault or 'it has a control character'}.")
    if len(entry) > ENTRY_BYTES_MAX:
        raise FormatError(
            f"An event of {len(entry)} bytes is over the limit of {ENTRY_BYTES_MAX}.",
            hint="Long texts belong in data or metadata.",
        )
    return entry


def decode(entry: bytes | memoryview) -> Event:
    """Return the event that an entry holds.

    Raises:
        UnsupportedError: A newer version wrote it.
        FormatError: It is not an event.
    """
    if (ordinary := short_event.decoded(entry)) is not None:
        return ordinary
    if len(entry) > ENTRY_BYTES_MAX:
        raise FormatError(f"An event of {len(entry)} bytes is over {ENTRY_BYTES_MAX}.")
    # From the end it is nearer, and CPython looks for it in half the time.
    is_long = (entry if type(entry) is bytes else bytes(entry)).rfind(_LONG_MARK) >= 0
    try:
        event = _decode(entry) if is_long else short_event.unpack(_decode_short(entry))
        is_sound = not is_long or event.schema == LONG_SCHEMA
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, FormatError):
        is_sound = False
    if not is_sound:
        event = _decoded_as_said(entry)
    # The decoder has checked the range of every number but those in these.
    is_rare = event.facts or event.packs or event.removes
    if is_rare and (fault := _fault_rare(event)):
        raise FormatError(f"These bytes are no event: {fault}.")
    return event


def _decoded_as_said(entry: bytes | memoryview) -> Event:
    """Return an event that is not what it seems to be, or say what is wrong with it."""
    schema = _schema_of(entry)
    try:
        if schema is None:
            return short_event.unpack(_decode_short(entry))
        event = _decode(entry)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, FormatError) as error:
        _refuse_newer(schema)
        raise FormatError(f"These bytes are no event: {_reason(error)}") from error
    _refuse_newer(schema)
    if schema != LONG_SCHEMA:
        raise FormatError(f"There is no event that names itself schema {schema}.")
    return event


def _reason(error: Exception) -> str:
    reason = str(error)
    is_range = "`int` >=" in reason or "`int` <=" in reason
    return f"a number is negative or above {INTEGER_MAX} ({reason})" if is_range else reason


def _fault_rare(event: Event) -> str | None:
    if fault := _fault_collection(event):
        return fault
    for pack in event.packs:
        if not 0 <= (pack.base | pack.bytes) <= INTEGER_MAX:
            return f"a pack's number is negative or above {INTEGER_MAX}"
        if not _PACK_ID.fullmatch(pack.id):
            return "a pack's id is not 32 lower-case hexadecimal digits"
    for name, value in event.facts.items():
        # Beyond ASCII, RFC 8785 sorts by UTF-16 and the encoder by UTF-8.
        if not name.isascii():
            return f"the name {name!r} in facts is not ASCII"
        if type(value) is not str and (type(value) is not int or abs(value) > INTEGER_MAX):
            return f"{name} in facts is neither text nor a whole number below 2**53"
    return None


def _fault_collection(event: Event) -> str | None:
    if event.type != SETTLED:
        return f"{event.type} removes containers" if event.removes else None
    fence = event.facts.get(FENCE)
    if type(fence) is not int or fence < 0:
        return "it has no fence"
    if not all(_CONTAINER.fullmatch(name) for name in event.removes):
        return "what it removes is no container"
    return None


def _has_control(entry: bytes) -> bool:
    return _BACKSLASH in entry and _CONTROL.search(entry) is not None


def _schema_of(entry: bytes | memoryview) -> int | None:
    """Return the schema that an entry names, 0 for none that can be; None where it names none."""
    try:
        schema = _schema_decoder.decode(entry).schema
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return 0
    return None if schema is msgspec.UNSET else schema


def _refuse_newer(schema: int | None) -> None:
    if schema is not None and schema > SCHEMA:
        raise UnsupportedError(
            f"An event has schema {schema}; this version of ckptlog reads up to {SCHEMA}.",
            hint="Install a newer ckptlog.",
            schema=schema,
        )


def is_canonical(entry: bytes, event: Event) -> bool:
    """Say whether entry is exactly what `encode` makes of the event."""
    try:
        if event.schema == SHORT_SCHEMA and (written := short_event.encoded(event)) is not None:
            return written == entry
        whole = short_event.pack(event) if event.schema == SHORT_SCHEMA else event
    except FormatError:
        return False
    return _encoder.encode(whole) == entry and not _has_control(entry)


def encode_body(position: int, durable: int, entry: bytes) -> bytes:
    """Return the body of an event frame."""
    return _PREFIX.pack(position, durable) + entry


def decode_prefix(body: bytes | memoryview) -> tuple[int, int]:
    """Return (position, durable) of an event frame's body."""
    if len(body) < PREFIX_BYTES:
        raise FormatError(f"An event frame of {len(body)} bytes is too short.")
    position, durable = _PREFIX.unpack_from(body)
    return position, durable
