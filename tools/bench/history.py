"""What is made of a log of a million events: the history in Parquet, questions, the state view.

Each build runs in a process of its own, so that its memory can be told; the log lies in the
system's file cache. The state view is built as users meet it: by opening a store whose view is
gone (the chunk index is there), and by `rebuild_views`, which makes the chunk index anew, too. Both
write the leaf hashes. DuckDB stands beside the history: it makes one Parquet file of the same
events as JSON lines (as they are stored: no states, no durations, no days). Processor time is that
of all threads.
Usage: tools/bench/run history [--events N] [--rounds N] [--keep STORE] [--dir DIR]
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ckptlog
from ckptlog import CheckpointManager
from ckptlog.log.bulk import BulkReader
from ckptlog.model.cursor import BEGINNING
from ckptlog.repository.store import Store
from tools.bench import chronicle, measure

EVENTS = 1_000_000
MEMORY_MB = 400
ANSWER_S = 0.2
_GROWTH = 1000
_ASKED = 10


def main() -> None:
    """Measure and print, or be the process that builds."""
    parser = argparse.ArgumentParser(description="History, questions and views of a long log.")
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", help="use this store, made there if it is missing")
    parser.add_argument("--dir", help="measure in this directory's file system")
    parser.add_argument("--in-process", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_process:
        who, path, folder = options.in_process
        print(json.dumps(_BUILDERS[who](Path(path), Path(folder))))
        return
    with measure.scratch(options.dir) as folder:
        measure.machine(folder, "pyarrow", "duckdb")
        store = Path(options.keep) if options.keep else folder / "store"
        if not store.exists():
            measure.progress(f"writing {options.events:,} events")
            chronicle.write(store, options.events)
        prepare(store, folder)
        builds(store, folder, options.rounds)
        questions(folder)
        if not options.keep:
            growing(store, folder)


def prepare(path: Path, folder: Path) -> None:
    """Bring the store's own views up to date, and write its events as JSON lines for DuckDB."""
    measure.progress("opening the store, writing JSON lines")
    with ckptlog.open(path) as store, (folder / "events.jsonl").open("wb") as lines:
        for stretch in _bulk(store).stretches(BEGINNING, _end(store), events=4096):
            lines.write(b"\n".join(stretch.entries) + b"\n")


def builds(path: Path, folder: Path, rounds: int) -> None:
    """Build each several times, and print the median round beside its target."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in _BUILDERS}
    for number in range(rounds):
        for name in _BUILDERS:
            measure.progress(f"round {number + 1} of {rounds}: {name}")
            found[name].append(_in_process(name, path, folder))
    measure.progress("")
    events = found["history"][0]["events"]
    measure.heading(f"built from {events:,} events")
    for name, what, least in (
        ("history", "rows", 100_000),
        ("state view, by opening", "events", 60_000),
        ("rebuild_views", "events", 0),
    ):
        one = sorted(found[name], key=lambda each: each["wall_s"])[rounds // 2]
        cpu = f"{one['cpu_s'] / events * 1e6:.1f} us of processor time for each"
        measure.judge(f"{name}: {what} a second", events / one["wall_s"], cpu, least=least)
        measure.judge(f"{name}: memory at most", one["peak_mb"], most=MEMORY_MB, unit=" MB")
    pairs = zip(found["DuckDB"], found["history"], strict=True)
    ratios = [theirs["wall_s"] / ours["wall_s"] for theirs, ours in pairs]
    measure.judge_ratio("rows a second, history : DuckDB's COPY", ratios)
    size = sum(file.stat().st_size for file in (folder / "history").rglob("*.parquet"))
    measure.judge("history: bytes a row", size / events)


def _in_process(name: str, path: Path, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tools.bench.history", "--in-process", name]
    done = subprocess.run(
        [*command, str(path), str(folder)],
        cwd=measure.ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# --- in a process of their own --------------------------------------------------------------


def _measured(build: Callable[[], int]) -> dict[str, Any]:
    begin, cpu = time.perf_counter(), time.process_time()
    events = build()
    return {
        "events": events,
        "wall_s": time.perf_counter() - begin,
        "cpu_s": time.process_time() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def _bulk(store: Store) -> BulkReader:
    return BulkReader(store.log.segments, store.info.id_bytes)


def _end(store: Store) -> Any:
    return store.log.published.read()


def _build_history(path: Path, folder: Path) -> dict[str, Any]:
    target = folder / "history"
    shutil.rmtree(target, ignore_errors=True)
    target.with_name("history.json").unlink(missing_ok=True)
    with ckptlog.open(path) as store:
        return _measured(lambda: int(store.history(target).count_rows()))


def _open_without_view(path: Path, _: Path) -> dict[str, Any]:
    for file in (path / "views").glob("current.sqlite*"):
        file.unlink()
    stores: list[Store] = []

    def build() -> int:
        stores.append(ckptlog.open(path))
        return stores[0].view().mark.position

    found = _measured(build)
    stores[0].close()
    return found


def _rebuild_views(path: Path, _: Path) -> dict[str, Any]:
    with ckptlog.open(path) as store:
        return _measured(store.rebuild_views)


def _build_duckdb(_: Path, folder: Path) -> dict[str, Any]:
    import duckdb

    source = f"read_json_auto('{folder}/events.jsonl', format = 'newline_delimited')"
    target = f"'{folder}/duckdb.parquet' (FORMAT parquet, COMPRESSION zstd)"
    connection = duckdb.connect()

    def build() -> int:
        connection.execute(f"COPY (SELECT * FROM {source}) TO {target}")  # noqa: S608 - our paths
        (count,) = connection.execute(f"SELECT count(*) FROM '{folder}/duckdb.parquet'").fetchall()  # noqa: S608
        return int(count[0])

    return _measured(build)


_BUILDERS = {
    "history": _build_history,
    "state view, by opening": _open_without_view,
    "rebuild_views": _rebuild_views,
    "DuckDB": _build_duckdb,
}


# --- answers --------------------------------------------------------------------------------


def questions(folder: Path) -> None:
    """Ask DuckDB about the files, and the ready questions; print the median of the answers."""
    import duckdb
    import pyarrow.dataset as ds

    from ckptlog.monitor import question

    files = f"read_parquet('{folder}/history/**/*.parquet', hive_partitioning = true)"
    asked = {
        "events and bytes by type": "SELECT type, count(*), sum(stored_bytes) FROM {} GROUP BY 1",
        "median step time by day": (
            "SELECT date, quantile_cont(age_us, 0.5) FROM {} "
            "WHERE type = 'checkpoint.completed' GROUP BY 1"
        ),
        "top tasks by stored bytes": (
            "SELECT task, sum(stored_bytes) AS s FROM {} GROUP BY 1 ORDER BY s DESC LIMIT 10"
        ),
        "failures by class and hour": (
            "SELECT error_class, date_trunc('hour', time), count(*) FROM {} "
            "WHERE type = 'checkpoint.failed' GROUP BY 1, 2"
        ),
    }
    measure.heading("questions to DuckDB, over the files")
    connection = duckdb.connect()
    for title, sql in asked.items():
        answer_s = _median_s(lambda sql=sql: connection.execute(sql.format(files)).fetchall())  # type: ignore[misc]
        measure.judge(title, answer_s, most=ANSWER_S, unit=" s")
    measure.heading("ready questions, over a dataset of the files")
    history = ds.dataset(folder / "history", partitioning="hive", format="parquet")
    for ask in (
        question.throughput,
        question.step_latency,
        question.failure_rate,
        question.failures,
        question.time_in_state,
        question.savings,
        question.top_tasks,
        question.recovery_times,
    ):
        measure.judge(ask.__name__, _median_s(lambda ask=ask: ask(history)), unit=" s")  # type: ignore[misc]


def _median_s(ask: Callable[[], Any]) -> float:
    ask()
    return measure.timed(lambda _: ask(), range(_ASKED)).p50_s


def growing(path: Path, folder: Path) -> None:
    """Print how long an update takes after a thousand events, and after one."""
    measure.heading("bringing the history up to date")
    with CheckpointManager(path) as manager:
        target = folder / "history"
        manager.store.history(target)
        for count in (_GROWTH, 1):
            with manager.batch() as batch:
                for step in range(1, count + 1):
                    batch.create_checkpoint("grow", "Grow", step)
            taken = measure.timed(lambda _: manager.store.history(target), [None])
            measure.judge(f"after {count:,} more", taken.wall_s * 1e3, unit=" ms")


if __name__ == "__main__":
    main()
