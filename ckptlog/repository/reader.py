"""What a store answers: events by position, checkpoints by id, pages of rows, payloads.

    look-up = memory, else the view's row -> the event that it names, read from the log and checked

A view that does not answer, or answers wrongly, is replaced and asked again (`_guarded`); nothing
that it says is believed where the log can be asked. Mixed into `Store`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from ckptlog.blobs.store import BlobStore
from ckptlog.blobs.tree_reader import Stored
from ckptlog.errors import ArgumentError, CheckpointError
from ckptlog.log.log import Log
from ckptlog.model.codec import Codecs
from ckptlog.model.entry import Entry
from ckptlog.model.event import Event, Reference
from ckptlog.model.identifier import id_time
from ckptlog.model.lease import Grant
from ckptlog.model.position import check_position
from ckptlog.model.quotation import quoted
from ckptlog.repository.keeper import Keeper
from ckptlog.repository.ledger import ViewBehindError
from ckptlog.repository.locator import Locator
from ckptlog.views.current import CurrentView
from ckptlog.views.errors import ViewBusyError, ViewDamagedError, ViewError
from ckptlog.views.query import Filter, Ranked
from ckptlog.views.row import Row

Answer = TypeVar("Answer")

# Answers that a view may fail to give before one in memory is asked.
_VIEW_ATTEMPTS = 3


class StoreReader:
    """The part of a store that reads.

    Raises (every method):
        StoreClosedError: The store was closed.

    Threads: safe.
    """

    log: Log
    blobs: BlobStore
    codecs: Codecs
    _keeper: Keeper
    _locator: Locator

    @property
    def position(self) -> int:
        """Position after the last durable event."""
        raise NotImplementedError

    def catch_up(self) -> None:
        """Take in what other processes have committed since the last call."""
        raise NotImplementedError

    def view(self) -> CurrentView:
        """Return the view, caught up with everything that was acknowledged."""
        raise NotImplementedError

    def _check_open(self) -> None:
        raise NotImplementedError

    def events(self, start: int = 0, end: int | None = None) -> Iterator[Entry]:
        """Yield durable events with start <= position < end, in order.

        Raises:
            LogCorruptionError: A durable event is damaged.
        """
        self._check_open()
        start = check_position("start", start)
        end = None if end is None else check_position("end", end)
        _check_range(start, end)
        return self._events(start, end)

    def _waypoint(self, position: int) -> tuple[str, int, int] | None:
        return self._guarded(lambda: self._keeper.ledger.view.waypoint(position))

    def _events(self, start: int, end: int | None) -> Iterator[Entry]:
        place = self._waypoint(start)
        if place is not None:
            try:
                for entry in self._events_from(place, start, end):
                    start = entry.position + 1
                    yield entry
            except CheckpointError:  # or what the view says of places is wrong
                pass
            else:
                return
        yield from self._events_from(("", 0, start), start, end)

    def _events_from(
        self, place: tuple[str, int, int], start: int, end: int | None
    ) -> Iterator[Entry]:
        for commit in self.log.reader.commits(*place) if start < self.position else ():
            for entry in commit.entries:
                if end is not None and entry.position >= end:
                    return
                if entry.position >= start:
                    yield entry

    def event_at(self, position: int) -> Entry | None:
        """Return the event at a position, None beyond the end; also one of ours not yet durable."""
        self._check_open()
        position = check_position("position", position)
        _check_range(position, None)
        own = self._keeper.ledger.pending_at(position)
        found = self._locator.entry(position) if own is None else own
        return next(self.events(position, position + 1), None) if found is None else found

    def newest(self, checkpoint: str) -> Entry | None:
        """Return the newest event of a living checkpoint."""
        self.catch_up()
        found = self._guarded(lambda: self._keeper.ledger.peek(checkpoint))
        return None if found is None or found[1] else found[0]

    def newest_ever(self, checkpoint: str) -> Entry | None:
        """Return the newest event of a checkpoint, its deletion included."""
        self.catch_up()
        found = self._guarded(lambda: self._keeper.ledger.peek(checkpoint))
        return None if found is None else found[0]

    def stored(self, reference: Reference) -> Stored:
        """Return a payload to be read by parts; nothing is read yet."""
        return Stored(reference, self.blobs.raw, codecs=self.codecs)

    def is_taken(self, checkpoint: str) -> bool:
        """Say whether a checkpoint id was ever used, as far as this process knows by now."""
        # Above every timestamp in the store no look-up is needed.
        if id_time(checkpoint) > self._keeper.ledger.id_time_max:
            return False
        return self.newest_ever(checkpoint) is not None

    def select(
        self, wanted: Filter, *, after: int | None, limit: int, newest_first: bool = False
    ) -> list[Row]:
        """Return a page of rows from the view, caught up."""

        def look_up() -> list[Row]:
            rows = self.view().select(wanted, after=after, limit=limit, newest_first=newest_first)
            if not all(_fits(row, wanted) for row in rows):
                raise ViewDamagedError("An index of the view leads to other checkpoints.")
            return rows

        return self._guarded(look_up)

    def latest_rows(self, after: str | None = None, limit: int = 1000) -> list[Row]:
        """Return a page of tasks' latest living checkpoints from the view, caught up, by task."""
        return self._guarded(lambda: self.view().latest_rows(after, limit))

    def ranked(
        self, wanted: Ranked, *, after: tuple[str, int] | None = None, limit: int = 100
    ) -> list[Row]:
        """Return a page of rows with ranked ids from the view, caught up, greatest rank first."""

        def look_up() -> list[Row]:
            rows = self.view().ranked(wanted, after=after, limit=limit)
            if not all(_is_ranked(row, wanted) for row in rows):
                raise ViewDamagedError("An index of the view leads to other checkpoints.")
            return rows

        return self._guarded(look_up)

    def incarnation(self, task: str) -> int:
        """Return how often a task was deleted."""
        self.catch_up()
        return self.incarnation_known(task)

    def incarnation_known(self, task: str) -> int:
        """Do as `incarnation`, as of this process's last look at the log: for what is checked."""
        self._check_open()
        return self._guarded(lambda: self._keeper.ledger.peek_incarnation(task))

    def leases(self) -> dict[str, Grant]:
        """Return every lease that was not released, by task; some may have expired."""
        self.catch_up()
        return self._guarded(self._leases)

    def _leases(self) -> dict[str, Grant]:
        with self._keeper.fold_lock:
            return dict(self._keeper.ledger.leases())

    def lease(self, task: str) -> Grant | None:
        """Return the lease of a task that was not released; it may have expired."""
        self.catch_up()
        return self._guarded(lambda: self._lease(task))

    def _lease(self, task: str) -> Grant | None:
        with self._keeper.fold_lock:
            return self._keeper.ledger.lease(task)

    def count(self, wanted: Filter) -> int:
        """Return how many living checkpoints match."""
        return self._guarded(lambda: self.view().count(wanted))

    def count_task(self, task: str) -> tuple[int, int]:
        """Return how many living checkpoints a task has, and the position they were counted at.

        The count may hold later events too; `policy.decide` asks whether there were any.
        """
        self.catch_up()
        position = self._keeper.ledger.position
        return self.count(Filter(task=task)), position

    def command(self, command: str) -> Event | None:
        """Return the event that carried a command id; None where there is none."""
        self.catch_up()
        return self._guarded(lambda: self._keeper.ledger.command(command))

    def read_row(self, row: Row) -> tuple[Entry, dict[bytes, bytes]] | None:
        """Return the event behind a row; None where it was deleted since the row was read."""
        ledger = self._keeper.ledger
        found = ledger.known(row.id)
        if (found is not None and found[1]) or ledger.is_deleted(row):
            return None
        try:
            return ledger.read_row(row)
        except ViewDamagedError as error:
            self._keeper.heal(ledger.view, error)
            return self.read(row.id)

    def read(self, checkpoint: str) -> tuple[Entry, dict[bytes, bytes]] | None:
        """Return a living checkpoint's newest event, and chunk records found beside it."""
        self.catch_up()
        return self._guarded(lambda: self._read(checkpoint))

    def read_known(self, checkpoint: str) -> tuple[Entry, dict[bytes, bytes]] | None:
        """Do as `read`, from memory where it has the checkpoint: for what is checked later."""
        self._check_open()
        found = self._keeper.ledger.known(checkpoint)
        if found is None or found[1]:
            return self.read(checkpoint)
        return found[0], {}

    def _read(self, checkpoint: str) -> tuple[Entry, dict[bytes, bytes]] | None:
        ledger = self._keeper.ledger
        generation = ledger.generation
        found = ledger.known(checkpoint)
        if found is not None:
            return None if found[1] else (found[0], {})
        row = ledger.view.row(checkpoint)
        if row is None or ledger.is_deleted(row):
            return None
        entry, records = ledger.read_row(row)
        with self._keeper.fold_lock:
            ledger.remember_read(entry, generation)
        return entry, records

    def read_latest(self, task: str) -> tuple[Entry, dict[bytes, bytes]] | None:
        """Do as `read` for a task's newest living checkpoint."""
        self.catch_up()
        return self._guarded(lambda: self._read_latest(task))

    def _read_latest(self, task: str) -> tuple[Entry, dict[bytes, bytes]] | None:
        ledger = self._keeper.ledger
        generation = ledger.generation
        if ledger.is_recent(task):
            entry = self._latest(task)
            return None if entry is None else (entry, {})
        row = ledger.view.latest_of_task(task)
        if row is None:
            return None
        known = ledger.known(row.id)
        if known is not None or ledger.is_deleted(row):
            # Memory has become newer than the row meanwhile: it knows.
            entry = self._latest(task)
            return None if entry is None else (entry, {})
        entry, records = ledger.read_row(row)
        with self._keeper.fold_lock:
            ledger.remember_read(entry, generation, is_latest=True)
        return entry, records

    def latest(self, task: str) -> Entry | None:
        """Return the newest event of a task's newest living checkpoint."""
        self.catch_up()
        return self._guarded(lambda: self._latest(task))

    def latest_known(self, task: str) -> Entry | None:
        """Do as `latest`, as of this process's last look at the log: for what is checked later."""
        self._check_open()
        return self._guarded(lambda: self._latest(task))

    def _latest(self, task: str) -> Entry | None:
        try:
            return self._keeper.ledger.latest(task)
        except ViewBehindError:
            row = self.view().latest_of_task(task)
            return None if row is None else self._keeper.ledger.read_row(row)[0]

    def _guarded(self, look_up: Callable[[], Answer]) -> Answer:
        """Run a look-up; should the view not answer, replace it and run once more.

        Raises:
            StoreClosedError: Another thread has closed the store.
        """
        keeper = self._keeper
        for _ in range(_VIEW_ATTEMPTS):
            view = keeper.ledger.view
            try:
                return look_up()
            except ViewError as error:
                self._check_open()
                keeper.heal(view, error)
        # Whatever is wrong with the file: memory answers.
        keeper.heal(keeper.ledger.view, ViewBusyError())
        return look_up()

    def wire(self, reference: Reference) -> bytes:
        """Return a payload's bytes, verified.

        Raises:
            BlobCorruptionError, MissingBlobError: They are damaged or gone.
        """
        self._check_open()
        return self.blobs.wire(reference)

    def value(self, reference: Reference | None) -> Any:
        """Return a payload's value, a new object each time; None for no payload."""
        self._check_open()
        return None if reference is None else self.blobs.value(reference, self.codecs)


def _check_range(start: int, end: int | None) -> None:
    if start < 0 or (end is not None and end < start):
        raise ArgumentError(f"Positions {quoted(start)} to {quoted(end)} are no range.")


def _is_ranked(row: Row, wanted: Ranked) -> bool:
    pairs = ((wanted.task, row.task), (wanted.namespace, row.namespace))
    return all(word is None or word == own for word, own in pairs)


def _fits(row: Row, wanted: Filter) -> bool:
    """Say whether a row has the words that it was found by."""
    pairs = (
        (wanted.task, row.task),
        (wanted.worker, row.worker),
        (wanted.state, row.state),
        (wanted.parent, row.parent),
        (wanted.namespace, row.namespace),
    )
    return all(word is None or word == own for word, own in pairs)
