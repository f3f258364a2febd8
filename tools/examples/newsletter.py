"""A graph that is killed, asked, sent back in time and forked, on a CkptlogSaver.

    python tools/examples/newsletter.py [--dir DIR]

No model and no network: the nodes are plain functions. A desk plans a newsletter, researches its
sections at once (`Send`), and hands the notes to a subgraph that writes a draft and asks a person
(`interrupt`). The first worker process is killed while it drafts. Kill the whole story anywhere
and start it with the same DIR: it goes on.
"""

from __future__ import annotations

import argparse
import operator
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt
from typing_extensions import TypedDict

from ckptlog.integrations.langgraph import CkptlogSaver

SECTIONS = ["the log", "the tree", "the proof", "the fork"]
THREAD: Any = {"configurable": {"thread_id": "newsletter"}}


class Issue(TypedDict):
    """The state: all of it is stored at every step, as LangGraph wants it."""

    subject: str
    notes: Annotated[list[str], operator.add]
    draft: str
    approved: bool
    published: str


class Assignment(TypedDict):
    """What one researcher is given."""

    section: str


class Verdict(TypedDict):
    """What the desk hands back."""

    draft: str
    approved: bool


class Desk(Verdict):
    """What the desk works on; the notes are the paper's, and are not added to."""

    subject: str
    notes: list[str]


# --- the graph ------------------------------------------------------------------------------------


def assign(state: Issue) -> list[Send]:
    """Fan out: a researcher for each section, all in one step."""
    return [Send("research", {"section": f"{name} of {state['subject']}"}) for name in SECTIONS]


def research(state: Assignment) -> dict[str, Any]:
    """Write a note of some length."""
    facts = [f"Fact {number} about {state['section']}." for number in range(60)]
    return {"notes": [" ".join(facts)]}


def draft(state: Desk) -> dict[str, Any]:
    """Write the draft; the first worker never comes back from here."""
    if os.environ.get("NEWSLETTER_DIES"):
        os.kill(os.getpid(), signal.SIGKILL)
    openings = [note.partition(".")[0] for note in state["notes"]]
    return {"draft": f"{state['subject'].title()}: " + "; ".join(openings)}


def review(state: Desk) -> dict[str, Any]:
    """Ask a person; the run ends here, and another process may bring the answer."""
    return {"approved": interrupt({"question": "Print it?", "words": len(state["draft"].split())})}


def publish(state: Issue) -> dict[str, Any]:
    """Print it, or not."""
    return {"published": state["draft"] if state["approved"] else "(nothing this week)"}


def build(saver: CkptlogSaver) -> Any:
    """Return the graph: plan -> research (at once) -> desk (draft, review) -> publish."""
    desk = StateGraph(Desk, output_schema=Verdict)
    desk.add_node("draft", draft)
    desk.add_node("review", review)
    desk.add_edge(START, "draft")
    desk.add_edge("draft", "review")

    paper = StateGraph(Issue)
    paper.add_node("plan", lambda state: {"subject": state["subject"].strip()})
    paper.add_node("research", research)
    paper.add_node("desk", desk.compile())
    paper.add_node("publish", publish)
    paper.add_edge(START, "plan")
    paper.add_conditional_edges("plan", assign, ["research"])
    paper.add_edge("research", "desk")
    paper.add_edge("desk", "publish")
    paper.add_edge("publish", END)
    return paper.compile(checkpointer=saver)


# --- the story ------------------------------------------------------------------------------------


def go_on(graph: Any, thread: Any = THREAD) -> Any:
    """Run a thread from where it stands, up to a question or its end; return its state then."""
    begun = graph.get_state(thread).values
    graph.invoke(None if begun else {"subject": " checkpoints "}, thread, durability="sync")
    return graph.get_state(thread)


def worker_is_killed(folder: Path) -> None:
    """Let another process begin; SIGKILL hits it in the middle of the draft."""
    command = [sys.executable, __file__, "--dir", str(folder), "--worker"]
    died = subprocess.run(command, env={**os.environ, "NEWSLETTER_DIES": "1"}, check=False)
    print(f"1. A worker researched, and was killed while it drafted (status {died.returncode}).")


def first_edition(graph: Any) -> None:
    """Recover, answer the question, and finish."""
    state = graph.get_state(THREAD)
    print(f"2. Recovered: {len(state.values['notes'])} notes are there; next is {state.next[0]}.")
    state = go_on(graph)
    for asked in state.interrupts:  # none, if an earlier telling was killed after the answer
        question = asked.value
        print(f"3. The desk asks: {question['question']} ({question['words']} words) - yes.")
        graph.invoke(Command(resume=True), THREAD, durability="sync")
    print(f"   Printed: {graph.get_state(THREAD).values['published'][:48]}...")


def second_edition(graph: Any) -> None:
    """Go back to before the desk, change a note, and print that too: a fork."""
    history = list(graph.get_state_history(THREAD))
    before = next(state for state in history if state.next == ("desk",))
    number = before.metadata["step"]
    print(f"4. Back to step {number} of {len(history)} checkpoints, and on from there:")
    correction = {"notes": ["A correction: nothing is ever lost."]}
    forked = graph.update_state(before.config, correction, as_node="research")
    graph.invoke(None, forked, durability="sync")
    published = graph.invoke(Command(resume=True), THREAD, durability="sync")["published"]
    print(f"   Printed: ...{published[-62:]}")
    kept = graph.get_state(history[0].config).values["published"]
    print(f"   The first edition is still there: {kept[:40]}...")


def what_is_on_disk(saver: CkptlogSaver) -> None:
    """Compare the store with one whole copy of the state for each save, and read all of it."""
    figures = saver.store.stats()
    whole, stored = figures["logical_bytes"], figures["new_bytes"]
    print(
        f"5. {figures['checkpoints']} checkpoints: whole copies would take {whole:,} bytes, "
        f"here they take {stored:,} (1/{whole / stored:.0f})."
    )
    report = saver.store.verify()
    print(f"   Everything was read and compared with its hashes: {len(report.problems)} problems.")


def tell(folder: Path) -> None:
    """Tell the story; what an earlier, killed telling did is not done again."""
    with CkptlogSaver.open(folder) as saver:
        graph = build(saver)
        values = graph.get_state(THREAD).values
        if not values:
            worker_is_killed(folder)
        if not values.get("published"):
            first_edition(graph)
        second_edition(graph)
        what_is_on_disk(saver)
        print(f"   Look around: ckptlog list --threads --store {folder}")


def main() -> None:
    """Read the arguments; --worker is the process that gets killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--dir", type=Path, help="the store (default: a new temporary directory)")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.dir or Path(tempfile.mkdtemp(prefix="newsletter-")) / "store"
    if arguments.worker:
        with CkptlogSaver.open(folder) as saver:
            go_on(build(saver))
    else:
        tell(folder)


if __name__ == "__main__":
    main()
