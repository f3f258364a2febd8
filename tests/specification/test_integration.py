"""The specification's integration tests, by its names, over what this version has."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

import ckptlog
from ckptlog import (
    CheckpointManager,
    CheckpointState,
    EnhancedOrchestratorIntegration,
    LeaseHeldError,
    TaskCheckpointWrapper,
    TaskMaster,
    WorkerCheckpointIntegration,
)

WORKER = textwrap.dedent(
    """
    import os, signal, sys
    from ckptlog import CheckpointManager, TaskCheckpointWrapper

    store, task, worker, dies_at = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    manager = CheckpointManager(store)
    wrapper = TaskCheckpointWrapper(manager, task, "A task", worker, recover=True)
    done = list(wrapper.recovered.data["done"]) if wrapper.recovered else []
    wrapper.set_total_steps(4)
    for step in range(len(done) + 1, 5):
        done.append(step)
        wrapper.checkpoint(f"Step {step}", {"done": done})
        if step == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
    wrapper.complete_task({"by": worker})
    manager.close()
    """
)


def work(store: Path, task: str, worker: str, dies_at: int = 0) -> int:
    """Run a worker process to its end; return its exit status."""
    command = [sys.executable, "-c", WORKER, str(store), task, worker, str(dies_at)]
    return subprocess.run(command, check=False, timeout=60).returncode


def _orchestrate(manager: CheckpointManager) -> None:
    """Let the specification's integration set up, go on with, fail, recover and end a task."""
    integration = EnhancedOrchestratorIntegration(SimpleNamespace(checkpoint_manager=manager))
    context = SimpleNamespace(task_id="task", task_title="A task", data={"a": 1})
    integration.setup_task_checkpointing(context)
    integration.handle_task_progress(context, {"b": 2})
    integration.handle_task_progress(context, {"step_number": 2, "c": 3})
    integration.handle_task_failure(context, RuntimeError("no luck"))
    assert manager.can_recover_task("task")
    assert integration.handle_task_recovery(context) is True
    assert context.data == {"a": 1, "b": 2}
    integration.handle_task_completion(context)
    assert integration.handle_task_recovery(context) is False
    assert not manager.can_recover_task("task")


class TestCheckpointIntegration:
    """Integration tests for the checkpoint system."""

    def test_orchestrator_integration(self, tmp_path: Path) -> None:
        """An orchestrator gives a task whose worker died to another one, which finishes it."""
        store = tmp_path / "store"
        assert work(store, "job", "first", dies_at=2) == -9
        with CheckpointManager(store) as manager:
            assert manager.can_recover_task("job")
            point = manager.get_recovery_point("job")
            assert point is not None
            assert point.data == {"done": [1, 2]}
        assert work(store, "job", "second") == 0
        with CheckpointManager(store) as manager:
            assert not manager.can_recover_task("job")
            latest = manager.get_latest_checkpoint("job")
            assert latest is not None
            assert latest.data == {"done": [1, 2, 3, 4], "by": "second"}
            assert latest.state is CheckpointState.COMPLETED
            assert manager.validate_checkpoint_integrity() == []
            _orchestrate(manager)

    def test_worker_integration(self, tmp_path: Path) -> None:
        """Two workers at once on one store: each one's checkpoints are found by its id."""
        store = tmp_path / "store"
        command = [sys.executable, "-c", WORKER, str(store)]
        workers = [
            subprocess.Popen([*command, f"job-{name}", name, "0"]) for name in ("one", "two")
        ]
        assert [worker.wait(60) for worker in workers] == [0, 0]
        with CheckpointManager(store) as manager:
            for name in ("one", "two"):
                found = manager.get_checkpoints_by_worker(name)
                assert {one.task_id for one in found} == {f"job-{name}"}
                assert [one.step_number for one in found] == [1, 2, 3, 4]
            assert manager.validate_checkpoint_integrity() == []
            worker = WorkerCheckpointIntegration("three", manager)
            name = worker.start_task_execution("job-three", "A task")
            with pytest.raises(LeaseHeldError):
                WorkerCheckpointIntegration("four", manager).start_task_execution("job-three", "A")
            worker.update_execution_progress(name, {"done": [1]})
            worker.complete_task_execution(name, {"result": "good"})
            last = manager.get_checkpoint(name)
            assert last is not None
            assert last.data == {"done": [1], "result": "good"}
            other = worker.start_task_execution("job-four", "Another")
            worker.handle_execution_error(other, ValueError("no luck"))
            failed = manager.get_checkpoint(other)
            assert failed is not None
            assert failed.metadata["error_info"]["message"] == "no luck"

    def test_task_master_integration(self, tmp_path: Path) -> None:
        """The default directory lies beside Task Master's files and leaves them alone."""
        tasks = {"tasks": [{"id": 1, "title": "Parse", "status": "pending"}]}
        folder = tmp_path / ".taskmaster" / "tasks"
        folder.mkdir(parents=True)
        (folder / "tasks.json").write_text(json.dumps(tasks))
        with CheckpointManager(tmp_path / ".taskmaster" / "checkpoints") as manager:
            for task in tasks["tasks"]:
                with TaskCheckpointWrapper(manager, str(task["id"]), str(task["title"])) as steps:
                    steps.checkpoint("Read the grammar", {"rules": 12})
            latest = manager.get_latest_checkpoint("1")
            assert latest is not None
            assert latest.state is CheckpointState.COMPLETED
            assert json.loads((folder / "tasks.json").read_text()) == tasks
            master = TaskMaster(manager, folder / "tasks.json")
            (name,) = master.seed().values()
            worker = WorkerCheckpointIntegration("w", manager)
            assert worker.start_task_execution(master.task_id(1), "Parse") == name
            assert [one.after for one in master.sync()] == ["in-progress"]
            worker.complete_task_execution(name, {"rules": 12})
            assert [one.after for one in master.sync()] == ["done"]
        (task,) = json.loads((folder / "tasks.json").read_text())["tasks"]
        assert task == {"id": 1, "title": "Parse", "status": "done"}

    def test_event_system_integration(self, tmp_path: Path) -> None:
        """Every operation is an event, in order, also to a reader that has its own store."""
        store = tmp_path / "store"
        with CheckpointManager(store) as manager, ckptlog.open(store, read_only=True) as reader:
            name = manager.create_checkpoint("t", "T", 1)
            manager.update_checkpoint(name, data={"a": 1})
            manager.complete_checkpoint(name)
            manager.restore_checkpoint(name)
            manager.fail_checkpoint(name)
            manager.delete_checkpoint(name)
            seen = [(entry.position, entry.event.type) for entry in reader.events()]
        words = ["created", "updated", "completed", "restored", "failed", "deleted"]
        assert seen == list(enumerate(f"checkpoint.{word}" for word in words))
