"""The leaf hash of an event: what ties a position to one history (specs/tree.md)."""

from __future__ import annotations

import hashlib
from typing import Final

LEAF_EMPTY: Final = bytes(32)
"""Stands where there is no event: before position 0."""

# A copy of a hasher that has read the prefix costs less than a new one.
_begin = hashlib.sha256(b"\x00").copy


def leaf_hash(entry: bytes | memoryview) -> bytes:
    """Return the RFC 6962 leaf hash of an entry: SHA-256 over 0x00 and the entry; 32 bytes."""
    hasher = _begin()
    hasher.update(entry)
    return hasher.digest()
