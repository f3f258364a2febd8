"""Durable writes of 1 KB states: ckptlog beside SqliteSaver and a loop that only appends and syncs.

Each contestant has a store of its own, so that everybody pays for their own upkeep.
Usage: tools/bench/run create [--rounds N] [--operations N] [--dir DIR]
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path

from ckptlog import CheckpointManager
from tools.bench import measure, peer
from tools.bench.measure import Contestant, Round
from tools.bench.workload import Small, SmallWorkload

THREADS = 16
BATCH = 100
# As ckptlog makes room ahead (specs/decisions/004): the fairer, and harder, of two loops.
AHEAD_BYTES = 1024 * 1024
TITLE = "A task of the benchmark"


class Field:
    """The contestants, over the directory of one run."""

    def __init__(self, folder: Path, operations: int) -> None:
        self._folder = folder
        self._operations = operations
        self._workload = SmallWorkload()
        self._closers: list[Callable[[], None]] = []
        self.commits = self._sample_commits()

    def close(self) -> None:
        """Close every store."""
        for close in self._closers:
            close()

    def manager(self, name: str) -> CheckpointManager:
        """Open a new store."""
        manager = CheckpointManager(self._folder / name)
        self._closers.append(manager.close)
        return manager

    def _sample_commits(self) -> list[bytes]:
        """Return the bytes of some of our commits, as they stand in the log."""
        with CheckpointManager(self._folder / "sample") as manager:
            for item in self._workload.take(self._operations):
                create(manager, item)
            places = [
                (entry.container, entry.offset - entry.span, entry.span + entry.length)
                for entry in manager.store.events()
            ]
        files = {name: (self._folder / "sample" / name).read_bytes() for name, _, _ in places}
        return [files[name][start : start + length] for name, start, length in places]

    def creating(self, name: str, threads: int = 1) -> Contestant:
        """Return ckptlog, creating one by one."""
        manager = self.manager(name)

        def run() -> Round:
            items = self._workload.take(self._operations)
            if threads == 1:
                return measure.timed(lambda item: create(manager, item), items)
            return measure.timed_in_threads(lambda item: create(manager, item), items, threads)

        return Contestant(f"ckptlog create, {_threads(threads)}", run)

    def batching(self) -> Contestant:
        """Return ckptlog, creating BATCH in one commit."""
        manager = self.manager("batch")

        def write(items: list[Small]) -> None:
            with manager.batch() as batch:
                for item in items:
                    batch.create_checkpoint(
                        item.task,
                        TITLE,
                        item.step,
                        data=item.state,
                        metadata=item.metadata,
                        worker_id=item.worker,
                    )

        def run() -> Round:
            count = max(1, 2 * self._operations // BATCH)
            batches = [self._workload.take(BATCH) for _ in range(count)]
            return measure.timed(write, batches, each=BATCH)

        return Contestant(f"ckptlog batch() of {BATCH} (times: a batch)", run)

    def updating(self) -> Contestant:
        """Return ckptlog, replacing the data of checkpoints that are there."""
        manager = self.manager("update")
        names = [create(manager, item) for item in self._workload.take(2 * self._operations)]
        turn = itertools.cycle(names)

        def update(item: Small) -> None:
            manager.update_checkpoint(next(turn), data=item.state)

        return Contestant(
            "ckptlog update, 1 thread",
            lambda: measure.timed(update, self._workload.take(self._operations)),
        )

    def saving(self, threads: int = 1, *, with_objects: bool = False) -> Contestant:
        """Return SqliteSaver."""
        path = self._folder / f"saver-{threads}-{with_objects}.sqlite"
        saver = peer.SaverPeer(path, with_objects=with_objects)
        self._closers.append(saver.close)

        def run() -> Round:
            puts = saver.prepare_small(self._workload.take(self._operations))
            if threads == 1:
                return measure.timed(saver.put, puts)
            return measure.timed_in_threads(saver.put, puts, threads)

        what = ", message objects" if with_objects else ""
        return Contestant(f"SqliteSaver put, {_threads(threads)}{what}", run)

    def looping(self, name: str, ahead_bytes: int) -> Contestant:
        """Return the bare loop, with the bytes of our commits."""
        loop = peer.BareLoop(self._folder / f"loop-{ahead_bytes}", ahead_bytes=ahead_bytes)
        self._closers.append(loop.close)
        return Contestant(name, lambda: measure.timed(loop.append, self.commits))


def create(manager: CheckpointManager, item: Small) -> str:
    """Create one checkpoint of the workload and return its id."""
    return manager.create_checkpoint(
        item.task,
        TITLE,
        item.step,
        data=item.state,
        metadata=item.metadata,
        worker_id=item.worker,
    )


def _threads(number: int) -> str:
    return f"{number} thread" if number == 1 else f"{number} threads"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Durable writes of 1 KB states.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--operations", type=int, default=500, help="a round and contestant")
    parser.add_argument("--dir", help="measure in this directory's file system")
    options = parser.parse_args()
    with measure.scratch(options.dir) as folder:
        measure.machine(folder, *peer.PACKAGES)
        field = Field(folder, options.operations)
        try:
            compete(field, options.rounds)
        finally:
            field.close()


def compete(field: Field, rounds: int) -> None:
    """Let all contestants work in turn and print their figures beside the targets."""
    ours, update = field.creating("one"), field.updating()
    crowd, batch = field.creating("crowd", THREADS), field.batching()
    saver, saver_crowd = field.saving(), field.saving(THREADS)
    objects = field.saving(with_objects=True)
    loop = field.looping("append and fdatasync", 0)
    ahead = field.looping("the same into space made ahead", AHEAD_BYTES)
    contestants = [ours, saver, objects, update, loop, ahead, crowd, saver_crowd, batch]
    for one in contestants:
        one.run()  # warm
    measure.alternate(contestants, rounds)
    mean = sum(map(len, field.commits)) / len(field.commits)
    measure.heading(f"durable writes of 1 KB states; a commit has {mean:,.0f} bytes in the log")
    measure.table(contestants)
    measure.heading("ratios (median of the rounds)")
    ratio, rates = measure.judge_ratio, measure.rate_ratios
    ratio("create, 1 thread : SqliteSaver, per second", rates(ours, saver), least=1.6)
    ratio("create, 1 thread : SqliteSaver, message objects", rates(ours, objects))
    ratio("create, 1 thread : append and fdatasync", rates(ours, loop), least=0.45)
    ratio("create, 1 thread : the same into space made ahead", rates(ours, ahead))
    ratio("create, 16 threads : SqliteSaver, 1 thread", rates(crowd, saver), least=2.5)
    ratio("create, 16 threads : SqliteSaver, 16 threads", rates(crowd, saver_crowd))
    ratio("batch() of 100 : SqliteSaver, 1 thread", rates(batch, saver), least=6)
    ratio("update : create, time (p50)", measure.time_ratios(update, ours), most=1)


if __name__ == "__main__":
    main()
