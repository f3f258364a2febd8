"""Ctrl-C, SIGTERM and a terminal that closes end a command: what it changed is put back."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_Handler = Callable[[int, FrameType | None], object] | signal.Handlers

# Each with what is its handler where nobody has set another one.
_ENDS: Final[dict[signal.Signals, _Handler]] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}
_SIGNALLED: Final = 128
_AT_ONCE_S: Final = 1.0


class SignalledError(KeyboardInterrupt):
    """A signal has ended the command; `status` is what a shell would say of it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.status = _SIGNALLED + number


@contextmanager
def interruptible() -> Iterator[None]:
    """Interrupt the block where such a signal comes.

    Whoever ends a program often sends two at once (a process and its group, SIGTERM and SIGHUP, a
    terminal and the program between us): only one that comes later does not wait for what is put
    back. Signals that are ignored (nohup) stay so.

    Raises:
        SignalledError: One came, and the block was left by the interrupt.
    """
    came: list[tuple[int, float]] = []
    ours: list[signal.Signals] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if not came:
            came.append((number, now_s))
            raise SignalledError(number)
        if now_s - came[0][1] >= _AT_ONCE_S:
            _reset(ours)
            signal.raise_signal(number)

    try:
        if threading.current_thread() is threading.main_thread():
            for one, unset in _ENDS.items():
                if signal.getsignal(one) is unset:
                    ours.append(one)
                    signal.signal(one, interrupt)
        yield
    except KeyboardInterrupt:
        if came:
            raise SignalledError(came[0][0]) from None
        raise
    finally:
        _reset(ours)


def _reset(numbers: list[signal.Signals]) -> None:
    for one in numbers:
        signal.signal(one, _ENDS[one])
