"""The hooks of specs/agent-hooks.md do what the page says: the shell runs them as programs do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from tests.architecture.tree import ROOT

PAGE = (ROOT / "specs" / "agent-hooks.md").read_text()
FILES = re.findall(
    r"^## .*?`(\.\w+/\w+\.json)`\n\n```json\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL
)


def commands(value):
    """Yield every command in a configuration."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "command":
                yield inner
            else:
                yield from commands(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from commands(inner)


HOOKS = [(name, command) for name, text in FILES for command in commands(json.loads(text))]


@pytest.fixture
def project(tmp_path):
    """Give a git repository whose path has a blank, and a PATH with this ckptlog on it."""
    programs, folder = tmp_path / "bin", tmp_path / "my project"
    programs.mkdir()
    program = programs / "ckptlog"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ckptlog "$@"\n')
    program.chmod(0o755)
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "a").write_text("first")
    subprocess.run(["git", "init", "-q", folder], check=True)
    return programs, folder


def run(project, command):
    programs, folder = project
    environ = {
        **{name: text for name, text in os.environ.items() if name != "CKPTLOG_STORE"},
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "CLAUDE_PROJECT_DIR": str(folder),
        "GEMINI_PROJECT_DIR": str(folder),
    }
    return subprocess.run(
        ["sh", "-c", command],
        input='{"hook_event_name": "PostToolUse"}',
        cwd=folder / "src",
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_program_has_its_hooks():
    assert [name.partition("/")[0] for name, _ in FILES] == [
        ".claude",
        ".gemini",
        ".codex",
        ".cursor",
    ]
    assert len(HOOKS) == 2 * len(FILES)


@pytest.mark.parametrize("command", dict.fromkeys(command for _, command in HOOKS))
def test_a_hook_captures_and_is_silent(project, command):
    done = run(project, command)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    store = project[1] / ".ckptlog"
    assert (store / "store.json").is_file()
    listed = run(project, "ckptlog rewind .. --list --json")
    (found,) = [json.loads(line) for line in listed.stdout.splitlines()]
    assert found["tags"] == (["turn"] if "--tag turn" in command else [])
    status = subprocess.run(
        ["git", "-C", project[1], "status", "--short"], capture_output=True, text=True, check=True
    )
    assert status.stdout == "?? src/\n"


def test_a_hook_that_fails_stops_nobody(project):
    _, command = HOOKS[0]
    (project[1] / ".ckptlog").mkdir()
    (project[1] / ".ckptlog" / "store.json").write_text("damaged")
    done = run(project, command)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr
    done = run(project, command.replace("$CLAUDE_PROJECT_DIR", "$NOT_SET"))
    assert (done.returncode, done.stdout) == (1, "")  # by itself: 2
