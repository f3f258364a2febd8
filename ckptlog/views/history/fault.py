"""The class of an error, from what was said when a checkpoint failed; never the user's words.

`fail_checkpoint` takes any dictionary. A class is taken from the keys below, and only where the
value looks like the name of one: an identifier, the last part of a dotted one, that is written
like a class (`RateLimitError`) or ends as errors do (`timeout`, `gaierror`).
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

KEYS: Final = ("type", "error_type", "error_class", "exception_type", "exception", "class")
CHARACTERS_MAX: Final = 64
_NAME: Final = re.compile(
    r"(?:[A-Za-z_]\w*\.)*"
    r"(?P<name>[A-Z][A-Z0-9]*[a-z]\w*|_?\w*(?:error|exception|timeout|warning|interrupt|exit))",
    re.ASCII,
)


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
        value = info.get(key)
        if type(value) is str and len(value) <= 4 * CHARACTERS_MAX:
            found = _NAME.fullmatch(value)
            if found and len(found["name"]) <= CHARACTERS_MAX:
                return found["name"]
    return None
