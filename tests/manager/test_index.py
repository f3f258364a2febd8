"""The specification's index: it follows the store, and says what to call where it cannot lead."""

from __future__ import annotations

import json

import pytest

from ckptlog import (
    ArgumentError,
    CheckpointIndex,
    CheckpointManager,
    CheckpointNotFoundError,
    CheckpointState,
    FileSystemCheckpointStorage,
    InvalidCreationError,
    InvalidUpdateError,
)

CREATED, ACTIVE, COMPLETED, FAILED, RESTORED = CheckpointState


@pytest.fixture
def storage(tmp_path):
    with FileSystemCheckpointStorage(tmp_path / "s", follow=False) as storage:
        manager = storage.manager
        manager.create_checkpoint("t1", "T", 1, worker_id="w1", checkpoint_id="z")
        manager.create_checkpoint("t1", "T", 2, worker_id="w2", checkpoint_id="a")
        manager.create_checkpoint("t2", "T", 1, worker_id="w1", checkpoint_id="m")
        manager.create_checkpoint("t2", "T", 2, checkpoint_id="gone")
        manager.complete_checkpoint("a")
        manager.fail_checkpoint("m")
        manager.delete_checkpoint("gone")
        yield storage


@pytest.fixture
def index(storage):
    return CheckpointIndex(storage)


def test_finding(index):
    assert index.find_by_task("t1") == ["z", "a"]
    assert index.find_by_task("t2") == ["m"]
    assert index.find_by_task("nobody") == []
    assert index.find_by_worker("w1") == ["z", "m"]
    assert index.find_by_worker("w2") == ["a"]
    assert index.find_by_state(CREATED) == ["z"]
    assert index.find_by_state(COMPLETED) == ["a"]
    assert index.find_by_state(FAILED) == ["m"]
    assert index.find_by_state(RESTORED) == []


def test_it_is_current_without_being_told(index, storage):
    with CheckpointManager(storage.base_dir) as other:
        other.restore_checkpoint("a")
    assert index.find_by_state(RESTORED) == ["a"]


def test_the_structure_of_the_specification(index, storage):
    found = index.to_dict()
    assert found == json.loads((storage.folder / "index.json").read_text())
    assert found["by_task"] == {"t1": ["z", "a"], "t2": ["m"]}
    assert found["by_worker"] == {"w1": ["z", "m"], "w2": ["a"]}
    assert {state: names for state, names in found["by_state"].items() if names} == {
        "created": ["z"],
        "completed": ["a"],
        "failed": ["m"],
    }
    last = list(storage.manager.store.events())[-1].event.time
    assert found["metadata"]["last_updated"] == last
    assert found["metadata"]["total_checkpoints"] == 3


def test_rebuild(index, storage):
    storage.refresh()
    before = (storage.folder / "index.json").read_bytes()
    (storage.folder / "index.json").write_text("{}")
    (storage.folder / "active" / "checkpoint_z.json").unlink()
    assert index.rebuild_index() is None
    assert (storage.folder / "index.json").read_bytes() == before
    assert (storage.folder / "active" / "checkpoint_z.json").exists()


def test_what_the_store_says_already_is_no_error(index, storage):
    assert index.add_checkpoint(storage.load_checkpoint("z")) is None
    assert index.remove_checkpoint("gone") is None
    assert index.remove_checkpoint("never there") is None
    assert index.update_checkpoint_state("a", COMPLETED) is None


def test_what_only_an_event_can_change_is_refused_with_the_call_to_make(index, storage):
    position = storage.manager.store.position
    loaded = storage.load_checkpoint("z")
    loaded.state = COMPLETED
    with pytest.raises(InvalidCreationError) as caught:
        index.add_checkpoint(loaded)
    assert "save_checkpoint" in caught.value.hint
    loaded.checkpoint_id = "new"
    with pytest.raises(InvalidCreationError) as caught:
        index.add_checkpoint(loaded)
    assert "not in the store" in caught.value.message
    with pytest.raises(InvalidUpdateError) as caught:
        index.remove_checkpoint("z")
    assert "delete_checkpoint" in caught.value.hint
    with pytest.raises(CheckpointNotFoundError):
        index.update_checkpoint_state("gone", ACTIVE)
    for state, call in (
        (ACTIVE, "update_checkpoint"),
        (COMPLETED, "complete_checkpoint"),
        (FAILED, "fail_checkpoint"),
        (RESTORED, "restore_checkpoint"),
        (CREATED, "No state leads back"),
    ):
        name = "a" if state is not COMPLETED else "z"
        with pytest.raises(InvalidUpdateError) as caught:
            index.update_checkpoint_state(name, state)
        assert call in caught.value.hint
        assert state.value in caught.value.message
        if state is not CREATED:
            assert hasattr(CheckpointManager, call)
    assert storage.manager.store.position == position


def test_arguments(index, storage):
    for act in (
        lambda: CheckpointIndex(storage.manager),
        lambda: index.find_by_state("active"),
        lambda: index.find_by_task(""),
        lambda: index.find_by_worker(7),
        lambda: index.update_checkpoint_state("a", "active"),
        lambda: index.remove_checkpoint(""),
    ):
        with pytest.raises(ArgumentError):
            act()
