"""Signals that interrupt us, held back while something is begun that must not be lost.

A process that is started is ours to end only once we know it. An interruption in between (Ctrl-C
raises wherever Python happens to be) would leave it running with nobody to end it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any, Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held_interruptions() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait for the end of the block; there they raise what they raise.

    Only where their handlers are Python's. They are replaced, not blocked, because a process that
    is started inside would inherit what is blocked.

    Threads: does something in the main one only; no other is interrupted.
    """
    if current_thread() is not main_thread():
        yield
        return
    came: list[int] = []
    before = _replace({number: lambda number, _: came.append(number) for number in _SIGNALS})
    try:
        yield
    finally:
        _replace(before)
        for number in dict.fromkeys(came):
            signal.raise_signal(number)


def _replace(handlers: dict[signal.Signals, Any]) -> dict[signal.Signals, Any]:
    """Set handlers all at once, in the place of Python's; return those that were there."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, handlers)
    try:
        before = {number: signal.getsignal(number) for number in handlers}
        ours = {number: one for number, one in before.items() if callable(one)}
        for number in ours:
            signal.signal(number, handlers[number])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return ours
