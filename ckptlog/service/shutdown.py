"""Signals and the interpreter's end, as messages to services.

A handler of Python's runs in the main thread, between any two of its steps: it may hold any lock
there. So a handler here takes none and waits for nothing: it puts a word into queues (SimpleQueue,
which may be interrupted in itself) and returns. SIGTERM: the services capture and stop in their own
threads while the main one goes on; the last of them sends SIGTERM once more, and then the handler
that was there before is set again and gets it. A second SIGTERM from outside does not wait.

Handlers are set by the first service that starts in the main thread, and only where they are ours
to set: a signal that is ignored stays so, and for capturing only a signal that nobody handles is
taken.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
import weakref
from types import FrameType
from typing import Any, Final, Protocol

TERMINATE: Final = "SIGTERM"
_logger = logging.getLogger("ckptlog.service")


class Listening(Protocol):
    """A service that wants to know."""

    def signalled(self, name: str) -> None:
        """Take in a signal; called in a handler: no lock, no waiting."""

    def close(self) -> None:
        """Capture and stop; the interpreter ends."""


class _Post:
    """The handlers of this process."""

    def __init__(self) -> None:
        # Replaced, never changed: a handler reads them while the main thread is about to.
        self.services: dict[str, tuple[weakref.ref[Any], ...]] = {}
        self.before: dict[int, Any] = {}
        self.is_terminating = False
        self.pid = os.getpid()

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Pass a signal on."""
        name = signal.Signals(number).name
        listening = [one for ref in self.services.get(name, ()) if (one := ref()) is not None]
        is_parent = os.getpid() == self.pid
        if number == signal.SIGTERM and (self.is_terminating or not listening or not is_parent):
            self._give_back(number)
            os.kill(os.getpid(), number)
            return
        if number == signal.SIGTERM:
            self.is_terminating = True
        for one in listening if is_parent else ():
            one.signalled(name)

    def _give_back(self, number: int) -> None:
        signal.signal(number, self.before.pop(number, signal.SIG_DFL) or signal.SIG_DFL)
        self.is_terminating = False


_post = _Post()
_ends: weakref.WeakSet[Any] = weakref.WeakSet()


def listen(service: Listening, names: tuple[str, ...]) -> tuple[str, ...]:
    """Let a service know of signals; return those that will be passed on.

    Nothing outside of the main thread: Python sets handlers there only.
    """
    if threading.current_thread() is not threading.main_thread():
        if names:
            _logger.info("Signals are not handled: start() was not called in the main thread.")
        return ()
    if _post.pid != os.getpid():  # a forked child: the parent's services are not here
        _post.pid, _post.services, _post.is_terminating = os.getpid(), {}, False
    set_now = []
    for name in names:
        number = signal.Signals[name]
        if number not in _post.before and not _take(number):
            continue
        others = tuple(
            ref for ref in _post.services.get(name, ()) if ref() not in (None, service)
        )  # one that is started twice is told once
        _post.services = {**_post.services, name: (*others, weakref.ref(service))}
        set_now.append(name)
    return tuple(set_now)


def _take(number: signal.Signals) -> bool:
    before = signal.getsignal(number)
    is_ours = before is not signal.SIG_IGN and before is not None
    if number != signal.SIGTERM:
        is_ours = before is signal.SIG_DFL
    if not is_ours:
        _logger.info("%s is not handled: it has a handler, or is ignored.", number.name)
        return False
    _post.before[number] = before
    signal.signal(number, _post.handle)
    return True


def leave(service: Listening) -> None:
    """Pass nothing on to a service any more; give handlers back where this is the main thread."""
    if _post.pid != os.getpid():
        return
    kept = {
        name: tuple(ref for ref in refs if ref() not in (None, service))
        for name, refs in _post.services.items()
    }
    _post.services = {name: refs for name, refs in kept.items() if refs}
    if threading.current_thread() is not threading.main_thread():
        return
    for number in list(_post.before):
        if signal.Signals(number).name not in _post.services and not _post.is_terminating:
            before = _post.before.pop(number)
            if signal.getsignal(number) == _post.handle:
                signal.signal(number, before)


def terminated() -> None:
    """Tell that a service has stopped; behind SIGTERM the last one ends the process."""
    if _post.is_terminating and TERMINATE not in _post.services:
        os.kill(os.getpid(), signal.SIGTERM)


def at_exit(service: Listening) -> None:
    """Close a service when the interpreter ends, in this process only."""
    _ends.add(service)


def forget(service: Listening) -> None:
    """Undo `at_exit`."""
    _ends.discard(service)


def _end() -> None:
    interrupted: BaseException | None = None
    for service in list(_ends):
        try:
            service.close()
        except Exception:
            _logger.exception("A service was not closed")
        except BaseException as error:  # noqa: BLE001 - raised again behind the others
            interrupted = error
    if interrupted is not None:
        raise interrupted


atexit.register(_end)
