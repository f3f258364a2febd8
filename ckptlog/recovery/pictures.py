"""The pictures of a recovery, as an iterator: it goes on in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextvars import copy_context
from queue import SimpleQueue

from ckptlog.recovery.progress import RecoveryProgress
from ckptlog.recovery.request import Cancel, OnProgress
from ckptlog.storage.thread import is_begun

Recover = Callable[[OnProgress, Cancel], object]


class Either:
    """A cancel that is set when one of several is.

    Threads: safe.
    """

    def __init__(self, *cancels: Cancel | None) -> None:
        self._cancels = [one for one in cancels if one is not None]

    def is_set(self) -> bool:
        """Say whether one of them is set."""
        return any(one.is_set() for one in self._cancels)


def iterated(recover: Recover, cancel: Cancel | None) -> Generator[RecoveryProgress, None, None]:
    """Recover, and yield each picture; what `recover` raises is raised at the end.

    Whoever stops iterating cancels the recovery, and waits for the rollback.

    Args:
        recover: Called in the thread, with what it is to tell pictures and what it is to ask.
        cancel: The caller's own.
    """
    pictures: SimpleQueue[RecoveryProgress | None] = SimpleQueue()
    stop = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            recover(pictures.put, Either(stop, cancel))
        except BaseException as error:  # noqa: BLE001 - raised again by the iterator
            failures.append(error)
        finally:
            pictures.put(None)

    thread = threading.Thread(target=copy_context().run, args=(work,), name="ckptlog-recovery")
    is_beside = is_begun(thread)
    if not is_beside:  # all of it now, and the pictures behind it
        work()
    try:
        while (picture := pictures.get()) is not None:
            yield picture
    finally:
        stop.set()
        if is_beside:
            thread.join()
    if failures:
        raise failures[0]
