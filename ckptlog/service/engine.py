"""The engine: does one thing at a time to one system, and says what it did.

    capture, recover, keep --one lock--> what the log has, the tally, alerts, callbacks

Nothing here knows of schedules or threads. Callbacks are told after the commit, and run elsewhere
(service.listener).
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from ckptlog.capture.capturer import Capturer
from ckptlog.errors import (
    CheckpointCorruptionError,
    CheckpointError,
    FullError,
    LeaseLostError,
    LeaseRequiredError,
    QuotaError,
)
from ckptlog.manager.lease import Lease
from ckptlog.manager.manager import CheckpointManager
from ckptlog.model.capture import CaptureInfo
from ckptlog.model.component import Component
from ckptlog.model.system_configuration import SystemConfiguration
from ckptlog.policy.alarm import STALE, STORAGE_PRESSURE, Reading
from ckptlog.repository.statistics import measure, statistics
from ckptlog.service import listener, operation
from ckptlog.service.alerting import Alerts
from ckptlog.service.keeping import Keeper
from ckptlog.service.listener import Listeners
from ckptlog.service.operation import Operation, moment
from ckptlog.service.tally import ServiceMetrics, Tally

_MILLION: Final = 1_000_000
_logger = logging.getLogger("ckptlog.service")


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
        captures = self.capturer.captures()
        self.tally.read(manager.store, config.system, captures)
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
        self.current: Operation | None = None
        # A recovery neither succeeded nor was rolled back: what is there must not be captured.
        self.is_incomplete = False
        self._used_s = self.environment.monotonic_s()
        self._lock = threading.Lock()

    # --- operations ---------------------------------------------------------------------------

    @contextmanager
    def operation(self, kind: str, reason: str, *, component: str = "") -> Iterator[Operation]:
        """Do one thing, alone: what fails is told, and raised.

        Raises:
            CheckpointError: As the block.
        """
        with self._lock:
            begin_s = self.environment.monotonic_s()
            one = Operation(kind, reason, moment(self.environment.now_us()), component=component)
            self.current = one
            try:
                yield one
                one.status = operation.COMPLETED
            except CheckpointError as error:
                one.fail(error)
                raise
            finally:
                one.seconds = self.environment.monotonic_s() - begin_s
                self.current = None

    def capture(
        self,
        reason: str,
        *,
        description: str = "",
        tags: Sequence[str] = (),
        skip_unchanged: bool = False,
    ) -> CaptureInfo | None:
        """Capture the system; None where nothing changed and that was asked for.

        Raises:
            CheckpointError: Nothing was captured; it was counted and told.
        """
        done: Operation | None = None
        try:
            with self.operation(operation.CAPTURE, reason) as done:
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
        """Count and tell what failed; not being the owner is no failure to save."""
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

    def clean_up(self, *, is_pressed: bool = False) -> list[str]:
        """Delete captures that need not stay, and compact if it is time; never raises."""
        gone: list[str] = []
        done: Operation | None = None
        try:
            with self.operation(operation.CLEANUP, "retention") as done:
                gone = self.keeper.keep(self.lease, moment(self.environment.now_us()))
        except CheckpointError as error:
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
        newest = self.capturer.captures(1)
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

    def look(self) -> float:
        """Measure, and let alarms go on and off; return the storage pressure."""
        config = self.config
        try:
            pressure = self.pressure()
        except CheckpointError as error:
            _logger.warning("The store was not measured: %s", error)
            return 0.0
        age_s = self.environment.monotonic_s() - self._fresh_s
        self.alerts.take(
            [
                *self.tally.readings(
                    error_rate=config.alerts.error_rate,
                    save_ms=config.save_time_ms,
                    recovery_ms=config.performance.max_recovery_time_ms,
                    target=config.performance.compression_target,
                ),
                Reading(STORAGE_PRESSURE, pressure, config.alerts.storage_pressure),
                Reading(STALE, age_s, config.stale_s),
            ]
        )
        return pressure

    def metrics(self, **more: Any) -> ServiceMetrics:
        """Return every figure."""
        figures = statistics(self.manager.store)
        return ServiceMetrics(
            total_checkpoints=len(self.capturer.captures()),
            storage_usage=figures["total_bytes"] - figures["reserve_bytes"],
            compression_ratio=float(figures["dedup_ratio"] or 0.0),
            dropped_callbacks=self.listeners.dropped,
            alerts=tuple(self.alerts.on),
            **self.tally.figures(),
            **more,
        )


def _freed(freed_bytes: int) -> None:
    _logger.info("Gave back %d bytes.", freed_bytes)
