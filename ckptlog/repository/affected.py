"""Whose present state cannot be read, and which checkpoint of the task can be gone back to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ckptlog.repository.history import Life
from ckptlog.repository.mending import Affected


def affected_of(names: Iterable[str], lives: Mapping[str, Life]) -> Iterator[Affected]:
    """Yield checkpoints, by name, each with the best other one of its task."""
    names = set(names)
    tasks = {lives[name].task for name in names}
    points: dict[str, tuple[tuple[bool, int], str]] = {}
    for name, life in lives.items():
        if life.task in tasks and not life.is_deleted and name not in names:
            found = (_rank(life), name)
            points[life.task] = max(found, points.get(life.task, found))
    for name in sorted(names):
        life = lives[name]
        point = points.get(life.task)
        yield Affected(name, life.task, life.position, point[1] if point else "")


def _rank(life: Life) -> tuple[bool, int]:
    """Order recovery points: a failed one only if nothing else is left, then the latest."""
    return life.state != "failed", life.origin
