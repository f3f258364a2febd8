"""Cut the power of a real file system under a process that commits, and judge what is left.

A file system on a loop device is shut down in the middle of a workload, so that nothing that it has
not written yet ever is: ext4, XFS and F2FS have a call for that. Where there is none (btrfs), the
process is stopped between two system calls and the device copied as it stands; the copy is what a
power cut at that moment would have left. Then it is mounted again, which replays its journal, and
the store is judged (tools/crash/judge.py). Page: specs/testing.md.

Everything lies in a tmpfs, in a mount and a process namespace of its own: when the program ends, or
is killed, the kernel takes processes, mounts and loop devices away with it.

Usage: power_cut.py [--system NAME] [--cuts N] [--seed N] [--workload NAME]... [--bug NAME] [--json]
Needs root. Exit status: 1 where a store is wrong, 3 where this machine cannot mount.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import gc
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.crash.bug import BUGS, planted
from tools.crash.diary import Diary
from tools.crash.judge import Rebooted, judge
from tools.crash.workload import WORKLOADS, prepare, run

# _IOR('X', 125, u32), with what becomes of the journal: written out first, or not.
_SHUTDOWN: Final = 0x8004587D
_JOURNAL = {"log-flushed": 1, "nothing-flushed": 2}
CANNOT = 3
INSIDE = "--inside"
# Where mkfs stands that is not on the path.
_PLACES = ("/usr/sbin", "/sbin")
_MAKE = {
    "ext4": (["-q", "-F"], 48),
    "xfs": (["-q", "-f"], 320),
    "btrfs": (["-q", "-f"], 160),
    "f2fs": (["-q", "-f"], 96),
}
# How the files are mounted, in turn: what may reach the medium before what.
_OPTIONS = {
    "ext4": ("", "data=writeback", "nodelalloc", "data=writeback,journal_async_commit"),
    "xfs": ("",),
    "btrfs": ("", "compress=zstd"),
    "f2fs": ("",),
}
_WAIT_S = 20.0


Say = Callable[[str], None]
# What the process does; it tells by lines how far it came.
Work = Callable[[Say], None]


class Moment(NamedTuple):
    """When the power is cut: after so many lines, or the line `last`, and a while."""

    told: int
    delay_s: float
    last: str = ""


class Unable(Exception):  # noqa: N818 - no fault: the machine lacks something
    """This machine cannot do it."""


def call(*words: str) -> None:
    """Run a program."""
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        raise Unable(f"{' '.join(words)}: {done.stderr.strip()}")


class Device:
    """A file system on a loop device, whose power can be cut.

    Attributes:
        how: How it was cut last.
    """

    def __init__(self, system: str, folder: Path) -> None:
        self.system = system
        self._image = folder / "image"
        self._fresh = folder / "fresh"
        self.point = folder / "mounted"
        self.point.mkdir()
        self.how = ""

    def make(self, fill: Callable[[Path], None]) -> None:
        """Make the file system, and what every run begins with: `fill` gets where it is mounted."""
        words, size_mb = _MAKE[self.system]
        program = program_of(self.system)
        if program is None:
            raise Unable(f"there is no mkfs.{self.system}")
        with self._image.open("wb") as file:
            file.truncate(size_mb * 1024 * 1024)
        call(program, *words, str(self._image))
        with self.mounted():
            fill(self.point)
        shutil.copyfile(self._image, self._fresh)

    def renew(self) -> None:
        """Put the first store back."""
        call("cp", "--sparse=always", str(self._fresh), str(self._image))

    @contextmanager
    def mounted(self, options: str = "") -> Iterator[None]:
        """Have it mounted during the block."""
        words = ",".join(word for word in ("loop", options) if word)
        call("mount", "-t", self.system, "-o", words, str(self._image), str(self.point))
        try:
            yield
        finally:
            self._unmount()

    def _unmount(self) -> None:
        # Files of a process that has just died may be closed a moment later.
        deadline_s = time.monotonic() + _WAIT_S
        while True:
            try:
                call("umount", str(self.point))
                return
            except Unable:
                gc.collect()  # what a store that could not be opened has left open
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.01)

    def cut(self, worker: int, journal: str) -> None:
        """Let what was not written yet be lost."""
        fd = os.open(self.point, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _JOURNAL[journal]))
            self.how = journal
        except OSError as error:
            if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL):
                raise
            self._copy(worker)
            self.how = "copied"
        finally:
            os.close(fd)

    def _copy(self, worker: int) -> None:
        os.kill(worker, signal.SIGSTOP)
        deadline_s = time.monotonic() + _WAIT_S
        stat = Path(f"/proc/{worker}/stat")
        while stat.read_text().rpartition(") ")[2][0] not in "TZ":
            if time.monotonic() > deadline_s:
                raise Unable("the process does not stop")
            time.sleep(0.0005)
        call("cp", "--sparse=always", str(self._image), f"{self._image}.cut")

    def take_copy(self) -> None:
        """Let a copy of the cut, if one was made, take the place of what was written since."""
        if self.how == "copied":
            Path(f"{self._image}.cut").replace(self._image)


def program_of(system: str) -> str | None:
    """Return mkfs of a file system; $MKFS_PATH names more folders to look in."""
    path = os.pathsep.join([os.environ.get("MKFS_PATH", ""), os.environ["PATH"], *_PLACES])
    return shutil.which(f"mkfs.{system}", path=path)


class Tally:
    """Counts of the cuts, and what was wrong."""

    def __init__(self, system: str) -> None:
        self.system = system
        self.ways: Counter[str] = Counter()
        self.workloads: Counter[str] = Counter()
        self.acknowledged = 0
        self.wrong: list[dict[str, Any]] = []

    def to_dict(self) -> dict[str, Any]:
        """Return all counts, safe for JSON."""
        counts = {"ways": dict(self.ways), "workloads": dict(self.workloads)}
        return {"system": self.system, "cuts": self.ways.total(), "acknowledged": self.acknowledged,
                **counts, "wrong": self.wrong}  # fmt: skip


class Cutter:
    """Cuts the power again and again.

    Args:
        before: What was told of the store that every workload begins with.
    """

    def __init__(
        self, device: Device, workloads: list[str], *, before: list[str], seed: int, bug: str
    ) -> None:
        self._device = device
        self._before = before
        self._workloads = workloads
        self._seed = seed
        self._bug = bug
        self.tally = Tally(device.system)

    def cut(self, number: int) -> None:
        """Run a workload, cut the power at a moment drawn from the seed, judge."""
        chance = random.Random(f"{self._seed}/{number}")  # noqa: S311 - the same each time
        device = self._device
        workload = self._workloads[number % len(self._workloads)]
        ways = _OPTIONS[device.system]
        options = ways[number // len(self._workloads) % len(ways)]
        device.renew()
        with device.mounted(options):
            acts = WORKLOADS[workload].split()
            told = chance.randrange(2 * len(acts) + 1)
            delay_s = chance.choice((0, 1, 3, 8)) * 0.0005 * chance.random()
            work = partial(self._work, acts)
            lines = cut_at_work(device, work, Moment(told, delay_s), chance)
        device.take_copy()
        with device.mounted():
            diary = Diary.of([*self._before, *lines])
            # Mounted again it would be the same file system of the same boot: views are believed.
            wrong = judge(device.point / "store", diary, environment=Rebooted())
        self.tally.ways[f"{device.how} {options}".strip()] += 1
        self.tally.workloads[workload] += 1
        self.tally.acknowledged += diary.acts
        if wrong:
            where = {"number": number, "workload": workload, "options": options, "how": device.how}
            self.tally.wrong.append({**where, "wrong": wrong})

    def _work(self, acts: list[str], say: Say) -> None:
        with planted(self._bug):
            run(self._device.point / "store", acts, say)


def cut_at_work(device: Device, work: Work, moment: Moment, chance: random.Random) -> list[str]:
    """Let a process work and cut the power under it; return all that it told."""
    reading, writing = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.close(reading)
        _be_worker(work, writing)
    os.close(writing)
    journal = chance.choice(list(_JOURNAL))
    try:
        return _watch(device, worker, reading, moment, journal)
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)


def _be_worker(work: Work, pipe: int) -> NoReturn:
    """Work until the end."""
    # What commands print is not for whoever called us.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        with suppress(BaseException):
            work(lambda line: _say(pipe, line))
    finally:
        os._exit(0)


def _watch(device: Device, worker: int, reading: int, moment: Moment, journal: str) -> list[str]:
    """Cut after so many lines and a moment; return all that was told."""
    lines: list[str] = []
    with os.fdopen(reading) as pipe:
        while len(lines) < moment.told and (line := pipe.readline()):
            lines.append(line)
            if line.rstrip() == moment.last:
                break
        time.sleep(moment.delay_s)
        device.cut(worker, journal)
        if device.how == "copied":
            # What it is told after that happened to another copy of the store.
            os.set_blocking(pipe.fileno(), False)
            with suppress(BlockingIOError, TypeError):
                lines += pipe.readlines()
            return lines
        # What is acknowledged now is judged too: it had better been written before.
        lines += pipe.readlines()
    return lines


def _say(pipe: int, line: str) -> None:
    os.write(pipe, f"{line}\n".encode())


def work(options: argparse.Namespace) -> int:
    """Do all of it, inside of the namespaces."""
    folder = Path("/mnt")  # under a tmpfs of our own, which nobody else sees
    try:
        call("mount", "-t", "tmpfs", "tmpfs", str(folder))
        device = Device(options.system, folder)
        before: list[str] = []
        device.make(lambda point: prepare(point / "store", before.append))
    except Unable as error:
        print(f"cannot cut the power of {options.system} here: {error}", file=sys.stderr)
        return CANNOT
    print("ready", file=sys.stderr, flush=True)
    workloads = options.workload or list(WORKLOADS)
    cutter = Cutter(device, workloads, before=before, seed=options.seed, bug=options.bug)
    for number in range(options.cuts):
        cutter.cut(number)
        if options.bug and cutter.tally.wrong:
            break
    tally = cutter.tally.to_dict()
    if options.json:
        print(json.dumps(tally, indent=1))
    else:
        print("\n".join(f"{name}: {value}" for name, value in tally.items()))
    return 1 if tally["wrong"] else 0


def main() -> int:
    """Read the arguments; go into namespaces of our own and work there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--system", choices=_MAKE, default="ext4")
    parser.add_argument("--cuts", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workload", action="append", choices=WORKLOADS, help="default: all")
    parser.add_argument(
        "--bug", default="", choices=["", *BUGS], help="plant a bug; end when it is found"
    )
    parser.add_argument("--json", action="store_true", help="print one document")
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        go_inside()
    if options.inside:
        return work(options)
    print("needs root and unshare", file=sys.stderr)
    return CANNOT


def go_inside() -> None:
    """Begin anew, with --inside, in namespaces that end with us; return where that cannot be."""
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or unshare is None:
        return
    words = ["--mount", "--pid", "--mount-proc", "--kill-child=SIGKILL"]
    os.execv(unshare, [unshare, *words, sys.executable, *sys.argv, INSIDE])  # noqa: S606


if __name__ == "__main__":
    raise SystemExit(main())
