"""The cleaner: a thread that cleans up at an interval while a manager is open.

Not before one interval has passed since the last clean-up that the log tells of (or since the
store was made): a program that runs shorter than the interval must clean up now and then too, and
one that is started often must not do so each time. What it deletes it also compacts
(specs/collection.md), but in stores of older versions. It looks a few seconds after the opening, so
that a short program does not pay for it.

Errors are logged under "ckptlog", with their code, and never raised. The thread does not keep its
manager alive. A forked child has no cleaner: its parent's goes on.
"""

from __future__ import annotations

import logging
import os
import weakref
from datetime import datetime
from threading import Event, Thread, current_thread
from typing import TYPE_CHECKING, Final

from ckptlog.errors import CheckpointError, StoreClosedError
from ckptlog.formats.store import SETTLED
from ckptlog.manager import upkeep
from ckptlog.manager.retention import policy_in, sweep
from ckptlog.model.configuration import CheckpointConfiguration
from ckptlog.model.event import CLEANED
from ckptlog.repository.store import Store

if TYPE_CHECKING:
    from ckptlog.manager.manager import CheckpointManager

_SOON_S: Final = 5.0
_JOIN_S: Final = 10.0
_LOOK_BACK_EVENTS: Final = 10_000

_logger = logging.getLogger("ckptlog")


class _StoppedError(Exception):
    """The manager is closed while its store is compacted."""


class Cleaner:
    """Cleans up in the background; make one for each manager, and stop it with the manager.

    Threads: safe.
    """

    def __init__(self, manager: CheckpointManager, config: CheckpointConfiguration) -> None:
        self._interval_s = config.cleanup_interval_hours * 3600.0
        self._max_age_days = config.max_checkpoint_age_days
        self._policy = policy_in(config)
        self._pid = os.getpid()
        self._is_stopped = False
        self._is_wanted = False
        self._has_looked = False
        self._signal = Event()
        signal = self._signal
        self._manager = weakref.ref(manager, lambda _: signal.set())
        self._thread = Thread(target=self._run, name="ckptlog-clean", daemon=True)
        if not manager.store.read_only:
            self._thread.start()

    def wake(self) -> None:
        """Let it clean up now."""
        if os.getpid() == self._pid:
            self._is_wanted = True
            self._signal.set()

    def stop(self) -> None:
        """End the thread, between two commits if it is at work. Twice is fine."""
        if os.getpid() != self._pid:
            return  # the thread, and perhaps a lock of the signal, stayed with the parent
        self._is_stopped = True
        self._signal.set()
        if self._thread.is_alive() and self._thread is not current_thread():
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        wait_s = min(_SOON_S, self._interval_s)
        while self._wait(wait_s):
            manager = self._manager()
            if manager is None:
                return
            wait_s = self._turn(manager)
            del manager  # while it waits, it must not keep it alive

    def _wait(self, wait_s: float) -> bool:
        """Wait for the time or a signal; say whether to go on."""
        if not self._is_stopped:
            self._signal.wait(wait_s)
            self._signal.clear()
        return not self._is_stopped

    def _turn(self, manager: CheckpointManager) -> float:
        """Clean up if it is time; return seconds until the next turn."""
        try:
            if not self._has_looked and not self._is_wanted:
                self._has_looked = True
                due_in_s = self._due_in_s(manager.store)
                if due_in_s > 0:
                    return due_in_s
            self._is_wanted = False
            count = self._clean_up(manager)
            if count:
                _logger.info("Deleted %d checkpoints of %s.", count, manager.store.path)
                self._compact(manager)
        except _StoppedError:
            pass
        except StoreClosedError:
            self._is_stopped = True
        except CheckpointError as error:
            _logger.warning("A clean-up failed: %s (%s)", error, error.code)
        except Exception:
            _logger.exception("A clean-up failed (checkpoint.error).")
        return self._interval_s

    def _clean_up(self, manager: CheckpointManager) -> int:
        def is_stopping() -> bool:
            return self._is_stopped

        if self._policy is None:
            return upkeep.clean_up(manager, self._max_age_days, is_stopping=is_stopping)
        return sweep(manager, self._policy, is_stopping=is_stopping).deleted

    def _compact(self, manager: CheckpointManager) -> None:
        """Give back the room of what was deleted; ends early where the manager is closed."""

        def look(_done: int, _total: int) -> None:
            if self._is_stopped:
                raise _StoppedError

        if SETTLED in manager.store.info.features:
            freed = manager.store.compact(None, look).bytes_freed
            _logger.info("Gave back %d bytes of %s.", freed, manager.store.path)

    def _due_in_s(self, store: Store) -> float:
        """Return how long to wait after the last clean-up; 0 or less where it is time."""
        last = store.info.created
        position = store.position
        for entry in store.events(max(0, position - _LOOK_BACK_EVENTS), position):
            if entry.event.type == CLEANED:
                last = entry.event.time
        age_s = store.environment.now_us() / 1e6 - datetime.fromisoformat(last).timestamp()
        # A clock that was set back must not keep it waiting for longer than the interval.
        return min(self._interval_s - age_s, self._interval_s)
