"""A result: what became of a command."""

from __future__ import annotations

from typing import Any

import msgspec


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a command.

    status: What a shell would say: its exit code, or 128 and the signal's number.
    faults: What of ours failed in the end; the command itself did what it did.
    absent: What was named and was never there: nothing of it is saved.
    is_skipped: It was complete already, and was not run.
    """

    task: str
    checkpoint: str
    attempt: int
    state: str
    status: int
    is_skipped: bool = False
    resumed_from: str | None = None
    safety: str | None = None
    capture: str | None = None
    captures: int = 0
    data: dict[str, Any] = msgspec.field(default_factory=dict)
    faults: list[str] = msgspec.field(default_factory=list)
    absent: list[str] = msgspec.field(default_factory=list)
