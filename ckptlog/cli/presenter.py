"""How checkpoints look: a row of a table, a line of JSON, a page of details."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ckptlog.cli import text
from ckptlog.cli.output import Column

if TYPE_CHECKING:
    from ckptlog.model.checkpoint import CheckpointData

COLUMNS = (
    Column("checkpoint"),
    Column("task"),
    Column("step", is_number=True),
    Column("state"),
    Column("updated"),
    Column("worker"),
    Column("description"),
)
_DESCRIPTION_WIDTH = 48


def row(checkpoint: CheckpointData) -> tuple[str, ...]:
    """Return a checkpoint's cells for COLUMNS."""
    task = checkpoint.task_id
    if checkpoint.namespace:
        task = f"{task} ({checkpoint.namespace})"
    return (
        checkpoint.checkpoint_id,
        task,
        text.progress(checkpoint.step_number, checkpoint.total_steps),
        checkpoint.state.value,
        text.instant(checkpoint.updated_at),
        checkpoint.worker_id or "-",
        text.shorten(checkpoint.step_description or checkpoint.task_title, _DESCRIPTION_WIDTH),
    )


def summary(checkpoint: CheckpointData) -> dict[str, Any]:
    """Return everything about a checkpoint but its data, for JSON."""
    fields = checkpoint.to_dict()
    fields.pop("data", None)
    return fields


def details(checkpoint: CheckpointData) -> dict[str, Any]:
    """Return names and values of a details page; data and metadata are not in it."""
    return {
        "checkpoint": checkpoint.checkpoint_id,
        "state": checkpoint.state.value,
        "task": checkpoint.task_id,
        "title": checkpoint.task_title,
        "namespace": checkpoint.namespace,
        "step": text.progress(checkpoint.step_number, checkpoint.total_steps),
        "description": checkpoint.step_description,
        "worker": checkpoint.worker_id,
        "parent": checkpoint.parent_checkpoint_id,
        "created": checkpoint.created_at,
        "updated": checkpoint.updated_at,
        "position": checkpoint.position,
    }


def states_line(states: Iterable[str]) -> str:
    """Return how many there are of each state: 3 completed, 1 active."""
    counts: dict[str, int] = {}
    for state in states:
        counts[state] = counts.get(state, 0) + 1
    return ", ".join(f"{number:,} {state}" for state, number in counts.items()) or "none"


def outline(data: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the keys of data and, in short, what each holds."""
    return [(text.escape(key), _kind(value)) for key, value in data.items()]


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return f"text of {text.count(len(value), 'character')}"
    if isinstance(value, dict):
        return text.count(len(value), "entry").replace("entrys", "entries")
    if isinstance(value, (list, tuple, set, frozenset)):
        return text.count(len(value), "item")
    if isinstance(value, (bytes, bytearray)):
        return f"bytes ({text.size(len(value))})"
    return text.shorten(repr(value), 60)
