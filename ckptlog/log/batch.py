"""What is appended, and what comes of it: items, commits to be, `Won`, `Lost`, the tail."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ckptlog.formats import chunk
from ckptlog.model.entry import Commit
from ckptlog.model.event import Event

# Chunk records above this many bytes in one commit go to a pack first (specs/log.md).
CHUNK_BYTES_IN_LOG_MAX = 1024 * 1024


class Item(msgspec.Struct, frozen=True, gc=False):
    """One event to append, and the chunk records that ride in front of it."""

    event: Event
    records: Sequence[bytes] = ()


Group = Sequence[Item]
"""The items of one commit: all or nothing."""


class Tail(msgspec.Struct, frozen=True, gc=False):
    """Where the next commit goes.

    position: Of the next event.
    first, generation: The segment.
    offset: In it, bytes.
    durable: Bytes of it that are known to be on the medium; equals offset unless
        durability is "interval".
    leaf: Leaf hash of event position - 1; zeros in an empty log.
    """

    position: int
    first: int
    generation: int
    offset: int
    durable: int
    leaf: bytes


class Won(msgspec.Struct, frozen=True, gc=False):
    """The groups were appended, one commit each, at the position that was asked for."""

    commits: tuple[Commit, ...]


class Lost(msgspec.Struct, frozen=True, gc=False):
    """Another writer was there first; nothing was written. Catch up to the tail and decide anew."""

    tail: Tail


def has_difference(groups: Sequence[Group]) -> bool:
    """Say whether some chunk is stored as a difference from another."""
    return any(chunk.base_in(data) for group in groups for item in group for data in item.records)
