"""Compaction beside SQLite's VACUUM: a store of which nine tenths were deleted.

Both hold the same values in the same order (random bytes, so that nothing is compressed), lose the
same nine of ten, and give the room back. Live bytes per second of each, and how large ours is
beside a fresh store with what is left.
Usage: tools/bench/run compact [--megabytes N] [--value-megabytes N] [--dir DIR]
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import time
from pathlib import Path
from typing import Any, Final

from ckptlog import CheckpointConfiguration, CheckpointManager
from tools.bench import measure

_KEEP_EACH: Final = 10


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000, help="bytes that are written")
    parser.add_argument("--value-megabytes", type=float, default=4.0)
    parser.add_argument("--dir")
    arguments = parser.parse_args()
    with measure.scratch(arguments.dir) as folder:
        measure.machine(folder)
        size = int(arguments.value_megabytes * 1e6)
        count = max(_KEEP_EACH, int(arguments.megabytes * 1e6) // size)
        ours, peer = ours_figures(folder, count, size), peer_figures(folder, count, size)
        report(ours, peer)


def ours_figures(folder: Path, count: int, size: int) -> dict[str, Any]:
    """Write, delete, compact; then write what is left into a fresh store."""
    path = folder / "ours"
    with CheckpointManager(path, config=_config(path)) as manager:
        made = [_create(manager, os.urandom(size), number) for number in range(count)]
        kept = made[::_KEEP_EACH]
        for identifier in set(made) - set(kept):
            manager.delete_checkpoint(identifier)
        before = _bytes(path)
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        manager.compact_checkpoint_storage()
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        found = [manager.get_checkpoint(identifier) for identifier in kept]
        values = [one.data["value"] for one in found if one is not None]
    after = _bytes(path)
    fresh = folder / "fresh"
    with CheckpointManager(fresh, config=_config(fresh)) as manager:
        for number, value in enumerate(values):
            _create(manager, value, number)
    live = len(kept) * size
    return {
        "before": before,
        "after": after,
        "fresh": _bytes(fresh),
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "live_mb_per_s": live / 1e6 / wall_s,
    }


def peer_figures(folder: Path, count: int, size: int) -> dict[str, Any]:
    """Do the same with a table of SQLite."""
    path = folder / "peer.sqlite"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("CREATE TABLE value (id INTEGER PRIMARY KEY, body BLOB)")
    for number in range(count):
        connection.execute("INSERT INTO value VALUES (?, ?)", (number, os.urandom(size)))
    connection.execute("DELETE FROM value WHERE id % ? <> 0", (_KEEP_EACH,))
    before = path.stat().st_size
    wall_s = time.perf_counter()
    connection.execute("VACUUM")
    wall_s = time.perf_counter() - wall_s
    connection.close()
    live = len(range(0, count, _KEEP_EACH)) * size
    return {
        "before": before,
        "after": path.stat().st_size,
        "wall_s": wall_s,
        "live_mb_per_s": live / 1e6 / wall_s,
    }


def report(ours: dict[str, Any], peer: dict[str, Any]) -> None:
    """Print figures and ratios."""
    for name, found in (("ckptlog compact", ours), ("SQLite VACUUM", peer)):
        print(
            f"{name:16} {found['before'] / 1e6:8.1f} -> {found['after'] / 1e6:7.1f} MB in "
            f"{found['wall_s']:.3f} s: {found['live_mb_per_s']:.0f} MB/s of live bytes"
        )
    print(f"CPU of ours: {ours['cpu_s']:.3f} s")
    print(f"ours : VACUUM   {ours['live_mb_per_s'] / peer['live_mb_per_s']:.2f} x as fast")
    print(f"ours : a fresh store with the same   {ours['after'] / ours['fresh']:.3f} of its bytes")


def _create(manager: CheckpointManager, value: bytes, number: int) -> str:
    return manager.create_checkpoint(f"t{number}", "T", 1, data={"value": value})


def _config(path: Path) -> CheckpointConfiguration:
    return CheckpointConfiguration(
        storage_dir=str(path), max_checkpoint_size_mb=64, cleanup_interval_hours=0
    )


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for part in ("log", "packs") for file in (path / part).iterdir())


if __name__ == "__main__":
    main()
