"""Callbacks are called also where no thread is to be had."""

from __future__ import annotations

from ckptlog.service.listener import SERVICE_STOPPED, Listeners
from tests.threadless import threadless


def test_without_a_thread_what_is_pending_is_told_at_the_end():
    told: list[int] = []
    listeners = Listeners()
    listeners.on(SERVICE_STOPPED, told.append)
    with threadless():
        listeners.tell(SERVICE_STOPPED, 1)
        listeners.tell(SERVICE_STOPPED, 2)
        assert told == []
        assert listeners.end(5.0)
    assert told == [1, 2]
    listeners.tell(SERVICE_STOPPED, 3)
    assert listeners.end(5.0)
    assert told == [1, 2, 3]
