"""Two processes write while a third backs up and is killed at random moments: what can be restored
is the log up to some published end, whole, and never less than a backup that was acknowledged."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

import ckptlog
from ckptlog import CheckpointManager
from ckptlog.errors import BackupDamagedError, BackupForeignError
from ckptlog.repository.backing import read_manifest
from ckptlog.repository.restoration import restore_store

SPAWN = multiprocessing.get_context("spawn")


def write(root: str, worker: str) -> None:
    chance = random.Random(worker)
    manager = CheckpointManager(root)
    manager.store.log._segment_bytes = 200_000
    number = 0
    while True:
        number += 1
        size = chance.choice([20, 400, 4000, 1_300_000 * (number % 60 == 0)])
        name = manager.create_checkpoint(
            worker, "T", 1, data={"x": chance.randbytes(size // 2).hex()}
        )
        if chance.random() < 0.3:
            manager.complete_checkpoint(name, {"done": number})
        time.sleep(0.002)


def back_up(root: str, dest: str, fd_path: str) -> None:
    """Back up again and again; tell each position on the way."""
    store = ckptlog.open(root)
    fd = os.open(fd_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while True:
        report = store.backup(dest)
        os.write(fd, f"{report.position}\n".encode())


def run(tmp_path: Path, kills: int) -> None:
    root, dest, told = tmp_path / "s", tmp_path / "b", tmp_path / "told"
    CheckpointManager(root).close()
    writers = [SPAWN.Process(target=write, args=(str(root), name)) for name in "xy"]
    for writer in writers:
        writer.start()
    chance = random.Random(5)
    met = set()
    try:
        for _ in range(kills):
            process = SPAWN.Process(target=back_up, args=(str(root), str(dest), str(told)))
            before = told.read_text().count("\n") if told.exists() else 0
            process.start()
            deadline = time.monotonic() + 60
            # Sometimes in the first run of the process, sometimes in a later one.
            wanted = before + chance.choice([0, 1, 1, 2])
            while told.exists() < (wanted > 0) or (
                wanted and told.read_text().count("\n") < wanted
            ):
                assert time.monotonic() < deadline
                assert process.is_alive()
                time.sleep(0.002)
            time.sleep(chance.random() * 0.02)
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            acknowledged = [int(line) for line in told.read_text().split()] if told.exists() else []
            met.add(check(root, dest, tmp_path / "r", acknowledged[-1] if acknowledged else -1))
    finally:
        for writer in writers:
            writer.kill()
            writer.join()
    assert len(met) > 2
    with ckptlog.open(root) as store:
        final = store.backup(dest, verify=True)
        assert final.position == store.position


def check(root: Path, dest: Path, target: Path, acknowledged: int) -> int:
    try:
        report = restore_store(dest, target)
    except (BackupDamagedError, BackupForeignError):
        assert acknowledged < 0
        manifest = read_manifest(dest)
        assert manifest is None or not manifest.is_whole
        shutil.rmtree(target, ignore_errors=True)
        return -1
    assert report.position >= acknowledged
    with ckptlog.open(target) as ours, ckptlog.open(root, read_only=True) as theirs:
        assert ours.position == report.position
        pairs = zip(ours.events(), theirs.events(0, report.position), strict=True)
        assert all(one.event == other.event for one, other in pairs)
        last = list(ours.events())[-3:]
        for entry in last:
            assert ours.value(entry.event.data) == theirs.value(entry.event.data)
    shutil.rmtree(target)
    return report.position


def test_backups_beside_two_writers_survive_kills(tmp_path):
    run(tmp_path, 6)


@pytest.mark.thorough
def test_backups_beside_two_writers_survive_many_kills(tmp_path):
    run(tmp_path, 150)
