"""The engine: does one thing at a time to one system, and says what it did.

    capture, recover, keep --one lock--> what the log has, the tally, alerts, callbacks

Nothing here knows of schedules or threads. Callbacks are told after the commit, and run elsewhere
(service.listener).
"""

from __future__ import annotations

import logging
import math
import shutil
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from ckptlog.capture.capturer import Capturer
from ckptlog.errors import (
    ArgumentError,
    CheckpointCorruptionError,
    CheckpointError,
    CheckpointNotFoundError,
    FullError,
    LeaseLostError,
    LeaseRequiredError,
    QuotaError,
    RecoveryBusyError,
    RecoveryCancelledError,
    RecoveryUnfinishedError,
    ServiceBusyError,
)
from ckptlog.manager.lease import Lease
from ckptlog.manager.manager import CheckpointManager
from ckptlog.model.capture import CaptureInfo
from ckptlog.model.component import Component
from ckptlog.model.identifier import CHECKPOINT_ID_CHARACTERS_MAX, check_id
from ckptlog.model.quotation import quoted
from ckptlog.model.system_configuration import SystemConfiguration
from ckptlog.policy.alarm import (
    CALM_INTERVALS,
    INCOMPLETE,
    RELIEF_STORAGE,
    STALE,
    STORAGE_PRESSURE,
    Reading,
)
from ckptlog.recovery.journal import Journal
from ckptlog.repository.statistics import measure, statistics
from ckptlog.service import listener, operation, tally
from ckptlog.service.alerting import Alerts
from ckptlog.service.keeping import Keeper
from ckptlog.service.listener import Listeners
from ckptlog.service.operation import Operation, moment
from ckptlog.service.tally import ServiceMetrics, Tally

_MILLION: Final = 1_000_000
# How long one operation is waited for by another; deadlines end it long before.
BUSY_S: Final = 660.0
UNFINISHED_HINT: Final = (
    "Mend what failed; then service.resume_recovery() finishes it, service.roll_back_recovery() "
    "undoes it, service.abandon_recovery() gives it up (without the service: ckptlog recover "
    "--resume, --roll-back, --abandon)."
)
# What a caller asks for and cannot have; the system itself is none the worse for it.
_REFUSALS: Final = (
    ArgumentError,
    CheckpointNotFoundError,
    RecoveryBusyError,
    RecoveryCancelledError,
    RecoveryUnfinishedError,
)
_logger = logging.getLogger("ckptlog.service")


def _unread(name: str, error: CheckpointError) -> None:
    """Tell of a capture whose metadata is damaged: the others are there still."""
    _logger.error("Capture %s cannot be read: %s (%s)", name, error, error.code)


class Engine:
    """Captures and recovers one system.

    Threads: safe; operations wait for each other.
    """

    def __init__(
        self,
        manager: CheckpointManager,
        config: SystemConfiguration,
        components: Sequence[Component],
        listeners: Listeners,
    ) -> None:
        self.manager = manager
        self.config = config
        self.environment = manager.store.environment
        self.listeners = listeners
        self.capturer = Capturer(
            manager,
            config.system,
            components,
            batch_size=config.performance.batch_size,
            deadline_s=config.deadline_seconds,
            size_bytes_max=config.max_capture_size_bytes or None,
        )
        self.lease: Lease | None = None
        self.tally = Tally()
        captures = self.capturer.captures(tally.RECENT, on_damage=_unread)
        # When the state was last known to be saved; wall time at first, monotonic then.
        self.last_us = int(captures[0].created_at.timestamp() * _MILLION) if captures else None
        self._fresh_s = self.environment.monotonic_s()
        self.alerts = Alerts(manager, config.system, listeners)
        self.keeper = Keeper(
            self.capturer,
            count_max=config.max_checkpoints,
            age_days_max=config.max_age_days,
            interval_s=config.compaction_interval_seconds,
            check=config.retention_check,
            on_fault=self._damaged,
        )
        self.tally.read(manager.store, config.system, captures, self.keeper.roll.count())
        self._current: Operation | None = None
        self._begun_s = 0.0
        # Why a recovery neither succeeded nor was rolled back: what is there must not be captured.
        self.incomplete: CheckpointError | None = None
        # Factor of the interval under storage pressure, and when that was last on.
        self.slowdown = 1.0
        self._pressed_s = -math.inf
        self._journal = Journal(manager, config.system)
        if (found := self._journal.unfinished()) is not None:
            self.incomplete = RecoveryUnfinishedError(
                f"The recovery {found.id} of capture {found.capture} ended in the middle.",
                recovery=found.id,
                capture=found.capture,
                safety=found.safety,
            )
        self._used_s = self.environment.monotonic_s()
        self._lock = threading.Lock()
        self._worker: threading.Thread | None = None
        self._halter: threading.Thread | None = None
        # Set: recoveries put back what they have touched, because the service stops.
        self.is_ending = threading.Event()

    # --- operations ---------------------------------------------------------------------------

    @contextmanager
    def operation(self, kind: str, reason: str, *, component: str = "") -> Iterator[Operation]:
        """Do one thing, alone: what fails is told, and raised.

        Raises:
            CheckpointError: As the block.
        """
        with self._turn():
            self._begun_s = self.environment.monotonic_s()
            one = Operation(kind, reason, moment(self.environment.now_us()), component=component)
            self._current = one
            try:
                yield one
                one.status = operation.COMPLETED
            except BaseException as error:
                one.fail(operation.known(error))
                raise
            finally:
                one.seconds = self.environment.monotonic_s() - self._begun_s
                self._current = None

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Be the one who works; whoever has halted all others is that already."""
        me = threading.current_thread()
        if self._halter is me:
            yield
            return
        if not self._lock.acquire(timeout=BUSY_S):
            raise self._busy()
        self._worker = me
        try:
            yield
        finally:
            self._worker = None
            self._lock.release()

    @contextmanager
    def halted(self, wait_s: float) -> Iterator[bool]:
        """Wait for what is at work, and let nothing begin but what this thread does itself.

        A recovery that takes longer is cancelled; its rollback is waited for however long it
        takes (each of its calls has a deadline), because in its middle the system is a mixture.

        Args:
            wait_s: Seconds to wait for what is at work.

        Returns:
            Whether nothing is at work; a capture may be, after twice that time.

        Raises:
            ServiceBusyError: This very thread is at work: it would wait for itself.
        """
        me = threading.current_thread()
        if self._halter is me:
            yield True
            return
        self.refuse_own()
        is_ours = self._lock.acquire(timeout=wait_s)
        try:
            if not is_ours:
                is_ours = self._end_work(wait_s)
            self._halter = me if is_ours else None
            yield is_ours
        finally:
            self.is_ending.clear()
            if is_ours:
                self._halter = None
                self._lock.release()

    def refuse_own(self) -> None:
        """Refuse to wait for what this thread itself is in the middle of.

        Raises:
            ServiceBusyError: It is.
        """
        if self._worker is not threading.current_thread():
            return
        one = self.current
        what = "An operation" if one is None else f"A {one.kind} ({one.reason})"
        raise ServiceBusyError(
            f"{self.config.system!r}: {what} is at work in this very thread; it would wait for "
            "itself.",
            hint="Let it end first (a recovery: cancel=), or call from another thread.",
            component="" if one is None else one.component,
        )

    def _end_work(self, wait_s: float) -> bool:
        """End what is at work; say whether that is over."""
        self.is_ending.set()
        while not self._lock.acquire(timeout=wait_s):
            one = self._current
            if one is None or one.kind != operation.RECOVERY:
                return False
            _logger.warning("The service stops when the recovery at work has been put back.")
        return True

    @property
    def current(self) -> Operation | None:
        """What is done right now; None where nothing is. Its seconds are those until now."""
        one = self._current
        if one is not None and one.status == operation.RUNNING:
            one.seconds = self.environment.monotonic_s() - self._begun_s
        return one

    def _busy(self) -> ServiceBusyError:
        one = self.current
        what = "another operation" if one is None else f"a {one.kind} ({one.reason})"
        return ServiceBusyError(
            f"{self.config.system!r}: {what} is at work still, after {BUSY_S:g} s of waiting.",
            hint="current_operation says what it does; try again when it is over.",
            component="" if one is None else one.component,
        )

    # --- a recovery that came to no end -----------------------------------------------------

    def leave_incomplete(self, error: CheckpointError) -> None:
        """Capture nothing more, because a recovery came to no end, and say so."""
        self.incomplete = error
        self.alerts.take([Reading(INCOMPLETE, 1, 1, error.message)])

    def complete(self) -> None:
        """Capture again: the system is what it was, or what was captured."""
        self.incomplete = None
        self.alerts.take([Reading(INCOMPLETE, 0, 1)])

    def settle(self, error: CheckpointError) -> None:
        """Find out whether a recovery that failed left the system whole; in doubt it did not."""
        with suppress(CheckpointError):
            if self._journal.unfinished() is None:
                self.complete()
                return
        self.leave_incomplete(error)

    def _refuse_incomplete(self) -> None:
        """Refuse to capture what is neither one state nor the other.

        Raises:
            RecoveryUnfinishedError: A recovery came to no end.
        """
        if self.incomplete is None:
            return
        found = self._journal.unfinished()
        if found is None:  # another process has seen to it
            self.complete()
            return
        raise RecoveryUnfinishedError(
            f"{self.config.system!r} is not captured: the recovery {found.id} of {found.capture} "
            "was neither finished nor rolled back, and what is there is a mixture.",
            hint=f"{UNFINISHED_HINT} create_checkpoint(force=True) captures the mixture.",
            recovery=found.id,
            capture=found.capture,
            safety=found.safety,
        )

    def capture(
        self,
        reason: str,
        *,
        description: str = "",
        tags: Iterable[str] = (),
        skip_unchanged: bool = False,
        force: bool = False,
    ) -> CaptureInfo | None:
        """Capture the system; None where nothing changed and that was asked for.

        Args:
            force: Also where a recovery came to no end.

        Raises:
            CheckpointError: Nothing was captured; it was counted and told.
        """
        done: Operation | None = None
        try:
            _check_flag("force", force)
            with self.operation(operation.CAPTURE, reason) as done:
                if not force:
                    self._refuse_incomplete()
                info = self.capturer.capture(
                    description=description,
                    tags=tags,
                    reason=reason,
                    skip_unchanged=skip_unchanged,
                    lease=self.lease,
                )
                done.checkpoint_id = info.id if info else ""
        except CheckpointError as error:
            self.fail(done, error)
            raise
        self._fresh_s = self.environment.monotonic_s()
        self.last_us = self.environment.now_us()
        if info is None:
            self.tally.skip()
            self.listeners.tell(listener.CHECKPOINT_SKIPPED, done)
        else:
            self.touch()
            self.tally.saved(info, self._stored_bytes(info), self._fresh_s)
            self.listeners.tell(listener.CHECKPOINT_CREATED, info)
        self.look()
        return info

    def _stored_bytes(self, info: CaptureInfo) -> int:
        entry = self.manager.store.event_at(info.position)
        return entry.event.new if entry is not None else info.bytes_new

    def fail(self, done: Operation | None, error: CheckpointError) -> None:
        """Count and tell what failed; not being the owner is no failure to save.

        A caller's mistake is counted apart (`refused`), and not told: he has the error.
        """
        if isinstance(error, _REFUSALS):
            self.tally.refuse()
            _logger.info("Refused: %s (%s)", error, error.code)
            return
        if not isinstance(error, LeaseLostError | LeaseRequiredError):
            self.tally.fail()
        if done is None:
            done = Operation(operation.CAPTURE, "", moment(self.environment.now_us()))
            done.fail(error)
        _logger.warning("%s failed: %s (%s)", done.kind, error, error.code)
        self.listeners.tell(listener.OPERATION_FAILED, done)
        if isinstance(error, FullError | QuotaError):
            self.clean_up(is_pressed=True)
        self.look()

    def delete(self, checkpoint_id: str) -> None:
        """Delete one capture, because somebody asked for it.

        Raises:
            CheckpointError: It is there still; that was counted and told.
        """
        done: Operation | None = None
        try:
            with self.operation(operation.CLEANUP, "manual") as done:
                check_id("checkpoint_id", checkpoint_id, CHECKPOINT_ID_CHARACTERS_MAX)
                done.checkpoint_id = checkpoint_id
                self._check_own(checkpoint_id)
                self._refuse_needed(checkpoint_id)
                self.manager.delete_checkpoint(checkpoint_id, lease=self.lease)
        except CheckpointError as error:
            self.fail(done, error)
            raise
        self.listeners.tell(listener.CHECKPOINTS_DELETED, [checkpoint_id])

    def _check_own(self, checkpoint_id: str) -> None:
        """Refuse what is no capture of this system; one that is damaged can be deleted too."""
        try:
            self.capturer.find(checkpoint_id)
        except CheckpointCorruptionError:
            entry = self.manager.store.newest(checkpoint_id)
            if entry is None or entry.event.subject.task != self.config.system:
                raise

    def _refuse_needed(self, checkpoint_id: str) -> None:
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

    def clean_up(self, *, is_pressed: bool = False) -> list[str]:
        """Delete captures that need not stay, and compact if it is time; never raises."""
        gone: list[str] = []
        done: Operation | None = None
        try:
            with self.operation(operation.CLEANUP, "retention") as done:
                gone = self.keeper.keep(self.lease, moment(self.environment.now_us()))
        except CheckpointError as error:
            gone = error.context.get("deleted", [])
            _logger.warning("Captures were not cleaned up: %s (%s)", error, error.code)
            self.listeners.tell(listener.OPERATION_FAILED, done)
        if gone:
            self.listeners.tell(listener.CHECKPOINTS_DELETED, gone)
        self.keeper.compact(self.environment.monotonic_s(), _freed, is_pressed=is_pressed)
        return gone

    def _damaged(self, info: CaptureInfo, fault: str) -> None:
        """Tell of a capture that nothing could be recovered from."""
        error = CheckpointCorruptionError(
            f"Capture {info.id} is damaged: {fault}",
            hint="What is older was not deleted for its sake. `ckptlog verify` says what else is "
            "damaged, `ckptlog repair` what can be mended.",
            checkpoint_id=info.id,
        )
        done = Operation(operation.CLEANUP, "retention", moment(self.environment.now_us()))
        done.checkpoint_id = info.id
        done.fail(error)
        _logger.error("%s (%s)", error, error.code)
        self.listeners.tell(listener.OPERATION_FAILED, done)

    def renew_view(self) -> None:
        """Look again at what was captured: another process may have owned the system."""
        newest = self.capturer.captures(1, on_damage=_unread)
        if newest:
            self.last_us = int(newest[0].created_at.timestamp() * _MILLION)
        self._fresh_s = self.environment.monotonic_s()

    def touch(self) -> None:
        """Note that what is cached was used."""
        self._used_s = self.environment.monotonic_s()

    def drop_cache(self) -> None:
        """Let go of what is cached, if it is older than cacheTtl."""
        ttl_s, now_s = self.config.storage.cache_ttl, self.environment.monotonic_s()
        if ttl_s and now_s - self._used_s >= ttl_s:
            self.manager.store.blobs.close()  # a later read opens and reads anew
            self._used_s = now_s

    # --- what is measured ---------------------------------------------------------------------

    def pressure(self) -> float:
        """Return the used part of the room: of the store's limit, or of the disk."""
        path = self.manager.store.path
        sizes = measure(path)
        used_bytes = sizes.total - sizes.reserve
        room_bytes = self.config.storage.local.max_size_bytes
        with suppress(OSError):  # a file system that does not tell
            room_bytes = min(room_bytes, used_bytes + shutil.disk_usage(path).free)
        return used_bytes / max(1, room_bytes)

    @property
    def stale_s(self) -> float:
        """Age from which on the state is stale: by the interval that storage pressure makes."""
        alerts = self.config.alerts
        return alerts.stale_seconds or self.config.stale_s * self.slowdown

    def _pressure_reading(self, pressure: float) -> list[Reading]:
        """Return what the alarm goes by; none where the room has come back just now."""
        limit, now_s = self.config.alerts.storage_pressure, self.environment.monotonic_s()
        if pressure >= limit * RELIEF_STORAGE:
            self._pressed_s = now_s
        elif (
            now_s - self._pressed_s < CALM_INTERVALS * self.config.interval_seconds * self.slowdown
        ):
            return []
        return [Reading(STORAGE_PRESSURE, pressure, limit)]

    def look(self) -> float:
        """Measure, and let alarms go on and off; return the storage pressure."""
        config = self.config
        try:
            pressure = self.pressure()
            measured = self._pressure_reading(pressure)
        except CheckpointError as error:  # the other alarms need no store
            _logger.warning("The store was not measured: %s", error)
            pressure, measured = 0.0, []
        # Whoever does not own the system does not save it: another process does.
        is_owner = self.lease is not None
        age_s = self.environment.monotonic_s() - self._fresh_s if is_owner else 0.0
        self.alerts.take(
            [
                *measured,
                *self.tally.readings(
                    error_rate=config.alerts.error_rate,
                    save_ms=config.save_time_ms,
                    recovery_ms=config.performance.max_recovery_time_ms,
                    target=config.performance.compression_target,
                ),
                Reading(STALE, age_s, self.stale_s),
            ]
        )
        return pressure

    def metrics(self, **more: Any) -> ServiceMetrics:
        """Return every figure."""
        figures = statistics(self.manager.store)
        return ServiceMetrics(
            total_checkpoints=self.keeper.roll.count(),
            storage_usage=figures["total_bytes"] - figures["reserve_bytes"],
            compression_ratio=float(figures["dedup_ratio"] or 0.0),
            dropped_callbacks=self.listeners.dropped,
            alerts=tuple(self.alerts.on),
            **self.tally.figures(),
            **more,
        )


def _freed(freed_bytes: int) -> None:
    _logger.info("Gave back %d bytes.", freed_bytes)


def _check_flag(name: str, value: object) -> None:
    if type(value) is not bool:
        raise ArgumentError(f"{name} is {quoted(value)}; True or False is needed.", argument=name)
