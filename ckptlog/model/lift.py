"""From a lowered value back to the value: what each tag stands for (specs/values.md).

Invariants:
- What is returned shares no container with what was given (`decoded` is given what is its own).
- A tag has one spelling; every other is a fault. Faults are the exceptions of `FAULTS`;
  `model/value.py` makes errors of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from ckptlog.errors import UnregisteredTypeError
from ckptlog.kernel import native
from ckptlog.model.array import lift_array, lift_scalar
from ckptlog.model.beside import NOTHING, Beside
from ckptlog.model.codec import TYPE, Codecs, Typed, failed, is_name
from ckptlog.model.scalar import LIFTED, exactly
from ckptlog.model.tag import DEPTH_MAX, OBJECT, SEQUENCES, tag_of

# What a tag's content can make Python or numpy raise: ValueError holds binascii.Error and the
# Unicode errors, TypeError comes from a set's element that cannot be hashed.
FAULTS: Final = (ValueError, TypeError, KeyError, OverflowError, RecursionError)

_LIFTED: Final[dict[str, Callable[[Any], Any]]] = {
    **LIFTED,
    "$array": lift_array,
    "$scalar": lift_scalar,
}

_LIFTED_BESIDE: Final[dict[str, Callable[[Any, Sequence[bytes]], Any]]] = {
    "$array": lift_array,
    "$bytearray": lambda _, pieces: bytearray().join(pieces),
    "$bytes": lambda _, pieces: b"".join(pieces),
}


def said(error: Exception) -> str:
    """Return what a fault says, as the end of a sentence."""
    if isinstance(error, RecursionError):
        return "it is nested too deep for what is left of the call stack"
    return "a field is missing" if isinstance(error, KeyError) else str(error).rstrip(".")


class Lifting:
    """One walk over a lowered value."""

    __slots__ = ("_beside", "_codecs", "_is_opaque", "_lifts")

    def __init__(self, codecs: Codecs, *, is_opaque: bool, beside: Beside = NOTHING) -> None:
        self._beside = beside
        self._codecs = codecs.by_name
        self._lifts = codecs.lifts
        self._is_opaque = is_opaque or codecs.is_opaque

    def decoded(self, lowered: Any) -> Any:
        """Return the value of what was decoded a moment ago and is nobody else's."""
        if native is None:
            return self.lifted(lowered, 1)
        return native.lift(lowered, self._lifts, self._tag, failed, DEPTH_MAX)

    def lifted(self, lowered: Any, depth: int) -> Any:
        """Return the value of a lowered one that stands in depth - 1 containers."""
        kind = type(lowered)
        if kind is dict:
            if len(lowered) == 1 and (tag := tag_of(lowered)) is not None:
                return self._tag(tag, lowered[tag], depth)
            return self._mapping(lowered, depth)
        return self._sequence(lowered, depth) if kind is list else lowered

    def _mapping(self, mapping: dict[str, Any], depth: int) -> dict[str, Any]:
        _check_depth(depth)
        copy = mapping.copy()
        for key, item in copy.items():
            kind = type(item)
            if kind is dict or kind is list:
                copy[key] = self.lifted(item, depth + 1)
        return copy

    def _sequence(self, sequence: list[Any], depth: int) -> list[Any]:
        _check_depth(depth)
        copy = sequence.copy()
        for index, item in enumerate(copy):
            kind = type(item)
            if kind is dict or kind is list:
                copy[index] = self.lifted(item, depth + 1)
        return copy

    def _tag(self, tag: str, content: Any, depth: int) -> Any:
        if tag == TYPE:
            return self._typed(content, depth)
        if tag in SEQUENCES:
            elements = self._sequence(exactly(list, content), depth)
            return tuple(elements) if tag == "$tuple" else _set_of(tag, elements)
        if tag == OBJECT:
            if type(content) is not dict or tag_of(content) is None:
                raise ValueError(f"{OBJECT} escapes what needs no escape")
            return self._mapping(content, depth)
        if tag not in _LIFTED:
            raise ValueError(f"the tag {ascii(tag)[:40]} is unknown; a newer ckptlog may know it")
        try:
            pieces = self._beside.taken(tag, content)
            return _LIFTED[tag](content) if pieces is None else _LIFTED_BESIDE[tag](content, pieces)
        except FAULTS as error:
            raise ValueError(f"{tag}: {said(error)}") from error

    def _typed(self, content: Any, depth: int) -> Any:
        _check_depth(depth)
        name, lowered = _named(content)
        codec = self._codecs.get(name)
        if codec is None and not self._is_opaque:
            raise UnregisteredTypeError(
                f"The value holds an object of the registered type {name!r}, which has no codec "
                "here.",
                hint="Open the store with it: ckptlog.open(path, codecs=[TypeCodec.of(cls), ...]).",
                name=name,
            )
        inside = self.lifted(lowered, depth + 1)
        return Typed(name, inside) if codec is None else codec.lifted(inside)


def _named(content: Any) -> tuple[str, Any]:
    if type(content) is not list or len(content) != 2 or not is_name(content[0]):
        raise ValueError(f"{TYPE} needs a list of a name and a content")
    return content[0], content[1]


def _check_depth(depth: int) -> None:
    if depth > DEPTH_MAX:
        raise ValueError(f"it is nested deeper than {DEPTH_MAX} containers")


def _set_of(tag: str, elements: list[Any]) -> set[Any] | frozenset[Any]:
    found = set(elements)
    if len(found) != len(elements):
        raise ValueError(f"{tag} has an element twice")
    return found if tag == "$set" else frozenset(found)
