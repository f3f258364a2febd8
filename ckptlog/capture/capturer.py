"""Capturer: takes captures of one system, and finds them again."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from ckptlog.errors import CaptureFailedError, CheckpointError, CheckpointNotFoundError
from ckptlog.manager.manager import CheckpointManager
from ckptlog.model import value as values
from ckptlog.model.capture import (
    METADATA_KEY,
    CaptureInfo,
    ComponentInfo,
    digest_of,
    info_of,
    is_capture,
)
from ckptlog.model.component import Component, in_order, traits_of
from ckptlog.model.identifier import check_id


class Stored:
    """A component's payload, read when it is asked for. (Until blobs.tree_reader is there.)"""

    def __init__(self, value: Any) -> None:
        self._value = value

    def value(self) -> Any:
        return self._value

    def get(self, key: str) -> Stored:
        return Stored(self._value[key])

    def items(self) -> Iterator[tuple[str, Stored]]:
        return ((key, Stored(item)) for key, item in self._value.items())

    def raw(self) -> Iterator[bytes]:
        yield self._value


class Capturer:
    """Captures a system: all of its components at one moment, as one checkpoint.

    Args:
        manager: Of the store; its namespace, actor and settings are used.
        system: The system's name; one store may hold many systems.
        components: What it is made of; may be empty where captures are only read.
        batch_size: Components that are captured at once.
        deadline_s: How long one component may take for one step.
    """

    def __init__(
        self,
        manager: CheckpointManager,
        system: str,
        components: Sequence[Component] = (),
        *,
        batch_size: int = 5,
        deadline_s: float = 30.0,
    ) -> None:
        self.manager = manager
        self.system = check_id("system", system)
        self.traits = in_order([traits_of(one) for one in components]) if components else []
        by_name = {one.name: one for one in components}
        self.components = {one.name: by_name[one.name] for one in self.traits}

    def capture(
        self,
        *,
        description: str = "",
        tags: Iterable[str] = (),
        reason: str = "manual",
        skip_unchanged: bool = False,
        lease: Any = None,
    ) -> CaptureInfo | None:
        """Capture the system. None where skip_unchanged was asked for and nothing changed."""
        begin = time.monotonic()
        data, infos = {}, {}
        for traits in self.traits:
            started = time.monotonic()
            try:
                data[traits.name] = self.components[traits.name].capture()
            except Exception as error:
                raise CaptureFailedError(
                    f"Component {traits.name!r} failed in capture(): "
                    f"{type(error).__name__}: {error}",
                    component=traits.name,
                    reason="failed",
                ) from error
            wire = values.prepare(data[traits.name], codecs=self.manager.store.codecs).wire
            reference = self.manager.store.blobs.split(wire).reference
            infos[traits.name] = ComponentInfo(
                kind=traits.kind,
                schema=traits.schema_version,
                form=reference.kind,
                root=reference.root,
                size=reference.size,
                seconds=time.monotonic() - started,
                stability=traits.stability,
                depends_on=traits.depends_on,
                location=traits.location,
            )
        digest = digest_of(infos)
        last = next(iter(self.captures(1)), None)
        if skip_unchanged and last is not None and last.digest == digest:
            return None
        draft = CaptureInfo(
            id="",
            system=self.system,
            number=1 + (last.number if last else 0),
            position=0,
            created_at=datetime.min,
            digest=digest,
            components=infos,
            description=description,
            tags=tuple(tags),
            reason=reason,
            bytes_logical=sum(one.size for one in infos.values()),
            seconds=time.monotonic() - begin,
        )
        with self.manager.batch() as batch:
            name = batch.create_checkpoint(
                self.system,
                self.system,
                draft.number,
                description,
                data=data,
                metadata={METADATA_KEY: draft.to_metadata()},
            )
            batch.complete_checkpoint(name)
        return self.find(name)

    def captures(self, limit: int | None = None) -> list[CaptureInfo]:
        """Return the system's captures, newest first."""
        return list(islice(self._found(), limit))

    def _found(self) -> Iterator[CaptureInfo]:
        for one in self.manager.iterate(task_id=self.system, newest_first=True):
            if is_capture(one.metadata):
                entry = self.manager.store.newest(one.checkpoint_id)
                yield info_of(one, position=entry.origin if entry else None)

    def find(
        self, capture_id: str | None = None, *, at: datetime | int | None = None
    ) -> CaptureInfo:
        """Return a capture: by id, or the newest one, not after a time or a position."""
        for one in self._found():
            if capture_id is not None and one.id != capture_id:
                continue
            if isinstance(at, datetime) and one.created_at > at:
                continue
            if isinstance(at, int) and one.position > at:
                continue
            return one
        raise CheckpointNotFoundError(f"System {self.system!r} has no such capture.")

    def stored(self, info: CaptureInfo) -> dict[str, Stored]:
        """Return what a capture holds, by component."""
        checkpoint = self.manager.get_checkpoint(info.id)
        if checkpoint is None:
            raise CheckpointNotFoundError(f"There is no capture {info.id!r}.")
        return {name: Stored(value) for name, value in checkpoint.data.items()}

    def check(self, info: CaptureInfo) -> list[str]:
        """Return what is wrong with a capture; [] where nothing is."""
        faults = []
        if digest_of(info.components) != info.digest:
            faults.append("Its digest is not that of its components' roots.")
        try:
            self.stored(info)
        except CheckpointError as error:
            faults.append(error.message)
        return faults
