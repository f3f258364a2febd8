"""Hints that the log may have grown: from this process, and from the file system.

A hint is never believed: who hears one looks at the published end. It may come too early (the
bytes of a commit are written before the end is published), or not at all (network file systems,
writes through mmap, no inotify watches left); waiting never lasts longer than the caller's poll.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from threading import Event as Signal
from threading import RLock, Thread
from typing import Final

from ckptlog.storage.environment import Environment
from ckptlog.storage.fork import free_in_child

# watchfiles waits 1,600 ms for more changes by default; a commit is over when it is seen.
DEBOUNCE_MS: Final = 5
# After a hint the end may be published any moment: then the looks are this close, for a while.
_ALERT_LOOK_S = 0.005
_ALERT_S = 0.05
_logger = logging.getLogger("ckptlog.watch")


class Ear:
    """One waiter's side of the hints.

    Threads: one waits; any may make it hear.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._signal = Signal()
        free_in_child(self, "_signal")
        self._alert_until_s = 0.0

    def hear(self) -> None:
        """End the wait that goes on, or the next one."""
        self._signal.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for a hint; say whether one came. Returns sooner for a while after each."""
        now_s = self._environment.monotonic_s()
        if now_s < self._alert_until_s:
            timeout_s = min(timeout_s, _ALERT_LOOK_S)
        if not self._signal.wait(timeout_s):
            return False
        self._signal.clear()
        self._alert_until_s = self._environment.monotonic_s() + _ALERT_S
        return True

    def calm(self) -> None:
        """The hint was right: nothing more is expected of it."""
        self._alert_until_s = 0.0


class LogHint:
    """The hints of one store in one process; one watching thread for all who listen.

    Threads: safe. After a fork it belongs to the parent; the child makes another.
    """

    def __init__(self, folder: Path, environment: Environment) -> None:
        self._folder = folder
        self._environment = environment
        # Reentrant: the collector may end a forgotten subscription while this lock is held.
        self._lock = RLock()
        self._ears: tuple[Ear, ...] = ()
        self._stop: Signal | None = None

    def listen(self, *, uses_watcher: bool = True) -> Ear:
        """Return an ear; `forget` it when it is no longer needed."""
        ear = Ear(self._environment)
        with self._lock:
            self._ears = (*self._ears, ear)
            if uses_watcher and self._stop is None:
                self._stop = _start_watcher(self._folder, self.notify)
        return ear

    def forget(self, ear: Ear) -> None:
        """Let go of an ear; the watching ends with the last one."""
        with self._lock:
            self._ears = tuple(one for one in self._ears if one is not ear)
            if not self._ears:
                self._end()

    def notify(self) -> None:
        """Let everybody hear."""
        for ear in self._ears:
            ear.hear()

    def close(self) -> None:
        """End the watching."""
        with self._lock:
            self._ears = ()
            self._end()

    def _end(self) -> None:
        if self._stop is not None:
            self._stop.set()
            self._stop = None


def _start_watcher(folder: Path, notify: Callable[[], None]) -> Signal:
    """Watch a folder in a thread of its own until the returned signal is set."""
    stop = Signal()

    def run() -> None:
        try:
            _watch(folder, notify, stop)
        except Exception as error:  # noqa: BLE001 - whatever ails it, the poll goes on
            _logger.warning(
                "The folder %s cannot be watched (%s: %s); changes are found by looking at it.",
                folder,
                type(error).__name__,
                error,
            )

    Thread(target=run, name="ckptlog-watch", daemon=True).start()
    return stop


def _watch(folder: Path, notify: Callable[[], None], stop: Signal) -> None:
    from watchfiles import watch

    def heard(*_: object) -> bool:
        # As a filter, for what a filter refuses is not logged for each change.
        notify()
        return False

    changes = watch(
        folder,
        watch_filter=heard,
        debounce=DEBOUNCE_MS,
        step=DEBOUNCE_MS,
        stop_event=stop,
        raise_interrupt=False,
        recursive=False,
    )
    for _ in changes:  # pragma: no cover - the filter lets nothing through
        pass
