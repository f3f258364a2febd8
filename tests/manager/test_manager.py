"""Each operation of the manager and each of its options, one process, one thread."""

# mypy: disable-error-code="union-attr"
# What is read of None fails the test by itself.

from __future__ import annotations

import dataclasses
import os
from datetime import UTC, datetime, timedelta

import pytest

import ckptlog
from ckptlog import (
    CheckpointManager,
    CheckpointNotFoundError,
    CheckpointState,
    ConflictError,
    CreationRefusedError,
    DuplicateIdError,
    IllegalTransitionError,
    SettingsError,
    StoreClosedError,
)
from ckptlog.errors import BlobCorruptionError
from ckptlog.model.event import IMPORTED
from tests.manager.interleave import before_commit, written

ACTIVE, COMPLETED = CheckpointState.ACTIVE, CheckpointState.COMPLETED


def last_event(store):
    return store.event_at(store.position - 1).event


# --- create ---------------------------------------------------------------------------------------


def test_create_with_everything(manager, store, environment):
    parent = manager.create_checkpoint("p", "P", 1)
    before = datetime.fromtimestamp(environment.now_us() / 1e6, UTC)
    name = manager.create_checkpoint(
        "t/../ü",
        "A title",
        3,
        "The step",
        9,
        {"n": 1},
        {"m": 2},
        "worker",
        parent,
        namespace="space",
        actor="somebody",
    )
    found = manager.get_checkpoint(name)
    assert dataclasses.asdict(found) | {"created_at": None, "updated_at": None} == {
        "checkpoint_id": name,
        "task_id": "t/../ü",
        "task_title": "A title",
        "state": CheckpointState.CREATED,
        "step_number": 3,
        "total_steps": 9,
        "step_description": "The step",
        "data": {"n": 1},
        "metadata": {"m": 2},
        "created_at": None,
        "updated_at": None,
        "worker_id": "worker",
        "parent_checkpoint_id": parent,
        "position": 1,
        "namespace": "space",
    }
    assert found.created_at.tzinfo is UTC
    assert before - timedelta(seconds=1) < found.created_at == found.updated_at
    assert last_event(store).actor == "somebody"
    assert found.validate() == []


def test_create_with_the_least(manager):
    found = manager.get_checkpoint(manager.create_checkpoint("t", "T", 1))
    assert (found.data, found.metadata, found.step_description) == ({}, {}, "")
    assert (found.worker_id, found.parent_checkpoint_id, found.total_steps) == (None, None, None)
    assert found.namespace == ""
    assert found.checkpoint_id.startswith("cp_t_1_")


def test_progress_never_stops_work(manager):
    """Steps may go down, and pass their total; validate tells, nothing refuses."""
    manager.create_checkpoint("t", "T", 7, total_steps=5)
    name = manager.create_checkpoint("t", "T", 2, total_steps=1)
    assert "greater than total_steps" in manager.get_checkpoint(name).validate()[0]


def test_explicit_ids(manager):
    for name in ("mine", "cp_x_1_17", "../../etc/passwd", "a/b", "ü☃", "x" * 512):
        assert manager.create_checkpoint("t", "T", 1, checkpoint_id=name) == name
        assert manager.get_checkpoint(name).checkpoint_id == name
    with pytest.raises(DuplicateIdError, match="'mine' is already used"):
        manager.create_checkpoint("t", "T", 1, checkpoint_id="mine")
    manager.delete_checkpoint("mine")
    with pytest.raises(DuplicateIdError, match="not even after a delete"):
        manager.create_checkpoint("t", "T", 1, checkpoint_id="mine")
    manager.delete_task("t")
    with pytest.raises(DuplicateIdError):
        manager.create_checkpoint("new", "T", 1, checkpoint_id="a/b")


def test_ids_with_slashes_and_dots_reach_no_path(tmp_path, manager):
    manager.create_checkpoint("../../../evil", "T", 1, worker_id="/etc", checkpoint_id="../../x")
    manager.store.close()
    assert os.listdir(tmp_path) == ["store"]
    assert {"log", "packs", "views", "store.json"} <= set(os.listdir(tmp_path / "store"))


def test_parents(manager):
    parent = manager.create_checkpoint("t", "T", 1)
    children = [manager.create_checkpoint("t", "T", 2, parent_checkpoint_id=parent)]
    children.append(manager.create_checkpoint("u", "U", 1, parent_checkpoint_id=parent))
    assert [one.checkpoint_id for one in manager.get_children(parent)] == children
    manager.create_checkpoint("t", "T", 1, parent_checkpoint_id="from elsewhere")
    assert len(manager.get_children("from elsewhere")) == 1
    manager.delete_checkpoint(parent)
    with pytest.raises(CreationRefusedError, match=f"parent checkpoint '{parent}' was deleted"):
        manager.create_checkpoint("t", "T", 3, parent_checkpoint_id=parent)
    assert [one.checkpoint_id for one in manager.get_children(parent)] == children


def test_a_parent_deleted_with_its_task(manager):
    parent = manager.create_checkpoint("t", "T", 1)
    manager.delete_task("t")
    with pytest.raises(CreationRefusedError):
        manager.create_checkpoint("u", "U", 1, parent_checkpoint_id=parent)


# --- update ---------------------------------------------------------------------------------------


def test_update_changes_what_it_names(manager, store):
    name = manager.create_checkpoint("t", "T", 1, "d", 5, {"a": 1}, {"m": 1}, worker_id="w")
    assert manager.update_checkpoint(name, step_number=2, total_steps=6, actor="me") is True
    found = manager.get_checkpoint(name)
    assert (found.step_number, found.total_steps, found.state) == (2, 6, ACTIVE)
    assert (found.data, found.metadata, found.step_description) == ({"a": 1}, {"m": 1}, "d")
    assert (found.worker_id, found.task_title) == ("w", "T")
    assert last_event(store).actor == "me"


@pytest.mark.parametrize(
    ("update", "data", "metadata", "description"),
    [
        ({"data": {"b": 2}}, {"a": {"x": 1}, "b": 2}, {"m": 1}, "d"),
        ({"data": {"a": {"y": 2}}}, {"a": {"y": 2}}, {"m": 1}, "d"),
        ({"data": {}}, {"a": {"x": 1}}, {"m": 1}, "d"),
        ({"data": {"b": 2}, "replace_data": True}, {"b": 2}, {"m": 1}, "d"),
        ({"data": {}, "replace_data": True}, {}, {"m": 1}, "d"),
        ({"replace_data": True}, {"a": {"x": 1}}, {"m": 1}, "d"),
        ({"metadata": {"n": None}}, {"a": {"x": 1}}, {"m": 1, "n": None}, "d"),
        ({"step_description": ""}, {"a": {"x": 1}}, {"m": 1}, ""),
        ({"step_description": "e", "metadata": {"m": 2}}, {"a": {"x": 1}}, {"m": 2}, "e"),
    ],
)
def test_merging(manager, update, data, metadata, description):
    name = manager.create_checkpoint("t", "T", 1, "d", None, {"a": {"x": 1}}, {"m": 1})
    assert manager.update_checkpoint(name, **update)
    found = manager.get_checkpoint(name)
    assert (found.data, found.metadata, found.step_description) == (data, metadata, description)
    assert found.task_title == "T"


def test_update_may_name_a_state(manager):
    name = manager.create_checkpoint("t", "T", 1)
    manager.update_checkpoint(name, data={"a": 1}, state=COMPLETED)
    assert manager.get_checkpoint(name).state is COMPLETED
    with pytest.raises(IllegalTransitionError, match="is completed and cannot become created"):
        manager.update_checkpoint(name, state=CheckpointState.CREATED)


def test_a_step_of_an_ended_one_is_not_dropped_in_silence(manager):
    name = manager.create_checkpoint("t", "T", 1)
    manager.complete_checkpoint(name)
    assert manager.update_checkpoint(name, state=COMPLETED, step_number=1) is True
    with pytest.raises(IllegalTransitionError):
        manager.update_checkpoint(name, state=COMPLETED, step_number=2)
    with pytest.raises(IllegalTransitionError):
        manager.update_checkpoint(name, state=COMPLETED, total_steps=2)


def test_dict_order_is_kept(manager):
    name = manager.create_checkpoint("t", "T", 1, data={"z": 1, "a": 2})
    manager.update_checkpoint(name, data={"m": 3, "a": 4})
    assert list(manager.get_checkpoint(name).data) == ["z", "a", "m"]


# --- whose values ---------------------------------------------------------------------------------


def test_arguments_stay_the_callers(manager):
    data, metadata = {"list": [1]}, {"list": [1]}
    name = manager.create_checkpoint("t", "T", 1, data=data, metadata=metadata)
    data["list"].append(2)
    metadata["list"].append(2)
    found = manager.get_checkpoint(name)
    assert (found.data, found.metadata) == ({"list": [1]}, {"list": [1]})
    manager.update_checkpoint(name, data=data)
    assert data == {"list": [1, 2]}


def test_returned_values_are_the_callers(manager):
    """Whatever hands a value out, changing it changes nothing that is read later."""
    name = manager.create_checkpoint(
        "t", "T", 1, data={"list": [1]}, metadata={"list": [1]}, worker_id="w"
    )
    manager.update_checkpoint(name, data={"more": {"deep": [1]}})
    readers = [
        lambda: manager.get_checkpoint(name),
        lambda: manager.get_latest_checkpoint("t"),
        lambda: manager.get_task_checkpoints("t")[0],
        lambda: manager.get_checkpoints_by_worker("w")[0],
        lambda: manager.get_checkpoints_by_state(ACTIVE)[0],
        lambda: next(manager.iterate()),
        lambda: manager.history(name)[-1].checkpoint,
        lambda: manager.get_checkpoint_at(name, 99),
        lambda: manager.get_recovery_point("t"),
        lambda: manager.restore_checkpoint(name),
        lambda: manager.get_checkpoint(name),
    ]
    for read in readers:
        found = read()
        assert found.data == {"list": [1], "more": {"deep": [1]}}
        assert found.metadata == {"list": [1]}
        found.data["list"].append("spoilt")
        found.data["more"]["deep"].clear()
        found.metadata["list"].append("spoilt")
        found.state = CheckpointState.FAILED
    assert manager.get_checkpoint(name).data == {"list": [1], "more": {"deep": [1]}}


# --- complete, fail, restore ----------------------------------------------------------------------


def test_complete_and_fail_merge(manager):
    name = manager.create_checkpoint("t", "T", 1, data={"a": 1}, metadata={"m": 1})
    assert manager.fail_checkpoint(name, {"why": "x"}) is True
    found = manager.get_checkpoint(name)
    assert (found.data, found.metadata) == ({"a": 1}, {"m": 1, "error_info": {"why": "x"}})
    assert found.error_info == {"why": "x"}
    manager.restore_checkpoint(name)
    assert manager.complete_checkpoint(name, {"b": 2}) is True
    found = manager.get_checkpoint(name)
    assert (found.data, found.state) == ({"a": 1, "b": 2}, COMPLETED)
    assert found.error_info == {"why": "x"}


def test_ending_again(manager, store):
    name = manager.create_checkpoint("t", "T", 1)
    manager.fail_checkpoint(name, {"why": "x"})
    position = store.position
    assert manager.fail_checkpoint(name) is True
    assert manager.fail_checkpoint(name, {"why": "x"}) is True
    assert store.position == position
    with pytest.raises(IllegalTransitionError):
        manager.fail_checkpoint(name, {"why": "y"})
    with pytest.raises(IllegalTransitionError):
        manager.complete_checkpoint(name)


def test_restore(manager, store):
    name = manager.create_checkpoint("t", "T", 1, data={"a": 1})
    position = store.position
    found = manager.restore_checkpoint(name, actor="me")
    assert (found.state, found.data) == (CheckpointState.RESTORED, {"a": 1})
    assert found.position == position
    assert found == manager.get_checkpoint(name)
    assert last_event(store).actor == "me"
    assert manager.restore_checkpoint("cp_nobody_1_1") is None
    manager.delete_checkpoint(name)
    assert manager.restore_checkpoint(name) is None
    assert written(store) == ["created", "restored", "deleted"]


def test_restore_of_one_that_is_deleted_meanwhile(manager, store):
    name = manager.create_checkpoint("t", "T", 1)
    with before_commit(store, lambda: manager.delete_checkpoint(name)):
        assert manager.restore_checkpoint(name) is None


def test_restore_of_damaged_data_changes_nothing(tmp_path):
    path = tmp_path / "store"
    with CheckpointManager(path) as manager:
        name = manager.create_checkpoint("t", "T", 1, data={"text": "findable" * 3})
        other = manager.create_checkpoint("t", "T", 1, data={"text": "whole"})
    segment = next((path / "log").glob("*.seg"))
    content = segment.read_bytes()
    at = content.index(b"findable")
    segment.write_bytes(content[:at] + b"X" + content[at + 1 :])
    with CheckpointManager(path) as manager:
        for read in (manager.restore_checkpoint, manager.get_checkpoint):
            with pytest.raises(BlobCorruptionError) as caught:
                read(name)
            assert "ckptlog verify" in caught.value.hint
        assert manager.restore_checkpoint(other).data == {"text": "whole"}


# --- delete ---------------------------------------------------------------------------------------


def test_delete(manager, store):
    name = manager.create_checkpoint("t", "T", 1)
    assert manager.delete_checkpoint(name, actor="me") is True
    assert last_event(store).actor == "me"
    assert manager.delete_checkpoint(name) is False
    assert manager.get_checkpoint(name) is None
    with pytest.raises(CheckpointNotFoundError, match=r"no checkpoint 'x'.*ckptlog list"):
        manager.delete_checkpoint("x")
    for late in (
        lambda: manager.update_checkpoint(name, data={}),
        lambda: manager.complete_checkpoint(name),
        lambda: manager.fail_checkpoint(name),
    ):
        with pytest.raises(CheckpointNotFoundError):
            late()
    assert written(store) == ["created", "deleted"]


def test_delete_with_an_expectation(manager):
    name = manager.create_checkpoint("t", "T", 1)
    seen = manager.get_checkpoint(name).position
    manager.update_checkpoint(name, data={"a": 1})
    with pytest.raises(ConflictError, match=f"{seen} was expected"):
        manager.delete_checkpoint(name, expected=seen)
    assert manager.delete_checkpoint(name, expected=seen + 1) is True


def test_delete_a_task_and_use_its_id_again(manager, store):
    old = [manager.create_checkpoint("t", "T", step) for step in (1, 2)]
    kept = manager.create_checkpoint("u", "U", 1)
    assert manager.delete_task("t") == 2
    assert manager.delete_task("t") == 0
    assert manager.delete_task("never") == 0
    assert manager.get_latest_checkpoint("t") is None
    new = manager.create_checkpoint("t", "T", 1)
    for name in old:
        assert manager.get_checkpoint(name) is None
        with pytest.raises(CheckpointNotFoundError):
            manager.update_checkpoint(name, data={"late": 1})
    assert [one.checkpoint_id for one in manager.get_task_checkpoints("t")] == [new]
    assert manager.get_checkpoint(kept) is not None
    assert manager.delete_task("t", actor="me") == 1
    assert written(store).count("task.deleted") == 2


def test_late_writers_of_an_old_incarnation(manager, store):
    """What was prepared before the task was deleted is refused after it."""
    old = manager.create_checkpoint("t", "T", 1, data={"a": 1})

    def delete_and_begin_anew():
        manager.delete_task("t")
        manager.create_checkpoint("t", "T", 1)

    with before_commit(store, delete_and_begin_anew), pytest.raises(CheckpointNotFoundError):
        manager.update_checkpoint(old, data={"late": 1})
    assert manager.get_checkpoint(old) is None


def test_a_fact_about_no_checkpoint(manager, store):
    manager.record(IMPORTED, {"files": 3}, task="t")
    event = last_event(store)
    assert (event.type, event.facts, event.subject.task) == (IMPORTED, {"files": 3}, "t")
    assert event.actor == "tester"


# --- whose operation, in which namespace --------------------------------------------------------


def test_defaults_of_actor_and_namespace(tmp_path):
    with CheckpointManager(tmp_path / "s", namespace="ns", actor="me") as manager:
        default = manager.create_checkpoint("t", "T", 1)
        other = manager.create_checkpoint("t", "T", 1, namespace="other", actor="you")
        none = manager.create_checkpoint("t", "T", 1, namespace="")
        with manager.batch() as batch:
            batched = batch.create_checkpoint("t", "T", 1)
            elsewhere = batch.create_checkpoint("t", "T", 1, namespace="other")
        spaces = [
            manager.get_checkpoint(name).namespace
            for name in (default, other, none, batched, elsewhere)
        ]
        assert spaces == ["ns", "other", "", "ns", "other"]
        actors = [entry.event.actor for entry in manager.store.events()]
        assert actors == ["me", "you", "me", "me", "me"]
        manager.update_checkpoint(other, data={})
        assert manager.get_checkpoint(other).namespace == "other"
        found = [one.checkpoint_id for one in manager.iterate(namespace="ns")]
        assert found == [default, batched]
        assert [one.checkpoint_id for one in manager.iterate(namespace="")] == [none]


def test_the_actor_is_user_and_host_by_default(tmp_path):
    with CheckpointManager(tmp_path / "s") as manager:
        manager.create_checkpoint("t", "T", 1)
        assert "@" in last_event(manager.store).actor


# --- life -----------------------------------------------------------------------------------------


def test_a_shared_store_stays_open(store):
    with CheckpointManager(store=store) as first:
        name = first.create_checkpoint("t", "T", 1)
    second = CheckpointManager(store=store)
    assert second.store is store
    assert second.get_checkpoint(name) is not None
    assert str(store.path) in repr(second)


def test_a_store_of_ones_own_is_closed(tmp_path):
    with CheckpointManager(tmp_path / "s") as manager:
        name = manager.create_checkpoint("t", "T", 1)
        iterator = manager.iterate()
    manager.close()
    uses = [
        lambda: manager.create_checkpoint("t", "T", 1),
        lambda: manager.update_checkpoint(name, data={}),
        lambda: manager.delete_checkpoint(name),
        lambda: manager.delete_task("t"),
        lambda: manager.get_checkpoint(name),
        lambda: manager.get_task_checkpoints("t"),
        lambda: manager.get_latest_checkpoint("t"),
        lambda: manager.history(name),
        lambda: next(iterator),
        lambda: list(manager.store.events()),
        manager.get_checkpoint_summary,
        manager.validate_checkpoint_integrity,
    ]
    for use in uses:
        with pytest.raises(StoreClosedError, match="was closed"):
            use()
    with CheckpointManager(tmp_path / "s") as again:
        assert again.get_checkpoint(name) is not None


def test_two_names_for_the_store(tmp_path, store):
    CheckpointManager(store.path, store=store)
    with pytest.raises(SettingsError, match="is named too"):
        CheckpointManager(tmp_path / "other", store=store)
    config = ckptlog.CheckpointConfiguration(storage_dir=str(tmp_path / "other"))
    with pytest.raises(SettingsError, match="is named too"):
        CheckpointManager(config=config, store=store)
    with pytest.raises(SettingsError, match="Name the directory in one of the two places"):
        CheckpointManager(tmp_path / "third", config=config)
    assert not (tmp_path / "other").exists()
    assert not (tmp_path / "third").exists()
