"""Everything that reads: lists, pages, filters, histories, differences, recovery points."""

# mypy: disable-error-code="union-attr"
# What is read of None fails the test by itself.

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta, timezone

import pytest

from ckptlog import (
    ArgumentError,
    CheckpointManager,
    CheckpointNotFoundError,
    CheckpointState,
    Difference,
)
from ckptlog.errors import CheckpointCorruptionError

CREATED, ACTIVE = CheckpointState.CREATED, CheckpointState.ACTIVE
COMPLETED, FAILED = CheckpointState.COMPLETED, CheckpointState.FAILED


def ids(found):
    return [one.checkpoint_id for one in found]


# --- one ------------------------------------------------------------------------------------------


def test_latest_is_the_one_created_last(manager, environment):
    """Not the one with the greatest step, nor the one changed last, nor by any clock."""
    first = manager.create_checkpoint("t", "T", 9)
    environment.advance(days=-1)
    second = manager.create_checkpoint("t", "T", 1)
    manager.update_checkpoint(first, data={"a": 1})
    assert manager.get_latest_checkpoint("t").checkpoint_id == second
    assert ids(manager.get_task_checkpoints("t")) == [first, second]
    manager.delete_checkpoint(second)
    assert manager.get_latest_checkpoint("t").checkpoint_id == first
    manager.delete_checkpoint(first)
    assert manager.get_latest_checkpoint("t") is None
    assert manager.get_latest_checkpoint("never") is None


def test_unknown_ones(manager):
    assert manager.get_checkpoint("nobody") is None
    assert manager.get_children("nobody") == []
    assert manager.get_task_checkpoints("nobody") == []
    assert manager.get_checkpoints_by_worker("nobody") == []
    assert manager.history("nobody") == []
    assert manager.get_checkpoint_at("nobody", 5) is None


# --- lists and filters ----------------------------------------------------------------------------


@pytest.fixture
def many(manager, environment):
    """Twelve checkpoints over all filters, a minute apart."""
    names = []
    parent = manager.create_checkpoint("p", "P", 1)
    environment.advance(seconds=60)
    for number in range(12):
        names.append(
            manager.create_checkpoint(
                f"t{number % 2}",
                "T",
                1,
                worker_id=f"w{number % 3}" if number else None,
                namespace=f"n{number % 4}" if number % 4 else "",
                parent_checkpoint_id=parent if number % 2 else None,
            )
        )
        environment.advance(seconds=60)
    for name in names[::4]:
        manager.complete_checkpoint(name)
    return [parent, *names]


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({}, range(13)),
        ({"task_id": "t1"}, range(2, 13, 2)),
        ({"worker_id": "w2"}, [3, 6, 9, 12]),
        ({"worker_id": ""}, [0, 1]),
        ({"namespace": "n1"}, [2, 6, 10]),
        ({"namespace": ""}, [0, 1, 5, 9]),
        ({"state": COMPLETED}, [1, 5, 9]),
        ({"state": "completed"}, [1, 5, 9]),
        ({"state": FAILED}, []),
        ({"task_id": "t0", "state": CREATED}, [3, 7, 11]),
        ({"task_id": "t0", "worker_id": "w1", "namespace": ""}, [5]),
        ({"worker_id": "w1", "state": COMPLETED}, [5]),
        ({"task_id": "t0", "worker_id": "nobody"}, []),
        ({"parent_checkpoint_id": ""}, [0, 1, 3, 5, 7, 9, 11]),
    ],
)
def test_filters(manager, many, wanted, numbers):
    expected = [many[number] for number in numbers]
    assert ids(manager.iterate(**wanted)) == expected
    assert ids(manager.iterate(**wanted, newest_first=True)) == expected[::-1]
    assert ids(manager.iterate(**wanted, limit=2)) == expected[:2]
    assert ids(manager.iterate(**wanted, limit=2, newest_first=True)) == expected[::-1][:2]


def test_times(manager, many):
    times = [manager.get_checkpoint(name).created_at for name in many]
    assert ids(manager.iterate(since=times[3])) == many[3:]
    assert ids(manager.iterate(until=times[3])) == many[:3]
    assert ids(manager.iterate(since=times[3], until=times[5])) == many[3:5]
    assert ids(manager.iterate(since=times[5], until=times[3])) == []
    elsewhere = times[3].astimezone(timezone(timedelta(hours=-7)))
    assert ids(manager.iterate(since=elsewhere)) == many[3:]
    assert ids(manager.iterate(since=datetime(1, 1, 1, tzinfo=UTC))) == many
    assert ids(manager.iterate(since=datetime(999, 1, 1, tzinfo=UTC))) == many
    assert ids(manager.iterate(since=times[3], worker_id="w0", newest_first=True)) == [
        many[10],
        many[7],
        many[4],
    ]


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("size", [1, 5, 13, 50])
def test_pages(manager, many, size, newest_first):
    expected = many[::-1] if newest_first else many
    found, after = [], None
    while page := ids(manager.iterate(after=after, limit=size, newest_first=newest_first)):
        found += page
        after = page[-1]
    assert found == expected


def test_pages_with_deletes_and_creates_in_between(manager, many):
    """A page begins after a checkpoint, also after one that is gone by then."""
    state = manager.get_checkpoints_by_state(CREATED, limit=3)
    after = state[-1].checkpoint_id
    manager.delete_checkpoint(after)
    manager.delete_checkpoint(many[6])
    late = manager.create_checkpoint("t0", "T", 1)
    rest = manager.get_checkpoints_by_state(CREATED, after=after)
    wanted = [name for number, name in enumerate(many) if number not in {1, 5, 9, 6}]
    assert ids(state + rest) == [*wanted, late]
    manager.delete_task("t1")
    assert ids(manager.iterate(after=many[2], task_id="t0")) == [*many[5::2], late]
    assert ids(manager.get_checkpoints_by_worker("w0", after=many[4], limit=1)) == [many[7]]


def test_pages_after_one_that_went_with_its_task(tmp_path):
    """Also once the process that knew it is gone, and only the view is left."""
    path = tmp_path / "s"
    with CheckpointManager(path) as manager:
        names = [manager.create_checkpoint(f"t{n % 2}", "T", 1) for n in range(6)]
        manager.delete_task("t1")
    with CheckpointManager(path) as manager:
        view = manager.store.view()
        assert ids(manager.iterate(after=names[1])) == names[2::2]
        assert ids(manager.iterate(after=names[1], newest_first=True)) == names[:1]
        assert manager.store.view() is view


def test_what_is_deleted_while_iterating_is_left_out(manager):
    names = [manager.create_checkpoint(f"t{number % 2}", "T", 1) for number in range(6)]
    found = manager.iterate()
    assert next(found).checkpoint_id == names[0]
    manager.delete_checkpoint(names[2])
    manager.delete_task("t1")
    assert ids(found) == [names[4]]


def test_more_than_a_page(manager):
    """No silent cap: the view is read in pages of 200."""
    with manager.batch() as batch:
        names = [batch.create_checkpoint("t", "T", 1) for _ in range(450)]
    assert ids(manager.get_task_checkpoints("t")) == names
    assert ids(manager.iterate(limit=201)) == names[:201]
    assert ids(manager.iterate(limit=401, newest_first=True)) == names[:48:-1]
    assert ids(manager.iterate(limit=0)) == []


def test_wrong_filters_are_told_at_once(manager):
    """By the call itself, not when the first checkpoint is asked for."""
    wrong: list[tuple[dict, str]] = [
        ({"task_id": ""}, "task_id is empty"),
        ({"task_id": 5}, "task_id is of type int"),
        ({"state": "over"}, "There is no state 'over'. The states are: created, active,"),
        ({"worker_id": ["w"]}, "worker_id is of type list"),
        ({"namespace": 0}, "namespace is of type int"),
        ({"parent_checkpoint_id": b"p"}, "parent_checkpoint_id is of type bytes"),
        ({"since": "2024-01-01"}, "since is '2024-01-01', no datetime"),
        ({"until": datetime(2024, 1, 1)}, "until has no time zone"),  # noqa: DTZ001
        ({"since": datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))}, "cannot express"),
        ({"limit": -1}, "limit is -1; a whole number from 0 on is needed"),
        ({"limit": "5"}, "limit is '5'"),
        ({"limit": True}, "limit is True"),
        ({"after": 7}, "after is of type int"),
    ]
    for wanted, message in wrong:
        with pytest.raises(ArgumentError, match=message):
            manager.iterate(**wanted)
    with pytest.raises(CheckpointNotFoundError, match="no checkpoint 'nobody'"):
        manager.iterate(after="nobody")


@pytest.mark.parametrize(
    "method",
    [
        "get_checkpoint",
        "get_task_checkpoints",
        "get_latest_checkpoint",
        "get_checkpoints_by_worker",
        "get_checkpoints_by_state",
        "get_children",
        "history",
        "can_recover_task",
        "get_recovery_point",
        "explain_recovery_point",
        "restore_checkpoint",
        "delete_checkpoint",
        "delete_task",
    ],
)
@pytest.mark.parametrize("value", [None, 5, b"x", ["x"], ""], ids=repr)
def test_wrong_types_never_mean_everything(manager, method, value):
    manager.create_checkpoint("t", "T", 1)
    with pytest.raises(ArgumentError):
        getattr(manager, method)(value)


# --- history --------------------------------------------------------------------------------------


@pytest.fixture
def lived(manager, environment):
    """One life through all states; returns its id."""
    name = manager.create_checkpoint("t", "T", 1, data={"n": 0})
    manager.create_checkpoint("other", "O", 1)
    for number in range(1, 3):
        environment.advance(seconds=10)
        manager.update_checkpoint(name, number, data={"n": number})
    manager.fail_checkpoint(name, {"why": "x"}, actor="watchdog")
    manager.restore_checkpoint(name)
    manager.complete_checkpoint(name, {"end": True})
    return name


def test_history(manager, lived):
    found = manager.history(lived)
    assert [(entry.position, entry.state) for entry in found] == [
        (0, "created"),
        (2, "active"),
        (3, "active"),
        (4, "failed"),
        (5, "restored"),
        (6, "completed"),
    ]
    assert [entry.type.removeprefix("checkpoint.") for entry in found] == [
        "created",
        "updated",
        "updated",
        "failed",
        "restored",
        "completed",
    ]
    assert [entry.checkpoint.data.get("n") for entry in found] == [0, 1, 2, 2, 2, 2]
    assert [entry.checkpoint.position for entry in found] == [0, 2, 3, 4, 5, 6]
    assert [entry.step_number for entry in found] == [1, 1, 2, 2, 2, 2]
    assert found[3].checkpoint.error_info == {"why": "x"}
    assert [entry.actor for entry in found] == [*["tester"] * 3, "watchdog", *["tester"] * 2]
    assert all(entry.time.tzinfo is UTC for entry in found)
    assert found[1].time - found[0].time >= timedelta(seconds=10)
    assert {entry.checkpoint.created_at for entry in found} == {found[0].time}
    assert found[0].data_bytes == len('{"n":0}')
    assert found[0].new_bytes > 0
    assert found[4].new_bytes == 0


def test_the_state_as_of_a_position(manager, lived):
    facts = []
    for position in range(-1, 9):
        found = manager.get_checkpoint_at(lived, position)
        facts.append(found and (found.position, found.state.value, found.data.get("n")))
    assert facts == [
        None,
        (0, "created", 0),
        (0, "created", 0),
        (2, "active", 1),
        (3, "active", 2),
        (4, "failed", 2),
        (5, "restored", 2),
        (6, "completed", 2),
        (6, "completed", 2),
        (6, "completed", 2),
    ]
    for wrong in ("1", None, 1.0, True):
        with pytest.raises(ArgumentError, match="position is"):
            manager.get_checkpoint_at(lived, wrong)


@pytest.mark.parametrize("reopens", [False, True])
@pytest.mark.parametrize("with_task", [False, True])
def test_the_past_of_a_deleted_one(tmp_path, with_task, reopens):
    path = tmp_path / "s"
    with CheckpointManager(path) as manager:
        name = manager.create_checkpoint("t", "T", 1, data={"n": 0})
        manager.update_checkpoint(name, data={"n": 1})
        manager.create_checkpoint("other", "O", 1)
        if with_task:
            manager.delete_task("t")
            manager.create_checkpoint("t", "T", 1)
            manager.delete_task("t")
        else:
            manager.delete_checkpoint(name)
        if not reopens:
            check_the_past(manager, name, with_task=with_task)
    with CheckpointManager(path) as manager:
        check_the_past(manager, name, with_task=with_task)


def check_the_past(manager, name, *, with_task):
    with pytest.MonkeyPatch.context() as patch:
        # Its events are found by their links, however much lies between them.
        patch.setattr(manager.store, "events", lambda *_: pytest.fail("the log is scanned"))
        check_the_events(manager, name, with_task=with_task)


def check_the_events(manager, name, *, with_task):
    found = manager.history(name)
    last = "task.deleted" if with_task else "checkpoint.deleted"
    assert [entry.type for entry in found] == ["checkpoint.created", "checkpoint.updated", last]
    assert [entry.position for entry in found] == [0, 1, 3]
    assert [entry.checkpoint and entry.checkpoint.data for entry in found] == [
        {"n": 0},
        {"n": 1},
        None,
    ]
    assert manager.get_checkpoint_at(name, 2).data == {"n": 1}
    assert manager.get_checkpoint_at(name, 0).data == {"n": 0}
    for position in (3, 99):
        assert manager.get_checkpoint_at(name, position) is None
    assert manager.get_checkpoint(name) is None


# --- differences ----------------------------------------------------------------------------------


def test_diff(manager):
    before = manager.create_checkpoint(
        "t", "T", 1, "d", data={"a": 1, "b": {"x": [1, 2]}, "c": 1}, metadata={"m": 1}
    )
    after = manager.create_checkpoint(
        "u", "U", 2, "d", 5, data={"a": 1.0, "b": {"x": [1]}, "d e": 2}, metadata={"m": 1}
    )
    manager.fail_checkpoint(after)
    assert manager.diff(before, after) == [
        Difference("state", "changed", "created", "failed"),
        Difference("step_number", "changed", 1, 2),
        Difference("total_steps", "changed", None, 5),
        Difference("task_title", "changed", "T", "U"),
        Difference("data.a", "changed", 1, 1.0),
        Difference("data.b.x[1]", "removed", 2, None),
        Difference("data.c", "removed", 1, None),
        Difference('data["d e"]', "added", None, 2),
    ]
    assert manager.diff(before, before) == []
    manager.delete_checkpoint(after)
    for pair in ((before, after), (after, before), (before, "nobody")):
        with pytest.raises(CheckpointNotFoundError):
            manager.diff(*pair)


# --- recovery -------------------------------------------------------------------------------------


def test_what_a_task_can_resume_from(manager):
    assert not manager.can_recover_task("t")
    assert manager.get_recovery_point("t") is None
    first = manager.create_checkpoint("t", "T", 1, total_steps=2, data={"n": 1})
    assert manager.can_recover_task("t")
    manager.complete_checkpoint(first)
    assert manager.can_recover_task("t")  # step 1 of 2
    second = manager.create_checkpoint("t", "T", 2, total_steps=2, data={"n": 2})
    assert manager.get_recovery_point("t").checkpoint_id == second
    manager.fail_checkpoint(second)
    assert manager.get_recovery_point("t").checkpoint_id == first
    manager.delete_checkpoint(first)
    assert manager.get_recovery_point("t").checkpoint_id == second
    assert manager.can_recover_task("t")
    manager.restore_checkpoint(second)
    manager.complete_checkpoint(second)
    assert not manager.can_recover_task("t")
    manager.delete_task("t")
    assert not manager.can_recover_task("t")


def test_without_a_known_total_a_completed_latest_ends_the_task(manager):
    name = manager.create_checkpoint("t", "T", 5)
    manager.complete_checkpoint(name)
    assert not manager.can_recover_task("t")
    manager.create_checkpoint("t", "T", 6)
    assert manager.can_recover_task("t")


def test_a_damaged_one_is_passed_over(tmp_path):
    path = tmp_path / "s"
    with CheckpointManager(path) as manager:
        first = manager.create_checkpoint("t", "T", 1, data={"n": "first"})
        second = manager.create_checkpoint("t", "T", 2, data={"n": "second-findable"})
        failed = manager.create_checkpoint("t", "T", 3)
        manager.fail_checkpoint(failed)
    (segment,) = (path / "log").glob("*.seg")
    content = segment.read_bytes()
    segment.write_bytes(content.replace(b"second-findable", b"second-fXndable"))
    with CheckpointManager(path) as manager:
        assert manager.can_recover_task("t")
        assert manager.get_recovery_point("t").checkpoint_id == first
        told = manager.explain_recovery_point("t")
        assert (told["task_id"], told["chosen"], told["can_recover"]) == ("t", first, True)
        assert told["reason"] == "the latest created checkpoint whose data verifies"
        assert [(one["checkpoint_id"], one["is_verified"]) for one in told["candidates"]] == [
            (failed, True),
            (second, False),
            (first, True),
        ]
        assert "do not verify" in told["candidates"][1]["reason"]
        with pytest.raises(CheckpointCorruptionError):
            manager.get_checkpoint(second)
        assert manager.get_checkpoint(failed) is not None
        name = manager.create_checkpoint("t", "T", 4, data={"n": "second-findable"})
        assert manager.get_checkpoint(name).data == {"n": "second-findable"}


async def _never_awaited(name, error):
    raise AssertionError


def test_explaining_nothing(manager):
    assert manager.explain_recovery_point("t") == {
        "task_id": "t",
        "chosen": None,
        "reason": "the task has no checkpoint",
        "can_recover": False,
        "candidates": [],
    }


def test_an_iteration_goes_on_behind_what_is_damaged_where_that_is_asked_for(tmp_path):
    with CheckpointManager(tmp_path / "s") as manager:
        made = [
            manager.create_checkpoint("t", "t", 1, data={"big": os.urandom(1_500_000)})
            for _ in range(3)
        ]
    packs = sorted((tmp_path / "s" / "packs").iterdir(), key=lambda one: one.stat().st_mtime_ns)
    assert len(packs) == 3
    content = bytearray(packs[1].read_bytes())
    content[len(content) // 2] ^= 0xFF
    packs[1].write_bytes(content)
    with CheckpointManager(tmp_path / "s") as manager:
        with pytest.raises(CheckpointCorruptionError):
            list(manager.iterate())
        told = []
        found = manager.iterate(on_damage=lambda name, error: told.append((name, error.code)))
        assert ids(found) == [made[0], made[2]]
        assert [name for name, _ in told] == [made[1]]
        packs[1].unlink()
    with CheckpointManager(tmp_path / "s") as manager:
        found = manager.iterate(on_damage=lambda name, error: told.append((name, error.code)))
        assert ids(found) == [made[0], made[2]]
        assert len(told) == 2
        for wrong in (3, _never_awaited):
            with pytest.raises(ArgumentError, match="on_damage"):
                manager.iterate(on_damage=wrong)
