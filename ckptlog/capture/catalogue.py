"""The catalogue: finds the captures of one system in a store, by what is known of them alone.

Payloads are never read here: a capture's events and its small `meta` payload say everything. Where
that is damaged, the others are there still: `on_damage` is told, and they are found without it.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from itertools import islice
from typing import Final

from ckptlog.errors import (
    ArgumentError,
    CheckpointCorruptionError,
    CheckpointError,
    CheckpointNotFoundError,
    MissingBlobError,
)
from ckptlog.manager.reading import OnDamage, check_iteration
from ckptlog.model import value as values
from ckptlog.model.capture import CaptureInfo, info_of, is_capture
from ckptlog.model.checkpoint import CheckpointData, time_text
from ckptlog.model.entry import Entry
from ckptlog.model.identifier import CHECKPOINT_ID_CHARACTERS_MAX, check_id
from ckptlog.model.position import check_position
from ckptlog.model.quotation import quoted
from ckptlog.repository.snapshot import build
from ckptlog.repository.store import Store
from ckptlog.views.query import Filter
from ckptlog.views.row import Row

_PAGE_ROWS: Final = 50
DAMAGES: Final = (CheckpointCorruptionError, MissingBlobError)

_OnRow = Callable[[Row, CheckpointError], object]


class Catalogue:
    """Finds one system's captures.

    Threads: safe.
    """

    def __init__(self, store: Store, system: str) -> None:
        self._store = store
        self._system = check_id("system", system)

    def list(
        self, limit: int | None = None, *, on_damage: OnDamage | None = None
    ) -> list[CaptureInfo]:
        """Return captures, newest first.

        Args:
            on_damage: Called with the id of each one that cannot be read, and the error.

        Raises:
            ArgumentError: limit is no whole number from 0 on, or on_damage no function.
            CheckpointCorruptionError, MissingBlobError: One is damaged, and there is no on_damage.
        """
        check_iteration(limit, on_damage)
        stop = None if limit is None else min(limit, sys.maxsize)
        return list(islice(self._found(limit, _by_id(on_damage)), stop))

    def each(self, *, on_damage: OnDamage | None = None) -> Iterator[CaptureInfo]:
        """Yield captures, newest first, each when it is asked for; on_damage: as of `list`."""
        check_iteration(None, on_damage)
        return self._found(None, _by_id(on_damage))

    def latest(self) -> CaptureInfo | None:
        """Return the newest capture that can be read, or None where there is none."""
        return next(self._found(1, lambda _row, _error: None), None)

    def find(
        self, capture_id: str | None = None, *, at: datetime | int | None = None
    ) -> CaptureInfo:
        """Return a capture by its id; the newest one without.

        Args:
            at: The newest one not after this time (aware), or this position.

        Raises:
            ArgumentError: Both were given, or `at` is no time with a zone and no position.
            CheckpointNotFoundError: There is no such capture, or it was deleted.
        """
        if capture_id is not None:
            if at is not None:
                raise ArgumentError("Give either capture_id or at, not both.", argument="at")
            return self._of_id(check_id("capture_id", capture_id, CHECKPOINT_ID_CHARACTERS_MAX))
        check_moment(at)

        def damaged(row: Row, error: CheckpointError) -> None:
            if at is None or _is_row_not_after(row, at):
                raise error

        oldest = None
        for info in self._found(None if at is not None else 1, damaged):
            if at is None or _is_not_after(info, at):
                return info
            oldest = info
        until = "" if at is None else f" at or before {at}"
        first = "" if oldest is None else f"; the first is of {time_text(oldest.created_at)}"
        raise CheckpointNotFoundError(
            f"System {self._system!r} has no capture{until}{first}.",
            hint=_what_there_is(self._system),
            system=self._system,
        )

    def of_row(self, row: Row) -> CaptureInfo | None:
        """Return the capture that a row of the view is; None where it is none."""
        found = self._store.read_row(row)
        return None if found is None else self._info(*found)

    def _of_id(self, capture_id: str) -> CaptureInfo:
        found = self._store.read(capture_id)
        info = None if found is None else self._info(*found)
        if info is None or info.system != self._system:
            raise CheckpointNotFoundError(
                f"System {self._system!r} has no capture {capture_id!r}.",
                hint=f"It may have been deleted. {_what_there_is(self._system)}",
                checkpoint_id=capture_id,
                system=self._system,
            )
        return info

    def _found(self, limit: int | None, on_damage: _OnRow | None = None) -> Iterator[CaptureInfo]:
        """Yield captures, newest first; limit is how many are likely to be taken."""
        wanted, after = Filter(task=self._system), None
        size = _PAGE_ROWS if limit is None else min(max(limit, 1), _PAGE_ROWS)
        while True:
            rows = self._store.select(wanted, after=after, limit=size, newest_first=True)
            for row in rows:
                try:
                    info = self.of_row(row)
                except DAMAGES as error:
                    if on_damage is None:
                        raise
                    on_damage(row, error)
                    continue
                if info is not None:
                    yield info
            if len(rows) < size:
                return
            after = rows[-1].origin

    def _info(self, entry: Entry, records: dict[bytes, bytes]) -> CaptureInfo | None:
        """Return what an event says of a capture; None where it is another checkpoint's."""
        checkpoint = self._without_data(entry, records)
        if not is_capture(checkpoint.metadata):
            return None
        return info_of(checkpoint, position=entry.origin)

    def _without_data(self, entry: Entry, records: dict[bytes, bytes]) -> CheckpointData:
        meta = {}
        if entry.event.meta is not None:
            wire = self._store.blobs.wire(entry.event.meta, records)
            meta = values.decode(wire, self._store.codecs)
        return build(entry, {}, meta)


def systems(store: Store) -> list[str]:
    """Return the names of all systems that have captures, in the order of their newest ones.

    Cost: the rows of all checkpoints; of each task the metadata of one.
    """
    found: dict[str, bool] = {}
    after = None
    while True:
        rows = store.select(Filter(), after=after, limit=_PAGE_ROWS, newest_first=True)
        for row in rows:
            if row.task not in found:
                with suppress(*DAMAGES):  # another one of the task tells
                    newest = Catalogue(store, row.task).of_row(row)
                    found[row.task] = newest is not None
        if len(rows) < _PAGE_ROWS:
            return [task for task, is_system in found.items() if is_system]
        after = rows[-1].origin


def capture_of(store: Store, capture_id: str) -> CaptureInfo | None:
    """Return a capture by its id, of whatever system; None where there is none."""
    found = store.read(check_id("capture_id", capture_id, CHECKPOINT_ID_CHARACTERS_MAX))
    if found is None:
        return None
    entry, _ = found
    try:
        return Catalogue(store, entry.event.subject.task).find(capture_id)
    except CheckpointNotFoundError:
        return None


def check_moment(at: object) -> None:
    """Refuse what is neither an aware time nor a position.

    Raises:
        ArgumentError: It is none.
    """
    if at is None:
        return
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise ArgumentError(
                "at has no time zone.",
                hint="Use an aware datetime, UTC for example.",
                argument="at",
            )
        return
    if type(at) is not int or at < 0:
        raise ArgumentError(
            f"at is {quoted(at)}.",
            hint="A time (an aware datetime) or a position (a whole number from 0 on) is needed.",
            argument="at",
        )
    check_position("at", at)


def _by_id(on_damage: OnDamage | None) -> _OnRow | None:
    return None if on_damage is None else lambda row, error: on_damage(row.id, error)


def _is_row_not_after(row: Row, at: datetime | int) -> bool:
    if isinstance(at, datetime):
        return datetime.fromisoformat(row.created) <= at
    return row.origin <= at


def _what_there_is(system: str) -> str:
    return f"`ckptlog list --task {shlex.quote(system)}` shows what there is."


def _is_not_after(info: CaptureInfo, at: datetime | int) -> bool:
    return info.created_at <= at if isinstance(at, datetime) else info.position <= at
