"""The lock is given back whatever ends the call, and never more often than it was taken."""

from __future__ import annotations

import linecache
import sys
import threading

import pytest

from ckptlog.errors import LockTimeoutError
from ckptlog.log import hold as hold_module
from ckptlog.log import log as log_module
from ckptlog.log.hold import Hold
from ckptlog.storage.environment import Environment
from ckptlog.storage.lock import WriterLock
from tests.log.sample import WAIT_S, create_log, group, open_log, published_ids

FILES = {str(sys.modules[module.__name__].__file__) for module in (hold_module, log_module)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lock"


@pytest.fixture
def hold(path):
    return Hold(WriterLock(path, Environment()), Environment())


def is_free(path):
    other = WriterLock(path, Environment())
    try:
        return other.try_acquire()
    finally:
        other.close()


def in_thread(act):
    outcome = []

    def run():
        try:
            outcome.append(act())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    return outcome[0]


def test_it_nests_and_is_given_back_to_a_depth(hold, path):
    assert hold.depth == 0
    hold.take(WAIT_S)
    hold.take(WAIT_S)
    assert hold.depth == 2
    for _ in range(3):
        hold.give_back(1)
        assert hold.depth == 1
        assert not is_free(path)
    for _ in range(3):
        hold.give_back()
        assert hold.depth == 0
        assert is_free(path)


def test_another_thread_gives_nothing_back(hold, path):
    hold.take(WAIT_S)
    in_thread(hold.give_back)
    in_thread(lambda: hold.give_back(1))
    assert hold.depth == 1
    assert in_thread(lambda: hold.depth) == 0
    assert not is_free(path)
    hold.give_back()


def test_another_thread_waits_for_so_long(hold):
    hold.take(WAIT_S)
    error = in_thread(lambda: hold.take(0.05))
    assert isinstance(error, LockTimeoutError)
    assert "Another thread of this process" in error.message
    assert isinstance(in_thread(lambda: hold.take(0.0)), LockTimeoutError)
    hold.give_back()
    assert in_thread(lambda: (hold.take(0.0), hold.give_back())) == (None, None)


class Interrupt(BaseException):
    pass


def interrupted(act, step):
    """Run act with an interrupt at the n-th line that it runs in these modules; say if it came."""
    left = [step]

    def trace(frame, event, argument):
        if frame.f_code.co_filename not in FILES:
            return None
        source = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        # No signal is handled in a line that only begins a block: it has no instruction of its own.
        if event in ("call", "line") and source not in {"try:", "finally:"}:
            left[0] -= 1
            if left[0] == 0:
                raise Interrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    except Interrupt:
        pass
    finally:
        sys.settrace(before)
    return left[0] <= 0


def test_an_interrupt_at_any_line_of_an_append_keeps_nothing(tmp_path):
    """One interrupt, as of Ctrl-C, wherever it hits: others can write, and nothing is half there."""
    log = create_log(tmp_path / "s")
    step = count = 0
    while True:
        step += 1
        name = f"n{step}"

        def append(name=name):
            with log.exclusive(WAIT_S) as tail:
                log.append([group(name)], tail.position)

        came = interrupted(append, step)
        assert log._hold.depth == 0
        assert in_thread(lambda: log.exclusive(1.0).__enter__() and log.release()) is None
        other = open_log(tmp_path / "s")
        with other.exclusive(1.0):
            pass
        other.close()
        if not came:
            break
        count += 1
    assert count > 40
    ids = published_ids(log)
    assert ids == sorted(ids, key=lambda name: int(name[1:]))
    assert f"n{step}" in ids
    log.close()
