"""The teller: what people should know is told in its order, from a thread of its own.

Whoever reads it may be there and read no more. While the signals are the command's nothing of ours
waits for that.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Self

_PATIENCE_S: Final = 1.0


class Teller:
    """Tells what it is called with; leaving its block waits until all is told.

    Args:
        tell: Called in the teller's thread with each message; what it raises of the
            system's, or of a closed stream, is dropped: nobody could be told of it.

    Threads: any may call it.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._patience_s: float | None = None  # without an end, as any program for its reader
        self._tell = tell
        self._queue: queue.SimpleQueue[str | threading.Event | None] = queue.SimpleQueue()
        # A daemon: one that waits for a reader must not keep the process.
        self._thread = threading.Thread(target=self._run, name="ckptlog-teller", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        self._thread.join(self._patience_s)

    def __call__(self, message: str) -> None:
        """Tell a message, soon; never waits."""
        self._queue.put(message)

    def hurry(self) -> None:
        """Let leaving wait for a second only: somebody has asked for an end."""
        self._patience_s = _PATIENCE_S

    def flush(self) -> None:
        """Wait until all is told that was to be."""
        is_told = threading.Event()
        self._queue.put(is_told)
        is_told.wait()

    def _run(self) -> None:
        while (one := self._queue.get()) is not None:
            if isinstance(one, threading.Event):
                one.set()
                continue
            with suppress(OSError, ValueError):
                self._tell(one)
