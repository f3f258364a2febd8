"""The frozen value: a value's stored form, in parts, with what is large and raw left as it is.

A value is stored as JSON text, in which bytes and arrays stand as base64. Of a system's state that
would be a copy, and a third more, of every array: so large ones are parts of their own, whose
bytes are cut and hashed where they lie. Everything around them becomes text at once.

    Text      the stored form of a value without large raw bytes
    Raw       the text before and behind the base64, and the bytes that it stands for
    Mapping   keys and parts;  Listing   parts

Put together they are the text that `model.value.prepare` would give, byte by byte.

Invariants:
- Each container is read once. Where the value goes on changing (`is_live`) nothing of it is kept.
- Only the first levels, and a bounded number of items, are looked at: what large bytes lie deeper
  are stored as part of the text.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import msgspec

from ckptlog.errors import UnstorableError
from ckptlog.model.array import split_array
from ckptlog.model.codec import NO_CODECS, Codecs
from ckptlog.model.value import prepare

# Smaller ones are as fast as text, and one chunk each would be many.
RAW_BYTES_MIN: Final = 64 * 1024
_LEVELS_MAX: Final = 6
_ITEMS_MAX: Final = 10_000

Bytes = bytes | memoryview


class Text(NamedTuple):
    """A value's stored form."""

    wire: bytes


class Raw(NamedTuple):
    """Bytes that stand as base64, in quotes, between two texts.

    data: In pieces, which may be read once only.
    """

    head: str
    size: int
    data: Iterable[Bytes]
    tail: str


class Mapping(NamedTuple):
    """An object: keys and parts."""

    items: Iterable[tuple[str, Frozen]]


class Listing(NamedTuple):
    """A list of parts."""

    items: Iterable[Frozen]


Frozen = Text | Raw | Mapping | Listing


def freeze(value: Any, *, path: str, codecs: Codecs = NO_CODECS, is_live: bool = False) -> Frozen:
    """Return a value's stored form in parts.

    Args:
        path: What messages call the value.
        is_live: Whether it goes on changing: then everything is read before this returns, and
            large bytes are copied. Else the parts are made when they are asked for.

    Raises:
        UnstorableError: Something in it cannot be stored exactly, now or when it is asked for.
    """
    return _Freezing(codecs, is_live=is_live).part(value, path, 0)


class _Freezing:
    def __init__(self, codecs: Codecs, *, is_live: bool) -> None:
        self._codecs = codecs
        self._is_live = is_live

    def part(self, value: Any, path: str, level: int) -> Frozen:
        raw = self._raw(value)
        if raw is not None:
            return raw
        kind = type(value)
        if kind not in {dict, list} or level >= _LEVELS_MAX:
            return self._text(value, path, level)
        # One copy, which no other thread can cut in two.
        copy = value.copy()
        if not _has_raw(copy, level) or (kind is dict and not _is_simple(copy)):
            return self._text(copy, path, level)
        if kind is dict:
            pairs = ((key, self.part(one, f"{path}.{key}", level + 1)) for key, one in copy.items())
            return Mapping(list(pairs) if self._is_live else pairs)
        parts = (self.part(one, f"{path}[{at}]", level + 1) for at, one in enumerate(copy))
        return Listing(list(parts) if self._is_live else parts)

    def _text(self, value: Any, path: str, level: int) -> Text:
        # In as many lists as there are containers around it, so that the limit on how deep a
        # value may be nested is that of the whole.
        wrapped = value
        for _ in range(level):
            wrapped = [wrapped]
        try:
            wire = prepare(wrapped, path=path, codecs=self._codecs).wire
        except UnstorableError:
            # The same, told without our lists; else it is they that are too many.
            prepare(value, path=path, codecs=self._codecs)
            raise
        return Text(wire[level:-level] if level else wire)

    def _raw(self, value: Any) -> Raw | None:
        kind = type(value)
        if kind is bytes and len(value) >= RAW_BYTES_MIN:
            return Raw('{"$bytes":', len(value), (memoryview(value),), "}")
        if kind is bytearray and len(value) >= RAW_BYTES_MIN:
            # A view would forbid its owner to make it longer.
            return Raw('{"$bytearray":', len(value), (bytes(value),), "}")
        if getattr(value, "nbytes", 0) < RAW_BYTES_MIN:
            return None
        found = split_array(value)
        if found is None:
            return None
        content, data = found
        head = f'{{"$array":{msgspec.json.encode(content).decode()[:-1]},"data":'
        return Raw(head, len(data), (bytes(data) if self._is_live else data,), "}}")


def _is_simple(mapping: dict[Any, Any]) -> bool:
    """Say whether keys can stand as they are; the rest is for the walk, which refuses it."""
    if len(mapping) == 1 and next(iter(mapping)).__class__ is str:
        return not next(iter(mapping)).startswith("$")
    return all(type(key) is str and _is_text(key) for key in mapping)


def _is_text(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def _has_raw(value: Any, level: int) -> bool:
    """Say whether large bytes are in a container, as far as one looks."""
    seen = 0
    waiting: list[tuple[Any, int]] = [(value, level)]
    while waiting:
        one, depth = waiting.pop()
        inner = list(one.values()) if type(one) is dict else list(one)
        seen += len(inner)
        if seen > _ITEMS_MAX:
            return False
        for item in inner:
            kind = type(item)
            if kind is bytes or kind is bytearray:
                if len(item) >= RAW_BYTES_MIN:
                    return True
            elif kind is dict or kind is list:
                if depth + 1 < _LEVELS_MAX:
                    waiting.append((item, depth + 1))
            elif kind is not str and _is_large_array(item):
                return True
    return False


def _is_large_array(item: Any) -> bool:
    return (
        getattr(item, "nbytes", 0) >= RAW_BYTES_MIN and split_array(item, is_asked=True) is not None
    )


def text_of(frozen: Frozen) -> Iterator[bytes]:
    """Yield the text that the parts are, put together: the stored form of the whole value."""
    if isinstance(frozen, Text):
        yield frozen.wire
    elif isinstance(frozen, Raw):
        whole = b"".join(frozen.data)
        yield frozen.head.encode()
        yield b'"%b"' % binascii.b2a_base64(whole, newline=False)
        yield frozen.tail.encode()
    elif isinstance(frozen, Mapping):
        for number, (key, part) in enumerate(frozen.items):
            yield (b"," if number else b"{") + msgspec.json.encode(key) + b":"
            yield from text_of(part)
        yield b"}"
    else:
        for number, part in enumerate(frozen.items):
            yield b"," if number else b"["
            yield from text_of(part)
        yield b"]"
