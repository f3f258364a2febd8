"""Clean-ups by rules on threads: what a kept checkpoint is made of stays, as a prune keeps it."""

from __future__ import annotations

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from ckptlog import CheckpointManager
from tests.integrations.langgraph.test_delta import graph_of, history
from tests.integrations.langgraph.thread import config, put


@pytest.fixture
def manager(saver):
    return CheckpointManager(store=saver.store)


def deltas(saver, length, snapshots):
    """A thread whose metadata says that `log` is made of ancestors."""
    where = config()
    for number in range(length):
        values = {"log": _DeltaSnapshot([number])} if number in snapshots else {}
        where = put(
            saver,
            where,
            values,
            identifier=f"{number:03}",
            counters_since_delta_snapshot={"log": [1, 1]},
        )
        saver.put_writes(where, [("log", f"w{number}")], f"task{number}")


def left(saver):
    return sorted(one.config["configurable"]["checkpoint_id"] for one in saver.list(config()))


@pytest.mark.parametrize(
    ("snapshots", "last", "stay"),
    [
        ({2, 6}, 1, ["006", "007", "008"]),
        ({2, 6}, 3, ["006", "007", "008"]),
        ({2, 6}, 4, ["002", "003", "004", "005", "006", "007", "008"]),
        ({2, 6, 8}, 2, ["006", "007", "008"]),
        ({8}, 1, ["008"]),
        (set(), 1, [f"{number:03}" for number in range(9)]),
    ],
)
def test_ancestors_up_to_the_value_stay(saver, manager, snapshots, last, stay):
    deltas(saver, 9, snapshots)
    before = history(saver, config(), "log")
    assert manager.cleanup_old_checkpoints(retention={"keep_last": last}) == 9 - len(stay)
    assert left(saver) == stay
    if last == 1 and 8 not in snapshots:
        assert history(saver, config(), "log") == before


def test_the_same_as_a_prune(saver, manager, tmp_path):
    from ckptlog.integrations.langgraph import CkptlogSaver

    with CkptlogSaver.open(tmp_path / "twin") as twin:
        for one in (saver, twin):
            deltas(one, 12, {3, 7})
        twin.prune(["t"])
        manager.cleanup_old_checkpoints(retention={"keep_last": 0})
        assert left(saver) == left(twin) == ["007", "008", "009", "010", "011"]


@pytest.mark.parametrize("frequency", [1, 3, 100])
@pytest.mark.parametrize("durability", ["sync", "exit"])
def test_a_graph_goes_on_as_if_nothing_had_gone(saver, manager, frequency, durability):
    graph, where = graph_of(saver, frequency), config("delta")
    twin = graph_of(InMemorySaver(), frequency)
    for turn in range(9):
        state = graph.invoke({"log": [f"user {turn}"]}, where, durability=durability)
        assert state == twin.invoke({"log": [f"user {turn}"]}, where, durability=durability)
        if turn % 3 == 2:
            manager.cleanup_old_checkpoints(retention={"keep_last": 2, "keep_every": 7})
            assert graph.get_state(where).values == twin.get_state(where).values
    # Each that is kept by a rule can be read as it was.
    kept = manager.plan_cleanup(retention={"keep_last": 2, "keep_every": 7})
    assert kept.checkpoints == ()
    assert manager.store.verify().ok


def test_a_fork_of_one_that_was_to_go_keeps_it(saver, manager):
    deltas(saver, 6, {0, 4})
    fork = config(checkpoint="002")
    submit = saver.store.submit_with_reserve
    done = []

    def hurried(intent):
        if getattr(intent.steps[0].command, "cause", "") and not done:
            done.append(
                put(
                    saver,
                    fork,
                    {},
                    identifier="0025",
                    counters_since_delta_snapshot={"log": [1, 1]},
                )
            )
        return submit(intent)

    saver.store.submit_with_reserve = hurried
    policy = {"keep_last": 1, "keep_states": ["created"]}
    assert len(manager.plan_cleanup(retention=policy).checkpoints) == 4
    assert manager.cleanup_old_checkpoints(retention=policy) == 1
    assert left(saver) == ["000", "001", "002", "0025", "004", "005"]


def test_pending_writes_alone_stay(saver, manager):
    saver.put_writes(config("early", checkpoint="1"), [("x", 1)], "t")
    plan = manager.plan_cleanup(retention={"keep_last": 0, "keep_recovery_points": False})
    assert (plan.checkpoints, plan.kept) == ((), {"not whole yet": 1})


def test_the_newest_of_each_namespace_stays(saver, manager):
    for space in ("", "child"):
        where = config("t", space)
        for number in range(3):
            where = put(saver, where, {"x": number}, identifier=f"{number:03}")
    assert manager.cleanup_old_checkpoints(retention={"keep_last": 0}) == 4
    assert {one.config["configurable"]["checkpoint_ns"] for one in saver.list(None)} == {
        "",
        "child",
    }


def test_a_pin_on_a_thread_is_seen_by_langgraph(saver, manager):
    where = put(saver, config(), {"x": 1}, identifier="1")
    put(saver, where, {"x": 2}, identifier="2")
    (name,) = [one.id for one in rows(manager) if one.id.startswith("1~")]
    assert manager.pin_checkpoint(name)
    assert saver.get_tuple(where).metadata["pinned"] is True
    assert manager.cleanup_old_checkpoints(retention={"keep_last": 1}) == 0
    assert saver.get_tuple(where).checkpoint["channel_values"] == {"x": 1}


def rows(manager):
    from ckptlog.views.query import Filter

    return manager.store.select(Filter(), after=None, limit=100)
