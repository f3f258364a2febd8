"""The cut: all components of a system at one moment (specs/capture.md, sections 2 and 3).

    look ahead -> prepare, one after the other -> capture, several at once -> commit, all at once
    -> write

Nothing is captured before all are prepared, and nobody goes on before all are captured: that is
the whole of it, and it holds whatever a component does, because every step waits for the answers
of the one before. A component that fails, or is not done in time, ends the cut with its name;
then all that were prepared are told to go on as if nothing had been asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from queue import Empty, SimpleQueue
from time import monotonic
from types import TracebackType
from typing import Any, Self

from ckptlog.capture.held import Held, fork_for
from ckptlog.capture.worker import (
    ABORT,
    CAPTURE,
    COMMIT,
    LOOK_AHEAD,
    PREPARE,
    WRITE,
    Answer,
    Part,
    Worker,
)
from ckptlog.errors import (
    CaptureFailedError,
    CaptureTooLargeError,
    ChangedError,
    CheckpointError,
    CheckpointStorageError,
    QuotaError,
    UnstorableError,
)
from ckptlog.model.component import Traits

# What is waited for components that are told to go on after the deadline has passed.
_GRACE_S = 0.25

Hold = Callable[[Any, Traits], Held]
Write = Callable[[Held], Any]


class Cut:
    """One cut through a system; a context, whose end lets go of everything.

    Args:
        parts: Components, each behind those that it depends on.
        hold: Takes hold of what capture() returned, inside the barrier.
        batch_size: Components that are captured, or written, at once.
        deadline_s: For prepare and capture together, and for commit.

    Attributes:
        stopped_s: How long the system was held.
        left: Workers that did not come back.

    Threads: one; each component is called from a thread of its own, where threads are to be had.
    """

    def __init__(
        self, parts: Sequence[Part], hold: Hold, *, batch_size: int, deadline_s: float
    ) -> None:
        self._answers: SimpleQueue[Answer] = SimpleQueue()
        self._hold = hold
        self._batch_size = batch_size
        self._deadline_s = deadline_s
        self._busy: set[Worker] = set()
        self._workers = [Worker(part, self._answers) for part in parts]
        self._is_late = False
        self.stopped_s = 0.0
        self.left: list[Worker] = []

    def __enter__(self) -> Self:
        try:
            for worker in self._workers:
                worker.begin()
        except BaseException:  # an interruption: one of them may have begun all the same
            for worker in self._workers:
                worker.end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            worker.end()
        # What is not late closes what it holds, in its time.
        until = monotonic() + (_GRACE_S if self._is_late else self._deadline_s)
        for worker in self._workers:
            worker.join(until - monotonic())
        self.left = [worker for worker in self._workers if worker.is_at_work]

    def look_ahead(self, *, deadline_s: float) -> None:
        """Let components do beforehand what they can, several at once; nobody is held yet.

        Raises:
            CaptureFailedError: As `take`.
        """
        able = [worker for worker in self._workers if worker.has(LOOK_AHEAD)]
        self._do(able, LOOK_AHEAD, Worker.look_ahead, monotonic() + deadline_s)

    def take(self, *, write: Write | None = None) -> None:
        """Go through the barrier.

        Args:
            write: What would otherwise be done after it, by `write`; inside, nothing can change
                between reading and comparing.

        Raises:
            CaptureFailedError: A component failed or was too slow; all go on.
            ChangedError: write() has seen a change all the same.
        """
        begin = monotonic()
        until = begin + self._deadline_s
        try:
            for worker in self._workers:
                if worker.has(PREPARE):
                    self._do([worker], PREPARE, Worker.prepare, until)
                else:
                    worker.prepare()
            self._do(self._workers, CAPTURE, self._capture, until)
            self._fork()
            if write is not None:
                self._do(self._workers, WRITE, _writing(write), until)
        except BaseException:
            self._abort(until)
            raise
        self._commit()
        self.stopped_s = monotonic() - begin

    def write(self, write: Write, *, deadline_s: float) -> None:
        """Write what was captured, several components at once; results are found in `results`.

        Raises:
            CaptureFailedError, ChangedError: As `take`.
        """
        until = monotonic() + deadline_s
        self._do(self._workers, WRITE, _writing(write), until)

    @property
    def results(self) -> list[tuple[Traits, Held, Any, float]]:
        """What was written: component, what was held, write's answer, seconds; in order."""
        return [
            (worker.traits, worker.held, worker.result, worker.seconds)
            for worker in self._workers
            if worker.held is not None
        ]

    # --- steps --------------------------------------------------------------------------------

    def _capture(self, worker: Worker) -> None:
        worker.capture(self._hold)

    def _fork(self) -> None:
        helds = [worker.held for worker in self._workers if worker.held is not None]
        try:
            fork_for(helds)
        except (CaptureFailedError, UnstorableError) as error:
            name = next(held.name for held in helds if held.needs_fork)
            raise _failed(name, CAPTURE, error) from error

    def _do(
        self, workers: Iterable[Worker], step: str, job: Callable[[Worker], Any], until: float
    ) -> None:
        """Have a step done by workers, `batch_size` at once; the first failure ends it."""
        waiting = list(reversed(list(workers)))
        while waiting or self._busy:
            while waiting and len(self._busy) < self._batch_size:
                self._ask(waiting.pop(), step, job)
            answer = self._next(until)
            if answer is None:
                raise self._late(step)
            if answer.error is not None:
                raise _failed(answer.worker.name, step, answer.error) from answer.error

    def _commit(self) -> None:
        """Let all go on; whatever one does, the others are told."""
        until = monotonic() + self._deadline_s
        for worker in self._workers:
            if worker.has(COMMIT):
                self._ask(worker, COMMIT, Worker.commit)
            else:
                worker.commit()
        failure: Answer | None = None
        while self._busy:
            answer = self._next(until)
            if answer is None:
                raise self._late(COMMIT)
            if answer.error is not None and failure is None:
                failure = answer
        if failure is not None and failure.error is not None:
            raise _failed(failure.worker.name, COMMIT, failure.error) from failure.error

    def _abort(self, until: float) -> None:
        """Tell all that were prepared to go on; those at work are told when they come back."""
        for worker in self._workers:
            # Behind what it may be doing: its answer to that is of no interest any more.
            worker.ask(ABORT, _bound(worker, Worker.abort))
        # Only these are counted: an interruption may have swallowed an earlier answer.
        left = set(self._workers)
        until = max(until, monotonic() + _GRACE_S)
        while left:
            try:
                answer = self._answers.get(timeout=max(until - monotonic(), 0))
            except Empty:
                break
            if answer.step == ABORT:
                left.discard(answer.worker)
        self._busy.clear()

    def _ask(self, worker: Worker, step: str, job: Callable[[Worker], Any]) -> None:
        self._busy.add(worker)
        worker.ask(step, _bound(worker, job))

    def _next(self, until: float) -> Answer | None:
        """Return the next answer, or None where it is too late."""
        try:
            answer = self._answers.get(timeout=max(until - monotonic(), 0))
        except Empty:
            return None
        self._busy.discard(answer.worker)
        return answer

    def _late(self, step: str) -> CaptureFailedError:
        self._is_late = True
        # The order of the components: the same failure has the same name each time.
        name = next(worker.name for worker in self._workers if worker in self._busy)
        return CaptureFailedError(
            f"Component {name!r} was not done with {step}() in time; the system was not captured.",
            hint="Make it faster, or raise the deadline (deadline_s, write_deadline_s; "
            "deadlineSeconds of a service).",
            component=name,
            step=step,
            reason="deadline",
        )


def _bound(worker: Worker, job: Callable[[Worker], Any]) -> Callable[[], Any]:
    return lambda: job(worker)


def _writing(write: Write) -> Callable[[Worker], Any]:
    # A step is only begun where all that came before it was done, so there is something held.
    return lambda worker: write(worker.held)  # type: ignore[arg-type]


def _failed(name: str, step: str, error: BaseException) -> CheckpointError:
    """Return a component's failure as ours, with its name."""
    if isinstance(error, ChangedError):
        return ChangedError(
            f"Component {name!r}: {error.message}",
            hint=error.hint,
            **{**error.context, "component": name, "step": step, "reason": "changed"},
        )
    if isinstance(error, CaptureTooLargeError | QuotaError):
        return error  # nothing of the component failed
    reason = "unstorable" if isinstance(error, UnstorableError) else "failed"
    if isinstance(error, CheckpointStorageError) and step == WRITE:
        return error  # the store's own: the disk is full, say
    return CaptureFailedError(
        f"Component {name!r} failed in {step}(), and the system was not captured: "
        f"{type(error).__name__}: {said(error).rstrip('.')}.",
        hint=error.hint if isinstance(error, CheckpointError) else "Mend the component.",
        component=name,
        step=step,
        reason=reason,
        error=type(error).__name__,
    )


def said(error: BaseException) -> str:
    """Return an exception's message, short, whatever it does; a hint is told beside it."""
    if isinstance(error, CheckpointError):
        return error.message[:1_000]
    try:
        return str(error)[:1_000].encode(errors="replace").decode()
    except Exception as trouble:  # noqa: BLE001 - a stranger's __str__ may do anything
        return f"(its message cannot be read: {type(trouble).__name__})"
