"""What a recovery pins, it lets go of again, wherever it is killed (specs/recovery.md, section 2).

A process that recovers a system is killed by SIGKILL before each of its commits, and after each:
those are all the steps between which a pin could be left. Then the next start does what it does
after every crash, and nothing may be pinned.
"""

from __future__ import annotations

import multiprocessing
import os
import signal

import pytest

from ckptlog import CheckpointManager
from ckptlog.capture.capturer import Capturer
from ckptlog.errors import RecoveryFailedError
from ckptlog.manager.fact import is_pinned
from ckptlog.recovery.recovery import Recovery
from ckptlog.views.query import Filter
from tests.capture.sample import Value

_FORK = multiprocessing.get_context("fork")
_COMMITS_MAX = 40


class Failing(Value):
    """Its first restore does what was asked for, and raises."""

    fails = False

    def restore(self, payload):
        self.value = payload
        if self.fails:
            self.fails = False
            raise RuntimeError("no")


def recovery_of(manager):
    parts = [Failing("a", {"n": 0}), Failing("b", [0])]
    return Recovery(Capturer(manager, "sys", parts)), parts


def pinned(manager):
    store = manager.store
    return {row.id for row in store.select(Filter(), after=None, limit=50) if is_pinned(store, row)}


def act(manager, how):
    """What the killed process does: a recovery that succeeds, fails, or is finished or undone."""
    recovery, parts = recovery_of(manager)
    if how == "resume":
        recovery.resume()
    elif how == "roll back":
        recovery.roll_back()
    else:
        parts[1].fails = how == "fail"
        recovery.recover(next(one.id for one in recovery.capturer.captures() if one.number == 1))


class Killed:
    """Kills its process around the commit of a number; is_after: when it is made."""

    def __init__(self, store, number, *, is_after):
        self._submit = store.submit
        self._left = number
        self._is_after = is_after

    def __call__(self, intent):
        self._left -= 1
        if self._left == 0 and not self._is_after:
            os.kill(os.getpid(), signal.SIGKILL)
        outcome = self._submit(intent)
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return outcome


def child(path, how, number, is_after):
    with CheckpointManager(path) as manager:
        manager.store.submit = Killed(manager.store, number, is_after=is_after)
        try:
            act(manager, how)
        except RecoveryFailedError:
            assert how == "fail"


def is_killed(path, how, number, *, is_after):
    process = _FORK.Process(target=child, args=(path, how, number, is_after))
    process.start()
    process.join()
    assert process.exitcode in {0, -signal.SIGKILL}
    return process.exitcode != 0


def begun(path, how):
    """Make a store with captures, and for resume and roll back a recovery that was killed."""
    with CheckpointManager(path) as manager:
        recovery, parts = recovery_of(manager)
        recovery.capturer.capture()
        parts[0].value = {"n": 1}
        recovery.capturer.capture()
    if how in {"resume", "roll back"}:
        number = 4  # capture, start, a is touched, and was
        assert is_killed(path, "recover", number, is_after=True)
        with CheckpointManager(path) as manager:
            found = recovery_of(manager)[0].unfinished()
            assert found is not None
            assert found.touched == ["a"]


def next_start(manager):
    """Do what a program does after a crash."""
    recovery, _ = recovery_of(manager)
    unfinished = recovery.unfinished()
    if unfinished is not None:
        assert set(unfinished.held) == pinned(manager)
        recovery.resume()


@pytest.mark.parametrize("how", ["recover", "fail", "resume", "roll back"])
@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
def test_killed_between_any_two_steps_nothing_stays_pinned(tmp_path, how, is_after):
    seen = set()
    for number in range(1, _COMMITS_MAX):
        path = tmp_path / f"{number}"
        begun(path, how)
        was_killed = is_killed(path, how, number, is_after=is_after)
        with CheckpointManager(path) as manager:
            seen.add(recovery_of(manager)[0].unfinished() is not None)
            next_start(manager)
            assert pinned(manager) == set(), (how, number)
            assert recovery_of(manager)[0].unfinished() is None
            manager.cleanup_old_checkpoints(
                retention={"keep_last": 0, "keep_recovery_points": False}
            )
            assert recovery_of(manager)[0].capturer.captures() == [], (how, number)
        if not was_killed:
            break
    assert seen == {False, True}
    assert number >= 4  # a roll back: reverting, reverted, its end, and nothing is left to kill
