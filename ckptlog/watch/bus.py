"""The event bus: callbacks by type, in this process.

Any object with `publish` can stand in its place (`EventBus`): a message queue, a web socket. The
one here calls back at once, in the thread of whoever publishes, and never under a lock of ours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Lock
from typing import Any, Protocol, runtime_checkable

from ckptlog.errors import ArgumentError
from ckptlog.model.callback import refuse_deferred
from ckptlog.storage.fork import free_in_child

ANY_TYPE = "*"
CALLBACK_FAILED = "callback.failed"
Callback = Callable[[Any], object]
_logger = logging.getLogger("ckptlog.events")


@runtime_checkable
class EventBus(Protocol):
    """Where events are published."""

    def publish(self, event_type: str, event: Any) -> None:
        """Tell whoever asked for this type."""


class InProcessEventBus:
    """Calls functions of this process.

    Threads: safe. Callbacks run in the publisher's thread, in the order in which they were added.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        free_in_child(self, "_lock")
        self._callbacks: tuple[tuple[str, Callback], ...] = ()

    def subscribe(self, event_type: str, callback: Callback) -> Callable[[], None]:
        """Call a function for each event of a type, `"*"` for all; return what ends that.

        Raises:
            ArgumentError: It is no type, or no function.
        """
        if type(event_type) is not str or event_type.strip() != event_type or not event_type:
            raise ArgumentError(f"{event_type!r} is no type of event.", argument="event_type")
        if not callable(callback):
            raise ArgumentError(f"{callback!r} cannot be called.", argument="callback")
        refuse_deferred("callback", callback)
        pair = (event_type, callback)
        with self._lock:
            self._callbacks = (*self._callbacks, pair)

        def end() -> None:
            with self._lock:
                self._callbacks = tuple(one for one in self._callbacks if one is not pair)

        return end

    def publish(self, event_type: str, event: Any) -> None:
        """Call back whoever asked; what a callback raises is logged, and stops nobody."""
        for wanted, callback in self._callbacks:
            if wanted in (event_type, ANY_TYPE):
                call(callback, event_type, event)


def call(callback: Callback, event_type: str, event: Any) -> None:
    """Call a callback; log what it raises, with its code."""
    try:
        callback(event)
    except (Exception, SystemExit) as error:
        code = getattr(error, "code", CALLBACK_FAILED)
        _logger.exception(
            "A callback for %s failed [%s]",
            event_type,
            code,
        )
