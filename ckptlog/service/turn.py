"""The turn: one thing at a time is done to a system, and whoever stops it waits for that.

operation --one lock--> the block       halted, alone --the same lock--> nothing else begins

Theory. Whoever is called out of an operation (a component, a callback), and asks for another one,
would wait for himself. The thread says nothing of that: components are called in threads of their
own, callbacks in those of the components. So an operation is noted in the context (contextvars),
and each thread that is begun for it is given a copy; coroutines get it from asyncio.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from ckptlog.errors import ServiceBusyError
from ckptlog.service import operation
from ckptlog.service.operation import Operation, moment
from ckptlog.storage.environment import Environment
from ckptlog.storage.mutex import Mutex

# How long one operation is waited for by another; deadlines end it long before.
BUSY_S: Final = 660.0
# So often it is looked whether what keeps us waiting is a recovery still.
_LOOK_S: Final = 0.5
# In the context of the error that refuses an operation out of another one.
NESTED: Final = "nested"
_logger = logging.getLogger("ckptlog.service")
# Operations, of whatever services, that this is called out of; those that are over too.
_callers: ContextVar[tuple[Operation, ...]] = ContextVar("callers", default=())


class Turn:
    """Gives operations on one system their turn.

    Attributes:
        is_ending: Set: recoveries put back what they have touched, because the service stops.

    Threads: safe; operations wait for each other.
    """

    def __init__(self, system: str, environment: Environment) -> None:
        self._system = system
        self._environment = environment
        self._current: Operation | None = None
        self._begun_s = 0.0
        self._mutex = Mutex()
        self._halter: threading.Thread | None = None
        self.is_ending = threading.Event()

    @contextmanager
    def operation(self, kind: str, reason: str, *, component: str = "") -> Iterator[Operation]:
        """Do one thing, alone: what fails is told, and raised.

        Raises:
            ServiceBusyError: It is called out of another one, which it would wait for; or that took
                too long.
            CheckpointError: As the block.
        """
        with self._turn():
            self._begun_s = self._environment.monotonic_s()
            one = Operation(kind, reason, moment(self._environment.now_us()), component=component)
            self._current = one
            try:
                with self.calling(one):
                    yield one
                one.status = operation.COMPLETED
            except BaseException as error:
                one.fail(operation.known(error))
                raise
            finally:
                self._current = None  # first: a second Ctrl-C may end what comes behind
                one.seconds = self._environment.monotonic_s() - self._begun_s

    @contextmanager
    def calling(self, one: Operation) -> Iterator[None]:
        """Note that what is called in the block is called out of an operation."""
        before = _callers.set((*_callers.get(), one))
        try:
            yield
        finally:
            _callers.reset(before)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Be the one who works; whoever has halted all others is that already."""
        self.refuse_own()
        if self._halter is threading.current_thread():
            yield
            return
        self._refuse_again()
        with self._mutex.held(BUSY_S) as is_ours:
            if not is_ours:
                raise self._busy()
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait for what is at work, and let nothing begin but what this thread does itself.

        Raises:
            ServiceBusyError: As `operation`.
        """
        with self._turn():
            self._halter = threading.current_thread()
            try:
                yield
            finally:
                self._halter = None

    @contextmanager
    def halted(self, wait_s: float) -> Iterator[bool]:
        """Wait for what is at work, and let nothing begin but what this thread does itself.

        A recovery that takes longer is cancelled; its rollback is waited for however long it
        takes (each of its calls has a deadline), because in its middle the system is a mixture.

        Args:
            wait_s: Seconds to wait for what is at work.

        Returns:
            Whether nothing is at work; a capture may be, after twice that time.
        """
        me = threading.current_thread()
        if self._halter is me:
            yield True
            return
        self._refuse_again()
        with self._mutex.held(wait_s) as is_had:
            try:
                is_ours = is_had or self._end_work(wait_s)
                if is_ours:  # otherwise whoever is at work may have halted the others himself
                    self._halter = me
                yield is_ours
            finally:
                if self._halter is me:
                    self._halter = None
                self.is_ending.clear()

    def refuse_own(self) -> None:
        """Refuse to wait for what this is called out of: by a component, or a callback.

        Raises:
            ServiceBusyError: It is.
        """
        one = self.current
        if one is not None and any(caller is one for caller in _callers.get()):
            raise self._nested(one)

    def _refuse_again(self) -> None:
        """Refuse the thread that is at work itself, in whatever context it calls."""
        one = self.current
        if one is not None and self._mutex.is_mine:
            raise self._nested(one)

    def _nested(self, one: Operation) -> ServiceBusyError:
        return ServiceBusyError(
            f"{self._system!r}: a {one.kind} ({one.reason}) is at work, and this is called out of "
            "it (by a component, or on_progress); it would wait for itself.",
            hint="Let it end first (a recovery: cancel=), or call from a thread of your own.",
            component=one.component,
            reason=NESTED,
        )

    def _end_work(self, wait_s: float) -> bool:
        """End what is at work; say whether that is over."""
        self.is_ending.set()
        if self._is_recovering():
            _logger.warning("The service stops when the recovery at work has been put back.")
        end_s = time.monotonic() + wait_s
        while not self._mutex.take(_LOOK_S):
            if not self._is_recovering() and time.monotonic() >= end_s:
                return False
        return True

    def _is_recovering(self) -> bool:
        one = self._current
        return one is not None and one.kind == operation.RECOVERY

    @property
    def current(self) -> Operation | None:
        """What is done right now; None where nothing is. Its seconds are those until now."""
        one = self._current
        if one is not None and one.status == operation.RUNNING:
            one.seconds = self._environment.monotonic_s() - self._begun_s
        return one

    def _busy(self) -> ServiceBusyError:
        one = self.current
        what = "another operation" if one is None else f"a {one.kind} ({one.reason})"
        return ServiceBusyError(
            f"{self._system!r}: {what} is at work still, after {BUSY_S:g} s of waiting.",
            hint="current_operation says what it does; try again when it is over.",
            component="" if one is None else one.component,
        )
