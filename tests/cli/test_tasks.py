"""`ckptlog tasks`: what a killed worker left, why it goes on there, and one who takes it."""

from __future__ import annotations

import signal
import subprocess
import sys

import msgspec
import pytest

from ckptlog import CheckpointManager
from ckptlog.model.lease import Grant

_WORKER = """
import os, signal, sys
from ckptlog import CheckpointManager
manager = CheckpointManager(sys.argv[1])
lease = manager.acquire_lease("resize", holder="w1", ttl_s=3600)
first = manager.create_checkpoint("resize", "Resize", 1, "", 3, {"done": 1}, lease=lease)
manager.complete_checkpoint(first, lease=lease)
second = manager.create_checkpoint("resize", "Resize", 2, "", 3, {"done": 2}, lease=lease)
manager.update_checkpoint(second, lease=lease)
third = manager.create_checkpoint("resize", "Resize", 3, "", 3, {"done": 3}, lease=lease)
manager.fail_checkpoint(third, {"type": "Broken"}, lease=lease)
print(second)
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def store(tmp_path):
    """A store, and the second checkpoint of a worker that was killed."""
    path = tmp_path / "store"
    worker = [sys.executable, "-c", _WORKER, str(path)]
    done = subprocess.run(worker, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return path, done.stdout.strip()


def test_nothing_was_interrupted(run, filled):
    with CheckpointManager(filled.path) as manager:
        for one in manager.find_interrupted_tasks(include_failed=True):
            manager.delete_task(one.task_id)
    ran = run("tasks", "--store", filled.path)
    assert (ran.status, ran.out, ran.err) == (0, "", "no task was interrupted\n")
    ran = run("tasks", "claim", "--next", "--json", "--store", filled.path)
    assert (ran.status, ran.error["code"]) == (3, "checkpoint.not_found")


def test_what_was_interrupted_is_listed_with_where_and_why(run, store):
    path, second = store
    assert run("tasks", "--json", "--store", path).lines == []  # its latest checkpoint failed
    (found,) = run("tasks", "list", "--failed", "--json", "--store", path).lines
    assert (found["task_id"], found["recovery_point"]) == ("resize", second)
    assert found["former_holder"] == "w1"  # the lease has not expired: its process is dead
    assert found["reason"] == "the latest active checkpoint whose data verifies"
    assert [one["state"] for one in found["candidates"]] == ["failed", "active"]
    head, row = run("tasks", "list", "--failed", "--store", path).out.splitlines()
    assert head.split()[:4] == ["TASK", "STEP", "STATE", "RECOVERY"]
    assert second in row
    assert row.endswith("whose data verifies")
    assert run("tasks", "list", "other-*", "--failed", "--store", path).out == ""
    assert run("tasks", "list", "re*", "--failed", "--store", path).out != ""
    assert run("tasks", "list", "--failed", "--quiet", "9999", "--store", path).out == ""
    limited = run("tasks", "list", "--failed", "--limit", "1", "--store", path)
    assert "there may be more" in limited.err


def test_a_task_is_shown_with_all_that_was_looked_at(run, store):
    path, second = store
    shown = run("tasks", "show", "resize", "--store", path)
    assert shown.status == 0
    assert f"recovery point  {second}" in shown.out
    assert "it failed; only taken if nothing else is left" in shown.out
    assert run("tasks", "show", "resize", "--json", "--store", path).document["attempts"] == []
    ran = run("tasks", "show", "none", "--json", "--store", path)
    assert (ran.status, ran.error["code"]) == (3, "checkpoint.not_found")


def test_a_claimed_task_goes_on_by_its_grant_after_the_command_has_ended(run, store):
    path, second = store
    words = ["tasks", "claim", "resize", "--failed", "--worker", "w2", "--json", "--store", path]
    program = [sys.executable, "-m", "ckptlog", *map(str, words)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    claimed = msgspec.json.decode(done.stdout)
    assert (claimed["action"], claimed["attempt"]) == ("retry", 1)
    assert claimed["checkpoint"]["data"] == {"done": 2}
    assert claimed["checkpoint"]["state"] == "restored"
    # The process that claimed it is gone, and the lease is not.
    again = run(*words)
    assert (again.status, again.error["code"]) == (4, "lease.held")
    assert run("tasks", "list", "--failed", "--store", path).out == ""
    held = run("tasks", "show", "resize", "--store", path)
    assert held.status == 3
    assert "'w2' holds it" in held.err
    with CheckpointManager(path) as manager:
        grant = msgspec.convert(claimed["lease"], Grant)
        name = claimed["checkpoint"]["checkpoint_id"]
        lease = manager.adopt_lease(grant)
        manager.complete_checkpoint(name, {"done": 3}, lease=lease)
        lease.release()
    assert second != name


def test_the_next_task_is_claimed_until_none_is_left(run, store):
    path, _ = store
    first = run("tasks", "claim", "--next", "--failed", "--worker", "w2", "--store", path)
    assert first.status == 0
    assert "w2" in first.out
    none = run("tasks", "claim", "--next", "--failed", "--json", "--store", path)
    assert (none.status, none.error["code"]) == (3, "checkpoint.not_found")


def test_who_had_its_tries_is_refused_and_the_task_given_up(run, store):
    path, _ = store
    words = ["tasks", "claim", "resize", "--failed", "--worker", "w2", "--json", "--store", path]
    assert run(*words).status == 0
    run("leases", "release", "resize", "--force", "--store", path)
    refused = run(*words, "--worker-attempts-max", "1")
    assert (refused.status, refused.error["code"]) == (4, "task.given_up")
    assert refused.error["context"]["action"] == "refuse"
    given_up = run(*words, "--attempts-max", "1")
    assert given_up.error["context"]["action"] == "give_up"
    assert run("tasks", "list", "--failed", "--store", path).out == ""


def test_wrong_words(run, store):
    path, _ = store
    for words in (["claim"], ["claim", "resize", "--next"], ["list", "--quiet", "x"]):
        assert run("tasks", *words, "--store", path).status == 2
    ran = run("tasks", "claim", "none", "--json", "--store", path)
    assert (ran.status, ran.error["code"]) == (3, "checkpoint.not_found")


def test_reading_changes_nothing(run, store):
    path, _ = store
    with CheckpointManager(path) as manager:
        before = manager.store.position
    run("tasks", "list", "--failed", "--store", path)
    run("tasks", "show", "resize", "--store", path)
    with CheckpointManager(path) as manager:
        assert manager.store.position == before
