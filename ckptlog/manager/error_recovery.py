"""CheckpointErrorRecovery: what can be done about an error without asking anybody, and doing it.

    storage      full: give back what can be given back; busy, locked: wait; unknown: look again
    corruption   mend the store (repository.repair), from a second copy where one is configured
    network      wait, longer each time, while another attempt makes sense

Each returns whether the failed call may be made again. Nothing is deleted, and no other checkpoint
is put in a damaged one's place: which to go on from is the caller's to decide. What was done is in
`log` and in the history (`recovery.finished`, `repair.finished`).
"""

from __future__ import annotations

import logging
import os
import shutil
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from ckptlog.errors import (
    ArgumentError,
    CheckpointCorruptionError,
    CheckpointError,
    CheckpointNotFoundError,
    CheckpointStorageError,
    MissingBlobError,
    PayloadCollectedError,
)
from ckptlog.model.event import RECOVERED

if TYPE_CHECKING:
    from ckptlog.manager.manager import CheckpointManager
    from ckptlog.repository.mending import Mending

_logger = logging.getLogger("ckptlog")
# A commit and its view need little; below this the next call would fail again.
_FREE_BYTES_MIN: Final = 4 * 1024 * 1024
_DELAY_MAX_S: Final = 30.0
_WAITS: Final = frozenset({"lock.timeout", "commit.busy", "consumer.busy"})
_UNKNOWN: Final = frozenset({"commit.outcome_unknown", "storage.io", "storage.failed"})
_TRANSIENT: Final = (ConnectionError, TimeoutError, InterruptedError)
_STEPS_KEPT: Final = 100


class RecoveryStep(msgspec.Struct, frozen=True):
    """One thing that was done. code: Of the error. did: In a word. ok: Whether it helped."""

    code: str
    did: str
    ok: bool


class CheckpointErrorRecovery:
    """Recovers from errors of one manager.

    Args:
        copy: A second copy of the store, from which damaged bytes are taken.
        attempts_max: Network errors in a row after which it gives up.
        delay_s: First wait; the next ones double, up to 30 s.

    Attributes:
        log: The last steps, newest last.
        mending: What the last repair did; None before one.

    Threads: one at a time.
    """

    def __init__(
        self,
        manager: CheckpointManager,
        *,
        copy: str | os.PathLike[str] | None = None,
        attempts_max: int = 5,
        delay_s: float = 0.1,
    ) -> None:
        if type(attempts_max) is not int or attempts_max < 0:
            raise ArgumentError(
                f"attempts_max is {attempts_max!r}; a whole number from 0 on is needed.",
                argument="attempts_max",
            )
        if type(delay_s) not in (int, float) or not 0 <= delay_s <= _DELAY_MAX_S:
            raise ArgumentError(
                f"delay_s is {delay_s!r}; a number from 0 to {_DELAY_MAX_S:g} is needed.",
                argument="delay_s",
            )
        self._manager = manager
        self._copy = None if copy is None else Path(copy).absolute()
        self._attempts_max = attempts_max
        self._delay_s = delay_s
        self._failures = 0
        self.log: deque[RecoveryStep] = deque(maxlen=_STEPS_KEPT)
        self.mending: Mending | None = None

    def handle_storage_error(self, error: CheckpointStorageError) -> bool:
        """Do what can be done about an error of the storage; True: call again.

        A full disk: views with free pages are made anew. A lock or a queue that others hold: wait
        for it. An outcome that is not known: the log is looked at again, so that a repetition
        with the same command id is safe. A missing chunk is damage. Anything else needs people.
        """
        if isinstance(error, MissingBlobError) and not isinstance(error, PayloadCollectedError):
            return self.handle_corruption_error(error)
        if error.code == "storage.full":
            return self._done(error.code, "compacted", ok=self._make_room())
        if error.code in _WAITS:
            return self._done(error.code, "waited", ok=self._wait_for_lock())
        if error.code in _UNKNOWN:
            return self._done(error.code, "looked again", ok=self._look_again())
        return self._done(error.code, "nothing", ok=False)

    def handle_corruption_error(self, error: CheckpointCorruptionError | MissingBlobError) -> bool:
        """Mend the store; True: nothing is lost, call again.

        What cannot be brought back is in `mending`, with the recovery points that remain.
        """
        try:
            self.mending = self._manager.store.repair(
                apply=True, copy=self._copy, actor=self._manager.actor
            )
        except CheckpointError as fault:
            _logger.warning("The repair failed: %s (%s)", fault, fault.code)
            return self._done(error.code, "repair failed", ok=False)
        mending = self.mending
        is_whole = mending.ok and not mending.lost_chunks and not mending.lost_positions
        return self._done(error.code, "repaired", ok=is_whole)

    def handle_network_error(self, error: Exception) -> bool:
        """Wait before another attempt; False: it makes no sense, or there were too many.

        Errors in a row are counted until `reset`.
        """
        is_transient = isinstance(error, _TRANSIENT) or getattr(error, "retryable", False)
        code = str(getattr(error, "code", "")) or type(error).__name__
        if not is_transient or self._failures >= self._attempts_max:
            return self._done(code, "gave up", ok=False)
        delay_s = min(self._delay_s * 2**self._failures, _DELAY_MAX_S)
        self._failures += 1
        self._manager.store.environment.sleep(delay_s)
        # No event: a network that comes and goes must not fill the history.
        self.log.append(RecoveryStep(code, "waited", True))
        return True

    def reset(self) -> None:
        """Forget earlier network errors: a call has succeeded."""
        self._failures = 0

    def attempt_auto_recovery(self, checkpoint_id: str) -> bool:
        """Make a checkpoint readable again; True: it is, and its data verifies.

        Where it cannot be, `CheckpointManager.get_recovery_point` says what its task can go on
        from.
        """
        error = self._fault_of(checkpoint_id)
        if error is None:
            return True
        if isinstance(error, CheckpointNotFoundError):
            return False
        if isinstance(error, CheckpointCorruptionError | MissingBlobError):
            self.handle_corruption_error(error)
        elif isinstance(error, CheckpointStorageError):
            self.handle_storage_error(error)
        return self._fault_of(checkpoint_id) is None

    # --- what is done -------------------------------------------------------------------------

    def _fault_of(self, checkpoint_id: str) -> CheckpointError | None:
        try:
            found = self._manager.get_checkpoint(checkpoint_id)
        except CheckpointError as error:
            return error
        if found is None:
            return CheckpointNotFoundError(f"There is no checkpoint {checkpoint_id!r}.")
        return None

    def _make_room(self) -> bool:
        store = self._manager.store
        try:
            self._manager.compact_checkpoint_storage()
        except CheckpointError as error:
            _logger.warning("Nothing could be given back: %s (%s)", error, error.code)
        return shutil.disk_usage(store.path).free >= _FREE_BYTES_MIN

    def _wait_for_lock(self) -> bool:
        store = self._manager.store
        if store.read_only:
            return False
        try:
            with store.log.exclusive(store.timeout_s):
                return True
        except CheckpointError:
            return False

    def _look_again(self) -> bool:
        store = self._manager.store
        try:
            if not store.read_only:
                with store.log.exclusive(store.timeout_s):
                    pass
            store.catch_up()
        except CheckpointError:
            return False
        return True

    def _done(self, code: str, did: str, *, ok: bool) -> bool:
        self.log.append(RecoveryStep(code, did, ok))
        if did != "nothing":
            self._record(code, did, ok=ok)
        return ok

    def _record(self, code: str, did: str, *, ok: bool) -> None:
        """Record a step; that it cannot be must not hide what it did."""
        try:
            self._manager.record(RECOVERED, {"did": did, "error": code, "ok": int(ok)})
        except CheckpointError as error:
            _logger.warning("A recovery was not recorded: %s (%s)", error, error.code)
