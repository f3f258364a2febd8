"""A batch: one commit, all or nothing, seen by itself alone until then."""

# mypy: disable-error-code="union-attr"
# What is read of None fails the test by itself.

from __future__ import annotations

import pytest

from ckptlog import (
    ArgumentError,
    CheckpointConfiguration,
    CheckpointManager,
    CheckpointNotFoundError,
    CheckpointState,
    DuplicateIdError,
    IllegalTransitionError,
    QuotaError,
    UnstorableError,
)
from ckptlog.manager import batch as batch_module
from tests.manager.interleave import before_commit, written

ACTIVE, COMPLETED = CheckpointState.ACTIVE, CheckpointState.COMPLETED
# Long enough to be cut into a tree of chunks, and different at each place.
LONG = [f"message {number}: {number * 7919 % 10007}" * 3 for number in range(1000)]


def test_everything_in_one_commit(manager, store):
    old = manager.create_checkpoint("t", "T", 1, "first", 9, {"a": 1}, {"m": 1})
    gone = manager.create_checkpoint("t", "T", 1)
    with manager.batch(actor="me") as batch:
        new = batch.create_checkpoint(
            "t",
            "T",
            2,
            "second",
            9,
            {"b": 1},
            {"m": 2},
            "w",
            old,
            namespace="n",
        )
        named = batch.create_checkpoint("t", "T", 3, checkpoint_id="named", activate=True)
        batch.update_checkpoint(old, 4, "fourth", {"c": 1}, {"k": 1}, ACTIVE)
        batch.update_checkpoint(named, data={"z": 1}, replace_data=True)
        batch.complete_checkpoint(old, {"d": 1})
        batch.fail_checkpoint(new, {"why": "x"})
        batch.delete_checkpoint(gone)
        assert store.position == 2
        assert manager.get_checkpoint(new) is None
    commits = [len(commit.entries) for commit in store.log.reader.commits()]
    assert commits == [1, 1, 8]
    assert {entry.event.actor for entry in store.events(2)} == {"me"}
    found = manager.get_checkpoint(old)
    assert (found.data, found.metadata) == ({"a": 1, "c": 1, "d": 1}, {"m": 1, "k": 1})
    assert (found.step_number, found.step_description) == (4, "fourth")
    assert found.state is COMPLETED
    found = manager.get_checkpoint(new)
    assert (found.data, found.namespace, found.worker_id) == ({"b": 1}, "n", "w")
    assert (found.parent_checkpoint_id, found.error_info) == (old, {"why": "x"})
    found = manager.get_checkpoint(named)
    assert (found.checkpoint_id, found.data, found.state) == ("named", {"z": 1}, ACTIVE)
    assert manager.get_checkpoint(gone) is None
    assert manager.validate_checkpoint_integrity() == []


def test_an_empty_batch_writes_nothing(manager, store):
    with manager.batch() as batch:
        assert batch.is_empty
    assert store.position == 0


def test_a_block_that_raises_writes_nothing(manager, store):
    def run():
        with manager.batch() as batch:
            batch.create_checkpoint("t", "T", 1)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run()
    assert store.position == 0


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda b, n: b.update_checkpoint("nobody", data={}), CheckpointNotFoundError),
        (lambda b, n: b.update_checkpoint(n, data={"late": 1}), IllegalTransitionError),
        (lambda b, n: b.create_checkpoint("t", "T", 1, checkpoint_id=n), DuplicateIdError),
        (lambda b, n: b.delete_checkpoint("nobody"), CheckpointNotFoundError),
        (lambda b, n: b.create_checkpoint("t", "T", 0), ArgumentError),
    ],
)
def test_one_refusal_refuses_all(manager, store, spoil, error):
    name = manager.create_checkpoint("t", "T", 1)
    manager.complete_checkpoint(name)

    def run():
        with manager.batch() as batch:
            batch.create_checkpoint("t", "T", 1)
            spoil(batch, name)
            batch.create_checkpoint("t", "T", 2)

    with pytest.raises(error):
        run()
    assert store.position == 2
    assert len(manager.get_task_checkpoints("t")) == 1


def test_later_operations_see_earlier_ones(manager):
    with manager.batch() as batch:
        name = batch.create_checkpoint("t", "T", 1, "d", data={"a": 1}, metadata={"m": 1})
        batch.update_checkpoint(name, data={"b": 1})
        batch.update_checkpoint(name, metadata={"n": 1})
        batch.update_checkpoint(name, step_description="e")
        batch.update_checkpoint(name, 5)
        batch.complete_checkpoint(name, {"c": 1})
    found = manager.get_checkpoint(name)
    assert found.data == {"a": 1, "b": 1, "c": 1}
    assert found.metadata == {"m": 1, "n": 1}
    assert (found.step_description, found.task_title, found.step_number) == ("e", "T", 5)
    assert [entry.state for entry in manager.history(name)] == ["created"] + ["active"] * 4 + [
        "completed"
    ]


def test_a_change_of_nothing_but_the_state_hides_no_data_from_later_ones(manager):
    name = manager.create_checkpoint("t", "T", 1, data={"a": 1}, metadata={"m": 1})
    with manager.batch() as batch:
        batch.update_checkpoint(name, replace_data=True)
        batch.update_checkpoint(name, data={"b": 1}, metadata={"n": 1})
    found = manager.get_checkpoint(name)
    assert (found.data, found.metadata) == ({"a": 1, "b": 1}, {"m": 1, "n": 1})


def test_the_batch_has_deleted_it_before(manager, store):
    name = manager.create_checkpoint("t", "T", 1)

    def run():
        with manager.batch() as batch:
            batch.delete_checkpoint(name)
            batch.update_checkpoint(name, data={})

    with pytest.raises(CheckpointNotFoundError, match="batch has deleted"):
        run()
    assert store.position == 1


def test_values_are_taken_as_they_are_at_the_call(manager):
    """One object, changed from step to step, as a loop does."""
    data: dict = {"n": 0, "list": []}
    info: dict = {"n": 0}
    with manager.batch() as batch:
        names = []
        for number in range(3):
            data["n"] = info["n"] = number
            data["list"].append(number)
            names.append(batch.create_checkpoint("t", "T", 1, data=data, metadata=info))
            batch.update_checkpoint(names[-1], metadata={"info": info})
            batch.fail_checkpoint(names[-1], info)
        data.clear()
        info.clear()
    for number, name in enumerate(names):
        found = manager.get_checkpoint(name)
        assert found.data == {"n": number, "list": list(range(number + 1))}
        assert found.metadata == {"n": number, "info": {"n": number}, "error_info": {"n": number}}


def test_what_cannot_be_stored_is_told_at_the_call(manager):
    with manager.batch() as batch:
        with pytest.raises(UnstorableError, match=r"data\.a\[0\] is of type"):
            batch.create_checkpoint("t", "T", 1, data={"a": [object()]})
        with pytest.raises(UnstorableError, match=r"error_info\.a is of type"):
            batch.fail_checkpoint("x", {"a": object()})
    assert batch.is_empty


def test_ids_are_given_at_once_and_are_all_different(manager, environment):
    environment.now_us = lambda: 1_700_000_000_000_000
    first = manager.create_checkpoint("t", "T", 1)
    with manager.batch() as batch:
        names = [batch.create_checkpoint("t", "T", 1) for _ in range(5)]
    assert [first, *names] == [f"cp_t_1_{1_700_000_000_000_000 + bump}" for bump in range(6)]
    assert [one.checkpoint_id for one in manager.get_task_checkpoints("t")] == [first, *names]


def test_an_empty_explicit_id_is_refused(manager):
    def run():
        with manager.batch() as batch:
            batch.create_checkpoint("t", "T", 1, checkpoint_id="")

    with pytest.raises(ArgumentError, match="checkpoint_id is empty"):
        run()


def test_a_batch_is_committed_once(manager, store):
    with manager.batch() as batch:
        name = batch.create_checkpoint("t", "T", 1)
    with pytest.raises(ArgumentError, match="batch was committed; nothing more"):
        batch.update_checkpoint(name, data={"late": 1})
    with pytest.raises(ArgumentError, match="batch was committed"):
        manager.commit(batch)
    assert store.position == 1


def test_a_limit_of_operations(manager, monkeypatch):
    monkeypatch.setattr(batch_module, "OPERATIONS_MAX", 2)
    with manager.batch() as batch:
        batch.create_checkpoint("t", "T", 1)
        batch.create_checkpoint("t", "T", 1)
        with pytest.raises(ArgumentError, match="at most 2 operations"):
            batch.create_checkpoint("t", "T", 1)
    assert len(manager.get_task_checkpoints("t")) == 2


@pytest.mark.parametrize("actor", ["", "a\nb", 5, "x" * 201])
def test_the_actor_is_checked(manager, store, actor):
    with pytest.raises(ArgumentError, match="actor"):
        manager.batch(actor=actor).__enter__()
    assert store.position == 0


# --- others come first ----------------------------------------------------------------------------


def test_overtaken_between_two_operations_on_one_checkpoint(manager, store):
    """The first one keeps the payloads, the second merges into them: still nothing is lost."""
    name = manager.create_checkpoint("t", "T", 1, data={"a": 1})

    def run():
        with manager.batch() as batch:
            batch.update_checkpoint(name, state=ACTIVE)
            batch.update_checkpoint(name, data={"mine": 1})

    with before_commit(store, lambda: manager.update_checkpoint(name, data={"b": 1})):
        run()
    assert manager.get_checkpoint(name).data == {"a": 1, "b": 1, "mine": 1}


def test_overtaken_by_an_end(manager, store):
    name = manager.create_checkpoint("t", "T", 1)

    def run():
        with manager.batch() as batch:
            batch.create_checkpoint("t", "T", 2)
            batch.update_checkpoint(name, data={"late": 1})

    completes = before_commit(store, lambda: manager.complete_checkpoint(name))
    with completes, pytest.raises(IllegalTransitionError):
        run()
    assert written(store) == ["created", "completed"]


# --- chunks shared inside of a batch --------------------------------------------------------------


def test_a_create_after_the_delete_of_what_it_would_share_with(manager):
    old = manager.create_checkpoint("t", "T", 1, data={"long": LONG})
    with manager.batch() as batch:
        batch.delete_checkpoint(old)
        new = batch.create_checkpoint("t", "T", 1, data={"long": LONG})
    assert manager.get_checkpoint(new).data == {"long": LONG}
    assert manager.validate_checkpoint_integrity() == []


def test_a_create_after_a_change_of_what_it_would_share_with(manager):
    old = manager.create_checkpoint("t", "T", 1, data={"long": LONG})
    with manager.batch() as batch:
        batch.complete_checkpoint(old, {"final": 1})
        new = batch.create_checkpoint("t", "T", 2, data={"long": LONG})
    assert manager.get_checkpoint(new).data == {"long": LONG}
    assert manager.get_checkpoint(old).data == {"long": LONG, "final": 1}


def test_a_growing_state_is_stored_once_in_a_batch(manager, store):
    with manager.batch() as batch:
        names = [
            batch.create_checkpoint("t", "T", 1, data={"long": LONG[: 500 + 10 * number]})
            for number in range(20)
        ]
    sizes = [entry.event.new for entry in store.events()]
    # Each is a difference from the one before; after some of them one is whole.
    assert sum(sizes[1:]) < 19 * sizes[0] / 8
    for number, name in enumerate(names):
        assert manager.get_checkpoint(name).data == {"long": LONG[: 500 + 10 * number]}
    assert manager.validate_checkpoint_integrity() == []


# --- limits ---------------------------------------------------------------------------------------


def test_a_full_store_still_ends_what_is_open(tmp_path):
    config = CheckpointConfiguration(max_storage_size_gb=0.001, cleanup_interval_hours=0)
    with CheckpointManager(tmp_path / "s") as manager:
        names = [manager.create_checkpoint("t", "T", 1) for _ in range(3)]
    (tmp_path / "s" / "log" / "torn-filler").write_bytes(bytes(2_000_000))
    with CheckpointManager(tmp_path / "s", config=config) as manager:
        with manager.batch() as batch:
            batch.complete_checkpoint(names[0])
            batch.fail_checkpoint(names[1])
            batch.delete_checkpoint(names[2])

        def create():
            with manager.batch() as batch:
                batch.create_checkpoint("t", "T", 1)

        with pytest.raises(QuotaError, match=r"maxSizeBytes.*still work"):
            create()
        with pytest.raises(QuotaError):
            manager.create_checkpoint("t", "T", 1)
        assert manager.get_checkpoint(names[0]).state is COMPLETED
