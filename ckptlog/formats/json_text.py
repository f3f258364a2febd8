"""Where a value in JSON text ends: all that cutting a text along its structure needs to know.

The text is our own encoder's (model/value.py): sound, without blanks.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from xxhash import xxh64_intdigest

from ckptlog.kernel import native

# Possessive: a long string must not cost memory for each of its escapes.
_string = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL).match
_atom = re.compile(rb"[^,\]}]*").match
# Alone stands the quote of a string that has no end.
_tokens = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}"]', re.DOTALL).finditer

QUOTE: Final = ord('"')
COMMA: Final = ord(",")
OPENING: Final = frozenset(b"[{")
CLOSING: Final = frozenset(b"]}")


def end_of_value(text: bytes, at: int, limit: int) -> int:
    """Return the offset behind the value at `at`; -1 where it has more than `limit` bytes.

    Cost: what is read of the text is at most `limit` bytes, and the string that crosses it.
    """
    if native is not None:
        return native.end_of_value(text, at, limit)
    return _end_of_value(text, at, limit)


def _end_of_value(text: bytes, at: int, limit: int) -> int:
    first = text[at]
    if first in OPENING:
        return _end_of_container(text, at, limit)
    if first == QUOTE:
        found = _string(text, at)
        end = -1 if found is None else found.end()
    else:
        found = _atom(text, at)
        end = at if found is None else found.end()
    return end if end - at <= limit else -1


def _end_of_container(text: bytes, at: int, limit: int) -> int:
    depth = 0
    stop = at + limit
    for token in _tokens(text, at):
        letter, end = text[token.start()], token.end()
        if letter in OPENING:
            depth += 1
        elif letter != QUOTE:
            depth -= 1
        elif end - token.start() == 1:
            return -1
        if end > stop:
            return -1
        if not depth:
            return end
    return -1


def end_of_string(text: bytes, at: int) -> int:
    """Return the offset behind the string at `at`."""
    found = _string(text, at)
    if found is None:
        raise ValueError(f"There is no whole string at {at}.")
    return found.end()


class Bounds(NamedTuple):
    """Where a group of items ends, in bytes.

    Not before `least`; then behind an item with the chance of its length in `mean`; at the latest
    with `most`.
    """

    least: int
    mean: int
    most: int


class Run(NamedTuple):
    """Short items that follow one another.

    place: Where the next one begins, with its comma; or the bracket that ends the container.
    gathered: Bytes of items, those before the run too.
    items: How many are in the run.
    drawn: The number that the last one drew, where it was asked for.
    is_closed: Whether a group ends here.
    """

    place: int
    gathered: int
    items: int
    drawn: int
    is_closed: bool


def run_of_items(
    text: bytes,
    place: int,
    gathered: int,
    bounds: Bounds,
    *,
    is_object: bool,
    inline_max: int,
    items_max: int,
) -> Run:
    """Go on over items of a container until a group ends, a long item or the container's end comes.

    Args:
        place: Where an item begins, with the comma before it; or the container's end.
        gathered: Bytes of items in the group so far.
        inline_max: The most bytes of a short value.
        items_max: Stop after so many.
    """
    if native is not None:
        return Run(  # the last one is 0 or 1
            *native.run_of_items(text, place, is_object, gathered, inline_max, bounds, items_max)  # type: ignore[arg-type]
        )
    return _run_of_items(text, place, gathered, bounds, is_object, inline_max, items_max)


def _run_of_items(  # noqa: PLR0917 - the twin of a function in C
    text: bytes,
    place: int,
    gathered: int,
    bounds: Bounds,
    is_object: bool,  # noqa: FBT001
    inline_max: int,
    items_max: int,
) -> Run:
    items = drawn = 0
    size = len(text)
    while items < items_max and place < size and text[place] not in CLOSING:
        begin = at = place + (text[place] == COMMA)
        if is_object:
            key = _string(text, begin)
            if key is None:
                break
            at = key.end() + 1
        end = _end_of_value(text, at, inline_max) if at < size else -1
        if end < 0 or end == begin:
            break
        place = end
        items += 1
        gathered += end - begin
        if gathered >= bounds.least:
            drawn = number_of(text[begin:end])
            if drawn % bounds.mean < end - begin or gathered >= bounds.most:
                return Run(place, gathered, items, drawn, is_closed=True)
    return Run(place, gathered, items, drawn, is_closed=False)


def number_of(data: bytes) -> int:
    """Return the number that an item draws: of its content alone, 64 bits."""
    return xxh64_intdigest(data)


def is_same(text: bytes, at: int, other: bytes, start: int, size: int) -> bool:
    """Say whether a stretch of another text stands in this one, both whole. Nothing is copied."""
    if native is not None:
        return native.is_same(text, at, other, start, size)
    stretch = other[start : start + size]
    return len(stretch) == size and text.startswith(stretch, at)
