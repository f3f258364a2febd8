"""What the saver does to whole threads: delete by run, copy, prune; each choice checked again.

A choice is made from the view; the commit says what it relied on, and where that no longer holds,
the choice is made anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Final

from ckptlog.errors import CheckpointNotFoundError, ConflictError
from ckptlog.integrations.langgraph import pruning
from ckptlog.integrations.langgraph.name import is_cut, task_of
from ckptlog.integrations.langgraph.reader import Named, Question, Reader
from ckptlog.integrations.langgraph.record import Wiring
from ckptlog.integrations.langgraph.writer import Place, meta_of, overtaken
from ckptlog.manager.manager import CheckpointManager
from ckptlog.manager.preparation import Content, Preparation
from ckptlog.model.event import Reference
from ckptlog.model.rank import rank_of
from ckptlog.policy.command import Create, Delete, Payloads, Witness
from ckptlog.policy.decide import Stale
from ckptlog.repository.intent import Intent, Step
from ckptlog.views.row import Row

_ATTEMPTS_MAX: Final = 1000
# Bound how long one commit keeps others waiting.
_DELETES_MAX: Final = 1000
_COPIES_MAX: Final = 10_000


class Threads:
    """Works on threads for one saver.

    Threads (of Python's): safe.
    """

    def __init__(
        self, manager: CheckpointManager, preparation: Preparation, wiring: Wiring, reader: Reader
    ) -> None:
        self._manager = manager
        self._store = manager.store
        self._preparation = preparation
        self._wiring = wiring
        self._reader = reader

    def delete_run(self, run: str) -> None:
        """Delete every checkpoint whose metadata has this run id."""
        question = Question(metadata={"run_id": run})
        while rows := [one.row for one in islice(self._reader.named(question), _DELETES_MAX)]:
            self._delete(rows)

    def prune(self, thread: str) -> None:
        """Delete what the newest checkpoints of a thread do not need."""
        for _ in range(_ATTEMPTS_MAX):
            self._store.catch_up()
            position = self._store.position
            rows = pruning.doomed(self._reader, thread)
            # The oldest first: were it cut short, what is kept would still be whole.
            some = rows[:_DELETES_MAX]
            if self._delete(some, based_on=position) and len(some) == len(rows):
                return
        raise overtaken()

    def _delete(self, rows: Sequence[Row], *, based_on: int | None = None) -> bool:
        """Delete checkpoints, all or none; False where the thread has changed meanwhile."""
        if not rows:
            return True
        steps = [
            Step(
                Delete(
                    actor=self._manager.actor,
                    # The others follow the first in one commit.
                    based_on=based_on if number == 0 else None,
                    checkpoint=row.id,
                    command=self._manager.new_command_id(),
                )
            )
            for number, row in enumerate(rows)
        ]
        outcome = self._store.submit_with_reserve(Intent(tuple(steps)))
        return not isinstance(outcome, Stale)

    def copy(self, source: str, target: str) -> None:
        """Copy a thread's checkpoints into one that is empty.

        Raises:
            CheckpointNotFoundError: The source has none.
            ConflictError: The target has some.
        """
        for _ in range(_ATTEMPTS_MAX):
            if next(self._reader.named(Question(target)), None) is not None:
                raise ConflictError(
                    f"The thread {target!r} has checkpoints already; nothing is copied over them.",
                    hint="Delete it first, or choose another thread.",
                    thread_id=target,
                )
            found = sorted(self._reader.named(Question(source)), key=lambda one: one.row.origin)
            if not found:
                raise CheckpointNotFoundError(
                    f"The thread {source!r} has no checkpoints.", thread_id=source
                )
            if self._copy(target, found):
                return
            self._store.catch_up()
        raise overtaken()

    def _copy(self, target: str, found: Sequence[Named]) -> bool:
        """Copy; False where what is copied, or the target, has changed meanwhile."""
        life = self._store.incarnation(task_of(target))
        for start in range(0, len(found), _COPIES_MAX):
            steps = [self._copied(target, one, life) for one in found[start : start + _COPIES_MAX]]
            if isinstance(self._store.submit(Intent(tuple(steps))), Stale):
                return False
        return True

    def _copied(self, target: str, one: Named, life: int) -> Step:
        """Return the event that names the payloads of a checkpoint for another thread."""
        row, place = one.row, Place(target, one.space, life)
        data = Reference(row.data_kind, row.data_root, row.data_size)
        meta = Reference(row.meta_kind, row.meta_root, row.meta_size)
        content = Content(Payloads())
        witnesses = [Witness(row.id, data.root)]
        if is_cut(row.task) or is_cut(task_of(target)):  # the thread's name stands in meta
            wire = meta_of(self._wiring, target, one.space, one.metadata)
            content = self._preparation.content(None, wire, None, kept_bytes=data.size)
            meta = content.payloads.meta or meta
        else:
            witnesses.append(Witness(row.id, meta.root))
        command = Create(
            actor=self._manager.actor,
            checkpoint=place.checkpoint(rank_of(row.id)),
            command=self._manager.new_command_id(),
            incarnation=life,
            namespace=row.namespace,
            parent=place.checkpoint(rank_of(row.parent)) if row.parent else "",
            payloads=Payloads(data, meta, content.payloads.new, 0, tuple(witnesses)),
            step=row.step,
            task=task_of(target),
        )
        return Step(command, content.records)
