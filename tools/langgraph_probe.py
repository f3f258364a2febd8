"""Tries CkptlogSaver with the LangGraph that is installed; one check per call.

Usage: langgraph_probe.py methods|asynchronous|graph|types|migration|conformance|versions
Exit status 0: it works, 3: this version has no such thing, else a traceback. Called by
tools/langgraph_versions.py in environments of several versions.
"""

from __future__ import annotations

import asyncio
import operator
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final, TypedDict

from langchain_core.messages import AIMessage, HumanMessage
from langgraph import types
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import END, START, StateGraph

from ckptlog.errors import SettingsError
from ckptlog.integrations.langgraph import CkptlogSaver
from ckptlog.integrations.langgraph.rereading import Rereader

ABSENT: Final = 3
# Those whose numbers the table shows.
PACKAGES: Final = ("langgraph", "langgraph-checkpoint", "langchain-core")


class WrongError(Exception):
    """The saver answered something else than it should."""


class State(TypedDict, total=False):
    """What the graph works on."""

    messages: Annotated[list[Any], operator.add]
    approved: bool


def same(found: object, wanted: object) -> None:
    """Compare an answer with what is right.

    Raises:
        WrongError: It differs.
    """
    if found != wanted:
        raise WrongError(f"{found!r} in place of {wanted!r}")


def thread(name: str) -> Any:
    """Return the config of a thread."""
    return {"configurable": {"thread_id": name, "checkpoint_ns": ""}}


def put(saver: CkptlogSaver, where: Any, step: int, value: Any) -> Any:
    """Put a checkpoint with one channel."""
    checkpoint, told = made(step, value)
    return saver.put(where, checkpoint, told, checkpoint["channel_versions"])


def made(step: int, value: Any) -> tuple[Any, Any]:
    """Return a checkpoint with one channel, and its metadata."""
    checkpoint: Any = empty_checkpoint()
    checkpoint["id"] = str(uuid6(clock_seq=step))
    checkpoint["channel_values"] = {"value": value}
    checkpoint["channel_versions"] = {"value": f"{step}"}
    return checkpoint, {"source": "loop", "step": step, "parents": {}, "parity": step % 2}


def methods(saver: CkptlogSaver) -> None:
    """Each method, called directly."""
    where = thread("a")
    for step in range(4):
        where = put(saver, where, step, [step])
    saver.put_writes(where, [("value", "x"), ("__error__", "no luck")], "task")
    found = saver.get_tuple(thread("a"))
    same(found and found.checkpoint["channel_values"], {"value": [3]})
    same(
        sorted(map(str, (found and found.pending_writes) or ())),
        [str(("task", "__error__", "no luck")), str(("task", "value", "x"))],
    )
    same([one.metadata["step"] for one in saver.list(None, filter={"parity": 1})], [3, 1])
    earlier = saver.list(thread("a"), before=where, limit=2)
    same([one.metadata["step"] for one in earlier], [2, 1])
    saver.copy_thread("a", "b")
    saver.prune(["a"])
    same([len(list(saver.list(thread(name)))) for name in "ab"], [1, 4])
    saver.delete_thread("b")
    same(saver.get_tuple(thread("b")), None)
    same(len(saver.store.verify().problems), 0)


def asynchronous(saver: CkptlogSaver) -> None:
    """The same calls from an event loop."""

    async def call() -> None:
        checkpoint, told = made(1, ["a"])
        where = await saver.aput(thread("a"), checkpoint, told, checkpoint["channel_versions"])
        await saver.aput_writes(where, [("value", "x")], "task")
        listed = [one async for one in saver.alist(thread("a"), filter={"parity": 1})]
        same([one.pending_writes for one in listed], [[("task", "value", "x")]])
        graph = build(saver)
        await graph.ainvoke({"messages": ["hello"]}, thread("g"))
        end = await graph.ainvoke(types.Command(resume=True), thread("g"))
        same(end["approved"], True)
        await saver.adelete_thread("g")
        same(await saver.aget_tuple(thread("g")), None)

    asyncio.run(call())


def build(saver: Any) -> Any:
    """Return a graph that greets, asks, and says goodbye."""

    def greet(state: State) -> State:
        return {"messages": [AIMessage("good day", id=f"m{len(state['messages'])}")]}

    def ask(_: State) -> State:
        return {"approved": types.interrupt({"question": "go on?"})}

    def leave(state: State) -> State:
        return {"messages": ["goodbye" if state["approved"] else "stopped"]}

    builder: Any = StateGraph(State)
    for node in (greet, ask, leave):
        builder.add_node(node.__name__, node)
    for first, second in ((START, "greet"), ("greet", "ask"), ("ask", "leave"), ("leave", END)):
        builder.add_edge(first, second)
    return builder.compile(checkpointer=saver)


def tell(saver: Any) -> list[Any]:
    """Interrupt, resume, correct the past and go on from there; return all that can be seen."""
    graph, where = build(saver), thread("g")
    asked = graph.invoke({"messages": [HumanMessage("hello", id="h")]}, where)
    question = [one.value for one in graph.get_state(where).tasks[0].interrupts]
    end = graph.invoke(types.Command(resume=True), where)
    before = next(one for one in graph.get_state_history(where) if one.next == ("leave",))
    fork = graph.update_state(before.config, {"approved": False})
    forked = graph.invoke(None, fork)
    history = [
        (one.next, one.values, one.metadata["source"], one.metadata["step"])
        for one in graph.get_state_history(where)
    ]
    return [asked["messages"], question, end, forked, history]


def graph(saver: CkptlogSaver) -> None:
    """A graph sees what it sees with LangGraph's own saver."""
    same(tell(saver), tell(InMemorySaver()))
    same(len(saver.store.verify().problems), 0)


def samples() -> list[Any]:
    """Return values of LangGraph's classes, as far as this version has them."""
    values = [
        types.Send("node", {"number": 1}),
        types.Command(update={"a": 1}, resume=[1], goto="node"),
        types.PregelTask("id", "name", ("path",)),
    ]
    overwrite = getattr(types, "Overwrite", None)
    return [*values, *([] if overwrite is None else [overwrite([1])])]


def kinds(saver: CkptlogSaver) -> None:
    """Values of LangGraph's own classes come back equal."""
    for step, value in enumerate(samples()):
        put(saver, thread(f"t{step}"), step, value)
        found = saver.get_tuple(thread(f"t{step}"))
        same(found and found.checkpoint["channel_values"]["value"], value)


def migration(_: CkptlogSaver) -> None:
    """What this version's serialiser writes is read by ckptlog import."""
    try:
        reread = Rereader()
    except SettingsError:  # told: this version has no list of what may be built
        raise SystemExit(ABSENT) from None
    value = {"messages": [HumanMessage("hello", id="h")], "sent": types.Send("node", [1])}
    same(reread(JsonPlusSerializer().dumps_typed(value), "value"), value)


def conformance(_: CkptlogSaver) -> None:
    """LangGraph's own suite."""
    from langgraph.checkpoint.conformance import checkpointer_test, validate

    @checkpointer_test(name="CkptlogSaver")
    async def saver() -> AsyncIterator[CkptlogSaver]:
        with tempfile.TemporaryDirectory() as folder:
            async with CkptlogSaver.open(Path(folder) / "store") as opened:
                yield opened

    report = asyncio.run(validate(saver))
    same([fault for found in report.results.values() for fault in found.failures], [])
    same(report.passed_all(), True)


def versions(_: CkptlogSaver) -> None:
    """Print what is installed."""
    print(*(version(name) for name in PACKAGES))


CHECKS: Final[dict[str, Callable[[CkptlogSaver], None]]] = {
    "methods": methods,
    "asynchronous": asynchronous,
    "graph": graph,
    "types": kinds,
    "migration": migration,
    "conformance": conformance,
    "versions": versions,
}


def main(words: list[str]) -> int:
    """Run the checks that are named, each on a store of its own."""
    if not words or not CHECKS.keys() >= set(words):
        print(f"usage: langgraph_probe.py {'|'.join(CHECKS)} ...", file=sys.stderr)
        return 2
    for word in words:
        with tempfile.TemporaryDirectory() as folder, CkptlogSaver.open(f"{folder}/store") as saver:
            CHECKS[word](saver)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
