"""A checkpoint as one event left it: public facts of the event, and its payloads, verified."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ckptlog.model.checkpoint import CheckpointData
from ckptlog.model.entry import Entry
from ckptlog.model.state import CheckpointState
from ckptlog.repository.collected import told_apart

if TYPE_CHECKING:
    from ckptlog.repository.store import Store


def snapshot(
    store: Store, entry: Entry, records: Mapping[bytes, bytes] | None = None
) -> CheckpointData:
    """Return the checkpoint that an event describes, a new object each time.

    Args:
        records: Chunk records that came with the event, by digest.

    Raises:
        CheckpointCorruptionError, MissingBlobError: Its bytes are damaged or gone.
        PayloadCollectedError: A collection let go of them.
    """
    # Not by the store's own door: what a history returned is also read after the store was closed.
    event, value = entry.event, store.blobs.value
    with told_apart(store, entry):
        data, meta = (
            {} if root is None else value(root, store.codecs, records or {})
            for root in (event.data, event.meta)
        )
    return build(entry, data, meta)


def build(entry: Entry, data: dict[str, Any], meta: dict[str, Any]) -> CheckpointData:
    """Return the checkpoint that an event and its decoded payloads describe."""
    event = entry.event
    subject = event.subject
    return CheckpointData(
        checkpoint_id=subject.checkpoint,
        task_id=subject.task,
        task_title=meta.get("title", ""),
        state=CheckpointState(event.state),
        step_number=event.step,
        total_steps=event.total or None,
        step_description=meta.get("description", ""),
        data=data,
        metadata=meta.get("metadata", {}),
        created_at=datetime.fromisoformat(entry.created),
        updated_at=datetime.fromisoformat(event.time),
        worker_id=subject.worker or None,
        parent_checkpoint_id=subject.parent or None,
        position=entry.position,
        namespace=subject.namespace,
    )


def fields_of(checkpoint: CheckpointData) -> dict[str, object]:
    """Return a checkpoint's fields with values as users have them; the state as text."""
    fields: dict[str, object] = {name: getattr(checkpoint, name) for name in _NAMES}
    fields["state"] = checkpoint.state.value
    return fields


_NAMES = tuple(CheckpointData.__dataclass_fields__)
