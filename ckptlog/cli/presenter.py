"""How checkpoints look: a row of a table, a line of JSON, a page of details."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckptlog.cli import text

if TYPE_CHECKING:
    from ckptlog.model.checkpoint import CheckpointData


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
    from ckptlog.model.codec import Typed

    if type(value) is Typed:
        return f"object of the type {value.name}"
    return text.shorten(repr(value), 60)
