"""Captures a SQLite database of which 2 % of the pages changed.

Beside it a whole copy by SQLite's own backup, which is what there is without.

Usage: tools/bench/run sqlite [--rounds N] [--megabytes N] [--journal wal|delete] [--dir DIR]
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from ckptlog import CaptureInfo, Capturer, CheckpointManager, SqliteComponent
from tools.bench import measure
from tools.bench.measure import Contestant, Round

_ROW_BYTES = 3900  # one page each


class Database:
    """A database, and a way to change 2 % of it."""

    def __init__(self, path: Path, megabytes: int, journal: str) -> None:
        self.path = path
        self._rows = megabytes * 1_000_000 // 4096
        self._random = random.Random(6)  # noqa: S311 - the same work each time
        self._live = sqlite3.connect(path, isolation_level=None)
        self._live.execute(f"PRAGMA journal_mode={journal}")
        self._live.execute("CREATE TABLE entry (id INTEGER PRIMARY KEY, content BLOB)")
        self._write("INSERT INTO entry VALUES (?, ?)", range(self._rows))

    def change(self) -> None:
        """Write 2 % of the pages, anywhere."""
        chosen = self._random.sample(range(self._rows), self._rows // 50)
        self._write("INSERT OR REPLACE INTO entry VALUES (?, ?)", chosen)

    def close(self) -> None:
        """Close it."""
        self._live.close()

    def _write(self, statement: str, rows: list[int] | range) -> None:
        self._live.execute("BEGIN")
        self._live.executemany(statement, ((one, os.urandom(_ROW_BYTES)) for one in rows))
        self._live.execute("COMMIT")


def theirs(database: Database, folder: Path) -> Contestant:
    """Return SQLite's backup into a new file, synced."""

    def run() -> Round:
        begin, cpu = time.perf_counter(), time.process_time()
        target = folder / "copy.db"
        target.unlink(missing_ok=True)
        with (
            closing(sqlite3.connect(database.path)) as live,
            closing(sqlite3.connect(target)) as copy,
        ):
            live.backup(copy)
        wall_s, cpu_s = time.perf_counter() - begin, time.process_time() - cpu
        return Round(1, wall_s, cpu_s, [wall_s])

    return Contestant("SQLite's backup, whole", run)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Captures of a SQLite database.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--journal", default="wal")
    parser.add_argument("--dir", help="measure in this directory's file system")
    options = parser.parse_args()
    with (
        measure.scratch(options.dir) as folder,
        CheckpointManager(folder / "store") as manager,
        closing(Database(folder / "live.db", options.megabytes, options.journal)) as database,
    ):
        capturer = Capturer(manager, "bench", [SqliteComponent("database", database.path)])
        infos: list[CaptureInfo] = []

        def run() -> Round:
            begin, cpu = time.perf_counter(), time.process_time()
            info = capturer.capture()
            wall_s, cpu_s = time.perf_counter() - begin, time.process_time() - cpu
            if info is not None:
                infos.append(info)
            return Round(1, wall_s, cpu_s, [wall_s])

        first = run()
        mine, peer = Contestant("ckptlog, 2 % changed", run), theirs(database, folder)
        for number in range(options.rounds):
            database.change()
            for one in [mine, peer] if number % 2 else [peer, mine]:
                one.rounds.append(one.run())
            measure.progress(f"round {number + 1} of {options.rounds}")
        begin = time.perf_counter()
        stored = capturer.stored(infos[-1])["database"]
        SqliteComponent("database", database.path).restore(stored)
        restore_s = time.perf_counter() - begin
        _print(options.megabytes, options.journal, first, [mine, peer], infos[1:])
        measure.judge("restore of the whole", restore_s, unit=" s")


def _print(
    megabytes: int,
    journal: str,
    first: Round,
    contestants: list[Contestant],
    infos: list[CaptureInfo],
) -> None:
    mine, peer = contestants
    measure.heading(
        f"A database of {megabytes} MB ({journal}), 2 % of its pages changed; first capture "
        f"{first.wall_s:.2f} s"
    )
    measure.table(contestants)
    stopped = [info.stopped_s * 1e3 for info in infos]
    measure.judge("capture, p50", mine.p50_s, most=0.3 * megabytes / 100, unit=" s")
    measure.judge("system stopped, p50", measure.percentile(stopped, 0.5), most=50, unit=" ms")
    measure.judge_ratio("times the time of a whole copy", measure.time_ratios(mine, peer))
    new = measure.percentile([info.bytes_new / 1e6 for info in infos], 0.5)
    measure.judge("new bytes of a capture, p50", new, unit=" MB")


if __name__ == "__main__":
    main()
