"""The end of a task: its present checkpoint is completed, however many steps were expected.

A task is complete when its latest checkpoint is completed, and no step is to come
(`can_recover_task`). Whoever says that a task is done means the task: steps that were expected and
did not come are not needed any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckptlog.manager.lease import LeaseArgument
from ckptlog.model.identifier import CHECKPOINT_ID_CHARACTERS_MAX, check_id
from ckptlog.model.state import CheckpointState

if TYPE_CHECKING:
    from ckptlog.manager.manager import CheckpointManager


def finish(
    manager: CheckpointManager,
    checkpoint: str,
    final_data: dict[str, Any] | None,
    lease: LeaseArgument = None,
) -> None:
    """Complete a task at a checkpoint.

    Where more steps were expected, their number becomes that of the checkpoint, in the same
    commit. One that somebody has completed before, with steps to come, is restored for that.

    Raises: As `complete_checkpoint`.

    Durability: all of it, when it returns.
    """
    check_id("checkpoint_id", checkpoint, CHECKPOINT_ID_CHARACTERS_MAX)
    entry = manager.store.newest(checkpoint)
    if entry is None or entry.event.total <= entry.event.step:
        manager.complete_checkpoint(checkpoint, final_data, lease=lease)
        return
    with manager.batch(lease=lease) as batch:
        if entry.event.state == CheckpointState.COMPLETED.value:
            batch.update_checkpoint(checkpoint, state=CheckpointState.RESTORED)
        batch.update_checkpoint(
            checkpoint,
            data=final_data,
            state=CheckpointState.COMPLETED,
            total_steps=entry.event.step,
        )
