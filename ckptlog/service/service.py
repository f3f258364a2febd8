"""CheckpointService: a system that is saved every 30 seconds, and brought back with one call.

    new --initialize--> ready --start--> running <--pause/resume--> paused
                                 |          |  ^
                                 `--------> standby (another process owns the system)
    any of them --stop--> stopped --start--> running        --close--> closed

One process owns a system, by a lease in the log. Page: specs/service.md.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Final, Self

from ckptlog.errors import (
    CheckpointError,
    LeaseHeldError,
    ServiceStateError,
)
from ckptlog.manager.manager import CheckpointManager
from ckptlog.manager.opening import refuse_wrong_type
from ckptlog.model.codec import Codecs, TypeCodec
from ckptlog.model.component import Component, in_order, traits_of
from ckptlog.model.event import SERVICE_STARTED, SERVICE_STOPPED
from ckptlog.model.system_configuration import SystemConfiguration
from ckptlog.repository.store import Store
from ckptlog.service import listener, shutdown
from ckptlog.service.alerting import Alert
from ckptlog.service.capturable import Capturable
from ckptlog.service.engine import Engine
from ckptlog.service.listener import Listeners
from ckptlog.service.operation import Operation
from ckptlog.service.recoverable import Recoverable
from ckptlog.service.runner import WAKE, Runner
from ckptlog.service.tally import ServiceMetrics

NEW: Final = "new"
READY: Final = "ready"
RUNNING: Final = "running"
STANDBY: Final = "standby"
PAUSED: Final = "paused"
STOPPED: Final = "stopped"
CLOSED: Final = "closed"

# A capture that is at work when a service stops is waited for; its deadlines bound it.
_STOP_S: Final = 660.0
_CALLBACKS_S: Final = 5.0

_logger = logging.getLogger("ckptlog.service")


class CheckpointService(Capturable, Recoverable):
    """Saves a system at an interval, and recovers it. Made by `create_checkpoint_system`.

    As a context manager it starts on entry and closes at the end.

    Args:
        config: Settings.
        components: What the system is made of.
        store: An open store to use instead of storage.local.path; the caller closes it.
        codecs: How objects of your own types are stored.

    Raises:
        ComponentError: The components, or one of them, are not what they must be; or there is none.

    Durability: a capture that was told of survives a kill and a power cut.
    Threads: safe. A forked child's copy does nothing: its parent's service goes on.
    """

    def __init__(
        self,
        config: SystemConfiguration,
        components: Sequence[Component],
        *,
        store: Store | None = None,
        codecs: Codecs | Iterable[TypeCodec] = (),
    ) -> None:
        refuse_wrong_type("config", config, SystemConfiguration)
        refuse_wrong_type("store", store, Store)
        self.config = config
        self.components = list(components)
        in_order([traits_of(one) for one in self.components])
        self._store = store
        self._codecs = codecs
        self._listeners = Listeners()
        self._life = threading.RLock()
        self._manager: CheckpointManager | None = None
        self._engine: Engine | None = None
        self._runner: Runner | None = None
        self._state = NEW
        self._pid = os.getpid()

    # --- life ---------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """new, ready, running, standby, paused, stopped or closed."""
        if self._state == RUNNING:
            runner, engine = self._runner, self._engine
            if engine is not None and engine.lease is None:
                return STANDBY
            if runner is not None and runner.is_paused:
                return PAUSED
        return self._state

    def initialize(self) -> Self:
        """Open the store and look at what was captured before; twice is fine.

        Raises:
            CheckpointStorageError: The store cannot be opened.
        """
        self._check_process()
        if self._engine is not None:
            return self
        with self._life:
            if self._state == CLOSED:
                raise _wrong_state("initialising", CLOSED, "Make another service.")
            if self._engine is None:
                self._open()
                self._state = READY
        return self

    def _open(self) -> None:
        config = self.config.checkpoint_configuration()
        if self._store is None:
            manager = CheckpointManager(config=config, codecs=self._codecs)
        else:
            manager = CheckpointManager(store=self._store, actor=config.actor)
        try:
            self._engine = Engine(manager, self.config, self.components, self._listeners)
        except BaseException:
            manager.close()
            raise
        self._manager = manager

    def start(self, *, signals: bool = True) -> Self:
        """Own the system and capture it from now on; twice is fine.

        A recovery that a crash interrupted is finished first.

        Args:
            signals: Whether to take in signals (captureSignals, SIGTERM); in the main thread only.

        Raises:
            LeaseHeldError: Another process owns the system, and `standby` is off.
            ServiceBusyError: What is at work by hand took more than 660 s; or it was called out of
                that.
            CheckpointError: An interrupted recovery could not be finished.
            RuntimeError: No thread is to be had; the system is not owned.
        """
        self.initialize()
        self._ready().turn.refuse_own()
        with self._life:
            if self._runner is not None and not self._runner.is_stopping:
                return self
            self._end("start")  # an interrupted stop() has left it half way
            engine = self._ready()
            runner = Runner(engine, self.config, self._terminate)
            # What is at work by hand shows no lease, and would be refused for its own service's.
            with engine.turn.alone():
                self._begin(runner, signals=signals)
        self._listeners.start()
        self._listeners.tell(listener.SERVICE_STARTED, self)
        return self

    def _begin(self, runner: Runner, *, signals: bool) -> None:
        """Own the system, and let the runner work; or, also where that is interrupted, neither."""
        before = self._state
        try:
            self._claim(runner)
            runner.start()
            self._runner, self._state = runner, RUNNING
            shutdown.at_exit(self)
            self._record(SERVICE_STARTED, {"components": len(self.components)})
            if signals:  # before the first capture: SIGTERM may come in it
                self.listen_to_signals()
            runner.go()
        except BaseException:
            self._runner, self._state = None, before
            runner.stop(0.0)
            runner.end()
            shutdown.leave(self)
            shutdown.forget(self)
            self._release()
            raise

    def _claim(self, runner: Runner) -> None:
        try:
            runner.claim()
        except LeaseHeldError as error:
            if not self.config.standby:
                error.message = (
                    f"The system {self.config.system!r} is owned by another service: "
                    + (error.message)
                )
                error.hint = (
                    "Stop that one, or set standby=True to wait until it ends; an operator can end "
                    f"its lease: ckptlog leases release {self.config.system} --force."
                )
                raise
            return
        self._finish_recovery()

    def listen_to_signals(self) -> tuple[str, ...]:
        """Take in the signals of the configuration; return those that could be had.

        `start()` does it. Call it in the main thread where that was called in another.
        """
        names = self.config.capture_signals
        if self.config.capture_on_shutdown:
            names = (*names, shutdown.TERMINATE)
        return shutdown.listen(self, names)

    def stop(self) -> None:
        """Wait for what is at work, capture once more if something changed, give the system up.

        A recovery that takes longer than 660 s is cancelled, and its rollback waited for. What
        fails meanwhile is logged and told, and stops nobody. Twice is fine; the service can be
        started again. Where it is interrupted (KeyboardInterrupt) while it waits, the system is
        owned still, and captured no more: the next `stop`, `close` or `start` goes on with it, and
        so does the interpreter's end.

        Raises:
            ServiceBusyError: It was called out of a recovery or a capture: by a component, or by
                `on_progress`.
        """
        if self._may_stop():
            try:
                self._stop("stop")
            finally:
                shutdown.terminated()

    def _may_stop(self) -> bool:
        """Say whether the thread and the lease are this process's; refuse who would wait for us."""
        if self._pid != os.getpid():
            return False
        if (engine := self._engine) is not None:
            engine.turn.refuse_own()  # before _life: who has that may wait for what is at work
        return True

    def _stop(self, reason: str) -> None:
        with self._life:
            is_ended = self._end(reason)
        if is_ended:
            self._listeners.end(_CALLBACKS_S)

    def _end(self, reason: str) -> bool:
        """Give the system up; False where it is not ours."""
        runner, engine = self._runner, self._engine
        if runner is None or engine is None:
            return False
        end_s = time.monotonic() + _STOP_S
        is_over = runner.stop(_STOP_S)
        # Whoever is in the middle of something needs the lease, and the store.
        with engine.turn.halted(max(end_s - time.monotonic(), 0.0)) as is_quiet:
            try:
                if not (is_over and is_quiet):
                    _logger.error("A capture is at work still; the service stops without it.")
                elif self.config.capture_on_shutdown and engine.lease is not None:
                    self._capture_last(engine, reason)
                engine.keeper.stop()
                self._record(SERVICE_STOPPED, {"reason": reason})
            finally:  # also where the last capture was interrupted
                self._release()
                self._runner, self._state = None, STOPPED
                runner.end()
                # Last: SIGTERM, or the interpreter's end, may come before all of this is done.
                shutdown.leave(self)
                shutdown.forget(self)
                self._listeners.tell(listener.SERVICE_STOPPED, self)
        return True

    def _capture_last(self, engine: Engine, reason: str) -> None:
        if engine.unfinished.look():  # the next start finishes the recovery first
            _logger.warning("No last capture: a recovery came to no end.")
            return
        try:
            engine.capture("shutdown", description=reason, skip_unchanged=True)
            engine.clean_up()
        except CheckpointError:  # it was logged and told
            return
        except Exception:  # whatever it was, the lease must be released behind it
            _logger.exception("No last capture")

    def _release(self) -> None:
        engine = self._engine
        if engine is None or engine.lease is None:
            return
        lease, engine.lease = engine.lease, None
        try:
            lease.release()
        except CheckpointError as error:  # it expires by itself
            _logger.warning("The lease on %r was not released: %s", self.config.system, error)

    def _terminate(self) -> None:
        """Stop because of SIGTERM; in the runner's thread."""
        try:
            self._stop(shutdown.TERMINATE)
        finally:
            self.close()

    def signalled(self, name: str) -> None:
        """Take in a signal; called in its handler."""
        runner = self._runner
        if runner is not None:
            runner.tell(name)

    def close(self) -> None:
        """Stop, and close the store if it was opened here. Twice is fine.

        What is at work is waited for, as by `stop`.

        Raises:
            ServiceBusyError: As `stop`.
        """
        if not self._may_stop():
            return
        try:
            self._stop("close")
        finally:
            with self._life:
                if self._runner is None:  # otherwise it was interrupted: something is at work still
                    self._close()
            shutdown.terminated()

    def _close(self) -> None:
        manager, engine = self._manager, self._engine
        if manager is None or engine is None:
            self._state = CLOSED
            return
        # One that is stopped captures and recovers by hand still.
        with engine.turn.halted(_STOP_S):
            engine.keeper.stop()
            self._manager, self._engine, self._state = None, None, CLOSED
            manager.close()

    def pause(self) -> None:
        """Take no automatic captures until `resume`; those by hand and by signal go on."""
        self._pause(is_paused=True)

    def resume(self) -> None:
        """Capture again; at once, if one was due meanwhile."""
        self._pause(is_paused=False)

    def _pause(self, *, is_paused: bool) -> None:
        self._check_process()
        runner = self._runner
        if runner is None:
            raise _wrong_state("pausing and resuming", self.state, "Call start().")
        if runner.is_paused != is_paused:
            runner.is_paused = is_paused
            runner.tell(WAKE)
            event = listener.SERVICE_PAUSED if is_paused else listener.SERVICE_RESUMED
            self._listeners.tell(event, self)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except Exception:
            raise
        except BaseException:  # interrupted when it had begun: nobody would close it
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<CheckpointService {self.config.system!r} {self.state}>"

    # --- its system ---------------------------------------------------------------------------

    def _lost(self) -> None:
        if self._runner is not None:
            self._runner.overtaken()

    def _finish_recovery(self) -> None:
        from ckptlog.service.recovering import finish

        finish(self._ready())

    # --- what is known ------------------------------------------------------------------------

    def on(self, event: str, callback: Callable[[Any], object]) -> Callable[[], None]:
        """Call a function when something happens; return what ends that.

        Events, in camelCase or snake_case, and what the function gets: specs/service.md, section 5.
        "*" means all. Callbacks run one after the other in a thread of their own; what they
        raise is logged.

        Raises:
            ArgumentError: There is no such event, or it is a coroutine or generator function.
        """
        return self._listeners.on(event, callback)

    @property
    def current_operation(self) -> Operation | None:
        """What is done right now; None where nothing is."""
        engine = self._engine
        return None if engine is None else engine.turn.current

    @property
    def alerts(self) -> list[Alert]:
        """Alerts that are on."""
        engine = self._engine
        return [] if engine is None else list(engine.alerts.on.values())

    @property
    def store(self) -> Store:
        """The open store."""
        return self._ready().manager.store

    def get_metrics(self) -> ServiceMetrics:
        """Return how the service does: each figure of the specification, and more."""
        runner = self._runner
        more: dict[str, Any] = {"interval_seconds": self.config.interval_seconds}
        if runner is not None:
            more = {
                "missed": runner.state.missed,
                "failures_in_a_row": runner.state.failures,
                "interval_seconds": runner.interval_s,
            }
        return self._ready(is_reading=True).metrics(**more)

    def _record(self, kind: str, facts: dict[str, int | str]) -> None:
        """Append an event about the service; that it fails is no reason to stop."""
        engine = self._ready()
        holder = "" if engine.lease is None else engine.lease.holder
        facts = {**facts, "holder": holder, "interval_ms": int(self.config.interval_seconds * 1000)}
        try:
            engine.manager.record(kind, facts, task=self.config.system)
        except CheckpointError as error:
            _logger.warning("%s was not recorded: %s (%s)", kind, error, error.code)

    def _ready(self, *, is_reading: bool = False) -> Engine:
        if not is_reading:
            self._check_process()
        engine = self._engine
        if engine is None:
            hint = (
                "Make another." if self._state == CLOSED else "Call initialize() or start() first."
            )
            raise ServiceStateError(
                f"The service is {self._state}: it has no open store.", hint=hint, state=self._state
            )
        return engine

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise ServiceStateError(
                f"This service belongs to process {self._pid}; this one was forked from it.",
                hint="Make a service, of another system, in each process.",
                pid=self._pid,
            )


def _wrong_state(what: str, state: str, hint: str) -> ServiceStateError:
    return ServiceStateError(
        f"The service is {state}; {what} cannot be done now.", hint=hint, state=state
    )
