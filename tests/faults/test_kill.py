"""Four processes write to one store and are killed at random moments, again and again.

Each tells on a pipe what it is about to do and what was acknowledged. Afterwards everything that
was acknowledged must be there, and what was under way must be there whole or not at all.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

import ckptlog
from ckptlog import CheckpointManager, CheckpointState
from ckptlog.repository.store import Durability

WORKERS = 4
ABSENT = "absent"
DELETED = "deleted"


class Diary:
    """A worker's side of the pipe: one line before each act, one after it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def tries(self, value: str, *names: str) -> None:
        os.write(self._fd, f"try {value} {' '.join(names)}\n".encode())

    def acknowledge(self) -> None:
        os.write(self._fd, b"ack\n")


def work(root: Path, worker: str, durability: Durability, fd: int) -> None:
    """Write until killed: creations, changes, completions, deletions, batches."""
    chance = random.Random(worker)
    diary = Diary(fd)
    manager = CheckpointManager(store=ckptlog.open(root, durability=durability))
    living: list[str] = []
    number = 0
    while True:
        number += 1
        value = f"{worker}.{number}"
        # Some payloads are large enough to go to a pack of their own.
        size = chance.choice([10, 200, 5_000, 5_000, 60_000, 2_500_000 * (number % 40 == 0)])
        data = {"value": value, "text": chance.randbytes(size // 2).hex()}
        act = chance.random()
        if act < 0.4 or not living:
            diary.tries(value, value)
            manager.create_checkpoint(worker, "title", 1, data=data, checkpoint_id=value)
            living.append(value)
        elif act < 0.7:
            name = chance.choice(living)
            diary.tries(value, name)
            manager.update_checkpoint(name, data=data)
        elif act < 0.8:
            name = living.pop(chance.randrange(len(living)))
            diary.tries(value, name)
            manager.complete_checkpoint(name, final_data=data)
        elif act < 0.88:
            name = living.pop(chance.randrange(len(living)))
            diary.tries(DELETED, name)
            manager.delete_checkpoint(name)
        else:
            names = [f"{value}-{index}" for index in range(3)]
            diary.tries(value, *names)
            with manager.batch() as batch:
                for name in names:
                    batch.create_checkpoint(worker, "title", 1, data=data, checkpoint_id=name)
            living += names
        diary.acknowledge()


class Worker:
    """One worker, restarted after each death, and what may be true of its checkpoints.

    possible: For each checkpoint the values that it may have now; one, once acknowledged.
    together: Sets of checkpoints that one unacknowledged commit would have changed at once.
    """

    def __init__(self, root: Path, name: str, durability: Durability) -> None:
        self.root, self.name, self.durability = root, name, durability
        self.lives = 0
        self.acknowledged = 0
        self.possible: dict[str, list[str]] = {}
        self.together: list[tuple[list[str], str]] = []

    def start(self) -> None:
        reading, writing = os.pipe()
        context = multiprocessing.get_context("fork")
        name = f"{self.name}{self.lives}"
        self.lives += 1
        self.process = context.Process(
            target=work, args=(self.root, name, self.durability, writing), daemon=True
        )
        self.process.start()
        os.close(writing)
        self.reading = reading

    def kill(self) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()
        with os.fdopen(self.reading, "rb") as pipe:
            self.learn(pipe.read().decode())
        assert self.process.exitcode == -signal.SIGKILL, "it ended by itself"

    def learn(self, diary: str) -> None:
        tried: tuple[str, list[str]] | None = None
        for line in diary.splitlines():
            word, *rest = line.split()
            if word == "try":
                tried = (rest[0], rest[1:])
            else:
                assert tried is not None
                for name in tried[1]:
                    self.possible[name] = [tried[0]]
                self.acknowledged += 1
                tried = None
        if tried is not None:
            value, names = tried
            for name in names:
                self.possible[name] = [*self.possible.get(name, [ABSENT]), value]
            self.together.append((names, value))

    def check(self, manager: CheckpointManager) -> None:
        found = {name: value_of(manager, name) for name in self.possible}
        for name, allowed in self.possible.items():
            assert found[name] in allowed, name
        for names, value in self.together:
            assert len({found[name] == value for name in names}) == 1, names


def value_of(manager: CheckpointManager, name: str) -> str:
    if not manager.store.is_taken(name):
        return ABSENT
    checkpoint = manager.get_checkpoint(name)
    if checkpoint is None:
        return DELETED
    assert checkpoint.state in CheckpointState
    value: str = checkpoint.data["value"]
    return value


def check_store(root: Path, workers: list[Worker]) -> None:
    with CheckpointManager(root) as manager:
        for worker in workers:
            worker.check(manager)
        positions = [entry.position for entry in manager.store.events()]
        assert positions == list(range(len(positions)))
        report = manager.store.verify()
        assert report.ok, report.problems[:3]
        manager.create_checkpoint("after", "title", 1, data={"value": "x"})


def run(root: Path, durability: Durability, *, deaths: int, life_max_s: float) -> None:
    CheckpointManager(root).close()
    chance = random.Random(deaths)
    workers = [Worker(root, "abcd"[index], durability) for index in range(WORKERS)]
    for worker in workers:
        worker.start()
    for death in range(deaths):
        time.sleep(chance.uniform(0.0, life_max_s / WORKERS))
        worker = workers[death % WORKERS]
        worker.kill()
        if death < deaths - WORKERS:
            worker.start()
    assert sum(worker.acknowledged for worker in workers) > deaths / 4
    check_store(root, workers)


@pytest.mark.parametrize("durability", ["commit", "interval"])
def test_what_was_acknowledged_survives_every_kill(tmp_path, durability):
    run(tmp_path / "store", durability, deaths=24, life_max_s=0.4)


@pytest.mark.thorough
@pytest.mark.parametrize("durability", ["commit", "interval"])
def test_what_was_acknowledged_survives_hundreds_of_kills(tmp_path, durability):
    run(tmp_path / "store", durability, deaths=400, life_max_s=0.6)
