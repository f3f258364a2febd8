"""Try CkptlogSaver with several versions of LangGraph, each in an environment of its own.

    langgraph_versions.py [LANGGRAPH/CHECKPOINT[/CORE] ...]      for example 1.2/4.3 0.6/2.1/0.3

The numbers are minor versions of langgraph, langgraph-checkpoint and langchain-core (the newest
that fits, where it is left out). ckptlog is built from this tree; the rest comes from the registry
that pip is configured for. Everything is made in a temporary directory.

Exit status 0: all of it works (`-`: that version has no such thing), 1: something does not.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROBE = ROOT / "tools" / "langgraph_probe.py"
STORY = ROOT / "tools" / "examples" / "newsletter.py"
PACKAGES = ("langgraph", "langgraph-checkpoint", "langchain-core")
# Those that specs/langgraph.md names.
SEEN = (
    *("1.2/4.3", "1.2/4.2", "1.2/4.1", "1.1/4.1", "1.1/4.0", "1.0/3.0", "1.0/2.1"),
    *("0.6/2.1", "0.6/2.1/0.3"),
)
PARTS = ("methods", "asynchronous", "graph", "types", "migration", "conformance")
COLUMNS = (*PARTS, "newsletter")
ABSENT = 3

Command = list[str | Path]


@dataclass
class Row:
    """What came of one combination.

    versions: What pip chose. results: A word for each of COLUMNS. faults: Last lines of errors.
    """

    versions: list[str]
    results: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def combination(text: str) -> list[str]:
    """Return the requirements that an argument stands for.

    Raises:
        ArgumentTypeError: It is no LANGGRAPH/CHECKPOINT[/CORE].
    """
    if not re.fullmatch(r"\d+\.\d+/\d+\.\d+(/\d+\.\d+)?", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no LANGGRAPH/CHECKPOINT[/CORE], such as 1.2/4.3"
        )
    wanted = zip(PACKAGES, text.split("/"), strict=False)
    return [f"{package}=={number}.*" for package, number in wanted]


def arguments_of(words: Sequence[str]) -> list[list[str]]:
    """Return the combinations to try, as requirements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "combinations",
        metavar="LANGGRAPH/CHECKPOINT[/CORE]",
        nargs="*",
        type=combination,
        help=f"minor versions (default: {' '.join(SEEN)})",
    )
    given: list[list[str]] = parser.parse_args(words).combinations
    return given or [combination(text) for text in SEEN]


def run(command: Command, folder: Path) -> tuple[int, str, str]:
    """Run a program; return its status, what it printed, and the last line of its errors."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    lines = done.stderr.strip().splitlines() or done.stdout.strip().splitlines()
    return done.returncode, done.stdout, lines[-1] if lines else ""


def build(folder: Path) -> Path:
    """Return the wheel of this tree.

    Raises:
        SystemExit: It cannot be built.
    """
    pip: Command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT]
    status, _, told = run(pip, folder)
    if status:
        raise SystemExit(f"the wheel cannot be built: {told}")
    return next(folder.glob("ckptlog-*.whl"))


def install(requirements: list[str], wheel: Path, folder: Path) -> Path:
    """Make an environment and return its Python.

    Raises:
        RuntimeError: pip finds no such versions, or none that fit together.
    """
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    constraints = folder / "constraints.txt"
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    constraints.write_text("\n".join(line for line in pinned if not line.startswith("lang")))
    python = folder / "venv" / "bin" / "python"
    pip: Command = [python, "-m", "pip", "install", "-q", "-c", constraints]
    needed = [*requirements, "langgraph-checkpoint-conformance", "numpy"]
    commands: list[Command] = [
        [sys.executable, "-m", "venv", folder / "venv"],
        [*pip, *needed, *settings["project"]["dependencies"]],
        [*pip, "--no-deps", wheel],  # the bound of its extra is what is tried here
    ]
    for command in commands:
        status, _, told = run(command, folder)
        if status:
            raise RuntimeError(told)
    return python


def judge(requirements: list[str], wheel: Path, folder: Path) -> Row:
    """Try one combination."""
    try:
        python = install(requirements, wheel, folder)
    except RuntimeError as error:
        return Row(requirements, ["FAILED"] * len(COLUMNS), [f"not installed: {error}"])
    status, printed, told = run([python, PROBE, "versions"], folder)
    if status:
        return Row(requirements, ["FAILED"] * len(COLUMNS), [f"not imported: {told}"])
    row = Row(printed.split())
    for name in COLUMNS:
        command: Command = [python, PROBE, name] if name in PARTS else [python, STORY]
        status, _, told = run(command, folder)
        is_absent = status == ABSENT and name in PARTS
        row.results.append("-" if is_absent else "FAILED" if status else "ok")
        if row.results[-1] == "FAILED":
            row.faults.append(f"{name}: {told}")
    return row


def line(cells: Sequence[str]) -> str:
    """Lay out a line of the table."""
    return " ".join(f"{cell:<14}" for cell in cells).rstrip()


def main() -> int:
    """Try them all; the table grows as they are done."""
    wanted = arguments_of(sys.argv[1:])
    has_failed = False
    with tempfile.TemporaryDirectory(prefix="langgraph-versions-") as name:
        wheel = build(Path(name))
        print(line([package.removeprefix("langgraph-") for package in PACKAGES] + list(COLUMNS)))
        for requirements in wanted:
            with tempfile.TemporaryDirectory(dir=name) as folder:
                row = judge(requirements, wheel, Path(folder))
            versions = [*row.versions, ""][: len(PACKAGES)]
            print(line([*versions, *row.results]), flush=True)
            for fault in row.faults:
                print(f"    {fault}", flush=True)
            has_failed |= bool(row.faults)
    return int(has_failed)


if __name__ == "__main__":
    raise SystemExit(main())
