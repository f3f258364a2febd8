"""A retry is not a conflict: the same command id again returns the first result, whatever has
happened since; with other content it is an error of its own."""

# mypy: disable-error-code="union-attr"
# What is read of None fails the test by itself.

from __future__ import annotations

import os
from unittest.mock import patch

import pytest

import ckptlog
from ckptlog import (
    ArgumentError,
    CheckpointConfiguration,
    CheckpointManager,
    CheckpointNotFoundError,
    CheckpointState,
    CommandReusedError,
    InvalidCreationError,
    InvalidUpdateError,
    QuotaError,
)
from tests.manager.interleave import before_commit, written


def change(manager, method, name, **options):
    return getattr(manager, method)(name, command_id="id", **options)


# What is called, what makes it other content, and what the state has to be before.
CHANGES = [
    ("update_checkpoint", {"data": {"a": 1}}, {"data": {"a": 2}}),
    ("update_checkpoint", {"metadata": {"a": 1}}, {"metadata": {"a": 1.0}}),
    ("update_checkpoint", {"step_number": 2}, {"step_number": 3}),
    ("update_checkpoint", {"total_steps": 2}, {"total_steps": None}),
    ("update_checkpoint", {"step_description": "x"}, {"step_description": "y"}),
    ("update_checkpoint", {"data": {"a": 1}}, {"data": {"a": 1}, "replace_data": True}),
    ("update_checkpoint", {}, {"state": CheckpointState.COMPLETED}),
    ("complete_checkpoint", {"final_data": {"a": 1}}, {"final_data": {"b": 1}}),
    ("complete_checkpoint", {}, {"final_data": {}}),
    ("fail_checkpoint", {"error_info": {"a": 1}}, {"error_info": {"a": 2}}),
    ("fail_checkpoint", {}, {"error_info": {}}),
]


@pytest.mark.parametrize(("method", "options", "other"), CHANGES)
def test_a_change_again(manager, store, method, options, other):
    name = manager.create_checkpoint("t", "T", 1)
    assert change(manager, method, name, **options) is True
    position = store.position
    assert change(manager, method, name, **options) is True
    manager.restore_checkpoint(name)
    manager.complete_checkpoint(name, {"else": 1})
    assert change(manager, method, name, **options) is True
    with pytest.raises(CommandReusedError, match="'id' was already used") as caught:
        change(manager, method, name, **other)
    assert "a new id for a new command" in caught.value.hint
    assert store.position == position + 2
    assert manager.get_checkpoint(name).data["else"] == 1


@pytest.mark.parametrize(("method", "options", "other"), CHANGES)
def test_a_change_again_after_the_delete(manager, store, method, options, other):
    """The checkpoint is gone, but the command was carried out: that is the answer."""
    name = manager.create_checkpoint("t", "T", 1)
    change(manager, method, name, **options)
    manager.delete_task("t")
    assert change(manager, method, name, **options) is True
    with pytest.raises(CommandReusedError):
        change(manager, method, name, **other)
    with pytest.raises(CheckpointNotFoundError):
        getattr(manager, method)(name, command_id="new", **options)
    assert written(store)[-1] == "task.deleted"


def test_a_wrong_argument_is_told_also_for_what_is_gone(manager):
    with pytest.raises(InvalidUpdateError, match="step_number is 0"):
        manager.update_checkpoint("gone", step_number=0, command_id="id")


def test_expected_does_not_stand_in_the_way_of_a_retry(manager):
    name = manager.create_checkpoint("t", "T", 1)
    for _ in range(2):
        assert manager.update_checkpoint(name, data={"a": 1}, command_id="id", expected=0)


def test_a_create_again(manager, store):
    options = {"data": {"a": 1}, "metadata": {"m": 1}, "worker_id": "w"}
    name = manager.create_checkpoint("t", "T", 1, command_id="id", **options)
    assert manager.create_checkpoint("t", "T", 1, command_id="id", **options) == name
    manager.update_checkpoint(name, data={"b": 2})
    manager.delete_checkpoint(name)
    assert manager.create_checkpoint("t", "T", 1, command_id="id", **options) == name
    others: list[dict] = [
        {"data": {"a": 2}},
        {"metadata": {}},
        {"worker_id": None},
        {"total_steps": 4},
        {"parent_checkpoint_id": "p"},
        {"namespace": "n"},
        {"checkpoint_id": "mine"},
    ]
    for other in others:
        with pytest.raises(CommandReusedError):
            manager.create_checkpoint("t", "T", 1, command_id="id", **{**options, **other})
    for task, title, step in (("u", "T", 1), ("t", "U", 1), ("t", "T", 2)):
        with pytest.raises(CommandReusedError):
            manager.create_checkpoint(task, title, step, command_id="id", **options)
    assert written(store) == ["created", "updated", "deleted"]


def test_a_create_again_with_its_explicit_id_and_a_parent_that_is_gone(manager):
    parent = manager.create_checkpoint("p", "P", 1)
    options = {"checkpoint_id": "mine", "parent_checkpoint_id": parent, "command_id": "id"}
    manager.create_checkpoint("t", "T", 1, **options)
    manager.delete_checkpoint(parent)
    assert manager.create_checkpoint("t", "T", 1, **options) == "mine"


def test_a_restore_again(manager, store):
    name = manager.create_checkpoint("t", "T", 1, data={"a": 1})
    manager.complete_checkpoint(name)
    first = manager.restore_checkpoint(name, command_id="id")
    assert manager.restore_checkpoint(name, command_id="id") == first
    manager.update_checkpoint(name, data={"b": 1})
    manager.complete_checkpoint(name)
    again = manager.restore_checkpoint(name, command_id="id")
    assert again.state is CheckpointState.COMPLETED  # nothing was done a second time
    assert written(store).count("restored") == 1
    with pytest.raises(CommandReusedError):
        manager.complete_checkpoint(name, {"c": 1}, command_id="id")
    manager.delete_checkpoint(name)
    assert manager.restore_checkpoint(name, command_id="id") is None


def test_a_delete_again(manager, store):
    name, other = (manager.create_checkpoint("t", "T", 1) for _ in range(2))
    for _ in range(2):
        assert manager.delete_checkpoint(name, command_id="id") is True
    assert manager.delete_checkpoint(name) is False
    with pytest.raises(CommandReusedError):
        manager.delete_checkpoint(other, command_id="id")
    assert written(store).count("deleted") == 1


def test_a_task_deleted_again(manager, store):
    for _ in range(3):
        manager.create_checkpoint("t", "T", 1)
    assert manager.delete_task("t", command_id="id") == 3
    kept = manager.create_checkpoint("t", "T", 1)
    assert manager.delete_task("t", command_id="id") == 3
    assert manager.get_checkpoint(kept) is not None
    with pytest.raises(CommandReusedError):
        manager.delete_task("u", command_id="id")
    assert written(store).count("task.deleted") == 1


def test_a_deletion_of_an_empty_task_is_remembered_too(manager):
    """Otherwise its retry would delete what was created in between."""
    assert manager.delete_task("t", command_id="id") == 0
    kept = manager.create_checkpoint("t", "T", 1)
    assert manager.delete_task("t", command_id="id") == 0
    assert manager.get_checkpoint(kept) is not None


def test_one_id_for_two_kinds_of_command(manager):
    name = manager.create_checkpoint("t", "T", 1, command_id="id")
    for use in (
        lambda: manager.update_checkpoint(name, data={}, command_id="id"),
        lambda: manager.delete_checkpoint(name, command_id="id"),
        lambda: manager.delete_task("t", command_id="id"),
    ):
        with pytest.raises(CommandReusedError):
            use()


def test_a_retry_in_another_process_or_after_reopening(tmp_path):
    path = tmp_path / "s"
    with CheckpointManager(path) as manager:
        name = manager.create_checkpoint("t", "T", 1, data={"a": 1}, command_id="one")
        manager.update_checkpoint(name, data={"b": 1}, command_id="two")
        manager.delete_checkpoint(name, command_id="three")
        position = manager.store.position
    for _ in range(2):
        with CheckpointManager(path) as manager:
            assert manager.create_checkpoint("t", "T", 1, data={"a": 1}, command_id="one") == name
            assert manager.update_checkpoint(name, data={"b": 1}, command_id="two") is True
            assert manager.delete_checkpoint(name, command_id="three") is True
            with pytest.raises(CommandReusedError):
                manager.delete_checkpoint("else", command_id="three")
            assert manager.store.position == position


def test_a_retry_while_the_first_try_gets_through(manager, store):
    """The answer was lost, the caller tries again, and only then is the first one appended."""
    name = manager.create_checkpoint("t", "T", 1)

    def first_try():
        return manager.update_checkpoint(name, data={"a": 1}, command_id="id")

    with before_commit(store, first_try):
        assert manager.update_checkpoint(name, data={"a": 1}, command_id="id") is True
    assert written(store) == ["created", "updated"]


def test_a_full_store_answers_a_retry(tmp_path):
    path = tmp_path / "s"
    with CheckpointManager(path) as manager:
        name = manager.create_checkpoint("t", "T", 1, command_id="id")
        manager.create_checkpoint("t", "T", 1, data={"x": os.urandom(1_000_000).hex()})
    with CheckpointManager(
        path, config=CheckpointConfiguration(max_storage_size_gb=0.001, cleanup_interval_hours=0)
    ) as manager:
        assert manager.create_checkpoint("t", "T", 1, command_id="id") == name
        with pytest.raises(QuotaError):
            manager.create_checkpoint("t", "T", 1, command_id="new")


def test_not_even_a_digest_of_a_secret_is_written(tmp_path):
    """The fingerprint of a command is public: a short secret could be guessed from it."""
    texts = [
        {"data": {"password": "hunter2"}},
        {"metadata": {"api_key": "hunter2"}},
        {"step_description": "used Bearer abcdefghijklmnop1234567890"},
    ]
    for number, options in enumerate(texts):
        prints = set()
        for secret in ("hunter2", "another"):
            told = repr(options).replace("hunter2", secret).replace("abcdefghijklmnop", secret * 2)
            with CheckpointManager(tmp_path / f"{number}{secret}") as manager:
                name = manager.create_checkpoint("t", "T", 1, checkpoint_id="x")
                manager.update_checkpoint(name, command_id="id", **eval(told))
                prints.add(manager.store.event_at(1).event.fingerprint)
        assert len(prints) == 1, options


@pytest.mark.parametrize("bad", ["", "x" * 201, "a\nb", 5, b"x", "\ud800"])
def test_bad_command_ids(manager, store, bad):
    name = manager.create_checkpoint("t", "T", 1)
    with pytest.raises(InvalidCreationError, match="command_id"):
        manager.create_checkpoint("t", "T", 1, command_id=bad)
    with pytest.raises(InvalidUpdateError, match="command_id"):
        manager.update_checkpoint(name, command_id=bad)
    for use in (
        lambda: manager.delete_checkpoint(name, command_id=bad),
        lambda: manager.delete_task("t", command_id=bad),
        lambda: manager.batch(command_id=bad).__enter__(),
    ):
        with pytest.raises(ArgumentError, match="command_id"):
            use()
    assert written(store) == ["created"]


# --- batches --------------------------------------------------------------------------------------


def run_batch(manager, names, *, last="x"):
    with manager.batch(command_id="id") as batch:
        first = batch.create_checkpoint("t", "T", 1, data={"a": 1})
        second = batch.create_checkpoint("t", "T", 2, activate=True)
        batch.update_checkpoint(first, data={"b": 2})
        batch.complete_checkpoint(first)
        batch.fail_checkpoint(names[0], {"why": "x"})
        batch.update_checkpoint(names[1], metadata={"last": last})
        batch.delete_checkpoint(names[2])
    return [first, second]


def test_a_batch_again(tmp_path):
    path = tmp_path / "s"
    with CheckpointManager(path) as manager:
        names = [manager.create_checkpoint("u", "U", 1) for _ in range(3)]
        made = run_batch(manager, names)
        position = manager.store.position
        assert run_batch(manager, names) == made
        manager.delete_task("t")
        manager.delete_task("u")
        assert run_batch(manager, names) == made
        assert manager.store.position == position + 2
    with CheckpointManager(path) as manager:
        assert run_batch(manager, names) == made
        with pytest.raises(CommandReusedError):
            run_batch(manager, names, last="y")
        assert manager.store.position == position + 2
        assert manager.validate_checkpoint_integrity() == []


def test_a_longer_or_shorter_batch_is_another_one(manager, store):
    def commit(*steps):
        with manager.batch(command_id="id") as batch:
            for step in steps:
                batch.create_checkpoint("t", "T", step)

    commit(1, 2)
    for steps in ([1], [1, 2, 3]):
        with pytest.raises(CommandReusedError):
            commit(*steps)
    assert store.position == 2


def test_a_batch_whose_answer_was_lost(tmp_path):
    """The commit got through, the process did not hear of it: the same batch object again."""
    with ckptlog.open(tmp_path / "s", create=True) as store:
        manager = CheckpointManager(store=store)
        real = store.submit

        def deaf(intent):
            real(intent)
            raise ckptlog.OutcomeUnknownError("The sync failed.")

        context = manager.batch(command_id="id")
        batch = context.__enter__()
        batch.create_checkpoint("t", "T", 1)
        with patch.object(store, "submit", deaf), pytest.raises(ckptlog.OutcomeUnknownError):
            context.__exit__(None, None, None)
        manager.commit(batch)
        assert store.position == 1


def test_a_context_takes_a_command_id(manager, store):
    seen = []
    for _ in range(2):
        with manager.checkpoint_context("t", "T", 1, command_id="id", actor="me") as name:
            seen.append(name)
    assert seen[0] == seen[1]
    assert written(store) == ["created", "updated", "completed"]
    assert {entry.event.actor for entry in store.events(0, 2)} == {"me"}


def test_a_batch_again_of_which_a_part_had_nothing_to_do(manager, store):
    """What left no event the first time leaves none the second, whatever has changed since."""
    name, gone = (manager.create_checkpoint("t", "T", 1) for _ in range(2))
    manager.complete_checkpoint(name)
    manager.delete_checkpoint(gone)

    def commit():
        with manager.batch(command_id="id") as batch:
            batch.complete_checkpoint(name)
            batch.delete_checkpoint(gone)
            return batch.create_checkpoint("t", "T", 2)

    made = commit()
    manager.restore_checkpoint(name)
    position = store.position
    assert commit() == made
    assert store.position == position
    assert manager.get_checkpoint(name).state is CheckpointState.RESTORED
