"""Collections are killed at random moments, beside writers that are killed too.

A killed collection leaves a sound store at any moment, and the next one finishes: at the end
nothing that was acknowledged is lost, and nothing is left that nobody wants.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from ckptlog import CheckpointManager
from ckptlog.errors import CollectionBusyError
from ckptlog.repository.collection import CollectOptions
from ckptlog.repository.store import Durability
from tests.faults.test_kill import WORKERS, Worker

EVERYTHING = CollectOptions(seal_bytes_min=0, garbage_min=0.0)


def collect_for_ever(root: Path) -> None:
    """Collect until killed; a process of its own each time, so that nothing is remembered."""
    with CheckpointManager(root) as manager:
        while True:
            try:
                manager.store.compact(EVERYTHING)
            except CollectionBusyError:
                time.sleep(0.01)


def start(root: Path) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(
        target=collect_for_ever, args=(root,), daemon=True
    )
    process.start()
    return process


def kill(process: multiprocessing.Process) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL, "it ended by itself"


def check_store(root: Path, workers: list[Worker]) -> None:
    with CheckpointManager(root) as manager:
        for worker in workers:
            worker.check(manager)
        positions = [entry.position for entry in manager.store.events()]
        assert positions == list(range(len(positions)))
        manager.store.compact(EVERYTHING)
        registered = manager.store.compact(EVERYTHING)
        assert registered.orphans == 0
        for worker in workers:
            worker.check(manager)
    living = [path.name for path in (root / "log").glob("[0-9]*.seg")]  # a torn roll is kept aside
    assert len(living) == 1, living
    with CheckpointManager(root) as manager:
        manager.store.rebuild_views()
        for worker in workers:
            worker.check(manager)


def run(root: Path, durability: Durability, *, deaths: int, life_max_s: float) -> None:
    CheckpointManager(root).close()
    chance = random.Random(deaths)
    workers = [Worker(root, "abcd"[index], durability) for index in range(WORKERS - 1)]
    for worker in workers:
        worker.start()
    collector = start(root)
    for death in range(deaths):
        time.sleep(chance.uniform(0.0, life_max_s / WORKERS))
        kill(collector)
        collector = start(root)
        if death % 3 == 0:
            worker = workers[death // 3 % len(workers)]
            worker.kill()
            worker.start()
    kill(collector)
    for worker in workers:
        worker.kill()
    assert sum(worker.acknowledged for worker in workers) > deaths / 4
    check_store(root, workers)


@pytest.mark.parametrize("durability", ["commit", "interval"])
def test_nothing_is_lost_when_collections_are_killed(tmp_path, durability):
    run(tmp_path / "store", durability, deaths=20, life_max_s=0.8)


@pytest.mark.thorough
@pytest.mark.parametrize("durability", ["commit", "interval"])
def test_nothing_is_lost_when_hundreds_of_collections_are_killed(tmp_path, durability):
    run(tmp_path / "store", durability, deaths=400, life_max_s=1.2)
