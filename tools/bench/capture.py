"""Captures of five components with 500 MB of state: ckptlog beside a pickle, written and synced.

Of each component 2 % changed since the last capture.

    model      200 MB  numpy arrays, replaced when they change             immutable
    documents  150 MB  bytes, replaced when they change                    immutable
    replay     110 MB  one numpy array, written in place                   fork
    memory      38 MB  nested dicts and lists of text, changed in place    fork
    queue        2 MB  list of small dicts, changed in place               live

The pickle's system is stopped while it is pickled; ours while the barrier lasts. The memory that a
capture takes is the growth of the process's peak (VmHWM) over what it had before, children not
counted.

At the end the whole system is recovered, with everything that a recovery does: every byte is
checked against its digest, what is there is captured first, what was restored is compared. The
pickle is loaded, and not checked.
Usage: tools/bench/run capture [--rounds N] [--megabytes N] [--dir DIR]
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import pickle
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy

from ckptlog import CaptureInfo, CheckpointManager
from ckptlog.capture.capturer import Capturer
from ckptlog.model.component import Component
from ckptlog.recovery.recovery import Recovery
from tools.bench import measure
from tools.bench.measure import Contestant, Round

SHARE = 0.02
_LAYERS = 50
_DOCUMENTS = 300
_PARTS = [
    ("model", "immutable"),
    ("documents", "immutable"),
    ("replay", "fork"),
    ("memory", "fork"),
    ("queue", "live"),
]


class Part:
    """A component with a state in memory."""

    def __init__(self, name: str, state: Any, stability: str) -> None:
        self.name, self.state, self.stability = name, state, stability

    def capture(self) -> Any:
        """Return the state."""
        return self.state

    def restore(self, payload: Any) -> None:
        """Take a state over."""
        self.state = payload


class System:
    """Five components, and a way to change some of each.

    Args:
        megabytes: Of the whole; 1 MB is 1,000,000 bytes.
    """

    def __init__(self, megabytes: int) -> None:
        share = megabytes * 1_000_000 // 500
        self._random = numpy.random.default_rng(6)
        self._round = 0
        self.model = {f"layer{one}": self._floats(200 * share // _LAYERS) for one in range(_LAYERS)}
        self._size = 150 * share // _DOCUMENTS
        self.documents = {f"doc{one}": self._random.bytes(self._size) for one in range(_DOCUMENTS)}
        self.replay = self._floats(110 * share)
        count = 38 * share // 400
        self.memory = {
            f"agent{agent}": {"messages": [self._message() for _ in range(count // 20)]}
            for agent in range(20)
        }
        self.queue = [{"task": one, "payload": self._text(150)} for one in range(2 * share // 200)]
        self._own: list[Any] = [
            self.model,
            self.documents,
            {"buffer": self.replay},
            self.memory,
            self.queue,
        ]
        self.parts: list[Component] = [
            Part(name, state, stability)
            for (name, stability), state in zip(_PARTS, self._own, strict=True)
        ]

    def go_on(self) -> None:
        """Let the components have what they had before a recovery, and change it."""
        for part, state in zip(self.parts, self._own, strict=True):
            part.restore(state)
        self.change()

    def change(self) -> None:
        """Change 2 % of each component."""
        self._round += 1
        for one in range(_LAYERS // 50):
            name = f"layer{(self._round * 7 + one) % _LAYERS}"
            self.model[name] = self._floats(self.model[name].nbytes)
        for one in range(_DOCUMENTS // 50):
            number = (self._round * 7 + one) % _DOCUMENTS
            self.documents[f"doc{number}"] = self._random.bytes(self._size)
        span = int(len(self.replay) * SHARE)
        begin = self._round * span % (len(self.replay) - span)
        self.replay[begin : begin + span] = self._random.random(span, dtype="f4")
        for agent in self.memory.values():
            messages = agent["messages"]
            fresh = max(1, int(len(messages) * SHARE))
            del messages[:fresh]
            messages.extend(self._message() for _ in range(fresh))
        for one in range(max(1, len(self.queue) // 50)):
            self.queue[(self._round * 31 + one) % len(self.queue)]["payload"] = self._text(150)

    def state(self) -> dict[str, Any]:
        """Return all of it, for the peer."""
        return {one.name: one.capture() for one in self.parts}

    def _floats(self, size: int) -> Any:
        return self._random.random(size // 4, dtype="f4")

    def _text(self, size: int) -> str:
        return self._random.bytes(size // 2).hex()

    def _message(self) -> dict[str, Any]:
        return {"role": "user", "turn": self._round, "content": self._text(350)}


def _is_same(one: Any, other: Any) -> bool:
    """Say whether two states are equal, types and order too."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(_is_same(one[key], other[key]) for key in one)
    if isinstance(one, numpy.ndarray):
        return one.dtype == other.dtype and bool((one == other).all())
    return bool(one == other)


class Memory:
    """The growth of this process's peak."""

    def __init__(self) -> None:
        gc.collect()
        # Freed blocks go back, so that what follows is seen to be taken.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        self._begin = _status("VmRSS")

    @property
    def growth(self) -> int:
        """Bytes of the peak over what there was."""
        return _status("VmHWM") - self._begin


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


class Ours:
    """Captures, and what they took."""

    def __init__(self, folder: Path, system: System) -> None:
        self._system = system
        self._manager = CheckpointManager(folder / "store")
        self._capturer = Capturer(self._manager, "bench", system.parts)
        self.infos: list[CaptureInfo] = []
        self.growths: list[int] = []

    def weigh(self) -> None:
        """Capture once, for the memory that it takes; freeing it first would cost a timed one."""
        memory = Memory()
        self._capturer.capture()
        self.growths.append(memory.growth)

    def run(self) -> Round:
        """Capture once."""
        begin, cpu = time.perf_counter(), time.process_time()
        info = self._capturer.capture()
        wall_s, cpu_s = time.perf_counter() - begin, time.process_time() - cpu
        if info is not None:
            self.infos.append(info)
        return Round(1, wall_s, cpu_s, [wall_s])

    def check(self) -> None:
        """Read the newest capture and compare it with the state that was captured."""
        (info,) = self._capturer.captures(1)
        faults = self._capturer.check(info)
        stored = self._capturer.stored(info)
        for part in self._system.parts:
            value = stored[part.name].value()
            if not _is_same(value, part.capture()):
                faults.append(f"{part.name} differs")
        if faults:
            raise SystemExit("\n".join(faults))

    def recover(self) -> Round:
        """Bring the newest capture back, and compare the system with it."""
        begin, cpu = time.perf_counter(), time.process_time()
        Recovery(self._capturer).recover()
        wall_s, cpu_s = time.perf_counter() - begin, time.process_time() - cpu
        return Round(1, wall_s, cpu_s, [wall_s])

    def close(self) -> None:
        """Close the store."""
        self._manager.close()


def theirs(folder: Path, system: System) -> Contestant:
    """Return a pickle of the whole, synced, under the name of the last."""

    def run() -> Round:
        begin, cpu = time.perf_counter(), time.process_time()
        with (folder / "new").open("wb") as file:
            pickle.dump(system.state(), file, protocol=5)
            file.flush()
            os.fsync(file.fileno())
        (folder / "new").replace(folder / "state.pickle")
        wall_s, cpu_s = time.perf_counter() - begin, time.process_time() - cpu
        return Round(1, wall_s, cpu_s, [wall_s])

    return Contestant("pickle.dump + fsync", run)


def loaded(folder: Path) -> Contestant:
    """Return the loading of the pickle."""

    def run() -> Round:
        begin, cpu = time.perf_counter(), time.process_time()
        with (folder / "state.pickle").open("rb") as file:
            pickle.load(file)  # noqa: S301 - written by `theirs`
        wall_s, cpu_s = time.perf_counter() - begin, time.process_time() - cpu
        return Round(1, wall_s, cpu_s, [wall_s])

    return Contestant("pickle.load", run)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Captures of a system with 500 MB of state.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--dir", help="measure in this directory's file system")
    options = parser.parse_args()
    with measure.scratch(options.dir) as folder:
        system = System(options.megabytes)
        ours = Ours(folder, system)
        first = ours.run()
        mine, peer = Contestant("ckptlog, 2 % changed", ours.run), theirs(folder, system)
        again = Contestant("ckptlog, nothing changed", ours.run)
        for number in range(options.rounds):
            system.change()
            for one in [mine, peer] if number % 2 else [peer, mine]:
                gc.collect()
                one.rounds.append(one.run())
            measure.progress(f"round {number + 1} of {options.rounds}")
        changed = ours.infos[1:]
        again.rounds.append(again.run())
        for _ in range(3):
            system.change()
            ours.weigh()
        ours.check()
        back, load = Contestant("ckptlog, recovery", ours.recover), loaded(folder)
        for number in range(options.rounds):
            for one in [back, load] if number % 2 else [load, back]:
                system.go_on()
                gc.collect()
                one.rounds.append(one.run())
        ours.close()
        _print(options.megabytes, first, [mine, again, peer], changed, ours.growths)
        measure.table([back, load])
        measure.judge("recovery, p50", back.p50_s, most=3, unit=" s")
        measure.judge_ratio("times as fast as the loading", measure.rate_ratios(back, load))


def _print(
    megabytes: int,
    first: Round,
    contestants: Sequence[Contestant],
    infos: Sequence[CaptureInfo],
    growths: Sequence[int],
) -> None:
    mine, _, peer = contestants
    measure.heading(
        f"Five components, {megabytes} MB, 2 % changed; first capture {first.wall_s:.2f} s"
    )
    measure.table(contestants)
    stopped = [info.stopped_s * 1e3 for info in infos]
    measure.judge("save, p50", mine.p50_s, most=1, unit=" s")
    measure.judge("save, slowest", max(mine.durations_s), most=1, unit=" s")
    measure.judge("system stopped, p50", measure.percentile(stopped, 0.5), most=50, unit=" ms")
    measure.judge("system stopped, longest", max(stopped), most=50, unit=" ms")
    measure.judge("memory growth, largest", max(growths) / 1e6, most=200, unit=" MB")
    measure.judge_ratio("times as fast as the pickle", measure.rate_ratios(mine, peer))
    held = [
        1 / one.per_second / info.stopped_s for one, info in zip(peer.rounds, infos, strict=True)
    ]
    measure.judge_ratio("times less stopped than by the pickle", held)
    new = measure.percentile([info.bytes_new / 1e6 for info in infos], 0.5)
    measure.judge("new bytes of a capture, p50", new, unit=" MB")
    last = infos[-1]
    for name, one in last.components.items():
        print(f"    {name:<12}{one.size / 1e6:>8.1f} MB {one.seconds:>8.3f} s  {one.stability}")


if __name__ == "__main__":
    main()
