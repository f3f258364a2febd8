"""A recovery that came to no end: until it has one, what is there is a mixture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Final

from ckptlog.errors import CheckpointError, RecoveryUnfinishedError
from ckptlog.policy.alarm import INCOMPLETE, Reading
from ckptlog.recovery.journal import Journal
from ckptlog.service.alerting import Alerts
from ckptlog.storage.fork import free_in_child

UNFINISHED_HINT: Final = (
    "Mend what failed; then service.resume_recovery() finishes it, service.roll_back_recovery() "
    "undoes it, service.abandon_recovery() gives it up (without the service: ckptlog recover "
    "--resume, --roll-back, --abandon)."
)
# A capture by hand waits so long for one of another process, or for a recovery.
_WAIT_S: Final = 30.0


class UnfinishedRecovery:
    """Knows whether a system is a mixture, and refuses what must not be done to one.

    Attributes:
        error: Why a recovery neither succeeded nor was rolled back; None where none is unfinished.

    Threads: safe.
    """

    def __init__(self, system: str, journal: Journal, alerts: Alerts) -> None:
        self._system = system
        self._journal = journal
        self._alerts = alerts
        self._lock = Lock()
        free_in_child(self, "_lock")
        self.error: CheckpointError | None = None
        if (found := journal.unfinished()) is not None:
            self.error = RecoveryUnfinishedError(
                f"The recovery {found.id} of capture {found.capture} ended in the middle.",
                recovery=found.id,
                capture=found.capture,
                safety=found.safety,
            )

    def leave(self, error: CheckpointError) -> None:
        """Capture nothing more, because a recovery came to no end, and say so."""
        with self._lock:
            self.error = error
            self._alerts.take([Reading(INCOMPLETE, 1, 1, error.message)])

    def complete(self) -> None:
        """Capture again: the system is what it was, or what was captured."""
        with self._lock:
            self._complete()

    def _complete(self) -> None:
        self.error = None
        self._alerts.take([Reading(INCOMPLETE, 0, 1)])

    def look(self) -> bool:
        """Say whether one is unfinished still: another process may have seen to it."""
        error = self.error
        if error is None:
            return False
        try:
            is_over = self._journal.unfinished() is None
        except CheckpointError:
            return True
        with self._lock:
            if is_over and self.error is error:  # otherwise another one came to no end meanwhile
                self._complete()
            return self.error is not None

    def settle(self, error: CheckpointError) -> None:
        """Find out whether a recovery that failed left the system whole; in doubt it did not."""
        with suppress(CheckpointError):
            if self._journal.settled() is None:
                self.complete()
                return
        self.leave(error)

    @contextmanager
    def capturing(self, *, is_owner: bool) -> Iterator[None]:
        """Capture in the block, but nothing that is neither one state nor the other.

        Args:
            is_owner: Nobody else recovers the system. Otherwise others may have begun to, and are
                kept from it meanwhile.

        Raises:
            RecoveryUnfinishedError: A recovery came to no end.
            RecoveryBusyError: Another process recovers the system.
        """
        if is_owner:
            if self.error is not None:
                self._refuse()
            yield
        else:
            with self._journal.alone(_WAIT_S):
                self._refuse()
                yield

    def _refuse(self) -> None:
        found = self._journal.unfinished()
        if found is None:
            if self.error is not None:  # another process has seen to it
                self.complete()
            return
        raise RecoveryUnfinishedError(
            f"{self._system!r} is not captured: the recovery {found.id} of {found.capture} "
            "was neither finished nor rolled back, and what is there is a mixture.",
            hint=f"{UNFINISHED_HINT} create_checkpoint(force=True) captures the mixture.",
            recovery=found.id,
            capture=found.capture,
            safety=found.safety,
        )

    def refuse_deletion(self, checkpoint_id: str) -> None:
        """Refuse to delete what a recovery is finished with, or undone."""
        found = self._journal.unfinished()
        if found is not None and checkpoint_id in (found.capture, found.safety):
            raise RecoveryUnfinishedError(
                f"The recovery {found.id}, which came to no end, needs {checkpoint_id}.",
                hint=UNFINISHED_HINT,
                recovery=found.id,
                capture=found.capture,
                safety=found.safety,
            )
