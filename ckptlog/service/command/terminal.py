"""The terminal, which a command in a process group of its own must be given to be able to use it.

Without one, or where this process is not in its foreground, nothing is done.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Terminal:
    """The controlling terminal of this process."""

    def __init__(self) -> None:
        self._fd = -1
        with suppress(OSError):
            self._fd = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
            if os.tcgetpgrp(self._fd) != os.getpgrp():
                self.close()

    @property
    def is_ours(self) -> bool:
        """Whether there is one that can be given."""
        return self._fd >= 0

    def give(self, group: int) -> None:
        """Let a process group read it, and be what Ctrl-C is for."""
        if self.is_ours:
            with _quietly(), suppress(OSError):
                os.tcsetpgrp(self._fd, group)

    def take(self) -> None:
        """Have it again."""
        self.give(os.getpgrp())

    def close(self) -> None:
        """Let it go."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@contextmanager
def _quietly() -> Iterator[None]:
    """Do not be stopped for changing the foreground from the background."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
