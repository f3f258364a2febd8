"""Run every check of the project, all of them even after one has failed, and sum up at the end.

ruff (rules and format), mypy, the layers, the tests under pytest with line coverage, and the
coverage floors of [tool.coverage_floor]. Runs inside `.venv`; started by tools/test. The tests
wait much (for processes, disks and clocks), so everything else runs beside them; what a check
printed there appears when it has ended.

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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
# One more than most machines have processors: the suite waits for disks, processes and clocks.
WORKERS = "3"
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


def lines_of(
    command: list[str], environment: dict[str, str], tell: Callable[[str], object]
) -> tuple[int, str]:
    """Run a command, tell each line as it comes; return its status and last telling line."""
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
            tell(line)
            if line.strip() and not line.startswith(ADVICE):
                last = line.strip()
    return process.returncode, last


def passed_on(text: str) -> None:
    """Print at one stroke, so that nothing of another check comes in between."""
    sys.stdout.write(text)
    sys.stdout.flush()


def check(
    name: str, command: list[str], environment: dict[str, str], *, is_beside: bool = False
) -> Outcome:
    """Run one check under a heading.

    Args:
        is_beside: Another one runs and prints meanwhile: print all of this one at its end.
    """
    words = [Path(part).name if part.startswith("/") else part for part in command]
    kept = [f"== {name}: {' '.join(words)}\n"]
    if not is_beside:
        passed_on(kept.pop())
    status, last = lines_of(command, environment, kept.append if is_beside else passed_on)
    passed_on("".join(kept))
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


# What is run once more without the kernel: the rooms that have a short way through it, but for
# the tests that compile it.
PURE = ["tests/kernel", "tests/model", "tests/policy", "--ignore=tests/kernel/test_build.py"]
START = "COVERAGE_PROCESS_START"


# Every Python process of the suite begins to measure by itself: coverage's own .pth reads the name
# of this file from the environment. `include` and not `source`: with `source` each of thousands of
# short processes would look at every file of the package when it ends. And no `sigterm`: its
# handler would stand where a user's process has none, and change what is tested.
MEASURED = f"""\
[run]
include = {ROOT}/ckptlog/*
parallel = true
disable_warnings = no-data-collected
"""
# Adds the files that no test has loaded: their lines count too.
REST = "import coverage; c = coverage.Coverage(); c.start(); c.stop(); c.save()"


def pytest(workers: str, *arguments: str) -> list[str]:
    """Return the command that runs tests."""
    options = ["-n", workers, "-q", "-rs", "--no-fold-skipped"]
    return [sys.executable, "-m", "pytest", *options, *arguments]


def check_the_rest(environment: dict[str, str], *, is_whole_suite: bool) -> list[Outcome]:
    """Run what is no part of the suite, one after the other, beside it."""
    python = sys.executable
    measured = environment
    environment = {name: environment[name] for name in environment if "COVERAGE" not in name}
    commands = {
        "ruff": [f"{BIN}/ruff", "check", "."],
        "format": [f"{BIN}/ruff", "format", "--check", "."],
        "layers": [python, "tools/layer_check.py"],
        "mypy": [python, "-m", "mypy"],
    }
    outcomes = [
        check(name, command, environment, is_beside=True) for name, command in commands.items()
    ]
    if is_whole_suite:
        pure = {**measured, "CKPTLOG_PURE": "1"}
        outcomes.append(check("pure", pytest("0", *PURE), pure, is_beside=True))
    return outcomes


def check_coverage(report: Path, environment: dict[str, str], *, is_whole_suite: bool) -> Outcome:
    """Bring together what every process has measured, and judge it."""
    environment = {name: environment[name] for name in environment if name != START}
    coverage = [sys.executable, "-m", "coverage"]
    for name, command in {
        "combine": [*coverage, "combine", "--quiet"],
        # Together they would be taken for one, where a process has measured nothing.
        "rest": [sys.executable, "-c", REST],
        "append": [*coverage, "combine", "--quiet", "--append"],
        "report": [*coverage, "report"],
        "json": [*coverage, "json", "--quiet", "-o", str(report)],
    }.items():
        print(f"== coverage: {name}", flush=True)
        if lines_of(command, environment, passed_on)[0] != 0:
            return Outcome("coverage", passed=False, summary=f"{name} failed")
    return judge_coverage(room_lines(report), is_whole_suite=is_whole_suite)


def check_all(arguments: list[str], environment: dict[str, str]) -> list[Outcome]:
    """Run the suite and all else beside it; then look at what was covered."""
    is_whole_suite = not [argument for argument in arguments if argument != "--thorough"]
    with (
        tempfile.TemporaryDirectory(prefix="ckptlog-coverage-") as name,
        ThreadPoolExecutor(1) as beside,
    ):
        # Absolute places outside the tree: tests start processes in folders of their own.
        folder = Path(name)
        settings = folder / "measured.ini"
        settings.write_text(MEASURED, encoding="utf-8")
        environment |= {"COVERAGE_FILE": f"{folder}/data", START: str(settings)}
        rest = beside.submit(check_the_rest, environment, is_whole_suite=is_whole_suite)
        tests = check("pytest", pytest(WORKERS, *arguments), environment)
        outcomes = [*rest.result(), tests]
        report = folder / "report.json"
        return [*outcomes, check_coverage(report, environment, is_whole_suite=is_whole_suite)]


def surrounding() -> dict[str, str]:
    """Return the environment of every check: programs of `.venv`, and compiled files are kept.

    Thousands of processes begin in a run: without compiled files each of them, and each worker
    for every test, compiles all that it imports.
    """
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def main(arguments: list[str]) -> int:
    """Run everything; exit status 1 if anything failed."""
    outcomes = check_all(arguments, surrounding())
    print("\n== summary")
    for outcome in outcomes:
        print(outcome)
    return 0 if all(outcome.passed for outcome in outcomes) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
