"""Recovery: brings a system back to what was captured, whole or not at all (specs/recovery.md).

    find -> check -> validate -> (dry run: plans, the end) -> safety capture -> recovery.started
         -> restore, one component after the other -> verify -> recovery.completed
    a failure: those that were touched are restored from the safety capture, in reverse order

Invariants:
- Nothing is touched before every payload is read, verified and found fit, and what is there
  is saved.
- A system ends as what was captured or as what it was before; where that cannot be reached, the
  error says so and the log shows the recovery as unfinished, until resume(), roll_back() or
  abandon().
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from ckptlog.capture.capturer import Capturer
from ckptlog.capture.owner import refuse_owned
from ckptlog.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    RecoveryRefusedError,
    RecoveryUnfinishedError,
)
from ckptlog.manager.unfinished import Unfinished
from ckptlog.model.capture import CaptureInfo
from ckptlog.recovery import progress as stage
from ckptlog.recovery import stray
from ckptlog.recovery.absent import place_of
from ckptlog.recovery.breaker import BreakerSettings
from ckptlog.recovery.course import Course, Settings
from ckptlog.recovery.elsewhere import restore_elsewhere
from ckptlog.recovery.guard import guards_of
from ckptlog.recovery.journal import Journal
from ckptlog.recovery.pictures import iterated
from ckptlog.recovery.progress import RecoveryProgress, Tracker
from ckptlog.recovery.request import Cancel, OnProgress, Request, check_watchers
from ckptlog.recovery.retry import Backoff
from ckptlog.recovery.run import Run
from ckptlog.recovery.target import Wanted, told, wanted

SAFETY = "safety"


class Recovery:
    """Recovers one system.

    Args:
        capturer: Of the system, with its components.
        lease: Refuse to write when it was lost.
        backoff: How errors that may pass are met again.
        breakers: When components and the storage are left alone; the first Recovery of a capturer
            decides.
        deadline_s: How long one call of a component may take.
        parts_deadline_s: The same, of a component that reads its payload by parts (a directory, a
            database); None: as deadline_s.

    Durability: every step is an event before it is made. Threads: safe; one recovery at a time,
        in all processes; others are refused.
    """

    def __init__(
        self,
        capturer: Capturer,
        *,
        lease: Any = None,
        backoff: Backoff | None = None,
        breakers: BreakerSettings | None = None,
        deadline_s: float = 600.0,
        parts_deadline_s: float | None = None,
    ) -> None:
        self.capturer = capturer
        self.journal = Journal(capturer.manager, capturer.system, lease)
        self.guards = guards_of(capturer, breakers)
        self._settings = Settings(
            lease, backoff or Backoff(), deadline_s, parts_deadline_s or deadline_s
        )
        self._tracker: Tracker | None = None

    @property
    def progress(self) -> RecoveryProgress | None:
        """The newest picture of the recovery that goes on, or of the last one."""
        tracker = self._tracker
        return None if tracker is None else tracker.now

    def find(
        self, capture_id: str | None = None, *, at: datetime | int | None = None
    ) -> CaptureInfo:
        """Return the capture that would be restored.

        Without arguments that is the newest one that is no recovery's safety capture; `at` counts
        those too, because they are what the system was at that time.

        Raises:
            CheckpointNotFoundError: There is none.
        """
        if capture_id is not None or at is not None:
            return self.capturer.find(capture_id, at=at)
        for info in self.capturer.each():
            if info.reason != SAFETY:
                return info
        raise CheckpointNotFoundError(
            f"System {self.capturer.system!r} has no capture.",
            hint="Take one first.",
            system=self.capturer.system,
        )

    def recover(
        self,
        capture_id: str | None = None,
        *,
        at: datetime | int | None = None,
        components: Iterable[str] | None = None,
        partial: bool = False,
        dry_run: bool = False,
        to: str | os.PathLike[str] | None = None,
        on_progress: OnProgress | None = None,
        cancel: Cancel | None = None,
        verify: bool = True,
        safety: bool = True,
    ) -> RecoveryProgress:
        """Bring the system back to a capture.

        Args:
            at: The newest capture not after this time (aware), or this position.
            components: Only these.
            partial: Those that the capture and the system have in common; otherwise each must be
                on both sides.
            dry_run: Change nothing, and tell what would be; errors are told, not raised.
            to: A directory: restore there, and leave the system as it is.
            on_progress: Called with each picture.
            cancel: Asked between components, and whenever one reads; what was touched is put back.
            verify: Compare what was restored.
            safety: Save what is there first. Without it nothing can be put back.

        Raises:
            ArgumentError: An argument is wrong; nothing was begun.
            RecoveryFailedError: A component failed; what was touched was rolled back.
            RecoveryIncompleteError: And that failed too.
            RecoveryCancelledError: It was cancelled, and rolled back.
            RecoveryRefusedError: Something is not fit; nothing was touched.
            RecoveryUnfinishedError: An earlier recovery ended in the middle.
            RecoveryBusyError: Another process or thread recovers the system.
            CircuitOpenError: A component, or the storage, failed too often.
            CaptureFailedError, CheckpointStorageError: What is there cannot be saved; nothing was
                touched.
        """
        asked = Request(
            capture_id=capture_id,
            at=at,
            components=components,
            partial=partial,
            dry_run=dry_run,
            to=to,
            on_progress=on_progress,
            cancel=cancel,
            verify=verify,
            safety=safety,
        )
        return self._recover(asked)

    def _recover(self, asked: Request) -> RecoveryProgress:
        given = wanted(asked.components, partial=asked.partial)
        run = self._run(asked.on_progress, asked.cancel, dry_run=asked.dry_run)
        if asked.dry_run:
            return self._dry(run, given, asked)
        try:
            if asked.to is not None:
                info = self.find(asked.capture_id, at=asked.at)
                return restore_elsewhere(
                    run.course, run.preflight, info, given=given, folder=Path(asked.to)
                )
            with self._alone():
                self._refuse_unfinished()
                self._refuse_owned()
                self._sweep(None)
                info = self.find(asked.capture_id, at=asked.at)
                run.preflight.begin(info, given)
                run.preflight.warn()
                run.preflight.validate()
                if asked.safety:
                    run.save(info)
                return run.restore(is_verified=asked.verify)
        except BaseException as error:
            run.ended(error)
            raise

    def iterate(self, *arguments: Any, **options: Any) -> Iterator[RecoveryProgress]:
        """Recover, and yield each picture; what recover() raises is raised at the end.

        Whoever stops iterating cancels the recovery, and waits for the rollback.
        """
        return iterated(
            lambda on_progress, cancel: self.recover(
                *arguments, on_progress=on_progress, cancel=cancel, **options
            ),
            options.pop("cancel", None),
        )

    # --- after a crash ------------------------------------------------------------------------

    def unfinished(self) -> Unfinished | None:
        """Return the recovery that ended in the middle, if there is one."""
        return self.journal.unfinished()

    def resume(
        self,
        *,
        on_progress: OnProgress | None = None,
        cancel: Cancel | None = None,
        verify: bool = True,
        safety: bool = True,
    ) -> RecoveryProgress | None:
        """Finish a recovery that ended in the middle; None where there is none.

        What is there is captured, as somebody may have worked on; then all of its components are
        restored again. When that fails, it is rolled back.

        Args:
            safety: Capture what is there first, where it is not that of the newest capture;
                `warnings` name the capture. Where that fails the recovery stays unfinished.

        Raises: As `recover`.
        """
        return self._again(
            on_progress,
            cancel,
            lambda run, found: run.resume(found, is_verified=verify, is_saved=safety),
        )

    def roll_back(
        self, *, on_progress: OnProgress | None = None, safety: bool = True
    ) -> RecoveryProgress | None:
        """Undo a recovery that ended in the middle; None where there is none.

        Args:
            safety: As of `resume`.

        Raises:
            RecoveryIncompleteError: A component failed; the others were put back.
            RecoveryRefusedError: It had no safety capture.
            CaptureFailedError, CheckpointStorageError: What is there cannot be saved; the recovery
                stays unfinished.
        """
        return self._again(
            on_progress, None, lambda run, found: run.roll_back(found, is_saved=safety)
        )

    def abandon(self, *, on_progress: OnProgress | None = None) -> RecoveryProgress | None:
        """Give up a recovery that ended in the middle; None where there is none.

        Nothing is read or restored, so it is the way out where its captures are gone or damaged,
        or a component can neither be restored nor put back. What it needed is pinned no more.

        Returns:
            `restored` are as in the capture, `mixed` may be half of it, the other `components` are
            as they were before; `safety_id` has what all of them were before.

        Raises:
            RecoveryBusyError: Another process or thread recovers the system.
            LeaseRequiredError: A living process owns it.
        """
        return self._again(on_progress, None, lambda run, found: run.abandon(found))

    def sweep(self) -> list[str]:
        """Unpin what recoveries of older versions left pinned (recovery.stray); return the ids."""
        return stray.sweep(self.capturer, self.journal.unfinished())

    def _sweep(self, found: Unfinished | None) -> None:
        """Do so on the way; a pin too much loses nothing."""
        with suppress(CheckpointError):
            stray.sweep(self.capturer, found)

    def _again(
        self,
        on_progress: OnProgress | None,
        cancel: Cancel | None,
        act: Callable[[Run, Unfinished], RecoveryProgress],
    ) -> RecoveryProgress | None:
        check_watchers(on_progress, cancel)
        with self._alone():
            found = self.journal.unfinished()
            if found is None:
                return None
            self._refuse_hung()
            self._refuse_owned()
            self._sweep(found)
            run = self._run(on_progress, cancel)
            try:
                return act(run, found)
            except BaseException as error:
                run.ended(error)
                raise

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the only one who recovers the system, or restores a place of it.

        Raises:
            RecoveryBusyError: Somebody else does.
        """
        with ExitStack() as stack:
            stack.enter_context(self.journal.alone())
            for component in self.capturer.components.values():
                if hasattr(component, "alone"):
                    stack.enter_context(component.alone())
            yield

    # --- steps --------------------------------------------------------------------------------

    def _run(
        self, on_progress: OnProgress | None, cancel: Cancel | None, *, dry_run: bool = False
    ) -> Run:
        check_watchers(on_progress, cancel)
        self._tracker = Tracker(on_progress, system=self.capturer.system, dry_run=dry_run)
        course = Course(self._tracker, cancel)
        return Run(self.capturer, self.journal, self.guards, self._settings, course)

    def _dry(self, run: Run, given: Wanted, asked: Request) -> RecoveryProgress:
        tracker = run.course.tracker
        for refuse in (self._refuse_unfinished, partial(self._refuse_owned, is_dry=True)):
            if asked.to is None:  # elsewhere the system is left as it is, whoever owns it
                self._try_dry(tracker, refuse)
        try:
            info = self.find(asked.capture_id, at=asked.at)
            run.preflight.plan(info, given, self.journal.rate)
        except Exception as error:  # noqa: BLE001 - a dry run tells, it does not raise
            tracker.error(told(error))
        tracker.to(status=stage.PLANNED)
        return tracker.now

    def _try_dry(self, tracker: Tracker, refuse: Callable[[], None]) -> None:
        """Tell why a recovery would be refused before it looks at a capture."""
        try:
            refuse()
        except CheckpointError as error:
            tracker.error(told(error))

    def _refuse_unfinished(self) -> None:
        self._refuse_hung()
        if (found := self.journal.unfinished()) is not None:
            raise _unfinished(found)

    def _refuse_owned(self, *, is_dry: bool = False) -> None:
        """Leave a system alone that a living process owns; of a dead one the lease is ended."""
        if self._settings.lease is not None:
            return
        places = [place_of(one) for one in self.capturer.components.values()]
        manager, system = self.capturer.manager, self.capturer.system
        refuse_owned(manager, system, filter(None, places), is_dry=is_dry)

    def _refuse_hung(self) -> None:
        if hung := self.guards.still_hung():
            raise RecoveryRefusedError(
                f"Component {hung[0]!r} still hangs in an earlier recovery.",
                hint="Mend what it waits for, or start the program anew.",
                component=hung[0],
            )


def _unfinished(found: Unfinished) -> RecoveryUnfinishedError:
    return RecoveryUnfinishedError(
        f"The recovery {found.id} of capture {found.capture} ended in the middle.",
        hint="ckptlog recover --resume finishes it, --roll-back undoes it, --abandon gives it up "
        "(in a program: resume(), roll_back(), abandon()).",
        recovery=found.id,
        capture=found.capture,
        safety=found.safety,
    )
