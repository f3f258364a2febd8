"""Enumerate what crashes of a real process can leave of its store, and judge each of them.

The process runs under strace. At each of its system calls a model of the medium below the page
cache says what a kill or a power cut may leave there (tools/crash/medium.py: kinds of states);
each different one is laid out and judged (tools/crash/judge.py). Page: specs/testing.md.

Usage: crash_states.py [--workload NAME]... [--each N] [--stride N] [--jobs N] [--keep DIR]
       [--bug NAME] [--json]
With --each, so many states of each system call are drawn; with --stride, every n-th call is taken.
Exit status 1 where a state is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.crash.bug import BUGS
from tools.crash.diary import PROMISES, Diary
from tools.crash.judge import judge
from tools.crash.medium import Image, Medium, lay_out
from tools.crash.trace import Replay, surrounding, trace
from tools.crash.workload import WORKLOADS, make_small, phase_of

# A second crash, while a process recovers from a first one.
RECOVER, RECOVERING = "recover", "recovering"
_STARTS = 6
_COUNTS = ("phases", "workloads", "kinds", "calls")
_CUT_OFF = ("torn", "prefix", "scattered", "kill")
# Each fourth state is first opened by a reader, who has to bear with more.
_READER_EVERY = 4


@dataclass(frozen=True)
class State:
    """One state: where it comes from, what stands in the store, what was told by then."""

    workload: str
    step: int
    call: str
    kind: str
    image: Image
    lines: tuple[str, ...]

    @property
    def phase(self) -> str:
        """What the process was at: writing, settling, cleaning, rebuilding; or recovering."""
        return RECOVERING if self.workload == RECOVER else phase_of(Diary.of(self.lines).act)

    def key(self) -> bytes:
        """Return what two states have in common that need not both be judged."""
        digest = hashlib.blake2b(digest_size=16)
        for name, data in sorted(self.image.items()):
            digest.update(f"{name}\0{len(data)}\0".encode())
            digest.update(data)
        digest.update(str(len(self.lines)).encode())
        return digest.digest()


@dataclass
class Tally:
    """Counts of what was judged, and what was wrong."""

    phases: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    workloads: Counter[str] = field(default_factory=Counter)
    promises: Counter[str] = field(default_factory=Counter)
    alike: int = 0
    faults: list[dict[str, Any]] = field(default_factory=list)

    @property
    def states(self) -> int:
        """How many different states were judged."""
        return self.workloads.total()

    def enter(self, state: State, faults: list[str]) -> None:
        """Count a state that was judged."""
        self.phases[state.phase] += 1
        self.calls[state.call] += 1
        self.kinds[state.kind] += 1
        self.workloads[state.workload] += 1
        if faults:
            for fault in faults:
                self.promises[next((one for one in PROMISES if one in fault), "other")] += 1
            where = {"workload": state.workload, "step": state.step, "call": state.call}
            self.faults.append({**where, "kind": state.kind, "faults": faults})

    def to_dict(self) -> dict[str, Any]:
        """Return all counts, safe for JSON."""
        counts = {name: dict(getattr(self, name)) for name in _COUNTS}
        broken = {one: self.promises[one] for one in (*PROMISES, "other")}
        states = {"states": self.states, "alike": self.alike}
        return {**states, **counts, "broken": broken, "faults": self.faults}

    def __str__(self) -> str:
        lines = [f"{self.states} different states judged; {self.alike} more were alike"]
        for name in _COUNTS:
            counts: Counter[str] = getattr(self, name)
            words = ", ".join(f"{word} {count}" for word, count in counts.most_common())
            lines.append(f"{name}: {words}")
        lines += [f"WRONG {json.dumps(fault)}" for fault in self.faults[:20]]
        words = ", ".join(f"{one} {self.promises[one]}" for one in (*PROMISES, "other"))
        lines.append(f"{len(self.faults)} states are wrong ({words})")
        return "\n".join(lines)


@dataclass(frozen=True)
class Draw:
    """Which states are taken: of every stride-th call, so many of each (0: all), by a seed."""

    each: int = 0
    stride: int = 1
    seed: int = 0

    def takes(self, step: int) -> bool:
        """Say whether a call's states are taken."""
        return (step + self.seed) % self.stride == 0

    def of(self, medium: Medium, step: int) -> list[tuple[str, Image]]:
        """Return the states of the medium that are taken; for one seed always the same."""
        found = list(medium.states())
        chance = random.Random(f"{self.seed}/{step}")  # noqa: S311 - the same each time
        return chance.sample(found, min(self.each, len(found))) if self.each else found


def states(workload: str, folder: Path, draw: Draw, bug: str = "") -> Iterator[State]:
    """Run a workload under strace and yield what its crashes may leave.

    Args:
        bug: One of tools/crash/bug.py that the process shall have.
    """
    root = folder / workload / "store"
    root.parent.mkdir(parents=True)
    if workload == RECOVER:
        for start in _starts(folder, draw):
            root.mkdir()
            lay_out(start.image, root)
            yield from _traced(workload, root, start.lines, draw, bug)
            shutil.rmtree(root)
    else:
        lines = prepared(root) if workload != "prepare" else []
        yield from _traced(workload, root, tuple(lines), draw, bug)
    shutil.rmtree(root.parent)


def _traced(
    workload: str, root: Path, lines: tuple[str, ...], draw: Draw, bug: str
) -> Iterator[State]:
    root.mkdir(exist_ok=True)
    medium = Medium(root)
    acts = "create update" if workload == RECOVER else workload
    command = [sys.executable, "-m", "tools.crash.workload", acts, str(root), bug]
    replay = Replay(medium)
    calls, _ = trace(command)
    for step, call in enumerate(replay.steps(calls)):
        if draw.takes(step):
            told = (*lines, *replay.told)
            for kind, image in draw.of(medium, step):
                yield State(workload, step, call, kind, image, told)


def _starts(folder: Path, draw: Draw) -> list[State]:
    """Return states in which a commit was cut off: what the workload `recover` begins with."""
    first = Draw(each=5, seed=draw.seed)
    found = [
        state
        for state in states("commit", folder / "first", first)
        if state.call == "pwrite64 segment" and state.kind in _CUT_OFF
    ]
    chance = random.Random(draw.seed)  # noqa: S311 - the same each time
    return chance.sample(found, _STARTS if draw.each == 0 else 2)


def prepared(root: Path) -> list[str]:
    """Make the store that workloads begin with; return what was told."""
    command = [sys.executable, "-m", "tools.crash.workload", "prepare", str(root)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=surrounding())
    return done.stdout.splitlines()


def judged(state: State) -> list[str]:
    """Lay a state out and judge it."""
    make_small()
    folder = Path(tempfile.mkdtemp(prefix="ckptlog-state-", dir=memory()))
    try:
        root = folder / "store"
        root.mkdir()
        lay_out(state.image, root)
        with_reader = state.key()[0] % _READER_EVERY == 0
        return judge(root, Diary.of(state.lines), with_reader=with_reader)
    except Exception as error:  # noqa: BLE001 - whatever it is, this state shows it
        return [f"{type(error).__name__}: {error}"]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def memory() -> str | None:
    """Return a folder in memory where there is one: nobody cuts the power of the judge."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - made by mkdtemp


def different(found: Iterable[State], tally: Tally) -> Iterator[State]:
    """Leave out states that were there already."""
    seen: set[bytes] = set()
    for state in found:
        key = state.key()
        if key in seen:
            tally.alike += 1
        else:
            seen.add(key)
            yield state


def explore(
    workloads: Iterable[str],
    draw: Draw,
    *,
    jobs: int = 1,
    keep: Path | None = None,
    bug: str = "",
) -> Tally:
    """Judge the states of workloads.

    Args:
        jobs: Processes that judge; with 1, this one.
        keep: A folder for what the wrong states leave, each with what was told (`told`).
    """
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="ckptlog-crash-", dir=memory()) as folder:
        for workload in workloads:
            drawn = different(states(workload, Path(folder), draw, bug), tally)
            for state, faults in _judged_all(drawn, jobs):
                tally.enter(state, faults)
                if faults and keep is not None:
                    _keep(keep / f"{state.workload}-{state.step}-{tally.states}", state)
    return tally


def _judged_all(found: Iterator[State], jobs: int) -> Iterator[tuple[State, list[str]]]:
    if jobs == 1:
        yield from ((state, judged(state)) for state in found)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        while batch := [state for _, state in zip(range(200), found, strict=False)]:
            yield from zip(batch, pool.map(judged, batch, chunksize=10), strict=True)


def _keep(folder: Path, state: State) -> None:
    lay_out(state.image, folder / "store")
    (folder / "told").write_text("".join(f"{line}\n" for line in state.lines))


def main() -> int:
    """Explore, print counts; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = ["prepare", *WORKLOADS, RECOVER]
    parser.add_argument("--workload", action="append", choices=names, help="default: all")
    parser.add_argument("--each", type=int, default=0, help="states of each call (default: all)")
    parser.add_argument("--stride", type=int, default=1, help="take every n-th call")
    parser.add_argument("--seed", type=int, default=0, help="which calls and states are drawn")
    parser.add_argument("--jobs", type=int, default=2, help="processes that judge")
    parser.add_argument("--keep", type=Path, help="keep what wrong states leave here")
    parser.add_argument("--bug", default="", choices=["", *BUGS], help="plant a bug: find it")
    parser.add_argument("--json", action="store_true", help="print one document")
    options = parser.parse_args()
    tally = explore(
        options.workload or names,
        Draw(options.each, options.stride, options.seed),
        jobs=options.jobs,
        keep=options.keep,
        bug=options.bug,
    )
    print(json.dumps(tally.to_dict(), indent=1) if options.json else tally)
    return 1 if tally.faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
