"""Reads a part of a payload: only the chunks that lead to it, and those that hold it.

A path goes down from the root's parts: in an object to a key, in a list to an index. Links at the
level of a container's items stand for so many items, so an index needs no look into the others; a
key is looked for in the items that are at hand, then in one link after the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

import msgspec

from ckptlog.blobs.payload import Read, text_of, unfolded
from ckptlog.errors import BlobCorruptionError, NoSuchPartError
from ckptlog.formats.branch import BYTES, Link, Part
from ckptlog.model.quotation import quoted

Step = str | int

_token = re.compile(rb'[\[\]{},"]').search
_index = re.compile("-?(?:0|[1-9][0-9]{0,17})").fullmatch
_in_string = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL).match
_FRONT_MAX: Final = 64
_DEPTH_STEPS: Final = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}
_BEHIND_ITEMS: Final = frozenset((b",", b"]", b"}"))


class _Items(NamedTuple):
    """What stands at the level of a container's items: one item's parts, or a link for several."""

    number: int
    parts: list[Part]
    link: Link | None


def part_of(parts: Sequence[Part], path: Sequence[Step], read: Read) -> bytes:
    """Return the text of the value that a path leads to.

    Args:
        parts: Of the whole value.
        path: Keys (str) and indices (int, from the end where negative; their digits will do).

    Raises:
        NoSuchPartError: There is nothing at the path.
        BlobCorruptionError: As reading the whole.
    """
    found = list(parts)
    for number, step in enumerate(path):
        found = value_in(found, step, path[: number + 1], read)
    return text_of(found, read)


def value_in(parts: list[Part], step: Step, path: Sequence[Step], read: Read) -> list[Part]:
    """Return the parts of what a step leads to; path: all steps up to it, for messages."""
    parts = untagged(opened(parts, read))
    opening = _first_byte(parts)
    if opening == b"[" and type(step) is str and _index(step):
        step = int(step)
    if opening == b"{" and type(step) is str:
        key = msgspec.json.encode(step) + b":"
        found = _by_key(items_of(parts, read), key, read)
    elif opening == b"[" and type(step) is int:
        found = _by_index(list(items_of(parts, read)), step, read)
    else:
        kind = {b"{": "a dict", b"[": "a list"}.get(opening, "no container")
        raise NoSuchPartError(
            f"There is no part {_shown(path)}: what is there is {kind}.",
            hint="Keys are texts, indices whole numbers; other objects are read whole.",
        )
    if found is None:
        raise NoSuchPartError(
            f"There is no part {_shown(path)}.",
            hint="An object of a registered type (a message) is read whole."
            if any(type(part) is bytes and part.startswith(b'{"$type":') for part in parts[:1])
            else "",
        )
    return found


def _by_key(items: Iterator[_Items], key: bytes, read: Read) -> list[Part] | None:
    links = []
    for one in items:
        if one.link is not None:
            links.append(one.link)
        elif type(one.parts[0]) is bytes and one.parts[0].startswith(key):
            return _cut(one.parts, len(key))
    for link in links:
        found = _by_key(items_of(unfolded(link, read), read, is_inside=True), key, read)
        if found is not None:
            return found
    return None


def _by_index(items: list[_Items], index: int, read: Read) -> list[Part] | None:
    count = sum(one.number for one in items)
    index += count if index < 0 else 0
    if not 0 <= index < count:
        return None
    for one in items:
        if index < one.number:
            if one.link is None:
                return one.parts
            inside = list(items_of(unfolded(one.link, read), read, is_inside=True))
            return _by_index(inside, index, read)
        index -= one.number
    return None


def items_of(parts: Sequence[Part], read: Read, *, is_inside: bool = False) -> Iterator[_Items]:
    """Yield what stands at the level of a container's items.

    Args:
        is_inside: Whether the parts are items with a comma in front, and not the whole container.
    """
    depth = 1 if is_inside else 0
    item: list[Part] = []
    for letter, piece in _pieces(parts, read):
        if type(piece) is Link and piece.items and depth == 1 and not item:
            yield _Items(piece.items, [], piece)
        elif depth == 1 and letter in _BEHIND_ITEMS:
            if item:
                yield _Items(1, _joined(item), None)
            item = []
            depth -= letter != b","
        else:
            was_inside = depth > 0
            depth += _DEPTH_STEPS.get(letter, 0)
            if was_inside:
                item.append(piece)
    if item:
        yield _Items(1, _joined(item), None)


def _pieces(parts: Sequence[Part], read: Read) -> Iterator[tuple[bytes, Part]]:
    """Yield links, brackets, commas, and the texts between them, strings whole or in pieces.

    Brackets and commas come with their letter, the rest with b"".
    """
    is_string = False
    before: Link | None = None
    for part in parts:
        if type(part) is Link:
            before = part
            yield b"", part
            continue
        text: bytes = part  # type: ignore[assignment]
        at = begin = 0
        if is_string and before is not None and text[0] in b'"\\' and _is_escape(before, read):
            at = 1  # the other half of an escape that was cut in two
        while at < len(text):
            if is_string:
                at = _in_string(text, at).end() + 1  # type: ignore[union-attr]
                is_string = at > len(text)
                continue
            token = _token(text, at)
            if token is None:
                break
            at, letter = token.end(), token.group()
            is_string = letter == b'"'
            if not is_string:
                if at - 1 > begin:
                    yield b"", text[begin : at - 1]
                yield letter, letter
                begin = at
        if begin < len(text):
            yield b"", text[begin:]


def _is_escape(link: Link, read: Read) -> bool:
    """Say whether the text of a link ends in the first half of an escape."""
    if link.kind == BYTES:
        return False
    text = text_of([link], read)
    return (len(text) - len(text.rstrip(b"\\"))) % 2 == 1


def _joined(parts: list[Part]) -> list[Part]:
    """Return parts with texts that follow one another as one."""
    joined: list[Part] = []
    for is_text, run in groupby(parts, key=lambda part: type(part) is bytes):
        same = list(run)
        joined += [b"".join(same)] if is_text else same  # type: ignore[arg-type]
    return joined


def opened(parts: list[Part], read: Read) -> list[Part]:
    """Return the parts of a value so that they begin with text: a link in front is followed.

    Raises:
        BlobCorruptionError: Links lead to links for longer than any writer would.
    """
    for _ in range(_FRONT_MAX):
        if not parts or type(parts[0]) is bytes:
            return parts
        parts = [*unfolded(parts[0], read), *parts[1:]]  # type: ignore[arg-type]
    raise BlobCorruptionError(
        f"A value begins with more than {_FRONT_MAX} links, one behind the other.",
        hint="Run ckptlog verify.",
    )


def untagged(parts: list[Part]) -> list[Part]:
    """Return the list in a tuple's tag, the dict in an escaped one's."""
    first = parts[0]
    for tag in (b'{"$tuple":', b'{"$object":'):
        if type(first) is bytes and first.startswith(tag):
            return _cut(parts, len(tag))
    return parts


def _cut(parts: list[Part], begin: int) -> list[Part]:
    rest = parts[0][begin:]  # type: ignore[index]
    return [rest, *parts[1:]] if rest else parts[1:]


def _first_byte(parts: list[Part]) -> bytes:
    return parts[0][:1] if parts and type(parts[0]) is bytes else b""


def _shown(path: Sequence[Step]) -> str:
    return "".join(f"[{quoted(step)}]" for step in path)
