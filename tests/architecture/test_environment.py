"""The environment is complete or made again; the interpreter is one that runs; checks sum up."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.architecture.tree import ROOT
from tools import check, environment


class Recorder:
    """Stands in for venv and pip: notes the calls, and fails where it is told to."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.failing = ""

    def make_venv(self) -> None:
        self.calls.append("venv")
        shutil.rmtree(environment.VENV, ignore_errors=True)
        environment.PYTHON.parent.mkdir(parents=True)
        environment.PYTHON.symlink_to(sys.executable)

    def install(self, extra: str) -> None:
        self.calls.append(f"install{extra}")
        if self.failing:
            raise subprocess.CalledProcessError(1, ["pip", self.failing])


@pytest.fixture
def project(tmp_path, monkeypatch):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    venv = tmp_path / ".venv"
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "VENV", venv)
    monkeypatch.setattr(environment, "STAMP", venv / "complete.json")
    monkeypatch.setattr(environment, "PYTHON", venv / "bin" / "python")
    monkeypatch.setattr(environment, "CONSTRAINTS", tmp_path / "constraints.txt")
    monkeypatch.setattr(sys, "argv", ["environment.py"])
    return tmp_path


@pytest.fixture
def recorder(project, monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(environment, "make_venv", recorder.make_venv)
    monkeypatch.setattr(environment, "install", recorder.install)
    return recorder


def test_a_complete_environment_is_left_alone(recorder):
    assert environment.main() == 0
    assert environment.main() == 0
    assert recorder.calls == ["venv", "install"]


def test_an_interrupted_install_is_made_again(recorder):
    recorder.failing = "msgspec"
    assert environment.main() == 1
    assert not environment.STAMP.exists()
    recorder.failing = ""
    assert environment.main() == 0
    assert recorder.calls == ["venv", "install", "venv", "install"]


@pytest.mark.parametrize("stamp", ["", "{", "[]", "{}", '{"place": "elsewhere"}', "3"])
def test_a_stamp_that_says_nothing_counts_for_nothing(recorder, stamp):
    environment.main()
    environment.STAMP.write_text(stamp)
    assert environment.main() == 0
    assert recorder.calls == ["venv", "install"] * 2


def test_a_moved_environment_is_made_again(recorder):
    environment.main()
    stamp = json.loads(environment.STAMP.read_text())
    environment.STAMP.write_text(json.dumps({**stamp, "place": "/old/.venv"}))
    environment.main()
    assert recorder.calls == ["venv", "install"] * 2


def test_a_dead_interpreter_is_replaced(recorder):
    environment.main()
    environment.PYTHON.unlink()
    environment.PYTHON.symlink_to("/nowhere/python3")
    environment.main()
    assert recorder.calls == ["venv", "install"] * 2


def test_new_constraints_update_in_place(recorder, project):
    environment.main()
    with (project / "constraints.txt").open("a") as constraints:
        constraints.write("other==1.0\n")
    environment.main()
    environment.main()
    assert recorder.calls == ["venv", "install", "install"]


def test_an_interrupted_update_is_made_again(recorder, project):
    environment.main()
    with (project / "constraints.txt").open("a") as constraints:
        constraints.write("other==1.0\n")
    recorder.failing = "other"
    assert environment.main() == 1
    recorder.failing = ""
    assert environment.main() == 0
    assert recorder.calls == ["venv", "install", "install", "venv", "install"]


def test_the_extra_is_added_once_and_kept(recorder, project):
    environment.prepare(with_tests=False)
    environment.prepare(with_tests=True)
    environment.prepare(with_tests=False)
    (project / "constraints.txt").write_text("# other\n")
    environment.prepare(with_tests=False)
    assert recorder.calls == ["venv", "install", "install[test]", "install[test]"]


def test_without_ensurepip_the_package_is_named(project, monkeypatch, capsys):
    monkeypatch.setattr(environment, "can_bootstrap", lambda: False)
    monkeypatch.setattr(environment, "is_superuser", lambda: False)
    assert environment.main() == 1
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"apt-get install python{version}-venv" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_named(project, monkeypatch, capsys):
    (project / ".venv.lock").mkdir()
    assert environment.main() == 1
    assert "must be writable" in capsys.readouterr().err


def test_a_missing_debian_package_names_what_is_skipped(monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    environment.prepare_debian()
    assert "skipping tests marked strace" in capsys.readouterr().err


def find_python(folder, **programs):
    """Source tools/interpreter.sh where PATH has some programs only; return what it finds."""
    for name, text in programs.items():
        path = folder / name.replace("_", ".")
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    (folder / "dirname").symlink_to(shutil.which("dirname"))
    tool = folder / "tools"
    tool.mkdir()
    shutil.copy(ROOT / "tools" / "interpreter.sh", tool)
    (tool / "run").write_text('. "$(dirname -- "$0")/interpreter.sh"\necho "$python"\n')
    shell = shutil.which("sh") or "sh"
    return subprocess.run(
        [shell, str(tool / "run")], env={"PATH": str(folder)}, capture_output=True, text=True
    )


REAL = f'exec "{sys.executable}" "$@"'


@pytest.mark.parametrize(
    ("programs", "found"),
    [
        ({"python3": REAL}, "python3"),
        ({"python3": REAL, "python3_12": REAL}, "python3"),
        ({"python3": "exit 127", "python3_12": "exit 127", "python3_11": REAL}, "python3.11"),
        # 3.9 fails each test that is put to it; one without ensurepip is the second choice.
        ({"python3": "exit 1", "python3_13": REAL}, "python3.13"),
        (
            {"python3": f'case "$*" in *ensurepip*) exit 1;; esac; {REAL}', "python3_12": REAL},
            "python3.12",
        ),
        ({"python3": f'case "$*" in *ensurepip*) exit 1;; esac; {REAL}'}, "python3"),
    ],
)
def test_an_interpreter_that_runs_is_found(tmp_path, programs, found):
    done = find_python(tmp_path, **programs)
    assert (done.stdout.strip(), done.stderr) == (found, "")


@pytest.mark.parametrize(
    ("programs", "words"),
    [
        ({}, "is: not found."),
        ({"python3": '[ "$1" = -V ] && echo Python 3.9.2'}, "is: Python 3.9.2."),
    ],
)
def test_without_an_interpreter_the_message_says_what_to_do(tmp_path, programs, words):
    done = find_python(tmp_path, **programs)
    assert done.returncode == 1
    assert words in done.stderr
    assert "CKPTLOG_PYTHON=" in done.stderr


@pytest.mark.parametrize("name", ["tools/run", "tools/test", ".ci/run"])
def test_the_commands_can_be_called(name):
    assert os.access(ROOT / name, os.X_OK)
    assert subprocess.run(["sh", "-n", str(ROOT / name)]).returncode == 0


def test_lines_are_summed_up_by_room(tmp_path):
    def file(covered, lines):
        return {"summary": {"covered_lines": covered, "num_statements": lines}}

    report = tmp_path / "report.json"
    files = {
        "ckptlog/errors.py": file(9, 10),
        "ckptlog/log/log.py": file(3, 4),
        str(tmp_path / "ckptlog/log/scan.py"): file(2, 6),
    }
    report.write_text(json.dumps({"files": files}))
    assert check.room_lines(report) == {"errors": (9, 10), "log": (5, 10)}


@pytest.mark.parametrize(
    ("run", "is_whole_suite", "passed"), [(95, True, True), (94, True, False), (94, False, True)]
)
def test_a_room_below_its_floor_fails_the_whole_suite(capsys, run, is_whole_suite, passed):
    outcome = check.judge_coverage({"log": (run, 100)}, is_whole_suite=is_whole_suite)
    assert outcome.passed is passed
    assert ("below" in capsys.readouterr().out) == (run < 95)


def test_a_check_that_fails_is_told_with_its_last_line(capsys):
    script = "print('Found 3 errors.'); print('[*] 2 fixable'); print(); raise SystemExit(1)"
    outcome = check.check("ruff", [sys.executable, "-c", script], dict(os.environ))
    assert (outcome.passed, outcome.summary) == (False, "Found 3 errors.")
    assert str(outcome).startswith("FAILED  ruff")
