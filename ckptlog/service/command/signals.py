"""The signals that are a command's, as messages.

A handler runs when the main thread runs Python again. A signal that comes right before that waits,
as the second of two at once does, would be heard at the next one only: a thread reads their numbers
from the descriptor that they are written to when they come.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ckptlog.service.command.process import PASSED_ON, SIGNAL, Messages


@contextmanager
def taken(messages: Messages) -> Iterator[None]:
    """Have them for the time of a block, in the main thread; ignored ones stay so (nohup)."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    thread = threading.Thread(
        target=_read, args=(reading, messages), name="ckptlog-signals", daemon=True
    )
    thread.start()
    former_fd = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    former = {
        number: signal.signal(number, lambda *_: None)
        for number in PASSED_ON
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(former_fd)
        os.close(writing)
        thread.join()


def _read(reading: int, messages: Messages) -> None:
    while numbers := os.read(reading, 512):
        for number in numbers:
            if number in PASSED_ON:
                messages.put((SIGNAL, number))
    os.close(reading)
