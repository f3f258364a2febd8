"""The journal of recoveries: what the log says of them, and who may recover right now.

    recovery.started    recovery, capture, safety, names     before anything is touched
                        missing, held                        where there are any
    recovery.step       recovery, component, action          before each touch, and after it
    recovery.completed  recovery, capture, bytes, ms
    recovery.failed     recovery, capture, component, error, rolled_back (1 or 0)
                        abandoned (1), restored, mixed       where it was given up

The captures that a recovery needs are pinned in the commit of its start, and unpinned in the commit
of its end: `held` names them, and no kill leaves a pin without a recovery that has it.

Which recovery came to no end is read in manager.unfinished.

One process at a time: a flock on a file beside the hint, which dies with its holder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from ckptlog.errors import LockTimeoutError, RecoveryBusyError, from_os_error
from ckptlog.manager.lease import LeaseArgument
from ckptlog.manager.manager import CheckpointManager
from ckptlog.manager.pinning import Facts
from ckptlog.manager.unfinished import ALL, Trace, Unfinished
from ckptlog.model.event import (
    RECOVERY_COMPLETED,
    RECOVERY_FAILED,
    RECOVERY_STARTED,
    RECOVERY_STEP,
)
from ckptlog.storage.lock import WriterLock, describe_holder

Told = Callable[[str], object]

ABANDONED: Final = "abandoned"


class Journal:
    """The recoveries of one system in one store.

    Args:
        lease: Of the system, where this process has it; no recovery starts beside another's.

    Threads: one at a time, which `alone` sees to.
    """

    def __init__(
        self, manager: CheckpointManager, system: str, lease: LeaseArgument = None
    ) -> None:
        self._manager = manager
        self._system = system
        self._lease = lease
        self._trace = Trace(manager.store, system)

    @property
    def rate(self) -> float | None:
        """Bytes a second of the last recovery; None where none is known."""
        return self._trace.rate

    @contextmanager
    def alone(self, wait_s: float = 0.0) -> Iterator[None]:
        """Be the only one who recovers the system, or captures it without owning it.

        Args:
            wait_s: How long another one is waited for.

        Raises:
            RecoveryBusyError: Another process or thread does.
        """
        try:
            self._trace.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise from_os_error(error, "Cannot lock the system") from error
        lock = WriterLock(self._trace.lock_path, self._manager.store.environment)
        try:
            try:
                lock.acquire(wait_s)
            except LockTimeoutError as error:
                raise RecoveryBusyError(
                    f"{self._system!r} is recovered, or captured by hand, by "
                    f"{describe_holder(self._trace.lock_path)}.",
                    hint="Wait for it, or stop that process; a killed one never blocks.",
                    system=self._system,
                ) from error
            try:
                yield
            finally:
                lock.release()
        finally:
            lock.close()

    def unfinished(self) -> Unfinished | None:
        """Return the recovery that ended in the middle, if there is one."""
        return self._trace.unfinished()

    def settled(self) -> Unfinished | None:
        """Return what `unfinished` does, once what an interrupted commit has left is decided on.

        Such a commit may be written and not published: the next writer publishes it.
        """
        store = self._manager.store
        with store.log.exclusive(store.timeout_s):
            pass
        return self.unfinished()

    # --- writing ------------------------------------------------------------------------------

    def started(self, begun: Unfinished) -> tuple[str, ...]:
        """A recovery begins: nothing was touched yet.

        In one commit its captures are pinned, so that no retention deletes what it needs; a kill
        leaves both, or neither.

        Args:
            begun: held: What it pinned earlier.

        Returns:
            What is pinned for it: whoever pinned the others keeps his pin.

        Raises:
            LeaseLostError, LeaseRequiredError: Another process owns the system.
        """
        listed = ALL if begun.names is None else ",".join(begun.names)
        facts: Facts = {
            "recovery": begun.id,
            "capture": begun.capture,
            "safety": begun.safety,
            "names": listed,
        }
        if begun.missing:
            facts["missing"] = ",".join(begun.missing)

        def told(fresh: tuple[str, ...]) -> Facts:
            held = begun.held + fresh
            return {**facts, "held": ",".join(held)} if held else facts

        pins = [name for name in (begun.capture, begun.safety) if name]
        fresh = self._manager.record_pinning(
            RECOVERY_STARTED, told, pins, task=self._system, lease=self._lease
        )
        return begun.held + fresh

    def step(self, recovery: str, component: str, action: str) -> None:
        """A component is touched, or was."""
        self._record(RECOVERY_STEP, recovery, component=component, action=action)

    def completed(self, begun: Unfinished, size: int, seconds: float, told: Told) -> None:
        """All is what was captured; what was pinned for it is not any more.

        Args:
            told: What is told of a pin that stays, which loses nothing.
        """
        milliseconds = round(seconds * 1000)
        facts: Facts = {"capture": begun.capture, "bytes": size, "ms": milliseconds}
        self._ended(RECOVERY_COMPLETED, begun, facts, told)
        if seconds > 0:
            self._trace.rate = size / seconds

    def failed(
        self, begun: Unfinished, component: str, error: str, told: Told, *, is_rolled_back: bool
    ) -> None:
        """It failed. error: The type's name; messages are users' text and stay out of events.

        What was pinned for it is still, where it was not rolled back.
        """
        facts: Facts = {
            "capture": begun.capture,
            "component": component,
            "error": error[:64],
            "rolled_back": int(is_rolled_back),
        }
        if is_rolled_back:
            self._ended(RECOVERY_FAILED, begun, facts, told)
        else:
            self._record(RECOVERY_FAILED, begun.id, **facts)

    def abandoned(self, begun: Unfinished, told: Told) -> None:
        """It was given up: what it has touched stays as it is, and nothing is pinned for it."""
        mixed = [name for name in begun.touched if name not in begun.restored]
        facts: Facts = {
            "capture": begun.capture,
            "component": "",
            "error": ABANDONED,
            "rolled_back": 0,
            ABANDONED: 1,
        }
        if begun.restored:
            facts["restored"] = ",".join(begun.restored)
        if mixed:
            facts["mixed"] = ",".join(mixed)
        self._ended(RECOVERY_FAILED, begun, facts, told)

    def _ended(self, kind: str, begun: Unfinished, facts: Facts, told: Told) -> None:
        self._manager.record_unpinning(
            kind,
            {"recovery": begun.id, **facts},
            begun.held,
            task=self._system,
            on_fault=lambda name, error: told(f"{name} stays pinned: {error.message}"),
        )

    def _record(self, kind: str, recovery: str, **facts: int | str) -> None:
        self._manager.record(kind, {"recovery": recovery, **facts}, task=self._system)
