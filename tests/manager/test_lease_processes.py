"""Processes: one is stopped, overtaken and woken up; many claim at once; one is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from ckptlog import CheckpointManager, LeaseHeldError, LeaseLostError
from ckptlog.errors import CheckpointError

_CONTEXT = multiprocessing.get_context("spawn")


def write_forever(path: Path, told: Any) -> None:
    """Claim the task and write steps under the lease, until refused; tell by what."""
    with CheckpointManager(path) as manager:
        lease = manager.acquire_lease("t", ttl_s=0.3, holder="first", background=True)
        told.send(lease.token)
        step = 0
        try:
            while True:
                step += 1
                manager.create_checkpoint("t", "T", step, data={"by": "first"}, lease=lease)
        except CheckpointError as error:
            told.send(error.code)


def start(target, *args):
    ours, theirs = _CONTEXT.Pipe()
    process = _CONTEXT.Process(target=target, args=(*args, theirs), daemon=True)
    process.start()
    return process, ours


def test_who_was_suspended_and_overtaken_is_refused(tmp_path):
    path = tmp_path / "store"
    with CheckpointManager(path) as manager:
        process, told = start(write_forever, path)
        assert told.poll(60)
        token = told.recv()
        while not manager.get_task_checkpoints("t"):
            time.sleep(0.01)
        while True:
            os.kill(process.pid, signal.SIGSTOP)
            try:  # it may have been stopped while it holds the log's lock
                manager.store.log.hold(0.2)
                manager.store.log.release()
                break
            except CheckpointError:
                os.kill(process.pid, signal.SIGCONT)
        lease = manager.acquire_lease("t", ttl_s=60, holder="second", wait_s=30)
        assert lease.token > token
        taken_at = manager.store.position
        os.kill(process.pid, signal.SIGCONT)
        assert told.poll(60)
        assert told.recv() == "lease.lost"
        process.join(60)
        manager.create_checkpoint("t", "T", 1, data={"by": "second"}, lease=lease)
        later = [one.event.type for one in manager.store.events(taken_at)]
        assert later == ["checkpoint.created"]
        assert manager.get_latest_checkpoint("t").data == {"by": "second"}


def claim_one_of_many(path: Path, told: Any) -> None:
    """Claim each of twenty tasks that nobody has; tell which."""
    won = []
    with CheckpointManager(path) as manager:
        for number in range(20):
            try:
                lease = manager.acquire_lease(f"t{number}", ttl_s=600)
            except LeaseHeldError:
                continue
            won.append((f"t{number}", lease.token))
            manager.create_checkpoint(f"t{number}", "T", 1, lease=lease)
    told.send(won)


def test_of_many_that_claim_at_once_one_gets_it(tmp_path):
    path = tmp_path / "store"
    with CheckpointManager(path) as manager:
        started = [start(claim_one_of_many, path) for _ in range(4)]
        won = []
        for process, told in started:
            assert told.poll(60)
            won += told.recv()
            process.join(60)
        assert sorted(task for task, _ in won) == sorted(f"t{number}" for number in range(20))
        assert manager.store.leases().keys() == {task for task, _ in won}
        assert all(len(manager.get_task_checkpoints(task)) == 1 for task, _ in won)


def test_the_lease_of_a_killed_process_expires(tmp_path):
    path = tmp_path / "store"
    with CheckpointManager(path) as manager:
        process, told = start(write_forever, path)
        assert told.poll(60)
        grant = manager.store.lease("t")
        os.kill(process.pid, signal.SIGKILL)
        process.join(60)
        with manager.acquire_lease("t", wait_s=30) as lease:
            assert manager.create_checkpoint("t", "T", 1, lease=lease)
            with pytest.raises(LeaseLostError):
                manager.create_checkpoint("t", "T", 1, lease=grant)
