"""Many processes claim the same interrupted tasks at once: each is resumed once."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

from ckptlog import CheckpointManager, CheckpointState, TaskRecovery
from ckptlog.policy import retrial

_CONTEXT = multiprocessing.get_context("spawn")
TASKS = 12


def resume_all(path: Path, worker: str, told: Any) -> None:
    """Claim and finish whatever can be had; tell which."""
    won = []
    with CheckpointManager(path) as manager:
        recovery = TaskRecovery(manager, worker)
        told.send("ready")
        told.recv()
        while (task := recovery.claim_next()) is not None:
            with task:
                wrapper = task.wrapper()
                wrapper.checkpoint("the last step", {"by": worker})
                wrapper.complete_task()
            won.append(task.task_id)
    told.send(won)


def test_each_task_is_resumed_by_one_process(tmp_path):
    path = tmp_path / "store"
    with CheckpointManager(path) as manager:
        for number in range(TASKS):
            manager.update_checkpoint(manager.create_checkpoint(f"t{number}", "T", 1, "", 2))
        started = []
        for number in range(4):
            ours, theirs = _CONTEXT.Pipe()
            process = _CONTEXT.Process(target=resume_all, args=(path, f"w{number}", theirs))
            process.start()
            started.append((process, ours))
        for _, told in started:
            assert told.poll(60)
            assert told.recv() == "ready"
        for _, told in started:
            told.send("go")
        won: dict[str, str] = {}
        for number, (process, told) in enumerate(started):
            assert told.poll(60)
            for task in told.recv():
                assert task not in won
                won[task] = f"w{number}"
            process.join(60)
        assert won.keys() == {f"t{number}" for number in range(TASKS)}
        for task, worker in won.items():
            first, last = manager.get_task_checkpoints(task)
            assert [one.worker for one in retrial.attempts_of(first.metadata)] == [worker]
            assert (last.state, last.data) == (CheckpointState.COMPLETED, {"by": worker})
        assert manager.list_leases() == []
