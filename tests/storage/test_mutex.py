"""A mutex that Ctrl-C cannot leave locked."""

from __future__ import annotations

import threading

import pytest

from ckptlog.storage.mutex import Mutex


class Pressed:
    """An RLock; whoever gets it is interrupted before he knows."""

    def __init__(self):
        self._lock = threading.RLock()
        self.release = self._lock.release

    def acquire(self, timeout):
        self._lock.acquire(timeout=timeout)
        raise KeyboardInterrupt


def is_free(mutex):
    """Say whether another thread can have it."""
    found = []

    def look():
        with mutex.held(0.05) as is_had:
            found.append(is_had)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found == [True]


def test_one_thread_at_a_time():
    mutex = Mutex()
    with mutex.held(1.0) as is_had:
        assert is_had
        assert mutex.is_mine
        assert not is_free(mutex)
    assert not mutex.is_mine
    assert is_free(mutex)


def test_it_does_not_nest():
    mutex = Mutex()
    with mutex.held(1.0):
        with mutex.held(60.0) as is_had:
            assert not is_had
        assert mutex.is_mine
    assert is_free(mutex)


def test_what_is_got_later_is_given_back_too():
    mutex = Mutex()
    is_taken, may_go = threading.Event(), threading.Event()

    def work():
        with mutex.held(1.0):
            is_taken.set()
            may_go.wait()

    thread = threading.Thread(target=work)
    thread.start()
    is_taken.wait()
    with mutex.held(0.01) as is_had:
        assert not is_had
        may_go.set()
        assert mutex.take(30.0)
    assert is_free(mutex)
    thread.join()


def test_an_interruption_behind_the_lock_gives_it_back():
    mutex = Mutex()
    mutex._lock = Pressed()
    with pytest.raises(KeyboardInterrupt), mutex.held(1.0):
        pass
    mutex._lock = mutex._lock._lock
    assert is_free(mutex)
