from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ckptlog.errors import CheckpointStorageError, LockTimeoutError
from ckptlog.storage import lock as lock_module
from ckptlog.storage.environment import Environment
from ckptlog.storage.lock import WriterLock, describe_holder

WAIT_S = 20.0
HOLD = """
import sys
from pathlib import Path
from ckptlog.storage.environment import Environment
from ckptlog.storage.lock import WriterLock
lock = WriterLock(Path(sys.argv[1]), Environment())
lock.acquire(10.0)
print("held", flush=True)
sys.stdin.readline()
lock.release()
print("released", flush=True)
sys.stdin.readline()
"""


class CountedEnvironment(Environment):
    """A clock of its own: waiting takes no time."""

    def __init__(self):
        super().__init__()
        self.time_s = 100.0
        self.sleeps = []

    def monotonic_s(self):
        return self.time_s

    def sleep(self, duration_s):
        self.sleeps.append(duration_s)
        self.time_s += duration_s


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lock"


@pytest.fixture
def holder(path):
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def lock_on(path, environment=None):
    return WriterLock(path, environment or Environment())


def test_one_holds_it_and_the_other_does_not(path):
    one, other = lock_on(path), lock_on(path)
    assert one.try_acquire()
    assert not other.try_acquire()
    one.release()
    assert other.try_acquire()
    assert not one.try_acquire()
    other.close()  # closing gives it back
    assert one.try_acquire()
    one.close()


def test_the_file_stays(path):
    lock = lock_on(path)
    lock.acquire(1.0)
    inode = path.stat().st_ino
    lock.release()
    lock.acquire(1.0)
    lock.close()
    lock.close()
    assert path.stat().st_ino == inode
    assert path.read_bytes() == b""


def test_a_timeout_names_the_process_that_holds_it(path, holder):
    environment = CountedEnvironment()
    with pytest.raises(LockTimeoutError) as caught:
        lock_on(path, environment).acquire(0.25)
    error = caught.value
    assert f"process {holder.pid} " in error.message
    assert os.path.basename(sys.executable)[:6] in error.message
    assert str(path) in error.message
    assert "0.25 s" in error.message
    assert error.retryable
    assert error.context["holder"].startswith(f"process {holder.pid}")


def test_waiting_polls_more_and_more_slowly_up_to_a_bound(path, holder):
    environment = CountedEnvironment()
    with pytest.raises(LockTimeoutError):
        lock_on(path, environment).acquire(1.0)
    sleeps = environment.sleeps
    assert sleeps == sorted(sleeps)
    assert sleeps[0] < 0.001
    assert sleeps[-1] == lock_module._WAIT_MAX_S
    assert 100 < len(sleeps) < 1000
    assert 1.0 <= sum(sleeps) < 1.0 + 2 * sleeps[-1]


def test_no_time_means_one_try(path, holder):
    environment = CountedEnvironment()
    with pytest.raises(LockTimeoutError):
        lock_on(path, environment).acquire(0.0)
    assert environment.sleeps == []


def test_it_comes_free_when_the_holder_releases_it(path, holder):
    class TellingEnvironment(CountedEnvironment):
        def sleep(self, duration_s):
            if not self.sleeps:
                holder.stdin.write("release\n")
                holder.stdin.flush()
                assert holder.stdout.readline() == "released\n"
            super().sleep(duration_s)

    lock = lock_on(path, TellingEnvironment())
    lock.acquire(WAIT_S)
    lock.close()


def test_a_killed_holder_never_blocks(path, holder):
    lock = lock_on(path)
    assert not lock.try_acquire()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert lock.try_acquire()
    lock.close()


def test_a_deleted_file_does_not_make_two_locks(path):
    """The first one's descriptor still locks the old inode: that must count for nothing."""
    one = lock_on(path)
    one.acquire(1.0)
    one.release()
    path.unlink()
    other = lock_on(path)
    other.acquire(1.0)
    assert not one.try_acquire()
    other.release()
    assert one.try_acquire()
    assert not other.try_acquire()
    one.close()
    other.close()


def test_a_file_that_is_replaced_again_and_again_is_followed(path, monkeypatch):
    lock = lock_on(path)
    replaced: list[int] = []

    original = fcntl.flock

    def flock(fd, operation):
        if len(replaced) < 3:
            replaced.append(fd)
            path.unlink()
            path.write_bytes(b"")
        return original(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    assert lock.try_acquire()
    assert len(replaced) == 3
    assert os.fstat(lock._fd).st_ino == path.stat().st_ino
    lock.close()


def test_a_folder_that_is_missing_is_reported(tmp_path):
    with pytest.raises(CheckpointStorageError) as caught:
        lock_on(tmp_path / "none" / "lock").try_acquire()
    assert "none" in caught.value.message


def in_child(work):
    context = multiprocessing.get_context("fork")
    answer, theirs = context.Pipe(duplex=False)

    def child():
        theirs.send(work())
        os._exit(0)

    process = context.Process(target=child)
    process.start()
    theirs.close()
    assert answer.poll(WAIT_S)
    result = answer.recv()
    process.join(WAIT_S)
    return result


def test_a_forked_child_lets_go_without_unlocking(path):
    lock = lock_on(path)
    lock.acquire(1.0)

    def child():
        lock.abandon()
        return lock_on(path).try_acquire()

    assert in_child(child) is False
    assert not lock_on(path).try_acquire()
    lock.release()
    assert in_child(child) is True
    lock.close()


FORK = """
import os, signal, sys
from pathlib import Path
from ckptlog.storage.environment import Environment
from ckptlog.storage.lock import WriterLock
lock = WriterLock(Path(sys.argv[1]), Environment())
lock.acquire(10.0)
child = os.fork()
if child == 0:
    print(os.getpid(), flush=True)
    signal.pause()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_parents_lock_does_not_live_on_in_a_child_that_never_used_it(path):
    """flock belongs to the description that both share, until the child has closed it."""
    process = subprocess.Popen(
        [sys.executable, "-c", FORK, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        assert process.wait(WAIT_S) == -signal.SIGKILL
        lock = lock_on(path)
        assert lock.try_acquire()
        lock.close()
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


def test_a_forked_child_closes_every_lock_at_once(path):
    lock, idle = lock_on(path), lock_on(path.with_name("other"))
    lock.acquire(1.0)
    assert in_child(lambda: (lock._fd, idle._fd)) == (-1, -1)
    assert lock._fd >= 0
    assert not lock_on(path).try_acquire()
    lock.close()


def test_nobody_is_named_where_nobody_is_known(path, monkeypatch):
    assert describe_holder(path) == "an unknown process"  # there is no file
    path.write_bytes(b"")
    assert describe_holder(path) == "an unknown process"  # nobody holds it
    lock = lock_on(path)
    lock.acquire(1.0)
    assert f"process {os.getpid()}" in describe_holder(path)
    real = Path.read_text
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda self: "" if str(self) == "/proc/locks" else real(self),
    )
    assert describe_holder(path) == "an unknown process"
    lock.close()


def test_lines_of_waiters_and_of_other_files_are_skipped(path, monkeypatch):
    path.write_bytes(b"")
    inode = path.stat().st_ino
    table = (
        "1: POSIX  ADVISORY  WRITE 11 08:01:1 0 EOF\n"
        f"2: FLOCK  ADVISORY  WRITE 999999991 08:01:{inode} 0 EOF\n"
        f"2: -> FLOCK  ADVISORY  WRITE 12 08:01:{inode} 0 EOF\n"
        f"3: FLOCK  ADVISORY  WRITE 13 08:01:{inode}1 0 EOF\n"
        "short line\n"
    )
    monkeypatch.setattr(Path, "read_text", lambda self: table)
    assert describe_holder(path) == "process 999999991"


def test_a_lock_that_was_not_got_holds_no_descriptor(tmp_path):
    first, second = (WriterLock(tmp_path / "lock", Environment()) for _ in range(2))
    first.acquire(0)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(LockTimeoutError):
        second.acquire(0)
    assert len(os.listdir("/proc/self/fd")) == before
    first.release()
    second.acquire(0)
    second.close()
    first.close()
