"""A writer stops at every step of a commit: no consumer sees it before it is durable and shown.

And whatever a power cut leaves then, what a consumer has seen is in the log that comes of it.
"""

from __future__ import annotations

import pytest

from ckptlog.errors import LogCorruptionError
from ckptlog.storage.environment import Environment
from ckptlog.watch.watcher import Watcher
from tests.faults.fault_disk import FaultDisk, QuietDisk
from tests.faults.house import House
from tests.faults.medium import lay_out
from tests.faults.test_crash_table import STOPS, act, arrange
from tests.log.sample import STORE_ID, append, group, open_log, published_ids

# After each of these something may be written, even durable, and nothing is shown of it.
UNSHOWN = [(step, point) for step, stop in STOPS.items() if step[1] != "5" for point in stop.points]


class Watched:
    """A house, and a consumer of its log."""

    def __init__(self, root):
        self.house = House(root)
        self.watcher = Watcher(self.house.root, STORE_ID, Environment(), read_only=False)
        self.events = self.open("alive")
        self.got = self.take(self.events)

    def open(self, name, *, start="beginning"):
        options = {"watcher": False, "timeout_s": 0, "start": start}
        return self.watcher.open(name, options)

    def take(self, events):
        got = []
        for event in events:
            got.append(event.event.id)
            events.ack(event)
        return got

    def close(self):
        self.watcher.close()
        self.house.close()


@pytest.fixture
def watched(ram):
    made = Watched(ram)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("step", "point"), UNSHOWN, ids=[f"{step} {' '.join(map(str, p))}" for step, p in UNSHOWN]
)
def test_what_is_not_durable_and_shown_is_not_seen(watched, step, point):
    house, stop = watched.house, STOPS[step]
    arrange(house, stop)
    # A roll needs more commits first; the consumer sees those.
    watched.got += watched.take(watched.events)
    assert watched.got == house.acknowledged
    act(house, stop, house.disk.stop, point)
    assert watched.take(watched.events) == []
    with watched.open("new") as new:
        assert watched.take(new) == house.acknowledged
    check_power(watched)
    house.die(house.writer)
    # The next writer decides what becomes of it; then the consumer sees it, or never.
    append(house.neighbour, group("after"))
    rest = watched.take(watched.events)
    assert rest in (["after"], [*house.attempted[0], "after"])
    assert watched.got + rest == published_ids(house.neighbour)


def check_power(watched):
    """Whatever power leaves, what was seen is the beginning of the log that comes of it."""
    root = watched.house.root.parent / "image"
    for label, image in watched.house.medium.images(3):
        lay_out({"lock": b"", **image}, root)
        log = open_log(root, disk=QuietDisk(), segment_bytes=100_000)
        log.recover_if_free()
        seen = published_ids(log)
        assert seen[: len(watched.got)] == watched.got, label
        watcher = Watcher(root, STORE_ID, Environment(), read_only=False)
        with watcher.open("later", {"follow": False, "watcher": False}) as events:
            assert watched.take(events) == seen, label
        watcher.close()
        log.close()


def test_a_consumer_waits_where_a_power_cut_has_left_an_old_end(watched, ram):
    """The end is not synced at each commit, and the cursor is: it may be ahead of the end."""
    house = watched.house
    for number in range(5):
        append(house.writer, group(f"late-{number}"))
        house.acknowledged.append(f"late-{number}")
    watched.got += watched.take(watched.events)
    position = watched.events.position
    watched.events.close()
    cursor = (house.root / "consumers" / "alive.cursor").read_bytes()
    ahead = 0
    for label, image in house.medium.images(4):
        root = ram / "image"
        lay_out({"lock": b"", "consumers/alive.cursor": cursor, **image}, root)
        (root / "consumers").mkdir(exist_ok=True)
        (root / "consumers" / "alive.cursor").write_bytes(cursor)
        reader = open_log(root, disk=QuietDisk(), read_only=True)
        end = reader.published.read()
        watcher = Watcher(root, STORE_ID, Environment(), read_only=False)
        events = watcher.open("alive", {"watcher": False, "timeout_s": 0})
        assert events.position == position
        if end is None:
            with pytest.raises(LogCorruptionError):
                next(events)
        else:
            ahead += end.position < position
            assert watched.take(events) == [], label
        log = open_log(root, disk=QuietDisk(), segment_bytes=100_000)
        append(log, group("after"))
        assert watched.take(events) == ["after"], label
        watcher.close()
        log.close()
        reader.close()
    assert ahead, "no image had an old end"


def test_a_failed_sync_shows_a_consumer_nothing(watched):
    house = watched.house
    house.disk.fail("sync segment", at=1)
    house.append_and_fail()
    assert watched.take(watched.events) == []
    append(house.neighbour, group("after"))
    rest = watched.take(watched.events)
    assert watched.got + rest == published_ids(house.neighbour)


def test_the_fault_disk_was_used(watched):
    assert isinstance(watched.house.disk, FaultDisk)
