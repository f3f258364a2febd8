"""Reads at 1,000 and at 100,000 checkpoints: ckptlog beside SqliteSaver, and beside itself.

Every round opens its stores anew and reads things that were not read since, so that no cache of
ours or of SQLite's answers twice; the system's own file cache is warm for all.
Usage: tools/bench/run read [--rounds N] [--reads N] [--large N] [--dir DIR]
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ckptlog
from ckptlog import CheckpointManager, CheckpointState
from tools.bench import growth, measure, peer
from tools.bench.create import TITLE, create
from tools.bench.measure import Contestant, Round
from tools.bench.workload import TASKS, WORKERS, Small, SmallWorkload

SMALL = 1_000
PAGE = 20
THREADS = 16
OPEN = 1_000
_FILL = 500
# Ends of checkpoints, by number modulo 10: a tenth failed, six tenths completed, the rest open.
_FAILED, _COMPLETED = {0}, {1, 2, 3, 4, 5, 6}

Reader = Callable[[Any], Any]


@dataclass
class Filled:
    """A store and a database that hold the same checkpoints."""

    count: int
    store: Path
    names: list[str]
    database: Path
    saved: list[tuple[str, str]]

    def ours(self, title: str, make: Callable[[CheckpointManager], Reader], wanted: Sequence[Any],
             reads: int) -> Contestant:
        """Return ckptlog, reading `reads` of what is wanted in a newly opened store."""
        turn = _turns(wanted, reads)

        def run() -> Round:
            with CheckpointManager(self.store) as manager:
                return measure.timed(make(manager), next(turn))

        return Contestant(f"ckptlog {title} of {self.count:,}", run)

    def theirs(self, title: str, make: Callable[[peer.SaverPeer], Reader], wanted: Sequence[Any],
               reads: int) -> Contestant:
        """Return SqliteSaver, likewise."""
        turn = _turns(wanted, reads)

        def run() -> Round:
            saver = peer.SaverPeer(self.database)
            try:
                return measure.timed(make(saver), next(turn))
            finally:
                saver.close()

        return Contestant(f"SqliteSaver {title} of {self.count:,}", run)


def _turns(wanted: Sequence[Any], reads: int) -> Iterator[list[Any]]:
    """Yield different parts of what is wanted, round after round."""
    source = random.Random(len(wanted))
    while True:
        yield source.sample(list(wanted), min(reads, len(wanted)))


def fill(folder: Path, count: int) -> Filled:
    """Write the same checkpoints to both."""
    measure.progress(f"writing {count:,} checkpoints")
    store, database = folder / f"store-{count}", folder / f"saver-{count}.sqlite"
    workload, names, saved = SmallWorkload(), [], []
    saver = peer.SaverPeer(database, is_durable=False)
    with CheckpointManager(store) as manager:
        for start in range(0, count, _FILL):
            items = workload.take(min(_FILL, count - start))
            names += _fill_ours(manager, items, start)
            saved += _fill_saver(saver, items, start)
    saver.close()
    return Filled(count, store, names, database, saved)


def _fill_ours(manager: CheckpointManager, items: list[Small], start: int) -> list[str]:
    with manager.batch() as batch:
        names = [
            batch.create_checkpoint(
                one.task, TITLE, one.step, data=one.state, metadata=one.metadata, worker_id=one.worker
            )
            for one in items
        ]
    with manager.batch() as batch:
        for number, name in enumerate(names, start):
            if number % 10 in _FAILED:
                batch.fail_checkpoint(name)
            elif number % 10 in _COMPLETED:
                batch.complete_checkpoint(name)
    return names


def _fill_saver(saver: peer.SaverPeer, items: list[Small], start: int) -> list[tuple[str, str]]:
    saved = []
    for number, one in enumerate(items, start):
        metadata = {**one.metadata, "state": _state_of(number)}
        head = saver.put(saver.prepare(one.task, one.state, metadata))
        saved.append((one.task, head["configurable"]["checkpoint_id"]))
    return saved


def _state_of(number: int) -> str:
    if number % 10 in _FAILED:
        return "failed"
    return "completed" if number % 10 in _COMPLETED else "created"


@dataclass
class Case:
    """One kind of read, of both stores and of both contestants."""

    title: str
    small: Contestant
    large: Contestant
    saver_small: Contestant
    saver_large: Contestant

    @property
    def all(self) -> list[Contestant]:
        """All four."""
        return [self.small, self.large, self.saver_small, self.saver_large]

    def judge(self) -> None:
        """Print the figures and the two ratios."""
        measure.heading(self.title)
        measure.table(self.all)
        beside = measure.time_ratios(self.large, self.saver_large)
        measure.judge_ratio("time, ckptlog : SqliteSaver, both large", beside, most=1)
        own = measure.time_ratios(self.large, self.small)
        measure.judge_ratio("time, ckptlog large : small", own, most=2)
        measure.judge_ratio(
            "time, SqliteSaver large : small", measure.time_ratios(self.saver_large, self.saver_small)
        )


def make_case(
    title: str,
    stores: tuple[Filled, Filled],
    reads: int,
    ours: tuple[Callable[[CheckpointManager], Reader], Callable[[Filled], Sequence[Any]]],
    theirs: tuple[Callable[[peer.SaverPeer], Reader], Callable[[Filled], Sequence[Any]]],
) -> Case:
    """Return a case: how each reads, and what in which store."""
    make, wanted = ours
    make_their, wanted_their = theirs
    mine = [one.ours(title, make, wanted(one), reads) for one in stores]
    other = [one.theirs(title, make_their, wanted_their(one), reads) for one in stores]
    return Case(title, mine[0], mine[1], other[0], other[1])


def cases(stores: tuple[Filled, Filled], reads: int) -> list[Case]:
    """Return every kind of read."""
    pages = max(1, reads // 5)
    return [
        make_case(
            "get by id",
            stores,
            reads,
            (lambda manager: manager.get_checkpoint, lambda one: one.names),
            (lambda saver: lambda key: saver.get(peer.thread(*key)), lambda one: one.saved),
        ),
        make_case(
            "latest of a task",
            stores,
            reads,
            (lambda manager: manager.get_latest_checkpoint, _tasks),
            (lambda saver: lambda task: saver.get(peer.thread(task)), _tasks),
        ),
        make_case(
            f"{PAGE} by state",
            stores,
            pages,
            (_our_page_by_state, _after),
            (_their_page({"state": "created"}), _before),
        ),
        make_case(
            f"{PAGE} by worker",
            stores,
            pages,
            (_our_page_by_worker, _after),
            (_their_page({"worker": "worker-7"}), _before),
        ),
    ]


def _tasks(one: Filled) -> list[str]:
    return [f"task-{number}" for number in range(min(TASKS, one.count))]


def _after(one: Filled) -> list[str]:
    """Return where pages may begin, so that all of them are full."""
    return one.names[: len(one.names) // 10]


def _before(one: Filled) -> list[tuple[str, str]]:
    return one.saved[-len(one.saved) // 10 :]


def _our_page_by_state(manager: CheckpointManager) -> Reader:
    return lambda after: manager.get_checkpoints_by_state(
        CheckpointState.CREATED, after=after, limit=PAGE
    )


def _our_page_by_worker(manager: CheckpointManager) -> Reader:
    return lambda after: manager.get_checkpoints_by_worker("worker-7", after=after, limit=PAGE)


def _their_page(wanted: dict[str, Any]) -> Callable[[peer.SaverPeer], Reader]:
    return lambda saver: lambda key: saver.page(wanted, peer.thread(*key), PAGE)


def opening(folder: Path, large: Path, rounds: int) -> None:
    """Compare opening a large store, its view present, with opening an empty one."""
    empty = folder / "empty"
    ckptlog.open(empty, create=True).close()

    def contestant(name: str, path: Path) -> Contestant:
        def run() -> Round:
            stores: list[Any] = []
            found = measure.timed(lambda path: stores.append(ckptlog.open(path)), [path])
            stores[0].close()
            return found

        return Contestant(name, run)

    both = [contestant("open, empty", empty), contestant("open, large", large)]
    measure.alternate(both, rounds)
    measure.heading("opening a store, its view present")
    measure.table(both)
    more = (both[1].p50_s - both[0].p50_s) * 1e3
    measure.judge("large over empty (p50)", more, most=100, unit=" ms")


def concurrently(folder: Path, rounds: int) -> None:
    """Update 1,000 open checkpoints from 16 threads, and check what is there at the end."""
    workload = SmallWorkload()
    items = workload.take(OPEN)
    saver = peer.SaverPeer(folder / "concurrent.sqlite")
    with CheckpointManager(folder / "concurrent") as manager:
        names = [create(manager, item) for item in items]
        done = [0]

        def ours() -> Round:
            done[0] += 1
            return measure.timed_in_threads(
                lambda name: manager.update_checkpoint(name, data={"round": done[0]}),
                random.Random(done[0]).sample(names, OPEN),
                THREADS,
            )

        def theirs() -> Round:
            puts = saver.prepare_small(items)
            return measure.timed_in_threads(saver.put, puts, THREADS)

        both = [
            Contestant(f"ckptlog update, {THREADS} threads", ours),
            Contestant(f"SqliteSaver put, {THREADS} threads", theirs),
        ]
        measure.alternate(both, rounds)
        wrong = [name for name in names if not _is_right(manager, name, done[0])]
    saver.close()
    measure.heading(f"{OPEN:,} open checkpoints, all updated in each round")
    measure.table(both)
    measure.judge_ratio("updates per second : SqliteSaver", measure.rate_ratios(*both))
    print(f"  checkpoints that are not as they must be: {len(wrong)} of {OPEN:,}")


def _is_right(manager: CheckpointManager, name: str, rounds: int) -> bool:
    found = manager.get_checkpoint(name)
    return found is not None and found.data["round"] == rounds and "messages" in found.data


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Reads at 1,000 and at 100,000 checkpoints.")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--reads", type=int, default=100, help="a round and contestant")
    parser.add_argument("--large", type=int, default=100_000, help="checkpoints in the large store")
    parser.add_argument("--dir", help="measure in this directory's file system")
    options = parser.parse_args()
    with measure.scratch(options.dir) as folder:
        measure.machine(folder, *peer.PACKAGES)
        small, large = fill(folder, SMALL), fill(folder, options.large)
        for case in cases((small, large), options.reads):
            measure.alternate(case.all, options.rounds)
            case.judge()
        opening(folder, large.store, options.rounds * 2)
        concurrently(folder, options.rounds)
        growth.report(folder, options.large)


if __name__ == "__main__":
    main()
