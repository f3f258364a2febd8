"""A real graph on the saver: interrupts, resumption, time travel, forks, subgraphs, failures."""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, Send, interrupt
from typing_extensions import TypedDict

from ckptlog.errors import CreationRefusedError
from ckptlog.integrations.langgraph import CkptlogSaver
from tests.integrations.langgraph.thread import config


class State(MessagesState):
    steps: Annotated[list, operator.add]
    approved: bool


class Item(TypedDict):
    number: int


def build(saver):
    def plan(state):
        return {
            "messages": [AIMessage("a plan", id=f"plan{len(state['messages'])}")],
            "steps": ["plan"],
        }

    def fan(state):
        return [Send("work", {"number": number}) for number in range(3)]

    def work(item: Item):
        return {"steps": [f"work {item['number']}"]}

    def check(state):
        return {"steps": [f"checked {len(state['steps'])}"]}

    def ask(state):
        return {"approved": interrupt({"question": "go on?"}), "steps": ["asked"]}

    inner = StateGraph(State)
    inner.add_node("check", check)
    inner.add_node("ask", ask)
    inner.add_edge(START, "check")
    inner.add_edge("check", "ask")
    inner.add_edge("ask", END)

    outer = StateGraph(State)
    outer.add_node("plan", plan)
    outer.add_node("work", work)
    outer.add_node("review", inner.compile())
    outer.add_node(
        "finish", lambda state: {"steps": ["finished" if state["approved"] else "dropped"]}
    )
    outer.add_edge(START, "plan")
    outer.add_conditional_edges("plan", fan, ["work"])
    outer.add_edge("work", "review")
    outer.add_edge("review", "finish")
    outer.add_edge("finish", END)
    return outer.compile(checkpointer=saver)


QUESTION = {"messages": [HumanMessage("please", id="h")], "steps": [], "approved": False}


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_graph_is_interrupted_and_goes_on_in_another_process(tmp_path, durability):
    where = config("g")
    with CkptlogSaver.open(tmp_path) as saver:
        graph = build(saver)
        first = graph.invoke(QUESTION, where, durability=durability)
        (question,) = first["__interrupt__"]
        assert question.value == {"question": "go on?"}
    with CkptlogSaver.open(tmp_path) as saver:
        graph = build(saver)
        paused = graph.get_state(where, subgraphs=True)
        assert paused.next == ("review",)
        assert paused.tasks[0].interrupts == (question,)
        twin = build(InMemorySaver())
        twin.invoke(QUESTION, where)
        end = graph.invoke(Command(resume=True), where, durability=durability)
        assert end == twin.invoke(Command(resume=True), where)
        assert end["steps"][-1] == "finished"
        assert not saver.store.verify().problems


def test_the_history_of_a_graph_is_that_of_langgraphs_own_saver(saver):
    ours, theirs = build(saver), build(InMemorySaver())
    where = config("g")
    for graph in (ours, theirs):
        graph.invoke(QUESTION, where)
        graph.invoke(Command(resume=False), where)
    shapes = [
        [
            (one.next, one.values, one.metadata["source"], one.metadata["step"])
            for one in graph.get_state_history(where)
        ]
        for graph in (ours, theirs)
    ]
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) > 4


def test_time_travel_and_forks(saver):
    graph, where = build(saver), config("g")
    graph.invoke(QUESTION, where)
    graph.invoke(Command(resume=True), where)
    history = list(graph.get_state_history(where))
    before = next(one for one in history if one.next == ("finish",))
    fork = graph.update_state(before.config, {"approved": False})
    assert graph.invoke(None, fork)["steps"][-1] == "dropped"
    again = graph.invoke(None, before.config)
    assert again["steps"][-1] == "finished"
    assert len(list(graph.get_state_history(where))) > len(history)


def test_a_run_whose_thread_is_deleted_stops(saver):
    builder = StateGraph(State)

    def delete(state):
        saver.delete_thread("g")
        return {"steps": ["deleted"]}

    builder.add_node("delete", delete)
    builder.add_node("after", lambda state: {"steps": ["after"]})
    builder.add_edge(START, "delete")
    builder.add_edge("delete", "after")
    graph = builder.compile(checkpointer=saver)
    with pytest.raises((CreationRefusedError, LookupError)):
        # With "async" the first put itself may come after the delete, and begin the thread anew.
        graph.invoke(QUESTION, config("g"), durability="sync")
    assert saver.get_tuple(config("g")) is None
    graph = build(saver)
    assert "__interrupt__" in graph.invoke(QUESTION, config("g"))


def test_a_node_that_fails_is_told(saver):
    builder = StateGraph(State)

    def fail(state):
        raise RuntimeError("no luck")

    builder.add_node("fail", fail)
    builder.add_edge(START, "fail")
    graph = builder.compile(checkpointer=saver)
    with pytest.raises(RuntimeError):
        graph.invoke(QUESTION, config("g"))
    assert "no luck" in graph.get_state(config("g")).tasks[0].error


def test_many_graphs_run_at_once_in_one_event_loop(tmp_path):
    async def run(graph, thread):
        await graph.ainvoke(QUESTION, config(thread))
        return await graph.ainvoke(Command(resume=True), config(thread))

    async def main():
        async with CkptlogSaver.open(tmp_path) as saver:
            graph = build(saver)
            return await asyncio.gather(*(run(graph, f"g{number}") for number in range(10)))

    ends = asyncio.run(main())
    assert all(end["steps"][-1] == "finished" for end in ends)
