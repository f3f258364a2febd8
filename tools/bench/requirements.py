"""The limits of CheckpointPerformanceRequirements, with what this machine does beside them.

Usage: tools/bench/run requirements [--operations N] [--dir DIR]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ckptlog import CheckpointManager, CheckpointState
from ckptlog import CheckpointPerformanceRequirements as Limits
from tools.bench import growth, measure
from tools.bench.create import create
from tools.bench.measure import Contestant, Round
from tools.bench.workload import SmallWorkload, seeded

THREADS = 16
_TASK_STEPS = 10


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The specification's limits.")
    parser.add_argument("--operations", type=int, default=2000)
    parser.add_argument("--dir", help="measure in this directory's file system")
    options = parser.parse_args()
    with measure.scratch(options.dir) as folder:
        measure.machine(folder)
        with CheckpointManager(folder / "store") as manager:
            latency(manager, options.operations)
            concurrent(manager)
        storage(folder)
        memory(folder, 10 * options.operations)


def latency(manager: CheckpointManager, operations: int) -> None:
    """Print p50 and p99 of each kind of call beside its limit."""
    workload = SmallWorkload()
    names: list[str] = []
    creating = measure.timed(
        lambda one: names.append(create(manager, one)), workload.take(operations)
    )
    states = [one.state for one in workload.take(operations)]
    pairs = list(zip(names, states, strict=True))
    updating = measure.timed(lambda one: manager.update_checkpoint(one[0], data=one[1]), pairs)
    some = seeded(1).sample(names, min(200, len(names)))
    measure.heading(f"latency over {operations:,} checkpoints of 1 KB")
    print(f"  {'':<44}{'p50 ms':>10}{'p99 ms':>10}{'limit ms':>10}")
    _line("create", creating, Limits.MAX_CHECKPOINT_CREATION_TIME_MS)
    _line("update", updating, Limits.MAX_CHECKPOINT_UPDATE_TIME_MS)
    for title, query, wanted in queries(manager, some):
        _line(title, measure.timed(query, wanted), Limits.MAX_CHECKPOINT_QUERY_TIME_MS)
    measure.judge(
        "creates per second, 1 thread",
        creating.per_second,
        least=Limits.MIN_CHECKPOINTS_PER_SECOND,
    )


def queries(
    manager: CheckpointManager, names: Sequence[str]
) -> list[tuple[str, Callable[[Any], Any], Sequence[Any]]]:
    """Return the kinds of query: title, call, arguments."""
    tasks = [f"task-{number}" for number in range(100)]
    workers = [f"worker-{number}" for number in range(50)]
    states = [CheckpointState.ACTIVE] * 20
    return [
        ("query by id", manager.get_checkpoint, names),
        ("query by task, its latest", manager.get_latest_checkpoint, tasks),
        ("query by task, all 20 of it", manager.get_task_checkpoints, tasks),
        (
            "query by worker, a page of 20",
            lambda worker: manager.get_checkpoints_by_worker(worker, limit=20),
            workers,
        ),
        (
            "query by state, a page of 20",
            lambda state: manager.get_checkpoints_by_state(state, limit=20),
            states,
        ),
    ]


def _line(title: str, found: Round, limit_ms: float) -> None:
    p50, p99 = (measure.percentile(found.durations_s, share) * 1e3 for share in (0.5, 0.99))
    word = "met" if p99 <= limit_ms else "MISSED"
    print(f"  {title:<44}{p50:>10.3f}{p99:>10.3f}{limit_ms:>10}  {word}")


def concurrent(manager: CheckpointManager) -> None:
    """Hold as many checkpoints open as the limit says, and update all from many threads."""
    count = Limits.MAX_CONCURRENT_CHECKPOINTS
    names = [create(manager, one) for one in SmallWorkload(seed=8).take(count)]

    def update(name: str) -> None:
        manager.update_checkpoint(name, data={"phase": "act"})

    contestant = Contestant(
        f"{count:,} open, updated by {THREADS} threads",
        lambda: measure.timed_in_threads(update, names, THREADS),
    )
    measure.alternate([contestant], 3)
    measure.heading("open checkpoints, updated concurrently")
    measure.table([contestant])


def storage(folder: Path) -> None:
    """Store one checkpoint just below the size limit."""
    letters = seeded(3).choices("abcdefghijklmnopqrstuvwxyz ", k=1000)
    text = "".join(letters) * (Limits.MAX_CHECKPOINT_SIZE_MB * 1024 * 1024 // 1000 - 1)
    with CheckpointManager(folder / "large") as manager:
        found = measure.timed(
            lambda step: manager.create_checkpoint("large", "Title", step, data={"text": text}),
            [1, 2, 3],
        )
    measure.heading(
        f"a checkpoint of {len(text) / 1e6:.1f} MB (limit "
        f"{Limits.MAX_CHECKPOINT_SIZE_MB} MB of 1,048,576 bytes)"
    )
    _line("create", found, Limits.MAX_CHECKPOINT_CREATION_TIME_MS)


def memory(folder: Path, checkpoints: int) -> None:
    """Print the memory of a process that creates many checkpoints."""
    found = growth.run("ckptlog", folder, checkpoints)
    measure.heading(f"memory of a process that creates {checkpoints:,} checkpoints")
    measure.judge(
        "resident, at most", found["most_mb"], most=Limits.MAX_MEMORY_USAGE_MB, unit=" MB"
    )


if __name__ == "__main__":
    main()
