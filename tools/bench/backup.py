"""A backup beside `cp -r` and `sync` of the same store, first and incremental; archives.

Each round makes both anew, in turn, on the same disk; a ratio is the median over the rounds. A
backup reads, checks every frame, hashes and syncs; `cp` only copies, and is synced afterwards.
Usage: tools/bench/run backup [--megabytes N] [--events N] [--rounds N] [--dir DIR]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import ckptlog
from ckptlog import CheckpointManager


def fill(path: Path, megabytes: int, events: int) -> None:
    """Make a store with large values (packs) and many small checkpoints."""
    with CheckpointManager(path) as manager:
        for number in range(1, max(1, megabytes // 6) + 1):
            manager.create_checkpoint("large", "L", number, data={"x": os.urandom(6_000_000)})
        for start in range(0, events, 500):
            with manager.batch() as batch:
                for number in range(start, min(events, start + 500)):
                    task = f"task-{number % 100}"
                    batch.create_checkpoint(task, "T", 1, data={"n": number, "t": f"{number}" * 40})


def timed(act: Callable[[], object]) -> float:
    """Return the seconds that an act takes."""
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin


def copied(source: Path, target: Path) -> None:
    """Copy a store's own files as a person would, and sync the file system."""
    target.mkdir()
    for name in ("log", "packs", "store.json"):
        subprocess.run(["cp", "-r", source / name, target], check=True)
    subprocess.run(["sync", "-f", target], check=True)


def run(folder: Path, megabytes: int, events: int, rounds: int) -> None:
    """Measure and print."""
    source = folder / "store"
    fill(source, megabytes, events)
    ratios, speeds, again = [], [], []
    with ckptlog.open(source) as store:
        total = sum(
            path.stat().st_size for path in source.rglob("*.*") if "views" not in path.parts
        )
        for _ in range(rounds):
            for name in ("b", "c"):
                shutil.rmtree(folder / name, ignore_errors=True)
            ours = timed(lambda: store.backup(folder / "b"))
            theirs = timed(lambda: copied(source, folder / "c"))
            ratios.append(theirs / ours)
            speeds.append(total / ours / 1e6)
            again.append(timed(lambda: store.backup(folder / "b")))
        print(f"store: {total / 1e6:.0f} MB, {store.position:,} events")
        print(f"first backup: {statistics.median(speeds):.0f} MB/s, "
              f"{statistics.median(ratios):.2f} of the speed of cp -r and sync")  # fmt: skip
        print(f"backup with nothing new: {statistics.median(again) * 1000:.1f} ms")
        archive = folder / "a.ckpt"
        seconds = timed(lambda: store.export_archive(["task-1"], archive))
        print(f"export of 1 of 100 tasks: {seconds:.2f} s, {archive.stat().st_size:,} bytes")
        seconds = timed(lambda: ckptlog.verify_archive(archive))
        print(f"verifying it: {seconds * 1000:.1f} ms")
    with ckptlog.open(folder / "other", create=True) as other:
        report = ckptlog.import_archive(other, archive)
        seconds = timed(lambda: ckptlog.import_archive(other, archive))
        print(
            f"import: {report.imported:,} events; again, with nothing new: {seconds * 1000:.1f} ms"
        )
    seconds = timed(lambda: ckptlog.restore_store(folder / "b", folder / "r"))
    print(f"restore-store with a full verification: {total / seconds / 1e6:.0f} MB/s")


def main() -> None:
    """Parse the arguments and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=256, help="of large values")
    parser.add_argument("--events", type=int, default=100_000, help="small checkpoints")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", help="where to work (default: a temporary directory)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ckptlog-bench-", dir=options.dir))
    try:
        run(folder, options.megabytes, options.events, options.rounds)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
