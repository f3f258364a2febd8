"""Worker processes that are killed, a task that kills, an orchestrator that loses no work.

    python tools/examples/orchestrator.py [--dir DIR]

Four tasks of five steps each. Workers are processes; each holds a lease on the task that it works
on and is killed (SIGKILL) now and then. The orchestrator finds what was interrupted, hands it to
another worker, which goes on from the recovery point, and gives up on the task that kills whoever
takes it. Workers that die too often are let rest by a circuit breaker. Kill the whole story
anywhere and start it with the same DIR: it goes on.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from ckptlog import (
    CheckpointManager,
    CheckpointState,
    LeaseHeldError,
    TaskGivenUpError,
    WorkerCheckpointIntegration,
)

STEPS = 5
POISON = "mend the old engine"
TASKS = ("count the stars", "name the winds", "map the coast", POISON)
WORKERS = ("ada", "ben", "cleo")
TTL_S = 1.0
# (worker, task) -> the step at which that worker is killed, the first time.
ACCIDENTS = {("ada", "count the stars"): 3, ("ben", "name the winds"): 2}


class Breaker:
    """Lets a worker rest that failed too often in a row.

    closed -(failures)-> open -(rest_s)-> half open -success-> closed, -failure-> open
    """

    def __init__(self, failures_max: int = 2, rest_s: float = 0.5) -> None:
        self._max, self._rest_s = failures_max, rest_s
        self._failures: dict[str, int] = defaultdict(int)
        self._open_until: dict[str, float] = {}

    def allows(self, worker: str) -> bool:
        """Say whether a worker may be given work."""
        return time.monotonic() >= self._open_until.get(worker, 0.0)

    def succeeded(self, worker: str) -> None:
        """A task of the worker went well."""
        self._failures[worker] = 0

    def failed(self, worker: str) -> bool:
        """A task of the worker went wrong; say whether it rests now."""
        self._failures[worker] += 1
        if self._failures[worker] < self._max:
            return False
        self._failures[worker] = self._max - 1  # half open: one more failure opens it again
        self._open_until[worker] = time.monotonic() + self._rest_s
        return True


# --- a worker: its own process --------------------------------------------------------------------


def work(store: Path, worker: str, task: str) -> int:
    """Do a task, or what is left of it; return the exit status."""
    with CheckpointManager(store) as manager:
        integration = WorkerCheckpointIntegration(worker, manager, lease_ttl_s=TTL_S)
        try:
            name = integration.start_task_execution(task, task.capitalize())
        except (LeaseHeldError, TaskGivenUpError) as error:
            print(f"{worker} leaves '{task}': {error.code}", flush=True)
            return 3
        begun = manager.get_checkpoint(name)
        done = list(begun.data.get("done", ())) if begun else []
        if done:
            print(f"{worker} goes on with '{task}' after step {len(done)}", flush=True)
        for step in range(len(done) + 1, STEPS + 1):
            _risk(store, worker, task, step)
            done.append(f"{step} by {worker}")
            integration.update_execution_progress(
                name, {"done": done, "step_number": step, "total_steps": STEPS}
            )
        integration.complete_task_execution(name, {"result": f"{task}: done"})
        print(f"{worker} finished '{task}'", flush=True)
        return 0


def _risk(store: Path, worker: str, task: str, step: int) -> None:
    """Die where the story says so."""
    accident = store.parent / f"accident-{worker}-{task}".replace(" ", "-")
    if task == POISON and step == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if ACCIDENTS.get((worker, task)) == step and not accident.exists():
        accident.touch()
        os.kill(os.getpid(), signal.SIGKILL)


# --- the orchestrator -----------------------------------------------------------------------------


class Orchestrator:
    """Hands tasks to workers until each is complete or given up."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.manager = CheckpointManager(store)
        self.breaker = Breaker()
        self._running: dict[str, tuple[str, subprocess.Popen[bytes]]] = {}
        # Who worked on a task last: the others come first.
        self._last: dict[str, str] = {}

    def run(self) -> None:
        """Work until nothing is left."""
        while self._open_tasks() or self._running:
            for task in self._waiting():
                worker = self._free_worker(task)
                if worker is not None:
                    self._start(worker, task)
            self._reap()
            time.sleep(0.02)

    def _open_tasks(self) -> list[str]:
        return [task for task in TASKS if not self._is_over(task)]

    def _is_over(self, task: str) -> bool:
        latest = self.manager.get_latest_checkpoint(task)
        if latest is None:
            return False
        if latest.state is CheckpointState.COMPLETED:
            return latest.step_number == STEPS
        return latest.state is CheckpointState.FAILED

    def _waiting(self) -> list[str]:
        """Return what nobody works on: new tasks, and those that the log tells as interrupted."""
        new = [one for one in TASKS if self.manager.get_latest_checkpoint(one) is None]
        interrupted = [one.task_id for one in self.manager.find_interrupted_tasks(tasks=TASKS)]
        busy = {task for task, _ in self._running.values()}
        return [task for task in (*interrupted, *new) if task not in busy]

    def _free_worker(self, task: str) -> str | None:
        free = [one for one in WORKERS if one not in self._running and self.breaker.allows(one)]
        return min(free, key=lambda one: (one == self._last.get(task), one), default=None)

    def _start(self, worker: str, task: str) -> None:
        self._last[task] = worker
        command = [sys.executable, __file__, "--work", str(self.store), worker, task]
        self._running[worker] = (task, subprocess.Popen(command))

    def _reap(self) -> None:
        for worker, (task, process) in list(self._running.items()):
            status = process.poll()
            if status is None:
                continue
            del self._running[worker]
            if status == 0:
                self.breaker.succeeded(worker)
            elif status < 0:
                print(f"{worker} was killed at '{task}'", flush=True)
                if self.breaker.failed(worker):
                    print(f"{worker} rests for a while (circuit open)", flush=True)

    def report(self) -> None:
        """Say what became of each task, from the log."""
        for task in TASKS:
            latest = self.manager.get_latest_checkpoint(task)
            if latest is None:
                print(f"{task}: deleted by somebody")
            elif latest.state is CheckpointState.COMPLETED:
                print(f"{task}: {', '.join(latest.data['done'])}")
            else:
                print(f"{task}: {latest.metadata['error_info']['message']}")
        problems = self.manager.validate_checkpoint_integrity()
        print(f"The store agrees with its hashes: {len(problems)} problems")


def main() -> int:
    """Tell the story, or be one of its workers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dir", type=Path, help="where to keep the store")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        store, worker, task = arguments.work
        try:
            return work(Path(store), worker, task)
        except KeyboardInterrupt:
            return 130
    folder = arguments.dir or Path(tempfile.mkdtemp(prefix="ckptlog-orchestrator-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"The store is {folder / 'store'}", flush=True)
    orchestrator = Orchestrator(folder / "store")
    try:
        orchestrator.run()
        orchestrator.report()
    except KeyboardInterrupt:
        print(f"Stopped. It goes on with --dir {folder}")
        return 130
    finally:
        orchestrator.manager.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
