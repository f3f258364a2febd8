"""Where things lie: an event with its position and place, a chunk with its place, a commit."""

from __future__ import annotations

import msgspec

from ckptlog.model.event import Event
from ckptlog.model.leaf import leaf_hash


class Placement(msgspec.Struct, frozen=True, gc=False):
    """Where one chunk's frame lies.

    digest: 32 bytes, the chunk's id.
    container: Path below the store's root, with forward slashes (`log/...seg`, `packs/...pack`).
    offset, length: Of the whole frame in the container, bytes.
    """

    digest: bytes
    container: str
    offset: int
    length: int


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One event in the log.

    offset, length: Of the event's frame in the container, bytes.
    span: Bytes before offset that hold the frames of the chunks this event brought; they can be
        read together with the event. 0 where it brought none.
    """

    event: Event
    position: int
    container: str
    offset: int
    length: int
    span: int

    @property
    def origin(self) -> int:
        """Position of the creation of the checkpoint that the event is about."""
        return self.position if self.event.origin < 0 else self.event.origin

    @property
    def created(self) -> str:
        """Time of that creation."""
        return self.event.created or self.event.time


class Commit(msgspec.Struct, frozen=True, gc=False):
    """One whole commit: events in order, the chunks in their frames, and where it ends.

    leaf: RFC 6962 leaf hash of the last event, 32 bytes.
    offset_end: First byte after the commit in its container.
    raw: The stored bytes of its events, as they are hashed; empty where there is one event only,
        whose hash is `leaf`.
    """

    entries: tuple[Entry, ...]
    placements: tuple[Placement, ...]
    leaf: bytes
    container: str
    offset_end: int
    raw: tuple[bytes, ...] = ()

    @property
    def position_next(self) -> int:
        """Position after the last event."""
        return self.entries[-1].position + 1

    @property
    def leaves(self) -> tuple[bytes, ...]:
        """Leaf hashes of all its events, in order; hashed when they are asked for."""
        return (*map(leaf_hash, self.raw[:-1]), self.leaf)
