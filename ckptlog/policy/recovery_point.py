"""Which checkpoint a task resumes from: a pure choice over what is there.

The latest checkpoint whose data verifies and that did not fail; a failed one only if nothing else
is left. Later means: created later in the log, not a greater step, and not a clock.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

FAILED = "failed"


class Candidate(msgspec.Struct, frozen=True):
    """One living checkpoint of a task; fault says why its bytes do not verify, None if they do."""

    checkpoint: str
    state: str
    step: int
    fault: str | None


class Choice(msgspec.Struct, frozen=True):
    """The chosen id or None, why, and each candidate that was looked at with its reason."""

    chosen: str | None
    reason: str
    candidates: tuple[tuple[Candidate, str], ...]


def choose(newest_first: Iterable[Candidate]) -> Choice:
    """Choose a recovery point; candidates are looked at only as far as needed."""
    looked_at: list[tuple[Candidate, str]] = []
    fallback: Candidate | None = None
    for candidate in newest_first:
        if candidate.fault is not None:
            looked_at.append((candidate, f"its bytes do not verify: {candidate.fault}"))
        elif candidate.state == FAILED:
            looked_at.append((candidate, "it failed; only taken if nothing else is left"))
            fallback = fallback or candidate
        else:
            reason = f"the latest {candidate.state} checkpoint whose data verifies"
            looked_at.append((candidate, f"chosen: {reason}"))
            return Choice(candidate.checkpoint, reason, tuple(looked_at))
    if fallback is not None:
        reason = "the latest failed checkpoint; nothing else is left"
        return Choice(fallback.checkpoint, reason, tuple(looked_at))
    reason = "no checkpoint of the task verifies" if looked_at else "the task has no checkpoint"
    return Choice(None, reason, tuple(looked_at))
