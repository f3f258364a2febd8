"""The peers, each behind the few calls that the workloads need.

SaverPeer   LangGraph's SqliteSaver as a user gets it: WAL, synchronous=FULL (checked).
BareLoop    appends given bytes to a file and syncs: what the disk allows a single writer.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from tools.bench.workload import Small

PACKAGES = ("langgraph-checkpoint-sqlite", "langgraph-checkpoint", "langchain-core")
_FULL = 2

Put = tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]


class PeerMissingError(SystemExit):
    """The peer is not installed."""


class SaverPeer:
    """SqliteSaver on one file."""

    def __init__(self, path: Path, *, is_durable: bool = True, with_objects: bool = False) -> None:
        """Open it.

        Args:
            is_durable: False to fill a database quickly; never while measuring.
            with_objects: Store messages as langchain's objects, as LangGraph's users do, and not
                as the dictionaries that ckptlog is given.
        """
        self._with_objects = with_objects
        try:
            saver_class = import_module("langgraph.checkpoint.sqlite").SqliteSaver
            self._base = import_module("langgraph.checkpoint.base")
            self._uuid6 = import_module("langgraph.checkpoint.base.id").uuid6
        except ImportError as error:
            raise PeerMissingError(f"{error}. Run it through tools/bench/run.") from error
        self.connection = sqlite3.connect(path, check_same_thread=False)
        self.saver = saver_class(self.connection)
        self.saver.setup()
        if is_durable:
            self._check_settings()
        else:
            self.connection.execute("PRAGMA synchronous=OFF")
        self._serial = itertools.count(1)
        self._heads: dict[str, Any] = {}

    def _check_settings(self) -> None:
        names = ("journal_mode", "synchronous")
        found = [self.connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]
        if found != ["wal", _FULL]:
            raise SystemExit(f"SqliteSaver runs with {found}, not with WAL and synchronous=FULL.")

    def prepare(self, task: str, state: dict[str, Any], metadata: dict[str, Any]) -> Put:
        """Return the arguments of a put; made outside of what is timed, as the caller's part."""
        serial = next(self._serial)
        checkpoint = self._base.empty_checkpoint()
        checkpoint["id"] = str(self._uuid6(clock_seq=serial % 16000))
        checkpoint["channel_values"] = _as_objects(state) if self._with_objects else state
        versions = dict.fromkeys(state, f"{serial:032}.{0.5:016f}")
        checkpoint["channel_versions"] = versions
        return task, checkpoint, metadata, versions

    def prepare_small(self, items: Sequence[Small]) -> list[Put]:
        """Do the same for the workload `small`."""
        return [self.prepare(one.task, one.state, one.metadata) for one in items]

    def put(self, arguments: Put) -> Any:
        """Store one checkpoint as the newest of its thread; return its configuration."""
        task, checkpoint, metadata, versions = arguments
        head = self._heads.get(task) or thread(task)
        self._heads[task] = self.saver.put(head, checkpoint, metadata, versions)
        return self._heads[task]

    def get(self, configuration: dict[str, Any]) -> Any:
        """Return one checkpoint: by id, or the newest of a thread."""
        return self.saver.get_tuple(configuration)

    def page(self, wanted: dict[str, Any], before: dict[str, Any] | None, limit: int) -> list[Any]:
        """Return a page of all threads' checkpoints by metadata, newest first."""
        return list(self.saver.list(None, filter=wanted, before=before, limit=limit))

    def close(self) -> None:
        """Close the database; its log is written back."""
        self.connection.close()


def _as_objects(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state of the workload `small` with langchain's messages in it."""
    classes = import_module("langchain_core.messages")
    return {**state, "messages": [_as_object(classes, one) for one in state["messages"]]}


def _as_object(classes: Any, message: dict[str, Any]) -> Any:
    common = {"content": message["content"], "id": message["id"]}
    if message["type"] == "human":
        return classes.HumanMessage(**common)
    if message["type"] == "ai":
        return classes.AIMessage(**common)
    return classes.ToolMessage(**common, tool_call_id=f"call-{message['step'] - 1}")


def thread(task: str, checkpoint: str = "") -> dict[str, Any]:
    """Return what SqliteSaver calls the configuration of a thread, or of one checkpoint."""
    named = {"thread_id": task, "checkpoint_ns": ""}
    return {"configurable": {**named, "checkpoint_id": checkpoint} if checkpoint else named}


class BareLoop:
    """Writes bytes at the end of a file and syncs, nothing else.

    Args:
        ahead_bytes: Zeros to write ahead, as ckptlog does; 0 for plain appending.
    """

    def __init__(self, path: Path, *, ahead_bytes: int = 0) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._ahead_bytes = ahead_bytes
        self._offset = self._allocated = 0

    def append(self, data: bytes) -> None:
        """Append durably."""
        os.pwrite(self._fd, data, self._offset)
        self._offset += len(data)
        if self._ahead_bytes and self._offset > self._allocated:
            os.pwrite(self._fd, bytes(self._ahead_bytes), self._offset)
            self._allocated = self._offset + self._ahead_bytes
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
