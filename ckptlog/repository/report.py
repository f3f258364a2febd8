"""What upkeep says of a store: a verification's report, a doctor's findings.

A verification keeps its `Book` while it runs: problems, notes, counts, progress.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from ckptlog.errors import CheckpointError
from ckptlog.log.segments import FOLDER
from ckptlog.model import html

Level = Literal["structure", "existence", "sampled", "full"]
Progress = Callable[[int, int], None]

# A store of which everything is gone must not fill the memory with complaints.
PROBLEMS_MAX: Final = 1000
CHECKPOINTS_MAX: Final = 100
_PROGRESS_BYTES: Final = 256 * 1024


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong.

    code: Stable `room.reason`: those of `ckptlog.errors`, and `history.illegal`, `view.differs`.
    message: What is wrong, for people.
    where: File below the store's root, with the offset in bytes where there is one.
    position: Of the event that it is about; None where that is not known.
    checkpoints: Whose present state cannot be read because of it; at most CHECKPOINTS_MAX.
    """

    code: str
    message: str
    where: str
    position: int | None = None
    checkpoints: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The file below the store's root; empty where it is about none."""
        name, _, offset = self.where.rpartition(":")
        return name if offset.isdecimal() else self.where

    @property
    def offset(self) -> int | None:
        """Where in the file, bytes."""
        _, _, offset = self.where.rpartition(":")
        return int(offset) if offset.isdecimal() else None

    @property
    def is_of_heads(self) -> bool:
        """Whether it is about signed heads, which no repair changes."""
        return self.code.startswith("head.") or self.where.startswith("heads/")

    def to_dict(self) -> dict[str, Any]:
        """Return everything, safe for JSON."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        fields["checkpoints"] = list(self.checkpoints)
        return {**fields, "file": self.file, "offset": self.offset}

    def __str__(self) -> str:
        where = f" at {self.where}" if self.where else ""
        return f"{self.code}{where}: {self.message}"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification found.

    level: As asked for. problems: Empty for a sound store; problems_total counts those that are
    not listed, too. notes: What is no damage but worth knowing (files that do not count, what could
    not be compared). losses: What a repair has told of: payloads that lack a chunk for good.
    events, commits: Read and checked. events_lost: Of them, tombstones (specs/repair.md).
    chunks: Chunk records met. chunks_hashed: Decoded and rehashed by this run; leaves_hashed: Those
        of them that hold bytes of a payload, not names of other chunks.
    payloads: Different payloads, each checked as a tree; 0 for "structure".
    checkpoints: Living ones. bytes_read: Of the files of segments and packs; all of them for
        "full".
    resumed: Containers that an interrupted run had checked. relies_on_note: Whether there are any:
        that they were checked is what `views/verify.json` says, a file of the store.
    share, seed, damaged_share_max: Of "sampled" (specs/verify.md); None for others.
    seconds: It took so long.
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
    problems_total: int = 0
    losses: tuple[Problem, ...] = ()
    losses_total: int = 0
    events_lost: int = 0
    chunks_hashed: int = 0
    leaves_hashed: int = 0
    resumed: int = 0
    relies_on_note: bool = False
    share: float | None = None
    seed: int | None = None
    damaged_share_max: float | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def level_read(self) -> str:
        """The level, with what keeps it from being all that its name says."""
        return f"{self.level}, resumed" if self.relies_on_note else self.level

    def _repr_html_(self) -> str:
        """Show it in a notebook."""
        facts = {
            "level": self.level_read,
            "events": self.events,
            "commits": self.commits,
            "checkpoints": self.checkpoints,
            "chunks": self.chunks,
            "payloads": self.payloads,
            "bytes read": self.bytes_read,
        }
        title = "Verified: sound" if self.ok else f"Verified: {self.problems_total:,} problems"
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
        fields["problems"] = [one.to_dict() for one in self.problems]
        fields["losses"] = [one.to_dict() for one in self.losses]
        fields["notes"] = list(self.notes)
        fields["bytes"] = fields.pop("bytes_read")
        return {"ok": self.ok, **fields}


def with_fault(report: Report, error: CheckpointError) -> Report:
    """Return a report that does not call sound what could not be opened."""
    if any(not one.is_of_heads for one in report.problems):
        return report
    problems = (*report.problems, Problem(error.code, str(error), FOLDER))
    total = report.problems_total + 1
    return msgspec.structs.replace(report, problems=problems, problems_total=total)


class Finding(msgspec.Struct, frozen=True):
    """One thing that a doctor has looked at.

    level: "ok", "warning" (works, but ...) or "error". code: Stable. hint: What to do.
    """

    level: Literal["ok", "warning", "error"]
    code: str
    message: str
    hint: str = ""


class Book:
    """Problems, losses, notes, counts and progress of a verification while it runs.

    Args:
        total_bytes: What there is to read.

    Attributes:
        files: Those that a problem was entered for.
    """

    def __init__(self, level: Level, total_bytes: int, progress: Progress | None) -> None:
        self.level: Level = level
        self.events = self.commits = self.chunks = self.payloads = 0
        self.events_lost = self.chunks_hashed = self.leaves_hashed = self.resumed = 0
        self.notes: list[str] = []
        self.files: set[str] = set()
        self._problems: list[Problem] = []
        self._problems_total = 0
        self._losses: list[Problem] = []
        self._losses_total = 0
        self._total_bytes = total_bytes
        self._bytes_read = 0
        self._bytes_passed = 0
        self._bytes_told = 0
        self._progress = progress

    @property
    def is_clean(self) -> bool:
        """Whether no problem was entered."""
        return not self._problems_total

    def problem(
        self,
        code: str,
        message: str,
        where: str = "",
        *,
        position: int | None = None,
        checkpoints: tuple[str, ...] = (),
    ) -> None:
        """Enter a problem; after a great many only their number."""
        self._problems_total += 1
        found = Problem(code, message, where, position, checkpoints[:CHECKPOINTS_MAX])
        self.files.add(found.file)
        if len(self._problems) < PROBLEMS_MAX:
            self._problems.append(found)

    def loss(self, loss: Problem) -> None:
        """Enter what a repair has told of; after a great many only their number."""
        self._losses_total += 1
        if len(self._losses) < PROBLEMS_MAX:
            self._losses.append(loss)

    def advance(self, count: int, passed: int | None = None) -> None:
        """Enter bytes that were read.

        Args:
            passed: What of `total_bytes` lies behind them, where not all of it was read.
        """
        self._bytes_read += count
        self._bytes_passed += count if passed is None else passed
        if self._progress and self._bytes_passed - self._bytes_told >= _PROGRESS_BYTES:
            self._bytes_told = self._bytes_passed
            self._progress(min(self._bytes_passed, self._total_bytes), self._total_bytes)

    def close(self, *, checkpoints: int, **sampling: Any) -> Report:
        """Return the report.

        Args:
            sampling: share, seed, damaged_share_max, seconds.
        """
        if self._progress:
            self._progress(self._total_bytes, self._total_bytes)
        for total, what in ((self._problems_total, "problems"), (self._losses_total, "losses")):
            if total > PROBLEMS_MAX:
                self.notes.append(f"{total - PROBLEMS_MAX} more {what} are not listed.")
        return Report(
            level=self.level,
            problems=tuple(self._problems),
            problems_total=self._problems_total,
            losses=tuple(self._losses),
            losses_total=self._losses_total,
            notes=tuple(self.notes),
            events=self.events,
            events_lost=self.events_lost,
            commits=self.commits,
            chunks=self.chunks,
            chunks_hashed=self.chunks_hashed,
            leaves_hashed=self.leaves_hashed,
            resumed=self.resumed,
            relies_on_note=self.resumed > 0,
            payloads=self.payloads,
            checkpoints=checkpoints,
            bytes_read=self._bytes_read,
            **sampling,
        )
