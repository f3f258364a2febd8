"""Run every check of the project, all of them even after one has failed, and sum up at the end.

ruff (rules and format), mypy, the layers, the tests under pytest with line coverage, and the
coverage floors of [tool.coverage_floor]. Runs inside `.venv`; started by tools/test.

Usage: check.py [--thorough] [PYTEST ARGUMENT ...]
With arguments of pytest's, a part of the suite runs, so the floors are printed but not enforced.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
# Two at once: the suite also starts processes of its own.
WORKERS = "2"
# How ruff begins lines after its verdict.
ADVICE = ("[*]", "No fixes available")


@dataclass(frozen=True)
class Outcome:
    """What one check came to."""

    name: str
    passed: bool
    summary: str

    def __str__(self) -> str:
        return f"{'ok    ' if self.passed else 'FAILED'}  {self.name:<12} {self.summary}".rstrip()


def stream(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a command, pass its output on as it comes; return its status and last telling line."""
    last = ""
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            if line.strip() and not line.startswith(ADVICE):
                last = line.strip()
    return process.returncode, last


def check(name: str, command: list[str], environment: dict[str, str]) -> Outcome:
    """Run one check under a heading."""
    words = [Path(part).name if part.startswith("/") else part for part in command]
    print(f"== {name}: {' '.join(words)}")
    status, last = stream(command, environment)
    return Outcome(name, status == 0, last.strip("= "))


def room_lines(report: Path) -> dict[str, tuple[int, int]]:
    """Sum a coverage report in JSON up: room -> (lines run, lines)."""
    rooms: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for name, file in json.loads(report.read_text(encoding="utf-8"))["files"].items():
        parts = Path(name).parts
        room = parts[parts.index("ckptlog") + 1].removesuffix(".py")
        run, lines = rooms[room]
        summary = file["summary"]
        rooms[room] = (run + summary["covered_lines"], lines + summary["num_statements"])
    return dict(rooms)


def judge_coverage(rooms: dict[str, tuple[int, int]], *, is_whole_suite: bool) -> Outcome:
    """Print the figure of each room beside its floor; fail where one is below."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    floors = settings["tool"]["coverage_floor"]
    below = []
    print(f"{'room':<14}{'lines':>7}{'run':>8}{'floor':>7}")
    for room, (run, lines) in sorted(rooms.items()):
        percent = 100.0 * run / lines if lines else 100.0
        floor = floors.get(room, 0)
        if percent < floor:
            below.append(room)
        mark = "  below" if percent < floor else ""
        print(f"{room:<14}{lines:>7}{percent:>7.1f}%{floor:>6}%{mark}")
    total = sum(lines for _, lines in rooms.values())
    percent = 100.0 * sum(run for run, _ in rooms.values()) / max(total, 1)
    summary = f"{percent:.1f}% of {total} lines"
    if below and is_whole_suite:
        summary += f"; below the floor: {', '.join(below)}"
    if not is_whole_suite:
        summary += "; a part of the suite ran, floors not enforced"
    return Outcome("coverage", not (below and is_whole_suite), summary)


# What is run once more without the kernel: the rooms that have a short way through it.
PURE = ["tests/kernel", "tests/model", "tests/policy"]


def check_tests(arguments: list[str], environment: dict[str, str]) -> list[Outcome]:
    """Run pytest under coverage in every process; return the outcomes of both."""
    is_whole_suite = not [argument for argument in arguments if argument != "--thorough"]
    coverage = [sys.executable, "-m", "coverage"]
    with tempfile.TemporaryDirectory(prefix="ckptlog-coverage-") as folder:
        # An absolute place outside the tree: tests start processes in folders of their own.
        environment = {**environment, "COVERAGE_FILE": f"{folder}/data"}
        tests = ["-m", "pytest", "-n", WORKERS, "-q", "-rs", "--no-fold-skipped", *arguments]
        outcome = check("pytest", [*coverage, "run", *tests], environment)
        outcomes = [outcome]
        if is_whole_suite:
            pure = {**environment, "CKPTLOG_PURE": "1"}
            outcomes.insert(0, check("pure", [*coverage, "run", *tests[:5], *PURE], pure))
        report = Path(folder) / "report.json"
        for step in (["combine", "--quiet"], ["report"], ["json", "--quiet", "-o", str(report)]):
            print(f"== coverage: {step[0]}")
            if stream([*coverage, *step], environment)[0] != 0:
                return [*outcomes, Outcome("coverage", passed=False, summary=f"{step[0]} failed")]
        coverage_found = judge_coverage(room_lines(report), is_whole_suite=is_whole_suite)
        return [coverage_found, *outcomes]


def main(arguments: list[str]) -> int:
    """Run everything; exit status 1 if anything failed."""
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"}
    python = sys.executable
    outcomes = [
        check("ruff", [f"{BIN}/ruff", "check", "."], environment),
        check("format", [f"{BIN}/ruff", "format", "--check", "."], environment),
        check("mypy", [python, "-m", "mypy"], environment),
        check("layers", [python, "tools/layer_check.py"], environment),
    ]
    outcomes += check_tests(arguments, environment)
    print("\n== summary")
    for outcome in outcomes:
        print(outcome)
    return 0 if all(outcome.passed for outcome in outcomes) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
