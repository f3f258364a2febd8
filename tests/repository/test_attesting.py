"""Heads on an interval: beside the writers, never in their way."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

import ckptlog
from ckptlog.errors import ArgumentError, RolledBackError
from ckptlog.repository.notary import Notary
from tests.architecture.tree import ROOT
from tests.repository.attested import codes, house


def wait_until(true):
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_off_unless_asked(tmp_path):
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        manager.create_checkpoint("t", "T", 1)
    assert not (tmp_path / "s" / "heads").exists()


def test_heads_come_by_themselves_and_at_the_end(tmp_path):
    path = tmp_path / "s"
    with ckptlog.open(path, create=True, head_interval_s=0.02) as store:
        manager = ckptlog.CheckpointManager(store=store)
        manager.create_checkpoint("t", "T", 1)
        wait_until(lambda: (found := store.notary.latest()) and found.head.size == 1)
        assert store.head_fault is None
    with ckptlog.open(path, create=True, head_interval_s=1000) as store:
        ckptlog.CheckpointManager(store=store).create_checkpoint("t", "T", 2)
    with ckptlog.open(path) as store:
        assert store.notary.latest().head.size == 2
        assert not (path / "heads" / "kept").exists()
        assert store.verify().ok


def test_a_manager_takes_the_interval_from_its_configuration(tmp_path):
    config = ckptlog.CheckpointConfiguration(str(tmp_path / "s"), head_interval_s=1000)
    with ckptlog.CheckpointManager(config=config) as manager:
        manager.create_checkpoint("t", "T", 1)
        assert manager.store.settings["head_interval_s"] == 1000
    with ckptlog.open(tmp_path / "s") as store:
        assert store.notary.latest().head.size == 1


def test_no_new_event_no_new_signature(tmp_path, monkeypatch):
    calls = []
    sign = Notary.sign_published
    monkeypatch.setattr(
        Notary, "sign_published", lambda self, **o: calls.append(1) or sign(self, **o)
    )
    with ckptlog.open(tmp_path / "s", create=True, head_interval_s=0.01) as store:
        wait_until(lambda: calls)
        time.sleep(0.2)
        assert len(calls) == 1
        ckptlog.CheckpointManager(store=store).create_checkpoint("t", "T", 1)
        wait_until(lambda: len(calls) == 2)


def test_beside_many_writers(tmp_path):
    path = tmp_path / "s"
    with ckptlog.open(path, create=True, head_interval_s=0.005) as store:
        manager = ckptlog.CheckpointManager(store=store)

        def work(number):
            for step in range(1, 60):
                manager.create_checkpoint(f"t{number}", "T", step, data={"n": step})

        workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    with ckptlog.open(path) as store:
        assert store.notary.latest().head.size == store.position == 4 * 59
        assert store.verify().ok


def test_with_durability_interval_only_what_is_durable_is_signed(tmp_path):
    path = tmp_path / "s"
    with ckptlog.open(
        path, create=True, durability="interval", interval_s=0.01, head_interval_s=0.01
    ) as store:
        manager = ckptlog.CheckpointManager(store=store)
        for step in range(1, 100):
            manager.create_checkpoint("t", "T", step)
            found = store.notary.latest()
            assert found is None or found.head.size <= store.log.published.read().position
    with ckptlog.open(path) as store:
        assert store.notary.latest().head.size == 99
        assert store.verify().ok


def test_what_goes_wrong_stops_no_writer_and_is_told(tmp_path):
    home = house(tmp_path)
    copy = home.back_up()
    home.write(5)
    home.sign()
    home.restore(copy)
    with home.open(head_interval_s=0.01) as store:
        wait_until(lambda: store.head_fault is not None)
        assert type(store.head_fault) is RolledBackError
        ckptlog.CheckpointManager(store=store).create_checkpoint("more", "More", 1)
        assert [note for note in store.log.notes if "head" in note]
        assert codes(store.verify()) == ["head.rolled_back"]


@pytest.mark.parametrize("wrong", [0, -1, "1", float("nan"), 10**10, True])
def test_an_interval_is_a_number_above_zero(tmp_path, wrong):
    with pytest.raises(ArgumentError, match="head_interval_s"):
        ckptlog.open(tmp_path / "s", create=True, head_interval_s=wrong)


def test_read_only_signs_nothing(tmp_path):
    home = house(tmp_path)
    with home.open(read_only=True, head_interval_s=0.01):
        time.sleep(0.1)
    assert not (home.path / "heads").exists()


SIGNER = """
import sys, ckptlog
store = ckptlog.open(sys.argv[1], create=True, head_interval_s=0.001)
manager = ckptlog.CheckpointManager(store=store)
print("ready", flush=True)
for step in range(1, 10**6):
    manager.create_checkpoint("t", "T", step)
    store.notary.sign()
"""


def test_killed_at_any_moment_it_signs_on(tmp_path):
    path = tmp_path / "s"
    for number in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", SIGNER, str(path)], stdout=subprocess.PIPE, cwd=ROOT
        ) as process:
            assert process.stdout.readline() == b"ready\n"
            time.sleep(0.03 * (number + 1))
            process.kill()
        with ckptlog.open(path) as store:
            assert store.verify().problems == ()
            signed = store.notary.sign()
            assert signed.head.size == store.position


def test_a_forked_child_signs_too(tmp_path):
    path = tmp_path / "s"
    store = ckptlog.open(path, create=True, head_interval_s=0.05)
    manager = ckptlog.CheckpointManager(store=store)
    manager.create_checkpoint("t", "T", 1)
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        status = 1
        try:
            manager.create_checkpoint("child", "Child", 1)
            manager.close()
            store.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    store.close()
    with ckptlog.open(path) as store:
        assert store.notary.latest().head.size == 2
        assert store.verify().ok
