"""Since when something is true, from real stores; against looking at every event."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptlog
from ckptlog.errors import (
    ArgumentError,
    CheckpointCorruptionError,
    CheckpointNotFoundError,
    StoreClosedError,
)
from ckptlog.model.event import Subject
from ckptlog.repository.snapshot import fields_of, snapshot
from ckptlog.repository.trail import trail_of_checkpoint, trail_of_task
from tests.repository.damage import append, changed, created, flipped, record


@pytest.fixture
def manager(tmp_path):
    with ckptlog.CheckpointManager(tmp_path / "s", actor="ada") as manager:
        yield manager


@pytest.fixture
def store(manager):
    return manager.store


@pytest.fixture
def rising(manager):
    """A checkpoint whose n rises by one with each of 40 events, among those of others."""
    name = manager.create_checkpoint("t", "T", 1, data={"n": 0})
    for n in range(1, 40):
        manager.create_checkpoint("noise", "N", 1)
        manager.update_checkpoint(name, data={"n": n})
    return name


# --- trails and snapshots -------------------------------------------------------------------------


def test_the_trail_of_a_checkpoint(manager, store, rising):
    positions = list(trail_of_checkpoint(store, rising))
    assert positions == [0, *range(2, 79, 2)]
    assert [entry.position for entry in manager.history(rising)] == positions
    manager.delete_checkpoint(rising)
    assert list(trail_of_checkpoint(store, rising)) == positions
    assert not trail_of_checkpoint(store, "never there")


def test_the_trail_of_a_checkpoint_that_ended_with_its_task(manager, store, rising):
    other = manager.create_checkpoint("t", "T", 2)
    positions = list(trail_of_checkpoint(store, rising))
    manager.delete_task("t")
    assert list(trail_of_checkpoint(store, rising)) == positions
    assert list(trail_of_checkpoint(store, other)) == [79]
    with ckptlog.open(store.path, read_only=True) as reader:
        assert list(trail_of_checkpoint(reader, rising)) == positions


def test_the_trail_of_a_task(manager, store, rising):
    second = manager.create_checkpoint("t", "T", 2)
    manager.delete_checkpoint(second)
    manager.delete_task("t")
    third = manager.create_checkpoint("t", "T", 1)
    positions = list(trail_of_task(store, "t"))
    last = store.position - 1
    assert positions == [0, *range(2, 79, 2), 79, last]
    assert store.event_at(last).event.subject.checkpoint == third


def test_a_trail_that_leads_to_another_checkpoint_is_told(store):
    append(store, created("a"))
    append(store, created("b"))
    append(store, changed("updated", "active", 0, name="b", origin=1))
    with pytest.raises(CheckpointCorruptionError) as caught:
        trail_of_checkpoint(store, "b")
    assert "event 0" in caught.value.message


def test_a_snapshot_is_what_the_manager_gives(manager, store):
    name = manager.create_checkpoint(
        "t",
        "Title",
        2,
        "description",
        5,
        {"n": 1, "b": b"x"},
        {"m": (1, 2)},
        "w",
        manager.create_checkpoint("t", "T", 1),
        namespace="side",
    )
    manager.fail_checkpoint(name, {"message": "no"})
    entry = store.newest(name)
    assert snapshot(store, entry) == manager.get_checkpoint(name)
    fields = fields_of(snapshot(store, entry))
    assert fields.pop("state") == "failed"
    assert all(fields[key] == getattr(manager.get_checkpoint(name), key) for key in fields)


def test_a_snapshot_without_payloads(store):
    append(store, created("bare"))
    found = snapshot(store, store.event_at(0))
    assert (found.data, found.metadata, found.task_title) == ({}, {}, "")


# --- searching ------------------------------------------------------------------------------------


@pytest.mark.parametrize("linear", [False, True])
def test_the_first_event_after_which_it_is_true(store, rising, linear):
    told = []
    found = store.bisect(
        "data.n >= 13",
        checkpoint=rising,
        linear=linear,
        progress=lambda position, answer: told.append((position, answer)),
    )
    assert (found.position, found.previous, found.events) == (26, 24, 40)
    assert found.entry == store.event_at(26)
    assert dict(told)[26] is True
    assert dict(told)[24] is False
    assert len(told) == found.asked == (14 if linear else 8)
    assert ("Assumed" in found.note) is not linear
    assert found.to_dict() == {
        "position": 26,
        "time": found.entry.event.time,
        "type": "checkpoint.updated",
        "actor": "ada",
        "checkpoint_id": rising,
        "task_id": "t",
        "previous": 24,
        "doubtful": [],
        "damaged": [],
        "collected": [],
        "unseen_paths": [],
        "events": 40,
        "asked": found.asked,
        "search": "linear" if linear else "binary",
        "note": found.note,
    }


def test_a_function_is_asked_with_checkpoints(store, rising):
    asked = []

    def predicate(checkpoint):
        asked.append(checkpoint)
        return checkpoint.data["n"] >= 13 and "yes"

    found = store.bisect(predicate, checkpoint=rising)
    assert found.position == 26
    assert all(type(one) is ckptlog.CheckpointData for one in asked)
    assert {one.position for one in asked} >= {0, 24, 26, 78}


def test_true_from_the_beginning_and_never(store, rising):
    found = store.bisect("data.n >= 0", checkpoint=rising)
    assert (found.position, found.previous, found.asked) == (0, None, 2)
    found = store.bisect("data.n > 100", checkpoint=rising)
    assert (found.position, found.entry, found.previous) == (None, None, 78)
    assert "may have been true before" in found.note
    assert found.to_dict()["position"] is None
    found = store.bisect("data.n > 100", checkpoint=rising, linear=True)
    assert (found.position, found.asked, "true at none" in found.note) == (None, 40, True)


def test_what_is_not_monotone_is_found_by_linear_only(manager, store):
    name = manager.create_checkpoint("t", "T", 1, data={"n": 0})
    for n in (1, 0, 0, 0, 1):
        manager.update_checkpoint(name, data={"n": n})
    assert store.bisect("data.n == 1", checkpoint=name).position == 5
    assert store.bisect("data.n == 1", checkpoint=name, linear=True).position == 1


def test_along_a_task(manager, store):
    for step in range(1, 20):
        name = manager.create_checkpoint("t", "T", step, data={"errors": max(0, step - 12)})
        manager.complete_checkpoint(name)
    manager.delete_task("t")
    found = store.bisect("data.errors", task="t")
    assert store.event_at(found.position).event.step == 13
    assert (found.position, found.previous, found.events) == (24, 23, 38)
    found = store.bisect('state == "completed" and step_number == 5', task="t", linear=True)
    assert (found.position, found.previous) == (9, 8)


def test_a_part_of_the_history(store, rising):
    assert store.bisect("data.n >= 13", checkpoint=rising, end=26).position is None
    found = store.bisect("data.n >= 13", checkpoint=rising, start=25, end=40)
    assert (found.position, found.previous, found.events) == (26, None, 7)
    found = store.bisect("true", checkpoint=rising, start=79)
    assert (found.position, found.events, found.note) == (None, 0, "There are no events.")


def test_unknown_and_damaged_events(manager, store):
    name = manager.create_checkpoint("t", "T", 1, data={"n": 0, "noise": "x" * 50})
    for n in range(1, 9):
        manager.update_checkpoint(name, data={"n": n, "noise": f"{n}" * 50})
    found = store.bisect(
        lambda checkpoint: None if checkpoint.data["n"] in (4, 5) else checkpoint.data["n"] > 5,
        checkpoint=name,
    )
    assert (found.position, found.previous, found.doubtful, found.damaged) == (6, 3, (4, 5), ())
    target = store.event_at(4)
    store.blobs.close()  # nothing is remembered
    with flipped(store.path / target.container, target.offset - 3):
        found = store.bisect("data.n >= 4", checkpoint=name)
        assert (found.position, found.previous) == (5, 3)
        assert found.doubtful == found.damaged == (4,)
    found = store.bisect("data.n >= 4", checkpoint=name)
    assert (found.position, found.previous, found.damaged) == (4, 3, ())


def test_nothing_can_be_judged(store, rising):
    found = store.bisect(lambda checkpoint: None, checkpoint=rising)
    assert (found.position, found.asked, len(found.doubtful)) == (None, 40, 40)
    assert found.note == "No event could be judged."


def test_paths_that_nothing_has_are_told(store, rising):
    found = store.bisect("data.m > 1 or data.n > 100", checkpoint=rising)
    assert found.unseen == ("data.m",)
    assert store.bisect("data.n > 1", checkpoint=rising).unseen == ()


def test_what_a_predicate_raises_comes_out(store, rising):
    with pytest.raises(ZeroDivisionError):
        store.bisect(lambda checkpoint: 1 / 0, checkpoint=rising)


@pytest.mark.parametrize(
    ("predicate", "options", "kind"),
    [
        ("data.n >", {"checkpoint": "x"}, ArgumentError),
        ("true", {}, ArgumentError),
        ("true", {"checkpoint": "x", "task": "t"}, ArgumentError),
        ("true", {"checkpoint": "never there"}, CheckpointNotFoundError),
        ("true", {"task": "never there"}, CheckpointNotFoundError),
        ("true", {"checkpoint": ""}, ArgumentError),
        ("true", {"task": 7}, ArgumentError),
        ("true", {"task": "noise", "start": -1}, ArgumentError),
        ("true", {"task": "noise", "end": "5"}, ArgumentError),
        ("true", {"task": "noise", "begin": 5}, ArgumentError),
        (7, {"task": "noise"}, ArgumentError),
        (None, {"task": "noise"}, ArgumentError),
    ],
    ids=str,
)
def test_what_cannot_be_asked(store, rising, predicate, options, kind):
    with pytest.raises(kind):
        store.bisect(predicate, **options)


def test_a_predicate_that_nobody_awaits(store, rising):
    async def judged(checkpoint):
        return False

    with pytest.raises(ArgumentError, match="coroutine function"):
        store.bisect(judged, checkpoint=rising)


def test_a_closed_store(store, rising):
    store.close()
    with pytest.raises(StoreClosedError):
        store.bisect("true", task="t")


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5)), min_size=1, max_size=25),
    st.integers(0, 6),
)
@settings(max_examples=20)
def test_random_histories(tmp_path_factory, changes, bound):
    """One by one is the truth; halves agree where it is monotone, and find a turn anywhere."""
    with ckptlog.open(tmp_path_factory.mktemp("s") / "s", create=True) as store:
        manager = ckptlog.CheckpointManager(store=store)
        seen: dict[str, list[tuple[int, int]]] = {}
        for name, n in changes:
            if name in seen:
                manager.update_checkpoint(name, data={"n": n})
            else:
                manager.create_checkpoint("t", "T", 1, data={"n": n}, checkpoint_id=name)
            seen.setdefault(name, []).append((store.position - 1, n))
        everything = sorted(pair for pairs in seen.values() for pair in pairs)
        for options, row in (
            ({"task": "t"}, everything),
            *(({"checkpoint": name}, pairs) for name, pairs in seen.items()),
        ):
            answers = [(position, n >= bound) for position, n in row]
            first = next((position for position, is_true in answers if is_true), None)
            linear = store.bisect(f"data.n >= {bound}", linear=True, **options)
            halves = store.bisect(f"data.n >= {bound}", **options)
            assert linear.position == first
            if [is_true for _, is_true in answers] == sorted(is_true for _, is_true in answers):
                assert halves.position == first
            if halves.position is not None:
                index = [position for position, _ in answers].index(halves.position)
                assert answers[index][1]
                assert halves.previous == (answers[index - 1][0] if index else None)
                assert index == 0 or not answers[index - 1][1]


def test_an_event_that_is_about_no_checkpoint_is_on_no_trail(store, rising):
    append(store, record("r", "import.finished", subject=Subject(task="t")))
    assert store.position - 1 not in trail_of_task(store, "t")
