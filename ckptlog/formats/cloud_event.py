"""Events as CloudEvents 1.0 in JSON (specs/consumers.md, "The event as others see it").

Pure. Nothing of a payload is in it: user text stays in the store. What a receiver needs to tell
events apart, put them in order and look the rest up stands in the attributes.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ckptlog.model.entry import Entry

SPEC_VERSION: Final = "1.0"
CONTENT_TYPE: Final = "application/cloudevents+json; charset=utf-8"
_ID_LEAF_BYTES = 8


def event_id(position: int, leaf: bytes) -> str:
    """Return the id that tells an event from every other of its store, in any timeline."""
    return f"{position}-{leaf[:_ID_LEAF_BYTES].hex()}"


def source_of(store_id: str) -> str:
    """Return the URI of a store; store_id as 32 hexadecimal digits."""
    return f"urn:ckptlog:store:{store_id}"


def cloud_event(entry: Entry, leaf: bytes, store_id: str) -> dict[str, Any]:
    """Return an event as a CloudEvent; its `data` has the position and the event's own fields.

    Args:
        leaf: The event's leaf hash, 32 bytes.
        store_id: 32 hexadecimal digits.
    """
    event = entry.event
    found: dict[str, Any] = {
        "specversion": SPEC_VERSION,
        "id": event_id(entry.position, leaf),
        "source": source_of(store_id),
        "type": event.type,
    }
    subject = event.subject.checkpoint or event.subject.task
    if subject:
        found["subject"] = subject
    found |= {
        "time": event.time,
        # Extensions of CloudEvents: order, and what must stay in order.
        "sequence": f"{entry.position:020d}",
    }
    if event.subject.task:
        found["partitionkey"] = event.subject.task
    found["datacontenttype"] = "application/json"
    found["data"] = {
        "position": entry.position,
        "leaf": leaf.hex(),
        **msgspec.to_builtins(event),
    }
    return found


def encode(entry: Entry, leaf: bytes, store_id: str) -> bytes:
    """Return the same as UTF-8 JSON on one line."""
    return msgspec.json.encode(cloud_event(entry, leaf, store_id))
