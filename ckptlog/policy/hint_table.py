"""The hints of secrets as a table for the kernel: which bytes may stand around each letter.

The kernel's answer is coarser than the hints' expressions (it looks at one byte behind the letter)
and never misses what they find. The layout is described in ckptlog/kernel/kernel.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from ckptlog.policy.secret_text import Hint

ATOM: Final = re.compile(r"\[[^\]]*\]|\\?.")


def hint_table(hints: Iterable[Hint]) -> bytes:
    """Return the table of some hints."""
    lists: dict[int, bytes] = {}
    for hint in hints:
        letter = ord(hint.letter)
        lists[letter] = lists.get(letter, b"") + _entry(hint)
    numbers, places, body = bytearray(256), b"", b""
    for number, (letter, entries) in enumerate(lists.items(), 1):
        numbers[letter] = number
        places += (256 + 2 * len(lists) + len(body)).to_bytes(2, "little")
        body += entries + b"\0"
    return bytes(numbers) + places + body


def _entry(hint: Hint) -> bytes:
    before = [_set_of(atom) for atom in reversed(ATOM.findall(hint.before))]
    needs = ord(hint.needs) if hint.needs else 0
    return bytes((1 + len(before), needs)) + _set_of(hint.then) + b"".join(before)


def _set_of(atom: str) -> bytes:
    """Return the bytes that an atom matches, as 256 bits."""
    expression = re.compile(atom.encode(), re.DOTALL)
    found = bytearray(32)
    for byte in range(256):
        if expression.fullmatch(bytes((byte,))):
            found[byte >> 3] |= 1 << (byte & 7)
    return bytes(found)
