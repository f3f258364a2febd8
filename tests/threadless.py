"""Lets no thread be had, as while the interpreter ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def threadless(after: int = 0) -> Iterator[None]:
    """Refuse every thread, or every one after some, inside a block."""
    begun = 0
    start = threading.Thread.start

    def refused(thread: threading.Thread) -> None:
        nonlocal begun
        if begun >= after:
            raise RuntimeError("can't start new thread")
        begun += 1
        start(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        yield
