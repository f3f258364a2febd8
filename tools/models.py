"""Model-check the protocols: every run of specs/models/runs.toml, with spin and a C compiler.

    models.py [--long] [NAME ...]     one line a run; status 1 if one comes out otherwise

Each run is a verifier of its own, made by spin and compiled. It must visit every state: a search
that was cut short (depth, memory, time) says nothing, and counts as a fault.

Standard library alone; needs `spin` and `gcc` (Debian packages of these names).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "specs" / "models"
PROGRAMS = ("spin", "gcc")
# Far beyond what the models reach; the verifier says so where it is not.
_DEPTH = 100_000
_MEMORY_MB = 4000
_TIMEOUT_S = 1800
_COMPILE = ("gcc", "-w", "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={_MEMORY_MB}")
_UNREACHED = re.compile(
    r"unreached in (?:proctype )?(\w+)\n((?:\t.*\n)*?)\t\((\d+) of \d+ states\)"
)


class CheckError(Exception):
    """A model could not be checked; the message has what the program said."""


@dataclass(frozen=True)
class Run:
    """One question to spin; the fields of runs.toml."""

    name: str
    model: str
    flags: list[str] = field(default_factory=list)
    rule: str = ""
    fails: str = ""
    is_long: bool = False


@dataclass(frozen=True)
class Result:
    """What came out.

    states: Visited. is_exhaustive: Whether those are all. error: The assertion that was violated,
    or "". unreached: Statements that no state led to, by process.
    """

    states: int
    is_exhaustive: bool
    error: str
    unreached: dict[str, list[str]]
    seconds: float

    def fault(self, run: Run) -> str:
        """Say what is other than the run expects; "" where nothing is."""
        if run.fails:
            if not self.error:
                return "no counterexample"
            return "" if run.fails in self.error else f"another counterexample: {self.error}"
        if self.error:
            return f"a counterexample: {self.error}"
        return "" if self.is_exhaustive else "the search was cut short"


def runs() -> list[Run]:
    """Return all runs."""
    listed = tomllib.loads((FOLDER / "runs.toml").read_text(encoding="utf-8"))["run"]
    return [Run(**fields) for fields in listed]


def missing() -> list[str]:
    """Return the programs that are needed and not there."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def check(run: Run) -> Result:
    """Carry out one run.

    Raises:
        CheckError: A program failed, or took too long.
    """
    start_s = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(FOLDER / run.model, folder)
        _call(folder, "spin", *(f"-D{flag}" for flag in run.flags), "-a", run.model)
        # To compile a verifier well takes longer than a short run takes.
        _call(folder, *_COMPILE, "-O2" if run.is_long else "-O0", "-o", "pan", "pan.c")
        report = _call(folder, "./pan", f"-m{_DEPTH}")
    return _read(report, time.monotonic() - start_s)


def _call(folder: Path, *command: str) -> str:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CheckError(f"{command[0]} took more than {_TIMEOUT_S} s") from error
    output = done.stdout + done.stderr
    if done.returncode:
        raise CheckError(f"{command[0]} failed ({done.returncode}): {output[-2000:]}")
    return output


def _read(report: str, seconds: float) -> Result:
    states = re.search(r"(\d+) states, stored", report)
    error = re.search(r"^pan:1: (.*)$", report, re.MULTILINE)
    errors = re.search(r"errors: (\d+)", report)
    if not states or not errors:
        raise CheckError(f"The verifier's report cannot be read: {report[-2000:]}")
    is_cut = "max search depth too small" in report or "Search not completed" in report
    return Result(
        states=int(states[1]),
        is_exhaustive=not is_cut and "Full statespace search" in report,
        error=error[1] if error else ("an error without a name" if errors[1] != "0" else ""),
        unreached={
            name: re.findall(r"\t.*?(:\d+, .*)\n", lines)
            for name, lines, count in _UNREACHED.findall(report)
            if count != "0"
        },
        seconds=seconds,
    )


def main() -> int:
    """Check what was asked for, and print a line for each."""
    parser = argparse.ArgumentParser(description="Model-check specs/models with spin.")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--long", action="store_true", help="the long runs too")
    arguments = parser.parse_args()
    if lacking := missing():
        print(f"not here: {', '.join(lacking)} (apt-get install spin gcc)", file=sys.stderr)
        return 2
    known = {run.name: run for run in runs()}
    if unknown := [name for name in arguments.names if name not in known]:
        print(f"no such run: {', '.join(unknown)}", file=sys.stderr)
        return 2
    chosen = [known[name] for name in arguments.names] or [
        run for run in known.values() if arguments.long or not run.is_long
    ]
    status = 0
    for run in chosen:
        try:
            result = check(run)
            fault = result.fault(run)
            outcome = fault or (result.error if run.fails else "holds")
        except CheckError as error:
            print(f"{run.name}: {error}", file=sys.stderr)
            status = 1
            continue
        mark = "WRONG" if fault else "ok"
        figures = f"{result.states:>10,} states {result.seconds:6.1f} s"
        print(f"{mark:5} {run.name:28} {figures}  {outcome}", flush=True)
        status = 1 if fault else status
    return status


if __name__ == "__main__":
    raise SystemExit(main())
