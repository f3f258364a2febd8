"""A component is called also where no thread is to be had; Ctrl-C finds it ended, or not begun."""

from __future__ import annotations

import queue
import threading
import time

import pytest

from ckptlog.recovery import call
from ckptlog.recovery.call import called
from tests.threadless import threadless


@pytest.mark.parametrize("after", [0, 1])
def test_a_job_is_done_with_a_thread_and_without(after):
    with threadless(after):
        thread = called("a", "restore", threading.current_thread, 5.0)
    assert (thread is threading.current_thread()) == (after == 0)


@pytest.mark.parametrize("after", [0, 1])
def test_what_it_raises_is_raised(after):
    with threadless(after), pytest.raises(ValueError, match="no number"):
        called("a", "restore", lambda: int("no number"), 5.0)


@pytest.mark.parametrize("is_begun", [False, True])
def test_a_job_whose_thread_is_interrupted_at_its_start_is_never_done(monkeypatch, is_begun):
    start, done = threading.Thread.start, []

    def pressed(thread):
        if is_begun:
            start(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", pressed)
        with pytest.raises(KeyboardInterrupt):
            called("a", "restore", lambda: done.append(True), 5.0)
    end_s = time.monotonic() + 30
    while any(one.name == "ckptlog-recovery-a" for one in threading.enumerate()):
        assert time.monotonic() < end_s, "its thread waits for ever"
        time.sleep(0.01)
    assert done == []


def test_an_answer_that_an_interruption_swallows_is_not_waited_for(monkeypatch):
    class Pressed:
        """A queue; Ctrl-C comes when an item was taken from it and not yet returned."""

        __class_getitem__ = classmethod(lambda cls, _item: cls)

        def __init__(self):
            self.items = queue.SimpleQueue()
            self.put = self.items.put

        def get(self, timeout=None):
            item = self.items.get(timeout=timeout)
            if threading.current_thread() is threading.main_thread():
                raise KeyboardInterrupt
            return item

    monkeypatch.setattr(call, "SimpleQueue", Pressed)
    begin_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        called("a", "restore", lambda: None, 60.0)
    assert time.monotonic() - begin_s < 30
