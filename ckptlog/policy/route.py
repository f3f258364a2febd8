"""The shortest legal way from one state of a checkpoint to another: a walk over the table."""

from __future__ import annotations

from collections import deque

from ckptlog.model.state import TRANSITIONS, CheckpointState


def route(
    before: CheckpointState, target: CheckpointState, *, must_move: bool
) -> tuple[CheckpointState, ...] | None:
    """Return the states to pass through, the target last; None where no way leads there.

    Args:
        must_move: Whether something else changes too, so that staying is a step of its own.
    """
    if before is target and not must_move:
        return ()
    waiting: deque[tuple[CheckpointState, ...]] = deque((state,) for state in TRANSITIONS[before])
    seen: set[CheckpointState] = set()
    while waiting:
        way = waiting.popleft()
        if way[-1] is target:
            return way
        if way[-1] not in seen:
            seen.add(way[-1])
            waiting.extend((*way, state) for state in TRANSITIONS[way[-1]])
    return None
