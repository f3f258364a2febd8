"""One recovery at work: its steps in order, and what is told when one of them fails."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

from ckptlog.capture.capturer import Capturer
from ckptlog.errors import (
    CheckpointError,
    RecoveryCancelledError,
    RecoveryFailedError,
    RecoveryIncompleteError,
    RecoveryRefusedError,
)
from ckptlog.manager.unfinished import RESTORED, RESTORING, Unfinished
from ckptlog.model.capture import CaptureInfo
from ckptlog.recovery import aside, guard, safety
from ckptlog.recovery import progress as stage
from ckptlog.recovery.absent import Absent, place_of
from ckptlog.recovery.call import HungError
from ckptlog.recovery.course import CancelledError, Course, Settings
from ckptlog.recovery.guard import Guards
from ckptlog.recovery.journal import Journal
from ckptlog.recovery.preflight import Preflight
from ckptlog.recovery.progress import RecoveryProgress
from ckptlog.recovery.restorer import Restorer
from ckptlog.recovery.rollback import Rollback, sentence
from ckptlog.recovery.target import Target, Wanted, told


class Run:
    """One recovery.

    Attributes:
        course: Where it stands.
        preflight: What is checked before.

    Threads: one; components are called from threads of their own, one after the other.
    """

    def __init__(
        self,
        capturer: Capturer,
        journal: Journal,
        guards: Guards,
        settings: Settings,
        course: Course,
    ) -> None:
        self.course = course
        self.preflight = Preflight(course, capturer, guards, settings)
        self._tracker = course.tracker
        self._capturer = capturer
        self._journal = journal
        self._guards = guards
        self._settings = settings
        self._restorer = Restorer(course, settings, capturer.manager.store)
        self._rollback = Rollback(course, capturer, journal, guards, self._restorer)

    def save(self, info: CaptureInfo) -> None:
        """Capture what is there, so that it can be put back."""
        course = self.course
        course.check_cancelled()
        self._tracker.to(status=stage.SAVING)
        course.safety, missing = safety.save(
            self._capturer,
            course.targets,
            self._settings.deadline_of,
            description=f"before the recovery of {info.id}",
            tags=("safety",),
            reason="safety",
            lease=self._settings.lease,
        )
        course.record.missing = tuple(missing)
        self._tracker.to(missing=course.record.missing)
        for name in missing:
            self._tracker.error(
                f"Component {name!r} is missing; the safety capture says so, there was nothing to "
                "save of it."
            )
        if course.safety is not None:
            self._tracker.to(safety_id=course.safety.id)
            self._hold(course.safety)

    def _hold(self, saved: CaptureInfo) -> None:
        """Let restores overwrite nothing but what was saved."""
        stored = self._capturer.stored(saved)
        for target in self.course.targets:
            target.hold(saved, stored)

    def restore(self, *, recovery: str = "", is_verified: bool) -> RecoveryProgress:
        """Restore all targets, verify them, or put back what was touched.

        Args:
            recovery: Id of the recovery that is gone on with; "" for a new one.
        """
        course, begin = self.course, time.monotonic()
        course.check_cancelled()
        try:
            self._begin(recovery or secrets.token_hex(8))
        except BaseException as error:
            if not recovery:
                self._end_unbegun(error)
            raise
        self._restore_all(is_verified=is_verified)
        self._tracker.hold()  # it is done: what is left is to say so
        size, seconds = self._tracker.now.bytes_total, time.monotonic() - begin
        try:
            self._journal.completed(course.record, size, seconds, self._tracker.error)
        except CheckpointError as error:
            raise RecoveryIncompleteError(
                f"The system is as in {course.given.id}, verified, but that could not be "
                f"recorded: {error.message}",
                hint="When the store works again: resume(), or ckptlog recover --resume.",
                recovery=course.record.id,
                rolled_back=False,
            ) from error
        self._guards.storage().succeeded()
        self._tidy()
        self._journal.unfinished()  # the next one reads the log from here
        self._tracker.to(status=stage.COMPLETED)
        self._tracker.let_go()
        return self._tracker.now

    def resume(self, found: Unfinished, *, is_verified: bool, is_saved: bool) -> RecoveryProgress:
        """Restore all components of an unfinished recovery again.

        Args:
            is_saved: Whether what is there is captured before.
        """
        info = self._capturer.find(found.capture)
        names = tuple(info.components) if found.names is None else found.names
        self.preflight.begin(info, Wanted(names, is_partial=True))
        self.course.is_whole = found.names is None
        self.preflight.validate()
        if is_saved:
            self._hold(self._save_mixture(found, self.course.targets))
        if found.safety:
            self.course.safety = self._capturer.find(found.safety)
        self._tracker.to(status=stage.RESTORING, safety_id=found.safety)
        self.course.take_over(found)
        return self.restore(recovery=found.id, is_verified=is_verified)

    def roll_back(self, found: Unfinished, *, is_saved: bool) -> RecoveryProgress:
        """Put back what an unfinished recovery has touched; is_saved: as of `resume`."""
        if not found.safety and set(found.touched) - set(found.missing):
            raise RecoveryRefusedError(
                f"The recovery {found.id} was begun without a safety capture.",
                hint="Finish it: resume().",
                recovery=found.id,
            )
        self._tracker.to(recovery_id=found.id, capture_id=found.capture)
        self.course.safety = self._capturer.find(found.safety) if found.safety else None
        there = None
        if is_saved and found.touched:
            there = self._save_mixture(found, self._rollback.saved(found.touched))
        self._tracker.hold()
        self.course.record = found
        self._tracker.to(status=stage.ROLLING_BACK, safety_id=found.safety)
        lacking = self._rollback.put_back(there)
        if lacking:
            raise self._rollback.incomplete(lacking, None, "")
        self._journal.failed(found, "", "rolled back", self._tracker.error, is_rolled_back=True)
        self._journal.unfinished()
        self._tracker.to(status=stage.ROLLED_BACK, rolled_back=True)
        self._tracker.let_go()
        return self._tracker.now

    def _save_mixture(self, found: Unfinished, targets: Sequence[Target]) -> CaptureInfo:
        """Capture what is there, made since a recovery ended in the middle; return what holds it.

        Raises:
            CheckpointError: It cannot be captured; nothing was touched.
        """
        self._tracker.to(status=stage.SAVING)
        try:
            saved, _ = safety.save(
                self._capturer,
                targets,
                self._settings.deadline_of,
                description=f"before the end of the recovery {found.id}",
                tags=("safety",),
                reason="safety",
                lease=self._settings.lease,
                skip_unchanged=True,
            )
        except CheckpointError as error:
            error.hint = f"The recovery {found.id} stays unfinished. {error.hint}".strip()
            raise
        if saved is None:
            return self._capturer.find()
        told_of = f"What was there before is in the capture {saved.id}."
        self._tracker.to(safety_id=saved.id, warnings=(*self._tracker.now.warnings, told_of))
        return saved

    def abandon(self, found: Unfinished) -> RecoveryProgress:
        """End an unfinished recovery as it is, and tell what state its components are in."""
        mixed = tuple(name for name in found.touched if name not in found.restored)
        self._tracker.to(
            recovery_id=found.id,
            capture_id=found.capture,
            safety_id=self._there(found.safety),
            components=found.names or tuple(found.touched),
            restored=tuple(found.restored),
            mixed=mixed,
            missing=found.missing,
        )
        for name in found.touched:
            place = place_of(self._capturer.components.get(name))
            where = f"{place}.{aside.before(found.id)}"
            if place and os.path.lexists(where):
                self._tracker.error(f"Component {name!r}: what was there before lies at {where}")
        self._journal.abandoned(found, self._tracker.error)
        self._journal.unfinished()
        self._tracker.to(status=stage.ABANDONED)
        return self._tracker.now

    def _there(self, capture_id: str) -> str:
        """Return a capture's id; "" where it was deleted."""
        store = self._capturer.manager.store
        return capture_id if capture_id and store.newest(capture_id) is not None else ""

    def ended(self, error: BaseException) -> None:
        """Draw the last picture of a recovery that failed."""
        now = self._tracker.now
        errors = now.errors or (*now.errors, told(error))
        is_cancelled = isinstance(
            error, CancelledError | RecoveryCancelledError | KeyboardInterrupt
        )
        for _, breaker in self.preflight.breakers():
            breaker.gave_up()
        self._tracker.to(status=stage.CANCELLED if is_cancelled else stage.FAILED, errors=errors)

    # --- steps --------------------------------------------------------------------------------

    def _begin(self, recovery: str) -> None:
        """Tell the log that it begins; nothing was touched yet."""
        course = self.course
        record = course.record
        record.id, record.capture = recovery, course.given.id
        record.safety = course.safety.id if course.safety else ""
        record.names = None if course.is_whole else tuple(one.name for one in course.targets)
        self._tracker.to(recovery_id=recovery)
        for target in course.targets:
            if isinstance(target.component, Absent):
                target.component.suffix = aside.before(recovery)
        record.held = self._journal.started(record)

    def _end_unbegun(self, error: BaseException) -> None:
        """End a recovery that touched nothing, if the log says all the same that it began."""
        with suppress(CheckpointError):  # then it is unfinished, and whoever looks finds it so
            found = self._journal.settled()
            if found is not None and found.id == self.course.record.id:
                kind, told_of = type(error).__name__, self._tracker.error
                self._journal.failed(found, "", kind, told_of, is_rolled_back=True)

    def _restore_all(self, *, is_verified: bool) -> None:
        name = ""
        try:
            self._tracker.to(status=stage.RESTORING)
            for target in self.course.targets:
                name = target.name
                self.course.check_cancelled()
                self._restore(target)
            if is_verified:
                self._tracker.to(status=stage.VERIFYING)
                for target in self.course.targets:
                    name = target.name
                    self._restorer.verify(target)
            name = ""
            self.course.check_cancelled()
        except BaseException as error:  # noqa: BLE001 - _fail raises
            self._fail(error, name)

    def _restore(self, target: Target) -> None:
        record = self.course.record
        self.course.entered(target)
        self._journal.step(record.id, target.name, RESTORING)
        if target.name not in record.touched:
            record.touched.append(target.name)
        self._restorer.restore(target)
        self._journal.step(record.id, target.name, RESTORED)
        self.course.left(target)
        self._guards.component(target.name).succeeded()

    def _tidy(self) -> None:
        """Remove what was put aside, as far as the safety capture holds it, and tell what stays."""
        for target in self.course.targets:
            part = target.component
            place = place_of(part.stands_for) if isinstance(part, Absent) else ""
            where = f"{place}.{aside.before(self.course.record.id)}"
            if place and os.path.lexists(where) and not self._is_discarded(target, where):
                self._tracker.error(
                    f"Component {target.name!r} is missing, as it was; what no capture has of it "
                    f"stays: {where}"
                )

    def _is_discarded(self, target: Target, where: str) -> bool:
        if self.course.safety is None:
            return False
        part: Any = target.component
        try:
            stored = self._capturer.stored(self.course.safety)[target.name]
            return aside.discard(part.stands_for, where, stored)
        except Exception:  # noqa: BLE001 - whatever it is, it stays, and is told
            return False

    # --- failures -----------------------------------------------------------------------------

    def _fail(self, error: BaseException, name: str) -> NoReturn:
        """Put back what was touched, tell the log, and raise."""
        self._tracker.hold()
        self._count(error, name)
        self._tracker.error(f"Component {name!r}: {told(error)}" if name else told(error))
        lacking = self._rollback.put_back(self.course.info, failed=name, error=error)
        record, kind = self.course.record, type(error).__name__
        try:
            told_of = self._tracker.error
            self._journal.failed(record, name, kind, told_of, is_rolled_back=not lacking)
        except CheckpointError as unrecorded:
            self._tracker.error(f"The failure could not be recorded: {unrecorded.message}")
        if lacking:
            raise self._rollback.incomplete(lacking, error, name) from error
        self._tracker.to(rolled_back=True)
        if not isinstance(error, Exception):
            raise error
        self._tracker.let_go()
        raise self._failure(error, name) from error

    def _count(self, error: BaseException, name: str) -> None:
        """Tell the guards of a failure."""
        if isinstance(error, HungError) and error.thread is not None:
            self._guards.hung[name] = error.thread
        if isinstance(error, Exception) and not isinstance(error, CancelledError):
            where = self._guards.storage() if guard.is_of_storage(error) else None
            (where or self._guards.component(name)).failed(time.monotonic())

    def _failure(self, error: Exception, name: str) -> CheckpointError:
        """Return the error of a recovery that was rolled back."""
        record = self.course.record
        if isinstance(error, CancelledError):
            return RecoveryCancelledError(
                "The recovery was cancelled; what was touched is as it was before.",
                component=name,
                recovery=record.id,
                rolled_back=True,
            )
        return RecoveryFailedError(
            f"Component {name!r} was not restored: {sentence(error)} "
            "What was touched is as it was before."
            if name
            else f"{sentence(error)} What was touched is as it was before.",
            hint="Mend it and recover again; a dry run shows what would be done.",
            component=name,
            cause=type(error).__name__,
            capture=record.capture,
            recovery=record.id,
            rolled_back=True,
        )
