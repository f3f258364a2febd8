"""A small log in a folder, brought to a step of the protocol, and what must be true afterwards.

Every scenario begins with two processes, `self.writer` and `self.neighbour`, that have both
appended and both know the log's end. Then the writer is stopped at a step.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ckptlog.errors import CheckpointStorageError, LogCorruptionError, OutcomeUnknownError
from ckptlog.log.batch import Group
from ckptlog.log.log import Log
from tests.faults.fault_disk import FaultDisk, QuietDisk, SimulatedStop
from tests.faults.medium import Image, Medium, lay_out
from tests.log.sample import WAIT_S, append, create_log, fill, group, open_log, published_ids

SEGMENT_BYTES = 100_000
# A commit spans some pages, so that a cut has something to tear.
RECORD_BYTES = 6_000
# What is appended to see that things go on: a large commit, then a small one.
Allowed = list[list[str]] | Callable[[list[str]], None]
"""The lists of ids that may be there, or a judge of them."""

LATER = ["later-1", "later-2", "later-3", "later-4"]


class House:
    """One log, its medium, two processes on it, and what was acknowledged.

    Attributes:
        acknowledged: Ids of events whose commits were acknowledged.
        attempted: Ids of the commits that the fault met, one list for each commit.
    """

    def __init__(self, root: Path, **options) -> None:
        self.root = root / "store"
        self.options = {"segment_bytes": SEGMENT_BYTES, **options}
        create_log(self.root, disk=QuietDisk(), **self.options).close()
        self.medium = Medium(self.root)
        self.disk = FaultDisk(self.medium)
        self.writer = self.open(self.disk)
        self.neighbour_disk = FaultDisk(self.medium)
        self.neighbour = self.open(self.neighbour_disk)
        self.acknowledged: list[str] = []
        self.attempted: list[list[str]] = []
        self._logs = [self.writer, self.neighbour]
        for log, names in ((self.writer, "abc"), (self.neighbour, "de"), (self.writer, "f")):
            fill(log, names, record_bytes=RECORD_BYTES)
            self.acknowledged += names
        self.meet()

    def open(self, disk: FaultDisk) -> Log:
        return open_log(self.root, disk=disk, **self.options)

    def meet(self) -> None:
        """Let both processes see the log's end, so that both believe what they remember."""
        for log in (self.writer, self.neighbour):
            with log.exclusive(WAIT_S):
                pass
        self.disk.trace.clear()
        self.neighbour_disk.trace.clear()

    def fill_segment(self) -> None:
        """Append until the next commit has to begin a new segment."""
        number = 0
        while True:
            with self.writer.exclusive(WAIT_S) as tail:
                room = SEGMENT_BYTES - tail.offset
            if room < 3 * RECORD_BYTES:
                break
            name = f"fill-{number}"
            append(self.writer, group(name, record_bytes=RECORD_BYTES))
            self.acknowledged.append(name)
            number += 1
        self.meet()

    # --- acts --------------------------------------------------------------------------------

    def groups(self) -> list[Group]:
        """Return the commits that the fault shall meet."""
        self.attempted = self.attempted or [["x1", "x2", "x3"]]
        return [group(*names, record_bytes=RECORD_BYTES) for names in self.attempted]

    def append_and_stop(self) -> None:
        with pytest.raises(SimulatedStop):
            append(self.writer, *self.groups())

    def append_and_fail(self) -> CheckpointStorageError:
        with pytest.raises(CheckpointStorageError) as caught:
            append(self.writer, *self.groups())
        return caught.value

    def die(self, log: Log) -> None:
        """Let a process vanish: nothing is written, its descriptors and locks go."""
        log.abandon()

    # --- what must be true -------------------------------------------------------------------

    @property
    def new(self) -> list[str]:
        return self.acknowledged + [name for names in self.attempted for name in names]

    def check_reader(self, expected: list[str]) -> None:
        """A reader without the lock sees exactly this, and all of it is on the medium."""
        reader = open_log(self.root, disk=QuietDisk(), read_only=True)
        assert published_ids(reader) == expected
        reader.close()
        after = prefixes(self.acknowledged, self.attempted)
        self.check_images([ids for ids in after if ids[: len(expected)] == expected])

    def check_goes_on(self, log: Log, allowed: Allowed) -> list[str]:
        """A process that takes the lock sees one of these, and appending works; all is dense."""
        seen = self.go_on(log, allowed)
        assert published_ids(log) == [*seen, *LATER]
        return seen

    def go_on(self, log: Log, allowed: Allowed) -> list[str]:
        with log.exclusive(WAIT_S):
            log.flush()
            seen = published_ids(log)
        check_allowed(seen, allowed)
        append(log, group(*LATER[:3], record_bytes=RECORD_BYTES))
        fill(log, LATER[3:])
        log.flush()
        return seen

    def check_everyone_goes_on(self, allowed: Allowed) -> None:
        """Both a new process and one that knew the log go on; then power may go, or all close."""
        seen = self.check_goes_on(self.neighbour, allowed)
        after = [*seen, *LATER]
        self.check_images([after], seeds=1)
        newcomer = self.open(FaultDisk(self.medium))
        append(newcomer, group("last", record_bytes=RECORD_BYTES))
        append(self.neighbour, group("the end"))
        newcomer.close()
        self.neighbour.close()
        self.check_images([[*after, "last", "the end"]], seeds=0)

    def check_images(self, allowed: Allowed, seeds: int = 5) -> None:
        """Whatever a power cut leaves now recovers to one of these, and goes on."""
        for label, image in self.medium.images(seeds):
            root = self.root.parent / "image"
            try:
                self._check_image(image, root, allowed)
            except Exception as error:
                raise AssertionError(f"After a power cut that left {label}: {error!r}") from error

    def _check_image(self, image: Image, root: Path, allowed: Allowed) -> None:
        lay_out({"lock": b"", **image}, root)
        reader = open_log(root, disk=QuietDisk(), read_only=True)
        shown = shown_ids(reader)
        reader.close()
        log = open_log(root, disk=QuietDisk(), segment_bytes=SEGMENT_BYTES)
        seen = self.go_on(log, allowed)
        assert seen[: len(shown)] == shown
        log.close()
        again = open_log(root, disk=QuietDisk(), read_only=True)
        assert published_ids(again) == [*seen, *LATER]
        again.close()

    def close(self) -> None:
        for log in self._logs:
            log.abandon()


def shown_ids(reader: Log) -> list[str]:
    """Return what a reader sees; nothing where the end is torn or lost, for it is unknown then."""
    try:
        return published_ids(reader)
    except LogCorruptionError as error:
        if "published end" not in error.message:
            raise
        return []


def prefixes(acknowledged: list[str], commits: list[list[str]]) -> list[list[str]]:
    """Return the acknowledged with no commit, the first, ... all of them: each whole."""
    found = [acknowledged]
    for names in commits:
        found.append(found[-1] + names)
    return found


def check_allowed(seen: list[str], allowed: Allowed) -> None:
    if callable(allowed):
        allowed(seen)
    else:
        assert seen in allowed


def is_unknown(error: CheckpointStorageError) -> bool:
    return isinstance(error, OutcomeUnknownError)


def torn_files(root: Path) -> list[str]:
    return sorted(name for name in os.listdir(root / "log") if name.startswith("torn-"))
