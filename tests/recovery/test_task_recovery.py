"""Claiming, resuming, trying again, giving up: what the log has afterwards, and who may write."""

from __future__ import annotations

import pytest

from ckptlog import (
    CheckpointManager,
    CheckpointState,
    LeaseLostError,
    TaskCheckpointWrapper,
    TaskRecovery,
)
from ckptlog.errors import ArgumentError, CheckpointNotFoundError, LeaseHeldError
from ckptlog.policy import retrial
from ckptlog.recovery import task_recovery
from tests.manager.clock import SettableEnvironment, open_at


@pytest.fixture
def environment():
    return SettableEnvironment()


@pytest.fixture
def manager(tmp_path, environment):
    with open_at(tmp_path / "store", environment) as store:
        yield CheckpointManager(store=store)


@pytest.fixture
def task(manager):
    """A task that died in its second step."""
    manager.complete_checkpoint(manager.create_checkpoint("t", "T", 1, "", 3, {"done": [1]}))
    name = manager.create_checkpoint("t", "T", 2, "", 3, {"done": [1, 2]})
    manager.update_checkpoint(name)
    return name


def recovery(manager, worker, **options):
    options.setdefault("background", False)
    return TaskRecovery(manager, worker, **options)


def test_a_claim_restores_counts_and_holds(manager, task):
    outcome = recovery(manager, "w1").claim("t")
    assert outcome.action == retrial.RETRY
    assert "the latest active checkpoint whose data verifies" in outcome.reason
    resumed = outcome.task
    assert resumed.checkpoint.checkpoint_id == task
    assert resumed.checkpoint.data == {"done": [1, 2]}
    assert resumed.checkpoint.state is CheckpointState.RESTORED
    assert (resumed.attempt, resumed.lease.holder, resumed.lease.is_valid) == (1, "w1", True)
    kinds = [one.event.type for one in manager.store.events()][-2:]
    assert kinds == ["lease.claimed", "checkpoint.restored"]
    (attempt,) = retrial.attempts_of(manager.get_checkpoint(task).metadata)
    assert (attempt.worker, attempt.lease) == ("w1", resumed.lease.token)
    assert manager.find_interrupted_tasks() == []


def test_who_comes_second_is_told_who_has_it(manager, task):
    first = recovery(manager, "w1").claim("t")
    second = recovery(manager, "w2").claim("t")
    assert (second.action, second.task) == (task_recovery.HELD, None)
    assert "'w1'" in second.reason
    assert first.task.lease.is_valid


def test_a_resumed_task_is_finished_under_its_lease(manager, task):
    with recovery(manager, "w1").claim("t").task as resumed:
        wrapper = resumed.wrapper()
        assert wrapper.recovered.checkpoint_id == task
        wrapper.checkpoint("Step 3", {"done": [1, 2, 3]})
        wrapper.complete_task({"by": "w1"})
    assert manager.list_leases() == []
    latest = manager.get_latest_checkpoint("t")
    assert (latest.state, latest.worker_id) == (CheckpointState.COMPLETED, "w1")
    again = recovery(manager, "w2").claim("t")
    assert (again.action, again.task) == (task_recovery.NOT_INTERRUPTED, None)
    assert again.reason == "the task's latest checkpoint is completed"
    assert manager.list_leases() == []


def test_nothing_of_a_worker_that_was_overtaken_counts(manager, task, environment):
    late = recovery(manager, "w1", ttl_s=10).claim("t").task
    wrapper = late.wrapper()
    environment.advance(seconds=11)
    outcome = recovery(manager, "w2").claim("t")
    assert outcome.action == retrial.REASSIGN
    with pytest.raises(LeaseLostError):
        wrapper.checkpoint("Step 3", {"done": "by the dead"})
    with pytest.raises(LeaseLostError):
        wrapper.complete_task()
    outcome.task.wrapper().checkpoint("Step 3", {"done": [1, 2, 3]})
    assert manager.get_latest_checkpoint("t").data == {"done": [1, 2, 3]}


def test_a_failure_keeps_the_recovery_point(manager, task):
    resumed = recovery(manager, "w1").claim("t").task
    with pytest.raises(RuntimeError, match="no luck"), resumed:
        raise RuntimeError("no luck")
    latest = manager.get_latest_checkpoint("t")
    assert latest.state is CheckpointState.FAILED
    assert latest.metadata["error_info"] == {"type": "RuntimeError", "message": "no luck"}
    assert latest.data == {"done": [1, 2]}
    assert manager.get_recovery_point("t").checkpoint_id == task
    assert manager.list_leases() == []


def test_retry_reassign_give_up(manager, task):
    said = []
    for worker in ("a", "a", "a", "b", "b", "b", "c"):
        outcome = recovery(manager, worker).claim("t")
        said.append(outcome.action)
        if outcome.task:
            with pytest.raises(RuntimeError), outcome.task:
                raise RuntimeError
    assert said == [
        *("retry", "retry", "refuse", "reassign", "retry"),
        *("give_up", "give_up"),
    ]
    assert "'a' 2 times, 'b' 2 times" in outcome.reason
    latest = manager.get_latest_checkpoint("t")
    assert latest.state is CheckpointState.FAILED
    assert latest.metadata["error_info"]["type"] == "GaveUp"
    assert latest.data == {"done": [1, 2]}
    assert manager.find_interrupted_tasks(include_failed=True) == []
    assert manager.list_leases() == []
    # A person who knows better restores what says so, and it begins anew from there.
    manager.restore_checkpoint(latest.checkpoint_id)
    outcome = recovery(manager, "a").claim("t")
    assert (outcome.action, outcome.task.attempt) == ("retry", 1)
    assert outcome.task.checkpoint.data == {"done": [1, 2]}


def test_who_gets_further_begins_to_count_anew(manager, task):
    for step in range(3, 10):
        resumed = recovery(manager, "w1", attempts_max=2).claim("t").task
        assert resumed.attempt == 1
        resumed.wrapper().checkpoint(f"Step {step}")
        resumed.release()  # and dies


def test_who_falls_back_to_earlier_points_does_not(manager, task):
    resumed = recovery(manager, "w1").claim("t").task
    manager.update_checkpoint(task, data={"done": "nonsense"}, lease=resumed.lease)
    manager.fail_checkpoint(task, lease=resumed.lease)
    resumed.release()
    second = recovery(manager, "w1").claim("t").task
    assert second.checkpoint.step_number == 1
    assert second.attempt == 2


def test_an_earlier_point_is_restored_in_a_copy_so_that_the_task_can_end(manager, task):
    manager.fail_checkpoint(task)
    resumed = recovery(manager, "w1").claim("t").task
    first, failed, copy = manager.get_task_checkpoints("t")
    assert (first.state.value, failed.state.value) == ("completed", "failed")
    assert copy == resumed.checkpoint
    assert (copy.state.value, copy.data, copy.step_number) == ("restored", {"done": [1]}, 1)
    assert copy.metadata["recovery"]["from"] == first.checkpoint_id
    with resumed:
        resumed.wrapper().checkpoint("Step 2 again", {"done": [1, 2]})
        manager.update_checkpoint(
            manager.get_latest_checkpoint("t").checkpoint_id, total_steps=2, lease=resumed.lease
        )
        manager.complete_checkpoint(
            manager.get_latest_checkpoint("t").checkpoint_id, lease=resumed.lease
        )
    assert manager.find_interrupted_tasks(include_failed=True) == []
    assert not manager.can_recover_task("t")


def test_a_task_without_sound_bytes_is_left_alone(manager, task, monkeypatch):
    monkeypatch.setattr(CheckpointManager, "_fault", lambda *_: "its bytes are gone")
    before = manager.store.position
    outcome = recovery(manager, "w1").claim("t")
    assert outcome.action == task_recovery.UNRECOVERABLE
    assert outcome.reason == "no checkpoint of the task verifies"
    assert manager.store.position == before


def test_a_failed_task_is_left_where_that_is_asked(manager):
    manager.fail_checkpoint(manager.create_checkpoint("t", "T", 1))
    gentle = recovery(manager, "w1", include_failed=False)
    assert gentle.find() == []
    outcome = gentle.claim("t")
    assert outcome.reason == "the task's latest checkpoint is failed"
    assert recovery(manager, "w1").claim("t").task is not None


def test_a_new_task_is_not_interrupted(manager):
    outcome = recovery(manager, "w1").claim("new")
    assert outcome.reason == "the task has no checkpoint"
    assert manager.list_leases() == []


def test_the_next_one_is_claimed(manager, task):
    manager.create_checkpoint("u", "U", 1)
    one, two = recovery(manager, "w1"), recovery(manager, "w2")
    assert one.claim_next().task_id == "t"
    assert two.claim_next().task_id == "u"
    assert two.claim_next() is None
    assert one.claim_next(tasks=["nothing*"]) is None


def test_a_change_between_the_look_and_the_restore_is_noticed(manager, task, monkeypatch):
    work = recovery(manager, "w1")
    real, meddled = manager.get_checkpoint, []

    def meddling(name):
        found = real(name)
        if not meddled:
            meddled.append(manager.delete_checkpoint(task, lease=lease))
        return found

    lease = work.acquire("t")
    monkeypatch.setattr(manager, "get_checkpoint", meddling)
    outcome = work.resume(lease)
    assert outcome.task is not None, outcome
    assert outcome.task.checkpoint.step_number == 1


def test_what_is_written_after_the_look_is_not_restored_unseen(manager, task, monkeypatch):
    work = recovery(manager, "w1")
    lease = work.acquire("t")
    real, look, looks = manager.get_checkpoint, manager.look_at_task, []

    def looking(*arguments, **options):
        looks.append(look(*arguments, **options))
        return looks[-1]

    def meddling(name):
        found = real(name)
        if len(looks) == 1:  # the point is read; its bytes were verified by the look
            manager.update_checkpoint(task, data={"done": "more"}, lease=lease)
        return found

    monkeypatch.setattr(manager, "look_at_task", looking)
    monkeypatch.setattr(manager, "get_checkpoint", meddling)
    outcome = work.resume(lease)
    assert outcome.task.checkpoint.data == {"done": "more"}
    assert len(looks) == 2
    assert outcome.task.attempt == 1


def test_what_goes_wrong_lets_the_task_go(manager, task, monkeypatch):
    def failing(*_args, **_options):
        raise MemoryError

    monkeypatch.setattr(manager, "look_at_task", failing)
    with pytest.raises(MemoryError):
        recovery(manager, "w1").claim("t")
    assert manager.list_leases() == []


def test_a_lease_is_renewed_in_the_background_by_default(manager, task):
    resumed = TaskRecovery(manager, "w1", ttl_s=600).claim("t").task
    with pytest.raises(LeaseHeldError):
        manager.acquire_lease("t")
    resumed.release()


def test_asking_again_for_what_a_worker_may_not_have_writes_nothing(manager, task):
    worker = recovery(manager, "w1", worker_attempts_max=1)
    worker.claim_next().release()
    before = manager.store.position
    assert [worker.claim_next() for _ in range(3)] == [None] * 3
    assert worker.claim("t").action == retrial.REFUSE
    assert worker.claim("nowhere").action == task_recovery.NOT_INTERRUPTED
    assert manager.store.position == before
    assert recovery(manager, "w2").claim_next().action == retrial.REASSIGN


def test_the_first_of_many_is_claimed_without_a_look_at_the_others(manager, monkeypatch):
    for number in range(9):
        manager.update_checkpoint(manager.create_checkpoint(f"t{number}", "T", 1))
    for number in range(9):
        manager.create_checkpoint(f"s{number}", "T", 1, metadata={**retrial.SEED})
    looked, explain = [], CheckpointManager.explain_recovery_point
    monkeypatch.setattr(
        CheckpointManager,
        "explain_recovery_point",
        lambda self, task: looked.append(task) or explain(self, task),
    )
    assert recovery(manager, "w1").claim_next().task_id == "t0"
    assert set(looked) == {"t0"}
    assert recovery(manager, "w1").claim_next().task_id == "t1"
    assert set(looked) == {"t0", "t1"}
    assert recovery(manager, "w1").claim_next(include_seeds=True).task_id == "s0"


def test_a_limit_of_more_than_a_hundred_is_one(manager, task):
    worker = recovery(manager, "w1", attempts_max=102, worker_attempts_max=102)
    for number in range(1, 103):
        resumed = worker.claim("t").task
        assert resumed.attempt == number
        resumed.release()
    assert worker.claim("t").action == retrial.GIVE_UP


@pytest.mark.parametrize(
    "options",
    [{"attempts_max": 0}, {"attempts_max": 1001}, {"worker_attempts_max": True}],
)
def test_senseless_limits_are_refused(manager, options):
    with pytest.raises(ArgumentError, match=next(iter(options))):
        recovery(manager, "w1", **options)
    with pytest.raises(ArgumentError):
        recovery(manager, "")


def test_a_wrapper_goes_on_from_what_its_worker_changed_by_hand(manager, task):
    with recovery(manager, "w1").claim("t").task as resumed:
        name = resumed.checkpoint.checkpoint_id
        manager.update_checkpoint(name, data={"more": 1}, lease=resumed.lease)
        wrapper = resumed.wrapper()
        assert wrapper.recovered.checkpoint_id == name
        wrapper.checkpoint("Step 3")
        again = resumed.wrapper()  # a second one goes on where the first one is
        assert again.get_progress()["current_step"] == 3
        again.complete_task({"end": True})
        assert resumed.wrapper().get_progress()["is_complete"]
    assert manager.get_checkpoint(name).state is CheckpointState.COMPLETED
    latest = manager.get_latest_checkpoint("t")
    assert (latest.step_number, latest.data) == (3, {"end": True})
    assert manager.find_interrupted_tasks() == []


def test_a_wrapper_takes_up_no_checkpoint_of_another_task(manager, task):
    other = manager.create_checkpoint("u", "U", 1)
    with pytest.raises(ArgumentError, match="'u'"):
        TaskCheckpointWrapper(manager, "t", "T", checkpoint_id=other)
    with pytest.raises(CheckpointNotFoundError):
        TaskCheckpointWrapper(manager, "t", "T", checkpoint_id="cp_none")
    with pytest.raises(ArgumentError, match="not both"):
        TaskCheckpointWrapper(manager, "t", "T", checkpoint_id=task, recover=True)
