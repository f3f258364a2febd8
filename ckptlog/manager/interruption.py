"""The part of a manager that finds tasks which were interrupted: by a crash, a kill, a power cut.

Interrupted is a task that is not complete and that nobody holds: no live lease, or only that of a
process that is surely dead. Who works without leases cannot be told from who died; `quiet_s` is for
such. Page: specs/task-recovery.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from ckptlog.errors import ArgumentError, CheckpointError
from ckptlog.model.entry import Entry
from ckptlog.model.identifier import check_id
from ckptlog.model.quotation import quoted
from ckptlog.model.state import CheckpointState
from ckptlog.policy.retrial import Attempt, attempts_of, gave_up, is_seed
from ckptlog.repository.store import Store

if TYPE_CHECKING:
    from ckptlog.manager.manager import CheckpointManager

_PAGE_ROWS: Final = 1000
# A task whose last so many checkpoints all failed has surely had its attempts.
_CANDIDATES_MAX: Final = 200
_COMPLETED: Final = CheckpointState.COMPLETED.value
_FAILED: Final = CheckpointState.FAILED.value


class InterruptedTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task that somebody should carry on with.

    title, state, step_number, total_steps, worker_id, updated_at: Of its latest checkpoint,
        checkpoint_id. total_steps, worker_id: None where unknown.
    recovery_point: Id of the checkpoint to resume from; None where no bytes verify.
    reason: Why that one was chosen, or why there is none.
    candidates: Each checkpoint that was looked at, newest first, and why it was taken or not
        (`explain_recovery_point`).
    former_holder: Who had the lease that expired, or died; None where there was none.
    attempts: To resume it since it got further: those told by the recovery point, and by what came
        after it and was not taken.
    """

    task_id: str
    title: str
    state: str
    step_number: int
    total_steps: int | None
    worker_id: str | None
    updated_at: str
    checkpoint_id: str
    recovery_point: str | None
    reason: str
    candidates: list[dict[str, Any]]
    former_holder: str | None
    attempts: tuple[Attempt, ...]
    begun: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return everything, safe for JSON."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return {**found, "attempts": list(found["attempts"])}


class Interruptions:
    """What a manager inherits."""

    store: Store

    def find_interrupted_tasks(
        self,
        *,
        tasks: Iterable[str] = (),
        quiet_s: float = 0.0,
        include_failed: bool = False,
        include_seeds: bool = False,
        limit: int | None = None,
    ) -> list[InterruptedTask]:
        """Return the tasks that are not complete and that nobody holds, by name.

        What recovery has given up is not among them. Nothing is claimed and nothing changed:
        `ckptlog.recovery.TaskRecovery` does that.

        Args:
            tasks: Patterns of ids ("job-*"); all by default.
            quiet_s: Leave out those with an event in the last so many seconds.
            include_failed: Also tasks whose latest checkpoint failed.
            include_seeds: Also tasks that were only seeded: nobody has begun them.
            limit: Most to return.

        Raises:
            ArgumentError: An argument is wrong.

        Cost: a row of the view for each task; the bytes of the recovery points are read.
        """
        return list(
            self.iterate_interrupted_tasks(
                tasks=tasks,
                quiet_s=quiet_s,
                include_failed=include_failed,
                include_seeds=include_seeds,
                limit=limit,
            )
        )

    def iterate_interrupted_tasks(
        self,
        *,
        tasks: Iterable[str] = (),
        quiet_s: float = 0.0,
        include_failed: bool = False,
        include_seeds: bool = False,
        limit: int | None = None,
    ) -> Iterator[InterruptedTask]:
        """Yield what `find_interrupted_tasks` returns, each looked at when it is asked for."""
        patterns = _patterns_of(tasks)
        _check(quiet_s, limit)
        found = (
            self.look_at_task(
                name, quiet_s=quiet_s, include_failed=include_failed, include_seeds=include_seeds
            )
            for name in self._open_tasks(patterns, include_failed=include_failed)
        )
        return islice((one for one in found if one is not None), limit)

    def _open_tasks(self, patterns: Sequence[str], *, include_failed: bool) -> Iterator[str]:
        after = None
        while rows := self.store.latest_rows(after, _PAGE_ROWS):
            for row in rows:
                is_wanted = not patterns or any(fnmatchcase(row.task, one) for one in patterns)
                if is_wanted and not _is_ended(row, include_failed=include_failed):
                    yield row.task
            after = rows[-1].task

    def look_at_task(
        self,
        task_id: str,
        *,
        quiet_s: float = 0.0,
        include_failed: bool = False,
        include_seeds: bool = True,
        token: int | None = None,
    ) -> InterruptedTask | None:
        """Return a task if it is interrupted; None where it is not, or not there.

        Args:
            include_seeds: Also one that was only seeded, not `begun`.
            token: Of a lease on it that does not count: the caller's own.
        """
        check_id("task_id", task_id)
        manager = cast("CheckpointManager", self)
        latest = manager.get_latest_entry(task_id)
        if latest is None or _is_ended(latest.event, include_failed=include_failed):
            return None
        now_us = self.store.environment.now_us()
        if quiet_s and now_us - _us(latest.event.time) < quiet_s * 1_000_000:
            return None
        grant = self.store.lease(task_id)
        if grant is not None and grant.token == token:
            grant = None
        environment = self.store.environment
        if grant is not None and grant.is_live(now_us) and not environment.is_dead(grant.process):
            return None
        about = self._about(latest)
        metadata = about.get("metadata", {})
        if latest.event.state == _FAILED and gave_up(metadata) is not None:
            return None
        begun = not is_seed(latest.event.state, metadata)
        if not begun and not include_seeds:
            return None
        told = manager.explain_recovery_point(task_id)
        event = latest.event
        return InterruptedTask(
            task_id=task_id,
            title=str(about.get("title", "")),
            state=event.state,
            step_number=event.step,
            total_steps=event.total or None,
            worker_id=event.subject.worker or None,
            updated_at=event.time,
            checkpoint_id=event.subject.checkpoint,
            recovery_point=told["chosen"],
            reason=told["reason"],
            candidates=told["candidates"],
            former_holder=None if grant is None else grant.holder,
            attempts=self._attempts([one["checkpoint_id"] for one in told["candidates"]]),
            begun=begun,
        )

    def _attempts(self, checkpoints: list[str]) -> tuple[Attempt, ...]:
        found: dict[int, Attempt] = {}  # one that was carried over is told twice
        for name in checkpoints[:_CANDIDATES_MAX]:
            entry = self.store.newest(name)
            if entry is not None:
                told = attempts_of(self._about(entry).get("metadata", {}))
                found |= {one.lease: one for one in told}
        return tuple(found[lease] for lease in sorted(found))

    def _about(self, entry: Entry) -> dict[str, Any]:
        """Return the texts and the metadata of a checkpoint; nothing where they are damaged."""
        try:
            found = self.store.value(entry.event.meta)
        except CheckpointError:
            return {}
        return found if isinstance(found, dict) else {}


def _is_ended(one: Any, *, include_failed: bool) -> bool:
    """Say whether a task is over by its latest checkpoint, a row or an event."""
    if one.state == _COMPLETED:
        return not one.total or one.step >= one.total
    return one.state == _FAILED and not include_failed


def _us(time: str) -> int:
    return round(datetime.fromisoformat(time).astimezone(UTC).timestamp() * 1_000_000)


def _patterns_of(tasks: object) -> tuple[str, ...]:
    given = tuple(tasks) if isinstance(tasks, Iterable) and not isinstance(tasks, str) else None
    if given is None or not all(isinstance(one, str) for one in given):
        raise ArgumentError(
            f"tasks is {quoted(tasks)}; a list of patterns is needed.",
            hint='For example: tasks=["job-*"].',
            argument="tasks",
        )
    return given


def _check(quiet_s: object, limit: object) -> None:
    if type(quiet_s) not in (int, float) or not cast("float", quiet_s) >= 0:
        raise ArgumentError(
            f"quiet_s is {quoted(quiet_s)}; seconds from 0 on are needed.", argument="quiet_s"
        )
    if limit is not None and (type(limit) is not int or limit < 0):
        raise ArgumentError(
            f"limit is {quoted(limit)}; a whole number from 0 on is needed.", argument="limit"
        )
