"""The journal of recoveries: what the log says of them, and who may recover right now.

    recovery.started    recovery, capture, safety, names     before anything is touched
                        missing, held                        where there are any
    recovery.step       recovery, component, action          before each touch, and after it
    recovery.completed  recovery, capture, bytes, ms
    recovery.failed     recovery, capture, component, error, rolled_back (1 or 0)

The captures that a recovery needs are pinned in the commit of its start, and unpinned in the commit
of its end: `held` names them, and no kill leaves a pin without a recovery that has it.

A recovery is unfinished when it has started, and has neither completed nor failed with
rolled_back 1. To find it the log is read from where nothing was unfinished: STORE/recovery/ has
that position for each system, and is only a hint: without it the log is read from the beginning.

One process at a time: a flock on a file beside the hint, which dies with its holder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from ckptlog.errors import CheckpointError, RecoveryBusyError
from ckptlog.manager.manager import CheckpointManager
from ckptlog.manager.pinning import Facts
from ckptlog.model.event import (
    RECOVERY_COMPLETED,
    RECOVERY_FAILED,
    RECOVERY_STARTED,
    RECOVERY_STEP,
)
from ckptlog.storage.files import write_atomically
from ckptlog.storage.lock import WriterLock, describe_holder

FOLDER: Final = "recovery"
ALL: Final = "*"
RESTORING: Final = "restoring"
RESTORED: Final = "restored"
REVERTING: Final = "reverting"
REVERTED: Final = "reverted"

Told = Callable[[str], object]

_TYPES: Final = frozenset({RECOVERY_STARTED, RECOVERY_STEP, RECOVERY_COMPLETED, RECOVERY_FAILED})


@dataclass
class Unfinished:
    """A recovery that ended in the middle.

    id: Of its events. position: Of its start. names: Its components; None for all of the capture.
    touched: Components whose restore began, in that order, and that were not put back.
    missing: Components that were not there when it began. held: Captures that were pinned for it.
    """

    id: str
    position: int
    capture: str
    safety: str
    names: tuple[str, ...] | None
    touched: list[str] = field(default_factory=list)
    missing: tuple[str, ...] = ()
    held: tuple[str, ...] = ()


class Journal:
    """The recoveries of one system in one store.

    Threads: one at a time, which `alone` sees to.
    """

    def __init__(self, manager: CheckpointManager, system: str) -> None:
        self._manager = manager
        self._system = system
        name = blake3(system.encode()).hexdigest()[:32]
        self._folder = Path(manager.store.path) / FOLDER
        self._hint = self._folder / f"{name}.json"
        self._lock_path = self._folder / f"{name}.lock"
        self.rate: float | None = None
        """Bytes a second of the last recovery; None where none is known."""

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only one who recovers the system.

        Raises:
            RecoveryBusyError: Another process or thread does.
        """
        self._folder.mkdir(exist_ok=True)
        lock = WriterLock(self._lock_path, self._manager.store.environment)
        try:
            if not lock.try_acquire():
                raise RecoveryBusyError(
                    f"{self._system!r} is recovered by {describe_holder(self._lock_path)}.",
                    hint="Wait for it, or stop that process; a killed one never blocks.",
                    system=self._system,
                )
            try:
                yield
            finally:
                lock.release()
        finally:
            lock.close()

    def unfinished(self) -> Unfinished | None:
        """Return the recovery that ended in the middle, if there is one."""
        start = self._read_hint()
        found: Unfinished | None = None
        end = start
        for entry in self._manager.store.events(start):
            end = entry.position + 1
            event = entry.event
            if event.type in _TYPES and event.subject.task == self._system:
                found = _after(found, event.type, event.facts, entry.position)
        self._write_hint(end if found is None else found.position)
        return found

    # --- writing ------------------------------------------------------------------------------

    def started(self, begun: Unfinished) -> tuple[str, ...]:
        """A recovery begins: nothing was touched yet.

        In one commit its captures are pinned, so that no retention deletes what it needs; a kill
        leaves both, or neither.

        Args:
            begun: held: What it pinned earlier.

        Returns:
            What is pinned for it: whoever pinned the others keeps his pin.
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
        fresh = self._manager.record_pinning(RECOVERY_STARTED, told, pins, task=self._system)
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
            self.rate = size / seconds

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

    # --- the hint -----------------------------------------------------------------------------

    def _read_hint(self) -> int:
        """Return from where to read; 0 for anything that cannot be true."""
        try:
            found = json.loads(self._hint.read_bytes())
            position, identity = found["position"], found["store"]
            rate = found["rate"]
        except (OSError, ValueError, TypeError, KeyError):
            return 0
        if type(rate) in {int, float} and 0 < rate < 1e15 and self.rate is None:
            self.rate = rate
        store = self._manager.store
        is_sound = type(position) is int and 0 <= position <= store.position
        return position if is_sound and identity == store.id else 0

    def _write_hint(self, position: int) -> None:
        store = self._manager.store
        if store.read_only:
            return
        content: dict[str, Any] = {"position": position, "rate": self.rate, "store": store.id}
        try:
            self._folder.mkdir(exist_ok=True)
            write_atomically(self._hint, json.dumps(content).encode())
        except (OSError, CheckpointError):
            return  # a hint: the log is read from further back


def _after(
    found: Unfinished | None, kind: str, facts: dict[str, int | str], position: int
) -> Unfinished | None:
    """Return what is unfinished after an event."""
    recovery = str(facts.get("recovery", ""))
    if kind == RECOVERY_STARTED:
        listed = str(facts.get("names", ALL))
        names = None if listed == ALL else tuple(listed.split(","))
        capture, safety = str(facts.get("capture", "")), str(facts.get("safety", ""))
        # It begins again where it is resumed: what it has touched before is touched still.
        before = found if found is not None and found.id == recovery else None
        return Unfinished(
            recovery,
            position if before is None else before.position,
            capture,
            safety,
            names,
            touched=[] if before is None else before.touched,
            missing=_listed(facts.get("missing")),
            held=_listed(facts.get("held")),
        )
    if found is None or found.id != recovery:
        return found
    component = str(facts.get("component", ""))
    if kind == RECOVERY_STEP:
        action = facts.get("action")
        if action == RESTORING and component not in found.touched:
            found.touched.append(component)
        if action == REVERTED and component in found.touched:
            found.touched.remove(component)
        return found
    if kind == RECOVERY_FAILED and not facts.get("rolled_back"):
        return found
    return None


def _listed(fact: int | str | None) -> tuple[str, ...]:
    return tuple(fact.split(",")) if isinstance(fact, str) and fact else ()
