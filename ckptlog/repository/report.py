"""What upkeep says of a store: a verification's report, a doctor's findings.

A verification keeps its `Book` while it runs: problems, notes, counts, progress.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from ckptlog.model import html

Level = Literal["full", "structure"]
Progress = Callable[[int, int], None]

# A store of which everything is gone must not fill the memory with complaints.
PROBLEMS_MAX: Final = 1000
_PROGRESS_BYTES: Final = 256 * 1024


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong.

    code: Stable `room.reason`: those of `ckptlog.errors`, and `history.illegal`, `view.differs`.
    message: What is wrong, for people.
    where: File below the store's root, with the offset in bytes where there is one.
    """

    code: str
    message: str
    where: str

    def __str__(self) -> str:
        where = f" at {self.where}" if self.where else ""
        return f"{self.code}{where}: {self.message}"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification found.

    level: "full" or "structure". problems: Empty for a sound store. notes: What is no damage
    but worth knowing (files that do not count, what could not be compared).
    events, commits: Read and checked. chunks: Chunk records met ("full": rehashed).
    payloads: Different payloads put together and decoded; 0 for "structure".
    checkpoints: Living ones. bytes_read: Of segments and packs.
    """

    level: Level
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    events: int
    commits: int
    chunks: int
    payloads: int
    checkpoints: int
    bytes_read: int

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def _repr_html_(self) -> str:
        """Show it in a notebook."""
        facts = {
            "level": self.level,
            "events": self.events,
            "commits": self.commits,
            "checkpoints": self.checkpoints,
            "chunks": self.chunks,
            "payloads": self.payloads,
            "bytes read": self.bytes_read,
        }
        title = "Verified: sound" if self.ok else f"Verified: {len(self.problems):,} problems"
        parts = []
        if self.problems:
            rows = ((one.code, one.where, one.message) for one in self.problems)
            parts.append(html.table(("code", "where", "problem"), rows, total=len(self.problems)))
        if self.notes:
            notes = ((note,) for note in self.notes)
            parts.append(html.table(("note",), notes, total=len(self.notes)))
        return html.card(title, facts, *parts)

    def to_dict(self) -> dict[str, Any]:
        """Return everything, safe for JSON; `bytes` is what was read."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        fields["problems"], fields["notes"] = list(fields["problems"]), list(fields["notes"])
        fields["bytes"] = fields.pop("bytes_read")
        return {"ok": self.ok, **fields}


class Finding(msgspec.Struct, frozen=True):
    """One thing that a doctor has looked at.

    level: "ok", "warning" (works, but ...) or "error". code: Stable. hint: What to do.
    """

    level: Literal["ok", "warning", "error"]
    code: str
    message: str
    hint: str = ""


class Book:
    """Problems, notes, counts and progress of a verification while it runs.

    Args:
        total_bytes: What there is to read.
    """

    def __init__(self, level: Level, total_bytes: int, progress: Progress | None) -> None:
        self.level: Level = level
        self.events = self.commits = self.chunks = self.payloads = 0
        self.notes: list[str] = []
        self._problems: list[Problem] = []
        self._more = 0
        self._total_bytes = total_bytes
        self._bytes_read = 0
        self._bytes_told = 0
        self._progress = progress

    def problem(self, code: str, message: str, where: str = "") -> None:
        """Enter a problem; after a great many only their number."""
        if len(self._problems) < PROBLEMS_MAX:
            self._problems.append(Problem(code, message, where))
        else:
            self._more += 1

    def advance(self, count: int) -> None:
        """Enter bytes that were read."""
        self._bytes_read += count
        if self._progress and self._bytes_read - self._bytes_told >= _PROGRESS_BYTES:
            self._bytes_told = self._bytes_read
            self._progress(min(self._bytes_read, self._total_bytes), self._total_bytes)

    def close(self, *, checkpoints: int) -> Report:
        """Return the report."""
        if self._progress:
            self._progress(self._total_bytes, self._total_bytes)
        if self._more:
            self.notes.append(f"{self._more} more problems are not listed.")
        return Report(
            level=self.level,
            problems=tuple(self._problems),
            notes=tuple(self.notes),
            events=self.events,
            commits=self.commits,
            chunks=self.chunks,
            payloads=self.payloads,
            checkpoints=checkpoints,
            bytes_read=self._bytes_read,
        )
