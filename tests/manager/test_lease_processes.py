"""Processes: one is stopped, overtaken and woken up; many claim at once; one is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ckptlog import CheckpointManager, LeaseHeldError, LeaseLostError, TaskRecovery
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
    told.recv()  # whoever has ended is overtaken: all live until all have claimed


def test_of_many_that_claim_at_once_one_gets_it(tmp_path):
    path = tmp_path / "store"
    with CheckpointManager(path) as manager:
        started = [start(claim_one_of_many, path) for _ in range(4)]
        won = []
        for _, told in started:
            assert told.poll(60)
            won += told.recv()
        for process, told in started:
            told.send("all have claimed")
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


def hold(path: Path, told: Any) -> None:
    """Begin a task under a lease of an hour, tell its grant, and do nothing more."""
    manager = CheckpointManager(path)
    lease = manager.acquire_lease("t", ttl_s=3600, holder="first")
    manager.create_checkpoint("t", "T", 1, "", 2, {"by": "first"}, lease=lease)
    told.send(lease.grant)
    time.sleep(600)


@pytest.fixture
def killed(tmp_path):
    """A store, and the grant of a process that held its task when it was killed."""
    process, told = start(hold, tmp_path / "store")
    assert told.poll(60)
    grant = told.recv()
    with CheckpointManager(tmp_path / "store") as manager:
        with pytest.raises(LeaseHeldError):  # it lives
            manager.acquire_lease("t")
        os.kill(process.pid, signal.SIGSTOP)  # and so does one that is stopped
        with pytest.raises(LeaseHeldError):
            manager.acquire_lease("t")
        assert manager.find_interrupted_tasks() == []
        process.kill()
        process.join(60)
        yield manager, grant


def test_a_killed_process_is_taken_over_at_once_and_fenced(killed):
    manager, grant = killed
    (state,) = manager.list_leases()
    assert (state.is_live, state.is_dead) == (True, True)
    lease = manager.acquire_lease("t", holder="second")
    assert lease.token > grant.token
    (entry,) = manager.store.events(lease.token, lease.token + 1)
    assert (entry.event.facts["former_token"], entry.event.facts["former_dead"]) == (grant.token, 1)
    manager.create_checkpoint("t", "T", 2, lease=lease)
    with pytest.raises(LeaseLostError):
        manager.create_checkpoint("t", "T", 3, lease=grant)
    with pytest.raises(LeaseHeldError):  # it lives, and is us
        manager.acquire_lease("t")


def test_the_task_of_a_killed_process_is_recovered_at_once(killed):
    manager, grant = killed
    (found,) = manager.find_interrupted_tasks()
    assert (found.task_id, found.former_holder) == ("t", "first")
    resumed = TaskRecovery(manager, "w2", background=False).claim("t").task
    assert resumed.checkpoint.data == {"by": "first"}
    assert resumed.lease.token > grant.token
    with pytest.raises(LeaseLostError):
        manager.create_checkpoint("t", "T", 3, lease=grant)


def test_who_waits_for_a_lease_is_told_when_its_process_dies(tmp_path):
    process, told = start(hold, tmp_path / "store")
    assert told.poll(60)
    with CheckpointManager(tmp_path / "store") as manager:
        threading.Timer(0.3, process.kill).start()
        assert manager.acquire_lease("t", wait_s=300).is_valid
    process.join(60)


def hold_shared(path: Path, told: Any) -> None:
    """Claim a task for another who goes on when this process is gone."""
    manager = CheckpointManager(path)
    told.send(manager.acquire_lease("t", ttl_s=3600, shared=True).grant)
    time.sleep(600)


def test_the_lease_of_others_too_waits_for_its_end(tmp_path):
    process, told = start(hold_shared, tmp_path / "store")
    assert told.poll(60)
    grant = told.recv()
    process.kill()
    process.join(60)
    with CheckpointManager(tmp_path / "store") as manager:
        with pytest.raises(LeaseHeldError):
            manager.acquire_lease("t")
        manager.create_checkpoint("t", "T", 1, lease=manager.adopt_lease(grant))


def test_who_adopts_a_lease_and_renews_it_keeps_it(tmp_path):
    process, told = start(hold, tmp_path / "store")
    assert told.poll(60)
    grant = told.recv()
    with CheckpointManager(tmp_path / "store") as manager:
        adopted = manager.adopt_lease(grant)
        adopted.renew()
        process.kill()
        process.join(60)
        assert adopted.grant == manager.store.lease("t")
        with pytest.raises(LeaseHeldError):
            manager.acquire_lease("t")
