"""Recoveries of a service: one at a time, no capture meanwhile, counted and told.

    check the request -> find the capture -> recoveryStarted -> ... -> one end, always:
    recoveryCompleted | recoveryPlanned (a dry run) | recoveryRolledBack | recoveryAbandoned |
    recoveryFailed

What is refused before recoveryStarted was the caller's mistake: it is counted, and nothing is told.
Where a recovery can neither be finished nor rolled back, the engine is incomplete: nothing is
captured until one of them succeeds.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ckptlog.errors import (
    ArgumentError,
    CheckpointError,
    RecoveryFailedError,
    RecoveryIncompleteError,
    RecoveryUnfinishedError,
)
from ckptlog.model.quotation import quoted
from ckptlog.model.setting import nearest
from ckptlog.recovery.progress import SAVING
from ckptlog.service import listener, operation
from ckptlog.service.engine import Engine
from ckptlog.service.operation import Operation, moment
from ckptlog.service.unfinished import UNFINISHED_HINT

if TYPE_CHECKING:
    from ckptlog.recovery.progress import RecoveryProgress
    from ckptlog.recovery.recovery import Recovery
    from ckptlog.recovery.request import OnProgress, Request

DRY_RUN = "dry run"
MANUAL = "manual"
RESUME = "resume"
ROLL_BACK = "roll back"
ABANDON = "abandon"

Act = Callable[["Recovery", "OnProgress"], "RecoveryProgress | None"]


def recover(engine: Engine, request: Request) -> RecoveryProgress:
    """Recover; see `CheckpointService.recover_from_checkpoint`."""
    from ckptlog.recovery.pictures import Either

    def act(recovery: Recovery, on_progress: OnProgress) -> RecoveryProgress:
        watchers = {
            "on_progress": on_progress,
            "cancel": Either(engine.turn.is_ending, request.cancel),
        }
        found = recovery.recover(**{**request.options(), **watchers})
        if not request.dry_run and request.to is None:
            engine.unfinished.complete()
        return found

    def check(recovery: Recovery) -> bool:
        """Refuse what nothing could be begun with; a dry run tells it as errors."""
        if not request.dry_run:
            _refuse_unknown(engine, request)
            recovery.find(request.capture_id, at=request.at)
        return True

    reason = DRY_RUN if request.dry_run else MANUAL
    progress = _told(engine, reason, act, on_progress=request.on_progress, check=check)
    assert progress is not None  # noqa: S101 - only resume and roll_back have nothing to do
    if not request.dry_run and request.to is None:
        _clean_up(engine, reason)
    return progress


def resume(engine: Engine, **options: Any) -> RecoveryProgress | None:
    """Finish what ended in the middle; see `CheckpointService.resume_recovery`."""
    from ckptlog.recovery.pictures import Either

    on_progress = options.pop("on_progress", None)
    cancel = Either(engine.turn.is_ending, options.pop("cancel", None))

    def act(recovery: Recovery, tell: OnProgress) -> RecoveryProgress | None:
        return recovery.resume(on_progress=tell, cancel=cancel, **options)

    return _again(engine, RESUME, act, on_progress)


def roll_back(
    engine: Engine, on_progress: OnProgress | None, *, safety: bool
) -> RecoveryProgress | None:
    """Undo what ended in the middle; see `CheckpointService.roll_back_recovery`."""

    def act(recovery: Recovery, tell: OnProgress) -> RecoveryProgress | None:
        return recovery.roll_back(on_progress=tell, safety=safety)

    return _again(engine, ROLL_BACK, act, on_progress)


def abandon(engine: Engine, on_progress: OnProgress | None) -> RecoveryProgress | None:
    """Give up what ended in the middle; see `CheckpointService.abandon_recovery`."""

    def act(recovery: Recovery, tell: OnProgress) -> RecoveryProgress | None:
        return recovery.abandon(on_progress=tell)

    return _again(engine, ABANDON, act, on_progress)


def _again(
    engine: Engine, reason: str, act: Act, on_progress: OnProgress | None
) -> RecoveryProgress | None:
    def ending(recovery: Recovery, tell: OnProgress) -> RecoveryProgress | None:
        progress = act(recovery, tell)
        engine.unfinished.complete()
        return progress

    def check(recovery: Recovery) -> bool:
        """Say whether there is one; another process may have seen to it."""
        is_unfinished = recovery.unfinished() is not None
        if not is_unfinished:
            engine.unfinished.complete()
        return is_unfinished

    progress = _told(engine, reason, ending, on_progress=on_progress, check=check)
    if progress is not None:
        _clean_up(engine, reason)
    return progress


def _clean_up(engine: Engine, reason: str) -> None:
    """Let go of what recoveries saved beyond the newest few, unless one of them is needed still."""
    if reason != DRY_RUN and engine.unfinished.error is None:
        engine.clean_up()


def finish(engine: Engine) -> None:
    """Finish a recovery that a crash interrupted, or roll it back, where the log tells of one.

    Asked whenever the system becomes ours, before the first capture, and of all of the log: it
    may have been interrupted long ago, or by the owner that we have waited for.

    Raises:
        CheckpointError: It was neither finished nor rolled back; nothing may be captured.
    """
    with suppress(CheckpointError):  # a pin too much loses nothing
        _recovery(engine).sweep()
    try:
        resume(engine)
    except RecoveryFailedError:  # it was told
        if engine.unfinished.error is not None:
            raise


def finish_later(engine: Engine) -> None:
    """Finish it in a service that runs already: where that fails, nothing is captured."""
    try:
        finish(engine)
    except CheckpointError as error:
        engine.unfinished.leave(error)


def _told(
    engine: Engine,
    reason: str,
    act: Act,
    *,
    on_progress: OnProgress | None,
    check: Callable[[Recovery], bool],
) -> RecoveryProgress | None:
    """Do it as the engine's one operation, and tell how it ends.

    Whether the system is a mixture is noted before the next operation begins: a capture may wait
    for this one to end, and another recovery may come to no end.

    Args:
        act: Does it, and notes that the system is whole.
        check: Says whether there is anything to do; what it raises was the caller's mistake.
    """
    done: Operation | None = None
    is_started = False
    progress: RecoveryProgress | None = None
    try:
        with engine.turn.operation(operation.RECOVERY, reason) as done:
            recovery = _recovery(engine)
            if not check(recovery):
                return None
            is_started = True
            engine.listeners.tell(listener.RECOVERY_STARTED, done)
            try:
                progress = act(recovery, _Teller(engine, done, on_progress))
            except BaseException as error:
                if reason != DRY_RUN:
                    engine.unfinished.settle(operation.known(error))
                raise
    except BaseException as error:
        _failed(engine, done, error, reason=reason, is_started=is_started)
        if is_started and isinstance(error, CheckpointError):
            _clean_up(engine, reason)
        raise
    engine.touch()
    if reason not in {DRY_RUN, ABANDON}:
        engine.tally.recovered(done.seconds, done.slowest)
        engine.look()
    engine.listeners.tell(_ENDS.get(reason, listener.RECOVERY_COMPLETED), progress)
    return progress


_ENDS = {
    DRY_RUN: listener.RECOVERY_PLANNED,
    ROLL_BACK: listener.RECOVERY_ROLLED_BACK,
    ABANDON: listener.RECOVERY_ABANDONED,
}


class _Teller:
    """Takes in each picture: for the operation, the caller's callback, and the listeners."""

    def __init__(self, engine: Engine, done: Operation, on_progress: OnProgress | None) -> None:
        self._engine, self._done, self._on_progress = engine, done, on_progress
        self._saved = ""

    def __call__(self, progress: RecoveryProgress) -> None:
        done = self._done
        done.percent, done.checkpoint_id = progress.percent, progress.capture_id
        done.enter(progress.component, self._engine.environment.monotonic_s())
        try:
            if self._on_progress is not None:
                # A component may read, and so make steps, in whatever thread.
                with self._engine.turn.calling(done):
                    self._on_progress(progress)
        finally:
            self._engine.listeners.tell(listener.RECOVERY_PROGRESS, progress)
            self._tell_of_safety(progress)

    def _tell_of_safety(self, progress: RecoveryProgress) -> None:
        """Tell of the safety capture when it is durable; not of one that an earlier run took."""
        is_new = progress.status == SAVING and progress.safety_id != self._saved
        if is_new:
            self._saved = progress.safety_id
            info = self._engine.capturer.find(progress.safety_id)
            self._engine.listeners.tell(listener.CHECKPOINT_CREATED, info)


def _failed(
    engine: Engine, done: Operation | None, error: BaseException, *, reason: str, is_started: bool
) -> None:
    """Count and tell what went wrong; whoever was told of a start is told of an end."""
    known = operation.known(error)
    if isinstance(error, RecoveryIncompleteError | RecoveryUnfinishedError):
        error.hint = UNFINISHED_HINT
    if done is None:
        done = Operation(operation.RECOVERY, reason, moment(engine.environment.now_us()))
        done.fail(known)
    if is_started:
        engine.listeners.tell(listener.RECOVERY_FAILED, done)
    engine.fail(done, known)


def _recovery(engine: Engine) -> Recovery:
    from ckptlog.recovery.breaker import BreakerSettings
    from ckptlog.recovery.recovery import Recovery
    from ckptlog.recovery.retry import Backoff

    config, given = engine.config, engine.config.recovery
    return Recovery(
        engine.capturer,
        lease=engine.lease,
        backoff=Backoff(
            attempts=given.retry_attempts,
            first_s=given.retry_delay_seconds,
            factor=given.retry_factor,
            longest_s=given.retry_delay_max_seconds,
        ),
        breakers=BreakerSettings(
            failures_max=given.breaker_failures,
            rest_s=given.breaker_rest_seconds,
            rest_max_s=given.breaker_rest_max_seconds,
        ),
        deadline_s=config.restore_s,
        parts_deadline_s=config.restore_parts_s,
    )


def _refuse_unknown(engine: Engine, request: Request) -> None:
    """Refuse a name that the system does not have: a slip of the pen."""
    have = engine.capturer.components
    for name in request.components or ():
        if name in have:
            continue
        meant = nearest(name, have)
        raise ArgumentError(
            f"The system {engine.config.system!r} has no component {quoted(name)}.",
            hint=f"Did you mean {meant!r}?" if meant else f"It has {', '.join(have)}.",
            argument="components",
        )
