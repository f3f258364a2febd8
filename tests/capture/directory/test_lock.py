"""The lock of a directory while processes are forked."""

from __future__ import annotations

import os
import signal

import pytest

from ckptlog.capture.directory import lock
from ckptlog.errors import RecoveryBusyError


@pytest.fixture
def fork():
    """Return what forks a process that waits; what it says first is returned, with its pid."""
    children = []

    def forked(say=lambda: ""):
        end, begin = os.pipe()
        if not (child := os.fork()):
            try:
                os.write(begin, say().encode() + b"\n")
                signal.pause()
            finally:
                os._exit(0)
        children.append(child)
        os.close(begin)
        with os.fdopen(end) as pipe:
            return pipe.readline().strip()

    yield forked
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_forked_worker_does_not_keep_it(tmp_path, fork):
    with lock.alone(str(tmp_path)) as is_locked:
        held = lock._all_held.copy()
        lock._all_held.clear()  # as where a library forks, and asks nobody
        fork()
        lock._all_held.extend(held)
    assert is_locked
    with lock.alone(str(tmp_path)) as is_locked:
        assert is_locked


def test_a_forked_worker_has_no_part_in_it(tmp_path, fork):
    def say():
        links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
        found = [os.readlink(link) for link in links if os.path.lexists(link)]
        return "open" if str(tmp_path) in found else "closed"

    with lock.alone(str(tmp_path)):
        assert fork(say) == "closed"
        with pytest.raises(RecoveryBusyError), lock.alone(str(tmp_path)):  # nor does it unlock
            pass


def test_the_block_goes_on_in_a_child(tmp_path):
    with lock.alone(str(tmp_path)):
        if not (child := os.fork()):
            status = 1
            try:
                with lock.alone(str(tmp_path)):
                    pass
            except RecoveryBusyError:
                status = 0  # the parent's
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
