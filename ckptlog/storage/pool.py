"""Threads for jobs; where none is to be had, whoever hands a job over does it.

Theory. A thread may be refused: a process may have no more of them, and while the interpreter ends
there are no new ones at all (RuntimeError, from pools as well as from threads). Work that must be
done then too, a last capture say, is done by the thread that asks for it.

A pool that is refused its next thread has queued the job before, and does it with another thread,
or with the one that it is given later: by then its descriptor may be closed, and the number that of
somebody else's file. So a job is taken out of its place by the one who does it, and can be done
once at most.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, Self, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Pool:
    """Up to some threads, which are begun as jobs come; a context, whose end waits for the jobs.

    Args:
        threads: At most.
        name: Of the threads, before their number.

    Threads: safe.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(threads, name)
        self._is_refused = False

    def begin(self, act: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R] | None:
        """Have a job done by a thread; None where there is none: it is not done then, nor later."""
        job = _Job(act, args, kwargs)
        if self._hand_over(job):
            return job.future
        # It may have been taken nevertheless, by a thread that was there.
        return None if job.take() else job.future

    def submit(self, act: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Have a job done by a thread, or else do it now."""
        job = _Job(act, args, kwargs)
        if not self._hand_over(job):
            job()
        return job.future

    def _hand_over(self, job: _Job) -> bool:
        if self._is_refused:
            return False
        try:
            self._executor.submit(job)
        except RuntimeError:
            # Not asked again: each time one more husk would stay in the queue.
            self._is_refused = True
        return not self._is_refused

    def close(self, *, cancel: bool = False, wait: bool = True) -> None:
        """Wait for the jobs, and end the threads. Twice is fine.

        Args:
            cancel: Leave out what was not begun; nobody may wait for any of it.
            wait: Else the threads end when the jobs are done.
        """
        self._executor.shutdown(wait=wait, cancel_futures=cancel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Job:
    """Something to be done once: by whoever takes it out first."""

    __slots__ = ("_acts", "future")

    def __init__(self, act: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self.future: Future[Any] = Future()
        self._acts = [(act, args, kwargs)]

    def take(self) -> list[tuple[Callable[..., Any], Any, Any]]:
        """Return what is to be done; nothing where somebody has taken it."""
        try:
            return [self._acts.pop()]
        except IndexError:
            return []

    def __call__(self) -> None:
        for act, args, kwargs in self.take():
            try:
                result = act(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - it is raised where the job is asked for
                self.future.set_exception(error)
            else:
                self.future.set_result(result)
