"""A second process with a manager of its own, driven over pipes: one JSON line a call.

It stays for the whole test run; each call names the store, so that one process serves every
example of a Hypothesis test. `kill` ends it as a crash does: the process that serves is a fork of
one that has loaded everything and opened nothing, so that another one is there at once.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

from ckptlog import CheckpointData, CheckpointError, CheckpointManager, CheckpointState


class RemoteManager:
    """The near end: calls a manager's method in the other process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.stateful.remote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._pid = self._answer()

    def call(self, path: str, method: str, *args: Any, **options: Any) -> Any:
        """Do there what `perform` does here."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([path, method, args, options]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def kill(self) -> None:
        """End the process that serves, whatever it holds open, and wait for the next one."""
        os.kill(self._pid, signal.SIGKILL)
        self._pid = self._answer()

    def close(self) -> None:
        """End all."""
        self._process.communicate(timeout=30)

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        assert answer, "the other process has died"
        return json.loads(answer)


def main() -> None:
    """The far end: serve in a fork, and in another one when that is killed."""
    while (pid := os.fork()) != 0:
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status):
            return
    serve()


def serve() -> None:
    """Answer calls until there are no more."""
    managers: dict[str, CheckpointManager] = {}
    print(os.getpid(), flush=True)
    for line in sys.stdin:
        path, method, args, options = json.loads(line)
        if method == "close":
            if path in managers:
                managers.pop(path).close()
            answer = None
        else:
            if path not in managers:
                managers[path] = CheckpointManager(path)
            answer = perform(managers[path], method, args, options)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def perform(
    manager: CheckpointManager, method: str, args: list[Any], options: dict[str, Any]
) -> Any:
    """Call a method; return what JSON makes of the answer.

    Besides the manager's methods: run_batch(operations, command_id), ids(filters), lives(id).

    Returns:
        `facts` of a checkpoint; ["error", code] where one of our errors was raised.
    """
    return json.loads(json.dumps(_perform(manager, method, args, options)))


def _perform(
    manager: CheckpointManager, method: str, args: list[Any], options: dict[str, Any]
) -> Any:
    try:
        if method == "run_batch":
            return run_batch(manager, *args)
        if method == "ids":
            return [one.checkpoint_id for one in manager.iterate(**options)]
        if method == "lives":
            return [
                [one.position, one.type, one.state, one.checkpoint and facts(one.checkpoint)]
                for one in manager.history(*args)
            ]
        result = getattr(manager, method)(*args, **stated(options))
    except CheckpointError as error:
        return ["error", error.code]
    return facts(result) if isinstance(result, CheckpointData) else result


def run_batch(
    manager: CheckpointManager,
    operations: list[tuple[str, list[Any], dict[str, Any]]],
    command: str | None,
) -> list[str | None]:
    """Run operations as one batch; "#n" stands for what operation n has created."""
    made: list[str | None] = []
    with manager.batch(command_id=command) as batch:
        for method, args, options in operations:
            named = [
                made[int(arg[1:])] if isinstance(arg, str) and arg.startswith("#") else arg
                for arg in args
            ]
            made.append(getattr(batch, method)(*named, **stated(options)))
    return made


def stated(options: dict[str, Any]) -> dict[str, Any]:
    """Return options with the state as what it is, not as text."""
    state = options.get("state")
    return options if state is None else {**options, "state": CheckpointState(state)}


def facts(found: CheckpointData) -> list[Any]:
    """Return everything of a checkpoint that the model knows."""
    return [
        found.task_id,
        found.state.value,
        found.step_number,
        found.total_steps,
        found.step_description,
        list(found.data.items()),
        list(found.metadata.items()),
        found.worker_id,
        found.parent_checkpoint_id,
        found.namespace,
        found.position,
    ]


if __name__ == "__main__":
    main()
