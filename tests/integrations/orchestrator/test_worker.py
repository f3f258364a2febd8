"""WorkerCheckpointIntegration, call by call."""

from __future__ import annotations

import math

import numpy
import pytest

from ckptlog import (
    CheckpointError,
    CheckpointManager,
    CheckpointState,
    LeaseHeldError,
    LeaseLostError,
    TaskGivenUpError,
    WorkerCheckpointIntegration,
)
from ckptlog.errors import ArgumentError
from ckptlog.integrations.orchestrator import worker as module
from tests.integrations.orchestrator.fencing import assert_refused
from tests.manager.clock import SettableEnvironment, open_at


@pytest.fixture
def environment():
    return SettableEnvironment()


@pytest.fixture
def manager(tmp_path, environment):
    with open_at(tmp_path / "store", environment) as store:
        yield CheckpointManager(store=store)


def lease_of(worker, checkpoint_id):
    """Return the lease that a task in work is held under."""
    session = worker._session(checkpoint_id)
    return None if session is None or session.is_ended else session.lease


def test_the_life_of_a_task(manager):
    worker = WorkerCheckpointIntegration("w1", manager)
    name = worker.start_task_execution("t", "A task")
    found = manager.get_checkpoint(name)
    assert (found.state, found.worker_id, found.task_title) == (
        CheckpointState.ACTIVE,
        "w1",
        "A task",
    )
    assert lease_of(worker, name).holder == "w1"
    assert worker.update_execution_progress(name, {"done": 3}) is None
    assert manager.get_checkpoint(name).data == {"done": 3}
    assert worker.complete_task_execution(name, {"result": "good"}) is None
    found = manager.get_checkpoint(name)
    assert (found.state, found.data) == (
        CheckpointState.COMPLETED,
        {"done": 3, "result": "good"},
    )
    assert manager.list_leases() == []
    assert lease_of(worker, name) is None
    # Once more is a new run.
    assert worker.start_task_execution("t", "A task") != name


def test_a_greater_step_is_a_checkpoint_of_its_own(manager):
    worker = WorkerCheckpointIntegration("w1", manager)
    first = worker.start_task_execution("t", "T")
    worker.update_execution_progress(first, {"a": 1, "total_steps": 3})
    worker.update_execution_progress(first, {"b": 2, "step_number": 2, "step_description": "two"})
    second = worker.present_checkpoint(first)
    worker.update_execution_progress(second, {"c": 3, "step_number": 2})
    one, two = manager.get_task_checkpoints("t")
    assert (one.state, one.step_number, one.total_steps) == (CheckpointState.COMPLETED, 1, 3)
    assert (two.checkpoint_id, two.step_number, two.total_steps) == (second, 2, 3)
    assert (two.step_description, two.state) == ("two", CheckpointState.ACTIVE)
    assert {key: two.data[key] for key in "abc"} == {"a": 1, "b": 2, "c": 3}
    worker.complete_task_execution(first, {})
    assert manager.get_checkpoint(second).state is CheckpointState.COMPLETED


def test_an_error_is_told_in_full_and_the_task_let_go(manager):
    worker = WorkerCheckpointIntegration("w1", manager)
    name = worker.start_task_execution("t", "T")
    worker.update_execution_progress(name, {"a": 1})

    def broken():
        raise ValueError("no luck")

    try:
        broken()
    except ValueError as error:
        assert worker.handle_execution_error(name, error) is None
    found = manager.get_checkpoint(name)
    info = found.metadata["error_info"]
    assert found.state is CheckpointState.FAILED
    assert (info["type"], info["message"]) == ("ValueError", "no luck")
    assert "in broken" in info["traceback"]
    assert manager.list_leases() == []


def test_an_error_that_is_told_again_on_its_way_up_is_nothing(manager):
    worker = WorkerCheckpointIntegration("w1", manager)
    name = worker.start_task_execution("t", "T")

    def work():
        try:
            raise ValueError("no luck")
        except ValueError as error:
            worker.handle_execution_error(name, error)
            raise

    with pytest.raises(ValueError, match="no luck") as caught:
        work()
    before = manager.store.position
    worker.handle_execution_error(name, caught.value)
    assert manager.store.position == before
    with pytest.raises(LeaseLostError):
        worker.handle_execution_error(name, ValueError("another one"))


def test_another_worker_goes_on_and_the_first_is_refused(manager, environment):
    first = WorkerCheckpointIntegration("w1", manager, lease_ttl_s=2_000_000)
    name = first.start_task_execution("t", "T")
    first.update_execution_progress(name, {"a": 1})
    second = WorkerCheckpointIntegration("w2", manager)
    with pytest.raises(LeaseHeldError, match="'w1'"):
        second.start_task_execution("t", "T")
    environment.advance(seconds=2_000_001)
    again = second.start_task_execution("t", "T")
    assert again == name
    assert manager.get_checkpoint(again).state is CheckpointState.RESTORED
    for act in (
        lambda: first.update_execution_progress(name, {"b": "dead"}),
        lambda: first.complete_task_execution(name, {"b": "dead"}),
    ):
        with pytest.raises(LeaseLostError):
            act()
    second.update_execution_progress(again, {"c": 2})
    assert manager.get_checkpoint(name).data == {"a": 1, "c": 2}


def test_a_worker_that_lost_its_task_is_refused_for_ever(manager, environment):
    first = WorkerCheckpointIntegration("w1", manager, lease_ttl_s=2_000_000)
    name = first.start_task_execution("t", "T")
    first.update_execution_progress(name, {"a": 1})
    environment.advance(seconds=2_000_001)
    second = WorkerCheckpointIntegration("w2", manager)
    again = second.start_task_execution("t", "T")
    writes = (
        lambda: first.update_execution_progress(name, {"b": "dead"}),
        lambda: first.update_execution_progress(name, {"b": "dead", "step_number": 9}),
        lambda: first.complete_task_execution(name, {"b": "dead"}),
        lambda: first.handle_execution_error(name, RuntimeError("dead")),
    )

    assert_refused(manager, writes)
    second.update_execution_progress(again, {"c": 2})
    environment.advance(seconds=100)  # the second died too, and its lease has expired
    assert_refused(manager, writes)
    third = WorkerCheckpointIntegration("w3", manager)
    third.complete_task_execution(third.start_task_execution("t", "T"), {"d": 3})
    assert_refused(manager, writes)
    assert manager.get_latest_checkpoint("t").data == {"a": 1, "c": 2, "d": 3}


def test_a_worker_that_failed_its_task_writes_nothing_into_the_next_attempt(manager):
    first = WorkerCheckpointIntegration("w1", manager)
    name = first.start_task_execution("t", "T")
    first.handle_execution_error(name, RuntimeError("x"))
    second = WorkerCheckpointIntegration("w2", manager)
    assert second.start_task_execution("t", "T") == name
    lease_of(second, name).release()
    for act in (first.update_execution_progress, first.complete_task_execution):
        with pytest.raises(LeaseLostError):
            act(name, {"b": "late"})
    assert manager.get_checkpoint(name).data == {}
    # The same worker may try again, under a new lease.
    assert first.start_task_execution("t", "T") == name
    first.complete_task_execution(name, {"c": 1})


def test_a_completed_task_is_done_whatever_was_promised(manager):
    worker = WorkerCheckpointIntegration("w1", manager)
    name = worker.start_task_execution("t", "T")
    worker.update_execution_progress(name, {"step_number": 3, "total_steps": 10})
    worker.complete_task_execution(name, {"result": 1})
    found = manager.get_checkpoint(worker.present_checkpoint(name))
    assert (found.state, found.step_number, found.total_steps) == (CheckpointState.COMPLETED, 3, 3)
    assert found.data["result"] == 1
    assert not manager.can_recover_task("t")
    assert manager.find_interrupted_tasks() == []
    anew = worker.start_task_execution("t", "T")
    assert manager.get_checkpoint(anew).step_number == 1
    # Of a checkpoint that was made elsewhere too.
    other = manager.create_checkpoint("u", "U", 1, "", 5)
    WorkerCheckpointIntegration("w2", manager).complete_task_execution(other, {"a": 1})
    assert not manager.can_recover_task("u")
    assert manager.get_checkpoint(other).data == {"a": 1}


def test_completing_again_with_nothing_new_is_nothing(manager):
    worker = WorkerCheckpointIntegration("w1", manager)
    name = worker.start_task_execution("t", "T")
    worker.complete_task_execution(name, {"a": [1]})
    before = manager.store.position
    for results in ({"a": [1]}, {}, None):
        worker.complete_task_execution(name, results)
    assert manager.store.position == before
    for results in ({"a": [2]}, {"b": 1}):
        with pytest.raises(LeaseLostError):
            worker.complete_task_execution(name, results)


def test_results_that_are_equal_to_nothing_are_told_again(manager):
    worker = WorkerCheckpointIntegration("w1", manager)
    name = worker.start_task_execution("t", "T")
    results = {"array": numpy.arange(3), "loss": math.nan, "one": 1}
    worker.complete_task_execution(name, results)
    before = manager.store.position
    worker.complete_task_execution(name, {**results, "array": numpy.arange(3)})
    worker.complete_task_execution(name, {"loss": math.nan})
    assert manager.store.position == before
    for other in ({"array": numpy.arange(4)}, {"one": True}, {"one": 1.0}):
        with pytest.raises(LeaseLostError):
            worker.complete_task_execution(name, other)


def test_what_is_not_told_of_a_step_is_none(manager):
    worker = WorkerCheckpointIntegration("w1", manager)
    name = worker.start_task_execution("t", "T")
    nothing = {"step_number": None, "total_steps": None, "step_description": None}
    worker.update_execution_progress(name, {**nothing, "a": 1})
    found = manager.get_checkpoint(name)
    assert (found.step_number, found.total_steps, found.data["a"]) == (1, None, 1)


def test_progress_that_was_refused_leaves_nothing_behind(manager):
    worker = WorkerCheckpointIntegration("w1", manager)
    name = worker.start_task_execution("t", "T")
    for refused in ({"total_steps": 10**30}, {"total_steps": 7, "a": object()}):
        with pytest.raises(CheckpointError):
            worker.update_execution_progress(name, refused)
    worker.update_execution_progress(name, {"step_number": 2})
    present = worker.present_checkpoint(name)
    assert manager.get_checkpoint(present).total_steps is None
    worker.update_execution_progress(name, {"total_steps": 5})
    worker.update_execution_progress(name, {"step_number": 3})
    assert manager.get_checkpoint(worker.present_checkpoint(name)).total_steps == 5


def test_very_many_tasks_are_not_remembered_for_ever(manager, monkeypatch):
    monkeypatch.setattr(module, "SESSIONS_MAX", 10)
    worker = WorkerCheckpointIntegration("w1", manager)
    held = worker.start_task_execution("held", "T")
    for number in range(30):
        name = worker.start_task_execution(f"t{number}", "T")
        worker.complete_task_execution(name, {})
    assert len(worker._sessions) <= 11
    worker.update_execution_progress(held, {"a": 1})
    assert lease_of(worker, held).holder == "w1"


def test_a_task_that_had_its_attempts(manager):
    for attempt in range(2):
        worker = WorkerCheckpointIntegration("w1", manager, worker_attempts_max=1, attempts_max=2)
        name = worker.start_task_execution("t", "T")
        worker.handle_execution_error(name, RuntimeError(f"{attempt}"))
    with pytest.raises(TaskGivenUpError, match="another has to") as caught:
        worker.start_task_execution("t", "T")
    assert caught.value.context["action"] == "refuse"
    other = WorkerCheckpointIntegration("w2", manager, worker_attempts_max=1, attempts_max=2)
    other.handle_execution_error(other.start_task_execution("t", "T"), RuntimeError("x"))
    third = WorkerCheckpointIntegration("w3", manager, worker_attempts_max=1, attempts_max=2)
    for _ in range(2):
        with pytest.raises(TaskGivenUpError, match="2 times without getting further"):
            third.start_task_execution("t", "T")
    assert manager.list_leases() == []
    anew = WorkerCheckpointIntegration("w3", manager, resume=False)
    assert manager.get_checkpoint(anew.start_task_execution("t", "T")).data == {}


def test_checkpoints_of_others_are_written_without_a_lease(manager):
    name = manager.create_checkpoint("t", "T", 1)
    worker = WorkerCheckpointIntegration("w1", manager)
    worker.update_execution_progress(name, {"a": 1})
    worker.complete_task_execution(name, {"b": 2})
    assert manager.get_checkpoint(name).data == {"a": 1, "b": 2}
    other = manager.create_checkpoint("t", "T", 2)
    worker.handle_execution_error(other, RuntimeError("x"))
    assert manager.get_checkpoint(other).state is CheckpointState.FAILED
    assert worker.present_checkpoint(other) == other


@pytest.mark.parametrize(
    "progress", [None, [1], {"step_number": 0}, {"step_number": "2"}, {"total_steps": True}]
)
def test_senseless_progress_is_refused(manager, progress):
    worker = WorkerCheckpointIntegration("w1", manager)
    name = worker.start_task_execution("t", "T")
    with pytest.raises(ArgumentError):
        worker.update_execution_progress(name, progress)
    assert manager.get_checkpoint(name).data == {}


def test_senseless_arguments_are_refused(manager):
    with pytest.raises(ArgumentError):
        WorkerCheckpointIntegration("", manager)
    with pytest.raises(ArgumentError, match="checkpoint_manager"):
        WorkerCheckpointIntegration("w1", "a path")
    worker = WorkerCheckpointIntegration("w1", manager)
    with pytest.raises(ArgumentError):
        worker.start_task_execution("", "T")
    with pytest.raises(ArgumentError, match="error"):
        worker.handle_execution_error("x", "no exception")
