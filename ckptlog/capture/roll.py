"""The roll of one system's captures: what retention asks of each, kept while the log goes on.

    at first   every row of the view, once: some microseconds each
    then       the log from where it was followed to: only what an event was about is read again

A service looks at its captures after each one, and may have 100,000 of them: what a look costs must
depend on what happened since the last one, not on how many there are.

The view and the log tell the same, so a roll may be dropped and made anew at any time; it is where
the log was repaired, or the whole task deleted.
"""

from __future__ import annotations

from threading import Lock
from typing import Final

import msgspec

from ckptlog.capture.catalogue import DAMAGES
from ckptlog.manager.fact import PIN, raws_of
from ckptlog.model.capture import METADATA_KEY
from ckptlog.model.event import LOST, REPAIRED, TASK_DELETED, Reference
from ckptlog.repository.store import Store
from ckptlog.storage.fork import renewed_in_child
from ckptlog.views.query import Filter
from ckptlog.views.row import Row

KEEP_TAG: Final = "keep"
# The reason of what is captured before a recovery or a rewind touches anything.
SAFETY: Final = "safety"
_PAGE_ROWS: Final = 500
# Beyond it the view is faster than the log.
_EVENTS_MAX: Final = 50_000
_ANEW: Final = frozenset({TASK_DELETED, REPAIRED, LOST})


class Line(msgspec.Struct, frozen=True, gc=False):
    """One capture. created: UTC, ISO 8601. is_kept: Pinned, tagged `keep`, or not to be read."""

    id: str
    created: str
    is_kept: bool = False
    is_safety: bool = False


class _Facts(msgspec.Struct, gc=False):
    reason: str = ""
    tags: list[str] = []


_decode_facts = msgspec.json.Decoder(_Facts).decode


class Roll:
    """The captures of one system, in the order in which they were taken.

    Attributes:
        loose, safety: Those that no pin and no tag keeps, by id: the ordinary ones, and what was
            saved before recoveries.

    Threads: `follow` and `count` are safe; the rest in one at a time.
    Cost: of a look, that of the events since the last one; some 250 bytes for each capture.
    """

    def __init__(self, store: Store, system: str) -> None:
        self._store = store
        self._system = system
        self.renew_in_child()
        renewed_in_child(self)

    def renew_in_child(self) -> None:
        """Know nothing yet: in a forked child what was being taken in is half there."""
        self._lock = Lock()
        self._position: int | None = None
        self._lines: dict[str, Line] = {}
        self.loose: dict[str, Line] = {}
        self.safety: dict[str, Line] = {}

    def count(self) -> int:
        """Return how many captures there are."""
        self.follow()
        return len(self._lines)

    def newest_first(self) -> list[str]:
        """Return the ids of all captures, the ordinary ones before those of recoveries."""
        ids = [one.id for one in reversed(self._lines.values()) if not one.is_safety]
        return ids + [one.id for one in reversed(self._lines.values()) if one.is_safety]

    def follow(self) -> None:
        """Take in what happened since the last look.

        Raises:
            CheckpointStorageError: The log or the view cannot be read.
        """
        with self._lock:
            end = self._store.position
            if self._position is None or not self._take_in(self._position, end):
                self._read_all()
            self._position = end

    def _take_in(self, begin: int, end: int) -> bool:
        """Take in events; False where all must be read again."""
        if end - begin > _EVENTS_MAX:
            return False
        touched: dict[str, None] = {}
        for entry in self._store.events(begin, end):
            event = entry.event
            if event.type in _ANEW and event.subject.task in ("", self._system):
                return False
            if event.subject.task == self._system and event.subject.checkpoint:
                touched[event.subject.checkpoint] = None
        view = self._store.view() if touched else None
        for identifier in touched:
            row = None if view is None else view.row(identifier)
            self._put(identifier, row)
        return True

    def _read_all(self) -> None:
        self._lines, self.loose, self.safety = {}, {}, {}
        wanted, after = Filter(task=self._system), None
        while rows := self._store.select(wanted, after=after, limit=_PAGE_ROWS):
            for row in rows:
                self._put(row.id, row)
            after = rows[-1].origin

    def _put(self, identifier: str, row: Row | None) -> None:
        line = None if row is None or row.deleted or row.task != self._system else self._line(row)
        known = self._lines.get(identifier)
        if line == known:
            return
        if line is None:
            for place in (self._lines, self.loose, self.safety):
                place.pop(identifier, None)
            return
        self._lines[identifier] = line
        if known is None:
            self._sort_in(line)
            return
        # It was pinned, or let go of, and belongs between others.
        self.loose, self.safety = {}, {}
        for one in self._lines.values():
            self._sort_in(one)

    def _sort_in(self, line: Line) -> None:
        if not line.is_kept:
            (self.safety if line.is_safety else self.loose)[line.id] = line

    def _line(self, row: Row) -> Line | None:
        """Return what a row says; None where it is no capture."""
        wire = row.meta
        if wire is None and row.meta_root:
            try:
                wire = self._store.wire(Reference(row.meta_kind, row.meta_root, row.meta_size))
            except DAMAGES:  # what cannot be read is counted, and nothing deletes it
                return Line(row.id, row.created, is_kept=True)
        raws = raws_of(wire) if wire else {}
        if raws is None:
            return Line(row.id, row.created, is_kept=True)
        if METADATA_KEY not in raws:
            return None
        try:
            facts = _decode_facts(raws[METADATA_KEY])
        except msgspec.MsgspecError:
            return Line(row.id, row.created, is_kept=True)
        pin = raws.get(PIN)
        is_kept = KEEP_TAG in facts.tags or (pin is not None and bytes(pin) == b"true")
        return Line(row.id, row.created, is_kept=is_kept, is_safety=facts.reason == SAFETY)
