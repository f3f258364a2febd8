"""Starts the demo's worker, hands it the steps, and kills it in the middle of one.

What counts as acknowledged is what stands in the pipe, however the process ended: a line is
written only after the store's call has returned. The moment of the kill is drawn anew each time
within the time that a step takes, so that it falls at another point of the write: before it, in
it, between it and its acknowledgement.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from threading import Timer
from typing import IO, Any

# A worker that neither works nor dies must not keep the demo waiting for ever.
DEADLINE_S = 120.0
_STEP_S = 0.001


@dataclass(frozen=True)
class Job:
    """What workers are to do.

    store, transcript: Paths. task: The task's id.
    """

    store: Path
    transcript: Path
    task: str


@dataclass
class Run:
    """What one worker process said and did.

    number: 1 for the first.
    acknowledged: Checkpoint id of each step whose checkpoint the store acknowledged.
    begun: The last step that it began; 0 before the first.
    recovered: What it found in the store, None where it began at the beginning.
    signal: The signal that ended it; 0 where it ended by itself.
    delay_ms: Time between the beginning of the fatal step and the kill.
    error: Why it ended in a way that nobody asked for; empty where all went well.
    """

    number: int
    pid: int = 0
    acknowledged: dict[int, str] = field(default_factory=dict)
    begun: int = 0
    recovered: dict[str, Any] | None = None
    signal: int = 0
    is_finished: bool = False
    delay_ms: float = 0.0
    time_s: float = 0.0
    error: str = ""

    @property
    def worker(self) -> str:
        """The worker's id, as its checkpoints carry it."""
        return f"worker-{self.number}"

    def hear(self, record: dict[str, Any]) -> None:
        """Take in what the worker said."""
        if record["event"] == "started":
            self.recovered = record["recovered"]
        elif record["event"] == "begun":
            self.begun = record["step"]
        elif record["event"] == "acknowledged":
            self.acknowledged[record["step"]] = record["checkpoint_id"]
        elif record["event"] == "finished":
            self.is_finished = True


def run_worker(job: Job, number: int, *, kill_at: int | None = None) -> Run:
    """Run a worker to its end, or kill it with SIGKILL while it writes step kill_at."""
    began_s = time.monotonic()
    with tempfile.TemporaryFile("w+") as errors:
        run = Run(number)
        process = _start(job, run.worker, errors)
        run.pid = process.pid
        watchdog = Timer(DEADLINE_S, process.kill)
        watchdog.start()
        try:
            _drive(process, run, kill_at)
            run.signal = max(0, -process.wait())
        finally:
            watchdog.cancel()
            process.kill()
            process.communicate()
        run.time_s = time.monotonic() - began_s
        run.error = _fault(run, process.returncode, kill_at, errors)
    return run


def _start(job: Job, worker: str, errors: IO[str]) -> subprocess.Popen[str]:
    import ckptlog

    package = str(Path(ckptlog.__file__).resolve().parent.parent)
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(  # noqa: S603 - our own module in our own interpreter
        [
            *(sys.executable, "-m", "ckptlog.cli.demo_worker"),
            *("--store", str(job.store), "--transcript", str(job.transcript)),
            *("--task", job.task, "--worker", worker),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        bufsize=1,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONIOENCODING": "utf-8"},
    )


def _drive(process: subprocess.Popen[str], run: Run, kill_at: int | None) -> None:
    """Hand out steps and listen until the worker's end."""
    times_s: list[float] = []
    began_s = 0.0
    for line in process.stdout or ():
        try:
            record = json.loads(line)
        except ValueError:  # cut short by the kill
            continue
        run.hear(record)
        if record["event"] == "begun":
            began_s = time.monotonic()
            if run.begun == kill_at:
                _kill(process, run, median(times_s[-5:]) if times_s else _STEP_S)
        else:
            if record["event"] == "acknowledged":
                times_s.append(time.monotonic() - began_s)
            _hand_out(process)


def _hand_out(process: subprocess.Popen[str]) -> None:
    try:
        if process.stdin is not None:
            process.stdin.write("go\n")
    except BrokenPipeError:
        pass  # it has finished, or was killed: its last words say which


def _kill(process: subprocess.Popen[str], run: Run, step_s: float) -> None:
    # Not the whole time: a part of it is the way of the worker's word through the pipe.
    delay_s = random.uniform(0, 0.75 * step_s)  # noqa: S311 - any moment will do
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    run.delay_ms = delay_s * 1000


def _fault(run: Run, status: int, kill_at: int | None, errors: IO[str]) -> str:
    """Say why a run did not end as it should; empty when it did."""
    if run.is_finished if kill_at is None else run.signal == signal.SIGKILL:
        return ""
    errors.seek(0)
    last = errors.read()[-2000:].strip().splitlines()
    how = f"was killed by signal {run.signal}" if run.signal else f"ended with status {status}"
    return f"Worker {run.number} {how} in step {run.begun}. {last[-1] if last else ''}".strip()
