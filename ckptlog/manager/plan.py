"""Plans a clean-up, task by task: what goes, what stays and why, and as of which position.

A plan is made from the view, outside of every lock; whoever carries it out says as of when it was
made, and the log refuses it where the task has changed since (manager.sweep).

Memory: bounded by the largest task (some 500 bytes for each of its checkpoints).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from ckptlog.blobs.payload import DECODED_BYTES_MAX
from ckptlog.errors import CheckpointError
from ckptlog.manager.fact import Reading, reading_of
from ckptlog.manager.lineage import Lineage
from ckptlog.manager.unfinished import Trace
from ckptlog.model import value as values
from ckptlog.model.event import Reference
from ckptlog.policy import retention
from ckptlog.policy.retention import (
    GOES,
    NEEDED,
    OPEN,
    RECOVERING,
    RECOVERY,
    Fact,
    Now,
    Policy,
    Rule,
)
from ckptlog.repository.statistics import ask
from ckptlog.views.query import Filter
from ckptlog.views.row import Row

if TYPE_CHECKING:
    from ckptlog.manager.manager import CheckpointManager

_PAGE_ROWS: Final = 1000
_PAGE_TASKS: Final = 1000


class Target(msgspec.Struct, frozen=True, gc=False):
    """A checkpoint that goes. position: Of its last event. payloads: Roots of data and meta."""

    id: str
    origin: int
    position: int
    payloads: tuple[Reference, ...]


class Plan(msgspec.Struct, frozen=True):
    """What a clean-up does to one task.

    position: As of which it holds. doomed: The oldest first. kept: Number of those that stay, by
        the first reason. is_open: Whether later checkpoints of the task leave it right.
    """

    task: str
    position: int
    doomed: tuple[Target, ...]
    kept: Counter[str]
    is_open: bool = False

    @property
    def examined(self) -> int:
        """How many checkpoints the task has."""
        return len(self.doomed) + self.kept.total()


class Planner:
    """Makes plans for one policy.

    Threads: safe; it only reads.
    """

    def __init__(self, manager: CheckpointManager, policy: Policy, now: Now) -> None:
        self._manager = manager
        self._store = manager.store
        self._policy = policy
        self._now = now

    def tasks(self) -> Iterator[tuple[str, int]]:
        """Yield each task and how many checkpoints it has, by name; also those without a rule."""
        store, after = self._store, None
        while page := ask(store, lambda view, last=after: view.tasks(last, _PAGE_TASKS)):  # type: ignore[misc]
            for task, count, _ in page:
                yield task, count
            after = page[-1][0]

    def plans(self) -> Iterator[Plan]:
        """Yield the plan of every task; one without a rule keeps everything."""
        for task, count in self.tasks():
            if self._policy.rules_for(task):
                yield self.plan(task)
            else:
                yield Plan(task, 0, (), Counter({"no rule": count}))

    def plan(self, task: str) -> Plan:
        """Return the plan of a task that has a rule."""
        store = self._store.opened()
        store.catch_up()
        position = store.position
        rows = {row.id: row for row in self._rows(task)}
        readings = [reading_of(store, row, self._policy.metrics) for row in rows.values()]
        rules = self._policy.rules_for(task)
        return self._judged(task, position, rows, readings, rules)

    def _rows(self, task: str) -> Iterator[Row]:
        after = None
        while rows := self._store.select(Filter(task=task), after=after, limit=_PAGE_ROWS):
            yield from rows
            after = rows[-1].origin

    def _judged(
        self,
        task: str,
        position: int,
        rows: dict[str, Row],
        readings: Sequence[Reading],
        rules: Sequence[Rule],
    ) -> Plan:
        facts = [reading.fact for reading in readings]
        why = retention.reasons(self._policy, rules, facts, self._now)
        reasons = {fact.id: reason for fact, reason in zip(facts, why, strict=True)}
        is_finished = retention.is_finished(facts)
        if self._policy.keep_recovery_points and not is_finished:
            self._keep_recovery_point(facts, rows, reasons)
        self._keep_recovering(task, facts, reasons)
        if self._policy.keep_recovery_points and not is_finished:
            _keep_open(facts, reasons)
        channels = {one.fact.id: one.channels for one in readings if one.channels}
        if channels:
            lineage = Lineage(self._store, rows, channels)
            for name in lineage.needed([name for name in rows if reasons[name]]):
                reasons[name] = reasons[name] or NEEDED
        doomed = tuple(_target(row) for row in rows.values() if reasons[row.id] == GOES)
        return Plan(
            task,
            position,
            doomed,
            Counter(reason for reason in reasons.values() if reason),
            # A new checkpoint of a thread may be made of one that goes.
            is_open=not is_finished and not any(fact.order[0] for fact in facts),
        )

    def _keep_recovery_point(
        self, facts: Sequence[Fact], rows: dict[str, Row], reasons: dict[str, str]
    ) -> None:
        """Keep what the task resumes from: the first candidate whose bytes verify.

        Where all that goes ranks behind one that stays and verifies, no more is read.
        """
        left = sum(reason == GOES for reason in reasons.values())
        for fact in retention.resume_order(facts):
            if not left:
                return
            is_doomed = reasons[fact.id] == GOES
            if fact.is_whole and self._verifies(rows[fact.id]):
                if is_doomed:
                    reasons[fact.id] = RECOVERY
                return
            left -= is_doomed

    def _keep_recovering(self, task: str, facts: Sequence[Fact], reasons: dict[str, str]) -> None:
        """Keep what an unfinished recovery has pinned, also where pins do not count."""
        if not any(fact.is_pinned and reasons[fact.id] == GOES for fact in facts):
            return
        found = Trace(self._store, task).unfinished()
        for name in () if found is None else (found.capture, found.safety):
            if reasons.get(name) == GOES:
                reasons[name] = RECOVERING

    def _verifies(self, row: Row) -> bool:
        store = self._store
        try:
            for reference in _payloads(row):
                if reference.size > DECODED_BYTES_MAX:
                    store.blobs.check_payload(reference)
                    continue
                # Who has the codecs can resume from it; here they need not be registered.
                values.decode(store.wire(reference), store.codecs, opaque=True)
        except CheckpointError:
            return False
        return True


def _keep_open(facts: Sequence[Fact], reasons: dict[str, str]) -> None:
    """Keep the newest of an unfinished task where the rest alone would pass for finished.

    Else nobody would resume the task, and the next clean-up would take its recovery point.
    """
    kept = [fact for fact in facts if reasons[fact.id]]
    if kept and retention.is_finished(kept):
        reasons[retention.newest(facts).id] = OPEN


def _payloads(row: Row) -> tuple[Reference, ...]:
    found = (
        Reference(row.data_kind, row.data_root, row.data_size),
        Reference(row.meta_kind, row.meta_root, row.meta_size),
    )
    return tuple(reference for reference in found if reference.root)


def _target(row: Row) -> Target:
    return Target(row.id, row.origin, row.position, _payloads(row))
