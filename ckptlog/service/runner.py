"""The runner: the thread that captures when it is time, and does what it is told in between.

    wait (until due, at most LOOK_S) -> a message, or nothing -> look at the clocks -> act

One thread, so nothing overlaps. A signal's handler sends messages too (service.shutdown), so that
takes no lock: a set has each of them once, however often it is sent, and a SimpleQueue wakes the
thread. So signals that come faster than captures make no backlog, which the stop would wait for.
The times are decided in policy.schedule.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from ckptlog.errors import (
    CheckpointError,
    LeaseHeldError,
    LeaseLostError,
    LeaseRequiredError,
    RecoveryUnfinishedError,
)
from ckptlog.manager.lease import Lease
from ckptlog.model.system_configuration import SystemConfiguration
from ckptlog.policy import schedule
from ckptlog.policy.alarm import LEASE, Reading, slowdown
from ckptlog.policy.schedule import Clock, Due, Rules, Schedule, Wait
from ckptlog.service import listener
from ckptlog.service.engine import Engine
from ckptlog.service.recovering import finish_later
from ckptlog.service.shutdown import TERMINATE

STOP: Final = "stop"
END: Final = "end"
LOST: Final = "lost"
WAKE: Final = "wake"
# A machine that was suspended is seen so soon after it wakes.
LOOK_S: Final = 1.0
_CLAIM_S_MIN: Final = 0.1
_RENEWALS: Final = 3
_UNITS: Final = 2**32

_logger = logging.getLogger("ckptlog.service")


@dataclass(frozen=True)
class IntervalChange:
    """Captures become rarer, or more frequent again.

    seconds, before: Time between two of them now, and until now.
    reason: "failures", "storage pressure", or "" where it is the usual time again.
    """

    seconds: float
    before: float
    reason: str


class Runner:
    """Runs one service's schedule.

    Args:
        on_terminate: Called in the thread when SIGTERM has come; it ends with that.

    Attributes:
        is_paused: Take no automatic captures.
        is_stopping: The thread has ended, or ends soon.

    Threads: `tell` from anywhere, also from handlers of signals.
    """

    def __init__(
        self, engine: Engine, config: SystemConfiguration, on_terminate: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._config = config
        self._on_terminate = on_terminate
        self._rules = Rules(
            interval_s=config.interval_seconds,
            jitter=config.jitter,
            interval_min_s=config.min_interval_seconds,
            interval_max_s=config.interval_max_s,
            backoff=config.backoff_factor,
        )
        self._told: set[str] = set()
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.state: Schedule = self._begin()
        self.is_paused = False
        self.is_stopping = False
        self._claim_at_s = 0.0
        self._is_held = False
        self._ownership = threading.Lock()
        self._told_s = config.interval_seconds
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ckptlog-service", daemon=True)

    @property
    def interval_s(self) -> float:
        """Time between captures as it is now."""
        return schedule.interval_s(self._rules, self.state)

    def start(self) -> None:
        """Start the thread. It waits for its first message: `go`, or `stop` where that failed.

        Raises:
            RuntimeError: None is to be had.
        """
        self._thread.start()

    def go(self) -> None:
        """Let the thread work."""
        self.tell(WAKE)

    def tell(self, message: str) -> None:
        """Send a message: STOP, END, LOST, WAKE, or the name of a signal. Takes no lock of ours.

        One that was sent and not yet taken in is not sent twice.
        """
        if message not in self._told:
            self._told.add(message)
            self._wakes.put(None)

    def stop(self, wait_s: float) -> bool:
        """End the loop after what it does now; False where that takes longer.

        The thread goes on until `end`: whoever stops the service may be interrupted, and then
        SIGTERM goes on with the stop.
        """
        self.is_stopping = True
        self.tell(STOP)
        return self._thread is threading.current_thread() or self._is_over.wait(wait_s)

    def end(self) -> None:
        """Let the thread end: the service has stopped."""
        self.tell(END)

    # --- ownership ----------------------------------------------------------------------------

    def claim(self) -> Lease:
        """Become the system's owner.

        Raises:
            LeaseHeldError: Another process is.
        """
        lease = self._engine.manager.acquire_lease(
            self._config.system, ttl_s=self._config.lease_seconds
        )
        try:
            self._engine.lease = lease.keep(lambda _: self.tell(LOST))
        except BaseException:  # no thread is to be had: nobody would renew it
            lease.release()
            raise
        return lease

    def _try_claim(self) -> None:
        now_s = self._engine.environment.monotonic_s()
        is_early = now_s < self._claim_at_s
        if is_early and not self._engine.manager.dead_holder(self._config.system):
            return
        self._claim_at_s = now_s + max(self._config.lease_seconds / _RENEWALS, _CLAIM_S_MIN)
        try:
            # What is at work by hand shows no lease, and would be refused for our own.
            with self._engine.turn.alone():
                with self._ownership:  # the alert of a loss comes before
                    self.claim()
                    self._engine.alerts.take([Reading(LEASE, 0, 1)])
                finish_later(self._engine)  # first: what else fails must let nobody save a mixture
                self._renew_view()
        except LeaseHeldError:
            return
        except CheckpointError as error:
            _logger.warning("The system was not claimed: %s (%s)", error, error.code)
            return
        self.state = self._begin()
        self._engine.listeners.tell(listener.OWNERSHIP_GAINED, self._engine.lease)

    def _renew_view(self) -> None:
        """Look at what was captured before; where that fails, the first capture comes at once."""
        try:
            self._engine.renew_view()
        except CheckpointError as error:
            _logger.warning("Earlier captures were not looked at: %s (%s)", error, error.code)

    def overtaken(self) -> bool:
        """Find out whether a write was refused because another has taken the system over.

        The log says it: who was refused may have shown no lease, or one of ours that is over.

        Returns:
            Whether the system is owned no more.
        """
        lease = self._engine.lease
        if lease is None:
            return True
        if not lease.is_lost:
            found = self._engine.manager.store.lease(self._config.system)
            if found is not None and found.token == lease.token:
                return False
        self._lose(lease)
        return True

    def _lose(self, lease: Lease) -> None:
        """Own the system no more: another has taken it over."""
        with self._ownership:
            if self._engine.lease is not lease:  # another thread has seen it too
                return
            self._engine.lease = None
            try:
                lease.release()  # nobody renews it any more, whatever the log says
            except CheckpointError as error:
                _logger.warning("The lost lease was not released: %s (%s)", error, error.code)
            self._claim_at_s = 0.0
            self._engine.alerts.take([Reading(LEASE, 1, 1, "another process owns the system")])
            self._engine.listeners.tell(listener.OWNERSHIP_LOST, lease)

    # --- the loop -----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            message = self._loop()
        finally:
            self.is_stopping = True
            self._is_over.set()
        while message not in (END, TERMINATE):
            message = self._next(None)
        if message == TERMINATE:
            self._on_terminate()

    def _loop(self) -> str:
        """Do what is told and due, until STOP or TERMINATE; return which."""
        message = self._next(None)
        while message not in (STOP, TERMINATE):
            try:
                self._turn(message)
            except Exception as error:  # the outer loop: a fault must not end all captures
                _logger.exception("A turn of the service failed (checkpoint.error)")
                wrapped = CheckpointError(f"{type(error).__name__}: {error}")
                self._engine.fail(None, wrapped)
                self._failed()
            message = self._next(self._wait_s())
        return message

    def _next(self, wait_s: float | None) -> str:
        """Return what was told, an end before all else; WAKE where nothing was in time."""
        with suppress(queue.Empty):
            self._wakes.get(timeout=wait_s)
        told = self._told
        for message in (TERMINATE, STOP, END):
            if message in told:
                told.discard(message)
                return message
        return told.pop() if told else WAKE

    def _wait_s(self) -> float:
        if self._engine.lease is None:
            left_s = self._claim_at_s - self._engine.environment.monotonic_s()
            return max(0.0, min(left_s, LOOK_S))
        if self.is_paused or self._engine.unfinished.error is not None:
            return LOOK_S
        found = self._decided(self._clock())
        return 0.0 if isinstance(found, Due) else min(found.seconds, LOOK_S)

    def _decided(self, clock: Clock) -> Wait | Due:
        self.state = schedule.captured(self.state, self._engine.captured_s)
        return schedule.decide(self._rules, self.state, clock)

    def _turn(self, message: str) -> None:
        lease = self._engine.lease
        if lease is not None and lease.is_lost:  # LOST may tell of an earlier one
            self._lose(lease)
        if self._engine.lease is None:
            self._try_claim()
            if self._engine.lease is None:
                return
        if message.startswith("SIG"):
            self._capture("signal", description=message, skip_unchanged=False)
            return
        clock = self._clock()
        self.state = schedule.look(self._rules, self.state, clock)
        if self._engine.unfinished.look() or self.is_paused:
            self._is_held = True
            self._look()  # a state that nobody saves grows stale all the same
            return
        if self._is_held:
            self._is_held = False
            self.state = schedule.released(self.state, clock)
        found = self._decided(clock)
        if isinstance(found, Due):
            if not self.state.failures:
                self._engine.tally.late(found.late_s)
            self._capture(found.reason, skip_unchanged=self._config.skip_unchanged)
        else:
            self._look()

    def _look(self) -> None:
        """Do what costs little and is not about a capture."""
        self._engine.drop_cache()
        self._engine.look()

    def _capture(self, reason: str, *, skip_unchanged: bool, description: str = "") -> None:
        try:
            self._engine.capture(reason, description=description, skip_unchanged=skip_unchanged)
        except (LeaseLostError, LeaseRequiredError):
            if not self.overtaken():
                self._failed()
            return
        except RecoveryUnfinishedError as error:  # asked for by a signal; the alert is on
            _logger.warning("%s (%s)", error, error.code)
            return
        except CheckpointError:  # it was counted and told
            self._failed()
            return
        self._slow_down()
        self.state = schedule.succeeded(self._rules, self.state, self._clock(), self._unit())
        self._engine.clean_up(is_pressed=self._engine.gauge.slowdown > 1)
        self._tell_interval()

    def _failed(self) -> None:
        self.state = schedule.failed(self._rules, self.state, self._clock(), self._unit())
        self._tell_interval()

    def _tell_interval(self) -> None:
        """Say so where failures or storage pressure make captures rarer, or no more."""
        now_s = self.interval_s
        if now_s == self._told_s:
            return
        reason = "failures" if self.state.failures else "storage pressure"
        change = IntervalChange(
            now_s, self._told_s, "" if now_s == self._rules.interval_s else reason
        )
        self._told_s = now_s
        _logger.warning(
            "%r is captured every %g s now%s.",
            self._config.system,
            now_s,
            f", because of {change.reason}" if change.reason else "",
        )
        self._engine.listeners.tell(listener.INTERVAL_CHANGED, change)

    def _slow_down(self) -> None:
        limit = self._config.alerts.storage_pressure
        try:
            pressure = self._engine.gauge.pressure()
        except CheckpointError:
            return
        engine = self._engine
        self.state = schedule.slowed(
            self._rules, self.state, slowdown(pressure, limit, engine.gauge.slowdown)
        )
        engine.gauge.slowdown = self.state.slowdown

    def _begin(self) -> Schedule:
        return schedule.begin(
            self._rules, self._clock(), self._unit(), last_wall_us=self._engine.last_us
        )

    def _clock(self) -> Clock:
        environment = self._engine.environment
        return Clock(environment.monotonic_s(), environment.now_us())

    def _unit(self) -> float:
        return int.from_bytes(self._engine.environment.random_bytes(4)) / _UNITS
