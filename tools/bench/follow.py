"""Readers of the log: a raw scan beside eventsourcing, deliveries, live consumers, wake-ups.

The log is written by `manager.batch()`, in lives of three events (create, update, complete), each
with about 100 bytes of new data. eventsourcing's SQLite recorder holds the same events' JSON, and
reads it as notifications, undecoded, in pages of 1,000.
Usage: tools/bench/run follow [--events N] [--rounds N] [--writes N] [--wakes N] [--dir DIR]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

import ckptlog
from ckptlog import CheckpointManager
from tools.bench import measure
from tools.bench.measure import Contestant, Round
from tools.bench.workload import SmallWorkload

CONSUMERS = 4
POLL_S = 0.1
_BATCH = 100
_PAGE = 1000
_FORK = multiprocessing.get_context("fork")


def fill(root: Path, events: int) -> None:
    """Write lives of three events until there are so many."""
    measure.progress(f"writing {events:,} events")
    with CheckpointManager(root) as manager:
        while manager.store.position < events:
            with manager.batch() as batch:
                names = [
                    batch.create_checkpoint(f"task-{number}", "Title", 1, data=_data(number))
                    for number in range(_BATCH)
                ]
                for number, name in enumerate(names):
                    batch.update_checkpoint(name, data=_data(number + 1))
                for name in names:
                    batch.complete_checkpoint(name)


def _data(number: int) -> dict[str, Any]:
    return {"number": number, "text": f"{random.getrandbits(240):060x}"}


# --- reading what is written ------------------------------------------------------------------


def scan(root: Path) -> Contestant:
    """Return the raw scan: every check, every event decoded."""

    def run() -> Round:
        with ckptlog.open(root, read_only=True) as store:
            return _counted(len(commit.entries) for commit in store.log.reader.commits())

    return Contestant("ckptlog scan, decoded", run)


def delivery(root: Path, name: str, **options: Any) -> Contestant:
    """Return a named consumer that takes everything, from the beginning."""

    def run() -> Round:
        with ckptlog.open(root) as store:
            events = store.watch("bench", reset=True, follow=False, **options)
            with events:
                return _counted(1 for _ in events)

    return Contestant(name, run)


def delivery_with_acks(root: Path, each: int) -> Contestant:
    """Return a consumer that acknowledges, durably, every so many events."""

    def run() -> Round:
        with ckptlog.open(root) as store, store.watch("bench", reset=True, follow=False) as events:

            def take() -> Iterator[int]:
                for event in events:
                    if event.position % each == each - 1:
                        events.ack(event)
                    yield 1

            return _counted(take())

    return Contestant(f"watch, ack of every {each:,}", run)


class Recorder:
    """eventsourcing's SQLite application recorder, with the same events."""

    def __init__(self, path: Path, root: Path) -> None:
        try:
            sqlite = import_module("eventsourcing.sqlite")
            self._persistence = import_module("eventsourcing.persistence")
        except ImportError as error:
            raise SystemExit(f"{error}. Run it through tools/bench/run.") from error
        self.recorder = sqlite.SQLiteApplicationRecorder(sqlite.SQLiteDatastore(str(path)))
        self.recorder.create_table()
        self._fill(root)

    def _fill(self, root: Path) -> None:
        from msgspec.json import encode

        stored, made = [], self._persistence.StoredEvent
        with ckptlog.open(root, read_only=True) as store:
            for entry in store.events():
                state = encode(entry.event)
                stored.append(made(UUID(int=entry.position), 1, entry.event.type, state))
        for start in range(0, len(stored), _PAGE):
            self.recorder.insert_events(stored[start : start + _PAGE])

    def contestant(self) -> Contestant:
        """Return the one that reads notifications."""

        def pages() -> Iterator[int]:
            start = 1
            while found := self.recorder.select_notifications(start, _PAGE):
                yield len(found)
                start = found[-1].id + 1

        return Contestant("eventsourcing notifications", lambda: _counted(pages()))


def _counted(parts: Iterator[int]) -> Round:
    begin, cpu = time.perf_counter(), time.process_time()
    count = sum(parts)
    wall_s, cpu_s = time.perf_counter() - begin, time.process_time() - cpu
    return Round(count, wall_s, cpu_s, [wall_s / max(1, count)])


# --- live consumers ---------------------------------------------------------------------------


def _consume(root: Path, name: str, ready: Any) -> None:
    with ckptlog.open(root, read_only=True) as store:
        options = {"start": "end", "auto_ack": True, "poll_s": POLL_S}
        with store.watch(name, cursors=root / "consumers", **options) as events:
            ready.release()
            for _ in events:
                pass


@contextmanager
def consumers(root: Path, count: int) -> Iterator[None]:
    """Let so many processes consume everything while a block runs."""
    ready = _FORK.Semaphore(0)
    started = [
        _FORK.Process(target=_consume, args=(root, f"live-{number}", ready), daemon=True)
        for number in range(count)
    ]
    for one in started:
        one.start()
    for _ in started:
        ready.acquire()
    time.sleep(0.1)
    try:
        yield
    finally:
        for one in started:
            os.kill(one.pid or 0, signal.SIGKILL)
            one.join()


def writing(root: Path, count: int, writes: int) -> Contestant:
    """Return a writer of durable checkpoints of 1 KB, with so many live consumers."""
    workload = SmallWorkload()

    def run() -> Round:
        items = workload.take(writes)
        with CheckpointManager(root) as manager, consumers(root, count):
            return measure.timed(
                lambda one: manager.create_checkpoint(one.task, "Title", one.step, data=one.state),
                items,
            )

    return Contestant(f"create, {count} consumer processes", run)


# --- wake-ups ---------------------------------------------------------------------------------


def _write_now_and_then(root: Path, wakes: int, pipe: Any) -> None:
    chance = random.Random(3)  # noqa: S311 - no secret
    with CheckpointManager(root) as manager:
        for number in range(wakes):
            time.sleep(chance.uniform(0.02, 0.15))
            name = f"wake-{os.getpid()}-{number}"
            manager.create_checkpoint("wake", "Title", 1, checkpoint_id=name)
            pipe.send((name, time.monotonic()))


def wake_ups(root: Path, wakes: int, *, watcher: bool) -> list[float]:
    """Return the seconds from a commit's return in another process to the event's delivery."""
    ours, theirs = _FORK.Pipe(duplex=False)
    found: dict[str, float] = {}
    with (
        ckptlog.open(root) as store,
        store.watch(start="end", watcher=watcher, poll_s=POLL_S) as events,
    ):
        time.sleep(0.1)
        writer = _FORK.Process(target=_write_now_and_then, args=(root, wakes, theirs), daemon=True)
        writer.start()
        for event in events:
            found[event.checkpoint] = time.monotonic()
            if len(found) == wakes:
                break
        told = dict(ours.recv() for _ in range(wakes))
        writer.join()
    return [max(0.0, found[name] - told[name]) for name in told]


def _print_wake_ups(root: Path, wakes: int) -> None:
    for watcher in (True, False):
        waits = [wait_s * 1e3 for wait_s in wake_ups(root, wakes, watcher=watcher)]
        how = "with the watcher" if watcher else f"polling each {POLL_S * 1e3:.0f} ms"
        most = 50.0 if watcher else POLL_S * 1e3
        note = f"p99 {measure.percentile(waits, 0.99):.1f} ms"
        measure.judge(f"wake-up {how}, p50", statistics.median(waits), note, most=most, unit=" ms")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Readers of the log.")
    parser.add_argument("--events", type=int, default=90_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--writes", type=int, default=1_000)
    parser.add_argument("--wakes", type=int, default=100)
    parser.add_argument("--dir", help="measure in this directory's file system")
    options = parser.parse_args()
    with measure.scratch(options.dir) as folder:
        measure.machine(folder, "eventsourcing", "watchfiles")
        root = folder / "store"
        fill(root, options.events)
        ours, peer = scan(root), Recorder(folder / "peer.sqlite", root).contestant()
        plain = delivery(root, "watch, auto_ack", auto_ack=True)
        acked = delivery_with_acks(root, 1000)
        rare = delivery(root, "watch, filtered to nothing", auto_ack=True, types="task.deleted")
        measure.alternate([ours, peer, plain, acked, rare], options.rounds)
        measure.heading(f"An already written log of {options.events:,} events")
        measure.table([ours, peer, plain, acked])
        measure.judge("scan, thousand events a second", ours.per_second / 1e3, least=200)
        measure.judge_ratio("scan / eventsourcing", measure.rate_ratios(ours, peer), least=1)
        measure.judge("delivery, thousand events a second", plain.per_second / 1e3, least=100)
        measure.judge("delivery with acks, thousand a second", acked.per_second / 1e3, least=100)
        alone, watched = (writing(folder / "live", n, options.writes) for n in (0, CONSUMERS))
        measure.alternate([alone, watched], options.rounds)
        measure.heading(f"Writing with {CONSUMERS} live consumer processes")
        measure.table([alone, watched])
        measure.judge_ratio("with / without", measure.rate_ratios(watched, alone), least=0.7)
        measure.heading("From the return of a commit in another process to the delivery")
        _print_wake_ups(folder / "live", options.wakes)


if __name__ == "__main__":
    main()
