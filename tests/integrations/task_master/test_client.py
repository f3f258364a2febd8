"""The real npm client, `task-master-ai`, reads what we wrote, and we read what it wrote.

It is installed once into a cache folder ($CKPTLOG_TASK_MASTER, or one in the temporary folder); that
takes some minutes, after which it needs no network.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from ckptlog import CheckpointManager, TaskMaster, WorkerCheckpointIntegration

VERSION = "0.43.1"
pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm"),
]


@pytest.fixture(scope="module")
def program():
    """Return the client's program, installed where it is not there yet."""
    given = os.environ.get("CKPTLOG_TASK_MASTER")
    folder = Path(given or Path(tempfile.gettempdir()) / f"ckptlog-task-master-{VERSION}")
    found = folder / "node_modules" / ".bin" / "task-master"
    if not found.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder)]
        done = subprocess.run(
            [*command, f"task-master-ai@{VERSION}"], capture_output=True, text=True, timeout=1200,
            check=False,
        )  # fmt: skip
        if done.returncode != 0:
            pytest.skip(f"task-master-ai cannot be installed: {done.stderr[-500:]}")
    return found


@pytest.fixture
def project(tmp_path):
    """A project with three tasks, one with subtasks, as the client makes them."""

    def task(number, **more):
        return {
            "id": number,
            "title": f"Task {number}",
            "description": f"About {number}",
            "status": "pending",
            "dependencies": [],
            "priority": "medium",
            "details": "",
            "testStrategy": "",
            "subtasks": [],
            **more,
        }

    below = [{**task(number), "title": f"Part {number}"} for number in (1, 2)]
    for one in below:
        del one["subtasks"]
    document = {
        "master": {
            "tasks": [task(1, subtasks=below, ours={"kept": [1, "ü"]}), task(2), task(3)],
            "metadata": {"created": "2025-01-01T00:00:00.000Z", "description": "Tasks"},
        },
        "feature": {"tasks": [task(1)], "metadata": {"created": "2025-01-01T00:00:00.000Z"}},
    }
    path = tmp_path / ".taskmaster" / "tasks" / "tasks.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(document, indent=2))
    return tmp_path, path


def run(program, project, *words):
    environment = {**os.environ, "CI": "1", "DO_NOT_TRACK": "1", "NO_COLOR": "1", "COLUMNS": "200"}
    done = subprocess.run(
        [str(program), *words], cwd=project, env=environment, capture_output=True, text=True,
        timeout=180, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def listed(program, project):
    """Return the statuses that the client tells, as JSON where it has that."""
    out = run(program, project, "list", "--with-subtasks", "--format", "json")
    found, _ = json.JSONDecoder().raw_decode(out[out.index("{") :])  # hints follow it
    told = {}
    for task in found["tasks"]:
        told[str(task["id"])] = task["status"]
        for one in task.get("subtasks") or ():
            told[f"{task['id']}.{one['id']}"] = one["status"]
    return told


def test_the_client_and_we_read_each_other(program, project):
    folder, path = project
    with CheckpointManager(folder / ".taskmaster" / "checkpoints") as manager:
        tasks = TaskMaster(manager, path)
        assert list(tasks.seed()) == ["1", "1.1", "1.2", "2", "3"]
        worker = WorkerCheckpointIntegration("w1", manager)
        worker.start_task_execution(tasks.task_id("2"), "Task 2")
        name = worker.start_task_execution(tasks.task_id("1.1"), "Part 1")
        worker.complete_task_execution(name, {"result": 1})
        assert {one.ref: one.after for one in tasks.sync()} == {"2": "in-progress", "1.1": "done"}
        told = listed(program, folder)
        assert told == {
            "1": "pending", "1.1": "done", "1.2": "pending", "2": "in-progress", "3": "pending",
        }  # fmt: skip

        # Now it writes, and we read: its ids have become texts, and it dates what it changed.
        run(program, folder, "set-status", "--id=3", "--status=cancelled")
        run(program, folder, "set-status", "--id=1.2", "--status=in-progress")
        found = {one.ref: one for one in tasks.tasks()}
        assert (found["3"].status, found["1.2"].status) == ("cancelled", "in-progress")
        assert found["1"].fields["ours"] == {"kept": [1, "ü"]}

        # What it decided stays, what is ours goes on, and it reads that again.
        manager.update_checkpoint(manager.get_latest_checkpoint("master/3").checkpoint_id)
        name = manager.get_latest_checkpoint("master/2").checkpoint_id
        worker.complete_task_execution(name, {"result": 2})
        before = json.loads(path.read_text())
        assert {one.ref: one.after for one in tasks.sync()} == {"2": "done"}
        after = json.loads(path.read_text())
        assert after["feature"] == before["feature"]
        told = listed(program, folder)
        assert (told["2"], told["3"]) == ("done", "cancelled")
        assert tasks.seed() == {}
