"""A component is called also where no thread is to be had."""

from __future__ import annotations

import threading

import pytest

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
