"""The specification's unit tests, by its names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ckptlog import (
    CheckpointManager,
    CheckpointNotFoundError,
    CheckpointState,
    CheckpointUpdateError,
    IllegalTransitionError,
    InvalidCreationError,
)
from tests.manager.clock import SettableEnvironment, open_at


@pytest.fixture
def environment() -> SettableEnvironment:
    return SettableEnvironment()


@pytest.fixture
def manager(tmp_path: Path, environment: SettableEnvironment) -> Iterator[CheckpointManager]:
    with open_at(tmp_path / "checkpoints", environment) as store:
        yield CheckpointManager(store=store)


class TestCheckpointManager:
    """Unit tests for CheckpointManager."""

    def test_create_checkpoint(self, manager: CheckpointManager) -> None:
        """A created checkpoint is there with all that was given."""
        parent = manager.create_checkpoint("task_0", "Parent", 1)
        name = manager.create_checkpoint(
            "task_1",
            "A task",
            2,
            "Second step",
            5,
            {"items": [1, 2]},
            {"origin": "test"},
            "worker_1",
            parent,
        )
        assert name.startswith("cp_task_1_2_")
        found = manager.get_checkpoint(name)
        assert found is not None
        assert found.state is CheckpointState.CREATED
        assert (found.task_id, found.task_title, found.step_number) == ("task_1", "A task", 2)
        assert (found.step_description, found.total_steps) == ("Second step", 5)
        assert (found.data, found.metadata) == ({"items": [1, 2]}, {"origin": "test"})
        assert (found.worker_id, found.parent_checkpoint_id) == ("worker_1", parent)
        assert found.created_at == found.updated_at
        assert found.created_at.utcoffset() is not None
        assert [one.checkpoint_id for one in manager.get_children(parent)] == [name]
        with pytest.raises(InvalidCreationError):
            manager.create_checkpoint("", "No id", 1)

    def test_update_checkpoint(self, manager: CheckpointManager) -> None:
        """An update merges, moves to active, and leaves what it does not name."""
        name = manager.create_checkpoint("t", "T", 1, "first", data={"a": 1, "b": {"x": 1}})
        assert manager.update_checkpoint(name, data={"b": {"y": 2}}, metadata={"m": 1})
        assert manager.update_checkpoint(name, step_number=3, step_description="third")
        found = manager.get_checkpoint(name)
        assert found is not None
        assert found.state is CheckpointState.ACTIVE
        assert found.data == {"a": 1, "b": {"y": 2}}
        assert (found.metadata, found.step_number) == ({"m": 1}, 3)
        assert (found.step_description, found.task_title) == ("third", "T")
        manager.update_checkpoint(name, data={"only": True}, replace_data=True)
        found = manager.get_checkpoint(name)
        assert found is not None
        assert found.data == {"only": True}
        with pytest.raises(CheckpointNotFoundError):
            manager.update_checkpoint("cp_none_1_1", data={})

    def test_complete_checkpoint(self, manager: CheckpointManager) -> None:
        """Completing merges the final data; again with nothing new it changes nothing."""
        name = manager.create_checkpoint("t", "T", 1, data={"a": 1})
        assert manager.complete_checkpoint(name, {"result": "ok"})
        position = manager.store.position
        assert manager.complete_checkpoint(name)
        assert manager.complete_checkpoint(name, {"result": "ok"})
        assert manager.store.position == position
        found = manager.get_checkpoint(name)
        assert found is not None
        assert found.state is CheckpointState.COMPLETED
        assert found.data == {"a": 1, "result": "ok"}
        with pytest.raises(IllegalTransitionError, match="Restore it first"):
            manager.complete_checkpoint(name, {"result": "other"})
        with pytest.raises(CheckpointUpdateError):
            manager.update_checkpoint(name, data={"late": 1})

    def test_fail_checkpoint(self, manager: CheckpointManager) -> None:
        """A failure keeps its reason in the metadata."""
        name = manager.create_checkpoint("t", "T", 1, data={"a": 1})
        assert manager.fail_checkpoint(name, {"message": "disk on fire"})
        found = manager.get_checkpoint(name)
        assert found is not None
        assert found.state is CheckpointState.FAILED
        assert found.metadata["error_info"] == {"message": "disk on fire"}
        assert found.data == {"a": 1}
        assert manager.fail_checkpoint(name)

    def test_restore_checkpoint(self, manager: CheckpointManager) -> None:
        """Restoring moves the same checkpoint to restored and returns it."""
        name = manager.create_checkpoint("t", "T", 1, data={"a": 1})
        manager.fail_checkpoint(name)
        restored = manager.restore_checkpoint(name)
        assert restored is not None
        assert restored.checkpoint_id == name
        assert restored.state is CheckpointState.RESTORED
        assert restored.data == {"a": 1}
        manager.update_checkpoint(name, data={"b": 2})
        again = manager.get_checkpoint(name)
        assert again is not None
        assert again.state is CheckpointState.ACTIVE
        assert manager.restore_checkpoint("cp_none_1_1") is None

    def test_cleanup_old_checkpoints(
        self, manager: CheckpointManager, environment: SettableEnvironment
    ) -> None:
        """Old ended checkpoints go; young and open ones stay."""
        old = [manager.create_checkpoint("t", "T", step) for step in (1, 2, 3)]
        manager.complete_checkpoint(old[0])
        manager.fail_checkpoint(old[1])
        environment.advance(days=31)
        young = manager.create_checkpoint("t", "T", 4)
        manager.complete_checkpoint(young)
        assert manager.cleanup_old_checkpoints(30, dry_run=True) == 2
        assert manager.cleanup_old_checkpoints(30) == 2
        left = [one.checkpoint_id for one in manager.get_task_checkpoints("t")]
        assert left == [old[2], young]
        assert manager.cleanup_old_checkpoints(30) == 0
