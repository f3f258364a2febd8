"""The process that the demo starts, kills and starts again: a long job with a checkpoint a step.

It replays a transcript through `TaskCheckpointWrapper`, the whole state at each step, and says on
stdout, in JSON Lines, what it is about to do and what the store has acknowledged:

    {"event": "started", "pid": 71, "recovered": null | {"checkpoint_id", "step", "why"}}
    {"event": "begun", "step": 6}
    {"event": "acknowledged", "step": 6, "checkpoint_id": "...", "position": 12}
    {"event": "finished"}

Before each step it waits for a line on stdin: the demo hands out the steps one by one, so a worker
whose demo has gone ends too. Started a second time on the same store, it asks for the recovery
point, restores it, and goes on after it. It knows nothing of the first run but what the store
tells.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ckptlog.integrations.transcript import Step, steps
from ckptlog.manager.manager import CheckpointManager
from ckptlog.manager.wrapper import TaskCheckpointWrapper

TITLE = "Replay of a transcript"


def main() -> int:
    """Do the job, from the beginning or from the recovery point."""
    parser = argparse.ArgumentParser(description="The worker of `ckptlog demo`.")
    parser.add_argument("--store", required=True)
    parser.add_argument("--transcript", required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--worker", required=True)
    arguments = parser.parse_args()
    run = steps(Path(arguments.transcript))
    with CheckpointManager(arguments.store) as manager:
        recovered = _recovery_point(manager, arguments.task)
        _say({"event": "started", "recovered": recovered})
        wrapper = TaskCheckpointWrapper(
            manager, arguments.task, TITLE, arguments.worker, recover=True
        )
        wrapper.set_total_steps(len(run))
        done = wrapper.recovered.step_number if wrapper.recovered else 0
        for step in run[done:]:
            _save(manager, wrapper, step)
        wrapper.complete_task()
    _say({"event": "finished"})
    return 0


def _recovery_point(manager: CheckpointManager, task: str) -> dict[str, Any] | None:
    """Return what the store offers to go on from, and why, for the demo to show."""
    why = manager.explain_recovery_point(task)
    point = manager.get_recovery_point(task)
    if point is None:
        return None
    return {
        "checkpoint_id": point.checkpoint_id,
        "step": point.step_number,
        "state": point.state.value,
        "why": why,
    }


def _save(manager: CheckpointManager, wrapper: TaskCheckpointWrapper, step: Step) -> None:
    if not sys.stdin.readline():
        raise SystemExit("The demo has gone.")
    _say({"event": "begun", "step": step.number})
    identifier = wrapper.checkpoint(step.description, step.state)
    _say(
        {
            "event": "acknowledged",
            "step": step.number,
            "checkpoint_id": identifier,
            "position": manager.store.position,
        }
    )


def _say(record: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
