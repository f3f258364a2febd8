"""Recoveries of a service: one at a time, no capture meanwhile, counted and told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ckptlog.errors import CheckpointError, RecoveryIncompleteError
from ckptlog.policy.alarm import INCOMPLETE, Reading
from ckptlog.service import listener, operation
from ckptlog.service.engine import Engine
from ckptlog.service.operation import Operation, moment

if TYPE_CHECKING:
    from ckptlog.recovery.progress import RecoveryProgress


def recover(
    engine: Engine,
    *,
    components: Iterable[str] | None,
    dry_run: bool,
    on_progress: Callable[[RecoveryProgress], object] | None,
    **options: Any,
) -> RecoveryProgress:
    """Recover; see `CheckpointService.recover_from_checkpoint`."""
    from ckptlog.recovery.recovery import Recovery

    done: Operation | None = None
    reason = "dry run" if dry_run else "manual"
    try:
        with engine.operation(operation.RECOVERY, reason) as done:
            current = done

            def tell(progress: RecoveryProgress) -> None:
                current.percent, current.component = progress.percent, progress.component
                if on_progress is not None:
                    on_progress(progress)
                engine.listeners.tell(listener.RECOVERY_PROGRESS, progress)

            engine.listeners.tell(listener.RECOVERY_STARTED, done)
            progress: RecoveryProgress = Recovery(engine.capturer, lease=engine.lease).recover(
                components=None if components is None else list(components),
                dry_run=dry_run,
                on_progress=tell,
                **options,
            )
    except CheckpointError as error:
        if isinstance(error, RecoveryIncompleteError):
            engine.is_incomplete = True
            engine.alerts.take([Reading(INCOMPLETE, 1, 1, error.message)])
        engine.listeners.tell(listener.RECOVERY_FAILED, done)
        engine.fail(done, error)
        raise
    engine.touch()
    if not dry_run:
        engine.is_incomplete = False
        engine.alerts.take([Reading(INCOMPLETE, 0, 1)])
        engine.tally.recovered(done.seconds)
        engine.look()
    engine.listeners.tell(listener.RECOVERY_COMPLETED, progress)
    return progress


def finish(engine: Engine) -> None:
    """Finish a recovery that a crash interrupted, or roll it back, where the log tells of one.

    Asked whenever the system becomes ours, before the first capture, and of all of the log: it
    may have been interrupted long ago, or by the owner that we have waited for.

    Raises:
        CheckpointError: It was neither finished nor rolled back; nothing may be captured.
    """
    from ckptlog.recovery.journal import Journal

    if Journal(engine.manager, engine.config.system).unfinished() is None:
        return
    from ckptlog.recovery.recovery import Recovery

    Recovery(engine.capturer, lease=engine.lease).resume()


def finish_later(engine: Engine) -> None:
    """Finish it in a service that runs already: where that fails, nothing is captured."""
    try:
        finish(engine)
    except CheckpointError as error:
        engine.is_incomplete = True
        engine.alerts.take([Reading(INCOMPLETE, 1, 1, error.message)])
        done = Operation(operation.RECOVERY, "resume", moment(engine.environment.now_us()))
        done.fail(error)
        engine.listeners.tell(listener.RECOVERY_FAILED, done)
        engine.fail(done, error)
