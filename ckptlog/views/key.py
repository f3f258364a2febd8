"""The number under which a checkpoint's id is indexed.

A generated id, `cp_{task}_{step}_{time}`, ends in a time that rises, so a number led by that
time makes the index grow at its end, where its pages are warm; an index over the text would touch
a far page for each new id. The low bits come from a hash of the whole id. Two ids may share a
number: whoever looks one up compares the id itself.
"""

from __future__ import annotations

from typing import Final

from xxhash import xxh3_64_intdigest

_GENERATED_PREFIX: Final = b"cp_"
# 18 digits always fit SQLite's 64-bit integer; microseconds of today have 16.
TIME_DIGITS_MAX: Final = 18
# The times up to the year 2112 have room beside the hash.
_HASH_BITS: Final = 11
_HASH_MASK: Final = (1 << _HASH_BITS) - 1
_TIME_END: Final = 1 << (63 - _HASH_BITS)


def generated_time(identifier: str) -> int | None:
    """Return the number that a generated id ends in, None for an id of another form."""
    return _time(_raw(identifier))


def id_key(identifier: str) -> int:
    """Return the number under which an id is indexed: 0 to 2**63 - 1 led by its time, or negative.

    Negative numbers are plain hashes, of ids that no clock made.
    """
    raw = identifier.encode("utf-8", "surrogatepass")
    digest = xxh3_64_intdigest(raw)
    # As `_time` below, without the calls: this runs for every checkpoint that is written.
    if raw[:3] == _GENERATED_PREFIX:
        digits = raw[raw.rfind(b"_") + 1 :]
        if digits.isdigit() and len(digits) <= TIME_DIGITS_MAX:
            time = int(digits)
            if time < _TIME_END:
                return time << _HASH_BITS | digest & _HASH_MASK
    return -1 - (digest >> 1)


def time_of(identifier: str, key: int) -> int:
    """Return what `generated_time` does, 0 for None; nearly free where the id's key is known."""
    return key >> _HASH_BITS if key >= 0 else generated_time(identifier) or 0


def _raw(identifier: str) -> bytes:
    return identifier.encode("utf-8", "surrogatepass")


def _time(raw: bytes) -> int | None:
    # Bytes know ASCII digits only; text would take those of every script.
    if raw[:3] != _GENERATED_PREFIX:
        return None
    digits = raw[raw.rfind(b"_") + 1 :]
    return int(digits) if digits.isdigit() and len(digits) <= TIME_DIGITS_MAX else None
