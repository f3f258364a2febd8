"""SIGTERM and a terminal that closes end a command as Ctrl-C does: what it changed is put back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_ENDS: Final = (signal.SIGTERM, signal.SIGHUP)
_SIGNALLED: Final = 128


class SignalledError(KeyboardInterrupt):
    """A signal has ended the command; `status` is what a shell would say of it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.status = _SIGNALLED + number


@contextmanager
def interruptible() -> Iterator[None]:
    """Interrupt the block where such a signal comes; another one then does not wait.

    Signals that are ignored (nohup) stay so.

    Raises:
        SignalledError: One came, and the block was left by the interrupt.
    """
    came: list[int] = []
    ours: list[signal.Signals] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        _reset(ours)
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        ours += [one for one in _ENDS if signal.getsignal(one) is signal.SIG_DFL]
        for one in ours:
            signal.signal(one, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        if came:
            raise SignalledError(came[0]) from None
        raise
    finally:
        _reset(ours)


def _reset(numbers: list[signal.Signals]) -> None:
    for one in numbers:
        signal.signal(one, signal.SIG_DFL)
