"""Logs in memory, told in a few words: entries with dense positions and rising times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from ckptlog.model.checkpoint import time_text
from ckptlog.model.entry import Entry
from ckptlog.model.event import SCHEMA, Event, Reference, Subject

BEGIN = datetime(2026, 1, 2, 3, 0, tzinfo=UTC)
_STATES = {"created": "created", "updated": "active", "deleted": "active"}


class Story:
    """Writes entries; each is one second after the one before, unless it says otherwise."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.time = BEGIN

    def wait(self, seconds: float) -> None:
        """Let time pass; a negative number turns the clock back."""
        self.time += timedelta(seconds=seconds)

    def say(
        self,
        kind: str,
        checkpoint: str = "cp",
        *,
        task: str = "t",
        actor: str = "ada",
        size: int | None = None,
        **fields: Any,
    ) -> Entry:
        """Append an event: `created`, `updated`, ... of a checkpoint, or any other type."""
        self.wait(1)
        is_change = "." not in kind
        fields.setdefault("state", _STATES.get(kind, kind) if is_change else "")
        fields.setdefault("step", 1 if is_change else 0)
        event = Event(
            actor=actor,
            data=None if size is None else Reference("leaf", "0" * 64, size),
            id=f"command-{len(self.entries)}",
            schema=SCHEMA,
            subject=Subject(checkpoint if is_change else "", "", "", task, ""),
            time=time_text(self.time),
            type=f"checkpoint.{kind}" if is_change else kind,
            **fields,
        )
        entry = Entry(event, len(self.entries), "log/x", 100 * len(self.entries), 90, 0)
        self.entries.append(entry)
        return entry
