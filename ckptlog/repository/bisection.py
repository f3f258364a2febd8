"""Since when is something true of a checkpoint: a search along its events (specs/bisect.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypedDict

import msgspec

from ckptlog.errors import (
    ArgumentError,
    CheckpointCorruptionError,
    CheckpointNotFoundError,
    MissingBlobError,
    PayloadCollectedError,
)
from ckptlog.model.callback import refuse_deferred
from ckptlog.model.checkpoint import CheckpointData
from ckptlog.model.entry import Entry
from ckptlog.model.identifier import CHECKPOINT_ID_CHARACTERS_MAX, check_id
from ckptlog.policy.expression import Expression, parse
from ckptlog.policy.search import Turn, find_turn
from ckptlog.repository.snapshot import fields_of, snapshot
from ckptlog.repository.trail import trail_of_checkpoint, trail_of_task

if TYPE_CHECKING:
    from ckptlog.repository.store import Store

Predicate = Callable[[CheckpointData], bool | None]
Progress = Callable[[int, bool | None], None]


class Bisection(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found.

    entry: The first event after which it is true; None where it is not found.
    previous: Position of the last event before it after which it is false; None where none is.
    doubtful: Positions between the two that could not be judged.
    damaged: Positions whose bytes cannot be read, of those that were asked for.
    collected: Positions whose bytes a compaction let go of, of those.
    unseen: Paths of the expression that no checkpoint had that was asked about.
    events: How many events there were to choose from. asked: How many were looked at.
    is_linear: Whether every event was asked, so that nothing is assumed.
    """

    entry: Entry | None
    previous: int | None
    doubtful: tuple[int, ...]
    damaged: tuple[int, ...]
    collected: tuple[int, ...] = ()
    unseen: tuple[str, ...]
    events: int
    asked: int
    is_linear: bool

    @property
    def position(self) -> int | None:
        """Position of the event that was found."""
        return None if self.entry is None else self.entry.position

    @property
    def note(self) -> str:
        """What the answer rests on, in words."""
        if self.entry is None and self.previous is None:
            return "No event could be judged." if self.events else "There are no events."
        if self.is_linear:
            found = "it is the first" if self.entry else "it is true at none"
            return f"Every event was asked, from the oldest on: {found}."
        if self.entry is None:
            return "It is false at the end, and may have been true before."
        return "Assumed: what is once true stays true. Certain is that it turned true here."

    def to_dict(self) -> dict[str, Any]:
        """Return everything, safe for JSON."""
        event = self.entry.event if self.entry else None
        return {
            "position": self.position,
            "time": event.time if event else None,
            "type": event.type if event else None,
            "actor": event.actor if event else None,
            "checkpoint_id": event.subject.checkpoint if event else None,
            "task_id": event.subject.task if event else None,
            "previous": self.previous,
            "doubtful": list(self.doubtful),
            "damaged": list(self.damaged),
            "collected": list(self.collected),
            "unseen_paths": list(self.unseen),
            "events": self.events,
            "asked": self.asked,
            "search": "linear" if self.is_linear else "binary",
            "note": self.note,
        }


class BisectOptions(TypedDict, total=False):
    """Where `Store.bisect` looks, and how.

    checkpoint, task: Whose events; one of the two.
    start, end: Only events with start <= position < end.
    linear: Ask about every event, instead of assuming that what is true stays true.
    progress: Told of each event that was judged: its position, and the answer.
    """

    checkpoint: str | None
    task: str | None
    start: int
    end: int | None
    linear: bool
    progress: Progress | None


def bisect(store: Store, predicate: str | Predicate, options: BisectOptions) -> Bisection:
    """Return the first event after which a predicate is true.

    Raises:
        ArgumentError: The expression cannot be read, or not one of checkpoint and task is named.
        CheckpointNotFoundError: There never was such a checkpoint or task.
        Whatever a predicate that is a function raises.
    """
    if unknown := sorted(set(options) - set(BisectOptions.__annotations__)):
        raise ArgumentError(
            f"A bisection has no option {unknown[0]!r}.",
            hint=f"It has: {', '.join(BisectOptions.__annotations__)}.",
            argument=unknown[0],
        )
    is_linear = options.get("linear", False)
    judge = _Judge(store, predicate, options.get("progress"))
    positions = _positions(store, options)
    turn = find_turn(len(positions), lambda index: judge.ask(positions[index]), is_linear=is_linear)
    return judge.result(turn, positions, is_linear=is_linear)


def _positions(store: Store, options: BisectOptions) -> list[int]:
    checkpoint, task = options.get("checkpoint"), options.get("task")
    start, end = options.get("start", 0), options.get("end")
    if (checkpoint is None) == (task is None):
        raise ArgumentError(
            "A bisection goes along one checkpoint or one task.",
            hint="Name one of the two: checkpoint=... or task=...",
            argument="checkpoint",
        )
    for name, position in (("start", start), ("end", 0 if end is None else end)):
        if type(position) is not int or position < 0:
            raise ArgumentError(
                f"{name} is {position!r}; a position is a whole number from 0 on.", argument=name
            )
    if checkpoint is not None:
        check_id("checkpoint_id", checkpoint, CHECKPOINT_ID_CHARACTERS_MAX)
        found = trail_of_checkpoint(store, checkpoint)
    else:
        found = trail_of_task(store, check_id("task_id", task))
    if not found:
        raise CheckpointNotFoundError(
            f"There never was a {'task' if checkpoint is None else 'checkpoint'} "
            f"{checkpoint or task!r}.",
            hint="ckptlog log shows what is in the store.",
        )
    return [one for one in found if start <= one and (end is None or one < end)]


class _Judge:
    """Asks one predicate about events, and keeps what the answers leave open."""

    def __init__(self, store: Store, predicate: str | Predicate, progress: Progress | None) -> None:
        self._store = store
        self._progress = progress
        self._damaged: list[int] = []
        self._collected: list[int] = []
        self._unseen: frozenset[str] | None = None
        self._expression: Expression | None = None
        if callable(predicate):
            refuse_deferred("predicate", predicate)
            self._predicate: Predicate = predicate
        else:
            self._expression = parse(predicate)
            self._predicate = self._by_expression

    def ask(self, position: int) -> bool | None:
        answer = self._answer(position)
        if self._progress is not None:
            self._progress(position, answer)
        return answer

    def _answer(self, position: int) -> bool | None:
        try:
            entry = self._store.event_at(position)
            checkpoint = None if entry is None else snapshot(self._store, entry)
        except PayloadCollectedError:
            self._collected.append(position)
            return None
        except (CheckpointCorruptionError, MissingBlobError):
            checkpoint = None
        if checkpoint is None:
            self._damaged.append(position)
            return None
        answer = self._predicate(checkpoint)
        return None if answer is None else bool(answer)

    def _by_expression(self, checkpoint: CheckpointData) -> bool:
        expression = self._expression
        assert expression is not None  # noqa: S101 - this method stands for it
        root = fields_of(checkpoint)
        missing = expression.missing(root)
        self._unseen = missing if self._unseen is None else self._unseen & missing
        return expression.is_true(root)

    def result(self, turn: Turn, positions: list[int], *, is_linear: bool) -> Bisection:
        first, before = turn.first, turn.before
        return Bisection(
            entry=None if first is None else self._store.event_at(positions[first]),
            previous=None if before is None else positions[before],
            doubtful=tuple(positions[index] for index in turn.doubtful),
            damaged=tuple(sorted(self._damaged)),
            collected=tuple(sorted(self._collected)),
            unseen=tuple(sorted(self._unseen or ())),
            events=len(positions),
            asked=turn.asked,
            is_linear=is_linear,
        )
