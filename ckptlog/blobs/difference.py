"""Chains of differences, undone.

A record may hold a chunk as a difference from another one of its container, and that one from a
third. The chain down to a whole chunk, or to one whose bytes are known, is gathered first and then
undone from its end, in a loop: what is read is bounded, whatever the records say (specs/chunk.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ckptlog.blobs.cache import Cache
from ckptlog.blobs.codec import Codec
from ckptlog.errors import BlobCorruptionError
from ckptlog.formats import chunk

# Differences between a chunk and a whole one; a reader needs some 12 us for each.
DEPTH_MAX: Final = 64
# What a reader follows: more, so that it need not trust what writers count.
DEPTH_READ_MAX: Final = 2 * DEPTH_MAX

RecordOf = Callable[[bytes], bytes]
"""Returns the record of a digest, or raises a CheckpointError."""


def undone(
    digest: bytes, record_of: RecordOf, codec: Codec, *, known: Cache[bytes, bytes], cost: int = 0
) -> bytes:
    """Return the raw bytes of a chunk, verified, whatever it differs from.

    Args:
        known: Raw bytes by digest; what is undone on the way is remembered in it.
        cost: What remembering one takes besides its bytes.

    Raises:
        BlobCorruptionError: A record is not the chunk of its digest, or the chain has no end.
        CheckpointError: What `record_of` raises.
    """
    chain: list[tuple[bytes, bytes]] = []
    raw = known.get(digest)
    while raw is None:
        if len(chain) >= DEPTH_READ_MAX:
            raise BlobCorruptionError(
                f"Chunk {digest.hex()} is more than {DEPTH_READ_MAX} differences away from a whole "
                "one.",
                digest=digest.hex(),
            )
        record = record_of(digest)
        chain.append((digest, record))
        digest = chunk.base_in(record)
        if not digest:
            break
        raw = known.get(digest)
    for name, record in reversed(chain):
        below = raw
        raw = codec.raw(record, name, base_of=lambda _, below=below: below)  # type: ignore[misc]
        known.put(name, raw, len(raw) + cost)
    assert raw is not None  # noqa: S101 - found at once, or at the chain's end
    return raw
