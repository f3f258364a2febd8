"""Syncs that are begun while a file is written: none is lost, none is left at work."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from ckptlog.errors import InputOutputError
from ckptlog.storage.early_sync import EarlySync
from tests.threadless import threadless


@pytest.fixture
def fd(tmp_path):
    made = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield made
    os.close(made)


def refuse(monkeypatch, name, number):
    def refused(_fd):
        raise OSError(number, "no")

    monkeypatch.setattr(os, name, refused)


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_only_one_is_at_work(fd, monkeypatch):
    may_go, calls = threading.Event(), []
    monkeypatch.setattr(os, "fdatasync", lambda own: (calls.append(own), may_go.wait()))
    early, before = EarlySync(), descriptors()
    for _ in range(5):
        early.begin(fd)
    may_go.set()
    early.wait()
    early.begin(fd)
    early.close()
    assert len(calls) == 2
    assert fd not in calls
    assert descriptors() == before


def test_a_failure_is_told_once_and_by_wait(fd, monkeypatch):
    refuse(monkeypatch, "fdatasync", errno.EIO)
    early = EarlySync()
    early.begin(fd)
    with pytest.raises(InputOutputError):
        early.wait()
    early.wait()
    early.begin(fd)
    early.close()
    early.close()


def test_without_descriptors_the_last_sync_does_it_all(fd, monkeypatch):
    refuse(monkeypatch, "dup", errno.EMFILE)
    early = EarlySync()
    early.begin(fd)
    early.wait()
    early.close()


def test_the_descriptor_may_be_closed_meanwhile(tmp_path):
    early, before = EarlySync(), descriptors()
    fd = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"x" * 100_000)
    early.begin(fd)
    os.close(fd)
    early.wait()
    early.close()
    assert descriptors() == before


def test_a_refused_sync_closes_no_number_of_somebody_elses(fd, tmp_path, monkeypatch):
    """A pool queues a job before it starts the thread; it must not be done when one is there."""
    closed = []
    early = EarlySync()
    with threadless():
        early.begin(fd)
    theirs = os.open(tmp_path / "theirs", os.O_RDWR | os.O_CREAT)  # has the number that was free
    try:
        close = os.close
        with monkeypatch.context() as patch:
            patch.setattr(os, "close", lambda number: (closed.append(number), close(number)))
            early.begin(fd)
            early.wait()
            early.close()
        assert theirs not in closed
        os.fstat(theirs)
    finally:
        close(theirs)
