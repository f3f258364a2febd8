"""checkpoint_context: active inside, completed or failed after, and the exception goes on."""

from __future__ import annotations

from unittest.mock import patch

import pytest

from ckptlog import CheckpointState, FullError, InvalidCreationError, StoreClosedError
from ckptlog.errors import ArgumentError
from tests.manager.interleave import written


class UnspeakableError(Exception):
    """One whose message cannot be read."""

    def __str__(self):
        raise RuntimeError("no words")


def fail_inside(manager, error, action=lambda name: None):
    """Run a context whose block does something and raises; return the checkpoint's id."""
    names = []

    def run():
        with manager.checkpoint_context("t", "T", 1) as name:
            names.append(name)
            action(name)
            raise error

    with pytest.raises(type(error)) as caught:
        run()
    assert caught.value is error
    return names[0]


def test_a_normal_exit(manager, store):
    context = manager.checkpoint_context(
        "t",
        "T",
        2,
        "step",
        total_steps=4,
        data={"a": 1},
        metadata={"m": 1},
        worker_id="w",
        namespace="n",
        actor="me",
        checkpoint_id="mine",
    )
    with context as name:
        inside = manager.get_checkpoint(name)
        assert inside.state is CheckpointState.ACTIVE
        manager.update_checkpoint(name, data={"b": 1})
    found = manager.get_checkpoint("mine")
    assert found.state is CheckpointState.COMPLETED
    assert (found.data, found.metadata, found.worker_id) == ({"a": 1, "b": 1}, {"m": 1}, "w")
    assert (found.step_number, found.total_steps, found.namespace) == (2, 4, "n")
    assert found.step_description == "step"
    assert written(store) == ["created", "updated", "updated", "completed"]
    assert [entry.event.actor for entry in store.events(0, 2)] == ["me", "me"]


def test_an_exception_goes_on_and_is_told(manager):
    name = fail_inside(manager, ValueError("no good"))
    found = manager.get_checkpoint(name)
    assert found.state is CheckpointState.FAILED
    assert found.error_info == {"type": "ValueError", "message": "no good"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_what_ends_the_program_fails_it_too(manager, error):
    assert manager.get_checkpoint(fail_inside(manager, error)).state is CheckpointState.FAILED


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("caf\udce9"), "caf?"),
        (ValueError("x" * 50_000), "x" * 10_000),
        (UnspeakableError(), "(its message cannot be read: RuntimeError)"),
        (ValueError("\0"), "\0"),
    ],
    ids=["surrogate", "long", "unspeakable", "control"],
)
def test_messages_of_any_kind(manager, error, message):
    found = manager.get_checkpoint(fail_inside(manager, error))
    assert found.error_info == {"type": type(error).__name__, "message": message}


def test_the_block_may_end_it_itself(manager, store):
    for end in (manager.complete_checkpoint, manager.fail_checkpoint, manager.delete_checkpoint):
        with manager.checkpoint_context("t", "T", 1) as name:
            end(name)
    assert written(store) == [
        *("created", "updated", "completed"),
        *("created", "updated", "failed"),
        *("created", "updated", "deleted"),
    ]


@pytest.mark.parametrize("end", ["complete_checkpoint", "fail_checkpoint", "delete_checkpoint"])
def test_an_exception_after_the_block_has_ended_it(manager, end):
    """The user's exception, and not our complaint that it is too late to fail."""
    error = ValueError("mine")
    name = fail_inside(manager, error, getattr(manager, end))
    assert not hasattr(error, "__notes__")
    found = manager.get_checkpoint(name)
    assert found is None or found.error_info is None


def test_what_goes_wrong_with_failing_is_a_note(manager, store):
    error = ValueError("mine")

    def break_the_disk(name):
        full = patch.object(store, "submit", side_effect=FullError("The disk is full."))
        full.start()

    try:
        name = fail_inside(manager, error, break_the_disk)
    finally:
        patch.stopall()
    assert error.__notes__ == [f"Checkpoint {name!r} was not marked as failed: The disk is full."]
    assert manager.get_checkpoint(name).state is CheckpointState.ACTIVE


def test_a_store_closed_inside(manager, store):
    error = ValueError("mine")
    fail_inside(manager, error, lambda name: store.close())
    assert "was closed" in error.__notes__[0]
    with pytest.raises(StoreClosedError):
        manager.get_task_checkpoints("t")


def test_wrong_arguments_never_enter_the_block(manager, store):
    for wrong in ({"step_number": 0}, {"task_id": ""}, {"data": [1]}, {"namespace": 5}):
        options = {"task_id": "t", "task_title": "T", "step_number": 1, **wrong}
        with pytest.raises((ArgumentError, InvalidCreationError)):
            manager.checkpoint_context(**options).__enter__()
    with pytest.raises(TypeError, match="unknown"):
        manager.checkpoint_context("t", "T", 1, unknown=1).__enter__()
    assert store.position == 0
