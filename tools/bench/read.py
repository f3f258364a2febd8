"""Reads at 1,000 and at 100,000 checkpoints: ckptlog beside SqliteSaver, and beside itself.

Every round opens its stores anew, and reads nothing twice, so that no cache of ours or of SQLite's
answers, unless the title says "again". The system's own file cache is warm for all.
Usage: tools/bench/run read [--rounds N] [--reads N] [--large N] [--objects] [--dir DIR]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ckptlog
from ckptlog import CheckpointManager, CheckpointState
from tools.bench import measure, peer
from tools.bench.create import TITLE, create
from tools.bench.measure import Contestant, Round
from tools.bench.workload import TASKS, WORKERS, Small, SmallWorkload, seeded

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

    def ours(self, read: Read, reads: int) -> Contestant:
        """Return ckptlog, reading `reads` different things in a newly opened store."""
        turn = _turns(read.wanted(self), round(reads * read.share))

        def run() -> Round:
            with CheckpointManager(self.store) as manager:
                return _read(read.ours(manager), next(turn), is_again=read.is_again)

        return Contestant(f"ckptlog {read.title} of {self.count:,}", run)

    def theirs(self, read: Read, reads: int) -> Contestant:
        """Return SqliteSaver, likewise."""
        turn = _turns(read.wanted_there(self), round(reads * read.share))

        def run() -> Round:
            saver = peer.SaverPeer(self.database)
            try:
                return _read(read.theirs(saver), next(turn), is_again=read.is_again)
            finally:
                saver.close()

        return Contestant(f"SqliteSaver {read.title} of {self.count:,}", run)


@dataclass(frozen=True)
class Read:
    """One kind of read: how each contestant does it, and what there is to read in a store.

    is_again: Whether the same was read just before, so that caches answer.
    share: Of the reads of a round that are done; one page is many reads.
    """

    title: str
    ours: Callable[[CheckpointManager], Reader]
    wanted: Callable[[Filled], Sequence[Any]]
    theirs: Callable[[peer.SaverPeer], Reader]
    wanted_there: Callable[[Filled], Sequence[Any]]
    is_again: bool = False
    share: float = 1


def _read(reader: Reader, wanted: list[Any], *, is_again: bool) -> Round:
    if is_again:
        measure.timed(reader, wanted)
    return measure.timed(reader, wanted)


def _turns(wanted: Sequence[Any], reads: int) -> Iterator[list[Any]]:
    """Yield different parts of what is wanted, round after round."""
    source = seeded(len(wanted))
    while True:
        yield source.sample(list(wanted), min(reads, len(wanted)))


def fill(folder: Path, count: int, *, with_objects: bool = False) -> Filled:
    """Write the same checkpoints to both.

    Args:
        with_objects: See SaverPeer.
    """
    measure.progress(f"writing {count:,} checkpoints")
    store, database = folder / f"store-{count}", folder / f"saver-{count}.sqlite"
    workload, names, saved = SmallWorkload(), [], []
    saver = peer.SaverPeer(database, is_durable=False, with_objects=with_objects)
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
                one.task,
                TITLE,
                one.step,
                data=one.state,
                metadata=one.metadata,
                worker_id=one.worker,
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


def _worker_of(number: int) -> str:
    return f"worker-{number % WORKERS}"


def _state_of(number: int) -> str:
    if number % 10 in _FAILED:
        return "failed"
    return "completed" if number % 10 in _COMPLETED else "created"


def _latest_there(saver: peer.SaverPeer) -> Reader:
    return lambda task: saver.get(peer.thread(task))


def _get_there(saver: peer.SaverPeer) -> Reader:
    return lambda key: saver.get(peer.thread(*key))


def reads() -> list[Read]:
    """Return every kind of read."""
    by_id = Read(
        "get by id",
        lambda manager: manager.get_checkpoint,
        lambda one: one.names,
        _get_there,
        lambda one: one.saved,
    )
    latest = Read(
        "latest of a task",
        lambda manager: manager.get_latest_checkpoint,
        _tasks,
        _latest_there,
        _tasks,
    )
    return [
        by_id,
        replace(by_id, title="get by id, again", is_again=True),
        latest,
        replace(latest, title="latest of a task, again", is_again=True),
        _paging("state", _state_of, lambda state: {"state": CheckpointState(state)}),
        _paging("worker", _worker_of, lambda worker: {"worker_id": worker}),
    ]


def compare(read: Read, small: Filled, large: Filled, count: int, rounds: int) -> None:
    """Measure one kind of read, of both stores and by both contestants, and print it."""
    mine = [one.ours(read, count) for one in (small, large)]
    saver = [one.theirs(read, count) for one in (small, large)]
    measure.alternate([*mine, *saver], rounds)
    measure.heading(read.title)
    measure.table([*mine, *saver])
    times = measure.time_ratios
    beside = times(mine[1], saver[1])
    measure.judge_ratio("time, ckptlog : SqliteSaver, both large", beside, most=1)
    measure.judge_ratio("time, ckptlog large : small", times(mine[1], mine[0]), most=2)
    measure.judge_ratio("time, SqliteSaver large : small", times(saver[1], saver[0]))


def _tasks(one: Filled) -> list[str]:
    return [f"task-{number}" for number in range(min(TASKS, one.count))]


def _paging(word: str, group: Callable[[int], str], ours: Callable[[str], Any]) -> Read:
    """Return how pages of one group are read: full ones, none of which overlap.

    Both begin where the page before ended; ckptlog goes forwards, SqliteSaver backwards.
    """

    def make(manager: CheckpointManager) -> Reader:
        return lambda page: list(manager.iterate(**ours(page[0]), after=page[1], limit=PAGE))

    def make_there(saver: peer.SaverPeer) -> Reader:
        return lambda page: saver.page({word: page[0]}, page[1], PAGE)

    def wanted(one: Filled) -> list[Any]:
        starts = _starts(range(one.count), group)
        return [(key, None if last is None else one.names[last]) for key, last in starts]

    def wanted_there(one: Filled) -> list[Any]:
        starts = _starts(reversed(range(one.count)), group)
        return [
            (key, None if last is None else peer.thread(*one.saved[last])) for key, last in starts
        ]

    return Read(f"{PAGE} by {word}", make, wanted, make_there, wanted_there, share=0.2)


def _starts(numbers: Iterable[int], group: Callable[[int], str]) -> list[tuple[str, int | None]]:
    """Return, for each full page, its group and the number of the last one before it."""
    members: dict[str, list[int]] = {}
    for number in numbers:
        members.setdefault(group(number), []).append(number)
    return [
        (key, listed[start - 1] if start else None)
        for key, listed in members.items()
        for start in range(0, len(listed) - PAGE + 1, PAGE)
    ]


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
                seeded(done[0]).sample(names, OPEN),
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
    parser.add_argument(
        "--objects", action="store_true", help="give SqliteSaver langchain's message objects"
    )
    parser.add_argument("--dir", help="measure in this directory's file system")
    options = parser.parse_args()
    with measure.scratch(options.dir) as folder:
        measure.machine(folder, *peer.PACKAGES)
        small = fill(folder, SMALL, with_objects=options.objects)
        large = fill(folder, options.large, with_objects=options.objects)
        for read in reads():
            compare(read, small, large, options.reads, options.rounds)
        opening(folder, large.store, options.rounds * 2)
        concurrently(folder, options.rounds)


if __name__ == "__main__":
    main()
