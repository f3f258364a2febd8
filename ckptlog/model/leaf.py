"""The leaf hash of an event: what ties a position to one history (specs/tree.md)."""

from __future__ import annotations

import hashlib
from typing import Final

LEAF_EMPTY: Final = bytes(32)
"""Stands where there is no event: before position 0."""

# A tombstone that knows what stood there (specs/repair.md). No other event has an empty actor and
# this type.
TOMBSTONE_START: Final = b'{"actor":"","facts":{"leaf":"'
TOMBSTONE_END: Final = b'"type":"repair.lost"}'
_START_BYTES: Final = len(TOMBSTONE_START)
_LEAF_END: Final = _START_BYTES + 64

# A copy of a hasher that has read the prefix costs less than a new one.
_begin = hashlib.sha256(b"\x00").copy


def leaf_hash(entry: bytes | memoryview) -> bytes:
    """Return the RFC 6962 leaf hash of an entry: SHA-256 over 0x00 and the entry; 32 bytes.

    That of a tombstone is the one of the event which was lost there, where it was known.
    """
    if entry[:_START_BYTES] == TOMBSTONE_START and entry[-len(TOMBSTONE_END) :] == TOMBSTONE_END:
        leaf = _leaf_in(bytes(entry[_START_BYTES:_LEAF_END]))
        if leaf is not None:
            return leaf
    hasher = _begin()
    hasher.update(entry)
    return hasher.digest()


def _leaf_in(digits: bytes) -> bytes | None:
    try:
        leaf = bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return None
    return leaf if len(leaf) == len(LEAF_EMPTY) else None
