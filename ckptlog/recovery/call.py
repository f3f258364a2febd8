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

    An interruption (Ctrl-C) is raised when it has returned, or before it was begun.

    Raises:
        HungError: It did not return in time.
    """
    answers: list[tuple[Any, BaseException | None]] = []
    # Only to wake: an interrupted get() may have taken what it did not return.
    gone, come = SimpleQueue[bool](), SimpleQueue[None]()

    def run() -> None:
        if not gone.get():
            return
        try:
            answers.append((job(), None))
        except BaseException as error:  # noqa: BLE001 - a component may do anything
            answers.append((None, error))
        come.put(None)

    # A thread that hangs must not keep the process from ending.
    thread = threading.Thread(
        target=copy_context().run, args=(run,), name=f"ckptlog-recovery-{name}", daemon=True
    )
    try:
        is_beside = is_begun(thread)
    except BaseException:  # it may have begun all the same; nothing was touched, nor will be
        gone.put(False)
        raise
    if not is_beside:  # as while the interpreter ends: without a deadline
        return job()
    interrupted: KeyboardInterrupt | None = None
    while not answers:
        try:
            gone.put(True)  # what comes twice is not read
            come.get(timeout=deadline_s)
        except KeyboardInterrupt as raised:  # the component must come to its end first
            interrupted = raised
        except Empty:
            raise _hung(name, step, deadline_s, thread) from interrupted
    if interrupted is not None:
        raise interrupted
    return _result(*answers[0])


def _result(result: Any, error: BaseException | None) -> Any:
    if error is not None:
        raise error
    return result


def _hung(name: str, step: str, deadline_s: float, thread: threading.Thread) -> HungError:
    error = HungError(
        f"Component {name!r} did not come back from {step}() in {deadline_s:g} s.",
        hint="Mend what it waits for.",
        component=name,
        step=step,
    )
    error.thread = thread
    return error
