"""Which tasks are told as interrupted, and with which recovery point."""

from __future__ import annotations

import json

import pytest

from ckptlog import CheckpointManager, CheckpointState
from ckptlog.errors import ArgumentError


def names(found):
    return [one.task_id for one in found]


@pytest.fixture
def zoo(manager):
    """One task in each situation."""
    made = {}
    for name in (
        "active",
        "between",
        "complete",
        "created",
        "failed",
        "held",
        "open end",
        "restored",
    ):
        made[name] = manager.create_checkpoint(
            name, name.title(), 1, "", 2, {"of": name}, worker_id="w"
        )
    manager.update_checkpoint(made["active"], data={"more": 1})
    manager.complete_checkpoint(made["between"])
    manager.complete_checkpoint(made["complete"])
    manager.complete_checkpoint(manager.create_checkpoint("complete", "C", 2, "", 2))
    manager.fail_checkpoint(made["failed"])
    manager.acquire_lease("held")
    manager.complete_checkpoint(manager.create_checkpoint("no total", "N", 1))
    manager.complete_checkpoint(made["restored"])
    manager.restore_checkpoint(made["restored"])
    return made  # fmt: skip


def test_what_is_not_complete_and_held_by_nobody_is_interrupted(manager, zoo):
    found = manager.find_interrupted_tasks()
    assert names(found) == ["active", "between", "created", "open end", "restored"]
    assert names(manager.find_interrupted_tasks(include_failed=True)) == sorted(
        [*names(found), "failed"]
    )
    assert names(manager.find_interrupted_tasks(tasks=["a*", "held"])) == ["active"]
    patterns = (one for one in ["a*", "held"])  # which can be read once
    assert names(manager.find_interrupted_tasks(tasks=patterns)) == ["active"]
    assert names(manager.find_interrupted_tasks(limit=2)) == ["active", "between"]
    assert manager.find_interrupted_tasks(limit=0) == []


def test_each_says_where_to_go_on_and_why(manager, zoo):
    (one,) = manager.find_interrupted_tasks(tasks=["active"])
    assert one.recovery_point == one.checkpoint_id == zoo["active"]
    assert one.reason == "the latest active checkpoint whose data verifies"
    assert (one.title, one.state, one.step_number, one.total_steps) == ("Active", "active", 1, 2)
    assert (one.worker_id, one.former_holder, one.attempts) == ("w", None, ())
    assert [each["checkpoint_id"] for each in one.candidates] == [zoo["active"]]
    assert json.loads(json.dumps(one.to_dict()))["task_id"] == "active"


def test_an_expired_lease_is_no_hindrance_and_is_told(manager, environment):
    manager.create_checkpoint("t", "T", 1)
    manager.acquire_lease("t", holder="dead", ttl_s=10)
    assert manager.find_interrupted_tasks() == []
    environment.advance(seconds=11)
    (one,) = manager.find_interrupted_tasks()
    assert one.former_holder == "dead"


def test_who_works_without_leases_is_given_time(manager, environment):
    manager.create_checkpoint("t", "T", 1)
    assert manager.find_interrupted_tasks(quiet_s=60) == []
    environment.advance(seconds=61)
    assert names(manager.find_interrupted_tasks(quiet_s=60)) == ["t"]


def test_a_deleted_task_is_not_interrupted(manager):
    manager.create_checkpoint("t", "T", 1)
    manager.delete_task("t")
    assert manager.find_interrupted_tasks() == []
    assert manager.look_at_task("t") is None
    assert manager.look_at_task("never") is None


def test_an_earlier_one_is_told_where_the_latest_is_damaged(tmp_path):
    path = tmp_path / "store"
    with CheckpointManager(path) as manager:
        good = manager.create_checkpoint("t", "T", 1, "", 3, {"n": "first"})
        manager.complete_checkpoint(good)
        bad = manager.create_checkpoint("t", "T", 2, "", 3, {"n": "second-findable"})
    (segment,) = (path / "log").glob("*.seg")
    raw = bytearray(segment.read_bytes())
    at = raw.index(b"second-findable")
    raw[at] ^= 1
    segment.write_bytes(raw)
    with CheckpointManager(path) as manager:
        (one,) = manager.find_interrupted_tasks()
        assert (one.checkpoint_id, one.recovery_point) == (bad, good)
        assert "do not verify" in one.candidates[0]["reason"]


def test_very_many_tasks_are_paged(manager, monkeypatch):
    from ckptlog.manager import interruption

    monkeypatch.setattr(interruption, "_PAGE_ROWS", 3)
    wanted = sorted(f"t{number}é" for number in range(10))
    with manager.batch() as batch:
        for task in wanted:
            batch.create_checkpoint(task, "T", 1)
        batch.complete_checkpoint(batch.create_checkpoint("zz", "T", 1))
    assert names(manager.find_interrupted_tasks()) == wanted


@pytest.mark.parametrize(
    "options",
    [
        {"tasks": "t*"}, {"tasks": [1]}, {"tasks": 5}, {"tasks": None},
        {"quiet_s": -1}, {"quiet_s": "1"}, {"limit": -1},
    ],
)  # fmt: skip
def test_senseless_arguments_are_refused(manager, options):
    with pytest.raises(ArgumentError, match=next(iter(options))):
        manager.find_interrupted_tasks(**options)


def test_states_that_are_told(manager, zoo):
    states = {one.task_id: CheckpointState(one.state) for one in manager.find_interrupted_tasks()}
    assert states["between"] is CheckpointState.COMPLETED
    assert states["restored"] is CheckpointState.RESTORED
