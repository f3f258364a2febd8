"""Looking back: an audit beside a raw scan, single events, and the file view beside plain files.

The log is written by `manager.batch()`, in lives of three events. Memory is the peak of a process
that does nothing else. Plain files are the specification's own storage: each checkpoint written
with json.dump where it belongs, without a rename, a sync, or an index.
The defaults take a minute or so.
Usage: tools/bench/run past [--events N] [--rounds N] [--looks N] [--files N] [--dir DIR]
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ckptlog
from ckptlog import CheckpointManager, Store
from ckptlog.repository.file_view import FileView
from ckptlog.views.document import folder_of, name_of
from tools.bench import measure
from tools.bench.measure import Contestant, Round

_BATCH = 100
_NEVER = "no such actor"
# Not ru_maxrss: a process that is started begins with that of the one that started it.
_MEMORY = """
import sys
import ckptlog
def peak_kb():
    with open("/proc/self/status") as status:
        return next(line.split()[1] for line in status if line.startswith("VmHWM:"))
with ckptlog.open(sys.argv[1], read_only=True) as store:
    print(peak_kb())
    {work}
    print(peak_kb())
"""


def fill(root: Path, events: int) -> None:
    """Write lives of three events until there are so many."""
    measure.progress(f"writing {events:,} events")
    with CheckpointManager(root) as manager:
        step = 0
        while manager.store.position < events:
            step += 1
            with manager.batch() as batch:
                names = [
                    batch.create_checkpoint(f"task-{number}", "Title", step, data=_data(number))
                    for number in range(_BATCH)
                ]
                for number, name in enumerate(names):
                    batch.update_checkpoint(name, data=_data(number + 1))
                for name in names:
                    batch.complete_checkpoint(name)


def _data(number: int) -> dict[str, Any]:
    return {"number": number, "text": f"{random.getrandbits(240):060x}"}


# --- whole passes -----------------------------------------------------------------------------


def _pass(root: Path, name: str, work: Callable[[Store], Iterable[object]]) -> Contestant:
    """Return somebody who reads the whole log once a round."""

    def run() -> Round:
        with ckptlog.open(root, read_only=True) as store:
            events = store.position
            found = measure.timed(lambda _: _exhaust(work(store)), [None])
        return Round(events, found.wall_s, found.cpu_s, found.durations_s)

    return Contestant(name, run)


def _exhaust(items: Iterable[object]) -> None:
    for _ in items:
        pass


def passes(root: Path) -> list[Contestant]:
    """Return a raw scan, and audits: with anomalies, without, and with every event asked for."""
    return [
        _pass(root, "raw scan, decoded", lambda store: store.log.reader.commits()),
        _pass(root, "audit, one actor", lambda store: store.audit(actor=_NEVER)),
        _pass(
            root,
            "the same without anomalies",
            lambda store: store.audit(actor=_NEVER, anomalies=False),
        ),
        _pass(root, "audit, every event", lambda store: store.audit()),
    ]


def memory_mb(root: Path, work: str) -> float:
    """Return how much the peak memory of a process grows by some work, MB."""
    script = _MEMORY.format(work=work)
    done = subprocess.run(
        [sys.executable, "-c", script, str(root)], capture_output=True, text=True, check=True
    )
    before, after = (int(line) for line in done.stdout.split())
    return (after - before) / 1e3


# --- single events ----------------------------------------------------------------------------


def looks(root: Path, number: int) -> list[Contestant]:
    """Return somebody who finds single events, and somebody who reads on from a waypoint."""
    dice = random.Random(7)  # noqa: S311 - no secret

    def finding(name: str, find: Callable[[Store, int], object]) -> Contestant:
        def run() -> Round:
            with ckptlog.open(root) as store:
                store.view()
                positions = [dice.randrange(store.position) for _ in range(number)]
                return measure.timed(lambda position: find(store, position), positions)

        return Contestant(name, run)

    return [
        finding("one event anywhere", lambda store, position: store.event_at(position)),
        finding(
            "reading on from a waypoint",
            lambda store, position: next(store.events(position, position + 1)),
        ),
    ]


def neighbours(root: Path, number: int) -> Contestant:
    """Return somebody who walks back from event to event."""

    def run() -> Round:
        with ckptlog.open(root) as store:
            store.view()
            end = store.position
            positions = range(end - 1, end - 1 - number, -1)
            return measure.timed(store.event_at, list(positions))

    return Contestant("one event beside the one before", run)


# --- files ------------------------------------------------------------------------------------


def files(root: Path, folder: Path) -> list[Contestant]:
    """Return the file view built from nothing, and plain files of the same checkpoints."""

    def view() -> Round:
        with ckptlog.open(root) as store:
            file_view = FileView(store)
            shutil.rmtree(file_view.folder, ignore_errors=True)
            found = measure.timed(lambda _: file_view.refresh(), [None])
            number = file_view.index()["metadata"]["total_checkpoints"]
        return Round(number, found.wall_s, found.cpu_s, found.durations_s)

    def plain() -> Round:
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("active", "completed", "failed"):
            (folder / name).mkdir(parents=True)
        with CheckpointManager(root) as manager:
            found = measure.timed(lambda _: _write_plain(manager, folder), [None])
        number = sum(1 for _ in folder.rglob("*.json"))
        return Round(number, found.wall_s, found.cpu_s, found.durations_s)

    return [Contestant("file view, from nothing", view), Contestant("plain json.dump", plain)]


def _write_plain(manager: CheckpointManager, folder: Path) -> None:
    for one in manager.iterate():
        path = folder / folder_of(one.state.value) / name_of(one.checkpoint_id)
        with path.open("w", encoding="utf-8") as file:
            json.dump(one.to_dict(), file, indent=2)


def one_change(root: Path) -> Contestant:
    """Return the file view taking in one change at a time."""

    def run() -> Round:
        with CheckpointManager(root) as manager:
            view = FileView(manager.store)
            view.refresh()
            names = [
                manager.create_checkpoint("change", "Title", 1, data=_data(number))
                for number in range(20)
            ]
            view.refresh()

            def change(name: str) -> None:
                manager.complete_checkpoint(name)
                view.refresh()

            return measure.timed(change, names)

    return Contestant("file view, one change", run)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Looking back.")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--looks", type=int, default=500)
    parser.add_argument("--files", type=int, default=5_000)
    parser.add_argument("--dir", help="measure in this directory's file system")
    options = parser.parse_args()
    with measure.scratch(options.dir) as folder:
        measure.machine(folder)
        root = folder / "store"
        fill(root, options.events)
        whole = passes(root)
        measure.alternate(whole, options.rounds)
        measure.heading(f"A log of {options.events:,} events")
        measure.table(whole)
        for audit in whole[1:]:
            measure.judge_ratio(f"{audit.name} / raw scan", measure.rate_ratios(audit, whole[0]))
        grown = memory_mb(root, "sum(1 for _ in store.audit())")
        measure.judge("audit, every event: growth of peak memory", grown, unit=" MB", most=400)
        single = [*looks(root, options.looks), neighbours(root, options.looks)]
        measure.alternate(single, options.rounds)
        measure.heading("Single events")
        measure.table(single)
        measure.judge_ratio("anywhere / from a waypoint", measure.time_ratios(*single[:2]))
        root = folder / "small"
        fill(root, 3 * options.files)
        written = files(root, folder / "plain")
        measure.alternate(written, options.rounds)
        change = one_change(root)
        measure.alternate([change], 1)
        measure.heading(f"{options.files:,} checkpoints as files")
        measure.table([*written, change])
        measure.judge_ratio("file view / plain files", measure.rate_ratios(*written))


if __name__ == "__main__":
    main()
