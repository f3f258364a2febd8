"""What a store must be, as plain dictionaries: the manager's semantics in their shortest form."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import Any

from ckptlog.model.state import is_legal

ENDED = ("completed", "failed")
NOT_FOUND = ["error", "checkpoint.not_found"]
ILLEGAL = ["error", "update.illegal_transition"]
CONFLICT = ["error", "update.conflict"]


@dataclass
class Checkpoint:
    """One checkpoint."""

    task: str
    step: int
    total: int | None = None
    description: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    worker: str | None = None
    parent: str | None = None
    namespace: str = ""
    state: str = "created"
    position: int = -1

    def facts(self) -> list[Any]:
        """Return what `remote.facts` makes of it, through JSON."""
        found: list[Any] = json.loads(
            json.dumps(
                [
                    self.task,
                    self.state,
                    self.step,
                    self.total,
                    self.description,
                    list(self.data.items()),
                    list(self.metadata.items()),
                    self.worker,
                    self.parent,
                    self.namespace,
                    self.position,
                ]
            )
        )
        return found


class Model:
    """The whole store: living checkpoints, and what each one's events were."""

    def __init__(self) -> None:
        self.living: dict[str, Checkpoint] = {}
        self.position = 0
        # Of each id ever used: (position, type, state, facts or None) of its events.
        self.past: dict[str, list[list[Any]]] = {}

    def create(self, name: str, checkpoint: Checkpoint) -> None:
        assert name not in self.past
        self.living[name] = checkpoint
        self.past[name] = []
        self._append(name, "created")

    def activate(self, name: str) -> None:
        self.living[name].state = "active"
        self._append(name, "updated")

    def refused_parent(self, parent: str | None) -> bool:
        return parent is not None and parent in self.past and parent not in self.living

    def change(
        self,
        name: str,
        target: str | None,
        *,
        data: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        description: str | None = None,
        step: int | None = None,
        total: int | None = None,
        replaces: bool = False,
        expected: int | None = None,
    ) -> Any:
        """Carry out a change; return the answer that the manager must give."""
        before = self.living.get(name)
        if before is None:
            return NOT_FOUND
        if expected is not None and expected != before.position:
            return CONFLICT
        after = copy.deepcopy(before)
        after.state = target or "active"
        if data is not None:
            after.data = dict(data) if replaces else {**before.data, **data}
        after.metadata = {**before.metadata, **(metadata or {})}
        after.description = before.description if description is None else description
        after.step = before.step if step is None else step
        after.total = before.total if total is None else total
        if after.state == before.state in ENDED and repr(after) == repr(before):
            return True
        if not is_legal(before.state, after.state):
            return ILLEGAL
        self.living[name] = after
        words = {"active": "updated", "created": "created"}
        self._append(name, words.get(after.state, after.state))
        return True

    def delete(self, name: str, expected: int | None = None) -> Any:
        before = self.living.get(name)
        if before is None:
            return False
        if expected is not None and expected != before.position:
            return CONFLICT
        self.past[name].append([self.position, "checkpoint.deleted", before.state, None])
        self.position += 1
        del self.living[name]
        return True

    def delete_task(self, task: str, *, is_recorded: bool) -> int:
        """Delete a task; one that is empty leaves an event only where it has a command id."""
        names = [name for name, one in self.living.items() if one.task == task]
        for name in names:
            state = self.living.pop(name).state
            self.past[name].append([self.position, "task.deleted", state, None])
        self.position += bool(names) or is_recorded
        return len(names)

    def at(self, name: str, position: int) -> list[Any] | None:
        """Return the facts of a checkpoint as of a position."""
        found = [event for event in self.past.get(name, []) if event[0] <= position]
        return found[-1][3] if found else None

    def ids(
        self,
        *,
        newest_first: bool = False,
        after: str | None = None,
        limit: int | None = None,
        **wanted: Any,
    ) -> list[str]:
        """Return the living ones that match, as `iterate` must."""
        order = list(self.past)
        if newest_first:
            order.reverse()
        if after is not None:
            order = order[order.index(after) + 1 :]
        found = [
            name
            for name in order
            if name in self.living
            and all(
                (getattr(self.living[name], word) or "") == value for word, value in wanted.items()
            )
        ]
        return found[:limit]

    def _append(self, name: str, word: str) -> None:
        checkpoint = self.living[name]
        checkpoint.position = self.position
        self.past[name].append(
            [self.position, f"checkpoint.{word}", checkpoint.state, checkpoint.facts()]
        )
        self.position += 1
