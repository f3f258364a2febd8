"""CheckpointIndex: the specification's index, answered by the store.

The index follows the log and never leads it: what would change it without an event is refused, and
the message names the call that makes the event.
"""

from __future__ import annotations

from typing import Any, Final

from ckptlog.errors import (
    ArgumentError,
    CheckpointNotFoundError,
    InvalidCreationError,
    InvalidUpdateError,
)
from ckptlog.manager.storage import FileSystemCheckpointStorage
from ckptlog.model.checkpoint import CheckpointData
from ckptlog.model.identifier import CHECKPOINT_ID_CHARACTERS_MAX, check_id
from ckptlog.model.state import CheckpointState
from ckptlog.views.query import Filter

_CALLS: Final = {
    CheckpointState.ACTIVE: "update_checkpoint(checkpoint_id, state=CheckpointState.ACTIVE)",
    CheckpointState.COMPLETED: "complete_checkpoint(checkpoint_id)",
    CheckpointState.FAILED: "fail_checkpoint(checkpoint_id)",
    CheckpointState.RESTORED: "restore_checkpoint(checkpoint_id)",
}


class CheckpointIndex:
    """Finds checkpoints by task, worker and state; always as current as the store.

    The file `index.json` beside the checkpoints' files has the same, as of its `metadata.position`:

        {"by_task": {task: [ids]}, "by_worker": {worker: [ids]}, "by_state": {state: [ids]},
         "metadata": {"last_updated": time, "total_checkpoints": number, "position": position}}

    Threads: safe.
    """

    def __init__(self, storage: FileSystemCheckpointStorage) -> None:
        if not isinstance(storage, FileSystemCheckpointStorage):
            raise ArgumentError(
                f"storage is of type {type(storage).__name__}; a FileSystemCheckpointStorage is "
                "needed.",
                argument="storage",
            )
        self.storage = storage

    # --- finding ------------------------------------------------------------------------------

    def find_by_task(self, task_id: str) -> list[str]:
        """Return the ids of a task's checkpoints, in the order of creation."""
        return self._find(Filter(task=check_id("task_id", task_id)))

    def find_by_worker(self, worker_id: str) -> list[str]:
        """Return the ids of a worker's checkpoints, in the order of creation."""
        return self._find(Filter(worker=check_id("worker_id", worker_id)))

    def find_by_state(self, state: CheckpointState) -> list[str]:
        """Return the ids of the checkpoints in a state, in the order of creation."""
        return self.storage.list_checkpoints(_checked(state))

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `index.json` as of now, safe for JSON."""
        self.storage.refresh()
        return self.storage.view.index()

    def _find(self, wanted: Filter) -> list[str]:
        return list(self.storage.find(wanted))

    # --- what only an event can change --------------------------------------------------------

    def add_checkpoint(self, checkpoint: CheckpointData) -> None:
        """Do nothing: a checkpoint that is in the store is in the index.

        Raises:
            InvalidCreationError: It is not in the store, or not in this state.
        """
        name = checkpoint.checkpoint_id
        state = self._state_of(name)
        if state is None or state is not checkpoint.state:
            found = "not in the store" if state is None else f"{state.value} in the store"
            raise InvalidCreationError(
                f"The index cannot add checkpoint {name!r}, which is {found}: it follows the "
                "store's events.",
                hint="Call CheckpointManager.create_checkpoint(...), or "
                "FileSystemCheckpointStorage.save_checkpoint(checkpoint).",
                checkpoint_id=name,
            )

    def remove_checkpoint(self, checkpoint_id: str) -> None:
        """Do nothing where there is no such checkpoint.

        Raises:
            InvalidUpdateError: It is in the store.
        """
        if self._state_of(checkpoint_id) is not None:
            raise InvalidUpdateError(
                f"The index cannot remove checkpoint {checkpoint_id!r}, which is in the store: it "
                "follows the store's events.",
                hint="Call CheckpointManager.delete_checkpoint(checkpoint_id).",
                checkpoint_id=checkpoint_id,
            )

    def update_checkpoint_state(self, checkpoint_id: str, new_state: CheckpointState) -> None:
        """Do nothing where the checkpoint is in this state.

        Raises:
            CheckpointNotFoundError: There is no such checkpoint.
            InvalidUpdateError: It is in another state.
        """
        state = self._state_of(checkpoint_id)
        if state is None:
            raise CheckpointNotFoundError(
                f"There is no checkpoint {checkpoint_id!r}.",
                hint="Call CheckpointManager.create_checkpoint(...) first.",
                checkpoint_id=checkpoint_id,
            )
        if state is _checked(new_state):
            return
        call = _CALLS.get(new_state)
        raise InvalidUpdateError(
            f"The index cannot make checkpoint {checkpoint_id!r} {new_state.value}; it is "
            f"{state.value}, and the index follows the store's events.",
            hint=f"Call CheckpointManager.{call}." if call else "No state leads back to created.",
            checkpoint_id=checkpoint_id,
            state=state.value,
            target=new_state.value,
        )

    def rebuild_index(self) -> None:
        """Write the files and `index.json` anew from the log."""
        self.storage.view.rebuild()

    def _state_of(self, checkpoint_id: str) -> CheckpointState | None:
        check_id("checkpoint_id", checkpoint_id, CHECKPOINT_ID_CHARACTERS_MAX)
        entry = self.storage.manager.store.newest(checkpoint_id)
        return None if entry is None else CheckpointState(entry.event.state)


def _checked(state: object) -> CheckpointState:
    if not isinstance(state, CheckpointState):
        raise ArgumentError(
            f"state is {state!r}, which is no CheckpointState.",
            hint="Use CheckpointState.ACTIVE, for example.",
            argument="state",
        )
    return state
