"""How often an interrupted task is tried again, and by whom: pure.

    retry -> reassign -> give up

Attempts stand in the metadata of the checkpoints that were resumed from, so in the log, and survive
whoever counts. Those of the recovery point and of what came after it count: a task that gets
further begins to count anew, one that dies at the same place again and again does not.
Page: specs/task-recovery.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

KEY: Final = "recovery"
"""Under this name recovery writes into the metadata of a checkpoint."""
SEED: Final = {"source": "task-master"}
"""Metadata of a first checkpoint that only says what is to be done (specs/task-master.md)."""
_CREATED: Final = "created"
ATTEMPTS_MAX: Final = 1_000
"""So many are kept, and none above are counted: of a hostile list only the newest count."""

BEGIN: Final = "begin"
RETRY: Final = "retry"
REASSIGN: Final = "reassign"
REFUSE: Final = "refuse"
GIVE_UP: Final = "give_up"


class Attempt(msgspec.Struct, frozen=True):
    """One attempt to resume. worker: Who. lease: Its token. at: When, ISO text."""

    worker: str
    lease: int
    at: str


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How often a task is resumed from one place.

    attempts: In all; at most ATTEMPTS_MAX.
    of_worker: By one worker; then another has to; None: as often as in all.
    """

    attempts: int = 4
    of_worker: int | None = 2


class Verdict(msgspec.Struct, frozen=True):
    """What is to be done (RETRY, REASSIGN: resume; REFUSE: another has to; GIVE_UP), and why."""

    action: str
    reason: str


def judge(attempts: Sequence[Attempt], worker: str, limits: Limits) -> Verdict:
    """Decide about a worker that wants to resume a task, after earlier attempts at the place."""
    count = len(attempts)
    if count >= limits.attempts:
        return Verdict(GIVE_UP, f"{_times(count)} without getting further: {_told(attempts)}")
    own = sum(one.worker == worker for one in attempts)
    if limits.of_worker is not None and own >= limits.of_worker:
        return Verdict(REFUSE, f"worker {worker!r} tried {_times(own)}; another has to")
    if not attempts:
        return Verdict(RETRY, "the first attempt from here")
    last = attempts[-1].worker
    if last == worker:
        return Verdict(RETRY, f"attempt {count + 1} of {limits.attempts} from here")
    return Verdict(
        REASSIGN, f"attempt {count + 1} of {limits.attempts} from here, after worker {last!r}"
    )


def is_seed(state: str, metadata: Mapping[str, Any]) -> bool:
    """Say whether a task's latest checkpoint is a seed: nobody has begun the task."""
    return state == _CREATED and all(metadata.get(name) == one for name, one in SEED.items())


def attempts_of(metadata: Mapping[str, Any]) -> tuple[Attempt, ...]:
    """Return the attempts that a checkpoint's metadata tells; what is malformed is left out."""
    record = metadata.get(KEY)
    listed = record.get("attempts") if isinstance(record, Mapping) else None
    found = []
    for one in listed[-ATTEMPTS_MAX:] if isinstance(listed, list) else ():
        try:
            found.append(msgspec.convert(one, Attempt))
        except msgspec.ValidationError:
            continue
    return tuple(found)


def record_of(attempts: Sequence[Attempt]) -> dict[str, Any]:
    """Return what to write under KEY."""
    return {"attempts": msgspec.to_builtins(list(attempts[-ATTEMPTS_MAX:]))}


def gave_up(metadata: Mapping[str, Any]) -> str | None:
    """Return why recovery has given a task up, from its latest checkpoint's metadata."""
    record = metadata.get(KEY)
    reason = record.get("gave_up") if isinstance(record, Mapping) else None
    return reason if isinstance(reason, str) else None


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _told(attempts: Sequence[Attempt]) -> str:
    counts = Counter(one.worker for one in attempts)
    return ", ".join(f"{worker!r} {_times(count)}" for worker, count in counts.items())
