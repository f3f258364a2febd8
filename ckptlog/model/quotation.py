"""How a message shows a value that a caller handed over: short, on one line, and always.

`repr` of a stranger may take a second, hold megabytes, or raise: an int of more than 4,300 digits
does. A message about a wrong argument must not end in another error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

_CHARACTERS_MAX: Final = 80
# Below 2**14000 every int has fewer than 4,300 digits, which is what Python is willing to write.
_INT_BITS_MAX: Final = 14_000


def quoted(value: object) -> str:
    """Return a value as messages show it: its repr in ASCII, of at most 80 characters.

    Cost: long texts and bytes are cut first.
    """
    kind = type(value)
    if isinstance(value, int) and value.bit_length() > _INT_BITS_MAX:
        return "an int of more than 4,200 digits"
    if isinstance(value, str | bytes | bytearray) and len(value) > _CHARACTERS_MAX:
        value = value[:_CHARACTERS_MAX]
        return f"{_plain(value, kind)[: _CHARACTERS_MAX - 3]}..."
    text = _plain(value, kind)
    return text if len(text) <= _CHARACTERS_MAX else f"{text[: _CHARACTERS_MAX - 3]}..."


def shown(value: object, how: Callable[[Any], str] = repr) -> str:
    """Return the whole repr (or str) of a value; where that raises, of which type it is."""
    try:
        return how(value)
    except Exception:  # noqa: BLE001 - a stranger's __repr__ may do anything
        return _type_of(type(value))


def _plain(value: object, kind: type) -> str:
    try:
        return ascii(value)
    except Exception:  # noqa: BLE001 - a stranger's __repr__ may do anything
        return _type_of(kind)


def _type_of(kind: type) -> str:
    return f"a value of type {kind.__name__[:_CHARACTERS_MAX]}"
