"""TaskCheckpointWrapper: a task's steps as checkpoints, one call for each step."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, Self

from ckptlog.errors import ArgumentError, CheckpointNotFoundError, InvalidUpdateError
from ckptlog.manager.draft import check_step, check_type
from ckptlog.manager.finish import finish
from ckptlog.manager.lease import LeaseArgument
from ckptlog.manager.manager import CheckpointManager
from ckptlog.model.checkpoint import CheckpointData
from ckptlog.model.identifier import check_id
from ckptlog.model.quotation import quoted
from ckptlog.model.state import CheckpointState

_ENDED = ("completed", "failed")


class TaskCheckpointWrapper:
    """Checkpoints a task while it runs.

    `checkpoint()` completes the step before and opens the next one as active, both in one durable
    commit. After a recovery, steps go on from the recovered one.

        >>> import tempfile
        >>> from ckptlog import CheckpointManager, TaskCheckpointWrapper
        >>> manager = CheckpointManager(tempfile.mkdtemp())
        >>> wrapper = TaskCheckpointWrapper(manager, "task-1", "Process the files")
        >>> wrapper.set_total_steps(2)
        >>> _ = wrapper.checkpoint("Step 1: initialise")
        >>> wrapper.update_progress({"progress": 20})
        >>> _ = wrapper.checkpoint("Step 2: process data", {"files": 3})
        >>> wrapper.complete_task({"result": "success"})
        >>> wrapper.get_progress()["progress_percentage"]
        100.0
        >>> manager.close()

    As a context manager it completes the task on a normal exit, and fails it on an exception
    (with the exception's type and message), which goes on. A child that is forked in the block, and
    leaves it, ends nothing.

    Where a checkpoint of the task was restored, steps go on from it: it is the present step, and
    `recovered` holds it. Otherwise steps begin at 1, whatever the task has from earlier runs.

    Args:
        checkpoint_id: The task's checkpoint that steps go on from, in whatever state it is by now.
        recover: Restore the task's recovery point first, where there is one. A task that is
            complete stays so: `recovered` is its end, and get_progress()["is_complete"] says it.
        lease: Of the task: every write is refused once it is lost.

    Raises:
        CheckpointNotFoundError: There is no checkpoint of checkpoint_id.

    Threads: one thread for each wrapper.
    """

    def __init__(
        self,
        checkpoint_manager: CheckpointManager,
        task_id: str,
        task_title: str,
        worker_id: str | None = None,
        *,
        checkpoint_id: str | None = None,
        recover: bool = False,
        namespace: str | None = None,
        lease: LeaseArgument = None,
    ) -> None:
        check_type("checkpoint_manager", checkpoint_manager, CheckpointManager)
        self._manager = checkpoint_manager
        self.task_id = check_id("task_id", task_id)
        self.task_title = task_title
        self.worker_id = worker_id
        self._namespace = namespace
        self._lease = lease
        self._step = 0
        self._total: int | None = None
        self._current: str | None = None
        self._is_complete = False
        self._pid = os.getpid()
        self.recovered: CheckpointData | None = None
        if checkpoint_id is not None:
            self._take_up(checkpoint_id, recover=recover)
            return
        if recover:
            self._recover()
        self._resume()

    def set_total_steps(self, total_steps: int) -> None:
        """Set how many steps the task has; later checkpoints carry it.

        Raises:
            ArgumentError: It is no whole number from 1 on.
        """
        check_step("total_steps", total_steps)
        self._total = total_steps

    def checkpoint(self, step_description: str, data: dict[str, Any] | None = None) -> str:
        """Complete the step before, open the next one with data, and return its id.

        Durability: both in one commit, when the call returns.

        Raises:
            CheckpointNotFoundError: The step before was deleted meanwhile (with its task, for
                example); nothing is created.
        """
        with self._manager.batch(lease=self._lease) as batch:
            if self._current is not None and self._is_open(self._current):
                batch.complete_checkpoint(self._current)
            identifier = batch.create_checkpoint(
                self.task_id,
                self.task_title,
                self._step + 1,
                step_description,
                self._total,
                data,
                worker_id=self.worker_id,
                namespace=self._namespace,
                activate=True,
            )
        self._current = identifier
        self._step += 1
        self._is_complete = False
        return identifier

    def update_progress(
        self, data: dict[str, Any] | None = None, step_description: str | None = None
    ) -> None:
        """Merge data into the present step, durably; set its description if given.

        Raises:
            InvalidUpdateError: No step was begun.
        """
        self._manager.update_checkpoint(
            self._require_current(),
            step_description=step_description,
            data=data,
            lease=self._lease,
        )

    def complete_task(self, final_data: dict[str, Any] | None = None) -> None:
        """Complete the present step, with final_data merged in, and with it the task.

        The task is done then: nobody resumes it, also where `set_total_steps` promised more steps
        than came. Their number becomes that of the present step, in the same commit.
        """
        finish(self._manager, self._require_current(), final_data, self._lease)
        self._is_complete = True
        if self._total is not None:
            self._total = min(self._total, self._step)

    def fail_task(self, error_info: dict[str, Any] | None = None) -> None:
        """Fail the present step, error_info under metadata["error_info"]."""
        self._manager.fail_checkpoint(self._require_current(), error_info, lease=self._lease)

    def get_progress(self) -> dict[str, Any]:
        """Return current_step, total_steps, progress_percentage and current_checkpoint_id.

        progress_percentage is 0 to 100; None while the number of steps is unknown, unless the
        task is complete.
        """
        percentage: float | None = 100.0 if self._is_complete else None
        if percentage is None and self._total:
            done = self._step - (1 if self._current else 0)
            percentage = round(min(100.0, 100.0 * max(0, done) / self._total), 1)
        return {
            "task_id": self.task_id,
            "current_step": self._step,
            "total_steps": self._total,
            "progress_percentage": percentage,
            "current_checkpoint_id": self._current,
            "is_complete": self._is_complete,
        }

    def __enter__(self) -> Self:
        self._pid = os.getpid()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._current is None or os.getpid() != self._pid:
            return
        if error is not None:
            self._manager.fail_after(self._current, error, lease=self._lease)
        elif self._is_open(self._current):
            self.complete_task()

    def _is_open(self, identifier: str) -> bool:
        """Say whether the step still runs; a deleted one counts, so that using it is refused."""
        entry = self._manager.store.newest(identifier)
        return entry is None or entry.event.state not in _ENDED

    def _require_current(self) -> str:
        if self._current is None:
            raise InvalidUpdateError(
                f"Task {self.task_id!r} has no step yet.", hint="Call checkpoint() first."
            )
        return self._current

    def _take_up(self, identifier: str, *, recover: bool) -> None:
        """Go on from a checkpoint that the caller names."""
        if recover:
            raise ArgumentError(
                "Give either checkpoint_id or recover, not both.", argument="checkpoint_id"
            )
        point = self._manager.get_checkpoint(identifier)
        if point is None:
            raise CheckpointNotFoundError(
                f"There is no checkpoint {quoted(identifier)}.", checkpoint_id=identifier
            )
        if point.task_id != self.task_id:
            raise ArgumentError(
                f"{quoted(identifier)} is of the task {quoted(point.task_id)}, "
                f"not of {self.task_id!r}.",
                argument="checkpoint_id",
            )
        self._go_on_from(point)
        self._is_complete = point.state is CheckpointState.COMPLETED and (
            not point.total_steps or point.step_number >= point.total_steps
        )

    def _recover(self) -> None:
        point = self._manager.get_recovery_point(self.task_id)
        if point is None:
            return
        if self._manager.can_recover_task(self.task_id):
            self._manager.restore_checkpoint(point.checkpoint_id, lease=self._lease)
        else:
            self._go_on_from(point)
            self._is_complete = True

    def _resume(self) -> None:
        """Go on from the task's checkpoint that was restored last, if one is restored."""
        found = self._manager.iterate(task_id=self.task_id, state=CheckpointState.RESTORED)
        point = max(found, key=lambda one: one.position, default=None)
        if point is not None:
            self._go_on_from(point)
            self._is_complete = False

    def _go_on_from(self, point: CheckpointData) -> None:
        self.recovered = point
        self._step = point.step_number
        self._total = point.total_steps
        self._current = point.checkpoint_id
