"""The state machine of a checkpoint, as one table.

Everything that asks whether a change is legal, and the diagram in specs/states.md, reads
`TRANSITIONS`. Deleting is legal from every state and is not a state: it ends the checkpoint.
"""

from __future__ import annotations

from enum import Enum

from ckptlog.errors import ArgumentError
from ckptlog.model.quotation import quoted


class CheckpointState(Enum):
    """What a checkpoint is at present."""

    CREATED = "created"
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"
    RESTORED = "restored"

    @classmethod
    def valid_transitions(cls, from_state: CheckpointState | str) -> list[CheckpointState]:
        """Return the states that may follow from_state, in the order of the table.

        Raises:
            ArgumentError: from_state is no state, nor the text of one.
        """
        return list(TRANSITIONS[state_of(from_state)])


_CREATED, _ACTIVE, _COMPLETED, _FAILED, _RESTORED = CheckpointState

TRANSITIONS: dict[CheckpointState, tuple[CheckpointState, ...]] = {
    _CREATED: (_ACTIVE, _COMPLETED, _FAILED, _RESTORED),
    _ACTIVE: (_ACTIVE, _COMPLETED, _FAILED, _RESTORED),
    _COMPLETED: (_RESTORED,),
    _FAILED: (_RESTORED,),
    _RESTORED: (_ACTIVE, _COMPLETED, _FAILED, _RESTORED),
}

# The event that records arriving in a state. CREATED is entered only by creation.
EVENT_OF_STATE: dict[CheckpointState, str] = {
    _CREATED: "checkpoint.created",
    _ACTIVE: "checkpoint.updated",
    _COMPLETED: "checkpoint.completed",
    _FAILED: "checkpoint.failed",
    _RESTORED: "checkpoint.restored",
}


def state_of(state: object) -> CheckpointState:
    """Return a state, or the one that a text names.

    Raises:
        ArgumentError: There is no such state.
    """
    try:
        return CheckpointState(state)
    except ValueError:
        names = ", ".join(one.value for one in CheckpointState)
        raise ArgumentError(
            f"There is no state {quoted(state)}.",
            hint=f"The states are: {names}.",
            argument="state",
        ) from None


def is_legal(before: str | None, after: str) -> bool:
    """Say whether a checkpoint in state `before` (None: not there yet) may go to `after`."""
    if before is None:
        return after == _CREATED.value
    return CheckpointState(after) in TRANSITIONS[CheckpointState(before)]


def mermaid() -> str:
    """Return the diagram of the table, in Mermaid's language."""
    lines = ["stateDiagram-v2", f"    [*] --> {_CREATED.value}: create"]
    for before, afters in TRANSITIONS.items():
        lines += [f"    {before.value} --> {after.value}" for after in afters]
    lines += [f"    {state.value} --> [*]: delete" for state in CheckpointState]
    return "\n".join(lines) + "\n"
