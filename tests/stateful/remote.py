"""A second process with a manager of its own, driven over pipes: one JSON line a call.

It stays for the whole test run; each call names the store, so that one process serves every
example of a Hypothesis test.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from ckptlog import CheckpointError, CheckpointManager, CheckpointState


class RemoteManager:
    """The near end: calls a manager's method in the other process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.stateful.remote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def call(self, path: str, method: str, *args: Any, **options: Any) -> Any:
        """Call a method there.

        Returns:
            What it returned, through JSON; ["error", code] where it raised one of our errors.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps([path, method, args, options]) + "\n")
        stdin.flush()
        answer = stdout.readline()
        assert answer, "the other process has died"
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


def main() -> None:
    """The far end."""
    managers: dict[str, CheckpointManager] = {}
    for line in sys.stdin:
        path, method, args, options = json.loads(line)
        if method == "close":
            managers.pop(path).close()
            answer = None
        else:
            if path not in managers:
                managers[path] = CheckpointManager(path)
            answer = answer_of(managers[path], method, args, options)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def answer_of(manager: CheckpointManager, method: str, args: list[Any], options: Any) -> Any:
    """Call and put the result into JSON: a checkpoint becomes [state, data, metadata, step]."""
    if "state" in options:
        options["state"] = CheckpointState(options["state"])
    try:
        result = getattr(manager, method)(*args, **options)
    except CheckpointError as error:
        return ["error", error.code]
    if method in {"get_checkpoint", "restore_checkpoint"} and result is not None:
        return [result.state.value, result.data, result.metadata, result.step_number]
    return result


if __name__ == "__main__":
    main()
