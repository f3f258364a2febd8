"""The demo's story on one screen: who wrote which step, where the kill fell, what was proved."""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ckptlog.cli import text
from ckptlog.cli.demo_proof import Proof, StepRow
from ckptlog.cli.demo_run import Job, Run
from ckptlog.cli.output import Output

_DESCRIPTION_WIDTH = 40


def draw(output: Output, job: Job, workers: Sequence[Run], proof: Proof) -> None:
    """Print the whole story."""
    _timeline(output, workers, proof)
    output.line()
    _sizes(output, proof)
    output.line()
    for check in proof.checks:
        mark = output.paint("ok  ", "ok") if check.is_ok else output.paint("FAIL", "error")
        output.line(f"  {mark}  {check.name}: {text.escape(check.detail)}")
    output.line()
    output.line(text.escape(f"The store is in {job.store}. Look around:"))
    for command in suggestions(job.store, proof):
        output.line(f"  {text.escape(command)}")


def _timeline(output: Output, workers: Sequence[Run], proof: Proof) -> None:
    first, second = workers[0], workers[-1]
    for row in proof.steps:
        # A step that was durable before the kill stands above it, acknowledged or not.
        is_above = row.worker == first.worker
        if row.number == first.begun and first.signal and not is_above:
            _kill(output, first, second)
        output.line(_step_line(output, row))
        if row.number == first.begun and first.signal and is_above:
            _kill(output, first, second)


def _step_line(output: Output, row: StepRow) -> str:
    state = output.paint(row.state.ljust(9), row.state)
    sizes = f"{text.size(row.logical_bytes):>9}  +{text.size(row.stored_bytes):<8}"
    what = text.shorten(row.description, _DESCRIPTION_WIDTH)
    return f"  step {row.number:>3}  {row.worker:<8}  {state}  {sizes}  {what}"


def _kill(output: Output, first: Run, second: Run) -> None:
    name = signal.Signals(first.signal).name
    when = "in the middle of" if first.begun not in first.acknowledged else "at the end of"
    acknowledged = text.count(len(first.acknowledged), "step")
    killed = f"{name} hits worker 1 (process {first.pid}) {when} step {first.begun}"
    output.line(f"  {output.paint('--- ' + killed, 'killed')}, {acknowledged} acknowledged")
    if second.recovered and second.recovered["step"] not in first.acknowledged:
        output.line(f"  ---   step {first.begun} is durable, though nobody was told yet")
    for line in recovery_lines(second):
        output.line(f"  --- {text.escape(line)}")


def recovery_lines(second: Run) -> Iterator[str]:
    """Yield what the second worker found, and why it went on from there."""
    found = second.recovered
    if found is None:
        yield f"worker 2 (process {second.pid}) found no checkpoint and begins with step 1"
        return
    yield (
        f"worker 2 (process {second.pid}) goes on from step {found['step']}, "
        f"found {found['state']}: {found['checkpoint_id']}"
    )
    yield from reasons(found["why"])


def reasons(why: Any) -> Iterator[str]:
    """Yield the reason of a recovery point."""
    if isinstance(why, dict) and why.get("reason"):
        yield f"  because: {why['reason']}"


def _sizes(output: Output, proof: Proof) -> None:
    logical, stored = proof.logical_bytes, proof.stored_bytes
    states: dict[str, int] = {}
    for row in proof.steps:
        states[row.state] = states.get(row.state, 0) + 1
    shown = ", ".join(f"{number} {state}" for state, number in states.items())
    ratio = output.paint(text.ratio(logical, stored), "strong")
    output.line(f"  states  {shown}; {text.count(proof.events, 'event')}")
    output.line(
        f"  bytes   {text.size(logical)} of whole states in {text.size(stored)} on disk: {ratio}"
    )


def program() -> str:
    """Return how to call this program from a shell here."""
    if shutil.which("ckptlog"):
        return "ckptlog"
    beside = Path(sys.executable).with_name("ckptlog")
    if beside.exists():
        return shlex.quote(str(beside))
    return f"{shlex.quote(sys.executable)} -m ckptlog"


def suggestions(store: Path, proof: Proof) -> Iterator[str]:
    """Yield commands that work on the demo's store, as they stand."""
    call = f"{program()} --store {shlex.quote(str(store))}"
    yield f"{call} list"
    yield f"{call} log --last 12"
    known = [row.checkpoint_id for row in proof.steps if row.checkpoint_id]
    if len(known) > 1:
        yield f"{call} diff {shlex.quote(known[-2])} {shlex.quote(known[-1])}"
    yield f"{call} verify"
