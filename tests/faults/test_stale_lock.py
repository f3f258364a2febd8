"""Whoever holds a lock is named while he lives, and never blocks once he was killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest

import ckptlog
from ckptlog import CheckpointManager
from ckptlog.cli import diagnosis
from ckptlog.errors import ConsumerBusyError, LockTimeoutError
from ckptlog.manager.importer import import_archive

HOLD = """
import sys, time
from pathlib import Path
import ckptlog
from ckptlog.storage.environment import Environment
from ckptlog.storage.lock import WriterLock

root, what = sys.argv[1:]
with ckptlog.open(root) as store:
    if what == "writer":
        store.log.hold(10.0)
    elif what == "consumer":
        held = store.watch("mine")
    elif what == "backup":
        lock = WriterLock(Path(root).parent / "b2" / "lock", Environment())
        lock.acquire(10.0)
    else:
        lock = WriterLock(Path(root) / "import.lock", Environment())
        lock.acquire(10.0)
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def root(tmp_path):
    with CheckpointManager(tmp_path / "s") as manager:
        manager.create_checkpoint("t", "T", 1)
        manager.store.backup(tmp_path / "b2")
    with CheckpointManager(tmp_path / "origin") as manager:
        manager.create_checkpoint("u", "U", 1)
        manager.store.export_archive(["u"], tmp_path / "a.ckpt")
    return tmp_path / "s"


def act(root, what) -> None:
    """Do what the lock guards, waiting for a moment only."""
    with ckptlog.open(root, timeout_s=0.2) as store:
        if what == "writer":
            CheckpointManager(store=store).create_checkpoint("t", "T", 2)
        elif what == "consumer":
            store.watch("mine", busy_timeout_s=0.2).close()
        elif what == "backup":
            store.backup(root.parent / "b2")
        else:
            import_archive(store, root.parent / "a.ckpt")


@pytest.mark.parametrize("what", ["writer", "consumer", "backup", "import"])
def test_named_while_it_lives_and_no_hindrance_once_killed(root, what):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root), what], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises((LockTimeoutError, ConsumerBusyError)) as caught:
            act(root, what)
        holder = caught.value.context["holder"]
        assert f"process {process.pid} (" in holder
        assert f" on {socket.gethostname()} since 2" in holder
        told = " ".join(
            one.message for one in (diagnosis.lock_holder(root), *diagnosis.other_locks(root))
        )
        assert (f"process {process.pid}" in told) == (what != "backup")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        act(root, what)
        told = " ".join(
            one.message for one in (diagnosis.lock_holder(root), *diagnosis.other_locks(root))
        )
        assert f"process {process.pid}" not in told
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_holder_in_another_container_is_not_called_process_0(tmp_path, monkeypatch):
    from ckptlog.storage import lock as lock_module

    assert "another container" in lock_module._describe_process("0")
