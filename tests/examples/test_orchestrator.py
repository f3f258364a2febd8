"""The example runs, says what it promises, and goes on when it is killed anywhere."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys

import ckptlog
from ckptlog.model.event import LEASE_CLAIMED
from tests.architecture.tree import ROOT

STORY = ROOT / "tools" / "examples" / "orchestrator.py"
TASKS = ("count the stars", "name the winds", "map the coast", "mend the old engine")


def start(folder):
    command = [sys.executable, str(STORY), "--dir", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        start_new_session=True,
    )  # fmt: skip


def tell(folder):
    process = start(folder)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out


def check(folder):
    """What must hold of the store however it came to be: of each task one writer at a time."""
    with ckptlog.CheckpointManager(folder / "store") as manager:
        for task in TASKS[:3]:
            latest = manager.get_latest_checkpoint(task)
            assert [one.split()[0] for one in latest.data["done"]] == list("12345")
            assert latest.state.value == "completed"
        assert "gave up: 4 times" in manager.get_latest_checkpoint(TASKS[3]).step_description
        assert manager.find_interrupted_tasks(include_failed=True) == []
        tokens: dict[str, int] = {}
        for entry in manager.store.events():
            event = entry.event
            if event.type == LEASE_CLAIMED:
                assert event.facts["token"] > tokens.get(event.subject.task, -1)
                tokens[event.subject.task] = event.facts["token"]


def test_it_tells_its_story(tmp_path):
    out = tell(tmp_path)
    assert "was killed at 'mend the old engine'" in out
    assert "rests for a while (circuit open)" in out
    assert "goes on with 'mend the old engine' after step 1" in out
    assert "mend the old engine: gave up: 4 times without getting further" in out
    assert "The store agrees with its hashes: 0 problems" in out
    for task in TASKS[:3]:
        assert f"\n{task}: 1 by " in out
    check(tmp_path)


def test_interrupted_it_says_how_to_go_on(tmp_path):
    process = start(tmp_path)
    told = [process.stdout.readline() for _ in range(2)]
    assert told[0] == f"The store is {tmp_path / 'store'}\n"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers too
    out, err = process.communicate(timeout=240)
    assert process.returncode == 130, err
    assert out.endswith(f"Stopped. It goes on with --dir {tmp_path}\n")
    tell(tmp_path)
    check(tmp_path)


def test_killed_anywhere_it_goes_on(tmp_path):
    chance = random.Random(7)
    for _ in range(2):
        process = start(tmp_path)
        for _ in range(chance.randrange(2, 5)):
            process.stdout.readline()
        os.killpg(process.pid, signal.SIGKILL)  # the workers too
        process.communicate()
    assert "The store agrees with its hashes: 0 problems" in tell(tmp_path)
    check(tmp_path)
