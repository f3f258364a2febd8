"""The history of a DeltaChannel: from plain puts, and by graphs that have one."""

from typing import Annotated, Any

import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from tests.integrations.langgraph.thread import config, put


def history(saver, where, *channels):
    found = saver.get_delta_channel_history(config=where, channels=list(channels))
    # What every saver gets without a method of its own.
    assert found == BaseCheckpointSaver.get_delta_channel_history(
        saver, config=where, channels=list(channels)
    )
    return found


def chain(saver, length, *, snapshots=(), thread="t", channel="log"):
    """Checkpoints 0 to length - 1, each with a write that its child is made of."""
    where, configs = config(thread), []
    for number in range(length):
        values = {channel: _DeltaSnapshot([number])} if number in snapshots else {}
        where = put(saver, where, values, identifier=f"{number:03}")
        configs.append(where)
        saver.put_writes(where, [(channel, f"w{number}"), ("other", number)], f"task{number}")
    return configs


def test_no_channels_no_history(saver):
    assert saver.get_delta_channel_history(config=config(), channels=[]) == {}


def test_a_thread_that_is_not_there_has_empty_histories(saver):
    assert history(saver, config(), "log", "x") == {"log": {"writes": []}, "x": {"writes": []}}


def test_without_a_value_the_walk_goes_to_the_root(saver):
    *_, last = chain(saver, 4)
    writes = [(f"task{number}", "log", f"w{number}") for number in range(3)]
    assert history(saver, last, "log") == {"log": {"writes": writes}}
    assert history(saver, config(), "log") == {"log": {"writes": writes}}


def test_the_nearest_value_ends_the_walk_and_its_own_writes_count(saver):
    configs = chain(saver, 6, snapshots={1, 3})
    writes = [(f"task{number}", "log", f"w{number}") for number in (3, 4)]
    seed = _DeltaSnapshot([3])
    assert history(saver, configs[5], "log") == {"log": {"writes": writes, "seed": seed}}
    # The value of the target itself is not asked for.
    assert history(saver, configs[3], "log")["log"]["seed"] == _DeltaSnapshot([1])


def test_each_channel_ends_by_itself(saver):
    first = put(saver, config(), {"a": 1, "b": None}, identifier="1")
    saver.put_writes(first, [("a", "a1"), ("b", "b1")], "t1")
    second = put(saver, first, {"b": 2}, identifier="2")
    saver.put_writes(second, [("a", "a2"), ("b", "b2")], "t2")
    third = put(saver, second, identifier="3")
    found = history(saver, third, "a", "b", "c")
    assert found["a"] == {"writes": [("t1", "a", "a1"), ("t2", "a", "a2")], "seed": 1}
    assert found["b"] == {"writes": [("t2", "b", "b2")], "seed": 2}
    assert found["c"] == {"writes": []}
    assert history(saver, second, "b")["b"]["seed"] is None


def test_only_the_path_to_the_target_counts(saver):
    root = put(saver, config(), {}, identifier="1")
    saver.put_writes(root, [("log", "root")], "t")
    left = put(saver, root, {}, identifier="2")
    saver.put_writes(left, [("log", "left")], "t")
    right = put(saver, root, {}, identifier="3")
    saver.put_writes(right, [("log", "right")], "t")
    tip = put(saver, right, {}, identifier="4")
    assert [write[2] for write in history(saver, tip, "log")["log"]["writes"]] == ["root", "right"]
    assert [write[2] for write in history(saver, left, "log")["log"]["writes"]] == ["root"]


def test_the_writes_of_a_checkpoint_come_in_the_order_of_application(saver):
    first = put(saver, config(), {}, identifier="1")
    saver.put_writes(first, [("log", "c")], "task0", "path2")
    saver.put_writes(first, [("log", "a"), ("x", 1), ("log", "b")], "task9", "path1")
    saver.put_writes(first, [("log", "first")], "task5")
    second = put(saver, first, {}, identifier="2")
    assert [write[2] for write in history(saver, second, "log")["log"]["writes"]] == [
        "first",
        "a",
        "b",
        "c",
    ]


def test_namespaces_have_histories_of_their_own(saver):
    root = put(saver, config("t", ""), {"log": 1}, identifier="1")
    child = put(saver, config("t", "sub"), {"log": 2}, identifier="1")
    assert history(saver, put(saver, root, {}, identifier="2"), "log")["log"]["seed"] == 1
    assert history(saver, put(saver, child, {}, identifier="2"), "log")["log"]["seed"] == 2


def test_a_ring_of_parents_ends(saver):
    first = put(saver, config(), {}, identifier="1")
    second = put(saver, first, {}, identifier="2")
    put(saver, second, {}, identifier="1")
    found = saver.get_delta_channel_history(config=second, channels=["log"])
    assert found == {"log": {"writes": []}}


def test_a_channel_whose_name_looks_like_a_tag(saver):
    first = put(saver, config(), {"$bytes": [1]}, identifier="1")
    assert history(saver, put(saver, first, {}, identifier="2"), "$bytes")["$bytes"]["seed"] == [1]


def test_a_copy_has_the_whole_history(saver):
    *_, last = chain(saver, 5, snapshots={1})
    saver.copy_thread("t", "copy")
    copied = history(saver, config("copy"), "log")
    assert copied == history(saver, last, "log")


# --- by graphs ----------------------------------------------------------------------------------


def extend(state, values):
    for value in values:
        state = [*state, *value]
    return state


def graph_of(saver, frequency=3):
    class Of(TypedDict):
        log: Annotated[list, DeltaChannel(extend, list, snapshot_frequency=frequency)]
        turns: int

    def speak(state: Any) -> Any:
        turns = state.get("turns") or 0
        return {"log": [f"turn {turns}"], "turns": turns + 1}

    builder = StateGraph(Of)
    builder.add_node("speak", speak)
    builder.add_edge(START, "speak")
    builder.add_edge("speak", END)
    return builder.compile(checkpointer=saver)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("frequency", [1, 3, 100])
def test_a_graph_finds_its_channel_also_after_a_prune(saver, durability, frequency):
    graph, where = graph_of(saver, frequency), config("delta")
    twin = graph_of(InMemorySaver(), frequency)
    for turn in range(8):
        state = graph.invoke({"log": [f"user {turn}"]}, where, durability=durability)
        assert state == twin.invoke({"log": [f"user {turn}"]}, where, durability=durability)
        if turn == 4:
            before = len(list(saver.list(where)))
            saver.prune(["delta"])
            assert len(list(saver.list(where))) <= before
            assert graph.get_state(where).values == twin.get_state(where).values
    saver.prune(["delta"])
    assert graph.get_state(where).values["log"] == state["log"]
    assert len(state["log"]) == 16
    saver.copy_thread("delta", "copy")
    assert graph.get_state(config("copy")).values["log"] == state["log"]


def test_a_prune_keeps_no_more_than_is_needed(saver):
    graph, where = graph_of(saver, 3), config("delta")
    for turn in range(10):
        graph.invoke({"log": [f"user {turn}"]}, where)
    saver.prune(["delta"])
    assert 1 <= len(list(saver.list(where))) <= 8
