"""Measures contestants side by side, in small alternating rounds, and prints what came out.

A machine drifts: other programs, clocks, a disk's journal. So no figure is compared with one from
another run. Each round every contestant does a little work, in an order that changes; a ratio is
the median over the rounds of the ratio within one round. Processor time is printed too: it moves
least when others use the machine. A target stands beside its figure; no test depends on it.
"""

from __future__ import annotations

import gc
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
SCRATCH = ROOT / ".bench"

Argument = TypeVar("Argument")


@dataclass(frozen=True)
class Round:
    """Work of one contestant in one round. Times in seconds; cpu_s is that of the process."""

    operations: int
    wall_s: float
    cpu_s: float
    durations_s: list[float]

    @property
    def per_second(self) -> float:
        """Operations a second."""
        return self.operations / self.wall_s

    @property
    def p50_s(self) -> float:
        """Median duration of one call."""
        return percentile(self.durations_s, 0.5)


@dataclass
class Contestant:
    """Somebody who does the work; `run` does one round of it."""

    name: str
    run: Callable[[], Round]
    rounds: list[Round] = field(default_factory=list)

    @property
    def durations_s(self) -> list[float]:
        """Durations of all calls."""
        return [one for each in self.rounds for one in each.durations_s]

    @property
    def per_second(self) -> float:
        """Operations a second over all rounds."""
        return sum(one.operations for one in self.rounds) / sum(one.wall_s for one in self.rounds)

    @property
    def cpu_s(self) -> float:
        """Processor time of one operation, over all rounds."""
        return sum(one.cpu_s for one in self.rounds) / sum(one.operations for one in self.rounds)

    @property
    def p50_s(self) -> float:
        """Median duration over all rounds."""
        return percentile(self.durations_s, 0.5)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of the others do not pass; 0 <= share < 1."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def timed(
    operation: Callable[[Argument], Any], arguments: Sequence[Argument], *, each: int = 1
) -> Round:
    """Call operation once for each argument, in this thread.

    Args:
        each: Operations that one call stands for (a batch).
    """
    durations: list[float] = []
    clock = time.perf_counter
    begin, cpu = clock(), time.process_time()
    for argument in arguments:
        start = clock()
        operation(argument)
        durations.append(clock() - start)
    wall_s, cpu_s = clock() - begin, time.process_time() - cpu
    return Round(len(arguments) * each, wall_s, cpu_s, durations)


def timed_in_threads(
    operation: Callable[[Argument], Any], arguments: Sequence[Argument], threads: int
) -> Round:
    """Share the arguments among threads that start together; the wall time is that of all."""
    barrier = threading.Barrier(threads + 1)
    found: list[Round] = []
    faults: list[BaseException] = []

    def work(share: Sequence[Argument]) -> None:
        barrier.wait()
        try:
            found.append(timed(operation, share))
        except BaseException as error:  # noqa: BLE001 - told by the thread that started us
            faults.append(error)

    workers = [
        threading.Thread(target=work, args=(arguments[number::threads],))
        for number in range(threads)
    ]
    for worker in workers:
        worker.start()
    barrier.wait()
    begin, cpu = time.perf_counter(), time.process_time()
    for worker in workers:
        worker.join()
    wall_s, cpu_s = time.perf_counter() - begin, time.process_time() - cpu
    if faults:
        raise faults[0]
    durations = [one for each in found for one in each.durations_s]
    return Round(len(arguments), wall_s, cpu_s, durations)


def alternate(contestants: Sequence[Contestant], rounds: int) -> None:
    """Let the contestants work in turn; each round another one begins."""
    for number in range(rounds):
        first = number % len(contestants)
        for contestant in [*contestants[first:], *contestants[:first]]:
            gc.collect()  # nobody pays for another's garbage
            contestant.rounds.append(contestant.run())
        progress(f"round {number + 1} of {rounds}")
    progress("")


def rate_ratios(ours: Contestant, other: Contestant) -> list[float]:
    """Return, for each round, how many times the other's operations a second we did."""
    pairs = zip(ours.rounds, other.rounds, strict=True)
    return [one.per_second / two.per_second for one, two in pairs]


def time_ratios(ours: Contestant, other: Contestant) -> list[float]:
    """Return, for each round, our median time over the other's."""
    pairs = zip(ours.rounds, other.rounds, strict=True)
    return [one.p50_s / two.p50_s for one, two in pairs]


# --- printing -------------------------------------------------------------------------------


def progress(text: str) -> None:
    """Show a passing line on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{text:<60}", end="\r" if not text else "", file=sys.stderr, flush=True)


def heading(text: str) -> None:
    """Print a heading."""
    print(f"\n{text}")


def table(contestants: Sequence[Contestant]) -> None:
    """Print p50, p99, operations a second, and processor time an operation, of each."""
    print(f"  {'':<44}{'p50 ms':>10}{'p99 ms':>10}{'per s':>10}{'cpu us':>10}")
    for one in contestants:
        p50, p99 = (percentile(one.durations_s, share) * 1e3 for share in (0.5, 0.99))
        cpu = one.cpu_s * 1e6
        print(f"  {one.name:<44}{p50:>10.3f}{p99:>10.3f}{one.per_second:>10,.0f}{cpu:>10,.0f}")


def judge_ratio(what: str, ratios: Sequence[float], *, least: float = 0, most: float = 0) -> None:
    """Print the median of the rounds' ratios, the middle half of them, and the target."""
    ordered = sorted(ratios)
    quarter = len(ordered) // 4
    middle = f"{ordered[quarter]:.2f} to {ordered[-1 - quarter]:.2f}"
    judge(what, statistics.median(ratios), f"middle half {middle}", least=least, most=most)


def judge(
    what: str, figure: float, note: str = "", *, least: float = 0, most: float = 0, unit: str = ""
) -> None:
    """Print a figure beside its target; 0 for no such bound."""
    is_met = (not least or figure >= least) and (not most or figure <= most)
    word = "" if not least and not most else "met" if is_met else "MISSED"
    target = f">= {least:g}{unit}" if least else f"<= {most:g}{unit}" if most else ""
    line = f"  {what:<56}{figure:>9.2f}{unit:<4}{target:>12}  {word:<6}"
    print(f"{line}  {note}".rstrip())


def machine(folder: Path, *packages: str) -> None:
    """Print a line about the machine, and one about the versions that are compared."""
    model = _first_after("/proc/cpuinfo", "model name") or platform.processor()
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(
        f"machine: {model}, {os.cpu_count()} cores; {platform.system()} {platform.release()}; "
        f"{file_system(folder)}; Python {platform.python_version()}; load {load}"
    )
    print("versions: " + ", ".join(f"{name} {_version(name)}" for name in ("ckptlog", *packages)))


def file_system(folder: Path) -> str:
    """Return the type of the file system that a folder lies on, as the system names it."""
    place, best = str(folder.resolve()), ("", "file system unknown")
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return best[1]
    for line in lines:
        _, mount, kind = line.split()[:3]
        is_above = place == mount or place.startswith(mount.rstrip("/") + "/")
        if is_above and len(mount) >= len(best[0]):
            best = (mount, kind)
    return best[1]


def _first_after(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


@contextmanager
def scratch(folder: str | None) -> Iterator[Path]:
    """Yield a new empty directory, removed at the end; on the disk that is to be measured.

    Args:
        folder: Where to make it; None for `.bench` in the project.
    """
    above = Path(folder) if folder else SCRATCH
    above.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=above) as path:
        yield Path(path)


def rss_bytes() -> int:
    """Return the bytes of memory that this process holds now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
