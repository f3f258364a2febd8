"""Consumers and writers in processes of their own, killed at random moments."""

from __future__ import annotations

import random
import time

import pytest

import ckptlog
from ckptlog import CheckpointManager
from tests.watch.crowd import Process, consume, write


def taken(lines):
    assert not [line for line in lines if line.startswith("error")], lines
    return [int(line.split()[1]) for line in lines if line.startswith("took")]


def acked(lines):
    return [int(line.split()[1]) for line in lines if line.startswith("acked")]


class Known:
    """What is known of a consumer: surely acknowledged, and taken, up to these positions."""

    def __init__(self):
        self.safe = self.taken = 0
        self.seen = set()

    def learn(self, lines):
        """Check one life: in order, none skipped, begun between the two."""
        positions = taken(lines)
        if positions:
            first = positions[0]
            assert positions == list(range(first, first + len(positions)))
            # Acks that were under way when it was killed may count or not.
            assert self.safe <= first <= self.taken
            self.taken = max(self.taken, positions[-1] + 1)
        for position in acked(lines):
            self.safe = max(self.safe, position + 1)
        self.seen |= {tuple(line.split()[1:]) for line in lines if line.startswith("took")}


def drain(root, consumer):
    with ckptlog.open(root) as store, store.watch(consumer, follow=False) as events:
        return [(event.position, event.checkpoint) for event in events]


@pytest.mark.unmeasured
@pytest.mark.parametrize("watcher", [True, False])
def test_consumers_and_writers_killed_again_and_again(tmp_path, watcher):
    run(tmp_path / "store", watcher=watcher, deaths=14)


@pytest.mark.thorough
@pytest.mark.parametrize("watcher", [True, False])
def test_consumers_and_writers_killed_hundreds_of_times(tmp_path, watcher):
    run(tmp_path / "store", watcher=watcher, deaths=300)


def run(root, *, watcher, deaths):
    CheckpointManager(root).close()
    chance = random.Random(deaths)
    options = {"watcher": watcher, "poll_s": 0.02}
    names = ["one", "two"]
    known = {name: Known() for name in names}
    written = []
    consumers = {name: Process(consume, root, name, options) for name in names}
    writers = {name: Process(write, root, f"{name}0", 10**6) for name in "ab"}
    for death in range(deaths):
        time.sleep(chance.uniform(0.0, 0.15))
        if death % 2:
            name = chance.choice("ab")
            written += writers[name].kill()
            writers[name] = Process(write, root, f"{name}{death}", 10**6)
        else:
            name = chance.choice(names)
            known[name].learn(consumers[name].kill())
            consumers[name] = Process(consume, root, name, options)
    for writer in writers.values():
        written += writer.kill()
    time.sleep(0.2)
    for name in names:
        known[name].learn(consumers[name].kill())
    with ckptlog.open(root) as store:
        log = {(str(entry.position), entry.event.subject.checkpoint) for entry in store.events()}
    assert {line.split()[1] for line in written} <= {name for _, name in log}
    assert len(written) > deaths
    for name in names:
        rest = {(str(position), checkpoint) for position, checkpoint in drain(root, name)}
        assert known[name].seen | rest == log


def test_many_consumers_of_one_store_each_get_everything(tmp_path):
    root = tmp_path / "store"
    CheckpointManager(root).close()
    count = 2 * (48 + 12 * 3)
    consumers = [
        Process(consume, root, f"c{number}", {"poll_s": 0.02}, count) for number in range(4)
    ]
    writers = [Process(write, root, name, 60) for name in "ab"]
    written = {line.split()[1] for writer in writers for line in writer.rest()}
    assert len(written) == count
    for consumer in consumers:
        lines = consumer.rest()
        assert taken(lines) == acked(lines) == list(range(count))
        assert {line.split()[2] for line in lines if line.startswith("took")} == written


def test_a_standby_takes_over_when_the_holder_is_killed(tmp_path):
    root = tmp_path / "store"
    with CheckpointManager(root) as manager:
        for number in range(6):
            manager.create_checkpoint("t", "title", 1, checkpoint_id=f"c{number}")
    first = Process(consume, root, "one", {"types": "created"})
    while not (line := first.pipe.readline()).startswith("acked 3"):
        assert line
    standby = Process(consume, root, "one", {"timeout_s": 0.2})
    time.sleep(0.1)
    first.kill()
    assert taken(standby.rest()) in ([4, 5], [5], [])


def test_a_consumer_that_sleeps_harms_nobody(tmp_path):
    """It holds no lock of the log, and nothing waits for it."""
    root = tmp_path / "store"
    CheckpointManager(root).close()
    with ckptlog.open(root) as store:
        store.watch("sleeper")
        lines = Process(write, root, "w", 20).rest()
        assert len(lines) == 28
        with store.watch("awake", follow=False) as events:
            assert len(list(events)) == 28
        assert {one.name: one.lag for one in store.consumers()} == {"sleeper": 28, "awake": 28}
