"""Calls a component from a thread of its own, so that one that hangs does not take us with it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any

from ckptlog.errors import SourceBusyError
from ckptlog.storage.thread import is_begun


class HungError(SourceBusyError):
    """A component did not come back from a call in time; its thread may act still."""

    retryable = False

    def __init__(self, message: str = "", *, hint: str = "", **context: Any) -> None:
        super().__init__(message, hint=hint, **context)
        self.thread: threading.Thread | None = None


def called(name: str, step: str, job: Callable[[], Any], deadline_s: float) -> Any:
    """Return what a job returns, or raise what it raises.

    It has the caller's context (contextvars): a service knows what is called out of a recovery.

    Raises:
        HungError: It did not return in time.
    """
    answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def run() -> None:
        try:
            answers.put((job(), None))
        except BaseException as error:  # noqa: BLE001 - a component may do anything
            answers.put((None, error))

    # A thread that hangs must not keep the process from ending.
    thread = threading.Thread(
        target=copy_context().run, args=(run,), name=f"ckptlog-recovery-{name}", daemon=True
    )
    if not is_begun(thread):  # as while the interpreter ends: without a deadline
        run()
    interrupted: KeyboardInterrupt | None = None
    while True:
        try:
            result, error = answers.get(timeout=deadline_s)
            break
        except KeyboardInterrupt as raised:  # the component must come to its end first
            interrupted = raised
        except Empty:
            hung = HungError(
                f"Component {name!r} did not come back from {step}() in {deadline_s:g} s.",
                hint="Mend what it waits for.",
                component=name,
                step=step,
            )
            hung.thread = thread
            raise hung from interrupted
    if interrupted is not None:
        raise interrupted
    if error is not None:
        raise error
    return result
