"""Reads a part of a payload: only the chunks that lead to it, and those that hold it.

A path goes down from the root's parts: in an object to a key, in a list to an index. Links at the
level of a container's items stand for so many items, so an index needs no look into the others; a
key is looked for in the items that are at hand, then in one link after the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from ckptlog.blobs.payload import Read, text_of, unfolded
from ckptlog.errors import ArgumentError
from ckptlog.formats.branch import Link, Part
from ckptlog.model.quotation import quoted

Step = str | int

_token = re.compile(rb'[\[\]{},"]').search
_in_string = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL).match


class NoSuchPartError(ArgumentError):
    """The value has nothing at the path."""

    code = "argument.no_such_part"


class _Items(NamedTuple):
    """What stands at the level of a container's items: one item's parts, or a link for several."""

    count: int
    parts: list[Part]
    link: Link | None


def part_of(parts: Sequence[Part], path: Sequence[Step], read: Read) -> bytes:
    """Return the text of the value that a path leads to.

    Args:
        parts: Of the whole value.
        path: Keys (str) and indices (int, from the end where negative).

    Raises:
        NoSuchPartError: There is nothing at the path.
        BlobCorruptionError: As reading the whole.
    """
    found = list(parts)
    for number, step in enumerate(path):
        found = _value_in(found, step, path[: number + 1], read)
    return text_of(found, read)


def _value_in(parts: list[Part], step: Step, path: Sequence[Step], read: Read) -> list[Part]:
    parts = _untagged(parts)
    opening = _first_byte(parts)
    if opening == b"{" and type(step) is str:
        key = msgspec.json.encode(step) + b":"
        found = _by_key(_items(parts), key, read)
    elif opening == b"[" and type(step) is int:
        found = _by_index(list(_items(parts)), step, read)
    else:
        kind = {b"{": "a dict", b"[": "a list"}.get(opening, "no container")
        raise NoSuchPartError(
            f"There is no part {_shown(path)}: what is there is {kind}.",
            hint="Keys are texts, indices whole numbers; other objects are read whole.",
        )
    if found is None:
        raise NoSuchPartError(f"There is no part {_shown(path)}.")
    return found


def _by_key(items: Iterator[_Items], key: bytes, read: Read) -> list[Part] | None:
    links = []
    for one in items:
        if one.link is not None:
            links.append(one.link)
        elif type(one.parts[0]) is bytes and one.parts[0].startswith(key):
            return _cut(one.parts, len(key))
    for link in links:
        found = _by_key(_items(unfolded(link, read), is_inside=True), key, read)
        if found is not None:
            return found
    return None


def _by_index(items: list[_Items], index: int, read: Read) -> list[Part] | None:
    count = sum(one.count for one in items)
    index += count if index < 0 else 0
    if not 0 <= index < count:
        return None
    for one in items:
        if index < one.count:
            if one.link is None:
                return one.parts
            inside = list(_items(unfolded(one.link, read), is_inside=True))
            return _by_index(inside, index, read)
        index -= one.count
    return None


def _items(parts: Sequence[Part], *, is_inside: bool = False) -> Iterator[_Items]:
    """Yield what stands at the level of a container's items.

    Args:
        is_inside: Whether the parts are items with a comma in front, and not the whole container.
    """
    depth = 1 if is_inside else 0
    is_string = False
    item: list[Part] = []
    for part in parts:
        if type(part) is Link:
            if depth == 1 and not is_string and not item and part.items:
                yield _Items(part.items, [], part)
            else:
                item.append(part)
            continue
        text: bytes = part  # type: ignore[assignment]
        at = begin = 0
        while at < len(text):
            if is_string:
                at = _in_string(text, at).end() + 1  # type: ignore[union-attr]
                is_string = at > len(text)
                continue
            token = _token(text, at)
            if token is None:
                break
            letter, at = token.group(), token.end()
            if letter == b'"':
                is_string = True
            elif letter in (b"[", b"{"):
                depth += 1
                begin = at if depth == 1 else begin
            elif depth > 1:
                depth -= letter != b","
            else:
                yield from _one(item, text[begin : at - 1])
                item, begin = [], at
                if letter != b",":
                    return
        if depth and begin < len(text):
            item.append(text[begin:])
    yield from _one(item, b"")


def _one(item: list[Part], rest: bytes) -> Iterator[_Items]:
    if rest:
        item.append(rest)
    if item:
        yield _Items(1, item, None)


def _untagged(parts: list[Part]) -> list[Part]:
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
