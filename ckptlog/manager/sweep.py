"""Carries out plans: deletes in bounded commits, beside writers, each choice checked again.

    cleanup.started {policy}  ->  checkpoint.deleted, cause = its id  ->  cleanup.finished

A commit says as of which position it was decided (`Delete.based_on`), and is refused where one of
its tasks has changed since. So what a policy keeps is judged by the state that the deletion is
appended to, and not by an older one. Between two commits the log is read from there on:

- what the clean-up itself did changes no plan;
- a new checkpoint in a task that resumes elsewhere anyway changes none (rules that count count it
  in front; what was kept was not needed for it);
- anything else in a task makes its plan anew, at most `_PLANS_MAX` times; then the task is left
  to the next clean-up.

Nothing is remembered between runs: a clean-up that was killed is done again from the beginning.
On a full disk the store's reserve is given up for the deletions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import msgspec

from ckptlog.errors import CheckpointNotFoundError, ConflictError
from ckptlog.manager.plan import Plan, Planner, Target
from ckptlog.model.entry import Entry
from ckptlog.model.event import CLEANED, CLEANUP_STARTED, CREATED
from ckptlog.policy.command import Delete, Record
from ckptlog.policy.decide import Stale
from ckptlog.policy.retention import Policy
from ckptlog.policy.retention_form import text_of
from ckptlog.repository.intent import Intent, Step
from ckptlog.repository.report import Progress

if TYPE_CHECKING:
    from ckptlog.manager.manager import CheckpointManager

# Bounds how long one commit of deletes keeps others waiting.
DELETES_MAX: Final = 200
_PLANS_MAX: Final = 20
_ATTEMPTS_MAX: Final = 100
# From then on a commit is for one task alone: the others are no longer held up by a busy one.
_ATTEMPTS_TOGETHER_MAX: Final = 3


class Outcome(msgspec.Struct):
    """What a clean-up did.

    deleted: Checkpoints. spared: Those that were to go, and whose task changed again and again.
    kept: Number of those that stayed, by the first reason.
    """

    deleted: int = 0
    spared: int = 0
    kept: Counter[str] = msgspec.field(default_factory=Counter)


class _Work(msgspec.Struct):
    """A plan that is being carried out. gone: How many of it. plans: How often it was made."""

    plan: Plan
    gone: int = 0
    plans: int = 1

    @property
    def left(self) -> int:
        """How many still go."""
        return len(self.plan.doomed) - self.gone

    def next(self, count: int) -> tuple[Target, ...]:
        """Return the first of those that still go."""
        return self.plan.doomed[self.gone : self.gone + count]


_Batch = list[tuple[_Work, tuple[Target, ...]]]


class Sweep:
    """One clean-up.

    Args:
        is_stopping: Asked between commits; True ends the clean-up early.
    """

    def __init__(
        self,
        manager: CheckpointManager,
        planner: Planner,
        policy: Policy,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._manager = manager
        self._store = manager.store
        self._planner = planner
        self._policy = policy
        self._is_stopping = is_stopping
        self._works: dict[str, _Work] = {}
        self._seen = 0
        self._waiting = 0
        self._run = ""
        self.outcome = Outcome()

    def run(self, plans: Iterable[Plan], progress: Progress | None = None, total: int = 0) -> None:
        """Carry out plans.

        Raises:
            ReadOnlyError, CheckpointStorageError: What was deleted before stays deleted.
        """
        done = 0
        for plan in plans:
            self.outcome.kept.update(plan.kept)
            done += plan.examined
            if plan.doomed:
                self._add(plan)
            if self._waiting >= DELETES_MAX:
                self._flush()
            if self._is_stopping():
                break
            if progress:
                progress(min(done, total), total)
        else:
            self._flush()
        if self._run:
            facts = {"deleted": self.outcome.deleted, "spared": self.outcome.spared}
            self._record(CLEANED, {**facts, "run": self._run})
        if progress:
            progress(total, total)

    def _add(self, plan: Plan) -> None:
        if not self._works:
            self._seen = plan.position
        # The earliest plan tells from where on the log must be looked at.
        self._seen = min(self._seen, plan.position)
        self._works[plan.task] = _Work(plan)
        self._waiting += len(plan.doomed)

    # --- commits ------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Delete what is waiting, until nothing is."""
        attempts = 0
        while self._works and not self._is_stopping():
            self._catch_up()
            some = self._batch(is_together=attempts < _ATTEMPTS_TOGETHER_MAX)
            if not some:
                return
            if self._delete(some):
                attempts = 0
                continue
            attempts += 1
            if attempts >= _ATTEMPTS_MAX:
                self._spare(some[0][0])
                attempts = 0

    def _batch(self, *, is_together: bool) -> _Batch:
        found = []
        room = DELETES_MAX
        for work in self._works.values():
            some = work.next(room)
            found.append((work, some))
            room -= len(some)
            if room == 0 or not is_together:
                break
        return found

    def _delete(self, batch: _Batch) -> bool:
        """Delete in one commit; False where a task has changed meanwhile."""
        if not self._run:
            self._run = self._record(CLEANUP_STARTED, {"policy": text_of(self._policy)})
        steps = [
            Step(
                Delete(
                    actor=self._manager.actor,
                    # The task's others follow the first in one commit.
                    based_on=self._seen if number == 0 else None,
                    cause=self._run,
                    checkpoint=target.id,
                    command=self._manager.new_command_id(),
                    expected=target.position,
                )
            )
            for _, targets in batch
            for number, target in enumerate(targets)
        ]
        try:
            outcome = self._store.submit_with_reserve(Intent(tuple(steps)))
        except (ConflictError, CheckpointNotFoundError):
            return False
        if isinstance(outcome, Stale):
            return False
        self.outcome.deleted += sum(map(bool, outcome))
        for work, targets in batch:
            self._waiting -= len(targets)
            work.gone += len(targets)
            if not work.left:
                del self._works[work.plan.task]
        return True

    def _record(self, kind: str, facts: dict[str, int | str]) -> str:
        command = self._manager.new_command_id()
        record = Record(actor=self._manager.actor, command=command, type=kind, facts=facts)
        self._store.submit_with_reserve(Intent((Step(record),)))
        return command

    # --- what others did ----------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Make plans anew where a task has changed, until all hold as of one position."""
        while True:
            store = self._store.opened()
            store.catch_up()
            now = store.position
            if now <= self._seen:
                return
            changed = {
                entry.event.subject.task
                for entry in store.events(self._seen, now)
                if self._changes(entry)
            }
            self._seen = now
            if not changed:
                return
            for task in changed:
                self._plan_again(task)

    def _changes(self, entry: Entry) -> bool:
        event = entry.event
        work = self._works.get(event.subject.task)
        if work is None or entry.position < work.plan.position:
            return False
        if self._run and event.cause == self._run:
            return False
        # What is younger than the plan stands in front of everything that goes.
        origin = entry.position if event.type == CREATED else event.origin
        return not (work.plan.is_open and origin >= work.plan.position)

    def _plan_again(self, task: str) -> None:
        work = self._works[task]
        if work.plans >= _PLANS_MAX:
            self._spare(work)
            return
        self._waiting -= work.left
        kept = self.outcome.kept
        kept.subtract(work.plan.kept)
        work.plan, work.gone, work.plans = self._planner.plan(task), 0, work.plans + 1
        kept.update(work.plan.kept)
        self._waiting += work.left
        if not work.left:
            del self._works[task]

    def _spare(self, work: _Work) -> None:
        self.outcome.spared += work.left
        self._waiting -= work.left
        del self._works[work.plan.task]
