"""The worker: the one thread from which a cut calls one component.

A component may take a lock in prepare() and give it back in commit(), also one that belongs to
its thread. What it does may fail, or never end: a worker takes one job at a time, answers on a
queue that the cut waits on, and is left behind if it does not come back. Whatever was queued for
it (abort, close) it still does then, by itself.

Invariants:
- A component that was prepared is committed or aborted, once, by its own thread.
- A snapshot that was captured is closed, once, by its own thread.
- What it calls has the context (contextvars) of whoever captures: a service knows its own calls.

Where no thread is to be had, as while the interpreter ends, the cut's own thread does what is asked
for, as soon as it is asked: all of the above holds, but no deadline ends what does not come back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextvars import copy_context
from queue import SimpleQueue
from time import monotonic
from typing import Any, NamedTuple

from ckptlog.capture.held import Held
from ckptlog.model.component import Component, Traits
from ckptlog.storage.thread import is_begun

LOOK_AHEAD = "look_ahead"
PREPARE = "prepare"
CAPTURE = "capture"
COMMIT = "commit"
ABORT = "abort"
WRITE = "write"

_logger = logging.getLogger("ckptlog.capture")


class Part(NamedTuple):
    """A component with what it says of itself."""

    traits: Traits
    component: Component


class Answer(NamedTuple):
    """What became of a job. error: What it raised, or None."""

    worker: Worker
    step: str
    error: BaseException | None


class Worker:
    """Calls one component, for one cut.

    Attributes:
        step: What it does, or did last.
        held: What capture() returned, once it did.
        result: Of writing.
        seconds: That its jobs took, together.
    """

    def __init__(self, part: Part, answers: SimpleQueue[Answer]) -> None:
        self.traits, self._component = part
        self.step = ""
        self.held: Held | None = None
        self.result: Any = None
        self.seconds = 0.0
        self._is_prepared = False
        self._jobs: SimpleQueue[tuple[str, Callable[[], Any]] | None] = SimpleQueue()
        self._answers = answers
        # A thread that hangs must not keep the process from ending.
        self._thread = threading.Thread(
            target=copy_context().run,
            args=(self._run,),
            name=f"ckptlog-capture-{self.traits.name}",
            daemon=True,
        )
        self._is_inline = False

    def begin(self) -> None:
        """Start the thread, where one is to be had; it lives until `end`."""
        self._is_inline = not is_begun(self._thread)

    @property
    def name(self) -> str:
        """The component's name."""
        return self.traits.name

    @property
    def is_at_work(self) -> bool:
        """Whether its thread has not ended."""
        return self._thread.is_alive()

    def ask(self, step: str, job: Callable[[], Any]) -> None:
        """Have something done, behind what was asked before."""
        if not self._is_inline:
            self._jobs.put((step, job))
        elif isinstance(error := self._do(step, job), KeyboardInterrupt):
            raise error  # it is the caller's: this is its thread

    def end(self) -> None:
        """Let go of what it holds, then of the thread, behind what was asked before."""
        if not self._is_inline:
            self._jobs.put(None)
            return
        try:
            self._let_go()
        except Exception:
            _logger.exception("Component %r: a snapshot was not closed", self.name)

    def join(self, seconds: float) -> None:
        """Wait for the thread's end, for a while."""
        if not self._is_inline:
            self._thread.join(max(seconds, 0))

    # --- jobs ---------------------------------------------------------------------------------

    def has(self, method: str) -> bool:
        """Say whether the component has an optional method."""
        return getattr(self._component, method, None) is not None

    def look_ahead(self) -> None:
        """Let the component do beforehand what it can."""
        self._call(LOOK_AHEAD)

    def prepare(self) -> None:
        """Hold the component still, if it has a way to."""
        self._call(PREPARE)
        self._is_prepared = True

    def capture(self, hold: Callable[[Any, Traits], Held]) -> None:
        """Take hold of what the component gives."""
        self.held = hold(self._component.capture(), self.traits)

    def commit(self) -> None:
        """Let the component go on, if it was held."""
        self._is_prepared = False
        self._call(COMMIT)

    def abort(self) -> None:
        """Let it go on as if nothing had been asked, if it was prepared and not committed."""
        if self._is_prepared:
            self._is_prepared = False
            self._call(ABORT)

    def _call(self, method: str) -> None:
        found = getattr(self._component, method, None)
        if found is not None:
            found()

    # --- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        while (task := self._jobs.get()) is not None:
            self._do(*task)
            del task
        self._let_go()

    def _do(self, step: str, job: Callable[[], Any]) -> BaseException | None:
        """Do a job and answer; return what it raised."""
        self.step = step
        error: BaseException | None = None
        begin = monotonic()
        try:
            answer = job()
            if step == WRITE:
                self.result = answer
        except BaseException as raised:  # noqa: BLE001 - a component may do anything
            error = raised
        self.seconds += monotonic() - begin
        self._answers.put(Answer(self, step, error))
        return error

    def _let_go(self) -> None:
        held, self.held = self.held, None
        if held is not None:
            held.close()
