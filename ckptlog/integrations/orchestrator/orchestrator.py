"""EnhancedOrchestratorIntegration: an orchestrator's tasks as checkpoints, by the spec's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from ckptlog.errors import ArgumentError, CheckpointError, InvalidUpdateError, LeaseHeldError
from ckptlog.integrations.orchestrator.protocol import (
    EnhancedClaudeOrchestrator,
    EnhancedTaskContext,
)
from ckptlog.integrations.orchestrator.session import Session, resume
from ckptlog.manager.draft import check_type
from ckptlog.manager.interruption import InterruptedTask
from ckptlog.manager.lease import Lease
from ckptlog.manager.manager import CheckpointManager
from ckptlog.model.identifier import check_id
from ckptlog.model.state import CheckpointState
from ckptlog.policy import retrial
from ckptlog.recovery.task_recovery import HELD, UNRECOVERABLE, Outcome, TaskRecovery


class EnhancedOrchestratorIntegration:
    """Integration between checkpoints and an orchestrator.

    A task that is set up or recovered here is held under a lease, renewed in the background, until
    it ends: no other orchestrator, and no worker of one that died, writes about it meanwhile.

    Args:
        orchestrator: See `EnhancedClaudeOrchestrator`.
        lease_ttl_s, attempts_max, worker_attempts_max: As in `TaskRecovery`; attempts count by the
            context's worker_id, or for the orchestrator as a whole.

    Threads: safe for different tasks.
    """

    def __init__(
        self,
        orchestrator: EnhancedClaudeOrchestrator,
        *,
        lease_ttl_s: float = 60.0,
        attempts_max: int = 4,
        worker_attempts_max: int | None = 2,
    ) -> None:
        manager = getattr(orchestrator, "checkpoint_manager", None)
        check_type("orchestrator.checkpoint_manager", manager, CheckpointManager)
        self._orchestrator = orchestrator
        self._manager: CheckpointManager = orchestrator.checkpoint_manager
        self._options: dict[str, Any] = {
            "ttl_s": lease_ttl_s,
            "attempts_max": attempts_max,
            "worker_attempts_max": worker_attempts_max,
        }
        self._sessions: dict[str, Session] = {}
        # Why a recovery did not go on, by task.
        self._reasons: dict[str, str] = {}

    # --- the specification's ------------------------------------------------------------------

    def setup_task_checkpointing(self, context: EnhancedTaskContext) -> None:
        """Claim a task and open its first checkpoint, active, with the context's data.

        A task that was interrupted is not looked at: `handle_task_recovery` goes on with such.

        Raises:
            LeaseHeldError: Another orchestrator or worker has it.
            ArgumentError: The context is not as the protocol says, or is set up already.
        """
        task = _task(context)
        present = self._sessions.get(task)
        if present is not None and not present.is_over:
            raise ArgumentError(
                f"Task {task!r} is set up already.",
                hint="handle_task_progress goes on with it.",
                argument="context",
            )
        self._claim(context, lambda session: self._begin(context, session))

    def handle_task_progress(
        self, context: EnhancedTaskContext, progress_data: dict[str, Any]
    ) -> None:
        """Merge progress into the task's data, durably.

        `step_number`, `total_steps` and `step_description` in it count as such too; a greater step
        completes the present checkpoint and opens the next one.

        Raises:
            LeaseLostError: The task was taken over: stop.
            InvalidUpdateError: The task is not set up here.
        """
        check_type("progress_data", progress_data, dict)
        session = self._session(context)
        session.progress(progress_data)
        _tell(context, "checkpoint_id", session.checkpoint)
        _tell(context, "step_number", session.step)

    def handle_task_failure(self, context: EnhancedTaskContext, error: Exception) -> None:
        """Fail the task: its checkpoint, or a new one where it has none, tells the error.

        Raises:
            LeaseHeldError, LeaseLostError: Another has the task; nothing was written.
            InvalidUpdateError: The task is done, or was given up; nothing was written.
        """
        check_type("error", error, BaseException)
        if _task(context) not in self._sessions:
            self._claim(context, lambda session: self._find(context, session))
        self._end(context, lambda session: session.fail(error))

    def handle_task_recovery(self, context: EnhancedTaskContext) -> bool:
        """Go on with an interrupted task from its recovery point; say whether it goes on.

        The context gets `data`, `step_number`, `checkpoint_id` and `lease`. False: there is nothing
        to recover, another has the task, this worker had its attempts, or it was given up (then
        its checkpoint says why, and `on_task_given_up` is told). `why_not` has the reason.

        Raises:
            CheckpointStorageError: The store refused.
        """
        task, title = _task(context), _title(context)
        self._reasons.pop(task, None)
        recovery = TaskRecovery(self._manager, self._worker(context), **self._options)
        if (refusal := recovery.foreseen(task)) is not None:
            return self._refused(context, refusal)
        try:
            lease = self._acquire(context)
        except LeaseHeldError as error:
            return self._refused(context, Outcome(HELD, error.message))
        try:
            outcome, session = resume(self._manager, recovery, lease, title)
        except BaseException:
            lease.release()
            raise
        if session is None or outcome.task is None:
            lease.release()
            return self._refused(context, outcome)
        _tell(context, "data", outcome.task.checkpoint.data)
        self._keep(context, session)
        self._call("on_task_recovered", context, outcome.task.checkpoint)
        return True

    # --- beyond it ----------------------------------------------------------------------------

    def handle_task_completion(
        self, context: EnhancedTaskContext, results: dict[str, Any] | None = None
    ) -> None:
        """Complete the task, with results merged into its data, and let it go.

        Raises:
            LeaseLostError: The task was taken over: the other's results count.
            InvalidUpdateError: The task is not set up here.
        """
        self._end(context, lambda session: session.complete(results))

    def find_interrupted_tasks(self, **options: Any) -> list[InterruptedTask]:
        """Return the tasks to recover, as `CheckpointManager.find_interrupted_tasks`."""
        return self._manager.find_interrupted_tasks(**options)

    def why_not(self, context: EnhancedTaskContext) -> str | None:
        """Return why the last recovery of a task did not go on; None where it did."""
        return self._reasons.get(_task(context))

    # --- inside -------------------------------------------------------------------------------

    def _refused(self, context: EnhancedTaskContext, outcome: Outcome) -> bool:
        if outcome.action in (retrial.GIVE_UP, UNRECOVERABLE):
            self._call("on_task_given_up", context, outcome.reason)
        self._reasons[_task(context)] = outcome.reason
        return False

    def _acquire(self, context: EnhancedTaskContext) -> Lease:
        def lost(error: CheckpointError) -> None:
            self._call("on_lease_lost", context, error)

        return self._manager.acquire_lease(
            _task(context),
            ttl_s=self._options["ttl_s"],
            holder=self._worker(context),
            background=True,
            on_lost=lost,
        )

    def _claim(self, context: EnhancedTaskContext, act: Callable[[Session], object]) -> None:
        """Take a task's lease, and keep its session once that has its checkpoint."""
        lease = self._acquire(context)
        try:
            session = Session(self._manager, lease, _title(context), self._worker(context))
            act(session)
        except BaseException:
            lease.release()
            raise
        self._keep(context, session)

    def _begin(self, context: EnhancedTaskContext, session: Session) -> None:
        session.begin(
            _dictionary(context, "data"),
            total=getattr(context, "total_steps", None),
            metadata=_dictionary(context, "metadata"),
        )

    def _find(self, context: EnhancedTaskContext, session: Session) -> None:
        """Go on with a task's open checkpoint, or begin one; refuse a task that is done for."""
        latest = self._manager.get_latest_checkpoint(_task(context))
        if latest is None:
            self._begin(context, session)
            return
        is_failed = latest.state is CheckpointState.FAILED
        is_completed = latest.state is CheckpointState.COMPLETED
        if not is_failed and not is_completed:
            session.go_on(latest)
        elif (is_failed and retrial.gave_up(latest.metadata) is None) or (
            is_completed and (latest.total_steps or 0) > latest.step_number
        ):
            self._begin(context, session)
        else:
            raise InvalidUpdateError(
                f"Task {latest.task_id!r} is over: {latest.checkpoint_id!r} "
                f"{'gave it up' if is_failed else 'completed it'}.",
                hint="To do it again, begin with setup_task_checkpointing.",
                task_id=latest.task_id,
            )

    def _worker(self, context: EnhancedTaskContext) -> str:
        worker = getattr(context, "worker_id", None)
        return "orchestrator" if worker is None else check_id("worker_id", worker)

    def _keep(self, context: EnhancedTaskContext, session: Session) -> None:
        self._sessions[_task(context)] = session
        _tell(context, "checkpoint_id", session.checkpoint)
        _tell(context, "step_number", session.step)
        _tell(context, "lease", session.lease)

    def _end(self, context: EnhancedTaskContext, act: Callable[[Session], None]) -> None:
        act(self._session(context))
        # Only here. One whose task was taken over stays, so that all it writes is refused: what
        # came without its lease would be accepted once the other is done.
        del self._sessions[_task(context)]

    def _session(self, context: EnhancedTaskContext) -> Session:
        task = _task(context)
        session = self._sessions.get(task)
        if session is None:
            raise InvalidUpdateError(
                f"Task {task!r} is not set up here.",
                hint="Call setup_task_checkpointing, or handle_task_recovery, first.",
                task_id=task,
            )
        return session

    def _call(self, name: str, *arguments: Any) -> None:
        method = getattr(self._orchestrator, name, None)
        if callable(method):
            method(*arguments)


def _task(context: EnhancedTaskContext) -> str:
    return check_id("context.task_id", getattr(context, "task_id", None))


def _title(context: EnhancedTaskContext) -> str:
    title: str | None = getattr(context, "task_title", None)
    check_type("context.task_title", title, str)
    return cast("str", title)


def _dictionary(context: EnhancedTaskContext, name: str) -> dict[str, Any] | None:
    value = getattr(context, name, None)
    if value is not None:
        check_type(f"context.{name}", value, dict)
    return value


def _tell(context: EnhancedTaskContext, name: str, value: object) -> None:
    """Set an attribute of a context, where that has a place for it."""
    try:
        setattr(context, name, value)
    except (AttributeError, TypeError):  # frozen, or of slots
        return
