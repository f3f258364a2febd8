"""Let every system call of a workload fail or be the last, and judge the store each time.

strace kills the process at its n-th call of a kind, or lets that call fail with EIO or ENOSPC:
once, or from then on. Only calls that have to do with the store count. Page: specs/testing.md.

Usage: fault_sweep.py [--workload NAME]... [--fault NAME]... [--stride N] [--seed N] [--jobs N]
       [--json]
Exit status 1 where something is wrong.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.crash.diary import Diary
from tools.crash.judge import judge
from tools.crash.trace import surrounding, trace
from tools.crash.workload import WORKLOADS
from tools.crash_states import memory, prepared

FAULTS = {
    "kill": "signal=SIGKILL:when={}",
    "eio": "error=EIO:when={}",
    "enospc": "error=ENOSPC:when={}",
    "eio-on": "error=EIO:when={}+",
    "enospc-on": "error=ENOSPC:when={}+",
}
# Calls that a full disk, or a broken one, lets fail; a kill may come at any.
_MAY_FAIL = ("pwrite64", "write", "fsync", "fdatasync", "ftruncate", "rename", "mkdir", "unlink")
_NO_SPACE = ("pwrite64", "write", "fsync", "fdatasync", "rename", "mkdir")
_KILLED = -9


@dataclass(frozen=True)
class Point:
    """One fault at one call."""

    workload: str
    fault: str
    call: str
    number: int

    def inject(self) -> list[str]:
        """Return strace's arguments."""
        rule = FAULTS[self.fault].format(self.number)
        return ["-e", f"trace={self.call}", "-e", f"inject={self.call}:{rule}"]


@dataclass
class Tally:
    """Counts of the points that were tried, and what was wrong."""

    faults: Counter[str] = field(default_factory=Counter)
    workloads: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    wrong: list[dict[str, Any]] = field(default_factory=list)

    @property
    def points(self) -> int:
        """How many points were tried."""
        return self.faults.total()

    def to_dict(self) -> dict[str, Any]:
        """Return all counts, safe for JSON."""
        names = ("faults", "workloads", "calls", "told")
        counts = {name: dict(getattr(self, name)) for name in names}
        return {"points": self.points, **counts, "wrong": self.wrong}

    def __str__(self) -> str:
        lines = [f"{self.points} points tried"]
        for name in ("workloads", "faults", "calls", "told"):
            counts: Counter[str] = getattr(self, name)
            words = ", ".join(f"{word} {count}" for word, count in counts.most_common())
            lines.append(f"{name}: {words}")
        lines += [f"WRONG {json.dumps(fault)}" for fault in self.wrong[:20]]
        return "\n".join([*lines, f"{len(self.wrong)} points are wrong"])


class Sweep:
    """The points of one workload, on copies of one store."""

    def __init__(self, workload: str, folder: Path) -> None:
        self.workload = workload
        self._folder = folder
        self._lines = prepared(folder / "prepared")

    def points(self, faults: Iterable[str]) -> Iterator[Point]:
        """Yield every point: each call that has to do with the store, each fault it can have."""
        root = self._copy("traced")
        calls, _ = trace(self._command(root))
        ours = [call for call in calls if call.is_below(root)]
        shutil.rmtree(root)
        for fault in faults:
            may_fail = _NO_SPACE if "enospc" in fault else _MAY_FAIL
            seen: set[tuple[str, int]] = set()
            for call in ours:
                key = (call.name, call.number)
                if key not in seen and (fault == "kill" or call.name in may_fail):
                    seen.add(key)
                    yield Point(self.workload, fault, *key)

    def run(self, point: Point) -> tuple[str, list[str]]:
        """Run the workload with the fault; return how it ended and what is wrong."""
        root = self._copy(f"{point.fault}-{point.call}-{point.number}")
        try:
            strace = ["strace", "-f", "-qq", "-o", "/dev/null", *point.inject()]
            done = subprocess.run(
                [*strace, *self._command(root)],
                check=False, capture_output=True, text=True, env=surrounding(), timeout=120,
            )  # fmt: skip
            faults = []
            if "Traceback" in done.stderr:
                faults.append(f"a foreign error: {done.stderr.strip().splitlines()[-1]}")
            diary = Diary.of([*self._lines, *done.stdout.splitlines()])
            faults += judge(root, diary)
            return _ending(done), faults
        except Exception as error:  # noqa: BLE001 - whatever it is, this point shows it
            return "judge", [f"{type(error).__name__}: {error}"]
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def _command(self, root: Path) -> list[str]:
        return [sys.executable, "-m", "tools.crash.workload", self.workload, str(root)]

    def _copy(self, name: str) -> Path:
        root = self._folder / name
        shutil.copytree(self._folder / "prepared", root)
        return root


def _ending(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode == _KILLED:
        return "killed"
    for word in ("unknown", "refused"):
        if f'"{word}"' in done.stdout:
            return word
    return "nothing told"


def sweep(
    workloads: Iterable[str],
    faults: Iterable[str],
    *,
    stride: int = 1,
    seed: int = 0,
    jobs: int = 2,
) -> Tally:
    """Try the points of workloads; of each, every stride-th, beginning with the seed-th."""
    tally = Tally()
    for workload in workloads:
        with tempfile.TemporaryDirectory(prefix="ckptlog-sweep-", dir=memory()) as folder:
            one = Sweep(workload, Path(folder))
            points = list(one.points(faults))[seed % stride :: stride]
            with ThreadPoolExecutor(jobs) as pool:
                for point, (ending, wrong) in zip(points, pool.map(one.run, points), strict=True):
                    tally.faults[point.fault] += 1
                    tally.workloads[workload] += 1
                    tally.calls[point.call] += 1
                    tally.told[ending] += 1
                    if wrong:
                        tally.wrong.append({**vars(point), "wrong": wrong})
    return tally


def main() -> int:
    """Sweep, print counts; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workload", action="append", choices=WORKLOADS, help="default: all")
    parser.add_argument("--fault", action="append", choices=FAULTS, help="default: all")
    parser.add_argument("--stride", type=int, default=1, help="try every n-th point")
    parser.add_argument("--seed", type=int, default=0, help="which points those are")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--json", action="store_true", help="print one document")
    options = parser.parse_args()
    tally = sweep(
        options.workload or WORKLOADS,
        options.fault or FAULTS,
        stride=options.stride,
        seed=options.seed,
        jobs=options.jobs,
    )
    print(json.dumps(tally.to_dict(), indent=1) if options.json else tally)
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
