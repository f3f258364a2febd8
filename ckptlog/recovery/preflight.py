"""What is checked before anything is touched: the choice, the payloads, the dependencies.

All faults are found, not only the first one. The dry run is this, and the plans.
"""

from __future__ import annotations

import time

from ckptlog.capture.capturer import Capturer
from ckptlog.errors import RecoveryRefusedError
from ckptlog.model.capture import CaptureInfo
from ckptlog.model.component import Plan, traits_of
from ckptlog.recovery import guard
from ckptlog.recovery import progress as stage
from ckptlog.recovery.breaker import OPEN, Breaker
from ckptlog.recovery.call import HungError
from ckptlog.recovery.comparison import plan_of
from ckptlog.recovery.course import Course, Settings
from ckptlog.recovery.guard import Guards
from ckptlog.recovery.target import (
    KEPT_BYTES_MAX,
    Target,
    Wanted,
    chosen,
    dependencies_lacking,
    faults_of_target,
    targets_of,
    told,
)
from ckptlog.recovery.whereabouts import other_place


class Preflight:
    """The checks of one recovery; what it finds to restore becomes the course's.

    Threads: one. Nothing is changed.
    """

    def __init__(
        self, course: Course, capturer: Capturer, guards: Guards, settings: Settings
    ) -> None:
        self._course = course
        self._tracker = course.tracker
        self._capturer = capturer
        self._guards = guards
        self._deadline_of = settings.deadline_of
        self._store = capturer.manager.store

    def begin(self, info: CaptureInfo, given: Wanted) -> None:
        """Choose what is restored.

        Raises:
            RecoveryRefusedError: Something is missing.
        """
        self._refuse(self._choose(info, given))

    def validate(self, *, is_elsewhere: bool = False) -> None:
        """Read and check every payload, and the dependencies.

        Args:
            is_elsewhere: Whether the system stays as it is: then nothing depends on anything.

        Raises:
            RecoveryRefusedError: Something is not fit.
            CircuitOpenError: Something failed too often.
        """
        self._ask_breakers()
        self._tracker.to(status=stage.VALIDATING)
        faults, room = [], KEPT_BYTES_MAX
        for target in self._course.targets:
            self._course.check_cancelled()
            self._tracker.to(component=target.name)
            found, kept = self._faults_of(target, room)
            room -= kept
            faults += found if is_elsewhere else found + self._lacking(target)
        self._tracker.to(component="")
        self._refuse(faults)

    def warn(self) -> None:
        """Tell of each component that lies elsewhere than when it was captured."""
        course = self._course
        warnings = []
        for target in course.targets:
            component = self._capturer.components[target.name]
            if (then := other_place(component, course.given)) is not None:
                now = traits_of(component).location["path"]
                warnings.append(
                    f"Component {target.name!r} was captured at {then}; it is {now} now, and what "
                    "is there is replaced."
                )
        if warnings:
            self._tracker.to(warnings=tuple(warnings))

    def plan(self, info: CaptureInfo, given: Wanted, rate: float | None) -> None:
        """Find out what a recovery would do; every fault becomes an error of the progress.

        Args:
            rate: Bytes a second of the last recovery; None where none is known.
        """
        for fault in self._choose(info, given):
            self._tracker.error(fault)
        self.warn()
        self._tell_breakers()
        self._tracker.to(status=stage.VALIDATING)
        plans = {}
        begin, read = time.monotonic(), 0
        for target in self._course.targets:
            self._course.check_cancelled()
            self._tracker.to(component=target.name)
            found, _ = self._faults_of(target, KEPT_BYTES_MAX)
            read += target.info.size
            for fault in found + self._lacking(target):
                self._tracker.error(fault)
            if found:  # its plan would meet the same damage
                target.let_go()
                continue
            try:
                plan = self._plan_of(target)
            except Exception as error:  # noqa: BLE001 - a component's code may raise anything
                self._tracker.error(f"Component {target.name!r}: {told(error)}")
                continue
            finally:
                target.let_go()
            if plan is not None:
                plans[target.name] = plan
        spent = time.monotonic() - begin
        rate = rate or (read / spent if spent > 0 and read else None)
        estimated = None if rate is None else self._tracker.now.bytes_total / rate
        self._tracker.to(plans=plans, estimated_s=estimated, component="")

    def breakers(self) -> list[tuple[str, Breaker]]:
        """Return the breakers of what is restored, and the storage's, by name."""
        guards = self._guards
        found = [(one.name, guards.component(one.name)) for one in self._course.targets]
        return [*found, (guard.STORAGE, guards.storage())]

    def _tell_breakers(self) -> None:
        """Tell which would refuse a recovery now; none is tried by that."""
        now = time.monotonic()
        for name, breaker in self.breakers():
            if breaker.state(now) == OPEN:
                self._tracker.error(guard.open_circuit(name, breaker.wait_s(now)).message)

    def _ask_breakers(self) -> None:
        now = time.monotonic()
        for name, breaker in self.breakers():
            if not breaker.allows(now):
                for other, given in self.breakers():
                    if other != name:
                        given.gave_up()
                raise guard.open_circuit(name, breaker.wait_s(now))

    def _choose(self, info: CaptureInfo, given: Wanted) -> list[str]:
        course = self._course
        course.info = info
        names, faults = chosen(self._capturer, info, given)
        course.targets, more = targets_of(
            self._capturer, info, names, course.watch, self._deadline_of
        )
        course.is_whole = set(names) == set(info.components)
        total = sum(one.info.size for one in course.targets)
        self._tracker.to(capture_id=info.id, components=tuple(names), bytes_total=total)
        return faults + more

    def _faults_of(self, target: Target, room: int) -> tuple[list[str], int]:
        try:
            return faults_of_target(target, self._store.blobs.raw, room)
        except HungError as error:
            self._note(target, error)
            return [told(error)], 0

    def _plan_of(self, target: Target) -> Plan | None:
        """Return a plan, as `plan_of` does, in time.

        Raises:
            Exception: Whatever the component raises; HungError.
        """
        try:
            plan: Plan | None = target.call("plan", lambda: plan_of(target, self._store))
        except HungError as error:
            self._note(target, error)
            raise
        return plan

    def _note(self, target: Target, error: HungError) -> None:
        """Begin nothing else while the thread of a component that hangs is at work."""
        if error.thread is not None:
            self._guards.hung[target.name] = error.thread

    def _lacking(self, target: Target) -> list[str]:
        """Return faults for what a target depends on, is not restored, and is not as it was."""
        faults = []
        info = self._course.given
        for name in dependencies_lacking(target, [one.name for one in self._course.targets]):
            others, missing = (
                targets_of(self._capturer, info, [name], lambda _: None, self._deadline_of)
                if name in self._capturer.components
                else ([], [f"Component {target.name!r} depends on {name!r}, which is not here."])
            )
            if missing or not others:
                faults += missing
                continue
            try:
                plan = self._plan_of(others[0])
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
            self._tracker.error(fault)
        raise RecoveryRefusedError(
            " ".join(f"{fault.rstrip('.')}." for fault in faults),
            hint="Nothing was touched; see dry_run=True.",
            faults=faults,
        )
