"""What another checkpointer stored, as its rows have it, and what it stands for.

A source (`sqlite`, `postgres`) gives `Original`s: serialised values with the names of their
serialisers, and nothing decoded. `opened` decodes one, and checks it, for rows are hostile until
then: it gives a checkpoint, its metadata and its writes, or a `Fault` that says where and why not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from ckptlog.integrations.langgraph.record import VALUES, Write
from ckptlog.integrations.langgraph.rereading import Rereader, UnreadableError
from ckptlog.model.quotation import quoted

DAMAGED: Final = "import.damaged"
_TASKS: Final = "__pregel_tasks"
# Up to this version of a checkpoint, Sends stood among the writes of its parent alone.
_SENDS_VERSION: Final = 4
_VERSIONS: Final = "channel_versions"


class Serialised(NamedTuple):
    """One value. kind: The name of its serialiser, as the row has it."""

    kind: Any
    raw: Any


class OldWrite(NamedTuple):
    """One pending write, as the row has it."""

    task: Any
    number: Any
    channel: Any
    value: Serialised
    path: Any


class Original(NamedTuple):
    """One checkpoint of the source.

    parent: "" where it has none.
    checkpoint: Serialised, or the object that the database itself has decoded.
    channels: Values that stand in rows of their own.
    sends: Of its parent, for old checkpoints (`__pregel_tasks`).
    metadata: JSON, or the object of it; None for none.
    size_bytes: Of all of it.
    """

    identifier: str
    parent: str
    checkpoint: Serialised | dict[str, Any]
    channels: Mapping[str, Serialised]
    sends: Sequence[Serialised]
    metadata: Any
    writes: Sequence[OldWrite]
    size_bytes: int


class Key(NamedTuple):
    """A namespace of a thread."""

    thread: str
    space: str


class Source(Protocol):
    """A database that another checkpointer writes to; it is only read.

    Every call sees what was committed when it began, and holds no lock when it returns.
    """

    name: str

    def count(self, threads: Sequence[str] | None) -> int:
        """Return the number of checkpoints of threads; None for all."""

    def keys(self, threads: Sequence[str] | None) -> Iterator[Key]:
        """Yield the namespaces of threads, those of a thread together."""

    def page(self, key: Key, after: str | None) -> Sequence[tuple[str, str]]:
        """Return ids and parents of the next checkpoints, the least id first; () at the end."""

    def parent(self, key: Key, identifier: str) -> str | None:
        """Return the parent of a checkpoint, "" for none; None where it is not there."""

    def read(self, key: Key, identifier: str) -> Original | None:
        """Return a checkpoint with its writes; None where it is not there (any more)."""

    def size_bytes(self) -> int:
        """Return how much room the database takes."""

    def close(self) -> None:
        """Let go of the database."""


class Opened(NamedTuple):
    """What an original stands for."""

    checkpoint: dict[str, Any]
    metadata: dict[str, Any]
    writes: list[Write]


def opened(original: Original, reread: Rereader) -> Opened:
    """Return what an original stands for.

    Raises:
        UnreadableError: It is damaged, or holds what is not read; with the path.
    """
    checkpoint = _checkpoint(original, reread)
    writes = [_write(write, number, reread) for number, write in enumerate(original.writes)]
    return Opened(checkpoint, _metadata(original.metadata), writes)


def _checkpoint(original: Original, reread: Rereader) -> dict[str, Any]:
    stored = original.checkpoint
    whole = reread(stored, "checkpoint") if isinstance(stored, Serialised) else stored
    if type(whole) is not dict:
        raise damaged("checkpoint", f"it is of type {type(whole).__name__}, not a dict")
    own: Any = whole.get(VALUES) or {}
    versions: Any = whole.get(_VERSIONS)
    for name, part in ((VALUES, own), (_VERSIONS, versions)):
        if type(part) is not dict:
            raise damaged(f"checkpoint.{name}", f"{quoted(part)} is no dict")
    if whole.get("id") != original.identifier:
        raise damaged("checkpoint.id", f"it is {quoted(whole.get('id'))}, the row's is another one")
    values = dict(own)
    for channel, value in original.channels.items():
        values[channel] = reread(value, f"checkpoint.{VALUES}.{channel}")
    if original.sends and type(whole.get("v")) is int and whole["v"] < _SENDS_VERSION:
        values[_TASKS] = [
            reread(value, f"checkpoint.{VALUES}.{_TASKS}[{number}]")
            for number, value in enumerate(original.sends)
        ]
        whole = {**whole, _VERSIONS: {**versions, _TASKS: _greatest(versions.values())}}
    return {**whole, VALUES: values}


def _greatest(versions: Iterable[Any]) -> Any:
    try:
        return max(versions, default=f"{1:032}.{0.0:016}")
    except TypeError as error:
        raise damaged(f"checkpoint.{_VERSIONS}", "they cannot be compared") from error


def _metadata(stored: Any) -> dict[str, Any]:
    if stored is None:
        return {}
    if isinstance(stored, str | bytes):
        try:
            stored = json.loads(stored)
        except (ValueError, RecursionError) as error:
            raise damaged("metadata", f"it is no JSON: {error}") from error
    if type(stored) is not dict:
        raise damaged("metadata", f"it is of type {type(stored).__name__}, not a dict")
    return stored


def _write(write: OldWrite, number: int, reread: Rereader) -> Write:
    path = f"writes[{number}]"
    for name, text in (("task", write.task), ("channel", write.channel), ("path", write.path)):
        if type(text) is not str:
            raise damaged(f"{path}.{name}", f"{quoted(text)} is no text")
    if type(write.number) is not int:
        raise damaged(f"{path}.index", f"{quoted(write.number)} is no whole number")
    value = reread(write.value, f"{path}.value")
    return Write(write.task, write.number, write.channel, value, write.path)


def damaged(path: str, reason: str) -> UnreadableError:
    """Return the error for a row that no checkpointer wrote so."""
    return UnreadableError(DAMAGED, path, reason)
