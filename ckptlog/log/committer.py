"""Group commit: threads queue jobs, one of them leads a round for all that wait.

    thread A: queue -> lead -> [A] decided, written, synced -> wake B, hand over the lead
    thread B: queue ----------------------------------------> lead -> [B, C, D] in one sync

While a round syncs, others queue; the next round takes them all. The lead passes to the first
that waits, so no thread serves the others for ever, and no thread of our own is needed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Condition, Lock
from typing import Generic, TypeVar

from ckptlog.errors import BusyError, CheckpointError, OutcomeUnknownError

Work = TypeVar("Work")

# Bounds the bytes of one round, and with them the time for which others wait.
ROUND_JOBS_MAX = 256


class Job(Generic[Work]):
    """One thread's work and what became of it: a result or an error.

    error holds what the thread that queued the job shall raise.
    """

    __slots__ = ("error", "gate", "is_done", "result", "work")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.result: object = None
        self.error: BaseException | None = None
        self.is_done = False
        # Held until the job is settled, or until its thread shall lead.
        self.gate = Lock()
        self.gate.acquire()


class Committer(Generic[Work]):
    """The queue and its leader.

    Args:
        run: Settles every job of a round: sets result or error. Called by one thread at a time.
        queue_max: Jobs that may wait; more callers than that wait for a place (back-pressure).

    Threads: safe; that is its purpose.
    """

    def __init__(
        self,
        run: Callable[[list[Job[Work]]], None],
        *,
        queue_max: int,
        timeout_s: float,
    ) -> None:
        self._run = run
        self._queue_max = queue_max
        self._timeout_s = timeout_s
        self._queue: deque[Job[Work]] = deque()
        self._is_led = False
        self._mutex = Lock()
        self._room = Condition(self._mutex)
        self._waiting = 0

    def submit(self, work: Work) -> object:
        """Queue work, wait until a round has settled it, return its result.

        Raises:
            BusyError: No place became free in the queue in time; nothing was done.
            Exception: Whatever the round set as the job's error.
        """
        job = Job(work)
        with self._mutex:
            if len(self._queue) >= self._queue_max:
                self._wait_for_room()
            self._queue.append(job)
            leads = not self._is_led
            self._is_led = True
        if not leads:
            self._wait(job)
        if not job.is_done:
            self._lead(job)
        if job.error is not None:
            raise job.error
        return job.result

    def _wait(self, job: Job[Work]) -> None:
        try:
            job.gate.acquire()
        except BaseException:
            # An interrupt in the main thread: a job that nobody took yet must not stay behind,
            # or it could be chosen to lead with no thread to do so.
            self._withdraw(job)
            raise

    def _withdraw(self, job: Job[Work]) -> None:
        with self._mutex:
            if job not in self._queue:
                return
            self._queue.remove(job)
            was_chosen = not job.gate.locked()
        if was_chosen:
            self._hand_over()

    def _wait_for_room(self) -> None:
        self._waiting += 1
        try:
            has_room = self._room.wait_for(
                lambda: len(self._queue) < self._queue_max, self._timeout_s
            )
        finally:
            self._waiting -= 1
        if not has_room:
            raise BusyError(
                f"{self._queue_max} operations waited for a commit for {self._timeout_s:g} s.",
                hint="Call again later, or raise max_concurrent_operations.",
                waiting=self._queue_max,
            )

    def _lead(self, own: Job[Work]) -> None:
        jobs = self._take()
        try:
            self._run(jobs)
        except BaseException as error:  # noqa: BLE001 - every waiting thread must hear of it
            for job in jobs:
                if job.result is None and job.error is None:
                    job.error = error if job is own else _interrupted(error)
        finally:
            for job in jobs:
                job.is_done = True
            self._hand_over()
            for job in jobs:
                if job is not own:
                    job.gate.release()

    def _take(self) -> list[Job[Work]]:
        with self._mutex:
            queue = self._queue
            if len(queue) <= ROUND_JOBS_MAX:
                jobs = list(queue)
                queue.clear()
            else:
                jobs = [queue.popleft() for _ in range(ROUND_JOBS_MAX)]
            if self._waiting:
                self._room.notify_all()
            return jobs

    def _hand_over(self) -> None:
        with self._mutex:
            if not self._queue:
                self._is_led = False
                return
            heir = self._queue[0]
        heir.gate.release()


def _interrupted(cause: BaseException) -> CheckpointError:
    if isinstance(cause, CheckpointError):
        return cause
    error = OutcomeUnknownError(
        f"The thread that was committing for others stopped: {cause!r}.",
        hint="Retry with the same command id; it is never applied twice.",
    )
    error.__cause__ = cause
    return error
