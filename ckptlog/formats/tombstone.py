"""What stands where bytes were lost: tombstones for events, fillers otherwise (specs/repair.md).

Both are ordinary frames: an event of the type `repair.lost`, and a chunk that nobody names. A gap
is filled to the byte, so that nothing behind it moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ckptlog.errors import FormatError
from ckptlog.formats import chunk, event, frame
from ckptlog.model.event import LOST, SCHEMA, Event, Subject
from ckptlog.model.leaf import leaf_text

FILLER_BYTES_MIN: Final = frame.HEADER_BYTES + chunk.HEADER_BYTES
_FILLER_BYTES_MAX: Final = FILLER_BYTES_MIN + chunk.RAW_BYTES_MAX
_EVENT_BYTES: Final = frame.HEADER_BYTES + event.PREFIX_BYTES
MARK: Final = b'"type":"repair.lost"}'
"""Every tombstone's entry ends with it."""
ROOM_BYTES_MIN: Final = _EVENT_BYTES + event.ENTRY_BYTES_MIN
"""No tombstone's frame is shorter, nor any event's: so many positions at most are in some bytes."""


class Lost:
    """An event to be replaced.

    leaf: The leaf hash of what stood there; None where not known. schema: What the store writes.
    """

    __slots__ = ("leaf", "position", "schema")

    def __init__(self, position: int, leaf: bytes | None, schema: int = SCHEMA) -> None:
        self.position = position
        self.leaf = leaf
        self.schema = schema


def entry_of(lost: Lost, time: str, dots: int = 0) -> bytes:
    """Return a tombstone's entry, longer by so many dots."""
    facts: dict[str, int | str] = {}
    if lost.leaf is not None:
        facts["leaf"] = leaf_text(lost.leaf, is_short=lost.schema == SCHEMA)
    # No caller can give an id that ends in a blank.
    name = f"lost-{lost.position}" + "." * dots + " "
    return event.encode(
        Event(
            actor="",
            facts=facts,
            id=name,
            schema=lost.schema,
            subject=Subject(),
            time=time,
            type=LOST,
        )
    )


def room_of(lost: Lost, time: str) -> int:
    """Return the bytes that a tombstone's frame takes at least."""
    return _EVENT_BYTES + len(entry_of(lost, time))


def fill(
    seed: int, container: str, offset: int, length: int, lost: Sequence[Lost], *, time: str
) -> bytes:
    """Return frames that take exactly `length` bytes at `offset`: fillers, then tombstones.

    Args:
        lost: Events that stood there, in order; the last tombstone ends a commit. A leaf hash is
            left out where there is no room for it.

    Raises:
        FormatError: They do not fit.
    """
    wanted = _fitted(length, lost, time)
    rest = length - sum(room_of(one, time) for one in wanted)
    dots = 0
    if 0 < rest < FILLER_BYTES_MIN and wanted:
        rest, dots = 0, rest
    if rest < 0 or 0 < rest < FILLER_BYTES_MIN:
        raise FormatError(
            f"{length} bytes at offset {offset} of {container} cannot be filled with "
            f"{len(lost)} events."
        )
    out = bytearray()
    for size in pieces(rest):
        out += filler(seed, container, offset + len(out), size)[1]
    for index, one in enumerate(wanted):
        is_last = index == len(wanted) - 1
        at = offset + len(out)
        entry = entry_of(one, time, dots if is_last else 0)
        body = event.encode_body(one.position, at, entry)
        out += frame.encode(seed, at, frame.EVENT, frame.COMMIT if is_last else 0, body)
    return bytes(out)


def _fitted(length: int, lost: Sequence[Lost], time: str) -> list[Lost]:
    """Return the tombstones, without leaf hashes from the last on where there is no room."""
    wanted = list(lost)
    room = sum(room_of(one, time) for one in wanted)
    for index in reversed(range(len(wanted))):
        if room <= length:
            break
        shorter = Lost(wanted[index].position, None, wanted[index].schema)
        room -= room_of(wanted[index], time) - room_of(shorter, time)
        wanted[index] = shorter
    return wanted


def pieces(rest: int) -> list[int]:
    """Return the sizes of the fillers that take so many bytes together."""
    sizes = []
    while rest > _FILLER_BYTES_MAX:
        size = min(_FILLER_BYTES_MAX, rest - FILLER_BYTES_MIN)
        sizes.append(size)
        rest -= size
    return [*sizes, rest] if rest else sizes


def filler(
    seed: int, container: str, offset: int, size: int, taken: frozenset[bytes] = frozenset()
) -> tuple[bytes, bytes]:
    """Return digest and frame of a chunk that says what was lost; `size` bytes.

    Args:
        taken: Digests that it must not have: a pack names each once.
    """
    length = size - FILLER_BYTES_MIN
    raw = _text(container, offset, length)
    digest = chunk.digest_of(chunk.LEAF, raw)
    serial = 0
    while digest in taken:
        serial += 1
        number = serial.to_bytes(max(1, (serial.bit_length() + 7) // 8), "little")
        if len(number) > length:
            raise FormatError(f"{size} bytes at offset {offset} of {container} cannot be filled.")
        raw = number + raw[len(number) :]
        digest = chunk.digest_of(chunk.LEAF, raw)
    record = chunk.encode_plain(chunk.CODEC_RAW, chunk.LEAF, digest, length, raw)
    return digest, frame.encode(seed, offset, frame.CHUNK, 0, record)


def _text(container: str, offset: int, length: int) -> bytes:
    text = f"{offset}: bytes of {container} were lost here; see quarantine. ".encode()
    return (text + b"." * length)[:length]


def is_filler(container: str, offset: int, record: bytes) -> bool:
    """Say whether the record of a chunk in a segment is a filler's."""
    raw = record[chunk.HEADER_BYTES :]
    return raw == _text(container, offset, len(raw))


def is_tombstone(entry: bytes) -> bool:
    """Say whether an entry is a tombstone's."""
    return entry.endswith(MARK) and event.decode(entry).type == LOST


def is_leaf_known(entry: bytes) -> bool:
    """Say whether a tombstone has the leaf hash of what was lost."""
    return "leaf" in event.decode(entry).facts
