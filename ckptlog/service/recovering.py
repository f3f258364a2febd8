"""Recoveries of a service: one at a time, no capture meanwhile, counted and told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ckptlog.errors import CheckpointError, RecoveryIncompleteError
from ckptlog.policy.alarm import INCOMPLETE, Reading
from ckptlog.service import listener, operation
from ckptlog.service.engine import Engine
from ckptlog.service.operation import Operation

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
    """Finish a recovery that a crash interrupted, or roll it back, where the log tells of one."""
    if not engine.tally.is_recovering:
        return
    from ckptlog.recovery.recovery import Recovery

    Recovery(engine.capturer, lease=engine.lease).resume()
