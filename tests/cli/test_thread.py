from __future__ import annotations

import json
import subprocess
import sys

from ckptlog.cli.entry import run as _run  # noqa: F401 - what the processes run
from ckptlog.integrations.langgraph import CkptlogSaver
from tests.integrations.langgraph.thread import config, put


def ckptlog(*arguments):
    command = [sys.executable, "-m", "ckptlog", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def fill(folder):
    with CkptlogSaver.open(folder) as saver:
        where = config("talk")
        for number in range(3):
            where = put(saver, where, {"n": number}, identifier=f"{number}", step=number)
        put(saver, config("x" * 250, "sub:1"), {"n": 1}, identifier="9", source="update")
        put(saver, config("gone"), {})
        saver.delete_thread("gone")
        saver.put_writes(config("early", "", "5"), [("n", 1)], "task")
        saver.manager.create_checkpoint("job", "A job", 1)


def test_threads_are_listed_and_jobs_are_not(tmp_path):
    fill(tmp_path)
    done = ckptlog("list", "--threads", "--json", "--store", tmp_path)
    assert done.returncode == 0
    found = {one["thread_id"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert set(found) == {"talk", "x" * 250}
    talk = found["talk"]
    assert (talk["checkpoints"], talk["latest"], talk["step"]) == (3, "2", 2)
    assert talk["task_id"] == "talk"
    assert found["x" * 250]["checkpoint_ns"] == "sub:1"
    done = ckptlog("list", "--threads", "--limit", 1, "--store", tmp_path)
    header, only = done.stdout.splitlines()
    assert header.split() == [
        "THREAD",
        "CHECKPOINTS",
        "LATEST",
        "STEP",
        "SOURCE",
        "UPDATED",
        "DATA",
    ]
    assert "9 (sub:1)" in only
    assert "showing 1 of 2" in done.stderr


def test_filters_of_checkpoints_are_refused_beside_it(tmp_path):
    fill(tmp_path)
    done = ckptlog("list", "--threads", "--task", "talk", "--store", tmp_path)
    assert done.returncode == 2
    assert "argument.invalid" in done.stderr


def test_the_commands_work_on_threads_without_langgraph(tmp_path):
    fill(tmp_path)
    hidden = "import sys; sys.modules.update({'langgraph': None, 'langchain_core': None});"
    for arguments in (
        ["list", "--threads"],
        ["list", "--task", "talk"],
        ["log", "--task", "talk"],
        ["audit"],
        ["verify"],
        ["watch", "--once", "--start", "beginning"],
    ):
        argv = ["ckptlog", *arguments, "--store", str(tmp_path)]
        code = f"{hidden} sys.argv = {argv!r}; from ckptlog.cli.entry import run; run()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, (arguments, done.stderr)
        assert done.stdout


def test_without_langgraph_the_saver_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['langgraph'] = None\n"
        "import ckptlog.integrations.langgraph as it\n"
        "try:\n    it.CkptlogSaver\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'pip install "ckptlog[langgraph]"' in done.stdout, done.stderr
