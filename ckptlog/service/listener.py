"""Listeners: callbacks by the name of what happened, in a thread of their own.

A callback that is slow keeps back other callbacks and nothing else; one that raises is logged. What
is said is said in order. So that a callback that hangs cannot fill the memory, at most
`PENDING_MAX` things wait for it; what comes then is dropped, counted and logged.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from ckptlog.errors import ArgumentError
from ckptlog.model.callback import refuse_deferred
from ckptlog.model.quotation import quoted
from ckptlog.model.setting import camel, nearest, snake
from ckptlog.storage.fork import renewed_in_child
from ckptlog.storage.thread import is_begun
from ckptlog.watch.bus import call

CHECKPOINT_CREATED: Final = "checkpoint_created"
CHECKPOINT_SKIPPED: Final = "checkpoint_skipped"
CHECKPOINTS_DELETED: Final = "checkpoints_deleted"
RECOVERY_STARTED: Final = "recovery_started"
RECOVERY_PROGRESS: Final = "recovery_progress"
RECOVERY_COMPLETED: Final = "recovery_completed"
RECOVERY_PLANNED: Final = "recovery_planned"
RECOVERY_ROLLED_BACK: Final = "recovery_rolled_back"
RECOVERY_ABANDONED: Final = "recovery_abandoned"
RECOVERY_FAILED: Final = "recovery_failed"
OPERATION_FAILED: Final = "operation_failed"
INTERVAL_CHANGED: Final = "interval_changed"
ALERT_RAISED: Final = "alert_raised"
ALERT_CLEARED: Final = "alert_cleared"
SERVICE_STARTED: Final = "service_started"
SERVICE_STOPPED: Final = "service_stopped"
SERVICE_PAUSED: Final = "service_paused"
SERVICE_RESUMED: Final = "service_resumed"
OWNERSHIP_LOST: Final = "ownership_lost"
OWNERSHIP_GAINED: Final = "ownership_gained"
EVENTS: Final = (
    CHECKPOINT_CREATED, CHECKPOINT_SKIPPED, CHECKPOINTS_DELETED,
    RECOVERY_STARTED, RECOVERY_PROGRESS, RECOVERY_COMPLETED, RECOVERY_PLANNED,
    RECOVERY_ROLLED_BACK, RECOVERY_ABANDONED, RECOVERY_FAILED,
    OPERATION_FAILED, INTERVAL_CHANGED, ALERT_RAISED, ALERT_CLEARED,
    SERVICE_STARTED, SERVICE_STOPPED, SERVICE_PAUSED, SERVICE_RESUMED,
    OWNERSHIP_LOST, OWNERSHIP_GAINED,
)  # fmt: skip
ANY: Final = "*"
PENDING_MAX: Final = 10_000

Callback = Callable[[Any], object]
_logger = logging.getLogger("ckptlog.service")


class Listeners:
    """Callbacks of one service.

    Threads: safe. The thread is started with the first callback; a forked child starts its own.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._callbacks: tuple[tuple[str, Callback], ...] = ()
        self.renew_in_child()
        renewed_in_child(self)

    def renew_in_child(self) -> None:
        """Have no thread, and nothing to tell: in a forked child both are the parent's."""
        self._wake = threading.Condition()
        self._pending: deque[tuple[str, Any]] = deque()
        self._thread: threading.Thread | None = None
        self._is_calling = False
        self._is_ending = False

    def on(self, event: str, callback: Callback) -> Callable[[], None]:
        """Call a function for each event of a name, in either spelling; return what ends that.

        Raises:
            ArgumentError: There is no such event, or nothing to call; or its call does nothing (a
                coroutine function, a generator function).
        """
        name = _checked(event)
        if not callable(callback):
            raise ArgumentError(f"{quoted(callback)} cannot be called.", argument="callback")
        refuse_deferred("callback", callback)
        pair = (name, callback)
        with self._wake:
            self._callbacks = (*self._callbacks, pair)
        self.start()

        def end() -> None:
            with self._wake:
                self._callbacks = tuple(one for one in self._callbacks if one is not pair)

        return end

    def start(self) -> None:
        """Have the thread at hand where there are callbacks: later there may be none to be had."""
        with self._wake:
            if self._callbacks:
                self._start()

    def tell(self, event: str, what: Any) -> None:
        """Let the callbacks of an event be called soon; never blocks, never raises."""
        if not any(name in (event, ANY) for name, _ in self._callbacks):
            return
        with self._wake:
            if len(self._pending) >= PENDING_MAX:
                self.dropped += 1
                if self.dropped == 1:
                    _logger.warning("Callbacks are too slow: events are dropped (%s).", event)
                return
            self._pending.append((event, what))
            self._start()
            self._wake.notify_all()

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._is_ending = False
            thread = threading.Thread(target=self._run, name="ckptlog-callbacks", daemon=True)
            # Where none is to be had, `end` tells what is pending.
            self._thread = thread if is_begun(thread) else None

    def end(self, wait_s: float) -> bool:
        """Let what is pending be told and the thread end; False where callbacks take longer."""
        with self._wake:
            self._is_ending = True
            self._wake.notify_all()
            thread = self._thread
        if thread is None:
            self._run()  # of what is pending still, no thread was to be had
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(wait_s)
        return not thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._pending and not self._is_ending:
                    self._wake.wait()
                if not self._pending:
                    self._thread = None
                    return
                event, what = self._pending.popleft()
                callbacks = self._callbacks
            for name, callback in callbacks:
                if name in (event, ANY):
                    call(callback, camel(event), what)


def _checked(event: object) -> str:
    name = snake(event) if type(event) is str else ""
    if name in EVENTS or event == ANY:
        return name
    meant = nearest(name, EVENTS)
    spelled = str if "_" in str(event) else camel  # as whoever asked spells them
    raise ArgumentError(
        f"There is no event {quoted(event)}.",
        hint=(f"Did you mean {spelled(meant)!r}? " if meant else "")
        + f"Events are: {', '.join(map(spelled, EVENTS))}.",
        argument="event",
    )
