"""README.md does what it says: its programs and commands run, in order, and print what it shows."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command

from tests.architecture.tree import ROOT
from tests.docs.markdown import Step, blocks, pattern, plain, steps
from tests.integrations.langgraph.test_graph import QUESTION, build
from tests.integrations.langgraph.thread import config

PAGE = ROOT / "README.md"
TOOLS = ("tools/run", "tools/test")
# The page says that this line is left out.
WHICH_STORE = re.compile(r"^store .* \(found from here upwards\)\n", re.MULTILINE)


@pytest.fixture(scope="module")
def surrounding(tmp_path_factory):
    """Give a new directory with what the page mentions, and a PATH with this ckptlog on it."""
    folder = tmp_path_factory.mktemp("readme")
    programs, project = folder / "bin", folder / "project"
    for path in (programs, project / "old-checkpoints" / "active", folder / "temporary"):
        path.mkdir(parents=True)
    program = programs / "ckptlog"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ckptlog "$@"\n')
    program.chmod(0o755)
    shutil.copy(ROOT / "ckptlog" / "cli" / "demo_transcript.json", project / "run.traj")
    old = project / "old-checkpoints" / "active" / "checkpoint_cp_old_1_1700000000.json"
    old.write_text(json.dumps(_old_checkpoint()))
    _old_threads(project / "threads.sqlite")
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(folder / "temporary"),
        "LC_ALL": "C.UTF-8",
    }
    environment.pop("CKPTLOG_STORE", None)
    return project, environment


def _old_checkpoint():
    return {
        "checkpoint_id": "cp_old_1_1700000000",
        "task_id": "old",
        "task_title": "An old task",
        "state": "active",
        "step_number": 1,
        "total_steps": None,
        "step_description": "begin",
        "data": {"a": 1},
        "metadata": {},
        "created_at": "2025-01-01T00:00:00",
        "updated_at": "2025-01-01T00:00:00",
        "worker_id": None,
        "parent_checkpoint_id": None,
    }


def _old_threads(path):
    """Let a graph leave a thread in a SqliteSaver."""
    with SqliteSaver.from_conn_string(str(path)) as saver:
        graph = build(saver)
        graph.invoke(QUESTION, config("talk"))
        graph.invoke(Command(resume=True), config("talk"))


def _command(step: Step) -> list[str]:
    if step.language == "python":
        return [sys.executable, "-c", step.source]
    # tools/run installs things; here its job runs in this interpreter.
    source = re.sub(r"^tools/run\b", "ckptlog demo", step.source)
    return ["sh", "-c", source]


def test_everything_runs_in_order(surrounding):
    project, environment = surrounding
    found = [step for step in steps(PAGE) if step.source != "tools/test"]
    for step in found:
        done = subprocess.run(
            _command(step),
            cwd=project,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        place = f"README.md:{step.line}: {step.source.splitlines()[0]}\nprinted:\n{done.stdout}"
        assert done.returncode == 0, place
        if step.printed is not None:
            printed = plain(WHICH_STORE.sub("", done.stdout))
            assert pattern(step.printed).fullmatch(printed), place


def test_what_is_shown_is_worth_running():
    languages = {block.language for block in blocks(PAGE)}
    assert languages == {"console", "python", "text"}
    commands = {
        step.source.split()[1] for step in steps(PAGE) if step.source.startswith("ckptlog ")
    }
    wanted = "init list show log history diff restore replay verify stats doctor import cleanup"
    assert commands >= {*wanted.split(), "audit", "bisect", "files"}


@pytest.mark.parametrize("name", TOOLS)
def test_the_two_commands_can_be_started(name):
    assert name in PAGE.read_text(encoding="utf-8")
    assert os.access(ROOT / name, os.X_OK)


def test_links_lead_somewhere():
    for page in (PAGE, ROOT / "CHANGELOG.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), f"{page.name}: {target}"


def test_the_comparison_sees_differences():
    assert pattern("a ... 12 B").fullmatch(plain("a  b c  99.5 KB"))
    assert not pattern("ok: 14 events").fullmatch(plain("ok: 15 events"))
    assert not pattern("one").fullmatch(plain("one\ntwo"))
    assert pattern("one\n...").fullmatch(plain("one\ntwo"))
