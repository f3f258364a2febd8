"""The calls that restore one component and compare it: with deadlines, and again where it helps."""

from __future__ import annotations

from ckptlog.errors import RecoveryFailedError
from ckptlog.recovery.call import called
from ckptlog.recovery.comparison import faults_after, plan_of
from ckptlog.recovery.course import Course, Settings
from ckptlog.recovery.retry import retried
from ckptlog.recovery.target import Target, told
from ckptlog.repository.store import Store


class Restorer:
    """Calls the components of one recovery, each in a thread of its own.

    Threads: one.
    """

    def __init__(self, course: Course, settings: Settings, store: Store) -> None:
        self.deadline_by = settings.deadline_of
        self._course = course
        self._settings = settings
        self._store = store

    def deadline_of(self, target: Target | None) -> float:
        """Return how long a call of a component may take."""
        if target is None:
            return self._settings.deadline_s
        return self._settings.deadline_of(target.traits)

    def restore(self, target: Target) -> None:
        """Restore a component; an error that may pass is met again.

        Raises:
            Exception: Whatever the component raises; HungError; a cancellation.
        """

        def once() -> None:
            self._course.attempted()
            left = called(target.name, "restore", target.restore, self.deadline_of(target))
            if left:
                more = f" and {len(left) - 5:,} more" if len(left) > 5 else ""
                self._course.tracker.error(
                    f"Component {target.name!r}: what was made or changed meanwhile stays as it "
                    f"is: {', '.join(left[:5])}{more}."
                )

        def tell(error: Exception, _wait_s: float) -> None:
            self._course.tracker.error(f"Component {target.name!r}, tried again: {told(error)}")

        retried(once, self._settings.backoff, sleep=self._sleep, told=tell)

    def verify(self, target: Target) -> None:
        """Compare what was restored, or note that nobody can.

        Raises:
            RecoveryFailedError: It is wrong.
        """
        tracker = self._course.tracker
        tracker.to(component=target.name)
        faults = self.faults(target, is_strict=False)
        if faults is None:
            tracker.to(unverified=(*tracker.now.unverified, target.name))
        elif faults:
            raise RecoveryFailedError(f"It was restored, and is wrong: {'; '.join(faults)}")

    def faults(self, target: Target, *, is_strict: bool) -> list[str] | None:
        """Return how a component differs from its payload; None where nobody can say.

        Args:
            is_strict: Whether its own verify_restored() is not enough: it says whether the
                component is sound, not whether it is what it was.
        """
        store, seconds = self._store, self.deadline_of(target)
        if not is_strict:
            return called(  # type: ignore[no-any-return]
                target.name, "verify_restored", lambda: faults_after(target, store), seconds
            )
        plan = called(target.name, "plan", lambda: plan_of(target, store), seconds)
        return None if plan is None else ["it is not what it was" for _ in plan.changes[:1]]

    def _sleep(self, seconds: float) -> None:
        self._course.wait(seconds, self._store.environment.sleep)
