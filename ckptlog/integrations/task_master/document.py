"""The text of a tasks.json: numbers and cut characters come back as they stood.

    1E5, 1.50, 0.1000000000000000055   numbers that Python would write otherwise keep their text
    1e400, NaN                         refused: no number of a program that reads JSON
    half a character, U+D83D           written as that escape, for no UTF-8 has it; U+FFFD in
                                       checkpoints

Pure.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from json.encoder import encode_basestring
from typing import Any, Final, NoReturn

DEPTH_MAX: Final = 200
_INDENT: Final = "  "
_HALVES: Final = re.compile("[\ud800-\udfff]")


class Number(float):
    """A number with its text."""

    __slots__ = ("text",)
    text: str


def read(raw: bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: It is no JSON, no UTF-8, or has a number that no program can hold.
        RecursionError: It is nested far too deeply.
    """
    found = json.loads(
        raw.decode(), parse_float=_real, parse_int=_whole, parse_constant=_refuse_constant
    )
    _check_depth(found)
    return found


def written(document: Any) -> bytes:
    """Return the JSON text of what `read` returned, indented by 2 as the program does it."""
    text = "".join(_parts(document, "\n"))
    return _HALVES.sub(lambda half: f"\\u{ord(half[0]):04x}", text).encode()


def plain(value: Any) -> Any:
    """Return a copy that a checkpoint can hold: numbers of Python, whole characters."""
    if isinstance(value, dict):
        return {plain(name): plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, str):
        return _HALVES.sub("\N{REPLACEMENT CHARACTER}", value)
    return float(value) if isinstance(value, Number) else value


def _check_depth(document: Any) -> None:
    level: list[Any] = [[document]]
    depth = 0
    while level:
        depth += 1
        if depth > DEPTH_MAX + 1:  # one is ours, around all
            raise ValueError(f"it is nested more than {DEPTH_MAX} deep")
        tables = [one.values() if isinstance(one, dict) else one for one in level]
        level = [one for table in tables for one in table if isinstance(one, dict | list)]


def _parts(value: Any, line: str) -> Iterator[str]:
    """Yield the text of a value; line: the break and the indent in front of its end."""
    if isinstance(value, dict) and value:
        mark = "{" + line + _INDENT
        for name, one in value.items():
            yield f"{mark}{encode_basestring(name)}: "
            yield from _parts(one, line + _INDENT)
            mark = "," + line + _INDENT
        yield line + "}"
    elif isinstance(value, list) and value:
        mark = "[" + line + _INDENT
        for one in value:
            yield mark
            yield from _parts(one, line + _INDENT)
            mark = "," + line + _INDENT
        yield line + "]"
    elif isinstance(value, Number):
        yield value.text
    elif isinstance(value, str):
        yield encode_basestring(value)
    else:  # true, false, null, {}, [], a whole number
        yield json.dumps(value, allow_nan=False)


def _real(text: str) -> Number:
    found = Number(text)
    if math.isinf(found):
        raise ValueError(f"{text[:40]} is larger than any number of a program")
    found.text = text
    return found


def _whole(text: str) -> int | Number:
    return _real(text) if text == "-0" else int(text)


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")
