"""The hints of secrets as a table for the kernel: which bytes may stand around each letter.

The kernel's answer is coarser than the hints' expressions (it looks at one byte behind the letter)
and never misses what they find. The layout is described in ckptlog/kernel/kernel.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from ckptlog.policy.secret_text import Hint

_ANY: Final = bytes([255]) * 32
ATOM: Final = re.compile(r"\[[^\]]*\]|\\?.")


def hint_table(hints: Iterable[Hint]) -> bytes:
    """Return the table of some hints."""
    lists: dict[int, bytes] = {}
    beside: dict[int, list[bytes]] = {}
    for hint in hints:
        letter = ord(hint.letter)
        lists[letter] = lists.get(letter, b"") + _entry(hint)
        atoms = ATOM.findall(hint.before)
        sets = [_set_of(atom) for atom in (*atoms[-2:], hint.then)]
        sets = [_ANY] * (3 - len(sets)) + sets  # second before, before, after
        known = beside.get(letter, [bytes(32)] * 3)
        beside[letter] = [_either(*pair) for pair in zip(known, sets, strict=True)]
    numbers, places, body = bytearray(256), b"", b""
    for number, (letter, entries) in enumerate(lists.items(), 1):
        numbers[letter] = number
        places += (384 + 2 * len(lists) + len(body)).to_bytes(2, "little")
        body += beside[letter][2] + beside[letter][1] + entries + b"\0"
    return bytes(numbers) + _halves(beside) + places + body


def _halves(beside: dict[int, list[bytes]]) -> bytes:
    """Return by which halves of four bytes a vector finds the letters: see kernel/suspicion.c.

    Letters of one bucket are neighbours, so that their halves make few other bytes.
    """
    tables = [bytearray(32) for _ in range(4)]
    for number, letter in enumerate(sorted(beside)):
        bucket = 1 << number * 8 // len(beside)
        second, before, after = beside[letter]
        for table, allowed in zip(tables, (second, before, _only(letter), after), strict=True):
            for byte in range(256):
                if allowed[byte >> 3] >> (byte & 7) & 1:
                    table[byte & 15] |= bucket
                    table[16 + (byte >> 4)] |= bucket
    return b"".join(tables)


def _only(byte: int) -> bytes:
    return (1 << byte).to_bytes(32, "little")


def _either(one: bytes, other: bytes) -> bytes:
    return bytes(a | b for a, b in zip(one, other, strict=True))


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
