"""Where our time goes: one path under cProfile, and its most expensive functions.

Times under a profiler are too long, small functions most of all; use them to find, not to report.
Usage: tools/bench/run hot PATH [--operations N] [--top N] [--by tottime|cumulative]
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable
from pathlib import Path

from ckptlog import CheckpointManager, CheckpointState
from tools.bench import measure
from tools.bench.create import create
from tools.bench.read import PAGE, fill
from tools.bench.workload import Small, SmallWorkload, growing

Work = Callable[[], object]


def _create(folder: Path, operations: int) -> Work:
    manager, items = CheckpointManager(folder / "store"), SmallWorkload().take(operations)
    return lambda: [create(manager, item) for item in items]


def _update(folder: Path, operations: int) -> Work:
    manager, workload = CheckpointManager(folder / "store"), SmallWorkload()
    names = [create(manager, item) for item in workload.take(operations)]
    states = [item.state for item in workload.take(operations)]
    return lambda: [
        manager.update_checkpoint(name, data=state)
        for name, state in zip(names, states, strict=True)
    ]


def _batch(folder: Path, operations: int) -> Work:
    manager, items = CheckpointManager(folder / "store"), SmallWorkload().take(operations)

    def run() -> None:
        for start in range(0, operations, 100):
            with manager.batch() as batch:
                for one in items[start : start + 100]:
                    _add(batch.create_checkpoint, one)

    return run


def _add(method: Callable[..., str], one: Small) -> str:
    return method(one.task, "Title", one.step, data=one.state, metadata=one.metadata)


def _get(folder: Path, operations: int) -> Work:
    filled = fill(folder, operations)
    manager = CheckpointManager(filled.store)
    return lambda: [manager.get_checkpoint(name) for name in filled.names]


def _latest(folder: Path, operations: int) -> Work:
    filled = fill(folder, operations)
    manager = CheckpointManager(filled.store)
    tasks = [f"task-{number % 100}" for number in range(operations)]
    return lambda: [manager.get_latest_checkpoint(task) for task in tasks]


def _page(folder: Path, operations: int) -> Work:
    filled = fill(folder, operations)
    manager = CheckpointManager(filled.store)
    return lambda: [
        manager.get_checkpoints_by_state(CheckpointState.CREATED, after=name, limit=PAGE)
        for name in filled.names[::PAGE]
    ]


def _growing(folder: Path, operations: int) -> Work:
    manager = CheckpointManager(folder / "store")
    states = list(growing(max(2, operations // 100)))
    return lambda: [
        manager.create_checkpoint("task", "Title", number, data=state)
        for number, state in enumerate(states, 1)
    ]


PATHS: dict[str, Callable[[Path, int], Work]] = {
    "create": _create,
    "update": _update,
    "batch": _batch,
    "get": _get,
    "latest": _latest,
    "page": _page,
    "growing": _growing,
}


def main() -> None:
    """Profile one path and print the list."""
    parser = argparse.ArgumentParser(description="Where our time goes.")
    parser.add_argument("path", choices=PATHS)
    parser.add_argument("--operations", type=int, default=5000)
    parser.add_argument("--top", type=int, default=30)
    parser.add_argument("--by", choices=("tottime", "cumulative"), default="tottime")
    parser.add_argument("--dir", help="measure in this directory's file system")
    options = parser.parse_args()
    with measure.scratch(options.dir) as folder:
        for name in ("plain", "profiled"):
            (folder / name).mkdir()
        work = PATHS[options.path](folder / "plain", options.operations)
        begin = time.perf_counter()
        work()
        plain_s = time.perf_counter() - begin
        work = PATHS[options.path](folder / "profiled", options.operations)
        profile = cProfile.Profile()
        profile.runcall(work)
        print(f"{options.path}: {plain_s * 1e6 / options.operations:,.1f} us each without profiler")
        statistics = pstats.Stats(profile)
        statistics.sort_stats(options.by).print_stats(options.top)


if __name__ == "__main__":
    main()
