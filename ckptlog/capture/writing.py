"""Writes what is held of components, and commits it as one checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ckptlog.capture.frozen import text_of
from ckptlog.capture.held import Held
from ckptlog.errors import CheckpointNotFoundError, OutcomeUnknownError
from ckptlog.manager.manager import CheckpointManager
from ckptlog.model import value as values
from ckptlog.model.capture import METADATA_KEY, CaptureInfo
from ckptlog.model.event import Reference

_UNKNOWN_RETRIES = 3


class Stored:
    """A component's payload. (Until blobs.tree_reader is there.)"""

    def __init__(self, value: Any, reference: Reference | None = None) -> None:
        self._value = value
        self.reference = reference or Reference("leaf", "0" * 64, 0)

    def value(self) -> Any:
        return self._value

    def get(self, key: str) -> Stored:
        return Stored(self._value[key])

    def items(self) -> Iterator[tuple[str, Stored]]:
        return ((key, Stored(item)) for key, item in self._value.items())

    def raw(self) -> Iterator[bytes]:
        yield self._value

    def check(self) -> None:
        pass


class Written(NamedTuple):
    """A component's payload, on its way into a commit."""

    reference: Reference
    bytes_new: int
    wire: bytes


class Writing:
    """Writes one capture's payloads."""

    def __init__(self, manager: CheckpointManager, before: CaptureInfo | None) -> None:
        self._manager = manager
        self._before = before

    def write(self, held: Held) -> Written:
        """Write one component's payload."""
        wire = b"".join(text_of(held.frozen()))
        draft = self._manager.store.blobs.split(wire)
        return Written(draft.reference, 0, wire)

    def commit(
        self,
        payloads: dict[str, Written],
        draft: CaptureInfo,
        number: int,
        command: str,
        lease: Any,
    ) -> str:
        """Commit the capture and return its id."""
        codecs = self._manager.store.codecs
        data = {name: values.decode(one.wire, codecs) for name, one in payloads.items()}
        options = {} if lease is None else {"lease": lease}
        with self._manager.batch(command_id=command, **options) as batch:
            name = batch.create_checkpoint(
                draft.system,
                draft.system,
                number,
                draft.description,
                data=data,
                metadata={METADATA_KEY: draft.to_metadata()},
            )
            batch.complete_checkpoint(name)
        return name


def stored_of(manager: CheckpointManager, info: CaptureInfo) -> dict[str, Stored]:
    """Return a capture's payloads by component."""
    checkpoint = manager.get_checkpoint(info.id)
    if checkpoint is None:
        raise CheckpointNotFoundError(f"There is no capture {info.id!r}.")
    return {
        name: Stored(value, info.components[name].reference)
        for name, value in checkpoint.data.items()
    }
