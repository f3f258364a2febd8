"""Is a store that a fault has left what its process told it to be?

reader    opened for reading only: what it shows was true once, or it says what is wrong
writer    opens without repair; every acknowledged value is there, none is half there
log       positions are dense
verify    full: nothing is wrong
goes on   a new checkpoint can be made, and read again after another opening
"""

from __future__ import annotations

import os
from pathlib import Path

import ckptlog
from ckptlog import CheckpointError, CheckpointManager
from ckptlog.errors import NotAStoreError, StoreMissingError
from ckptlog.storage.environment import Environment
from tools.crash.diary import (
    ABSENT,
    DELETED,
    LOST,
    MISREAD,
    UNOPENED,
    WRONG_DATA,
    Diary,
    data_of,
    state_of,
)

AFTER = "after"


class Rebooted(Environment):
    """The machine after a reboot, without one."""

    def __init__(self) -> None:
        super().__init__()
        self._boot = os.urandom(16)

    def boot(self) -> bytes:
        """Return what no other boot is called."""
        return self._boot


def judge(
    root: Path,
    diary: Diary,
    *,
    with_reader: bool = True,
    environment: Environment | None = None,
) -> list[str]:
    """Return what is wrong with the store; it is written to.

    Any exception that is none of ours is a fault of the store too, and passes through.
    """
    environment = environment or Environment()
    faults = _reader_faults(root, diary, environment) if with_reader else []
    try:
        # Before anything was acknowledged there need not be a store; but there must be a way to it.
        with ckptlog.open(root, create=not diary.acts, environment=environment) as store:
            faults += _writer_faults(CheckpointManager(store=store), diary)
        with ckptlog.open(root, read_only=True, environment=environment) as store:
            if CheckpointManager(store=store).get_checkpoint(AFTER) is None:
                faults.append(f"{LOST}: a checkpoint made after recovery is gone")
    except CheckpointError as error:
        faults.append(f"{UNOPENED}: {error.code}: {error}")
    return faults


def _reader_faults(root: Path, diary: Diary, environment: Environment) -> list[str]:
    try:
        with ckptlog.open(root, read_only=True, environment=environment) as store:
            return diary.reader_faults(values_of(CheckpointManager(store=store), [*diary.possible]))
    except (StoreMissingError, NotAStoreError) as error:
        return [] if not diary.acts else [f"{UNOPENED}: reader: {error}"]
    except CheckpointError as error:
        # The published end is not synced at each commit; a power cut can tear it.
        return (
            []
            if "published end" in error.message
            else [f"{UNOPENED}: reader: {error.code}: {error}"]
        )


def _writer_faults(manager: CheckpointManager, diary: Diary) -> list[str]:
    listed = {one.checkpoint_id for one in manager.iterate()}
    found = values_of(manager, {*diary.possible, *listed})
    faults = diary.faults(found)
    there = {name for name, value in found.items() if value not in (ABSENT, DELETED)}
    if listed != there:
        faults.append(f"{MISREAD}: the list differs by {sorted(listed ^ there)}")
    positions = [entry.position for entry in manager.store.events()]
    if positions != list(range(len(positions))):
        faults.append(f"{LOST}: positions have gaps")
    report = manager.store.verify()
    faults += [f"verify: {problem}" for problem in report.problems[:3]]
    manager.create_checkpoint("after", "made after recovery", 1, data={}, checkpoint_id=AFTER)
    return faults


def values_of(manager: CheckpointManager, names: list[str] | set[str]) -> dict[str, str]:
    """Return the value of each checkpoint, checked to the last byte."""
    return {name: _value_of(manager, name) for name in sorted(names)}


def _value_of(manager: CheckpointManager, name: str) -> str:
    checkpoint = manager.get_checkpoint(name)
    if checkpoint is None and manager.store.is_taken(name):
        # Deleted; or made between the two questions.
        checkpoint = manager.get_checkpoint(name)
        if checkpoint is None:
            return DELETED
    if checkpoint is None:
        return ABSENT
    value = str(checkpoint.data.get("value"))
    if checkpoint.data != data_of(value):
        return f"{value} {WRONG_DATA}"
    if checkpoint.state.value != state_of(value):
        return f"{value} in state {checkpoint.state.value}"
    return value
