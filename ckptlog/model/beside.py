"""What stands beside a wire: raw bytes, handed over as they are and not as base64 inside of it.

Who puts a stored value together has its large bytes raw. As base64 they would be made to text, a
third longer, searched by the JSON decoder, and made back, at ten times the cost of all the rest.
So a short stand-in takes their place in the text, and lifting puts the bytes where it stands.

Invariants:
* No stored text can hold a stand-in: it has 16 random bytes of its own reading, and characters
  that base64 lacks.
* A stand-in counts only as the whole content of `$bytes` or `$bytearray`, or as the data of
  `$array`. If one stood elsewhere, `is_taken` says no, and the text must be read in full.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Final

_OF_BYTES: Final = frozenset({"$bytes", "$bytearray"})


class Beside:
    """Raw bytes by their stand-ins. Threads: one."""

    __slots__ = ("_count", "_mark", "_pieces")

    def __init__(self) -> None:
        self._mark = f"!{secrets.token_hex(16)}!"
        self._count = 0
        self._pieces: dict[str, Sequence[bytes]] = {}

    def put(self, pieces: Sequence[bytes]) -> bytes:
        """Take bytes, in pieces, and return what stands for them in the text."""
        self._count += 1
        name = f"{self._mark}{self._count}"
        self._pieces[name] = pieces
        return name.encode()

    def taken(self, tag: str, content: Any) -> Sequence[bytes] | None:
        """Hand over the bytes that a tag's content stands for; None where it holds them itself."""
        if not self._pieces:
            return None
        if tag in _OF_BYTES:
            name = content
        elif tag == "$array" and type(content) is dict:
            name = content.get("data")
        else:
            return None
        return self._pieces.pop(name, None) if type(name) is str else None

    @property
    def is_taken(self) -> bool:
        """Whether all stand-ins stood where they count."""
        return not self._pieces


NOTHING: Final = Beside()
