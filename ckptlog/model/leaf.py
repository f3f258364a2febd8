"""The leaf hash of an event: what ties a position to one history (specs/tree.md)."""

from __future__ import annotations

import binascii
import hashlib
import re
from typing import Final

LEAF_EMPTY: Final = bytes(32)
"""Stands where there is no event: before position 0."""

# A tombstone that knows what stood there (specs/repair.md), in either schema of events. No other
# event has an empty actor and this type.
_TOMBSTONE_START: Final = b'{"actor":"","'
_TOMBSTONE_END: Final = b'"type":"repair.lost"}'
_START_BYTES: Final = len(_TOMBSTONE_START)
_END_BYTES: Final = len(_TOMBSTONE_END)
_LEAF: Final = re.compile(
    rb'\{"actor":"",(?:"facts":\{"leaf":"([0-9a-f]{64})"'
    rb'|"at":-?[0-9]{1,18},"facts":\{"leaf":"([A-Za-z0-9+/]{43})"\})'
)

# A copy of a hasher that has read the prefix costs less than a new one.
_begin = hashlib.sha256(b"\x00").copy


def leaf_hash(entry: bytes | memoryview) -> bytes:
    """Return the RFC 6962 leaf hash of an entry: SHA-256 over 0x00 and the entry; 32 bytes.

    That of a tombstone is the one of the event which was lost there, where it was known.
    """
    if entry[:_START_BYTES] == _TOMBSTONE_START and entry[-_END_BYTES:] == _TOMBSTONE_END:
        leaf = _leaf_in(bytes(entry))
        if leaf is not None:
            return leaf
    hasher = _begin()
    hasher.update(entry)
    return hasher.digest()


def leaf_text(leaf: bytes, *, is_short: bool) -> str:
    """Return a leaf hash as a tombstone has it.

    Args:
        is_short: In schema 2, whose events may be too short for the other form.
    """
    if is_short:
        return binascii.b2a_base64(leaf, newline=False).rstrip(b"=").decode("ascii")
    return leaf.hex()


def _leaf_in(entry: bytes) -> bytes | None:
    found = _LEAF.match(entry)
    if found is None:
        return None
    return (
        bytes.fromhex(found[1].decode("ascii"))
        if found[1]
        else binascii.a2b_base64(found[2] + b"=")
    )
