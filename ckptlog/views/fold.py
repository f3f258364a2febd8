"""Folds a run of commits to its outcome, so that the database is touched once per checkpoint.

Pure. An event is a full snapshot, so only the last one of each checkpoint counts. What ends a
checkpoint (its deletion, or that of its task) is kept apart; a snapshot that follows the end is
not legal, and is passed over: a late writer brings nothing back.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from ckptlog.model.entry import Commit, Entry
from ckptlog.model.event import (
    CHECKPOINT_TYPES,
    CREATED,
    DELETED,
    LEASE_TYPES,
    LOST,
    SETTLED,
    TASK_DELETED,
    Event,
    fence_of,
    saved_bytes,
)
from ckptlog.model.lease import Grant, lease_after

WAYPOINT_EVENTS: Final = 64
_CHANGES: Final = CHECKPOINT_TYPES - {CREATED, DELETED}


class Fold:
    """The outcome of commits, in the order in which they were added.

    Attributes:
        last: Last snapshot event of each checkpoint, by origin.
        born: Origins of the checkpoints created here.
        ended: What ended a checkpoint, by origin; those that a task's end met before this run
            are not in it.
        tasks: First deletion here of each task: it ends all of the task's earlier checkpoints.
        task_ends: Position of the last deletion here of each task.
        task_deletions: How often each of them was deleted here.
        leases: The lease of each task after the events here that were about it; None where it has
            none.
        lost: Positions of tombstones (specs/repair.md).
        commands: (id, position) of every event.
        waypoints: (position, container, offset) of commits that hold a multiple of 64.
        logical, new, sanitised: Sums over the events.
        fence: Greatest one of the collections here.
    """

    def __init__(self) -> None:
        self.last: dict[int, Entry] = {}
        self.born: set[int] = set()
        self.ended: dict[int, Entry] = {}
        self.lost: set[int] = set()
        self.tasks: dict[str, Entry] = {}
        self.task_ends: dict[str, int] = {}
        self.task_deletions: dict[str, int] = {}
        self.leases: dict[str, Grant | None] = {}
        self.commands: list[tuple[str, int]] = []
        self.waypoints: list[tuple[int, str, int]] = []
        self.logical = 0
        self.new = 0
        self.sanitised = 0
        self.fence = 0
        # Made when the first task ends: most runs have none.
        self._by_task: dict[str, list[int]] | None = None

    def add(self, commit: Commit) -> None:  # noqa: C901, PLR0912 - the one loop over all events
        """Take in the next commit. Every event passes here: little is called."""
        entries = commit.entries
        first = entries[0]
        if -first.position % WAYPOINT_EVENTS < len(entries):
            start = first.offset - first.span
            self.waypoints.append((first.position, first.container, start))
        for entry in entries:
            event = entry.event
            kind = event.type
            self.commands.append((event.id, entry.position))
            if kind == CREATED:
                self.born.add(entry.position)
                self._keep(entry.position, entry)
            elif kind in _CHANGES:
                if not self._is_over(event):
                    self._keep(event.origin, entry)
            elif kind == DELETED:
                if not self._is_over(event):
                    self.ended[event.origin] = entry
            elif kind == TASK_DELETED:
                self._end_task(entry, event.subject.task)
            elif kind == SETTLED:
                self.fence = max(self.fence, fence_of(event))
            elif kind == LOST:
                self.lost.add(entry.position)
            elif kind in LEASE_TYPES:
                self.leases[event.subject.task] = lease_after(event)
            if event.new or kind == CREATED:  # others have saved nothing
                self.logical += saved_bytes(event)
                self.new += event.new
            if event.sanitised:
                self.sanitised += event.sanitised

    def _keep(self, origin: int, entry: Entry) -> None:
        if self._by_task is not None and origin not in self.last:
            self._by_task[entry.event.subject.task].append(origin)
        self.last[origin] = entry

    def _end_task(self, entry: Entry, task: str) -> None:
        self.tasks.setdefault(task, entry)
        self.task_ends[task] = entry.position
        self.leases[task] = None
        self.task_deletions[task] = self.task_deletions.get(task, 0) + 1
        if self._by_task is None:
            self._by_task = defaultdict(list)
            for origin, last in self.last.items():
                self._by_task[last.event.subject.task].append(origin)
        for origin in self._by_task.pop(task, ()):
            self.ended.setdefault(origin, entry)

    def _is_over(self, event: Event) -> bool:
        if event.origin in self.ended:
            return True
        if not self.tasks:
            return False
        end = self.tasks.get(event.subject.task)
        return end is not None and event.origin < end.position
