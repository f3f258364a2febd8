"""TaskRecovery: claims interrupted tasks, one worker each, and resumes them or gives them up.

    claim (lease) -> look again, under the lease -> judge the attempts -> restore -> work -> release

Every write of a resumed task carries the lease's token, so of two workers that believe to have
resumed one task only one writes. Page: specs/task-recovery.md.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from ckptlog.errors import (
    ArgumentError,
    CheckpointNotFoundError,
    ConflictError,
    LeaseHeldError,
)
from ckptlog.manager.interruption import InterruptedTask
from ckptlog.manager.lease import Lease
from ckptlog.manager.manager import CheckpointManager
from ckptlog.manager.refusal import told
from ckptlog.manager.wrapper import TaskCheckpointWrapper
from ckptlog.model.checkpoint import CheckpointData
from ckptlog.model.identifier import check_id
from ckptlog.model.quotation import quoted
from ckptlog.model.state import CheckpointState
from ckptlog.policy import retrial
from ckptlog.policy.retrial import Attempt, Limits, Verdict

# What a claim may come to, besides those of policy.retrial.
HELD: Final = "held"
NOT_INTERRUPTED: Final = "not_interrupted"
UNRECOVERABLE: Final = "unrecoverable"
_ATTEMPTS_MAX: Final = 20
_ENDED: Final = ("completed", "failed")
_BEGIN: Final = Verdict(retrial.BEGIN, "nobody has begun it")


class ResumedTask:
    """A task that this worker has resumed, and holds until `release`.

    As a context manager: an exception fails the task's open checkpoint, and goes on; the lease is
    released in any case. A child that is forked in the block, and leaves it, ends nothing. Complete
    the task through `wrapper()`, or with the manager and `lease=`.

    Attributes:
        lease: Show it with every write about the task.
        checkpoint: What was restored, its data verified.
        attempt: Number of this attempt from here, from 1 on.
        action, reason: `begin`, `retry` or `reassign`, and why.
    """

    def __init__(
        self,
        manager: CheckpointManager,
        lease: Lease,
        checkpoint: CheckpointData,
        verdict: Verdict,
        attempt: int,
    ) -> None:
        self._manager = manager
        self.lease = lease
        self.checkpoint = checkpoint
        self.attempt = attempt
        self._pid = os.getpid()
        self.action = verdict.action
        self.reason = verdict.reason

    @property
    def task_id(self) -> str:
        """The task."""
        return self.checkpoint.task_id

    def wrapper(self) -> TaskCheckpointWrapper:
        """Return what takes its steps from here on, under the lease.

        They go on from the task's latest checkpoint: what was resumed, also where it was changed
        since, or what was made after it under the lease.

        Raises:
            CheckpointNotFoundError: It was deleted.
        """
        latest = self._manager.get_latest_entry(self.task_id)
        point = self.checkpoint.checkpoint_id
        return TaskCheckpointWrapper(
            self._manager,
            self.task_id,
            self.checkpoint.task_title,
            self.lease.holder,
            checkpoint_id=point if latest is None else latest.event.subject.checkpoint,
            namespace=self.checkpoint.namespace,
            lease=self.lease,
        )

    def fail(self, error: BaseException) -> None:
        """Fail the task because of an exception, unless its latest checkpoint has ended.

        The recovery point itself stays what it is (`fail_task`).
        """
        latest = self._manager.get_latest_entry(self.task_id)
        if latest is not None and latest.event.state not in _ENDED:
            name = latest.event.subject.checkpoint
            fail_task(self._manager, name, told(error), self.lease)

    def release(self) -> None:
        """Let others have the task."""
        self.lease.release()

    def __enter__(self) -> Self:
        self._pid = os.getpid()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self.lease:
            if error is not None and os.getpid() == self._pid:
                self.fail(error)


def fail_task(
    manager: CheckpointManager, checkpoint: str, error_info: dict[str, Any], lease: Lease
) -> str:
    """Fail a task at its present checkpoint; return the checkpoint that says so.

    One that was restored and has not changed since is what the next attempt begins from: it stays,
    and the failure gets a checkpoint of its own, with the same data.
    """
    found = manager.get_checkpoint(checkpoint)
    if found is None or found.state is not CheckpointState.RESTORED:
        manager.fail_checkpoint(checkpoint, error_info, lease=lease)
        return checkpoint
    record = {"from": checkpoint}
    with manager.batch(lease=lease) as batch:
        name = batch.create_checkpoint(
            found.task_id,
            found.task_title,
            found.step_number,
            found.step_description,
            found.total_steps,
            found.data,
            {**found.metadata, retrial.KEY: record},
            lease.holder,
            namespace=found.namespace,
            activate=True,
        )
        batch.fail_checkpoint(name, error_info)
    return name


class Outcome(msgspec.Struct, frozen=True):
    """What became of a claim.

    action: `begin` (it was seeded, and is begun, in `task`); `retry`, `reassign` (it is resumed, in
        `task`); `refuse` (this worker had its tries),
        `give_up` (it was marked as failed), `held` (another has it), `not_interrupted`,
        `unrecoverable` (no bytes verify; nothing was changed).
    reason: Why, for people.
    """

    action: str
    reason: str
    task: ResumedTask | None = None


class TaskRecovery:
    """Finds interrupted tasks and resumes them for one worker.

    Args:
        worker_id: By which attempts are counted, and leases named.
        ttl_s: Of the leases; they are renewed in the background unless background is False.
        attempts_max: From one recovery point, by all workers; then the task is given up. At most
            1000: so many are remembered.
        worker_attempts_max: By one worker; then another has to. None: as many as attempts_max.
        include_failed: Also resume tasks whose latest checkpoint failed.
        shared: Another process goes on with what is claimed, by its grant (`acquire_lease`).

    Threads: safe.
    """

    def __init__(
        self,
        manager: CheckpointManager,
        worker_id: str,
        *,
        ttl_s: float = 60.0,
        attempts_max: int = 4,
        worker_attempts_max: int | None = 2,
        include_failed: bool = True,
        background: bool = True,
        shared: bool = False,
    ) -> None:
        self._manager = manager
        self.worker_id = check_id("worker_id", worker_id)
        self._ttl_s = ttl_s
        self._limits = Limits(
            attempts=_count("attempts_max", attempts_max),
            of_worker=None
            if worker_attempts_max is None
            else _count("worker_attempts_max", worker_attempts_max),
        )
        self._include_failed = include_failed
        self._background = background
        self._is_shared = shared

    def find(self, **options: Any) -> list[InterruptedTask]:
        """Return what could be resumed: `CheckpointManager.find_interrupted_tasks`."""
        options.setdefault("include_failed", self._include_failed)
        return self._manager.find_interrupted_tasks(**options)

    def claim(self, task_id: str) -> Outcome:
        """Resume a task, if nobody else has it and it is still interrupted.

        Raises:
            CheckpointError: The store refused; the lease was released where it could be.

        Durability: the attempt is counted, durably, before anything is handed to the caller.
        """
        if (refusal := self.foreseen(task_id)) is not None:
            return refusal
        try:
            lease = self.acquire(task_id)
        except LeaseHeldError as error:
            return Outcome(HELD, error.message)
        try:
            outcome = self.resume(lease)
        except BaseException:
            lease.release()
            raise
        if outcome.task is None:
            lease.release()
        return outcome

    def claim_next(self, **options: Any) -> ResumedTask | None:
        """Resume the first interrupted task that this worker may have; None where there is none.

        Tasks that have had their attempts are given up on the way. Options as in `find`.
        """
        options.setdefault("include_failed", self._include_failed)
        for one in self._manager.iterate_interrupted_tasks(**options):
            task = self.claim(one.task_id).task
            if task is not None:
                return task
        return None

    def foreseen(self, task_id: str) -> Outcome | None:
        """Return why a claim would be in vain, as far as that needs no lease; None where it does.

        Nothing is written, however often somebody asks.
        """
        found = self._manager.look_at_task(task_id, include_failed=self._include_failed)
        if found is not None:
            return self._refusal(found)
        store = self._manager.store
        grant, environment = store.lease(task_id), store.environment
        if grant is None or not grant.is_live(environment.now_us()):
            return self._not_interrupted(task_id)
        return None

    def acquire(self, task_id: str) -> Lease:
        """Return a lease on a task, as `claim` takes it.

        Raises:
            LeaseHeldError: Another has it.
        """
        return self._manager.acquire_lease(
            task_id,
            ttl_s=self._ttl_s,
            holder=self.worker_id,
            background=self._background,
            shared=self._is_shared,
        )

    def resume(self, lease: Lease) -> Outcome:
        """Resume the task of a lease that this worker has; the lease stays the caller's.

        Raises:
            LeaseLostError: It was lost on the way.
        """
        for _ in range(_ATTEMPTS_MAX):
            found = self._manager.look_at_task(
                lease.task, include_failed=self._include_failed, token=lease.token
            )
            if found is None:
                return self._not_interrupted(lease.task)
            if (refusal := self._refusal(found)) is not None:
                return refusal
            assert found.recovery_point is not None  # noqa: S101 - else it was refused
            point = self._manager.get_checkpoint(found.recovery_point)
            if point is None:
                continue  # cleaned up meanwhile
            verdict = self._judged(found)
            if verdict.action == retrial.GIVE_UP:
                return self.give_up(lease, point, verdict.reason)
            try:
                restored = self._restore(lease, point, found)
            except (ConflictError, CheckpointNotFoundError):
                continue  # written before ours, or cleaned up: look again
            number = len(found.attempts) + 1
            task = ResumedTask(self._manager, lease, restored, verdict, number)
            return Outcome(verdict.action, f"{verdict.reason}; {found.reason}", task)
        return Outcome(HELD, f"task {lease.task!r} changes all the time")

    def _judged(self, found: InterruptedTask) -> Verdict:
        if not found.begun and found.recovery_point == found.checkpoint_id:
            return _BEGIN
        return retrial.judge(found.attempts, self.worker_id, self._limits)

    def _refusal(self, found: InterruptedTask) -> Outcome | None:
        """Return why this worker may not have a task; nothing is to be changed then."""
        if found.recovery_point is None:
            return Outcome(UNRECOVERABLE, found.reason)
        verdict = self._judged(found)
        if verdict.action != retrial.REFUSE:
            return None
        return Outcome(verdict.action, verdict.reason)

    def _not_interrupted(self, task: str) -> Outcome:
        latest = self._manager.get_latest_checkpoint(task)
        if latest is None:
            return Outcome(NOT_INTERRUPTED, "the task has no checkpoint")
        why = retrial.gave_up(latest.metadata) if latest.state is CheckpointState.FAILED else None
        if why is not None:
            return Outcome(retrial.GIVE_UP, why)
        return Outcome(NOT_INTERRUPTED, f"the task's latest checkpoint is {latest.state.value}")

    def _restore(
        self, lease: Lease, point: CheckpointData, found: InterruptedTask
    ) -> CheckpointData:
        """Let a recovery point, whose bytes were verified, be the task's end; count the attempt.

        A seed becomes active, and that is no attempt to recover anything.
        """
        manager = self._manager
        if point.checkpoint_id == found.checkpoint_id and not found.begun:
            return self._moved(lease, point, CheckpointState.ACTIVE, None)
        at = _iso(manager.store.environment.now_us())
        attempts = (*found.attempts, Attempt(self.worker_id, lease.token, at))
        metadata = {retrial.KEY: retrial.record_of(attempts)}
        if point.checkpoint_id == found.checkpoint_id:
            return self._moved(lease, point, CheckpointState.RESTORED, metadata)
        return self._there(self._copy(lease, point, metadata))

    def _moved(
        self,
        lease: Lease,
        point: CheckpointData,
        state: CheckpointState,
        metadata: dict[str, Any] | None,
    ) -> CheckpointData:
        """Move the task's latest checkpoint to a state, unless it was changed since it was read."""
        name = point.checkpoint_id
        self._manager.update_checkpoint(
            name, state=state, metadata=metadata, expected=point.position, lease=lease
        )
        return self._there(name)

    def _there(self, name: str) -> CheckpointData:
        found = self._manager.get_checkpoint(name)
        if found is None:
            raise CheckpointNotFoundError(f"{name!r} was deleted meanwhile.")
        return found

    def _copy(self, lease: Lease, point: CheckpointData, metadata: dict[str, Any]) -> str:
        """Restore an earlier point in a new checkpoint: a task is what its latest one says."""
        metadata[retrial.KEY]["from"] = point.checkpoint_id
        with self._manager.batch(lease=lease) as batch:
            name = batch.create_checkpoint(
                point.task_id,
                point.task_title,
                point.step_number,
                point.step_description,
                point.total_steps,
                point.data,
                {**point.metadata, **metadata},
                point.worker_id,
                point.parent_checkpoint_id,
                namespace=point.namespace,
            )
            batch.update_checkpoint(name, state=CheckpointState.RESTORED)
        return name

    def give_up(self, lease: Lease, point: CheckpointData, reason: str) -> Outcome:
        """Mark a task as failed for good, in a checkpoint of its own with the state that it had.

        To try again all the same, restore that checkpoint: its data is the recovery point's.
        """
        why = f"gave up: {reason}"
        record = {"gave_up": why, "from": point.checkpoint_id}
        with self._manager.batch(lease=lease) as batch:
            name = batch.create_checkpoint(
                point.task_id,
                point.task_title,
                point.step_number,
                why[:1000],
                point.total_steps,
                point.data,
                {**point.metadata, retrial.KEY: record},
                point.worker_id,
                namespace=point.namespace,
                activate=True,
            )
            batch.fail_checkpoint(name, {"type": "GaveUp", "message": why})
        return Outcome(retrial.GIVE_UP, reason)


def _iso(now_us: int) -> str:
    return datetime.fromtimestamp(now_us / 1e6, UTC).isoformat()


def _count(name: str, number: object) -> int:
    most = retrial.ATTEMPTS_MAX
    if type(number) is not int or not 1 <= number <= most:
        raise ArgumentError(
            f"{name} is {quoted(number)}; a whole number from 1 to {most} is needed.", argument=name
        )
    return number
