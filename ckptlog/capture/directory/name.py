"""Paths as text: how names that are not UTF-8 are written in a payload, and which are refused.

A path is the names below the root, joined by `/`. File systems allow any byte but `/` and NUL in a
name; a payload's keys are UTF-8. So each byte that is no part of UTF-8 is written `%XX`, and `%`
itself `%25`; a path that begins with `$` begins with `%24` (a dict whose one key begins with `$`
would be a tag, specs/values.md). Every name has one spelling, and every other spelling is refused:
two keys never name one file. A payload is hostile until `decode` has let its paths through.
"""

from __future__ import annotations

import os
import re
from typing import Final

from ckptlog.errors import ArgumentError, FormatError

NAME_BYTES_MAX: Final = 255
PATH_BYTES_MAX: Final = 65_536

_odd = re.compile("[%\udc80-\udcff]").search
_escaped = re.compile(rb"%([0-9A-F]{2})")
_REFUSED: Final = frozenset(("", ".", ".."))


def encode(path: str) -> str:
    """Return the text of a path that the operating system gave (with surrogate escapes)."""
    if _odd(path):
        path = "".join(_spelling(letter) for letter in path)
    return "%24" + path[1:] if path.startswith("$") else path


def _spelling(letter: str) -> str:
    if letter == "%":
        return "%25"
    code = ord(letter)
    return f"%{code - 0xDC00:02X}" if 0xDC80 <= code <= 0xDCFF else letter


def decode(text: str) -> str:
    """Return the path that a text of a payload names.

    Raises:
        FormatError: It is not what `encode` gives, or leads anywhere but down from the root.
    """
    path = unescaped(text)
    if (
        not _REFUSED.isdisjoint(path.split("/"))
        or "\0" in path
        or len(path) > PATH_BYTES_MAX
        or encode(path) != text
    ):
        raise FormatError(
            f"A directory's payload has the path {text[:200]!r}, which no capture writes.",
            hint="Nothing was changed. `ckptlog verify` checks the store.",
            path=text[:200],
        )
    return path


def unescaped(text: str) -> str:
    """Return what `encode` wrote, whatever it may lead to."""
    if "%" not in text:
        return text
    raw = _escaped.sub(lambda match: bytes((int(match[1], 16),)), text.encode())
    return raw.decode("utf-8", "surrogateescape")


def parts_of(path: str) -> tuple[str, ...]:
    """Return a path's names; in their order a directory stands before its content."""
    return tuple(path.split("/"))


def parent_of(path: str) -> str:
    """Return the path of the directory that a path lies in; "" is the root."""
    return path.rpartition("/")[0]


def above(path: str) -> list[str]:
    """Return the directories that a path lies in, but the root."""
    names = path.split("/")
    return ["/".join(names[:count]) for count in range(1, len(names))]


def join(directory: str, name: str) -> str:
    """Return the path of a name in a directory."""
    return f"{directory}/{name}" if directory else name


def is_odd(path: str) -> bool:
    """Say whether a path has a `%`, or bytes that are not UTF-8."""
    return _odd(path) is not None


def shown(path: str) -> str:
    """Return a path for people and JSON: bytes that are not UTF-8 as `%XX`."""
    return encode(path) if _odd(path) else path


def given(path: str | os.PathLike[str]) -> str:
    """Return the path below a root that a user named, without `.` and double slashes.

    Raises:
        ArgumentError: It leads out of the root, or is the root.
    """
    text = os.fspath(path)
    names = [name for name in text.split("/") if name not in {"", "."}]
    made = "/".join(names)
    if not names or ".." in names or "\0" in made or len(made) > PATH_BYTES_MAX:
        raise ArgumentError(
            f"{encode(text)[:200]!r} names nothing below the directory.",
            hint="Paths are relative to the directory; without any, all of it is meant.",
            path=encode(text)[:200],
        )
    return made
