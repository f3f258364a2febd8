"""One task in work: its lease, its present checkpoint, and the writes that a step means.

Both integrations are made of it. Every write shows the lease, for as long as there is a session:
one whose task was taken over, or that has ended, is kept, so that what it writes late is refused.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any, Final

from ckptlog.errors import ArgumentError, TaskGivenUpError
from ckptlog.manager.finish import finish
from ckptlog.manager.lease import Lease
from ckptlog.manager.manager import CheckpointManager
from ckptlog.manager.refusal import told
from ckptlog.model.checkpoint import CheckpointData
from ckptlog.model.quotation import quoted
from ckptlog.model.state import CheckpointState
from ckptlog.model.value import prepare
from ckptlog.policy import retrial
from ckptlog.recovery import task_recovery
from ckptlog.recovery.task_recovery import Outcome, TaskRecovery, fail_task

_TRACE_CHARACTERS_MAX: Final = 4_000
# Names in a report of progress that say more than that they are data.
STEP: Final = "step_number"
TOTAL: Final = "total_steps"
DESCRIPTION: Final = "step_description"


class Session:
    """A task that this process works on.

    checkpoint, step: The present ones.
    is_ended: Whether the task was completed or failed here.

    Threads: one at a time for each task.
    """

    def __init__(self, manager: CheckpointManager, lease: Lease, title: str, worker: str) -> None:
        self._manager = manager
        self._title = title
        self._worker = worker
        self._total: int | None = None
        self._namespace: str | None = None
        self.lease = lease
        self.checkpoint = ""
        self.step = 0
        self.is_ended = False
        self._failure: dict[str, Any] | None = None

    def begin(
        self,
        data: dict[str, Any] | None = None,
        *,
        total: int | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> str:
        """Open the first step, active; return its checkpoint."""
        return self._open(1, "", total, data, metadata)

    def go_on(self, point: CheckpointData) -> str:
        """Go on from a checkpoint that was restored."""
        self.checkpoint, self.step = point.checkpoint_id, point.step_number
        self._total, self._namespace = point.total_steps, point.namespace
        return self.checkpoint

    def _open(
        self,
        step: int,
        description: str,
        total: int | None,
        data: dict[str, Any] | None,
        metadata: dict[str, Any] | None = None,
    ) -> str:
        with self._manager.batch(lease=self.lease) as batch:
            if self.checkpoint:
                batch.complete_checkpoint(self.checkpoint)
            name = batch.create_checkpoint(
                self.lease.task,
                self._title,
                step,
                description,
                total,
                data,
                metadata,
                self._worker,
                namespace=self._namespace,
                activate=True,
            )
        self.checkpoint, self.step, self._total = name, step, total
        return name

    def progress(self, told: Mapping[str, Any]) -> str:
        """Take in a report: data, and by the names above another step, total or description.

        A step beyond the present one completes that and opens a checkpoint of its own, which
        begins with the data that was there. Returns the present checkpoint.
        """
        data = dict(told)
        step, total = data.get(STEP), data.get(TOTAL)
        for name, number in ((STEP, step), (TOTAL, total)):
            if number is not None and (type(number) is not int or number < 1):
                raise ArgumentError(
                    f"{name} is {quoted(number)}; a whole number from 1 on is needed.",
                    argument=name,
                )
        description = data.get(DESCRIPTION)
        if step is not None and step > self.step:
            before = self._manager.get_checkpoint(self.checkpoint)
            kept = {} if before is None else before.data
            return self._open(step, description or "", total or self._total, {**kept, **data})
        self._manager.update_checkpoint(
            self.checkpoint,
            step_description=description,
            data=data,
            total_steps=total,
            lease=self.lease,
        )
        self._total = total or self._total
        return self.checkpoint

    @property
    def is_over(self) -> bool:
        """Whether the task is not this session's any more: ended, or taken over by another."""
        found = self._manager.store.lease(self.lease.task)
        return self.is_ended or found is None or found.token != self.lease.token

    def complete(self, results: dict[str, Any] | None = None) -> None:
        """Complete the present checkpoint, and with it the task; let the lease go.

        Told again with nothing new, that is nothing.
        """
        if self.is_ended and self._is_done_with(results):
            return
        finish(self._manager, self.checkpoint, results, self.lease)
        self._end()

    def _is_done_with(self, results: dict[str, Any] | None) -> bool:
        found = self._manager.get_checkpoint(self.checkpoint)
        if found is None or found.state is not CheckpointState.COMPLETED:
            return False
        if results is None or type(results) is not dict:
            return results is None
        # As they are stored: arrays cannot be asked whether they are equal, and a NaN never is.
        codecs = self._manager.store.codecs
        both = ({**found.data, **results}, found.data)
        new, old = (prepare(one, path="results", codecs=codecs).wire for one in both)
        return new == old

    def fail(self, error: BaseException) -> None:
        """Fail the present checkpoint because of an error; let the lease go.

        Told again of the same error, by whoever it came by on its way up, that is nothing.
        """
        if self.is_ended and self._failure == told(error):
            return
        fail_task(self._manager, self.checkpoint, told_fully(error), self.lease)
        self._failure = told(error)
        self._end()

    def _end(self) -> None:
        self.is_ended = True
        self.lease.release()


def resume(
    manager: CheckpointManager, recovery: TaskRecovery, lease: Lease, title: str
) -> tuple[Outcome, Session | None]:
    """Resume the task of a lease; return what came of it, and the session where it goes on."""
    outcome = recovery.resume(lease)
    if outcome.task is None:
        return outcome, None
    point = outcome.task.checkpoint
    session = Session(manager, lease, point.task_title or title, recovery.worker_id)
    session.go_on(point)
    return outcome, session


def refusal(task: str, outcome: Outcome) -> TaskGivenUpError:
    """Return the error for a task that this worker may not resume."""
    hint = "Look at its checkpoints: ckptlog list --task TASK."
    if outcome.action == retrial.REFUSE:
        hint = "Give it to another worker."
    elif outcome.action == task_recovery.UNRECOVERABLE:
        hint = "ckptlog repair may mend its bytes; ckptlog delete-task lets it begin anew."
    return TaskGivenUpError(
        f"Task {task!r} is not resumed: {outcome.reason}.",
        hint=hint,
        task_id=task,
        action=outcome.action,
    )


def told_fully(error: BaseException) -> dict[str, Any]:
    """Return an exception's type, message, and the end of its traceback."""
    lines = "".join(traceback.format_exception(error))[-_TRACE_CHARACTERS_MAX:]
    return {**told(error), "traceback": lines.encode(errors="replace").decode()}
