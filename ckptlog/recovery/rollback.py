"""The rollback: what was touched is restored from the safety capture, the last first.

Where one component cannot be put back, the others are; `put_back` tells which are lacking.
"""

from __future__ import annotations

from ckptlog.capture.capturer import Capturer
from ckptlog.errors import ChangedError, CheckpointError, RecoveryIncompleteError
from ckptlog.manager.unfinished import REVERTED, REVERTING
from ckptlog.model.capture import CaptureInfo
from ckptlog.model.component import ABSENT
from ckptlog.recovery import aside
from ckptlog.recovery import progress as stage
from ckptlog.recovery.absent import Absent, place_of
from ckptlog.recovery.call import HungError
from ckptlog.recovery.course import CancelledError, Course
from ckptlog.recovery.guard import Guards
from ckptlog.recovery.journal import Journal
from ckptlog.recovery.restorer import Restorer
from ckptlog.recovery.target import Target, absent, targets_of, told


class Rollback:
    """Puts back what one recovery has touched.

    Threads: one.
    """

    def __init__(
        self,
        course: Course,
        capturer: Capturer,
        journal: Journal,
        guards: Guards,
        restorer: Restorer,
    ) -> None:
        self._course = course
        self._tracker = course.tracker
        self._capturer = capturer
        self._journal = journal
        self._guards = guards
        self._restorer = restorer

    def put_back(
        self,
        there: CaptureInfo | None,
        *,
        failed: str = "",
        error: BaseException | None = None,
    ) -> list[str]:
        """Restore what was touched; return what could not be.

        Args:
            there: The capture that holds what may be let go of: what was restored, or was captured
                a moment ago. None: whatever is there.
            failed: The component whose restore failed with this error: unless it was refused, took
                back what it did, or was whole when somebody stopped the recovery, what is there may
                be what that left, and is let go of.
        """
        touched = list(reversed(self._course.record.touched))
        if not touched:
            return []
        self._course.is_rolling_back = True
        self._tracker.to(status=stage.ROLLING_BACK, component="")
        spoilt = "" if self._is_whole(failed, error) else failed
        targets = self._targets(touched, there, spoilt)
        if not targets:
            return touched
        return [name for name in touched if not self._put_back(name, targets.get(name))]

    def _is_whole(self, failed: str, error: BaseException | None) -> bool:
        """Say whether a component that failed has nothing half done: all of it, or none."""
        if isinstance(error, ChangedError):
            return True
        is_stopped = isinstance(error, KeyboardInterrupt | CancelledError)
        return any(
            one.is_as_before or (is_stopped and one.is_restored)
            for one in self._course.targets
            if one.name == failed
        )

    def incomplete(
        self, lacking: list[str], error: BaseException | None, name: str
    ) -> RecoveryIncompleteError:
        """Return the error for components that are lacking.

        Args:
            error: What the recovery failed with, at a component of this name.
        """
        safety = self._course.safety
        names = ", ".join(lacking)
        why = f"Component {name!r} failed: {sentence(error)} " if error is not None else ""
        if safety is None:
            hint = f"There is no safety capture. Mend {names}, then resume()."
        else:
            hint = (
                f"Mend {names}, then roll_back() to go back to "
                f"{safety.id}, or resume() to try the recovery again."
            )
        return RecoveryIncompleteError(
            f"{why}Not put back: {names}.",
            hint=hint,
            component=name or lacking[0],
            cause=type(error).__name__ if error is not None else "",
            lacking=lacking,
            safety=safety.id if safety else "",
            recovery=self._course.record.id,
            rolled_back=False,
        )

    def saved(self, touched: list[str]) -> list[Target]:
        """Return what the safety capture has of components; what it cannot give is told."""
        safety = self._course.safety
        found: list[Target] = []
        if safety is not None:
            names = [name for name in touched if name in safety.components]
            try:
                found, faults = targets_of(
                    self._capturer, safety, names, lambda _: None, self._restorer.deadline_by
                )
            except Exception as error:  # noqa: BLE001 - the others must be tried
                faults = [told(error)]
            for fault in faults:
                self._tracker.error(fault)
        return found

    def _targets(
        self, touched: list[str], there: CaptureInfo | None, spoilt: str
    ) -> dict[str, Target]:
        """Return what each component is put back from; some may have nothing."""
        safety = self._course.safety
        found = self.saved(touched)
        targets = {
            one.name: one for one in found if one.name == spoilt or self._is_spared(one, there)
        }
        has = () if safety is None else safety.components
        for name in touched:
            # Safety captures did not always say what was missing.
            is_unsaid = name in self._course.record.missing and name not in has
            if is_unsaid and name in self._capturer.components:
                targets[name] = absent(self._capturer, name)
        return targets

    def _is_spared(self, target: Target, there: CaptureInfo | None) -> bool:
        """Have what others made meanwhile left as it is; say whether that can be known."""
        if there is None:
            return True
        known = there.components.get(target.name)
        if (known is None or known.kind == ABSENT) and self._course.safety is not None:
            there = self._course.safety  # what was put aside is brought back as it was
        target.leaves = True
        try:
            target.hold(there, self._capturer.stored(there))
        except Exception as error:  # noqa: BLE001 - the others must be tried
            self._tracker.error(f"Component {target.name!r}: {told(error)}")
            return False
        return True

    def _put_back(self, name: str, target: Target | None) -> bool:
        self._tracker.to(component=name)
        hung = self._guards.hung.get(name)
        if hung is not None:  # what it does still would come after what we do
            hung.join(self._restorer.deadline_of(target))
        if target is None or (hung is not None and hung.is_alive()):
            return False
        self._tell_step(name, REVERTING)
        self._bring_back(name)
        if not self._is_restored(target):
            return False
        if isinstance(target.component, Absent) and target.component.aside:
            where = target.component.aside
            self._tracker.error(f"Component {name!r} is missing again; what was restored: {where}")
        self._tell_step(name, REVERTED)
        return True

    def _is_restored(self, target: Target) -> bool:
        """Restore a component and say whether it is what it was."""
        failure: BaseException | None = None
        faults: list[str] | None = None
        try:
            self._restorer.restore(target)
        except BaseException as error:  # noqa: BLE001 - the others must be put back too
            failure = error
        try:
            if not isinstance(failure, HungError):
                faults = self._restorer.faults(target, is_strict=failure is not None)
        except BaseException as error:  # noqa: BLE001 - same
            failure = failure or error
            faults = [told(failure)]
        if isinstance(failure, HungError) and failure.thread is not None:
            self._guards.hung[target.name] = failure.thread
        what = f"Component {target.name!r}"
        # One that refused both restores, and changed nothing, is what it was before.
        if failure is not None and faults != []:
            self._tracker.error(f"{what} could not be put back: {told(failure)}")
            return False
        if faults:
            self._tracker.error(f"{what} was put back wrongly: {'; '.join(faults)}")
            return False
        return True

    def _bring_back(self, name: str) -> None:
        """Put back what was put aside: also what no capture has of it."""
        place = place_of(self._capturer.components.get(name))
        try:
            if place:
                aside.bring_back(place, aside.before(self._course.record.id))
        except CheckpointError as error:
            self._tracker.error(f"Component {name!r}: {error.message}")

    def _tell_step(self, name: str, action: str) -> None:
        """Tell the log of a step, which is made also where that fails."""
        try:
            self._journal.step(self._course.record.id, name, action)
        except CheckpointError as error:
            self._tracker.error(f"A step could not be recorded: {error.message}")


def sentence(error: BaseException) -> str:
    """Return an error in words that end once."""
    return f"{told(error).rstrip('.')}."
