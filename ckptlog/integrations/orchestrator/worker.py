"""WorkerCheckpointIntegration: a worker's tasks as checkpoints, by the specification's names."""

from __future__ import annotations

from typing import Any, Final

from ckptlog.errors import ArgumentError
from ckptlog.integrations.orchestrator.session import Session, refusal, resume, told_fully
from ckptlog.manager.draft import check_type
from ckptlog.manager.finish import finish
from ckptlog.manager.lease import Lease
from ckptlog.manager.manager import CheckpointManager
from ckptlog.model.identifier import CHECKPOINT_ID_CHARACTERS_MAX, check_id
from ckptlog.recovery.task_recovery import NOT_INTERRUPTED, TaskRecovery

# Ids of tasks that are over and remembered; a worker that has had more forgets the oldest.
SESSIONS_MAX: Final = 10_000


class WorkerCheckpointIntegration:
    """Integration between checkpoints and a worker process.

        worker = WorkerCheckpointIntegration("worker-1", manager)
        name = worker.start_task_execution("task-1", "Resize the images")
        worker.update_execution_progress(name, {"done": 10})
        worker.complete_task_execution(name, {"files": 40})

    A task that is started is this worker's: it holds a lease on it, renewed in the background,
    until the task ends. A worker that dies loses it after lease_ttl_s; whoever starts the task then
    goes on from its recovery point. What a worker still writes about a task that it has lost, or
    ended, is refused, for as long as this object is there.

    Args:
        resume: Go on with a task that was interrupted; else it begins anew.
        lease_ttl_s, attempts_max, worker_attempts_max: As in `TaskRecovery`.

    Threads: safe for different tasks.
    """

    def __init__(
        self,
        worker_id: str,
        checkpoint_manager: CheckpointManager,
        *,
        resume: bool = True,
        lease_ttl_s: float = 60.0,
        attempts_max: int = 4,
        worker_attempts_max: int | None = 2,
    ) -> None:
        check_type("checkpoint_manager", checkpoint_manager, CheckpointManager)
        self.worker_id = check_id("worker_id", worker_id)
        self._manager = checkpoint_manager
        self._resumes = resume
        self._recovery = TaskRecovery(
            checkpoint_manager,
            worker_id,
            ttl_s=lease_ttl_s,
            attempts_max=attempts_max,
            worker_attempts_max=worker_attempts_max,
        )
        # By each checkpoint that the task has had here, so that the id first returned stays good.
        # Those that are over stay too: a write that came without their lease would be accepted.
        self._sessions: dict[str, Session] = {}

    def start_task_execution(self, task_id: str, task_title: str) -> str:
        """Claim a task and return the id of its checkpoint, active or restored.

        A task that was interrupted goes on from its recovery point: the data of that checkpoint is
        where to go on (`manager.get_checkpoint(id).data`). Any other begins at step 1.

        Raises:
            LeaseHeldError: Another worker has it.
            TaskGivenUpError: It had its attempts, all or this worker's; or no bytes verify.
        """
        lease = self._recovery.acquire(task_id)
        try:
            session = self._started(lease, task_title)
        except BaseException:
            lease.release()
            raise
        self._keep(session)
        return session.checkpoint

    def _started(self, lease: Lease, title: str) -> Session:
        if self._resumes:
            outcome, session = resume(self._manager, self._recovery, lease, title)
            if session is not None:
                return session
            if outcome.action != NOT_INTERRUPTED:
                raise refusal(lease.task, outcome)
        session = Session(self._manager, lease, title, self.worker_id)
        session.begin()
        return session

    def update_execution_progress(self, checkpoint_id: str, progress_data: dict[str, Any]) -> None:
        """Merge progress into the task's data, durably.

        `step_number`, `total_steps` and `step_description` in it count as such too; a greater step
        completes the present checkpoint and opens one of its own (`present_checkpoint`).

        Raises:
            LeaseLostError: Another worker has the task now: stop.
            CheckpointUpdateError, CheckpointNotFoundError: As `update_checkpoint`.
        """
        if type(progress_data) is not dict:
            raise ArgumentError(
                f"progress_data is a {type(progress_data).__name__}; a dictionary is needed.",
                argument="progress_data",
            )
        session = self._session(checkpoint_id)
        if session is None:
            self._manager.update_checkpoint(checkpoint_id, data=progress_data)
            return
        name = session.progress(progress_data)
        self._sessions.setdefault(name, session)

    def complete_task_execution(self, checkpoint_id: str, results: dict[str, Any]) -> None:
        """Complete the task with results merged into its data, and let it go.

        It is done then, also where `total_steps` promised more steps than came.

        Raises:
            LeaseLostError: Another worker has the task now: its results count.
        """
        session = self._session(checkpoint_id)
        if session is None:
            finish(self._manager, checkpoint_id, results)
        else:
            session.complete(results)

    def handle_execution_error(self, checkpoint_id: str, error: Exception) -> None:
        """Fail the task: type, message and traceback go to metadata["error_info"]; let it go.

        Raises:
            LeaseLostError: Another worker has the task now; nothing was written.
        """
        check_type("error", error, BaseException)
        session = self._session(checkpoint_id)
        if session is None:
            self._manager.fail_checkpoint(checkpoint_id, told_fully(error))
        else:
            session.fail(error)

    def present_checkpoint(self, checkpoint_id: str) -> str:
        """Return the present checkpoint of a task that has any of its checkpoints' ids."""
        session = self._session(checkpoint_id)
        return checkpoint_id if session is None else session.checkpoint

    def _session(self, checkpoint_id: str) -> Session | None:
        check_id("checkpoint_id", checkpoint_id, CHECKPOINT_ID_CHARACTERS_MAX)
        return self._sessions.get(checkpoint_id)

    def _keep(self, session: Session) -> None:
        """Take a session in; forget the oldest that are over, where there are very many."""
        self._sessions.pop(session.checkpoint, None)
        self._sessions[session.checkpoint] = session
        if len(self._sessions) <= SESSIONS_MAX:
            return
        for name, one in list(self._sessions.items())[: SESSIONS_MAX // 2]:
            if one.is_over:
                del self._sessions[name]
