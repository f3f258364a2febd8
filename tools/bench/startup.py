"""What it costs to start: importing, the command line, and which heavy modules are loaded.

Modules are compiled beforehand, as an installation does; the first start of each does not count.
Usage: tools/bench/run startup [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from tools.bench import measure
from tools.bench.measure import Contestant

HEAVY = (
    "numpy",
    "pyarrow",
    "cryptography",
    "watchfiles",
    "rich",
    "shtab",
    "asyncio",
    "sqlite3",
    "zstandard",
    "msgspec",
    "blake3",
    "pyfastcdc",
)
PROGRAM = Path(sys.executable).with_name("ckptlog")
HELP = "import sys; sys.argv[1:] = ['--help']; from ckptlog.cli.main import main; main()"
USE = (
    "import tempfile, ckptlog\n"
    "with tempfile.TemporaryDirectory() as folder:\n"
    "    with ckptlog.CheckpointManager(folder) as manager:\n"
    "        manager.create_checkpoint('task', 'Title', 1, data={'a': 1})\n"
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What it costs to start.")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    measure.machine(measure.ROOT, "langgraph-checkpoint-sqlite")
    bare = _python("bare Python", "pass")
    imported = _python("import ckptlog", "import ckptlog")
    manager = _python("import CheckpointManager", "from ckptlog import CheckpointManager")
    page = _starting("ckptlog --help", [str(PROGRAM), "--help"])
    saver = _python("import SqliteSaver", "from langgraph.checkpoint.sqlite import SqliteSaver")
    contestants = [bare, imported, manager, page, saver]
    for one in contestants:
        one.run()
    measure.alternate(contestants, options.rounds)
    measure.heading("starting a process")
    measure.table(contestants)
    measure.heading("figures (median of the rounds' differences)")
    measure.judge("import ckptlog, over bare Python", _over(imported, bare), most=60, unit=" ms")
    measure.judge("import CheckpointManager, over bare Python", _over(manager, bare), unit=" ms")
    measure.judge("import SqliteSaver, over bare Python", _over(saver, bare), unit=" ms")
    measure.judge("ckptlog --help, the whole process", page.p50_s * 1e3, most=120, unit=" ms")
    measure.heading("of the heavier modules, these are loaded by")
    for name, script in (
        ("import ckptlog", "import ckptlog"),
        ("ckptlog --help", HELP),
        ("import CheckpointManager", "from ckptlog import CheckpointManager"),
        ("creating one checkpoint", USE),
    ):
        print(f"  {name:<28}{', '.join(_loaded(script)) or 'none'}")


def _python(name: str, script: str) -> Contestant:
    return _starting(name, [sys.executable, "-c", script])


def _starting(name: str, command: list[str]) -> Contestant:
    def start(command: list[str]) -> None:
        subprocess.run(command, env=_environment(), check=True, stdout=subprocess.DEVNULL)

    return Contestant(name, lambda: measure.timed(start, [command]))


def _environment() -> dict[str, str]:
    """Return the environment, with leave to keep compiled modules."""
    return {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _over(one: Contestant, other: Contestant) -> float:
    pairs = zip(one.rounds, other.rounds, strict=True)
    return statistics.median(a.p50_s - b.p50_s for a, b in pairs) * 1e3


def _loaded(script: str) -> list[str]:
    tell = f"\nimport sys, json\nprint(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", script + tell], check=True, capture_output=True, text=True
    )
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
