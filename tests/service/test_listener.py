"""Callbacks are called also where no thread is to be had."""

from __future__ import annotations

from queue import SimpleQueue

import pytest

from ckptlog.service.listener import SERVICE_STOPPED, Listeners
from tests.service.system import WAIT_S
from tests.threadless import threadless


def test_without_a_thread_what_is_pending_is_told_at_the_end():
    told: list[int] = []
    listeners = Listeners()
    with threadless():
        listeners.on(SERVICE_STOPPED, told.append)
        listeners.tell(SERVICE_STOPPED, 1)
        listeners.tell(SERVICE_STOPPED, 2)
        assert told == []
        assert listeners.end(5.0)
    assert told == [1, 2]
    listeners.tell(SERVICE_STOPPED, 3)
    assert listeners.end(5.0)
    assert told == [1, 2, 3]


@pytest.mark.parametrize("begin", ["on", "start"])
def test_the_thread_is_there_before_it_is_needed(begin):
    """Later there may be none to be had: the main thread may have returned."""
    told: SimpleQueue[int] = SimpleQueue()
    listeners = Listeners()
    listeners.on(SERVICE_STOPPED, told.put)
    if begin == "start":
        assert listeners.end(WAIT_S)
        listeners.start()
    with threadless():
        listeners.tell(SERVICE_STOPPED, 1)
        assert told.get(timeout=WAIT_S) == 1
    assert listeners.end(WAIT_S)
