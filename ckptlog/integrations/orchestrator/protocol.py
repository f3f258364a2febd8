"""What an orchestrator and its contexts must have; any object with these attributes will do."""

from __future__ import annotations

from typing import Protocol

from ckptlog.manager.manager import CheckpointManager


class EnhancedTaskContext(Protocol):
    """One task as an orchestrator runs it.

    task_id, task_title: What checkpoints are kept under.

    It may have, and these are used where they are there:

    worker_id: str | None. Who works on it; attempts are counted by it.
    total_steps: int | None.
    step_number: int. Set to the step that was recovered.
    data: dict. The task's state: the first checkpoint takes it, a recovery sets it.
    metadata: dict. Of the first checkpoint.
    checkpoint_id: str | None. Set to the present checkpoint.
    lease: Set to the lease, for whoever writes about the task besides; another process can be given
        `lease.grant`.
    """

    task_id: str
    task_title: str


class EnhancedClaudeOrchestrator(Protocol):
    """An orchestrator.

    checkpoint_manager: Where its checkpoints go.

    It may have, and these are called where they are there:

    on_task_recovered(context, checkpoint): After a recovery; checkpoint is a CheckpointData.
    on_task_given_up(context, reason): A recovery was refused for good; reason is a text.
    on_lease_lost(context, error): Another took the task over: stop working on it. Called from the
        thread that renews.
    """

    checkpoint_manager: CheckpointManager
