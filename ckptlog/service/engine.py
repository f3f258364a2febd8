"""The engine: does one thing at a time to one system, and says what it did.

    capture, recover, keep --one lock--> what the log has, the tally, alerts, callbacks

Nothing here knows of schedules or threads. Callbacks are told after the commit, and run elsewhere
(service.listener).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
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
from ckptlog.recovery.journal import Journal
from ckptlog.repository.statistics import statistics
from ckptlog.service import listener, operation, tally
from ckptlog.service.alerting import Alerts
from ckptlog.service.gauge import Gauge
from ckptlog.service.keeping import Keeper
from ckptlog.service.listener import Listeners
from ckptlog.service.operation import Operation, moment
from ckptlog.service.tally import ServiceMetrics, Tally
from ckptlog.service.turn import NESTED, Turn
from ckptlog.service.unfinished import UnfinishedRecovery

_MILLION: Final = 1_000_000
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
        # When the state was last known to be saved, by the wall clock.
        self.last_us = int(captures[0].created_at.timestamp() * _MILLION) if captures else None
        # When it was captured last by this service, by the monotonic clock.
        self.captured_s: float | None = None
        self.alerts = Alerts(manager, config.system, listeners)
        self.keeper = Keeper(
            self.capturer,
            count_max=config.max_checkpoints,
            age_days_max=config.max_age_days,
            interval_s=config.compaction_interval_seconds,
            check=config.retention_check,
            on_fault=self._damaged,
        )
        self.tally.read(manager.store, config.system, captures)
        self.gauge = Gauge(manager, config, self.tally, self.alerts)
        self.unfinished = UnfinishedRecovery(
            config.system, Journal(manager, config.system), self.alerts
        )
        self._used_s = self.environment.monotonic_s()
        self.turn = Turn(config.system, self.environment)

    # --- operations ---------------------------------------------------------------------------

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
            with self.turn.operation(operation.CAPTURE, reason) as done:
                whole = self.unfinished.capturing(is_owner=self.lease is not None)
                with nullcontext() if force else whole:
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
        fresh_s = self.gauge.freshen()
        self.last_us = self.environment.now_us()
        if info is None:
            self.tally.skip()
            self.listeners.tell(listener.CHECKPOINT_SKIPPED, done)
        else:
            self.captured_s = fresh_s
            self.touch()
            self.tally.saved(info, self._stored_bytes(info), fresh_s)
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
        is_nested = isinstance(error, ServiceBusyError) and error.context.get("reason") == NESTED
        if is_nested or isinstance(error, _REFUSALS):
            self.tally.refuse()
            _logger.info("Refused: %s (%s)", error, error.code)
            return
        if not isinstance(error, LeaseLostError | LeaseRequiredError):
            self.tally.fail()
        if done is None:
            done = self._failed(operation.CAPTURE, "", error)
        _logger.warning("%s failed: %s (%s)", done.kind, error, error.code)
        self.listeners.tell(listener.OPERATION_FAILED, done)
        if isinstance(error, FullError | QuotaError):
            self.clean_up(is_pressed=True)
        self.look()

    def _failed(self, kind: str, reason: str, error: CheckpointError) -> Operation:
        """Return an operation that failed before it began, or beside another one."""
        done = Operation(kind, reason, moment(self.environment.now_us()))
        done.fail(error)
        return done

    def delete(self, checkpoint_id: str) -> None:
        """Delete one capture, because somebody asked for it.

        Raises:
            CheckpointError: It is there still; that was counted and told.
        """
        done: Operation | None = None
        try:
            with self.turn.operation(operation.CLEANUP, "manual") as done:
                check_id("checkpoint_id", checkpoint_id, CHECKPOINT_ID_CHARACTERS_MAX)
                done.checkpoint_id = checkpoint_id
                self._check_own(checkpoint_id)
                self.unfinished.refuse_deletion(checkpoint_id)
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

    def clean_up(self, *, is_pressed: bool = False) -> list[str]:
        """Delete captures that need not stay, and compact if it is time; never raises."""
        gone: list[str] = []
        done: Operation | None = None
        try:
            with self.turn.operation(operation.CLEANUP, "retention") as done:
                gone = self.keeper.keep(self.lease, moment(self.environment.now_us()))
        except CheckpointError as error:
            gone = error.context.get("deleted", [])
            _logger.warning("Captures were not cleaned up: %s (%s)", error, error.code)
            if done is None:
                done = self._failed(operation.CLEANUP, "retention", error)
            self.listeners.tell(listener.OPERATION_FAILED, done)
        if gone:
            self.listeners.tell(listener.CHECKPOINTS_DELETED, gone)
        if is_pressed:
            with suppress(CheckpointError):
                self.manager.store.trim_views()
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
        done = self._failed(operation.CLEANUP, "retention", error)
        done.checkpoint_id = info.id
        _logger.error("%s (%s)", error, error.code)
        self.listeners.tell(listener.OPERATION_FAILED, done)

    def renew_view(self) -> None:
        """Look again at what was captured: another process may have owned the system."""
        newest = self.capturer.captures(1, on_damage=_unread)
        if newest:
            self.last_us = int(newest[0].created_at.timestamp() * _MILLION)
        self.gauge.freshen()

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

    def look(self) -> float:
        """Measure, and let alarms go on and off; return the storage pressure."""
        return self.gauge.look(is_owner=self.lease is not None)

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
