"""One scenario for each cell of the table of crash points in specs/log.md.

A cell's words decide what its scenario expects: "old", "new", "old or new, whole", "outcome
unknown", "goes on", and so on. So a change of the page changes the test, and a cell that has no
scenario, a scenario without a cell, or a clause that no check knows fails.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from ckptlog.errors import CheckpointStorageError, FullError
from tests.faults.crash_table import crash_table
from tests.faults.fault_disk import FaultDisk, SimulatedStop
from tests.faults.house import House, is_unknown, prefixes, torn_files
from tests.log.sample import WAIT_S, append, group, published_ids, segment_paths

TABLE = crash_table()
COLUMNS = ("same process", "writer", "reader", "power", "EIO")
CLAUSES = {
    "old", "new", "old or new, whole", "goes on", "the rest is taken back", "recovers: new",
    "the rest is cut, kept aside", "written again, synced", "outcome unknown", "new segment",
    "not published: outcome unknown", "no write happens here", "rolls again", "the call fails",
    "the file is kept aside", "goes on in it", "later: new", "later: old",
}  # fmt: skip

Plan = Callable[[House, Callable[..., None]], None]
"""Brings a house to the brink of a step; the callable plans the stop on the writer's disk."""


# --- how to stop at each step ----------------------------------------------------------------
# (act, operation, n-th): the operation of the writer before, after or in which all stops.


class Stop:
    """Where a step is met, and what has to happen before.

    points: Every point that counts as this step.
    is_roll: The commit begins a new segment.
    found: For recovery: "whole" or "torn" commits stand beyond the published end.
    """

    def __init__(self, *points: tuple[str, str, int], is_roll: bool = False, found: str = ""):
        self.points = points
        self.is_roll = is_roll
        self.found = found


STOPS = {
    "C1": Stop(("before", "write segment", 1)),
    "C2": Stop(("torn 0.01", "write segment", 1), ("torn 0.4", "write segment", 1),
               ("torn 0.97", "write segment", 1)),
    "C3": Stop(("after", "write segment", 1), ("before", "sync segment", 1)),
    "C4": Stop(("after", "sync segment", 1), ("before", "write end", 1)),
    "C5": Stop(("after", "write end", 1)),
    "R1": Stop(("after", "sync segment", 1), ("before", "create segment", 1), is_roll=True),
    "R2": Stop(("after", "create segment", 1), ("torn 0.5", "write segment", 1), is_roll=True),
    "R3": Stop(("after", "write segment", 1), ("before", "sync segment", 2), is_roll=True),
    "R4": Stop(("before", "sync folder", 1), ("after", "sync folder", 1),
               ("before", "write end", 1), is_roll=True),
    "R5": Stop(("after", "write end", 1), ("before", "write segment", 2), is_roll=True),
    "V1": Stop(("before", "write segment", 1), found="whole"),
    "V2": Stop(("after", "write segment", 1), ("before", "sync segment", 1), found="whole"),
    "V3": Stop(("after", "sync folder", 1), ("after", "truncate segment", 1), found="torn"),
    "V4": Stop(("after", "sync segment", 1), ("before", "write end", 1), found="whole"),
    "V5": Stop(("after", "write end", 1), found="whole"),
}  # fmt: skip


def arrange(house: House, stop: Stop) -> None:
    """Do what comes before the step's operation."""
    if stop.is_roll:
        house.fill_segment()
    if stop.found:
        victim = house.open(disk := FaultDisk(house.medium))
        with victim.exclusive(WAIT_S):
            pass
        house.meet()
        act = ("after", 0.0) if stop.found == "whole" else ("torn", 0.4)
        disk.stop(act[0], "write segment", part=act[1])
        with pytest.raises(SimulatedStop):
            append(victim, *house.groups())
        victim.abandon()


def act(house: House, stop: Stop, plan: Callable[..., None], point: tuple[str, str, int]) -> None:
    """Let the writer do what it does at this step until the stop."""
    word, name, at = point
    verb, _, share = word.partition(" ")
    plan(verb, name, at=at, part=float(share or 0.5))
    if stop.found:
        with pytest.raises(SimulatedStop), house.writer.exclusive(WAIT_S):
            pass
    else:
        house.append_and_stop()


def outcomes(house: House, clauses: list[str]) -> list[list[str]]:
    """Return the lists of ids that a cell allows."""
    for clause in clauses:
        word = clause.removeprefix("recovers: ").removeprefix("later: ")
        if word == "old":
            return [house.acknowledged]
        if word == "new":
            return [house.new]
        if word == "old or new, whole":
            return prefixes(house.acknowledged, house.attempted)
    if "not published: outcome unknown" in clauses:
        return [house.new]
    raise AssertionError(f"{clauses} says neither old nor new")


def check_clauses(house: House, clauses: list[str], segments_before: list) -> None:
    """Check what a cell says besides old and new, once everything has gone on."""
    made = [path for path in segment_paths(house.root) if path not in segments_before]
    aside = torn_files(house.root)
    if {"rolls again", "goes on in it", "new segment"} & set(clauses):
        assert len(made) == 1, made
    if {"the rest is cut, kept aside", "the file is kept aside"} & set(clauses):
        assert len(aside) == 1, aside


# --- the columns -----------------------------------------------------------------------------


def same_process(ram, step: str, clauses: list[str]) -> None:
    stop = STOPS[step]
    for number, point in enumerate(stop.points):
        house = House(ram / str(number))
        arrange(house, stop)
        before = segment_paths(house.root)
        act(house, stop, house.disk.interrupt, point)
        house.check_goes_on(house.writer, outcomes(house, clauses))
        check_clauses(house, clauses, before)
        house.check_images([published_ids(house.writer)], seeds=1)
        house.close()


def another_writer(ram, step: str, clauses: list[str]) -> None:
    """Both one that has just begun, and one that knew the log before."""
    stop = STOPS[step]
    for number, point in enumerate(stop.points):
        for who in ("newcomer", "neighbour"):
            house = House(ram / f"{number}-{who}")
            arrange(house, stop)
            before = segment_paths(house.root)
            act(house, stop, house.disk.stop, point)
            house.die(house.writer)
            if who == "newcomer":
                house.check_goes_on(house.open(FaultDisk(house.medium)), outcomes(house, clauses))
            else:
                house.check_everyone_goes_on(outcomes(house, clauses))
            check_clauses(house, clauses, before)
            if "written again, synced" in clauses and who == "neighbour":
                written = house.neighbour_disk.trace
                assert written[:3] == ["write segment", "sync segment", "write end"]
            house.close()


def reader(ram, step: str, clauses: list[str]) -> None:
    stop = STOPS[step]
    for number, point in enumerate(stop.points):
        house = House(ram / str(number))
        arrange(house, stop)
        act(house, stop, house.disk.stop, point)
        (expected,) = outcomes(house, clauses)
        house.check_reader(expected)
        house.die(house.writer)
        house.close()


def power(ram, step: str, clauses: list[str]) -> None:
    stop = STOPS[step]
    for number, point in enumerate(stop.points):
        house = House(ram / str(number))
        arrange(house, stop)
        act(house, stop, house.disk.stop, point)
        house.check_images(outcomes(house, clauses))
        house.close()


# --- EIO: which operations the step itself consists of ---------------------------------------

FAILURES = {
    "C1": [("read end", 1, 0.0), ("read segment", 1, 0.0)],
    "C2": [("write segment", 1, 0.0), ("write segment", 1, 0.6)],
    "C3": [("sync segment", 1, 0.0)],
    "C4": [("write end", 1, 0.0)],
    "C5": [],
    "R1": [("sync segment", 1, 0.0)],
    "R2": [("create segment", 1, 0.0), ("write segment", 1, 0.5)],
    "R3": [("sync segment", 2, 0.0)],
    "R4": [("sync folder", 1, 0.0)],
    "R5": [("write end", 1, 0.0)],
    "V1": [("read segment", 2, 0.0), ("read segment", 3, 0.0)],
    "V2": [("write segment", 1, 0.3)],
    "V3": [("create aside", 1, 0.0), ("sync aside", 1, 0.0), ("truncate segment", 1, 0.0)],
    "V4": [("sync segment", 1, 0.0), ("write end", 1, 0.0)],
    "V5": [],
}


def input_output_error(ram, step: str, clauses: list[str]) -> None:
    if "no write happens here" in clauses:
        nothing_follows(ram, step)
        return
    for number, failure in enumerate(FAILURES[step]):
        for who in ("writer", "neighbour"):
            check_failure(House(ram / f"{number}-{who}"), step, clauses, failure, who)


def check_failure(house: House, step: str, clauses: list[str], failure, who: str) -> None:
    stop = STOPS[step]
    name, at, part = failure
    arrange(house, stop)
    before = segment_paths(house.root)
    house.disk.fail(name, at=at, part=part)
    if stop.found:
        with pytest.raises(CheckpointStorageError) as caught, house.writer.exclusive(WAIT_S):
            pass
        error = caught.value
    else:
        error = house.append_and_fail()
    assert not house.disk.faults, "the fault was never met"
    is_said_unknown = any(clause.endswith("outcome unknown") for clause in clauses)
    assert is_unknown(error) == is_said_unknown
    allowed = outcomes(house, clauses)
    power_may_leave = prefixes(house.acknowledged, house.attempted)
    house.check_images(power_may_leave if is_said_unknown or stop.found else allowed)
    if who == "writer":
        # The same process, without dying, knows what became of it.
        house.check_goes_on(house.writer, allowed)
        house.check_images([published_ids(house.writer)], seeds=1)
    else:
        house.check_everyone_goes_on(allowed)
    check_clauses(house, clauses, before)
    house.close()


def nothing_follows(ram, step: str) -> None:
    """After the end is published, nothing is written until the call returns."""
    house = House(ram)
    stop = STOPS[step]
    arrange(house, stop)
    if stop.found:
        with house.writer.exclusive(WAIT_S):
            pass
    else:
        append(house.writer, *house.groups())
    assert house.disk.trace[-1] == "write end"
    assert house.disk.trace.count("write end") == 1
    house.close()


# --- the table -------------------------------------------------------------------------------

Scenario = Callable[..., None]
ALIKE: dict[str, Scenario] = {
    "same process": same_process,
    "writer": another_writer,
    "reader": reader,
    "power": power,
    "EIO": input_output_error,
}
SCENARIOS: dict[tuple[str, str], Scenario] = {
    (step, column): scenario for step in STOPS for column, scenario in ALIKE.items()
}


def test_each_cell_has_one_scenario_and_each_scenario_a_cell():
    assert set(SCENARIOS) == set(TABLE)
    assert set(FAILURES) == set(STOPS)
    assert {clause for clauses in TABLE.values() for clause in clauses} == CLAUSES


@pytest.mark.parametrize(("step", "column"), TABLE, ids=lambda word: word.replace(" ", "_"))
def test_cell(ram, step, column):
    SCENARIOS[step, column](ram, step, TABLE[step, column])


# --- beyond the table ------------------------------------------------------------------------


@pytest.mark.parametrize("part", [0.0, 0.5, 0.8])
def test_a_full_disk_refuses_the_commits_and_says_that_nothing_was_written(ram, part):
    """Not even the first of them, which was whole in the part that was written."""
    house = House(ram)
    house.attempted = [["x"], ["y1", "y2"], ["z"]]
    house.disk.fail("write segment", errno.ENOSPC, part=part)
    assert isinstance(house.append_and_fail(), FullError)
    house.check_images([house.acknowledged])
    assert house.check_goes_on(house.writer, [house.acknowledged])
    house.close()


@pytest.mark.parametrize("name", ["truncate segment", "sync segment"])
def test_a_full_disk_that_cannot_take_a_part_back_says_that_the_outcome_is_unknown(ram, name):
    house = House(ram)
    house.attempted = [["x"], ["y1", "y2"], ["z"]]
    house.disk.fail("write segment", errno.ENOSPC, part=0.8)
    house.disk.fail(name)
    assert is_unknown(house.append_and_fail())
    house.check_images(prefixes(house.acknowledged, house.attempted))
    house.check_goes_on(house.writer, prefixes(house.acknowledged, house.attempted))
    house.close()


def test_a_disk_too_full_for_the_zeros_still_takes_the_commit(ram):
    house = House(ram)
    house.fill_segment()
    house.disk.fail("write segment", errno.ENOSPC, at=3, part=0.5)
    append(house.writer, *house.groups())
    house.acknowledged, house.attempted = house.new, []
    with house.writer.exclusive(WAIT_S) as tail:
        assert segment_paths(house.root)[-1].stat().st_size == tail.offset, "room is given back"
    house.disk.trace.clear()
    append(house.writer, group("next"))
    house.acknowledged.append("next")
    assert house.disk.trace.count("write segment") == 2, "the zeros are tried again"
    assert not house.disk.faults
    house.check_images([house.acknowledged])
    house.check_everyone_goes_on([house.acknowledged])
    house.close()


@pytest.mark.parametrize("who", ["writer", "neighbour", "newcomer"])
def test_what_a_failed_sync_left_in_the_cache_is_not_believed(ram, who):
    """The sync fails, and the new segment too; the next sync succeeds, for pages that are clean.

    Whoever holds the lock next sees a whole commit in the page cache that is not on the medium.
    """
    house = House(ram)
    house.disk.fail("sync segment", loses=True)
    house.disk.fail("create segment")
    assert is_unknown(house.append_and_fail())
    assert not house.disk.faults
    logs = {"writer": house.writer, "neighbour": house.neighbour}
    log = logs.get(who) or house.open(FaultDisk(house.medium))
    with log.exclusive(WAIT_S):
        assert published_ids(log) == house.new
    house.check_images([house.new])
    house.check_goes_on(log, [house.new])
    house.close()


@pytest.mark.parametrize("step", [("sync segment", 2), ("sync folder", 1)])
def test_a_roll_that_could_not_be_finished_never_makes_dead_what_comes_after(ram, step):
    """Its header may be on the medium, whatever was tried to take it back; so it must be used."""
    name, at = step
    house = House(ram)
    house.fill_segment()
    house.disk.fail(name, at=at, loses=False)
    house.disk.fail("sync folder")
    house.append_and_fail()
    for number in range(3):
        try:
            append(house.writer, group(f"after-{number}"))
        except CheckpointStorageError:
            continue
        house.acknowledged.append(f"after-{number}")
    assert house.acknowledged[-1] == "after-2"
    house.attempted = []
    house.check_images([house.acknowledged])
    house.check_everyone_goes_on([house.acknowledged])
    house.close()


@pytest.mark.parametrize("who", ["writer", "neighbour"])
def test_a_sync_error_on_the_first_commit_of_a_segment(ram, who):
    """The new segment takes the same first position, and the next generation."""
    house = House(ram)
    house.fill_segment()
    onlooker = house.open(FaultDisk(house.medium))
    assert published_ids(onlooker) == house.acknowledged
    house.disk.fail("sync segment", at=3)
    assert is_unknown(house.append_and_fail())
    names = [path.name for path in segment_paths(house.root)]
    assert names[-2][:21] == names[-1][:21]
    assert names[-1].endswith(".1.seg")
    assert published_ids(onlooker) == house.acknowledged
    house.check_images(prefixes(house.acknowledged, house.attempted))
    house.check_goes_on(getattr(house, who), [house.acknowledged])
    assert published_ids(onlooker)[: len(house.acknowledged)] == house.acknowledged
    assert len(published_ids(onlooker)) > len(house.acknowledged)
    house.check_images([published_ids(onlooker)], seeds=1)
    house.close()


def test_a_round_of_several_commits_may_be_there_up_to_a_whole_commit(ram):
    house = House(ram)
    house.attempted = [["x"], ["y1", "y2"], ["z"]]
    house.disk.stop("after", "write segment")
    house.append_and_stop()
    seen: set[int] = set()
    house.check_images(
        lambda ids: seen.add(prefixes(house.acknowledged, house.attempted).index(ids))
    )
    assert {0, 3} < seen
    house.close()


def test_torn_pages_never_make_a_commit_of_old_and_new_bytes(ram):
    """Bytes of a commit that was cut lie on the medium where the next one is written."""
    house = House(ram)
    house.disk.stop("torn", "write segment", part=0.8)
    house.append_and_stop()
    house.die(house.writer)
    with house.neighbour.exclusive(WAIT_S):
        pass
    second = house.open(disk := FaultDisk(house.medium))
    house.attempted = [["new-1", "new-2", "new-3"]]
    disk.stop("after", "write segment")
    with pytest.raises(SimulatedStop):
        append(second, *house.groups())
    house.die(second)
    house.check_images(prefixes(house.acknowledged, house.attempted), seeds=30)
    house.close()
