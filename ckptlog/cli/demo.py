"""`ckptlog demo`: a long job is killed, goes on in a new process, and nothing is lost.

A worker process replays an agent's transcript, a checkpoint of the whole state at each step, and
is killed with SIGKILL in the middle of a step. A second process finds the recovery point and
finishes the job. This process then reads the whole store and compares it with the transcript.
The status is 0 only if everything was as it must be. Page: specs/cli.md.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckptlog.cli import text
from ckptlog.cli.command import Commands, Context, add_command, open_store
from ckptlog.cli.exit_status import OK, PARTIAL
from ckptlog.cli.moment import natural
from ckptlog.repository.discovery import one_path

if TYPE_CHECKING:
    from ckptlog.cli.demo_proof import Proof
    from ckptlog.cli.demo_run import Job, Run

SHIPPED = Path(__file__).with_name("demo_transcript.json")


def add_commands(commands: Commands) -> None:
    """Add `demo`."""
    parser = add_command(
        commands,
        "demo",
        run_demo,
        about="watch a job being killed and going on",
        epilog="Makes a store of its own in a new directory each time, and keeps it.",
    )
    parser.add_argument(
        "--transcript",
        metavar="FILE",
        help="replay this run (SWE-agent .traj), not the shipped one",
    )
    parser.add_argument(
        "--dir", metavar="DIR", help="make the store in this new directory; like --store"
    )
    parser.add_argument(
        "--kill-after", type=natural, metavar="K", help="kill after K acknowledged steps"
    )
    parser.add_argument("--keep", action="store_true", help="keep the store (the default)")


def run_demo(context: Context) -> int:
    """Run the job, kill it, recover it, prove it, show it."""
    from ckptlog.cli.demo_picture import draw
    from ckptlog.cli.demo_proof import prove
    from ckptlog.cli.demo_run import Job, run_worker
    from ckptlog.integrations.transcript import steps

    transcript = Path(context.arguments.transcript or SHIPPED).absolute()
    run = steps(transcript)
    kill_at = _kill_at(context.arguments.kill_after, len(run))
    store = _make_store(context)
    task = text.shorten(transcript.stem, 150) or "demo"
    job = Job(store, transcript, task)
    _say_what(context, job, len(run))
    workers = [run_worker(job, 1, kill_at=kill_at)]
    if not workers[0].error:
        workers.append(run_worker(job, 2))
    proof = prove(job, run, workers)
    if context.output.is_json:
        context.output.document(_answer(job, workers, proof))
    else:
        draw(context.output, job, workers, proof)
    if proof.is_ok:
        return OK
    _tell_failure(context, job, proof)
    return PARTIAL


def _kill_at(kill_after: int | None, number: int) -> int:
    """Return the step in which the first worker is to die."""
    if kill_after is None:
        return max(1, (number + 1) // 2)
    if kill_after < number:
        return kill_after + 1
    from ckptlog.errors import ArgumentError

    raise ArgumentError(
        f"--kill-after {kill_after} is too much: the transcript has {text.count(number, 'step')}.",
        hint=f"Use 0 to {number - 1}.",
    )


def _make_store(context: Context) -> Path:
    named = one_path(context.arguments.dir, "--dir", context.arguments.store)
    path = (named or Path(tempfile.mkdtemp(prefix="ckptlog-demo-"))).absolute()
    store = open_store(path, context.output, is_created=True)
    try:
        _refuse_used(store.position, path)
    finally:
        store.close()
    return path


def _refuse_used(position: int, path: Path) -> None:
    from ckptlog.errors import ArgumentError

    if position:
        raise ArgumentError(
            f"{path} is a store that holds something already.",
            hint="Name a new directory; without --dir the demo makes one.",
            path=str(path),
        )


def _say_what(context: Context, job: Job, number: int) -> None:
    output = context.output
    if output.is_json:
        return
    what = "the shipped transcript" if job.transcript == SHIPPED else str(job.transcript)
    title = f"A job of {text.count(number, 'step')} ({text.escape(what)}), a checkpoint each:"
    output.line(output.paint(title, "strong"))
    output.line()
    output.flush()


def _answer(job: Job, workers: list[Run], proof: Proof) -> dict[str, Any]:
    ratio = round(proof.logical_bytes / proof.stored_bytes, 2) if proof.stored_bytes else None
    return {
        "ok": proof.is_ok,
        "store": str(job.store),
        "transcript": str(job.transcript),
        "task_id": job.task,
        "workers": [asdict(worker) for worker in workers],
        "checks": [asdict(check) for check in proof.checks],
        "steps": [asdict(row) for row in proof.steps],
        "events": proof.events,
        "logical_bytes": proof.logical_bytes,
        "stored_bytes": proof.stored_bytes,
        "ratio": ratio,
    }


def _tell_failure(context: Context, job: Job, proof: Proof) -> None:
    failed = [check.name for check in proof.checks if not check.is_ok]
    context.output.fault(
        {
            "code": "cli.demo",
            "message": f"The demo could not prove: {', '.join(failed)}.",
            "hint": f"The store is kept: `ckptlog --store {job.store} verify`, `... doctor`.",
            "context": {"store": str(job.store), "failed": failed},
        }
    )
