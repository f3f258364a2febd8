"""What a forked child makes anew."""

from __future__ import annotations

import gc
import os
import threading
import time

import pytest

from ckptlog.storage import fork
from ckptlog.storage.fork import free_in_child, hasty, renewed_in_child, still_in_fork
from tests.manager.test_fork import in_child


class Owner:
    def __init__(self):
        self.lock, self.reentrant = threading.Lock(), threading.RLock()
        self.event, self.set = threading.Event(), threading.Event()
        self.set.set()
        self.renewed = 0
        free_in_child(self, "lock", "reentrant", "event", "set")
        renewed_in_child(self)

    def renew_in_child(self):
        assert not self.lock.locked()
        self.renewed += 1


def test_locks_that_another_thread_holds_are_free_in_a_child():
    owner = Owner()
    held, done = threading.Event(), threading.Event()

    def hold():
        with owner.lock, owner.reentrant, owner.event._cond, owner.set._cond:
            held.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)

    def child():
        with owner.lock, owner.reentrant, owner.reentrant:
            owner.event.set()
        return [owner.event.is_set(), owner.set.is_set(), owner.renewed]

    assert in_child(child) == [True, True, 1]
    done.set()
    thread.join()
    assert (owner.renewed, owner.event.is_set()) == (0, False)


@pytest.mark.parametrize("name", ["lock", "reentrant"])
def test_what_the_forking_thread_holds_it_gives_back_in_the_child(name):
    owner = Owner()
    with getattr(owner, name):
        pid = os.fork()
    if pid == 0:
        os._exit(0 if getattr(owner, name).acquire(blocking=False) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert getattr(owner, name).acquire(blocking=False)


def test_an_owner_is_not_kept_alive():
    owner = Owner()
    number = len(fork._owners), len(fork._locks)
    del owner
    gc.collect()
    assert (len(fork._owners), len(fork._locks)) < number


class Worker:
    """Works under a lock; it can be still."""

    def __init__(self):
        self.lock = threading.Lock()
        self.is_still = False
        still_in_fork(self)

    def be_still(self, wait_s):
        self.is_still = self.lock.acquire(timeout=wait_s)
        return self.is_still

    def go_on(self):
        self.is_still = False
        self.lock.release()


def test_a_fork_waits_for_who_is_at_work_and_lets_go_on(monkeypatch):
    monkeypatch.setattr(fork, "STILL_S", 30)
    worker, held = Worker(), threading.Event()

    def work():
        with worker.lock:
            held.set()
            time.sleep(0.1)

    thread = threading.Thread(target=work)
    thread.start()
    held.wait(10)
    assert in_child(lambda: worker.is_still) is True
    thread.join()
    assert (worker.is_still, worker.lock.locked()) == (False, False)


def test_a_fork_does_not_wait_for_ever_nor_where_it_is_hasty(monkeypatch):
    worker = Worker()
    monkeypatch.setattr(fork, "STILL_S", 0.01)
    with worker.lock:
        assert in_child(lambda: worker.is_still) is False
    monkeypatch.setattr(fork, "STILL_S", 30)
    with hasty():
        assert in_child(lambda: worker.is_still) is False
    assert not worker.lock.locked()


class Equal:
    """It is like every other one, and has no hash."""

    def __init__(self):
        self.lock = threading.Lock()
        self.renewed = 0
        free_in_child(self, "lock")
        renewed_in_child(self)

    def __eq__(self, other):
        return True

    __hash__ = None

    def renew_in_child(self):
        self.renewed += 1


def test_objects_that_are_equal_are_seen_to_each():
    first, second = Equal(), Equal()
    with first.lock, second.lock:
        found = in_child(
            lambda: [first.lock.locked(), second.lock.locked(), first.renewed, second.renewed]
        )
    assert found == [False, False, 1, 1]
