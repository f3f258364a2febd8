"""The branch: a stretch of a value's text in which links stand for longer stretches.

A chunk of the branch domain is a run of parts, each headed by one varint (LEB128), `n << 2 | kind`:

    kind      n                     then
    0 text    bytes of text, >= 1   the text
    1 leaf    items                 size (varint), digest (32): a chunk of text
    2 branch  items                 size (varint), digest (32): a chunk of parts
    3 bytes   0                     size (varint), digest (32): a leaf or branch of raw bytes,
                                    which stand here as base64 text; size is that of the raw bytes

`items` says how many whole items of the container around it a link stands for; 0 for a piece of a
string. `size` is what the link's text (kind 3: raw bytes) has in bytes (specs/branch.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from ckptlog.errors import FormatError
from ckptlog.formats.chunk import DIGEST_BYTES, RAW_BYTES_MAX
from ckptlog.kernel import native

TEXT: Final = 0
LEAF: Final = 1
BRANCH: Final = 2
BYTES: Final = 3

_VARINT_BYTES_MAX: Final = 9
# What a link counts in a branch, about: head, size, digest.
LINK_WEIGHT: Final = 36


class Link(msgspec.Struct, frozen=True, gc=False):
    """Names a chunk that stands for a stretch of text. kind: LEAF, BRANCH or BYTES."""

    kind: int
    digest: bytes
    size: int
    items: int = 0


Part = bytes | Link


def encode(parts: Iterable[Part]) -> bytes:
    """Return the raw bytes of a branch. Text parts must not be empty, nor follow one another."""
    out = bytearray()
    for part in parts:
        if isinstance(part, bytes):
            out += _varint(len(part) << 2)
            out += part
        else:
            out += _varint(part.items << 2 | part.kind)
            out += _varint(part.size)
            out += part.digest
    return bytes(out)


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def decode(raw: bytes) -> list[Part]:
    """Return the parts of a branch.

    Raises:
        FormatError: It is not a branch.
    """
    found = native.parts_in(raw, Link, RAW_BYTES_MAX) if native is not None else None
    return found or _decode(raw)


def _decode(raw: bytes) -> list[Part]:
    parts: list[Part] = []
    at, end = 0, len(raw)
    was_text = False
    while at < end:
        head, at = _read_varint(raw, at)
        kind, number = head & 3, head >> 2
        if kind == TEXT:
            if not 1 <= number <= end - at or was_text:
                raise FormatError(f"A branch has a text of {number} bytes at {at}.")
            parts.append(raw[at : at + number])
            at += number
            was_text = True
            continue
        size, at = _read_varint(raw, at)
        if size < 1 or end - at < DIGEST_BYTES or (kind == BYTES and number):
            raise FormatError(f"A branch has a link of {size} bytes at {at}.")
        if kind == LEAF and size > RAW_BYTES_MAX:
            raise FormatError(f"A branch has a leaf of {size} bytes at {at}.")
        parts.append(Link(kind, raw[at : at + DIGEST_BYTES], size, number))
        at += DIGEST_BYTES
        was_text = False
    if not parts:
        raise FormatError("A branch has no parts.")
    return parts


def links_in(raw: bytes) -> tuple[list[bytes], list[tuple[bytes, int, int]]]:
    """Return the digests of a branch's leaves; digest, size and kind of its other links.

    For who gathers digests, of bytes whose own digest was checked: only what would lead astray is
    looked at.

    Raises:
        FormatError: It is not a branch.
    """
    found = native.links_in(raw) if native is not None else None
    return found or _links_in(raw)


def _links_in(raw: bytes) -> tuple[list[bytes], list[tuple[bytes, int, int]]]:
    leaves: list[bytes] = []
    others: list[tuple[bytes, int, int]] = []
    at, end = 0, len(raw)
    while at < end:
        head = raw[at]
        if head < 0x80:
            at += 1
        else:
            head, at = _read_varint(raw, at)
        if head & 3 == TEXT:
            at += head >> 2
            continue
        size, at = _read_varint(raw, at)
        digest = raw[at : at + DIGEST_BYTES]
        at += DIGEST_BYTES
        if head & 3 == LEAF:
            leaves.append(digest)
        else:
            others.append((digest, size, head & 3))
    if at != end or not end:
        raise FormatError("A branch ends in the middle of a part.")
    return leaves, others


def _read_varint(raw: bytes, at: int) -> tuple[int, int]:
    """Return (number, offset behind it); one number has one spelling."""
    end = at + 2
    if end < len(raw) and raw[at] >= 0x80 and 0 < raw[at + 1] < 0x80:  # nearly all have two bytes
        return raw[at] & 0x7F | raw[at + 1] << 7, end
    number = shift = 0
    for index in range(at, min(at + _VARINT_BYTES_MAX, len(raw))):
        byte = raw[index]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and shift:
                break
            return number, index + 1
        shift += 7
    raise FormatError(f"A branch has no sound number at {at}.")
