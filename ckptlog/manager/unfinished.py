"""The recovery of a system that began and came to no end, as the log tells it (specs/recovery.md).

A recovery is unfinished when it has started, and has neither completed nor failed with
rolled_back 1 or abandoned 1; the deletion of its whole system ends it too. To find it the log is
read from where nothing was unfinished: STORE/recovery/ has that position for each system, and is
only a hint: without it the log is read from the beginning.

What such a recovery needs must not be deleted, by whatever way (`refuse_needed`, `refuse_begun`).
That it is looked for does not hang on the hint, which no backup has: what a recovery needs is
pinned from the commit that begins it to the commit that ends it.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Final
from weakref import WeakKeyDictionary

from blake3 import blake3

from ckptlog.errors import CheckpointError, RecoveryUnfinishedError
from ckptlog.manager.fact import is_pinned
from ckptlog.model.event import (
    RECOVERY_COMPLETED,
    RECOVERY_FAILED,
    RECOVERY_STARTED,
    RECOVERY_STEP,
    TASK_DELETED,
)
from ckptlog.repository.store import Store
from ckptlog.storage.files import write_atomically
from ckptlog.storage.fork import free_in_child, renewed_in_child
from ckptlog.views.query import Filter

FOLDER: Final = "recovery"
ALL: Final = "*"
RESTORING: Final = "restoring"
RESTORED: Final = "restored"
REVERTING: Final = "reverting"
REVERTED: Final = "reverted"

_PAGE_ROWS: Final = 200
_TYPES: Final = frozenset(
    {RECOVERY_STARTED, RECOVERY_STEP, RECOVERY_COMPLETED, RECOVERY_FAILED, TASK_DELETED}
)


@dataclass
class Unfinished:
    """A recovery that ended in the middle.

    id: Of its events. position: Of its start. names: Its components; None for all of the capture.
    touched: Components whose restore began, in that order, and that were not put back.
    restored: Those of them that are as in the capture; the others may be half of it.
    missing: Components that were not there when it began. held: Captures that were pinned for it.
    """

    id: str
    position: int
    capture: str
    safety: str
    names: tuple[str, ...] | None
    touched: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    missing: tuple[str, ...] = ()
    held: tuple[str, ...] = ()


class Trace:
    """Finds the unfinished recovery of one system in one store.

    Attributes:
        lock_path: Of the lock of whoever recovers the system.
        rate: Bytes a second of the last recovery; None where none is known.

    Threads: one at a time.        Cost: the log since the last look.
    """

    def __init__(self, store: Store, system: str) -> None:
        self._store = store
        self._system = system
        name = blake3(system.encode()).hexdigest()[:32]
        self.folder = Path(store.path) / FOLDER
        self.lock_path = self.folder / f"{name}.lock"
        self._hint = self.folder / f"{name}.json"
        self.rate: float | None = None

    @property
    def is_there(self) -> bool:
        """Whether the system was ever recovered here."""
        return self._hint.exists() or self.lock_path.exists()

    def unfinished(self) -> Unfinished | None:
        """Return the recovery that ended in the middle, if there is one."""
        start = self._read_hint()
        found: Unfinished | None = None
        end = start
        for entry in self._store.events(start):
            end = entry.position + 1
            event = entry.event
            if event.type in _TYPES and event.subject.task == self._system:
                found = _after(found, event.type, event.facts, entry.position)
        self._write_hint(end if found is None else found.position)
        return found

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
        store = self._store
        is_sound = type(position) is int and 0 <= position <= store.position
        return position if is_sound and identity == store.id else 0

    def _write_hint(self, position: int) -> None:
        store = self._store
        if store.read_only:
            return
        content: dict[str, Any] = {"position": position, "rate": self.rate, "store": store.id}
        try:
            self.folder.mkdir(exist_ok=True)
            # A power cut may take it: the position is found again by reading more of the log, and
            # the rate by the next recovery; until then there is none to foretell a time by.
            write_atomically(self._hint, json.dumps(content).encode(), durable=False)
        except (OSError, CheckpointError):
            return  # a hint: the log is read from further back


def refuse_needed(store: Store, checkpoint_id: str) -> None:
    """Refuse to delete what an unfinished recovery is finished with, or undone.

    Raises:
        RecoveryUnfinishedError: There is one that needs it.

    Cost: a look at the view; the log only where the checkpoint is pinned, or its task was ever
        recovered here.
    """
    row = store.view().row(checkpoint_id)
    if row is None or row.deleted:
        return
    trace = Trace(store, row.task)
    if not trace.is_there and not is_pinned(store, row):
        return
    found = trace.unfinished()
    if found is not None and checkpoint_id in {found.capture, found.safety}:
        raise refusal(row.task, found, f"needs {checkpoint_id}")


def refuse_begun(store: Store, task: str) -> None:
    """Refuse to delete a system whose recovery came to no end.

    Raises:
        RecoveryUnfinishedError: There is one.

    Cost: a look at each row of the task; the log only where one of them is pinned, or the task was
        ever recovered here: what lies behind the last look of this store, whatever the task.
    """
    trace = Trace(store, task)
    if trace.is_there:
        found = trace.unfinished()
    elif _has_pin(store, task):
        found = _survey_of(store).unfinished(store, task)
    else:
        return
    if found is not None:
        raise refusal(task, found, "needs its captures")


def _has_pin(store: Store, task: str) -> bool:
    """Say whether a checkpoint of a task is pinned, as those of an unfinished recovery are."""
    store.catch_up()
    after: int | None = None
    while rows := store.select(Filter(task=task), after=after, limit=_PAGE_ROWS):
        if any(is_pinned(store, row) for row in rows):
            return True
        after = rows[-1].origin
    return False


class _Survey:
    """The unfinished recoveries of every task, by one reading of the log that is gone on with.

    Whoever deletes many tasks with pins, one after the other, reads the log once.

    Threads: safe.        Memory: by the number of unfinished recoveries.
    """

    def __init__(self) -> None:
        self.renew_in_child()
        renewed_in_child(self)

    def renew_in_child(self) -> None:
        """Know nothing yet: in a forked child what was being read is half there."""
        self._lock = Lock()
        self._position = 0
        self._found: dict[str, Unfinished] = {}

    def unfinished(self, store: Store, task: str) -> Unfinished | None:
        """Return the recovery of a task that ended in the middle, if there is one."""
        with self._lock:
            for entry in store.events(self._position):
                event = entry.event
                if event.type in _TYPES:
                    self._add(event.subject.task, event.type, event.facts, entry.position)
                self._position = entry.position + 1
            return self._found.get(task)

    def _add(self, task: str, kind: str, facts: dict[str, int | str], position: int) -> None:
        after = _after(self._found.pop(task, None), kind, facts, position)
        if after is not None:
            self._found[task] = after


_surveys: WeakKeyDictionary[Store, _Survey] = WeakKeyDictionary()
_surveys_lock = Lock()
free_in_child(sys.modules[__name__], "_surveys_lock")


def _survey_of(store: Store) -> _Survey:
    with _surveys_lock:
        return _surveys.setdefault(store, _Survey())


def refusal(system: str, found: Unfinished, why: str) -> RecoveryUnfinishedError:
    """Return the error of what an unfinished recovery does not allow."""
    return RecoveryUnfinishedError(
        f"The recovery {found.id} of {system!r}, which ended in the middle, {why}.",
        hint=f"End it first: ckptlog recover --system {shlex.quote(system)} --resume finishes it, "
        "--roll-back undoes it, --abandon gives it up.",
        recovery=found.id,
        capture=found.capture,
        safety=found.safety,
    )


def _after(
    found: Unfinished | None, kind: str, facts: dict[str, int | str], position: int
) -> Unfinished | None:
    """Return what is unfinished after an event."""
    if kind == TASK_DELETED:
        return None
    recovery = str(facts.get("recovery", ""))
    if kind == RECOVERY_STARTED:
        return _begun(found, recovery, facts, position)
    if found is None or found.id != recovery:
        return found
    if kind == RECOVERY_STEP:
        _step(found, str(facts.get("component", "")), facts.get("action"))
        return found
    is_open = kind == RECOVERY_FAILED and not (facts.get("rolled_back") or facts.get("abandoned"))
    return found if is_open else None


def _begun(
    found: Unfinished | None, recovery: str, facts: dict[str, int | str], position: int
) -> Unfinished:
    listed = str(facts.get("names", ALL))
    # It begins again where it is resumed: what it has touched before is touched still.
    before = found if found is not None and found.id == recovery else None
    return Unfinished(
        recovery,
        position if before is None else before.position,
        str(facts.get("capture", "")),
        str(facts.get("safety", "")),
        None if listed == ALL else tuple(listed.split(",")),
        touched=[] if before is None else before.touched,
        restored=[] if before is None else before.restored,
        missing=_listed(facts.get("missing")),
        held=_listed(facts.get("held")),
    )


def _step(found: Unfinished, component: str, action: int | str | None) -> None:
    if action == RESTORING and component not in found.touched:
        found.touched.append(component)
    if action == REVERTED and component in found.touched:
        found.touched.remove(component)
    if action != RESTORED and component in found.restored:
        found.restored.remove(component)
    if action == RESTORED and component not in found.restored:
        found.restored.append(component)


def _listed(fact: int | str | None) -> tuple[str, ...]:
    return tuple(fact.split(",")) if isinstance(fact, str) and fact else ()
