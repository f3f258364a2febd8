"""TaskCheckpointWrapper: a task's steps, one call each, through ends, failures and recoveries."""

# mypy: disable-error-code="union-attr"
# What is read of None fails the test by itself.

from __future__ import annotations

import pytest

from ckptlog import (
    ArgumentError,
    CheckpointError,
    CheckpointNotFoundError,
    CheckpointState,
    IllegalTransitionError,
    InvalidUpdateError,
    TaskCheckpointWrapper,
)
from tests.manager.interleave import before_commit, written

ACTIVE, COMPLETED = CheckpointState.ACTIVE, CheckpointState.COMPLETED
FAILED, RESTORED = CheckpointState.FAILED, CheckpointState.RESTORED


def states(manager, task="t"):
    return [one.state for one in manager.get_task_checkpoints(task)]


@pytest.fixture
def wrapper(manager):
    return TaskCheckpointWrapper(manager, "t", "The task", "w")


def test_steps(manager, wrapper, store):
    wrapper.set_total_steps(3)
    assert wrapper.get_progress() == {
        "task_id": "t",
        "current_step": 0,
        "total_steps": 3,
        "progress_percentage": 0.0,
        "current_checkpoint_id": None,
        "is_complete": False,
    }
    first = wrapper.checkpoint("first", {"n": 1})
    assert states(manager) == [ACTIVE]
    wrapper.update_progress({"m": 1})
    wrapper.update_progress(step_description="still first")
    second = wrapper.checkpoint("second", {"n": 2})
    assert states(manager) == [COMPLETED, ACTIVE]
    progress = wrapper.get_progress()
    assert (progress["current_step"], progress["current_checkpoint_id"]) == (2, second)
    assert progress["progress_percentage"] == 33.3
    found = manager.get_checkpoint(first)
    assert (found.data, found.step_description) == ({"n": 1, "m": 1}, "still first")
    assert (found.task_title, found.worker_id, found.total_steps) == ("The task", "w", 3)
    third = wrapper.checkpoint("third")
    wrapper.complete_task({"result": 7})
    progress = wrapper.get_progress()
    assert (progress["progress_percentage"], progress["is_complete"]) == (100.0, True)
    assert manager.get_checkpoint(third).data == {"result": 7}
    assert states(manager) == [COMPLETED] * 3
    assert [one.step_number for one in manager.get_task_checkpoints("t")] == [1, 2, 3]
    # A step is one commit: the end of the one before, and the beginning of the next.
    assert [len(commit.entries) for commit in store.log.reader.commits()] == [2, 1, 1, 3, 3, 1]


@pytest.mark.parametrize("how", ["complete_task", "context"])
def test_a_task_that_is_complete_is_not_resumed_whatever_was_expected(manager, store, how):
    """The specification's own example: five steps were expected, and two came."""
    wrapper = TaskCheckpointWrapper(manager, "t", "The task", "w")
    wrapper.set_total_steps(5)
    wrapper.checkpoint("Step 1: Initialize")
    second = wrapper.checkpoint("Step 2: Process data")
    assert manager.can_recover_task("t")
    position = store.position
    if how == "complete_task":
        wrapper.complete_task({"result": "success"})
        wrapper.complete_task()  # nothing new is nothing
    else:
        with wrapper:
            pass
    assert store.position == position + 1
    assert not manager.can_recover_task("t")
    found = manager.get_checkpoint(second)
    assert (found.step_number, found.total_steps, found.state) == (2, 2, COMPLETED)
    progress = wrapper.get_progress()
    assert (progress["current_step"], progress["total_steps"]) == (2, 2)
    assert (progress["progress_percentage"], progress["is_complete"]) == (100.0, True)
    again = TaskCheckpointWrapper(manager, "t", "The task", recover=True)
    assert again.get_progress()["is_complete"] is True
    assert again.recovered.checkpoint_id == second
    assert store.position == position + 1


def test_a_step_that_was_completed_by_hand_is_no_end_before_the_task_is(manager, wrapper):
    wrapper.set_total_steps(3)
    name = wrapper.checkpoint("one", {"n": 1})
    manager.complete_checkpoint(name)
    assert manager.can_recover_task("t")
    wrapper.complete_task({"m": 2})
    assert not manager.can_recover_task("t")
    found = manager.get_checkpoint(name)
    assert (found.total_steps, found.state, found.data) == (1, COMPLETED, {"n": 1, "m": 2})


def test_without_a_total_there_is_no_percentage(wrapper):
    wrapper.checkpoint("one")
    assert wrapper.get_progress()["progress_percentage"] is None
    wrapper.complete_task()
    assert wrapper.get_progress()["progress_percentage"] == 100.0


def test_more_steps_than_there_should_be(wrapper):
    wrapper.set_total_steps(1)
    for step in range(4):
        wrapper.checkpoint(f"{step}")
    assert wrapper.get_progress()["progress_percentage"] == 100.0


def test_before_the_first_step(wrapper, store):
    for use in (wrapper.update_progress, wrapper.complete_task, wrapper.fail_task):
        with pytest.raises(InvalidUpdateError, match=r"'t' has no step yet.*checkpoint\(\) first"):
            use()
    assert store.position == 0


def test_a_failure(manager, wrapper):
    wrapper.set_total_steps(2)
    name = wrapper.checkpoint("one")
    wrapper.fail_task({"why": "x"})
    assert manager.get_checkpoint(name).error_info == {"why": "x"}
    assert wrapper.get_progress()["progress_percentage"] == 0.0
    with pytest.raises(IllegalTransitionError):
        wrapper.update_progress({"late": 1})
    wrapper.checkpoint("two")
    assert states(manager) == [FAILED, ACTIVE]


def test_going_on_after_the_end(manager, wrapper):
    wrapper.checkpoint("one")
    wrapper.complete_task()
    wrapper.checkpoint("one more")
    assert wrapper.get_progress()["is_complete"] is False
    assert states(manager) == [COMPLETED, ACTIVE]


@pytest.mark.parametrize("total", [0, -1, 2.0, "3", None, True])
def test_a_wrong_total(wrapper, total):
    with pytest.raises(ArgumentError, match="total_steps is"):
        wrapper.set_total_steps(total)


@pytest.mark.parametrize("task", ["", None, 5, "x" * 201, " t"])
def test_a_wrong_task(manager, task):
    with pytest.raises(ArgumentError, match="task_id"):
        TaskCheckpointWrapper(manager, task, "T")


def test_a_step_that_cannot_be_stored_changes_nothing(manager, wrapper):
    name = wrapper.checkpoint("one")
    with pytest.raises(CheckpointError, match=r"data\.x is of type"):
        wrapper.checkpoint("two", {"x": object()})
    assert states(manager) == [ACTIVE]
    assert wrapper.get_progress()["current_checkpoint_id"] == name
    wrapper.checkpoint("two")
    assert states(manager) == [COMPLETED, ACTIVE]


def test_a_namespace(manager):
    wrapper = TaskCheckpointWrapper(manager, "t", "T", namespace="n")
    assert manager.get_checkpoint(wrapper.checkpoint("one")).namespace == "n"


# --- as a context manager -------------------------------------------------------------------------


def test_a_normal_exit_completes(manager):
    with TaskCheckpointWrapper(manager, "t", "T") as wrapper:
        wrapper.checkpoint("one")
        wrapper.checkpoint("two")
    assert states(manager) == [COMPLETED, COMPLETED]
    assert wrapper.get_progress()["is_complete"]


def test_an_exception_fails(manager):
    def run():
        with TaskCheckpointWrapper(manager, "t", "T") as wrapper:
            wrapper.checkpoint("one")
            wrapper.checkpoint("two")
            raise OSError("caf\udce9")

    with pytest.raises(OSError, match="caf"):
        run()
    assert states(manager) == [COMPLETED, FAILED]
    latest = manager.get_latest_checkpoint("t")
    assert latest.error_info == {"type": "OSError", "message": "caf?"}


@pytest.mark.parametrize("end", ["complete_task", "fail_task"])
def test_what_the_block_has_ended_stays_so(manager, store, end):
    with TaskCheckpointWrapper(manager, "t", "T") as wrapper:
        wrapper.checkpoint("one")
        getattr(wrapper, end)()
    assert written(store)[-1] == ("completed" if end == "complete_task" else "failed")
    assert store.position == 3


@pytest.mark.parametrize("end", ["complete_checkpoint", "fail_checkpoint", "delete_checkpoint"])
def test_an_exception_is_never_hidden(manager, end):
    error = ValueError("mine")

    def run():
        with TaskCheckpointWrapper(manager, "t", "T") as wrapper:
            getattr(manager, end)(wrapper.checkpoint("one"))
            raise error

    with pytest.raises(ValueError, match="mine") as caught:
        run()
    assert caught.value is error


def test_a_block_without_steps(manager, store):
    with TaskCheckpointWrapper(manager, "t", "T"):
        pass
    assert store.position == 0


# --- recovery -------------------------------------------------------------------------------------


def test_steps_go_on_from_what_was_recovered(manager, wrapper):
    wrapper.set_total_steps(4)
    wrapper.checkpoint("one", {"done": [1]})
    wrapper.checkpoint("two", {"done": [1, 2]})
    again = TaskCheckpointWrapper(manager, "t", "T", recover=True)
    assert again.recovered.data == {"done": [1, 2]}
    assert again.recovered.state is RESTORED
    progress = again.get_progress()
    assert (progress["current_step"], progress["total_steps"]) == (2, 4)
    again.update_progress({"done": [1, 2, 2.5]})
    third = again.checkpoint("three", {"done": [1, 2, 3]})
    assert manager.get_checkpoint(third).step_number == 3
    assert manager.get_checkpoint(third).total_steps == 4
    assert states(manager) == [COMPLETED, COMPLETED, ACTIVE]


def test_recovery_passes_over_a_failure(manager, wrapper):
    first = wrapper.checkpoint("one", {"done": [1]})
    wrapper.checkpoint("two")
    wrapper.fail_task({"why": "x"})
    again = TaskCheckpointWrapper(manager, "t", "T", recover=True)
    assert again.recovered.checkpoint_id == first
    second = again.checkpoint("two again")
    assert manager.get_checkpoint(second).step_number == 2
    assert states(manager) == [COMPLETED, FAILED, ACTIVE]


def test_a_restored_one_is_found_without_asking(manager, wrapper):
    first = wrapper.checkpoint("one")
    wrapper.checkpoint("two")
    manager.restore_checkpoint(first)
    again = TaskCheckpointWrapper(manager, "t", "T")
    assert again.recovered.checkpoint_id == first
    assert again.get_progress()["current_step"] == 1


def test_the_one_restored_last_counts(manager, wrapper):
    first, second = wrapper.checkpoint("one"), wrapper.checkpoint("two")
    manager.restore_checkpoint(second)
    manager.restore_checkpoint(first)
    assert TaskCheckpointWrapper(manager, "t", "T").recovered.checkpoint_id == first


def test_nothing_to_recover(manager):
    wrapper = TaskCheckpointWrapper(manager, "t", "T", recover=True)
    assert wrapper.recovered is None
    assert manager.get_checkpoint(wrapper.checkpoint("one")).step_number == 1


def test_without_recovery_a_new_run_begins_at_one(manager, wrapper):
    wrapper.checkpoint("one")
    wrapper.checkpoint("two")
    again = TaskCheckpointWrapper(manager, "t", "T")
    assert again.recovered is None
    assert manager.get_checkpoint(again.checkpoint("one")).step_number == 1


def test_a_recovery_point_that_goes_meanwhile(manager, wrapper, store):
    name = wrapper.checkpoint("one")
    with before_commit(store, lambda: manager.delete_checkpoint(name)):
        again = TaskCheckpointWrapper(manager, "t", "T", recover=True)
    assert again.recovered is None


# --- others ---------------------------------------------------------------------------------------


def test_a_late_writer_does_not_bring_a_deleted_task_back(manager, wrapper, store):
    wrapper.checkpoint("one")
    manager.delete_task("t")
    with pytest.raises(CheckpointNotFoundError):
        wrapper.checkpoint("two")
    with pytest.raises(CheckpointNotFoundError):
        wrapper.complete_task()
    assert written(store)[-1] == "task.deleted"


def test_somebody_else_has_completed_the_step(manager, wrapper):
    manager.complete_checkpoint(wrapper.checkpoint("one"))
    wrapper.checkpoint("two")
    assert states(manager) == [COMPLETED, ACTIVE]


def test_a_step_overtaken_by_an_update(manager, wrapper, store):
    first = wrapper.checkpoint("one", {"n": 1})
    with before_commit(store, lambda: manager.update_checkpoint(first, data={"m": 1})):
        wrapper.checkpoint("two")
    assert manager.get_checkpoint(first).data == {"n": 1, "m": 1}
    assert states(manager) == [COMPLETED, ACTIVE]
