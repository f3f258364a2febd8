"""Stored text made safe to look at: every character that would act instead of show is spelled out.

Stored text is somebody else's: it may hold escape sequences that move a terminal's cursor, marks
that turn the line around, or markup. The escapes are those of JSON strings, so that a JSON
document stays the same document after `escape_json`.
"""

from __future__ import annotations

import re
from typing import Final

# C0, DEL, C1; marks and overrides of writing direction; line separators; surrogates.
_HARMFUL: Final = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_UNSAFE: Final = re.compile(f"[\x00-\x1f{_HARMFUL}]")
_UNSAFE_IN_JSON: Final = re.compile(f"[{_HARMFUL}]")
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escape(text: object) -> str:
    """Return text on one line that a terminal only prints."""
    return _UNSAFE.sub(_escaped, str(text))


def escape_json(document: str) -> str:
    """Return a JSON document of the same meaning that a terminal only prints."""
    return _UNSAFE_IN_JSON.sub(_escaped, document)


def _escaped(match: re.Match[str]) -> str:
    character = match.group()
    return _SHORT.get(character) or f"\\u{ord(character):04x}"
