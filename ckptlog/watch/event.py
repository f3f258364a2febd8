"""What a subscription delivers: one event of a commit, with all that a consumer asks of it."""

from __future__ import annotations

from typing import Any

import msgspec

from ckptlog.formats import cloud_event
from ckptlog.model.cursor import Cursor, after_entry
from ckptlog.model.entry import Commit, Entry
from ckptlog.model.event import Event
from ckptlog.model.leaf import leaf_hash


class WatchEvent(msgspec.Struct, frozen=True, gc=False, eq=False):
    """One durable event.

    entry: Its position, place and fields.
    commit, index: The commit that brought it, and which event of it this is.
    store_id: 32 hexadecimal digits.
    """

    entry: Entry
    commit: Commit
    index: int
    store_id: str

    def __repr__(self) -> str:
        return f"<WatchEvent {self.position} {self.type} {self.checkpoint or self.task}>"

    @property
    def position(self) -> int:
        """In the log."""
        return self.entry.position

    @property
    def event(self) -> Event:
        """All its fields."""
        return self.entry.event

    @property
    def type(self) -> str:
        """What happened: `checkpoint.created`, ..."""
        return self.entry.event.type

    @property
    def time(self) -> str:
        """UTC, ISO 8601."""
        return self.entry.event.time

    @property
    def checkpoint(self) -> str:
        """Id of the checkpoint it is about; empty for none."""
        return self.entry.event.subject.checkpoint

    @property
    def task(self) -> str:
        """Id of the task it is about; empty for none."""
        return self.entry.event.subject.task

    @property
    def state(self) -> str:
        """The checkpoint's state after it."""
        return self.entry.event.state

    @property
    def id(self) -> str:
        """Tells it from every other event of its store; the same in each delivery."""
        return cloud_event.event_id(self.position, self.leaf)

    @property
    def leaf(self) -> bytes:
        """Its leaf hash, 32 bytes."""
        raw = self.commit.raw
        return leaf_hash(raw[self.index]) if raw else self.commit.leaf

    @property
    def cursor(self) -> Cursor:
        """The cursor of a consumer that has acknowledged it."""
        return after_entry(self.entry, self.leaf)

    def to_cloud_event(self) -> dict[str, Any]:
        """Return it as a CloudEvent 1.0 (specs/consumers.md)."""
        return cloud_event.cloud_event(self.entry, self.leaf, self.store_id)

    def to_json(self) -> bytes:
        """Return the CloudEvent as one line of UTF-8 JSON."""
        return cloud_event.encode(self.entry, self.leaf, self.store_id)
