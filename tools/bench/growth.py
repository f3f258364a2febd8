"""Memory while many checkpoints are written one by one, by ckptlog and by SqliteSaver.

Each writes in a process of its own. Growth counts from the hundredth checkpoint (everything is
loaded by then) to the largest that was seen afterwards.
Usage: tools/bench/run growth [--checkpoints N] [--dir DIR]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ckptlog import CheckpointManager
from tools.bench import measure, peer
from tools.bench.create import create
from tools.bench.workload import SmallWorkload

WARM = 100
_EVERY = 500


def main() -> None:
    """Start one process for each contestant, or be one of them."""
    parser = argparse.ArgumentParser(description="Memory while many checkpoints are written.")
    parser.add_argument("--checkpoints", type=int, default=100_000)
    parser.add_argument("--dir", help="measure in this directory's file system")
    parser.add_argument("--in-process", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_process:
        who, folder = options.in_process
        print(json.dumps(_write(who, Path(folder), options.checkpoints)))
        return
    with measure.scratch(options.dir) as folder:
        measure.machine(folder, *peer.PACKAGES)
        report(folder, options.checkpoints)


def report(folder: Path, checkpoints: int) -> None:
    """Print the growth of each beside the target."""
    measure.heading(f"memory (RSS) while {checkpoints:,} checkpoints are created")
    for who, most in (("ckptlog", 30), ("SqliteSaver", 0)):
        found = run(who, folder, checkpoints)
        note = f"{found['before_mb']:.1f} MB before, at most {found['most_mb']:.1f} MB"
        growth = found["most_mb"] - found["before_mb"]
        measure.judge(f"{who}: growth", growth, note, most=most, unit=" MB")


def run(who: str, folder: Path, checkpoints: int) -> dict[str, float]:
    """Let one contestant write in a process of its own; return its memory in MB."""
    command = [sys.executable, "-m", "tools.bench.growth", "--checkpoints", str(checkpoints)]
    done = subprocess.run(
        [*command, "--in-process", who, str(folder)],
        cwd=measure.ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _write(who: str, folder: Path, checkpoints: int) -> dict[str, float]:
    workload = SmallWorkload()
    write, close = _ours(folder) if who == "ckptlog" else _saver(folder)
    before = most = 0
    for number in range(checkpoints + WARM):
        write(workload)
        if number == WARM:
            before = measure.rss_bytes()
        if number % _EVERY == 0:
            most = max(most, measure.rss_bytes())
    close()
    return {"before_mb": before / 1e6, "most_mb": most / 1e6}


def _ours(folder: Path) -> tuple[Callable[[SmallWorkload], Any], Callable[[], None]]:
    manager = CheckpointManager(folder / "growth")
    return lambda workload: create(manager, *workload.take(1)), manager.close


def _saver(folder: Path) -> tuple[Callable[[SmallWorkload], Any], Callable[[], None]]:
    saver = peer.SaverPeer(folder / "growth.sqlite")
    return lambda workload: saver.put(*saver.prepare_small(workload.take(1))), saver.close


if __name__ == "__main__":
    main()
