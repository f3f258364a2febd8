"""Two processes at work; one of them is stopped, or met by an error, at every single operation.

Nothing is said here about which step that is: whatever the operation, no acknowledged commit may
be lost, no commit be there in part, and nothing that a reader was shown be taken back. The table
of crash points says more for each step (test_crash_table).
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from ckptlog.errors import (
    CheckpointStorageError,
    OutcomeUnknownError,
)
from ckptlog.log.log import Log
from tests.faults.fault_disk import FaultDisk, SimulatedStop
from tests.faults.house import RECORD_BYTES, House
from tests.log.sample import WAIT_S, append, group, published_ids

# Each line is one act: who, how many commits in one batch, events in each, bytes for each event.
ACTS = [
    ("writer", 1, 1, 0),
    ("writer", 2, 2, RECORD_BYTES),
    ("neighbour", 1, 1, RECORD_BYTES),
    ("writer", 1, 3, RECORD_BYTES),
    ("writer", 1, 1, 0),
    ("neighbour", 2, 1, 0),
    ("writer", 3, 1, RECORD_BYTES),
    ("writer", 1, 4, RECORD_BYTES),
    ("neighbour", 1, 1, 0),
    ("writer", 1, 1, RECORD_BYTES),
    ("neighbour", 1, 3, RECORD_BYTES),
    ("neighbour", 1, 3, RECORD_BYTES),
    ("writer", 1, 3, RECORD_BYTES),
]


class Story:
    """The acts on one house; it knows what was acknowledged and what is in doubt.

    Attributes:
        acknowledged: Ids, in the order of their commits.
        doubtful: Commits that failed with "outcome unknown", or were under way at a stop.
        shown: What a reader without the lock has seen at the last look.
    """

    def __init__(self, root: Path, seeds: int = 0, *, is_lazy: bool = False) -> None:
        self.house = House(root, is_durable=not is_lazy)
        self.is_lazy = is_lazy
        self.acknowledged = list(self.house.acknowledged)
        self.doubtful: list[list[str]] = []
        self.shown: list[str] = []
        self.number = 0
        self.seeds = seeds
        self.has_failed = False

    def play(self, *, until_stop: bool) -> bool:
        """Run the acts and the close; say whether a stop ended them."""
        house = self.house
        logs = {"writer": house.writer, "neighbour": house.neighbour}
        try:
            for who, commits, events, size in ACTS:
                self.act(logs[who], commits, events, size)
                if self.number % 3 == 0:
                    logs[who].flush()
                self.look()
            house.writer.close()
        except SimulatedStop:
            assert until_stop
            house.die(house.writer)
            return True
        return False

    def act(self, log: Log, commits: int, events: int, size: int) -> None:
        names = [[f"{self.number}.{c}.{e}" for e in range(events)] for c in range(commits)]
        self.number += 1
        groups = [group(*ids, record_bytes=size) for ids in names]
        try:
            append(log, *groups)
        except CheckpointStorageError as error:
            # Any other error says that nothing was written.
            if isinstance(error, OutcomeUnknownError):
                self.doubtful += names
            if not self.has_failed:
                self.has_failed = True
                self.house.check_images(self.judge_power, self.seeds)
        except SimulatedStop:
            self.doubtful += names
            raise
        else:
            self.acknowledged += [name for ids in names for name in ids]

    def look(self) -> None:
        reader = self.house.open(FaultDisk(self.house.medium))
        # A write that failed in the middle can leave a torn end; the next writer mends it.
        if reader.published.read() is not None:
            seen = published_ids(reader)
            self.judge_power(seen)
            self.shown = seen
        reader.close()

    def judge(self, seen: list[str]) -> None:
        assert seen[: len(self.shown)] == self.shown, "what was shown was taken back"
        for names in self.doubtful:
            there = [name for name in names if name in seen]
            assert there in ([], names), "a commit is there in part"
        doubtful = {name for names in self.doubtful for name in names}
        certain = [name for name in seen if name not in doubtful]
        assert certain == self.acknowledged

    def judge_power(self, seen: list[str]) -> None:
        """With "interval" the last of the acknowledged may be gone, or not be shown yet."""
        doubtful = {name for names in self.doubtful for name in names}
        certain = [name for name in seen if name not in doubtful]
        if self.is_lazy:
            rest = self.acknowledged[len(certain) :]
            seen = seen + rest
        self.judge(seen)

    def finish(self) -> None:
        """After a stop or an error: power may go now; else everyone goes on."""
        house = self.house
        house.disk.heal()
        house.check_images(self.judge_power, self.seeds)
        house.check_goes_on(house.neighbour, self.judge)
        house.close()


def operations(root: Path, *, is_lazy: bool = False) -> int:
    """Return how many operations the writer does when nothing goes wrong."""
    story = Story(root, is_lazy=is_lazy)
    story.play(until_stop=False)
    story.finish()
    return len(story.house.disk.trace)


OPERATIONS_MIN = 25


def sweep(count: int, stride: int) -> range:
    assert count > OPERATIONS_MIN
    return range(1, count + 1, stride)


def check_stops(
    ram: Path, act: str, stride: int, seeds: int, start: int = 0, *, is_lazy: bool = False
) -> None:
    count = operations(ram / "whole", is_lazy=is_lazy)
    for at in sweep(count, stride):
        story = Story(ram / f"{act}-{at}", seeds, is_lazy=is_lazy)
        story.house.disk.stop(act, "any", at=at + start, part=0.5)
        story.play(until_stop=True)
        story.finish()


def check_errors(ram: Path, code: int, stride: int, seeds: int, *, lasting: bool) -> None:
    count = operations(ram / "whole")
    for at in sweep(count, stride):
        story = Story(ram / f"{code}-{at}", seeds)
        story.house.disk.fail("any", code, at=at, part=0.6, lasting=lasting)
        story.play(until_stop=False)
        story.finish()


@pytest.mark.parametrize("act", ["before", "after", "torn"])
def test_a_stop_at_any_operation(ram, act):
    check_stops(ram, act, stride=8, seeds=2, start={"before": 0, "after": 2, "torn": 1}[act])


@pytest.mark.parametrize("act", ["after", "torn"])
def test_a_stop_with_interval_durability(ram, act):
    check_stops(ram, act, stride=6, seeds=2, is_lazy=True)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("lasting", [False, True])
def test_an_error_at_any_operation(ram, code, lasting):
    check_errors(ram, code, stride=14 if lasting else 9, seeds=2, lasting=lasting)


@pytest.mark.thorough
@pytest.mark.parametrize("act", ["before", "after", "torn"])
@pytest.mark.parametrize("is_lazy", [False, True])
def test_a_stop_at_every_operation(ram, act, is_lazy):
    check_stops(ram, act, stride=1, seeds=20, is_lazy=is_lazy)


@pytest.mark.thorough
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("lasting", [False, True])
def test_an_error_at_every_operation(ram, code, lasting):
    check_errors(ram, code, stride=1, seeds=20, lasting=lasting)


def test_a_second_stop_while_the_next_writer_recovers(ram):
    """Recovery is cut off at each of its own operations, and so is the recovery after that."""
    for at in range(1, 8):
        house = House(ram / str(at))
        house.disk.stop("torn", "write segment", part=0.7)
        house.append_and_stop()
        house.die(house.writer)
        for act in ("before", "after"):
            disk = FaultDisk(house.medium)
            disk.stop(act, "any", at=at)
            second = house.open(disk)
            try:
                with second.exclusive(WAIT_S):
                    pass
            except SimulatedStop:
                house.check_images([house.acknowledged], seeds=2)
            house.die(second)
        house.check_goes_on(house.neighbour, [house.acknowledged])
        house.close()
