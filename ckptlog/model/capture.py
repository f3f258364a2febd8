"""The capture: what is known of one saved state of a whole system, without its payloads.

A capture is a checkpoint: its task is the system, its step the capture's number, its data the
components' payloads by name. What is here stands in the checkpoint's metadata, under "capture",
so that listing captures never reads what was captured (specs/capture.md).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from ckptlog.errors import FormatError
from ckptlog.model.checkpoint import CheckpointData, time_text
from ckptlog.model.component import STABILITIES
from ckptlog.model.event import Reference

METADATA_KEY: Final = "capture"
FORMAT: Final = 1

_name = re.compile(r"[A-Za-z0-9_.-]{1,64}").fullmatch
_root = re.compile(r"[0-9a-f]{64}").fullmatch
_digest = re.compile(r"[0-9a-f]{128}").fullmatch


@dataclass(frozen=True)
class ComponentInfo:
    """What is known of one component's payload.

    form, root, size: Of its reference (specs/payload.md); size in bytes of the stored form.
    bytes_new: What its payload brought to the store, before compression.
    seconds: From its capture() to the end of writing.
    stability: As component.STABILITIES.
    """

    kind: str
    schema: int
    form: str
    root: str
    size: int
    bytes_new: int = 0
    seconds: float = 0.0
    stability: str = "live"
    depends_on: tuple[str, ...] = ()
    location: Mapping[str, str] = field(default_factory=dict)

    @property
    def reference(self) -> Reference:
        """The payload's name, as blobs read it."""
        return Reference(self.form, self.root, self.size)


@dataclass(frozen=True)
class CaptureInfo:
    """One capture of a system.

    id: Of its checkpoint. number: 1, 2, ... in the system. position: Of its first event.
    created_at: UTC. reason: Why it was taken (manual, interval, signal, safety, ...).
    digest: SHA-512 over the components' roots; equal states have equal ones.
    components: By name, in the order in which they depend on each other.
    bytes_logical, bytes_new: Of all payloads; what was new in the store, before compression.
    stopped_s: How long the system was held. seconds: From the first step to the last write.
    """

    id: str
    system: str
    number: int
    position: int
    created_at: datetime
    digest: str
    components: Mapping[str, ComponentInfo]
    description: str = ""
    tags: tuple[str, ...] = ()
    reason: str = "manual"
    bytes_logical: int = 0
    bytes_new: int = 0
    stopped_s: float = 0.0
    seconds: float = 0.0

    @property
    def slowest(self) -> str:
        """The name of the component that took longest."""
        return max(self.components, key=lambda name: self.components[name].seconds, default="")

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, JSON-safe."""
        return {
            "id": self.id,
            "system": self.system,
            "number": self.number,
            "position": self.position,
            "created_at": time_text(self.created_at),
            "description": self.description,
            **self.to_metadata(),
            "slowest": self.slowest,
        }

    def to_metadata(self) -> dict[str, Any]:
        """Return what the checkpoint's metadata hold under "capture"."""
        return {
            "format": FORMAT,
            "reason": self.reason,
            "tags": list(self.tags),
            "digest": self.digest,
            "bytes_logical": self.bytes_logical,
            "bytes_new": self.bytes_new,
            "stopped_s": self.stopped_s,
            "seconds": self.seconds,
            "components": {
                name: {
                    "kind": one.kind,
                    "schema": one.schema,
                    "form": one.form,
                    "root": one.root,
                    "size": one.size,
                    "bytes_new": one.bytes_new,
                    "seconds": one.seconds,
                    "stability": one.stability,
                    "depends_on": list(one.depends_on),
                    "location": dict(one.location),
                }
                for name, one in self.components.items()
            },
        }


def digest_of(components: Mapping[str, ComponentInfo]) -> str:
    """Return the SHA-512 of a captured state, 128 hexadecimal digits (specs/capture.md, 5)."""
    lines = [
        f"{name} {one.kind} {one.schema} {one.form} {one.root} {one.size}\n"
        for name, one in sorted(components.items())
    ]
    return hashlib.sha512("".join(["ckptlog capture 1\n", *lines]).encode()).hexdigest()


def is_capture(metadata: Mapping[str, Any]) -> bool:
    """Say whether a checkpoint's metadata are those of a capture."""
    return isinstance(metadata.get(METADATA_KEY), dict)


def info_of(checkpoint: CheckpointData, *, position: int | None = None) -> CaptureInfo:
    """Return the capture that a checkpoint is; its data are not looked at.

    Args:
        position: Of its first event; the checkpoint's own, the newest one's, where it is None.

    Raises:
        FormatError: Its metadata are not those of a capture.
    """
    try:
        return _read(checkpoint, checkpoint.metadata[METADATA_KEY], position)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(
            f"Checkpoint {checkpoint.checkpoint_id!r} is no capture: "
            f"{type(error).__name__}: {error}.",
            hint="ckptlog list shows what is there.",
            checkpoint_id=checkpoint.checkpoint_id,
        ) from error


def _read(checkpoint: CheckpointData, found: dict[str, Any], position: int | None) -> CaptureInfo:
    if found["format"] != FORMAT:
        raise ValueError(f"its format is {found['format']!r}, this version reads {FORMAT}")
    return CaptureInfo(
        id=checkpoint.checkpoint_id,
        system=checkpoint.task_id,
        number=checkpoint.step_number,
        position=checkpoint.position if position is None else position,
        created_at=checkpoint.created_at,
        description=checkpoint.step_description,
        tags=tuple(_text(tag) for tag in found["tags"]),
        reason=_text(found["reason"]),
        digest=_matched(_digest, found["digest"]),
        bytes_logical=_count(found["bytes_logical"]),
        bytes_new=_count(found["bytes_new"]),
        stopped_s=_seconds(found["stopped_s"]),
        seconds=_seconds(found["seconds"]),
        components={
            _matched(_name, name): _component(one) for name, one in found["components"].items()
        },
    )


def _component(found: dict[str, Any]) -> ComponentInfo:
    if found["stability"] not in STABILITIES:
        raise ValueError(f"{found['stability']!r} is no stability")
    return ComponentInfo(
        kind=_matched(_name, found["kind"]),
        schema=_count(found["schema"]),
        form=_matched(_name, found["form"]),
        root=_matched(_root, found["root"]),
        size=_count(found["size"]),
        bytes_new=_count(found["bytes_new"]),
        seconds=_seconds(found["seconds"]),
        stability=found["stability"],
        depends_on=tuple(_matched(_name, name) for name in found["depends_on"]),
        location={_text(name): _text(text) for name, text in found["location"].items()},
    )


def _text(value: object) -> str:
    if type(value) is str:
        return value
    raise TypeError(f"{value!r:.80} is no text")


def _count(value: object) -> int:
    if type(value) is int and value >= 0:
        return value
    raise TypeError(f"{value!r:.80} is no count")


def _seconds(value: object) -> float:
    if type(value) in {int, float} and 0 <= value < 1e12:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    raise TypeError(f"{value!r:.80} is no time in seconds")


def _matched(match: Any, value: object) -> str:
    if type(value) is str and match(value):
        return value
    raise ValueError(f"{value!r:.80} is not well formed")
