"""Files that are put on the medium together: no failure is lost, no descriptor stays."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time

import pytest

from ckptlog.capture.directory.batch import Batch
from tests.threadless import threadless


def descriptors():
    return set(os.listdir("/proc/self/fd"))


def opened(folder, count):
    flags = os.O_RDWR | os.O_CREAT
    return [os.open(folder / str(number), flags) for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 3, 200])
def test_all_are_synced_and_closed(tmp_path, monkeypatch, count):
    before, synced = descriptors(), set()
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.add(os.fstat(fd).st_ino), real(fd)))
    with Batch() as batch:
        inodes = set()
        for fd in opened(tmp_path, count):
            inodes.add(os.fstat(fd).st_ino)
            batch.add(fd)
        batch.sync()
    assert synced == inodes
    assert descriptors() == before


def failing_once(monkeypatch):
    """Let the first sync fail, as a system does that tells a failure once; return the calls."""
    calls = []

    def failing(real):
        def sync(fd):
            calls.append(fd)
            if len(calls) == 1:
                raise OSError(errno.EIO, "no")
            real(fd)

        return sync

    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, failing(getattr(os, name)))
    return calls


@pytest.mark.parametrize("count", [1, 5])
def test_a_failure_before_the_sync_is_the_syncs(tmp_path, monkeypatch, count):
    before = descriptors()
    fds = opened(tmp_path, count)
    with Batch() as batch:
        calls = failing_once(monkeypatch)
        batch.begin(fds[0])
        while not calls:  # the other thread's
            pass
        for fd in fds:
            batch.add(fd)
        with pytest.raises(OSError, match="no") as caught:
            batch.sync()
        assert caught.value.errno == errno.EIO
        batch.sync()  # of what was added since: nothing
    assert descriptors() == before


def test_what_was_begun_is_waited_for_and_closed(tmp_path):
    before = descriptors()
    (fd,) = opened(tmp_path, 1)
    with Batch() as batch:
        for _ in range(20):
            os.write(fd, b"x" * 4096)
            batch.begin(fd)
        os.close(fd)
    assert descriptors() == before


@pytest.mark.parametrize("after", [0, 2])
def test_without_another_thread_all_are_synced_before_any_is_closed(tmp_path, monkeypatch, after):
    before, synced = descriptors(), []
    real = os.fsync

    def slowly(fd):
        time.sleep(0.05)
        real(fd)
        synced.append(os.fstat(fd).st_ino)

    monkeypatch.setattr(os, "fsync", slowly)
    with Batch() as batch, threadless(after):
        inodes = []
        for fd in opened(tmp_path, 6):
            inodes.append(os.fstat(fd).st_ino)
            batch.add(fd)
        batch.sync()
        assert sorted(synced) == sorted(inodes)
    assert descriptors() == before


def test_one_that_cannot_be_closed_keeps_no_other_open(tmp_path, monkeypatch):
    before, fds = descriptors(), opened(tmp_path, 3)
    close = os.close

    def failing(fd):
        close(fd)
        if fd == fds[1]:
            raise OSError(errno.EIO, "no")

    with Batch() as batch:
        for fd in fds:
            batch.add(fd)
        with monkeypatch.context() as patch:
            patch.setattr(os, "close", failing)
            with pytest.raises(OSError, match="no"):
                batch.sync()
    assert descriptors() == before


def test_a_failure_is_raised_when_all_are_done(tmp_path, monkeypatch):
    fds, done = opened(tmp_path, 6), []

    def sync(fd):
        if fd == fds[0]:
            raise OSError(errno.EIO, "no")
        time.sleep(0.05)
        done.append(fd)

    monkeypatch.setattr(os, "fsync", sync)
    with Batch() as batch:
        for fd in fds:
            batch.add(fd)
        with pytest.raises(OSError, match="no"):
            batch.sync()
        assert sorted(done) == sorted(fds[1:])


def test_an_interruption_closes_nothing_that_is_at_work(tmp_path, monkeypatch):
    """Their numbers would be other files', which they would sync, or close."""
    before, numbers = descriptors(), []
    is_begun, is_interrupted, real = threading.Event(), threading.Event(), os.fsync

    def press():
        assert is_begun.wait(60)
        time.sleep(0.1)
        # The process could be told by any of its threads, and this one would go on waiting.
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    def slowly(fd):
        inode = os.fstat(fd).st_ino
        numbers.append(fd)
        is_begun.set()
        assert is_interrupted.wait(60)
        assert os.fstat(fd).st_ino == inode
        real(fd)

    monkeypatch.setattr(os, "fsync", slowly)
    folder = tmp_path / "others"
    folder.mkdir()
    with Batch() as batch:
        for fd in opened(tmp_path, 20):
            batch.add(fd)
        pressing = threading.Thread(target=press)
        pressing.start()
        with pytest.raises(KeyboardInterrupt):
            batch.sync()
        pressing.join()
        others = opened(folder, 20)
        assert not set(others) & set(numbers)
        is_interrupted.set()
    for fd in others:
        os.close(fd)  # each is there still
    assert descriptors() == before
