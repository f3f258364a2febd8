"""The view `current`: each checkpoint's present state, projected from the log into SQLite.

Invariants (specs/view-current.md):
- The log is the truth. The view can be deleted at any time and is never a reason to fail: a file
  that cannot be believed is replaced by an empty one, one that cannot be written by a copy in
  memory. Only its owner (the repository) sees its errors.
- One transaction applies whole commits and moves the mark, so the mark always tells exactly what
  is applied. Any process may apply; whoever comes second skips what is there.
- `meta` payloads are cached as their wire; `data` never enters the view.
- A deleted checkpoint leaves a tombstone: its id is spent, no list shows it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Final

from ckptlog.model.entry import Commit
from ckptlog.model.lease import Grant
from ckptlog.storage.environment import Environment
from ckptlog.storage.fork import renewed_in_child, still_in_fork
from ckptlog.views import database, query, schema, transaction
from ckptlog.views.audit import audit
from ckptlog.views.database import Database
from ckptlog.views.errors import (
    FOREIGN,
    ViewBusyError,
    ViewDamagedError,
    ViewError,
    ViewUnwritableError,
    translate,
)
from ckptlog.views.key import id_key
from ckptlog.views.projection import MetaOf
from ckptlog.views.query import Filter, Ranked
from ckptlog.views.row import Mark, Row, Standing, Totals, decode_grant, decode_row

# A smaller view is rebuilt after a reboot sooner than its closes and first writes had synced it.
SEAL_EVENTS_MIN: Final = 20_000
_REBUILD_EVENTS: Final = 4096

_ROW: Final = (
    "SELECT body FROM checkpoint INDEXED BY by_key WHERE key = ?1 UNION ALL "
    "SELECT body FROM tombstone INDEXED BY tombstone_by_key WHERE key = ?1"
)
_LATEST: Final = (
    "SELECT body FROM checkpoint INDEXED BY by_task WHERE task = ? ORDER BY origin DESC LIMIT 1"
)
_COMMAND: Final = "SELECT position FROM command WHERE id = ?"
_WAYPOINT: Final = (
    'SELECT container, "offset", position FROM waypoint WHERE position <= ? '
    "ORDER BY position DESC LIMIT 1"
)
_TASK_END: Final = "SELECT position FROM task_end WHERE task = ?"
_LEASES: Final = "SELECT task, body FROM lease"
_TASK_ENDS: Final = 'SELECT "count", position FROM task_end WHERE task = ?'
_STATES: Final = "SELECT state, count(*) FROM checkpoint INDEXED BY by_state GROUP BY state"
_TASKS: Final = (
    "SELECT task, count(*), max(origin) FROM checkpoint INDEXED BY by_task WHERE task > ? "
    "GROUP BY task ORDER BY task LIMIT ?"
)
_LATEST_ROWS: Final = (
    "SELECT body FROM checkpoint WHERE origin IN (SELECT max(origin) FROM checkpoint "
    "INDEXED BY by_task WHERE task > ? GROUP BY task ORDER BY task LIMIT ?)"
)
_POSITION_MAX: Final = 2**63 - 1


class CurrentView:
    """The present state of every checkpoint of one store.

    Every method but `open` may raise ViewDamagedError (rebuild: `remove`, `open`, `rebuild`);
    reads may raise ViewBusyError.

    Threads: safe; one writer and one reader at a time. A forked child's is closed: it opens its
    own.        Durability: none; what matters is in the log.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._write_lock = threading.RLock()
        self._read_lock = threading.RLock()
        self._is_still = False
        renewed_in_child(self)
        still_in_fork(self)
        self._position_seen = 0
        self._pid = os.getpid()
        self._has_written = False

    @classmethod
    def open(
        cls,
        path: Path | None,
        store_id: bytes,
        *,
        read_only: bool = False,
        boot: bytes | None = None,
    ) -> CurrentView:
        """Open the view at path, in whatever way is possible; it may be empty.

        Args:
            path: Of the database; None for a view in memory.
            store_id: 16 bytes; the view of another store is replaced.
            read_only: Never write to the file.
            boot: Bytes that differ after a reboot; the machine's by default.
        """
        boot = Environment().boot() if boot is None else boot
        if path is None:
            return cls(database.open_memory(store_id))
        if read_only:
            return cls(database.open_read_only(path, store_id, boot))
        return cls(database.open_file(path, store_id, boot))

    @classmethod
    def adopt(cls, path: Path, made: Path, *, boot: bytes | None = None) -> CurrentView:
        """Put what `export.make_current` has made in the place of the view at path; open it.

        Who has the former file open goes on with it, and notices at its next `apply`.

        Raises:
            ViewError: That cannot be done; there may be no view at path then.
        """
        boot = Environment().boot() if boot is None else boot
        view = cls(database.adopt(path, made, boot))
        view._has_written = True
        return view

    @property
    def kind(self) -> str:
        """How the view is held: "file", "memory", or "read-only" (until the first apply)."""
        return self._database.kind

    @property
    def notes(self) -> tuple[str, ...]:
        """Why the view is not the file that was asked for, or why that was started anew."""
        return tuple(self._database.notes)

    @property
    def is_replaced(self) -> bool:
        """Whether another file has taken the place of this one, or none."""
        return self._database.is_replaced

    # --- how far it is ----------------------------------------------------------------------

    @property
    def mark(self) -> Mark:
        """How far the view is, with what other processes have applied."""
        standing = self._standing()
        return Mark(standing.position, standing.leaf, standing.container, standing.offset)

    def at_least(self, position: int) -> bool:
        """Say whether everything below position is applied."""
        return position <= self._position_seen or position <= self._standing().position

    def totals(self) -> Totals:
        """Return the store's sums."""
        standing = self._standing()
        return Totals(
            standing.checkpoints,
            standing.logical,
            standing.new,
            standing.position,
            standing.sanitised,
        )

    @property
    def id_time_max(self) -> int:
        """Greatest number after the last "_" of any checkpoint id that begins "cp_"; 0 for none.

        Numbers of more than 18 digits do not count.
        """
        return self._standing().id_time_max

    @property
    def fence(self) -> int:
        """Position below which no preparation counts any more (specs/collection.md)."""
        return self._standing().fence

    def _standing(self) -> Standing:
        with self._read_lock:
            try:
                standing = schema.read_standing(self._database.reader)
            except FOREIGN as error:
                raise translate(error) from error
        self._position_seen = standing.position
        return standing

    # --- writing ----------------------------------------------------------------------------

    def apply(self, commits: Sequence[Commit], meta_of: MetaOf) -> bool:
        """Apply commits, in order, in one transaction; what is applied already is skipped.

        Args:
            meta_of: Returns the wire of an event's `meta` payload; asked only where its root is
                new. Its errors pass through, and nothing is applied then.

        Returns:
            False when another process is writing: nothing was applied, try later.

        Raises:
            ViewGapError: The commits begin beyond the mark.
            ViewDamagedError: The file was replaced, or is damaged.
        """
        if not commits or self.at_least(commits[-1].position_next):
            return True
        with self._write_lock:
            try:
                has_written = self._write([commits], meta_of, bulk=False)
            except ViewUnwritableError as error:
                self._go_to_memory(f"The file cannot be written any more: {error}")
                has_written = self._write([commits], meta_of, bulk=False)
            if has_written:
                self._position_seen = max(self._position_seen, commits[-1].position_next)
            return has_written

    def rebuild(self, commits: Iterable[Commit], meta_of: MetaOf) -> bool:
        """Apply a long run of commits in one transaction, with the indexes made last.

        Like `apply` otherwise. False also when the file could not be written: the view has gone
        to memory, and the call may be repeated.
        """
        return self.rebuild_windows(transaction.windows_of(commits, _REBUILD_EVENTS), meta_of)

    def rebuild_windows(self, windows: Iterable[Sequence[Commit]], meta_of: MetaOf) -> bool:
        """Do as `rebuild`, with commits that come in windows; each is folded as a whole.

        `meta_of` is asked for events of the window that was taken last.
        """
        with self._write_lock:
            try:
                return self._write(windows, meta_of, bulk=True)
            except ViewUnwritableError as error:
                self._go_to_memory(f"The file cannot be written any more: {error}")
                return False

    def _write(self, windows: Iterable[Sequence[Commit]], meta_of: MetaOf, *, bulk: bool) -> bool:
        if self._database.kind == "read-only":
            self._go_to_memory("The file is read-only; newer events are in memory.")
        if self._database.is_replaced:
            raise ViewDamagedError("The view's file was replaced.")
        # In memory there is one connection, and a reader must not see half a transaction.
        with self._read_lock if self._database.kind == "memory" else nullcontext():
            try:
                has_written = transaction.apply(self._database, windows, meta_of, is_bulk=bulk)
            except ViewBusyError:
                return False
        self._has_written |= has_written
        return has_written

    def _go_to_memory(self, note: str) -> None:
        with self._read_lock:
            self._database = self._database.copy_to_memory(note)

    # --- one --------------------------------------------------------------------------------

    def row(self, identifier: str) -> Row | None:
        """Return the checkpoint with this id, also a deleted one."""
        key = id_key(identifier)
        found = self._read(_ROW, (key,))
        while found:
            row = decode_row(found.pop()[0])
            if row.id == identifier:
                return row
            if id_key(row.id) != key:  # two ids may share a key, but each has its own
                raise ViewDamagedError("A row of the view stands under another id's key.")
        return None

    def latest_of_task(self, task: str) -> Row | None:
        """Return the task's living checkpoint that was created last."""
        for (body,) in self._read(_LATEST, (task,)):
            row = decode_row(body)
            if row.task != task:
                raise ViewDamagedError("An index of the view leads to another task.")
            return row
        return None

    def command(self, identifier: str) -> int | None:
        """Return the position of the event with this id."""
        return self._integer(_COMMAND, identifier)

    def task_deleted_at(self, task: str) -> int | None:
        """Return the position of the task's last deletion."""
        return self._integer(_TASK_END, task)

    def task_deletions(self, task: str) -> tuple[int, int]:
        """Return how often a task was deleted, and the position of the last time; 0 and -1."""
        for found in self._read(_TASK_ENDS, (task,)):
            count, position = _integers((value,) for value in found)
            return count, position
        return 0, -1

    def leases(self) -> dict[str, Grant]:
        """Return every lease that was not released, by task."""
        leases = {}
        for task, body in self._read(_LEASES, ()):
            grant = decode_grant(body)
            if grant.task != task:
                raise ViewDamagedError("A lease of the view stands under another task.")
            leases[grant.task] = grant
        return leases

    def waypoint(self, position: int) -> tuple[str, int, int] | None:
        """Return (container, offset, its position) of a commit boundary at or below position.

        The nearest of those kept: one for about 64 events.
        """
        for found in self._read(_WAYPOINT, (min(position, _POSITION_MAX),)):
            container, offset, start = found
            if type(container) is str and type(offset) is int and type(start) is int:
                return container, offset, start
            raise ViewDamagedError("A waypoint of the view is damaged.")
        return None

    def _integer(self, sql: str, key: str) -> int | None:
        for (value,) in self._read(sql, (key,)):
            if type(value) is not int or value < 0:
                raise ViewDamagedError("A position in the view is damaged.")
            return value
        return None

    # --- many -------------------------------------------------------------------------------

    def select(
        self,
        wanted: Filter,
        *,
        after: int | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> list[Row]:
        """Return a page of living checkpoints in order of creation.

        Args:
            after: Origin of the last row of the page before this one; None for the first page.
            limit: Rows at most; none below 1.
        """
        statement = query.select(wanted, after=after, limit=limit, newest_first=newest_first)
        if statement is None:
            return []
        return [decode_row(body) for (body,) in self._read(*statement)]

    def ranked(
        self, wanted: Ranked, *, after: tuple[str, int] | None = None, limit: int = 100
    ) -> list[Row]:
        """Return a page of living checkpoints with ranked ids, the greatest rank first.

        Args:
            after: Rank and origin of the last row of the page before this one.
        """
        statement = query.ranked(wanted, after=after, limit=limit)
        if statement is None:
            return []
        return [decode_row(body) for (body,) in self._read(*statement)]

    def count(self, wanted: Filter) -> int:
        """Return how many living checkpoints match."""
        statement = query.count(wanted)
        if statement is None:
            return 0
        return sum(_integers(self._read(*statement)))

    def counts_by_state(self) -> dict[str, int]:
        """Return the number of living checkpoints in each state that occurs."""
        found = self._read(_STATES, ())
        counts = _integers((count,) for _, count in found)
        return dict(zip((_text(state) for state, _ in found), counts, strict=True))

    def tasks(self, after: str | None = None, limit: int = 100) -> list[tuple[str, int, int]]:
        """Return (task, living checkpoints, origin of the latest) by name.

        Args:
            after: Last task of the page before this one.
        """
        found = self._read(_TASKS, ("" if after is None else after, max(0, limit)))
        pages = []
        for task, count, latest in found:
            living, origin = _integers(((count,), (latest,)))
            pages.append((_text(task), living, origin))
        return pages

    def latest_rows(self, after: str | None = None, limit: int = 100) -> list[Row]:
        """Return the latest living checkpoint of each task, by the task's name.

        Args:
            after: Last task of the page before this one.
        """
        found = self._read(_LATEST_ROWS, ("" if after is None else after, max(0, limit)))
        return sorted((decode_row(body) for (body,) in found), key=_task_key)

    def _read(self, sql: str, arguments: tuple[object, ...]) -> list[tuple[object, ...]]:
        with self._read_lock:
            try:
                return self._database.reader.execute(sql, arguments).fetchall()
            except UnicodeEncodeError:  # surrogates in what was asked for: nothing has such a name
                return []
            except FOREIGN as error:
                raise translate(error) from error

    # --- upkeep -----------------------------------------------------------------------------

    def trim(self) -> None:
        """Give the room of the write-ahead log back, which may be many times that of the view."""
        with self._write_lock:
            self._database.empty_log()

    def check(self) -> list[str]:
        """Read every page, index and row, and say what is wrong; empty for a sound view."""
        with self._write_lock, self._read_lock:
            return audit(self._database.reader)

    def close(self) -> None:
        """Close the view; a large one is put on the medium, to outlive a reboot."""
        if os.getpid() != self._pid:
            self.abandon()
            return
        with self._write_lock, self._read_lock:
            if self._has_written and not self._database.is_replaced:
                with suppress(ViewError):
                    if self._standing().position >= SEAL_EVENTS_MIN:
                        self._database.seal()
                self._database.empty_log()
            self._database.close()

    def be_still(self, wait_s: float) -> bool:
        """Let nobody be in SQLite while the process forks: a child would find its locks held."""
        if not self._write_lock.acquire(timeout=wait_s):
            return False
        if not self._read_lock.acquire(timeout=wait_s):
            self._write_lock.release()
            return False
        self._is_still = self._database.is_at_rest
        return True

    def go_on(self) -> None:
        """Let others go on, behind a fork."""
        self._is_still = False
        self._read_lock.release()
        self._write_lock.release()

    def renew_in_child(self) -> None:
        """Let go of the connections in a forked child: they are the parent's."""
        is_still, self._is_still = self._is_still, False
        self._write_lock, self._read_lock = threading.RLock(), threading.RLock()
        self._database.abandon(is_still=is_still)

    def abandon(self) -> None:
        """Drop the connections without a touch: in a child of the process that opened them."""
        self._database.abandon()

    def remove(self) -> None:
        """Close the view and delete its files; `open` makes an empty one.

        Raises:
            ViewUnwritableError: They cannot be deleted.
        """
        if os.getpid() != self._pid:
            self.abandon()
            return
        with self._write_lock, self._read_lock:
            self._database.remove()


def _integers(found: Iterable[tuple[object, ...]]) -> list[int]:
    values = []
    for (value,) in found:
        if type(value) is not int or value < 0:
            raise ViewDamagedError("A number in the view is damaged.")
        values.append(value)
    return values


def _text(value: object) -> str:
    if type(value) is not str:
        raise ViewDamagedError("A text in the view is damaged.")
    return value


def _task_key(row: Row) -> bytes:
    """Return what SQLite orders a task by: its bytes in UTF-8."""
    return row.task.encode(errors="surrogatepass")
