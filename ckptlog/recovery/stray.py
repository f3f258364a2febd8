"""Stray pins: what recoveries of older versions pinned, and a kill left pinned for ever.

Older versions pinned a recovery's captures before `recovery.started`, and unpinned them behind its
end, each in a commit of its own. A kill between leaves

    behind the end     a pin from right before a start that has it in `held`, of a recovery that
                       came to its end
    before the start   a pin that follows, by the same actor and within a second, the safety capture
                       that was taken before the recovery of the same capture, which never began

Every other pin is somebody's own, and stays.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from ckptlog.capture.capturer import Capturer
from ckptlog.capture.roll import SAFETY
from ckptlog.errors import CheckpointError
from ckptlog.manager.fact import is_pinned
from ckptlog.manager.unfinished import Unfinished
from ckptlog.model.entry import Entry
from ckptlog.model.event import COMPLETED, PINNED, RECOVERY_STARTED
from ckptlog.views.query import Filter

# Events between a pin and what belongs to it: those of other writers come between.
_NEAR: Final = 200
_MOMENT: Final = timedelta(seconds=1)
_PAGE_ROWS: Final = 500


def sweep(capturer: Capturer, unfinished: Unfinished | None) -> list[str]:
    """Unpin what no recovery needs any more and nobody else has pinned; return the ids.

    Args:
        unfinished: The recovery whose pins are needed.

    Cost: the rows of the system's captures; of each that is pinned some events.
    """
    needed = () if unfinished is None else (unfinished.capture, unfinished.safety)
    gone = []
    for identifier in _pinned(capturer):
        if identifier in needed or not _is_stray(capturer, identifier):
            continue
        capturer.manager.unpin_checkpoint(identifier)
        gone.append(identifier)
    return gone


def _pinned(capturer: Capturer) -> list[str]:
    store, wanted = capturer.manager.store, Filter(task=capturer.system)
    found: list[str] = []
    after = None
    while rows := store.select(wanted, after=after, limit=_PAGE_ROWS):
        found += [row.id for row in rows if is_pinned(store, row)]
        after = rows[-1].origin
    return found


def _is_stray(capturer: Capturer, identifier: str) -> bool:
    """Say whether an older version's recovery left this pin."""
    store = capturer.manager.store
    pin = store.newest(identifier)
    if pin is None or pin.event.type != PINNED:
        return False
    return _is_held(capturer, pin) or _is_of_no_start(capturer, pin)


def _is_held(capturer: Capturer, pin: Entry) -> bool:
    """Say whether the first recovery that began behind a pin has it."""
    store, identifier = capturer.manager.store, pin.event.subject.checkpoint
    end = min(store.position, pin.position + _NEAR)
    for entry in store.events(pin.position + 1, end):
        event = entry.event
        if event.type == RECOVERY_STARTED and event.subject.task == capturer.system:
            return identifier in str(event.facts.get("held", "")).split(",")
    return False


def _is_of_no_start(capturer: Capturer, pin: Entry) -> bool:
    """Say whether a pin follows at once the safety capture of a recovery that never began."""
    store, identifier = capturer.manager.store, pin.event.subject.checkpoint
    before = [
        entry
        for entry in store.events(max(0, pin.position - _NEAR), pin.position)
        if entry.event.type == COMPLETED and entry.event.subject.task == capturer.system
    ]
    if not before:
        return False
    taken = before[-1]
    try:
        safety = capturer.find(taken.event.subject.checkpoint)
    except CheckpointError:
        return False
    is_safety = safety.reason == SAFETY and (
        identifier == safety.id or safety.description == f"before the recovery of {identifier}"
    )
    is_first = pin.event.previous <= taken.position  # else it was pinned anew
    is_at_once = taken.event.actor == pin.event.actor and _time(pin) - _time(taken) <= _MOMENT
    return is_safety and is_first and is_at_once


def _time(entry: Entry) -> datetime:
    return datetime.fromisoformat(entry.event.time)
