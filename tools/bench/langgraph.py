"""CkptlogSaver beside LangGraph's SqliteSaver and InMemorySaver: two workloads in one run.

small   checkpoints of about 1 KB over 100 threads
grow    one thread whose messages grow to about 1 MB, with put and put_writes at each step, as a
        graph does it

Afterwards each is tidied up: ours is compacted, and every checkpoint read once more; SqliteSaver's
file is vacuumed (`bytes_tidied`).

Each contestant gets the same values in the same order, takes turns in short stretches, and has its
own store. Bytes are counted with everything closed; of ours without the disposable views and the
reserve. Ratios are SqliteSaver's figure over ours (the other way round for puts per second): above
1 is better. What is told as a target is the issue's.
Usage: tools/bench/run langgraph [--steps N] [--puts N] [--dicts] [--dir DIR]
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sqlite3
import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver

from ckptlog import CheckpointManager
from ckptlog.integrations.langgraph import CkptlogSaver
from tools.bench import measure

OURS, PEER, MEMORY = "ckptlog", "SqliteSaver", "InMemorySaver"
THREADS: Final = 100
STRETCH: Final = 10
AT: Final = (10, 100, 500, 1000)
PACKAGES: Final = ("langgraph-checkpoint", "langgraph-checkpoint-sqlite", "langchain-core")
_UNCOUNTED: Final = ("views", "reserve", "lock")


class Words:
    """Text of made-up words, some far more frequent than others; it packs about as prose does."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - the same for all
        letters, weights = "etaoinshrdlucmfwypvbgkj", range(23, 0, -1)
        self._words = [
            "".join(self._random.choices(letters, weights, k=self._random.randint(2, 10)))
            for _ in range(4000)
        ]
        self._weights = [1 / (rank + 5) for rank in range(4000)]

    def text(self, characters: int) -> str:
        """Return a text of about so many characters."""
        return " ".join(self._random.choices(self._words, self._weights, k=characters // 4))[
            :characters
        ]

    def identifier(self) -> str:
        """Return a random UUID."""
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def message(self, number: int, *, as_dict: bool) -> Any:
        """Return the message of a step: asked, answered, found."""
        body, name = self.text(850), self.identifier()
        if as_dict:
            kind = ("human", "ai", "tool")[number % 3]
            return {"id": name, "type": kind, "content": body, "step": number}
        if number % 3 == 0:
            return HumanMessage(body, id=name)
        if number % 3 == 1:
            call = {"name": "search", "args": {"q": self.text(40)}, "id": f"call_{number}"}
            return AIMessage(body, id=name, tool_calls=[call])
        return ToolMessage(body, id=name, tool_call_id=f"call_{number - 1}")


@dataclass
class Runner:
    """One saver, and what its calls took, in seconds."""

    name: str
    saver: Any
    close: Callable[[], None]
    size: Callable[[], int]
    tidy: Callable[[], None]
    puts: list[float] = field(default_factory=list)
    writes: list[float] = field(default_factory=list)
    heads: dict[str, Any] = field(default_factory=dict)

    def put(self, thread: str, checkpoint: dict[str, Any], metadata: dict[str, Any]) -> None:
        """Put a thread's next checkpoint."""
        fresh = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
        head = self.heads.get(thread, fresh)
        versions = checkpoint["channel_versions"]
        start = time.perf_counter()
        self.heads[thread] = self.saver.put(head, checkpoint, metadata, versions)
        self.puts.append(time.perf_counter() - start)

    def put_writes(self, thread: str, writes: list[tuple[str, Any]], task: str) -> None:
        """Put writes to a thread's newest checkpoint."""
        start = time.perf_counter()
        self.saver.put_writes(self.heads[thread], writes, task, "~task")
        self.writes.append(time.perf_counter() - start)


def runners(folder: Path) -> list[Runner]:
    """Return the contestants, each with a store of its own."""
    path = folder / "peer.db"
    connection = sqlite3.connect(path, check_same_thread=False)
    peer = SqliteSaver(connection)
    peer.setup()
    mode = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in _SETTINGS]
    if mode != ["wal", 2]:
        raise SystemExit(f"SqliteSaver runs with {mode}; WAL and FULL were expected.")
    ours = CkptlogSaver.open(folder / "store")
    threads: dict[str, Any] = {}
    return [
        Runner(
            OURS,
            ours,
            ours.close,
            lambda: _size(folder / "store"),
            lambda: _compact(folder / "store", list(threads)),
            heads=threads,
        ),
        Runner(
            PEER,
            peer,
            connection.close,
            lambda: sum(map(_bytes, folder.glob("peer.db*"))),
            lambda: _vacuum(path),
        ),
        Runner(MEMORY, InMemorySaver(), lambda: None, lambda: 0, lambda: None),
    ]


def _compact(store: Path, threads: list[str]) -> None:
    """Compact a store, then read every checkpoint of it."""
    with CheckpointManager(store) as manager:
        manager.compact_checkpoint_storage()
    with CkptlogSaver.open(store) as saver:
        for thread in threads:
            for found in saver.list({"configurable": {"thread_id": thread}}):
                assert found.checkpoint["channel_values"] is not None  # noqa: S101 - it was read


def _vacuum(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


_SETTINGS: Final = ("journal_mode", "synchronous")


def _size(store: Path) -> int:
    files = (path for path in store.rglob("*") if path.is_file())
    return sum(_bytes(path) for path in files if path.relative_to(store).parts[0] not in _UNCOUNTED)


def _bytes(path: Path) -> int:
    return path.stat().st_size


def _checkpoint(values: dict[str, Any], number: int, words: Words) -> dict[str, Any]:
    made: dict[str, Any] = dict(empty_checkpoint())
    made["id"] = str(uuid6(clock_seq=number % 16000))
    version = f"{number + 1:032}.{random.Random(words.identifier()).random():016f}"  # noqa: S311
    made["channel_values"] = values
    made["channel_versions"] = dict.fromkeys(values, version)
    return made


def _turns(contestants: list[Runner], count: int) -> Iterator[tuple[range, list[Runner]]]:
    """Yield stretches of steps, and the contestants in an order that changes."""
    for turn, start in enumerate(range(0, count, STRETCH)):
        shift = turn % len(contestants)
        yield (
            range(start, min(start + STRETCH, count)),
            [*contestants[shift:], *contestants[:shift]],
        )


# --- small --------------------------------------------------------------------------------------


def small(folder: Path, count: int, *, as_dict: bool) -> list[dict[str, Any]]:
    """Run the workload `small`."""
    words, contestants = Words(7), runners(folder)
    gc.disable()
    for stretch, order in _turns(contestants, count):
        puts = []
        for number in stretch:
            values = {
                "messages": [words.message(number, as_dict=as_dict)],
                "count": number,
                "phase": "plan",
            }
            metadata = {"source": "loop", "step": number // THREADS, "run_id": f"r{number % 50}"}
            puts.append((f"t{number % THREADS}", _checkpoint(values, number, words), metadata))
        for runner in order:
            for put in puts:
                runner.put(*put)
    gc.enable()
    gc.collect()
    found = [_small_figures(runner) for runner in contestants]
    return [
        {**figures, **_closed(runner)} for figures, runner in zip(found, contestants, strict=True)
    ]


def _small_figures(runner: Runner) -> dict[str, Any]:
    saver = runner.saver
    where = {"configurable": {"thread_id": "t7", "checkpoint_ns": ""}}
    return {
        "name": runner.name,
        "puts_per_s": round(len(runner.puts) / sum(runner.puts)),
        "put_p50_ms": _ms(statistics.median(runner.puts)),
        "put_p99_ms": _ms(sorted(runner.puts)[int(len(runner.puts) * 0.99)]),
        "get_latest_p50_ms": _p50(lambda: saver.get_tuple(where), 200),
        "list20_p50_ms": _p50(lambda: list(saver.list(where, limit=20)), 30),
        "list20_by_run_ms": _p50(
            lambda: list(saver.list(None, filter={"run_id": "r7"}, limit=20)), 10
        ),
        "list20_no_match_ms": _p50(
            lambda: list(saver.list(None, filter={"run_id": "absent"}, limit=20)), 5
        ),
        "puts": len(runner.puts),
    }


# --- grow ---------------------------------------------------------------------------------------


def grow(folder: Path, steps: int, *, as_dict: bool) -> list[dict[str, Any]]:
    """Run the workload `grow`."""
    words, contestants = Words(7), runners(folder)
    messages: list[Any] = []
    gc.disable()
    for stretch, order in _turns(contestants, steps):
        puts = []
        for number in stretch:
            message = words.message(number, as_dict=as_dict)
            messages.append(message)
            values = {"messages": list(messages), "count": number}
            made = _checkpoint(values, number, words)
            writes = [("messages", message), ("count", number)]
            puts.append((made, {"source": "loop", "step": number}, writes, words.identifier()))
        for runner in order:
            for made, metadata, writes, task in puts:
                runner.put("t", made, metadata)
                runner.put_writes("t", writes, task)
        gc.collect()
    gc.enable()
    found = [_grow_figures(runner) for runner in contestants]
    return [
        {**figures, **_closed(runner)} for figures, runner in zip(found, contestants, strict=True)
    ]


def _grow_figures(runner: Runner) -> dict[str, Any]:
    where = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    puts, saver = runner.puts, runner.saver
    steps = {at: statistics.median(puts[at - 10 : at]) for at in AT if at <= len(puts)}
    last, first = max(steps), min(steps)
    growth = (steps[last] - steps[first]) / max(1, last - first)
    return {
        "name": runner.name,
        "put_p50_ms_at": {at: _ms(value) for at, value in steps.items()},
        "us_per_message": round(growth * 1e6, 2),
        "put_total_s": round(sum(puts), 2),
        "writes_p50_ms": _ms(statistics.median(runner.writes)),
        "writes_last_ms": _ms(statistics.median(runner.writes[-10:])),
        "writes_total_s": round(sum(runner.writes), 2),
        "get_latest_p50_ms": _p50(lambda: saver.get_tuple(where), 20),
        "list20_p50_ms": _p50(lambda: list(saver.list(where, limit=20)), 3),
        "puts": len(puts),
    }


def _closed(runner: Runner) -> dict[str, Any]:
    runner.close()
    size = runner.size()
    runner.tidy()
    return {
        "bytes": size,
        "bytes_per_put": round(size / len(runner.puts)),
        "bytes_tidied": runner.size(),
    }


def _p50(call: Callable[[], Any], times: int) -> float:
    taken = []
    call()
    for _ in range(times):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return _ms(statistics.median(taken))


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)


# --- the report ---------------------------------------------------------------------------------


def report(title: str, found: list[dict[str, Any]]) -> None:
    """Print a workload's figures side by side, and ratios to SqliteSaver."""
    ours, peer, memory = found
    print(f"\n{title}\n{'':22}{OURS:>14}{PEER:>14}{MEMORY:>14}{'ratio':>9}")
    for name in (name for name in ours if name not in {"name", "puts"}):
        for label, values in _rows(name, (ours[name], peer[name], memory[name])):
            print(
                f"{label:22}" + "".join(f"{value:>14,}" for value in values) + _ratio(label, values)
            )


def _rows(name: str, values: tuple[Any, ...]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    if not isinstance(values[0], dict):
        yield name, values
        return
    for at in values[0]:
        yield f"{name.removesuffix('_at')} {at}", tuple(value[at] for value in values)


def _ratio(label: str, values: tuple[Any, ...]) -> str:
    ours, peer, _ = values
    if not ours or not peer:
        return ""
    return f"{ours / peer if 'per_s' in label else peer / ours:>9.2f}"


def main() -> None:
    """Run both workloads."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1000, help="of grow; 0 leaves it out")
    parser.add_argument("--puts", type=int, default=5000, help="of small; 0 leaves it out")
    parser.add_argument("--dicts", action="store_true", help="messages as dicts, not LangChain's")
    parser.add_argument("--dir", help="where the stores lie, beside the project by default")
    parser.add_argument("--json", action="store_true", help="the figures alone, as JSON")
    arguments = parser.parse_args()
    found = {}
    for name, count, run in (("small", arguments.puts, small), ("grow", arguments.steps, grow)):
        if count:
            with measure.scratch(arguments.dir) as folder:
                if not arguments.json:
                    measure.machine(folder, *PACKAGES)
                found[name] = run(folder, count, as_dict=arguments.dicts)
    if arguments.json:
        print(json.dumps(found))
        return
    for name, figures in found.items():
        report(f"{name}, {figures[0]['puts']:,} puts", figures)


if __name__ == "__main__":
    main()
