"""The class of an error, from what was said when a checkpoint failed; never the user's words.

`fail_checkpoint` takes any dictionary. A class is taken from the keys below, and only where the
value looks like the name of one: an identifier, the last part of a dotted one, that is written
like a class (`RateLimitError`) or ends as errors do (`timeout`, `gaierror`). Where none of them
has one, what stands before the first `: ` of `error` is taken, as in `ValueError: no such file`;
there only a name that ends as errors do, because `Note: ...` is somebody's text.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

KEYS: Final = ("type", "error_type", "error_class", "exception_type", "exception", "class")
TEXT_KEY: Final = "error"
CHARACTERS_MAX: Final = 64
_MODULE: Final = r"(?:[A-Za-z_]\w*\.)*"
_END: Final = r"(?:error|exception|timeout|warning|interrupt|exit)"
_NAME: Final = re.compile(rf"{_MODULE}(?P<name>[A-Z][A-Z0-9]*[a-z]\w*|_?\w*{_END})", re.ASCII)
_TOLD: Final = re.compile(rf"{_MODULE}(?P<name>[A-Za-z_]\w*)", re.ASCII)
_ENDS: Final = re.compile(rf"\w*{_END}", re.ASCII | re.IGNORECASE)


class _Metadata(msgspec.Struct):
    error_info: Any = None


class _Meta(msgspec.Struct):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


_decoder = msgspec.json.Decoder(_Meta)


def error_class(wire: bytes) -> str | None:
    """Return the class that a failed checkpoint's `meta` payload names; None for none."""
    try:
        info = _decoder.decode(wire).metadata.error_info
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if type(info) is not dict:
        return None
    for key in KEYS:
        if found := _name(_NAME, info.get(key)):
            return found
    text = info.get(TEXT_KEY)
    told = _name(_TOLD, text.partition(": ")[0]) if type(text) is str else None
    return told if told and _ENDS.fullmatch(told) else None


def _name(pattern: re.Pattern[str], value: object) -> str | None:
    """Return the last part of a dotted name, where a value is one."""
    if type(value) is not str or len(value) > 4 * CHARACTERS_MAX:
        return None
    found = pattern.fullmatch(value)
    return found["name"] if found and len(found["name"]) <= CHARACTERS_MAX else None
