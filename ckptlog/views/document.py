"""One checkpoint as a JSON file of the old layout: its bytes, its folder and its name.

The payloads are stored as JSON already, so their wires are put in as they are: nothing is decoded,
and the file says exactly what `CheckpointData.to_dict` says. Pure. Page: specs/view-files.md.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ckptlog.errors import FormatError
from ckptlog.model.entry import Entry
from ckptlog.model.identifier import file_name

FOLDERS: Final = ("active", "completed", "failed")
PREFIX: Final = "checkpoint_"
SUFFIX: Final = ".json"
_FOLDER_OF: Final = {"completed": "completed", "failed": "failed"}
_NOTHING: Final = b"{}"
# A larger document stands on one line: deep values would grow a hundredfold by their blanks.
_INDENTED_BYTES_MAX: Final = 65_536
_encode = msgspec.json.Encoder().encode


class _Meta(msgspec.Struct):
    """The `meta` payload, its values as they stand in its wire."""

    title: msgspec.Raw = msgspec.Raw(b'""')
    description: msgspec.Raw = msgspec.Raw(b'""')
    metadata: msgspec.Raw = msgspec.Raw(_NOTHING)


_decode_meta = msgspec.json.Decoder(_Meta).decode


def folder_of(state: str) -> str:
    """Return the folder of a checkpoint in a state; created and restored ones count as active."""
    return _FOLDER_OF.get(state, FOLDERS[0])


def name_of(checkpoint: str) -> str:
    """Return the file name of a checkpoint; any id gives a harmless one."""
    return f"{PREFIX}{file_name(checkpoint)}{SUFFIX}"


def is_ours(name: str) -> bool:
    """Say whether a file name is one that this view writes."""
    return name.startswith(PREFIX) and name.endswith(SUFFIX)


def document(entry: Entry, data: bytes | None, meta: bytes | None) -> bytes:
    """Return the file of a checkpoint after an event.

    Args:
        data, meta: The wires of the event's payloads; None where it has none.

    Raises:
        FormatError: They are no JSON.
    """
    event, subject = entry.event, entry.event.subject
    where = f"The payload of {subject.checkpoint!r} after event {entry.position}"
    try:
        about = _decode_meta(meta) if meta else _Meta()
        fields: dict[str, object] = {
            "checkpoint_id": subject.checkpoint,
            "task_id": subject.task,
            "task_title": about.title,
            "state": event.state,
            "step_number": event.step,
            "total_steps": event.total or None,
            "step_description": about.description,
            "data": msgspec.Raw(data or _NOTHING),
            "metadata": about.metadata,
            "created_at": entry.created,
            "updated_at": event.time,
            "worker_id": subject.worker or None,
            "parent_checkpoint_id": subject.parent or None,
            "position": entry.position,
            "namespace": subject.namespace,
        }
        whole = _encode(fields)
        indent = 2 if len(whole) <= _INDENTED_BYTES_MAX else -1
        formatted = msgspec.json.format(whole, indent=indent)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise FormatError(f"{where} is no JSON: {error}", position=entry.position) from error
    if not (data or _NOTHING).startswith(b"{") or not bytes(about.metadata).startswith(b"{"):
        raise FormatError(f"{where} is no dictionary.", position=entry.position)
    return formatted + b"\n"
