"""Group commit: threads queue jobs, one of them leads a round for all that wait.

    thread A: queue -> lead -> [A] decided, written, synced -> wake B, hand over the lead
    thread B: queue ----------------------------------------> lead -> [B, C, D] in one sync

While a round syncs, others queue; the next round takes them all. The lead passes to the first
that waits, so no thread serves the others for ever, and no thread of our own is needed.

Invariants, under the mutex: while any job is queued there is a leader, and it is queued itself or
runs a round; a queued job's gate opens when the job is settled or its thread becomes the leader.
A thread that finds nobody at work leads at once, without queue or gate. An
interrupt can end any thread at any point: whoever leaves settles what it took and names the next
leader (`_leave`), so that nobody waits for a thread that is gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from threading import Condition, Lock
from time import monotonic
from typing import Generic, TypeVar

from ckptlog.errors import BusyError, CheckpointError, OutcomeUnknownError

Work = TypeVar("Work")

# Each job brings at most about 1 MiB (more goes to packs first), so this bounds the bytes of one
# round, and with them the time for which others wait.
ROUND_JOBS_MAX = 64


class Job(Generic[Work]):
    """One thread's work and what became of it: a result, never None, or an error.

    error holds what the thread that queued the job shall raise.
    """

    __slots__ = ("deadline_s", "error", "gate", "result", "work")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.result: object = None
        self.error: BaseException | None = None
        # Held until the job is settled, or until its thread shall lead; None while nobody waits.
        self.gate: Lock | None = None
        self.deadline_s = 0.0

    def wait(self) -> None:
        """Make a gate and close it: from now on somebody has to `wake`."""
        self.gate = Lock()
        self.gate.acquire()

    def left_s(self) -> float:
        """Return how long it may still wait for its turn, seconds."""
        return max(0.0, self.deadline_s - monotonic())

    def wake(self) -> None:
        """Open the gate; a second time does nothing."""
        if self.gate is not None:
            with suppress(RuntimeError):
                self.gate.release()


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
        self._leader: Job[Work] | None = None
        # What the leader has taken from the queue and not settled yet.
        self._round: list[Job[Work]] = []
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
        try:
            self._enter(job)
            if job.gate is not None and not job.gate.acquire(timeout=job.left_s()):
                self._give_up(job)
            if self._leader is job:
                self._lead(job)
        except BaseException as error:
            self._leave(job, error)
            raise
        if job.error is not None:
            raise job.error
        return job.result

    def _enter(self, job: Job[Work]) -> None:
        with self._mutex:
            if self._leader is None:
                # Nobody is at work, so nobody is queued: this thread leads a round of its own.
                self._leader = job
                self._round = [job]
                return
            job.deadline_s = monotonic() + self._timeout_s
            if len(self._queue) >= self._queue_max:
                self._wait_for_room(job)
            job.wait()
            self._queue.append(job)
            # Somebody may have stopped leading while this thread waited for room.
            if self._leader is None:
                self._leader = job  # type: ignore[unreachable]
                job.wake()

    def _wait_for_room(self, job: Job[Work]) -> None:
        self._waiting += 1
        try:
            has_room = self._room.wait_for(lambda: len(self._queue) < self._queue_max, job.left_s())
        finally:
            self._waiting -= 1
        if not has_room:
            raise self._busy()

    def _give_up(self, job: Job[Work]) -> None:
        """Take a job out of the queue whose time is over; one that was taken is waited for."""
        with self._mutex:
            if job in self._queue and self._leader is not job:
                error = self._busy()
                self._queue.remove(job)
                self._room.notify_all()
                raise error
        if job.gate is not None:
            job.gate.acquire()

    def _busy(self) -> BusyError:
        return BusyError(
            f"{self._queue_max} operations at most wait for a commit; the turn of this one did not "
            f"come for {self._timeout_s:g} s.",
            hint="Call again later, or raise max_concurrent_operations.",
            waiting=len(self._queue),
        )

    def _lead(self, own: Job[Work]) -> None:
        if not self._round:
            self._take()
        try:
            self._run(self._round)
        except BaseException as error:  # noqa: BLE001 - every waiting thread must hear of it
            self._fail(own, error)
        with self._mutex:
            self._hand_over()

    def _take(self) -> None:
        with self._mutex:
            queue = self._queue
            if len(queue) <= ROUND_JOBS_MAX:
                self._round = list(queue)
                queue.clear()
            else:
                self._round = [queue.popleft() for _ in range(ROUND_JOBS_MAX)]
            if self._waiting:
                self._room.notify_all()

    def _fail(self, own: Job[Work], error: BaseException) -> None:
        for job in self._round:
            if job.result is None and job.error is None:
                job.error = error if job is own else _interrupted(error)

    def _hand_over(self) -> None:
        """Wake all of the settled round, then name and wake the next leader. Under the mutex.

        In an order in which it can be interrupted and begun again.
        """
        for job in self._round:
            job.wake()
        self._round = []
        self._leader = self._queue[0] if self._queue else None
        if self._leader is not None:
            self._leader.wake()

    def _leave(self, job: Job[Work], error: BaseException) -> None:
        """Take a job out whose thread stops waiting or leading, wherever it stands."""
        with self._mutex:
            taken = {job, *self._round}
            self._queue = deque(one for one in self._queue if one not in taken)
            self._room.notify_all()
            if self._leader is job:
                self._fail(job, error)
                self._hand_over()
            elif self._leader is not None:
                self._leader.wake()  # named by us, perhaps, and not woken any more


def _interrupted(cause: BaseException) -> CheckpointError:
    if isinstance(cause, CheckpointError):
        return cause
    error = OutcomeUnknownError(
        f"The thread that was committing for others stopped: {cause!r}.",
        hint="Retry with the same command id; it is never applied twice.",
    )
    error.__cause__ = cause
    return error
