"""EnhancedOrchestratorIntegration, call by call."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from ckptlog import (
    CheckpointManager,
    CheckpointState,
    EnhancedOrchestratorIntegration,
    LeaseHeldError,
    LeaseLostError,
)
from ckptlog.errors import ArgumentError, InvalidUpdateError
from tests.integrations.orchestrator.fencing import assert_refused
from tests.manager.clock import SettableEnvironment, open_at


@dataclass
class Context:
    task_id: str = "t"
    task_title: str = "A task"
    worker_id: str | None = None
    total_steps: int | None = None
    data: dict[str, Any] = field(default_factory=dict)
    checkpoint_id: str | None = None
    step_number: int = 0
    lease: Any = None


class Orchestrator:
    def __init__(self, manager):
        self.checkpoint_manager = manager
        self.told = []

    def on_task_recovered(self, context, checkpoint):
        self.told.append(("recovered", context.task_id, checkpoint.checkpoint_id))

    def on_task_given_up(self, context, reason):
        self.told.append(("given up", context.task_id, reason))


@pytest.fixture
def environment():
    return SettableEnvironment()


@pytest.fixture
def manager(tmp_path, environment):
    with open_at(tmp_path / "store", environment) as store:
        yield CheckpointManager(store=store)


@pytest.fixture
def orchestrator(manager):
    return Orchestrator(manager)


def test_the_life_of_a_task(manager, orchestrator):
    integration = EnhancedOrchestratorIntegration(orchestrator)
    context = Context(worker_id="w1", total_steps=2, data={"input": 1})
    assert integration.setup_task_checkpointing(context) is None
    first = manager.get_checkpoint(context.checkpoint_id)
    assert (first.state, first.data, first.worker_id) == (
        CheckpointState.ACTIVE,
        {"input": 1},
        "w1",
    )
    assert (first.total_steps, context.step_number, context.lease.task) == (2, 1, "t")
    assert integration.handle_task_progress(context, {"half": True}) is None
    integration.handle_task_progress(context, {"step_number": 2})
    assert context.step_number == 2
    assert context.checkpoint_id != first.checkpoint_id
    integration.handle_task_completion(context, {"output": 2})
    last = manager.get_checkpoint(context.checkpoint_id)
    assert (last.state, last.data["output"], last.data["half"]) == (
        CheckpointState.COMPLETED,
        2,
        True,
    )
    assert manager.list_leases() == []
    with pytest.raises(InvalidUpdateError, match="not set up"):
        integration.handle_task_progress(context, {})


def test_a_task_is_set_up_once(manager, orchestrator):
    integration = EnhancedOrchestratorIntegration(orchestrator)
    integration.setup_task_checkpointing(Context())
    with pytest.raises(ArgumentError, match="already"):
        integration.setup_task_checkpointing(Context())
    other = EnhancedOrchestratorIntegration(Orchestrator(manager))
    with pytest.raises(LeaseHeldError):
        other.setup_task_checkpointing(Context())
    assert other.handle_task_recovery(Context()) is False
    assert "is leased to" in other.why_not(Context())


def test_a_failure_is_told_by_a_checkpoint(manager, orchestrator):
    integration = EnhancedOrchestratorIntegration(orchestrator)
    context = Context(data={"a": 1})
    assert integration.handle_task_failure(context, ValueError("no luck")) is None
    found = manager.get_checkpoint(context.checkpoint_id)
    assert (found.state, found.data) == (CheckpointState.FAILED, {"a": 1})
    assert found.metadata["error_info"]["message"] == "no luck"
    assert manager.list_leases() == []


def test_a_recovery_goes_on_where_the_task_was(manager, orchestrator, environment):
    ttl_s = 2_000_000
    dead = EnhancedOrchestratorIntegration(Orchestrator(manager), lease_ttl_s=ttl_s)
    lost = Context(data={"a": 1})
    dead.setup_task_checkpointing(lost)
    dead.handle_task_progress(lost, {"b": 2, "step_number": 3})
    environment.advance(seconds=ttl_s + 1)
    integration = EnhancedOrchestratorIntegration(orchestrator)
    (one,) = integration.find_interrupted_tasks()
    assert (one.task_id, one.former_holder) == ("t", "orchestrator")
    context = Context()
    assert integration.handle_task_recovery(context) is True
    assert integration.why_not(context) is None
    assert context.data == {"a": 1, "b": 2, "step_number": 3}
    assert (context.step_number, context.checkpoint_id) == (3, lost.checkpoint_id)
    assert orchestrator.told == [("recovered", "t", lost.checkpoint_id)]
    with pytest.raises(LeaseLostError):
        dead.handle_task_progress(lost, {"b": "dead"})
    integration.handle_task_progress(context, {"c": 3})
    integration.handle_task_completion(context)
    assert manager.get_latest_checkpoint("t").data["c"] == 3
    assert integration.handle_task_recovery(context) is False
    assert integration.why_not(context) == "the task's latest checkpoint is completed"


def test_an_orchestrator_that_lost_its_task_is_refused_for_ever(manager, environment):
    ttl_s = 2_000_000
    dead = EnhancedOrchestratorIntegration(Orchestrator(manager), lease_ttl_s=ttl_s)
    lost = Context(data={"a": 1})
    dead.setup_task_checkpointing(lost)
    environment.advance(seconds=ttl_s + 1)
    living = EnhancedOrchestratorIntegration(Orchestrator(manager))
    context = Context()
    assert living.handle_task_recovery(context) is True
    writes = (
        lambda: dead.handle_task_failure(lost, ValueError("dead")),
        lambda: dead.handle_task_progress(lost, {"b": "dead"}),
        lambda: dead.handle_task_completion(lost, {"b": "dead"}),
    )

    assert_refused(manager, writes)
    living.handle_task_completion(context, {"c": 1})
    assert_refused(manager, writes)
    assert not manager.can_recover_task("t")
    # It may do the task again when it is told to.
    dead.setup_task_checkpointing(lost)
    dead.handle_task_completion(lost)


def test_the_failure_of_a_task_that_is_over_is_refused(manager, orchestrator):
    integration = EnhancedOrchestratorIntegration(orchestrator, attempts_max=1)
    integration.setup_task_checkpointing(context := Context(total_steps=7))
    integration.handle_task_completion(context)
    assert not manager.can_recover_task("t")
    for stranger in (integration, EnhancedOrchestratorIntegration(orchestrator)):
        with pytest.raises(InvalidUpdateError, match="completed it"):
            stranger.handle_task_failure(Context(), ValueError("late"))
    integration.setup_task_checkpointing(given := Context(task_id="g"))
    integration.handle_task_failure(given, ValueError("1"))
    assert integration.handle_task_recovery(given)
    integration.handle_task_failure(given, ValueError("2"))
    assert not integration.handle_task_recovery(given)
    with pytest.raises(InvalidUpdateError, match="gave it up"):
        integration.handle_task_failure(given, ValueError("late"))
    assert manager.list_leases() == []


def test_a_failure_is_told_of_the_tasks_open_checkpoint(manager, orchestrator):
    name = manager.create_checkpoint("t", "T", 4, data={"done": 4})
    integration = EnhancedOrchestratorIntegration(orchestrator)
    integration.handle_task_failure(context := Context(), ValueError("no luck"))
    assert context.checkpoint_id == name
    (found,) = manager.get_task_checkpoints("t")
    assert (found.state, found.data) == (CheckpointState.FAILED, {"done": 4})


def test_a_recovery_of_what_is_in_work_here_leaves_it_in_work(manager, orchestrator):
    integration = EnhancedOrchestratorIntegration(orchestrator)
    integration.setup_task_checkpointing(context := Context())
    assert integration.handle_task_recovery(Context()) is False
    integration.handle_task_progress(context, {"a": 1})
    integration.handle_task_completion(context)
    assert manager.list_leases() == []


def test_a_task_without_hope_is_given_up_once(manager, orchestrator):
    integration = EnhancedOrchestratorIntegration(orchestrator, attempts_max=2)
    integration.setup_task_checkpointing(context := Context())
    integration.handle_task_failure(context, RuntimeError("0"))
    for number in range(2):
        assert integration.handle_task_recovery(context) is True
        integration.handle_task_failure(context, RuntimeError(f"{number}"))
    assert integration.handle_task_recovery(context) is False
    (*_, (kind, task, reason)) = orchestrator.told
    assert (kind, task) == ("given up", "t")
    assert "2 times" in reason
    assert integration.find_interrupted_tasks(include_failed=True) == []


def test_asking_again_whether_a_task_goes_on_writes_nothing(manager, orchestrator):
    integration = EnhancedOrchestratorIntegration(orchestrator)
    done = Context(task_id="done")
    integration.setup_task_checkpointing(done)
    integration.handle_task_completion(done)
    before = manager.store.position
    for context in (done, Context(task_id="nowhere")):
        for _ in range(3):
            assert not integration.handle_task_recovery(context)
            assert integration.why_not(context)
    assert manager.store.position == before


def test_any_objects_will_do(manager):
    integration = EnhancedOrchestratorIntegration(SimpleNamespace(checkpoint_manager=manager))

    class Bare:
        __slots__ = ("task_id", "task_title")

    context = Bare()
    context.task_id, context.task_title = "t", "T"
    integration.setup_task_checkpointing(context)
    integration.handle_task_progress(context, {"a": 1})
    integration.handle_task_completion(context)
    assert manager.get_latest_checkpoint("t").data == {"a": 1}


def test_senseless_arguments_are_refused(manager, orchestrator):
    with pytest.raises(ArgumentError, match="checkpoint_manager"):
        EnhancedOrchestratorIntegration(object())
    integration = EnhancedOrchestratorIntegration(orchestrator)
    with pytest.raises(ArgumentError, match="task_id"):
        integration.setup_task_checkpointing(object())
    with pytest.raises(ArgumentError, match="data"):
        integration.setup_task_checkpointing(Context(data=[1]))
    for untitled in (SimpleNamespace(task_id="t"), SimpleNamespace(task_id="t", task_title=5)):
        for act in (integration.setup_task_checkpointing, integration.handle_task_recovery):
            with pytest.raises(ArgumentError, match="task_title"):
                act(untitled)
    assert manager.list_leases() == []
    integration.setup_task_checkpointing(Context())
    with pytest.raises(ArgumentError, match="progress_data"):
        integration.handle_task_progress(Context(), [1])
    with pytest.raises(ArgumentError, match="error"):
        integration.handle_task_failure(Context(), "text")
