"""One recovery at work: its steps, and what is put back when one of them fails."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any, NoReturn

from ckptlog.capture.capturer import Capturer
from ckptlog.errors import (
    CheckpointError,
    RecoveryCancelledError,
    RecoveryFailedError,
    RecoveryIncompleteError,
    RecoveryRefusedError,
)
from ckptlog.model.capture import CaptureInfo
from ckptlog.model.component import Traits
from ckptlog.recovery import aside, guard, journal, safety
from ckptlog.recovery import progress as stage
from ckptlog.recovery.absent import Absent, place_of
from ckptlog.recovery.call import HungError, called
from ckptlog.recovery.comparison import faults_after, plan_of
from ckptlog.recovery.guard import Guards
from ckptlog.recovery.journal import Journal, Unfinished
from ckptlog.recovery.progress import RecoveryProgress, Tracker
from ckptlog.recovery.retry import Backoff, retried
from ckptlog.recovery.target import (
    KEPT_BYTES_MAX,
    Target,
    Wanted,
    absent,
    chosen,
    dependencies_lacking,
    faults_of_target,
    targets_of,
    told,
)

_POLL_S = 0.05
# Of the name of what has to give way, before the recovery's id.
_BEFORE = "before"


@dataclass(frozen=True)
class Settings:
    """lease: Or None. backoff: Of retries. deadline_s: Of one call of a component.

    parts_deadline_s: The same, of a component that reads its payload by parts.
    """

    lease: Any
    backoff: Backoff
    deadline_s: float
    parts_deadline_s: float

    def deadline_of(self, traits: Traits) -> float:
        """Return how long a call of a component may take."""
        return self.parts_deadline_s if traits.reads_parts else self.deadline_s


class CancelledError(Exception):
    """Somebody asked to stop."""


class Run:
    """One recovery.

    Attributes:
        targets: What is restored, in order.
        tracker: Of its progress.

    Threads: one; components are called from threads of their own, one after the other.
    """

    def __init__(  # noqa: PLR0917 - what one recovery is made of
        self,
        capturer: Capturer,
        journal: Journal,
        guards: Guards,
        tracker: Tracker,
        settings: Settings,
        cancel: Any,
    ) -> None:
        self.tracker = tracker
        self.targets: list[Target] = []
        self._capturer = capturer
        self._journal = journal
        self._guards = guards
        self._settings = settings
        self._cancel = cancel
        self._store = capturer.manager.store
        self._info: CaptureInfo | None = None
        self._safety: CaptureInfo | None = None
        self._id = ""
        self._is_whole = False
        self._touched: list[str] = []
        self._missing: list[str] = []
        self._held: tuple[str, ...] = ()
        self._begun = Unfinished("", -1, "", "", None)
        self._base = self._read = self._limit = 0
        self._is_rolling_back = False

    # --- before anything is touched -----------------------------------------------------------

    def begin(self, info: CaptureInfo, given: Wanted) -> list[str]:
        """Choose what is restored.

        Raises:
            RecoveryRefusedError: Something is missing.
        """
        faults = self._choose(info, given)
        self._refuse(faults)
        return faults

    def validate(self, *, is_elsewhere: bool = False) -> None:
        """Read and check every payload, and the dependencies.

        Args:
            is_elsewhere: Whether the system stays as it is: then nothing depends on anything.

        Raises:
            RecoveryRefusedError: Something is not fit.
            CircuitOpenError: Something failed too often.
        """
        now = time.monotonic()
        for name, breaker in self._breakers():
            if not breaker.allows(now):
                for other, given in self._breakers():
                    if other != name:
                        given.gave_up()
                raise guard.open_circuit(name, breaker.wait_s(now))
        self.tracker.to(status=stage.VALIDATING)
        faults, room = [], KEPT_BYTES_MAX
        for target in self.targets:
            self.check_cancelled()
            self.tracker.to(component=target.name)
            found, kept = faults_of_target(target, self._store.blobs.raw, room)
            room -= kept
            faults += found if is_elsewhere else found + self._lacking(target)
        self.tracker.to(component="")
        self._refuse(faults)

    def plan(self, info: CaptureInfo, given: Wanted) -> None:
        """Find out what a recovery would do; every fault becomes an error of the progress."""
        faults = self._choose(info, given)
        for fault in faults:
            self.tracker.error(fault)
        self.tracker.to(status=stage.VALIDATING)
        plans = {}
        begin, read = time.monotonic(), 0
        for target in self.targets:
            self.check_cancelled()
            self.tracker.to(component=target.name)
            found, _ = faults_of_target(target, self._store.blobs.raw, KEPT_BYTES_MAX)
            read += target.info.size
            for fault in found + self._lacking(target):
                self.tracker.error(fault)
            if found:  # its plan would meet the same damage
                target.let_go()
                continue
            try:
                plan = plan_of(target, self._store)
            except Exception as error:  # noqa: BLE001 - a component's code may raise anything
                self.tracker.error(f"Component {target.name!r}: {told(error)}")
                continue
            finally:
                target.let_go()
            if plan is not None:
                plans[target.name] = plan
        spent = time.monotonic() - begin
        rate = self._journal.rate or (read / spent if spent > 0 and read else None)
        estimated = None if rate is None else self.tracker.now.bytes_total / rate
        self.tracker.to(plans=plans, estimated_s=estimated, component="")

    def save(self, info: CaptureInfo) -> None:
        """Capture what is there, so that it can be put back."""
        self.check_cancelled()
        self.tracker.to(status=stage.SAVING)
        self._safety, self._missing = safety.save(
            self._capturer,
            self.targets,
            self._settings.deadline_of,
            description=f"before the recovery of {info.id}",
            tags=("safety",),
            reason="safety",
            lease=self._settings.lease,
        )
        self.tracker.to(missing=tuple(self._missing))
        for name in self._missing:
            self.tracker.error(
                f"Component {name!r} is missing; the safety capture says so, there was nothing to "
                "save of it."
            )
        if self._safety is not None:
            self.tracker.to(safety_id=self._safety.id)

    # --- restoring ----------------------------------------------------------------------------

    def restore(self, recovery: str, *, is_verified: bool) -> RecoveryProgress:
        """Restore all targets, verify them, or put back what was touched."""
        info, begin = self._given(), time.monotonic()
        self.check_cancelled()
        self._id = recovery
        self.tracker.to(recovery_id=recovery)
        for target in self.targets:
            if isinstance(target.component, Absent):
                target.component.suffix = f"{_BEFORE}-{recovery}"
        names = None if self._is_whole else tuple(one.name for one in self.targets)
        saved = self._safety.id if self._safety else ""
        self._begun = Unfinished(recovery, -1, info.id, saved, names)
        self._begun.missing, self._begun.held = tuple(self._missing), self._held
        self._begun.held = self._journal.started(self._begun)
        self._restore_all(is_verified=is_verified)
        size, seconds = self.tracker.now.bytes_total, time.monotonic() - begin
        try:
            self._journal.completed(self._begun, size, seconds, self.tracker.error)
        except CheckpointError as error:
            raise RecoveryIncompleteError(
                f"The system is as in {info.id}, verified, but that could not be recorded: "
                f"{error.message}",
                hint="When the store works again: resume(), or ckptlog recover --resume.",
                recovery=recovery,
                rolled_back=False,
            ) from error
        self._guards.storage().succeeded()
        self._tidy()
        self._journal.unfinished()  # the next one reads the log from here
        self.tracker.to(status=stage.COMPLETED)
        return self.tracker.now

    def resume(self, found: Unfinished, *, is_verified: bool) -> RecoveryProgress:
        """Restore all components of an unfinished recovery again."""
        info = self._capturer.find(found.capture)
        names = tuple(info.components) if found.names is None else found.names
        self._refuse(self._choose(info, Wanted(names, is_partial=True)))
        self._is_whole = found.names is None
        self.validate()
        if found.safety:
            self._safety = self._capturer.find(found.safety)
            self.tracker.to(safety_id=found.safety)
        self._take_over(found)
        return self.restore(found.id, is_verified=is_verified)

    def roll_back(self, found: Unfinished) -> RecoveryProgress:
        """Put back what an unfinished recovery has touched."""
        if not found.safety and set(found.touched) - set(found.missing):
            raise RecoveryRefusedError(
                f"The recovery {found.id} was begun without a safety capture.",
                hint="Finish it: resume().",
                recovery=found.id,
            )
        self._id = found.id
        self._info = self._capturer.find(found.safety) if found.safety else None
        self._safety = self._info
        self._take_over(found)
        self.tracker.to(recovery_id=found.id, capture_id=found.capture, safety_id=found.safety)
        lacking = self._put_back()
        if lacking:
            raise self._incomplete(lacking, None, "")
        self._journal.failed(found, "", "rolled back", self.tracker.error, is_rolled_back=True)
        self._journal.unfinished()
        self.tracker.to(status=stage.ROLLED_BACK, rolled_back=True)
        return self.tracker.now

    def _restore_all(self, *, is_verified: bool) -> None:
        self.tracker.to(status=stage.RESTORING)
        name = ""
        try:
            for target in self.targets:
                name = target.name
                self.check_cancelled()
                self.entered(target)
                self._journal.step(self._id, name, journal.RESTORING)
                if name not in self._touched:
                    self._touched.append(name)
                self._call(target)
                self._journal.step(self._id, name, journal.RESTORED)
                self.left(target)
                self._guards.component(name).succeeded()
            if is_verified:
                self.tracker.to(status=stage.VERIFYING)
                for target in self.targets:
                    name = target.name
                    self._verify(target)
            name = ""
            self.check_cancelled()
        except BaseException as error:  # noqa: BLE001 - _fail raises
            self._fail(error, name)

    def _call(self, target: Target) -> None:
        def once() -> None:
            self._read = 0
            called(
                target.name,
                "restore",
                lambda: target.component.restore(target.taken()),
                self._settings.deadline_of(target.traits),
            )

        def tell(error: Exception, _wait_s: float) -> None:
            self.tracker.error(f"Component {target.name!r}, tried again: {told(error)}")

        retried(once, self._settings.backoff, sleep=self._sleep, told=tell)

    def _verify(self, target: Target) -> None:
        self.tracker.to(component=target.name)
        faults = called(
            target.name,
            "verify_restored",
            lambda: faults_after(target, self._store),
            self._settings.deadline_of(target.traits),
        )
        if faults is None:
            self.tracker.to(unverified=(*self.tracker.now.unverified, target.name))
        elif faults:
            raise RecoveryFailedError(f"It was restored, and is wrong: {'; '.join(faults)}")

    # --- putting back -------------------------------------------------------------------------

    def _fail(self, error: BaseException, name: str) -> NoReturn:
        """Put back what was touched, tell the log, and raise."""
        info = self._given()
        if isinstance(error, HungError) and error.thread is not None:
            self._guards.hung[name] = error.thread
        if isinstance(error, Exception) and not isinstance(error, CancelledError):
            where = self._guards.storage() if guard.is_of_storage(error) else None
            (where or self._guards.component(name)).failed(time.monotonic())
        self.tracker.error(f"Component {name!r}: {told(error)}" if name else told(error))
        lacking = self._put_back()
        kind = type(error).__name__
        try:
            told_of = self.tracker.error
            self._journal.failed(self._begun, name, kind, told_of, is_rolled_back=not lacking)
        except CheckpointError as unrecorded:
            self.tracker.error(f"The failure could not be recorded: {unrecorded.message}")
        if lacking:
            raise self._incomplete(lacking, error, name) from error
        self.tracker.to(rolled_back=True)
        if not isinstance(error, Exception):
            raise error
        if isinstance(error, CancelledError):
            raise RecoveryCancelledError(
                "The recovery was cancelled; what was touched is as it was before.",
                component=name,
                recovery=self._id,
                rolled_back=True,
            ) from error
        raise RecoveryFailedError(
            f"Component {name!r} was not restored: {_sentence(error)} "
            "What was touched is as it was before."
            if name
            else f"{_sentence(error)} What was touched is as it was before.",
            hint="Mend it and recover again; a dry run shows what would be done.",
            component=name,
            cause=kind,
            capture=info.id,
            recovery=self._id,
            rolled_back=True,
        ) from error

    def _put_back(self) -> list[str]:
        """Restore what was touched from the safety capture, the last first; return what failed."""
        touched = list(reversed(self._touched))
        if not touched:
            return []
        self._is_rolling_back = True
        self.tracker.to(status=stage.ROLLING_BACK, component="")
        has = () if self._safety is None else self._safety.components
        saved = [name for name in touched if name in has]
        # Safety captures did not always say what was missing.
        unsaved = [name for name in touched if name not in has and name in self._missing]
        if self._safety is None and len(unsaved) < len(touched):
            return touched
        try:
            targets, faults = (
                targets_of(self._capturer, self._safety, saved, lambda _: None)
                if self._safety is not None
                else ([], [])
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the others must be tried
            targets, faults = [], [told(error)]
        for fault in faults:
            self.tracker.error(fault)
        by_name = {one.name: one for one in targets}
        by_name |= {
            name: absent(self._capturer, name)
            for name in unsaved
            if name in self._capturer.components
        }
        return [name for name in touched if not self._put_back_one(name, by_name.get(name))]

    def _put_back_one(self, name: str, target: Target | None) -> bool:
        self.tracker.to(component=name)
        hung = self._guards.hung.get(name)
        if hung is not None:  # what it does still would come after what we do
            hung.join(
                self._settings.deadline_s
                if target is None
                else self._settings.deadline_of(target.traits)
            )
        if target is None or (hung is not None and hung.is_alive()):
            return False
        self._tell_step(name, journal.REVERTING)
        self._bring_back(name)
        failure: BaseException | None = None
        faults: list[str] | None = None
        try:
            self._call(target)
        except BaseException as error:  # noqa: BLE001 - the others must be put back too
            failure = error
        try:
            if not isinstance(failure, HungError):
                faults = self._compared(target, is_strict=failure is not None)
        except BaseException as error:  # noqa: BLE001 - same
            failure = failure or error
            faults = [told(failure)]
        if isinstance(failure, HungError) and failure.thread is not None:
            self._guards.hung[name] = failure.thread
        # One that refused both restores, and changed nothing, is what it was before.
        if failure is not None and faults != []:
            self.tracker.error(f"Component {name!r} could not be put back: {told(failure)}")
            return False
        if faults:
            self.tracker.error(f"Component {name!r} was put back wrongly: {'; '.join(faults)}")
            return False
        if isinstance(target.component, Absent) and target.component.aside:
            where = target.component.aside
            self.tracker.error(f"Component {name!r} is missing again; what was restored: {where}")
        self._tell_step(name, journal.REVERTED)
        return True

    def _bring_back(self, name: str) -> None:
        """Put back what was put aside: also what no capture has of it."""
        place = place_of(self._capturer.components.get(name))
        try:
            if place:
                aside.bring_back(place, f"{_BEFORE}-{self._id}")
        except CheckpointError as error:
            self.tracker.error(f"Component {name!r}: {error.message}")

    def _tidy(self) -> None:
        """Remove what was put aside, as far as the safety capture holds it, and tell what stays."""
        for target in self.targets:
            part = target.component
            place = place_of(part.stands_for) if isinstance(part, Absent) else ""
            where = f"{place}.{_BEFORE}-{self._id}"
            if place and os.path.lexists(where) and not self._is_discarded(target, where):
                self.tracker.error(
                    f"Component {target.name!r} is missing, as it was; what no capture has of it "
                    f"stays: {where}"
                )

    def _is_discarded(self, target: Target, where: str) -> bool:
        if self._safety is None:
            return False
        part: Any = target.component
        try:
            stored = self._capturer.stored(self._safety)[target.name]
            return aside.discard(part.stands_for, where, stored)
        except Exception:  # noqa: BLE001 - whatever it is, it stays, and is told
            return False

    def _compared(self, target: Target, *, is_strict: bool) -> list[str] | None:
        """Return how a component differs from its payload; None where nobody can say.

        Args:
            is_strict: Whether its own verify_restored() is not enough: it says whether the
                component is sound, not whether it is what it was.
        """
        store, seconds = self._store, self._settings.deadline_of(target.traits)
        if not is_strict:
            return called(  # type: ignore[no-any-return]
                target.name, "verify_restored", lambda: faults_after(target, store), seconds
            )
        plan = called(target.name, "plan", lambda: plan_of(target, store), seconds)
        return None if plan is None else ["it is not what it was" for _ in plan.changes[:1]]

    def _take_over(self, found: Unfinished) -> None:
        """Go on with what an unfinished recovery did."""
        self._touched = list(found.touched)
        self._missing, self._held = list(found.missing), found.held

    def _tell_step(self, name: str, action: str) -> None:
        """Tell the log of a step of a rollback, which goes on if that fails."""
        try:
            self._journal.step(self._id, name, action)
        except CheckpointError as error:
            self.tracker.error(f"A step could not be recorded: {error.message}")

    def _incomplete(
        self, lacking: list[str], error: BaseException | None, name: str
    ) -> RecoveryIncompleteError:
        names = ", ".join(lacking)
        why = f"Component {name!r} failed: {_sentence(error)} " if error is not None else ""
        if self._safety is None:
            hint = f"There is no safety capture. Mend {names}, then resume()."
        else:
            hint = (
                f"Mend {names}, then roll_back() to go back to "
                f"{self._safety.id}, or resume() to try the recovery again."
            )
        return RecoveryIncompleteError(
            f"{why}Not put back: {names}.",
            hint=hint,
            component=name or lacking[0],
            cause=type(error).__name__ if error is not None else "",
            lacking=lacking,
            safety=self._safety.id if self._safety else "",
            recovery=self._id,
            rolled_back=False,
        )

    # --- small parts --------------------------------------------------------------------------

    def ended(self, error: BaseException) -> None:
        """Draw the last picture of a recovery that failed."""
        now = self.tracker.now
        text = told(error)
        errors = now.errors or (*now.errors, text)
        is_cancelled = isinstance(
            error, CancelledError | RecoveryCancelledError | KeyboardInterrupt
        )
        for _, breaker in self._breakers():
            breaker.gave_up()
        self.tracker.to(status=stage.CANCELLED if is_cancelled else stage.FAILED, errors=errors)

    def entered(self, target: Target) -> None:
        """A component is restored now."""
        self._read, self._limit = 0, target.info.size
        self.tracker.to(component=target.name, bytes=self._base)

    def left(self, target: Target) -> None:
        """A component was restored."""
        self._base += target.info.size
        restored = (*self.tracker.now.restored, target.name)
        self._limit = 0
        self.tracker.to(bytes=self._base, component="", restored=restored)

    def check_cancelled(self) -> None:
        """Stop where somebody asked for it.

        Raises:
            RecoveryCancelledError: Before anything was touched; CancelledError: afterwards.
        """
        if self._cancel is None or self._is_rolling_back or not self._cancel.is_set():
            return
        if self._id:
            raise CancelledError("It was cancelled.")
        raise RecoveryCancelledError(
            "The recovery was cancelled; nothing was touched.", rolled_back=True
        )

    def _watch(self, size: int) -> None:
        if self.tracker.now.status != stage.RESTORING:
            return
        self.check_cancelled()
        self._read = min(self._read + size, self._limit)
        self.tracker.to(bytes=self._base + self._read)

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check_cancelled()
            self._store.environment.sleep(min(left, _POLL_S))

    def _choose(self, info: CaptureInfo, given: Wanted) -> list[str]:
        self._info = info
        names, faults = chosen(self._capturer, info, given)
        self.targets, more = targets_of(self._capturer, info, names, self._watch)
        self._is_whole = set(names) == set(info.components)
        total = sum(one.info.size for one in self.targets)
        self.tracker.to(capture_id=info.id, components=tuple(names), bytes_total=total)
        return faults + more

    def _lacking(self, target: Target) -> list[str]:
        """Return faults for what a target depends on, is not restored, and is not as it was."""
        faults = []
        info = self._given()
        for name in dependencies_lacking(target, [one.name for one in self.targets]):
            others, missing = (
                targets_of(self._capturer, info, [name], lambda _: None)
                if name in self._capturer.components
                else ([], [f"Component {target.name!r} depends on {name!r}, which is not here."])
            )
            if missing or not others:
                faults += missing
                continue
            try:
                plan = plan_of(others[0], self._store)
            except Exception as error:  # noqa: BLE001 - a component's code may raise anything
                faults.append(f"Component {name!r}: {told(error)}")
                continue
            if plan is None or plan.changes:
                faults.append(
                    f"Component {target.name!r} depends on {name!r}, which is not restored and is "
                    "not as it was captured."
                )
        return faults

    def _refuse(self, faults: list[str]) -> None:
        if not faults:
            return
        for fault in faults:
            self.tracker.error(fault)
        raise RecoveryRefusedError(
            " ".join(faults), hint="Nothing was touched; see dry_run=True.", faults=faults
        )

    def _breakers(self) -> list[tuple[str, Any]]:
        found = [(one.name, self._guards.component(one.name)) for one in self.targets]
        return [*found, (guard.STORAGE, self._guards.storage())]

    def _given(self) -> CaptureInfo:
        assert self._info is not None  # noqa: S101 - begin, plan, resume and roll_back set it
        return self._info


def _sentence(error: BaseException) -> str:
    """Return an error in words that end once."""
    return f"{told(error).rstrip('.')}."
