"""What others do between a command's preparation and its commit: nothing is lost, nothing illegal
is written, and `expected` refuses what the caller has not seen."""

from __future__ import annotations

import pytest

from ckptlog import (
    BusyError,
    CheckpointNotFoundError,
    CheckpointState,
    ConflictError,
    IllegalTransitionError,
    InvalidUpdateError,
)
from ckptlog.manager import manager as manager_module
from tests.manager.interleave import before_commit, written

COMPLETED = CheckpointState.COMPLETED


@pytest.fixture
def name(manager):
    return manager.create_checkpoint("t", "T", 1, data={"a": 1})


# --- expected -------------------------------------------------------------------------------------

CALLS = {
    "update": lambda m, n, e: m.update_checkpoint(n, data={"x": 1}, expected=e),
    "complete": lambda m, n, e: m.complete_checkpoint(n, expected=e),
    "fail": lambda m, n, e: m.fail_checkpoint(n, {"x": 1}, expected=e),
    "restore": lambda m, n, e: m.restore_checkpoint(n, expected=e),
    "delete": lambda m, n, e: m.delete_checkpoint(n, expected=e),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_expected(manager, store, name, call):
    seen = manager.get_checkpoint(name).position
    manager.update_checkpoint(name, data={"other": 1})
    with pytest.raises(ConflictError) as caught:
        call(manager, name, seen)
    assert f"is at position {seen + 1}; {seen} was expected" in caught.value.message
    assert caught.value.hint == "Read it again, and decide anew."
    assert store.position == seen + 2
    assert call(manager, name, manager.get_checkpoint(name).position)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_expected_is_checked_at_the_commit(manager, store, name, call):
    seen = manager.get_checkpoint(name).position
    overtake = before_commit(store, lambda: manager.update_checkpoint(name, data={"other": 1}))
    with overtake, pytest.raises(ConflictError):
        call(manager, name, seen)
    assert written(store) == ["created", "updated"]


@pytest.mark.parametrize("expected", ["0", 0.0, True, [0]])
def test_expected_of_a_wrong_type(manager, name, expected):
    with pytest.raises(InvalidUpdateError, match=r"expected is .*; a position \(int\)"):
        manager.update_checkpoint(name, expected=expected)
    with pytest.raises(ValueError, match="expected is"):
        manager.delete_checkpoint(name, expected=expected)


def test_a_counter_by_compare_and_swap(manager, name):
    """The loop that `expected` is for; each conflict is one that another one won."""
    tries = 0
    for number in range(5):
        while True:
            tries += 1
            found = manager.get_checkpoint(name)
            if tries % 2:
                manager.update_checkpoint(name, data={"others": tries})
            try:
                count = found.data.get("count", 0) + 1
                manager.update_checkpoint(name, data={"count": count}, expected=found.position)
                break
            except ConflictError:
                continue
        assert manager.get_checkpoint(name).data["count"] == number + 1
    assert tries == 10


# --- overtaken ------------------------------------------------------------------------------------


def test_an_update_is_prepared_again_from_what_is_there(manager, store, name):
    overtake = before_commit(
        store,
        lambda: manager.update_checkpoint(name, data={"b": 1}, metadata={"m": 1}),
        lambda: manager.update_checkpoint(name, data={"b": 2, "c": 1}),
    )
    with overtake as intents:
        assert manager.update_checkpoint(name, data={"mine": 1}, metadata={"n": 1})
    assert len(intents) == 3
    found = manager.get_checkpoint(name)
    assert found.data == {"a": 1, "b": 2, "c": 1, "mine": 1}
    assert found.metadata == {"m": 1, "n": 1}


def test_a_description_does_not_undo_anothers_metadata(manager, store, name):
    with before_commit(store, lambda: manager.update_checkpoint(name, metadata={"m": 1})):
        manager.update_checkpoint(name, step_description="new")
    found = manager.get_checkpoint(name)
    assert (found.metadata, found.step_description) == ({"m": 1}, "new")


def test_what_keeps_the_payloads_need_not_be_prepared_again(manager, store, name):
    with before_commit(store, lambda: manager.update_checkpoint(name, data={"b": 1})) as intents:
        manager.update_checkpoint(name, step_number=2)
    assert len(intents) == 1
    assert manager.get_checkpoint(name).data == {"a": 1, "b": 1}


@pytest.mark.parametrize("replaces", [False, True])
def test_replacing_looks_again_too(manager, store, name, replaces):
    """Not because of the data, but to be one step after the other."""
    with before_commit(store, lambda: manager.update_checkpoint(name, data={"b": 1})):
        manager.update_checkpoint(name, data={"c": 1}, replace_data=replaces)
    expected = {"c": 1} if replaces else {"a": 1, "b": 1, "c": 1}
    assert manager.get_checkpoint(name).data == expected


def test_completed_by_another_meanwhile(manager, store, name):
    with before_commit(store, lambda: manager.complete_checkpoint(name, {"r": 1})):
        assert manager.complete_checkpoint(name, {"r": 1}) is True
    with before_commit(store, lambda: manager.restore_checkpoint(name)):
        assert manager.complete_checkpoint(name) is True
    assert written(store) == ["created", "completed", "restored", "completed"]


def test_completed_by_another_after_an_update(manager, store, name):
    """Prepared two changes ago, and still it is the same end with nothing new."""

    def update_and_complete():
        manager.update_checkpoint(name, data={"b": 1})
        manager.complete_checkpoint(name, {"r": 1})

    with before_commit(store, update_and_complete):
        assert manager.complete_checkpoint(name, {"r": 1}) is True
    assert manager.get_checkpoint(name).data == {"a": 1, "b": 1, "r": 1}
    manager.restore_checkpoint(name)
    with before_commit(store, update_and_complete), pytest.raises(IllegalTransitionError):
        manager.complete_checkpoint(name, {"r": 2})


def test_ended_otherwise_meanwhile(manager, store, name):
    fails = before_commit(store, lambda: manager.fail_checkpoint(name))
    with fails, pytest.raises(IllegalTransitionError, match="failed and cannot become completed"):
        manager.complete_checkpoint(name, {"r": 1})
    updates = before_commit(store, lambda: None)
    with updates, pytest.raises(IllegalTransitionError, match="cannot become active"):
        manager.update_checkpoint(name, data={"late": 1})


def test_deleted_meanwhile(manager, store, name):
    deletes = before_commit(store, lambda: manager.delete_checkpoint(name))
    with deletes, pytest.raises(CheckpointNotFoundError):
        manager.update_checkpoint(name, data={"late": 1})
    assert written(store) == ["created", "deleted"]


def test_deleted_twice_at_once(manager, store, name):
    with before_commit(store, lambda: manager.delete_checkpoint(name)):
        assert manager.delete_checkpoint(name) is False
    assert written(store) == ["created", "deleted"]


def test_the_same_explicit_id_at_once(manager, store):
    creates = before_commit(
        store, lambda: manager.create_checkpoint("t", "T", 1, checkpoint_id="mine", data={"w": 1})
    )
    with creates, pytest.raises(Exception, match="already used"):
        manager.create_checkpoint("t", "T", 1, checkpoint_id="mine", data={"w": 2})
    assert manager.get_checkpoint("mine").data == {"w": 1}


def test_a_task_deletion_counts_what_it_deletes(manager, store, name):
    with before_commit(store, lambda: manager.create_checkpoint("t", "T", 2)):
        assert manager.delete_task("t") == 2


def test_overtaken_for_ever(manager, store, name, monkeypatch):
    monkeypatch.setattr(manager_module, "_ATTEMPTS_MAX", 3)
    turns = iter(range(100))
    actions = [lambda: manager.update_checkpoint(name, step_description=str(next(turns)))] * 3
    with before_commit(store, *actions), pytest.raises(BusyError) as caught:
        manager.update_checkpoint(name, data={"b": 1})
    assert "3 attempts to change a checkpoint were overtaken" in caught.value.message
    assert caught.value.retryable
    assert manager.get_checkpoint(name).data == {"a": 1}
