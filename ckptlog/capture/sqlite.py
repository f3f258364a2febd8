"""A SQLite database as a component: captured by SQLite itself, stored page by page.

At the barrier a read transaction begins; that is all. After it the pages are copied into a private
file, the transaction ends, and the pages are planted, each one a leaf: a page that the previous
capture has is not stored again. Stretches of 16 pages whose BLAKE3 is that of the last capture are
linked as a whole and not looked at page by page. If stat says that neither the database nor its
journals were written since the last capture, nothing is read at all. (Where what is remembered is
not of that capture, which was deleted, say, the transaction begins behind the barrier, and counts
if stat still says so then.)

    WAL mode            other connections read and write on all the time
    rollback journal    they read on; a commit waits (its busy timeout) from the barrier until the
                        copy is made: 0.1 s for 100 MB

A restore assembles a checked copy and brings it into the live file by one transaction of SQLite's
backup (capture/database.py), so that open connections stay right, and a kill at any moment leaves
exactly the old or the new database. The journal mode stays that of the live file.

Of the captured header SQLite's backup leaves out the schema cookie and the change counter: they
are the live file's own. Attached databases are components of their own.

specs/capture-components.md, section 6.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from typing import Any, Final

from blake3 import blake3

from ckptlog.capture import database
from ckptlog.capture.argument import number_of, path_of
from ckptlog.capture.database import BUSY_TIMEOUT_S, PageCopy, Stamp
from ckptlog.capture.shape import refuse_faults
from ckptlog.capture.sqlite_plan import plan_of
from ckptlog.errors import ChangedError, ComponentError, operating_system_door
from ckptlog.model.component import SNAPSHOT, Plan
from ckptlog.model.quotation import quoted

FORM: Final = "sqlite-2"
FORMER: Final = "sqlite-1"
"""Without the mode: what is made anew of it has the usual one."""
ENDINGS: Final = ("", "-wal", "-shm", "-journal")
"""Of the names of a database's files."""
STRETCH_PAGES: Final = 16
"""Pages in one stretch. More: fewer comparisons, but more pages are looked at for each change."""

_PAGE_SIZES: Final = frozenset(1 << power for power in range(9, 17))
_PAGES_MAX: Final = 0xFFFFFFFE
_KEYS: Final = {
    FORM: ("form", "journal", "mode", "page_count", "page_size", "pages"),
    FORMER: ("form", "journal", "page_count", "page_size", "pages"),
}
_MODE_MAX: Final = 0o7777


class SqliteComponent:
    """One SQLite database.

    A DirectoryComponent of the same system leaves it out by itself. To be captured by another one
    of the same process, it must be left out there (`Options(patterns=("/app.db*",))`): to read it
    as a file would end the process's locks on it.

    Attributes:
        name: Of the component.
        location: {"path": the database}.

    Threads: safe, also beside other processes.
    """

    kind = "sqlite"
    reads_parts = True
    stability = SNAPSHOT

    def __init__(
        self,
        name: str,
        path: str | os.PathLike[str],
        *,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        temporary_folder: str | None = None,
    ) -> None:
        """Make the component; the database is first opened by a capture or a restore.

        Args:
            name: Of the component.
            path: Of the database.
            busy_timeout_s: Seconds to wait for locks of other connections.
            temporary_folder: Has room for one copy of the database; the system's if None.

        Raises:
            ComponentError: An argument is not what it must be; a database in memory has no path.
        """
        self.name = name
        self._path = path_of(name, path)
        if self._path.name == ":memory:":
            raise ComponentError(
                f"The database of the component {quoted(name)} is in memory.",
                hint="Keep it in a file, or capture what it says: CallableComponent("
                "name, connection.serialize, connection.deserialize).",
                component=name,
            )
        self.location = {"path": str(self._path)}
        self._busy_timeout_s = number_of(name, "busy_timeout_s", busy_timeout_s)
        self._folder = temporary_folder
        self._memory: Memory | None = None

    @property
    def own_files(self) -> list[str]:
        """The files that nobody may open but SQLite, behind symbolic links."""
        real = os.path.realpath(self._path)
        return [f"{real}{ending}" for ending in ENDINGS]

    def at(self, path: str | os.PathLike[str]) -> SqliteComponent:
        """Return this component for a database elsewhere: restores another copy there."""
        return SqliteComponent(
            self.name,
            path,
            busy_timeout_s=self._busy_timeout_s,
            temporary_folder=self._folder,
        )

    def capture(self) -> SqliteSnapshot:
        """Open a read transaction: the snapshot is the database of this moment.

        Raises:
            SourceError: There is no database, or it is encrypted or something else.
            SourceBusyError: Another connection held it exclusively all the time.
        """
        stamp = database.stamp_of(self._path)  # before: what is written after it changes it
        if self._memory is not None and self._memory.stamp == stamp:
            return SqliteSnapshot(self, None, stamp)
        is_settled = database.is_settled(stamp, time.time_ns())
        return SqliteSnapshot(self, self.reading(), stamp if is_settled else None)

    def mode(self) -> int:
        """Return the mode of the database's file."""
        with operating_system_door(f"Looking at the database {self._path} failed"):
            return stat.S_IMODE(self._path.stat().st_mode)

    def reading(self) -> sqlite3.Connection:
        """Return a new connection in a read transaction."""
        connection = database.open_database(self._path, busy_timeout_s=self._busy_timeout_s)
        try:
            database.begin_reading(connection, self._path, busy_timeout_s=self._busy_timeout_s)
        except BaseException:
            connection.close()
            raise
        return connection

    def reading_still(self, stamp: Stamp | None) -> sqlite3.Connection:
        """Return a new connection in a read transaction, which sees what was there at a barrier.

        Args:
            stamp: Of the barrier.

        Raises:
            ChangedError: It was written since; the next capture begins its transaction in time.
        """
        connection = self.reading()
        if database.stamp_of(self._path) == stamp:  # behind the beginning: nothing comes between
            return connection
        connection.close()
        self._memory = None
        raise ChangedError(
            f"The database {self._path} was written while it was captured.",
            hint="Capture again.",
            path=str(self._path),
        )

    def copied(self, connection: sqlite3.Connection) -> PageCopy:
        """Return the pages that a connection sees."""
        return database.copy_pages(connection, self._path, folder=self._folder)

    def remembered(self, before: Any | None) -> Memory | None:
        """Return what is known of the previous capture, if it is the one that is remembered."""
        memory = self._memory
        if memory is None or before is None or memory.root.reference != before.reference:
            return None
        return memory

    def remember(self, memory: Memory) -> None:
        """Keep what a capture found for the next one."""
        self._memory = memory

    def validate(self, payload: Any) -> list[str]:
        """Return what is wrong with a payload (a Stored), from its outer form."""
        return _faults(payload)

    def restore(self, payload: Any) -> None:
        """Make the database hold what was captured; it is the old or the new one at any moment.

        Raises:
            ForeignPayloadError: The payload is not of a database.
            SourceError: The captured pages are no sound database.
            SourceBusyError: Other connections held the live one too long.
            In each case nothing was changed.
            SourceError: What was written is something else; see `database.replace`.
        """
        refuse_faults(self.name, _faults(payload))
        self._memory = None
        with self._assembled(payload) as made:
            database.replace(
                self._path,
                made,
                is_wal=payload.get("journal").value() == "wal",
                mode=None if _form_of(payload) == FORMER else payload.get("mode").value(),
                busy_timeout_s=self._busy_timeout_s,
            )

    def verify_restored(self) -> list[str]:
        """Return what SQLite's check finds wrong with the live database."""
        return database.faults_in(self._path, busy_timeout_s=self._busy_timeout_s)

    def plan(self, stored: Any) -> Plan:
        """Return which tables a restore would change, and how many pages."""
        refuse_faults(self.name, _faults(stored))
        with self._assembled(stored) as made:
            return plan_of(self._path, made.path, folder=self._folder)

    def _assembled(self, payload: Any) -> Any:
        return database.assembled(
            _raw(payload.get("pages")),
            payload.get("page_size").value(),
            payload.get("page_count").value(),
            folder=self._folder,
        )


class Memory:
    """What a component remembers of its last capture, so that it need not look again.

    Attributes:
        stamp: Of the database's files, if it says that nothing was written; None if it may not.
        page_size: Bytes.
        stretches: BLAKE3 of each stretch of pages, and what was written for it.
        root: As the writer gave it: the memory counts only for the capture that has it.
    """

    def __init__(self, stamp: Stamp | None, page_size: int) -> None:
        self.stamp = stamp
        self.page_size = page_size
        self.stretches: list[tuple[bytes, Any]] = []
        self.root: Any = None


class SqliteSnapshot:
    """A read transaction, until its pages are copied."""

    stability = SNAPSHOT

    def __init__(
        self,
        component: SqliteComponent,
        connection: sqlite3.Connection | None,
        stamp: Stamp | None,
    ) -> None:
        self._component = component
        self._connection = connection
        self._stamp = stamp

    def write(self, writer: Any, before: Any | None) -> Any:
        """Plant the pages; see model.component.Snapshot.

        Cost: one copy of the pages and one BLAKE3 of them; changed pages are hashed twice.
        """
        known = self._component.remembered(before)
        if self._connection is None:
            if known is not None:
                return known.root
            self._connection = self._component.reading_still(self._stamp)
        copy = self._copied(self._connection)
        try:
            memory = Memory(self._stamp, copy.page_size)
            memory.root = self._plant(writer, copy, memory, known)
        finally:
            copy.close()
        self._component.remember(memory)
        return memory.root

    def close(self) -> None:
        """End the transaction."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _copied(self, connection: sqlite3.Connection) -> PageCopy:
        """Copy the pages and end the transaction: writers need not wait for what comes after."""
        try:
            return self._component.copied(connection)
        finally:
            self.close()

    def _plant(self, writer: Any, copy: PageCopy, memory: Memory, known: Memory | None) -> Any:
        pages = writer.listing()
        for digest, pieces in _stretches(writer, copy, known):
            memory.stretches.append((digest, pieces))
            pages.append(pieces)
        outer = writer.mapping()
        outer.add("form", writer.value(FORM))
        outer.add("journal", writer.value("wal" if copy.is_wal else "rollback"))
        outer.add("mode", writer.value(self._component.mode()))
        outer.add("page_count", writer.value(copy.page_count))
        outer.add("page_size", writer.value(copy.page_size))
        outer.add("pages", pages.finish())
        return writer.root(outer.finish())


def _stretches(writer: Any, copy: PageCopy, known: Memory | None) -> Iterator[tuple[bytes, Any]]:
    """Yield BLAKE3 and pieces of each stretch: those of the last capture where nothing changed."""
    size = copy.page_size
    old = known.stretches if known is not None and known.page_size == size else []
    for number, first in enumerate(range(0, copy.page_count, STRETCH_PAGES)):
        stretch = copy.read(first, STRETCH_PAGES)
        digest = blake3(stretch).digest()
        if number < len(old) and old[number][0] == digest and _is_stored(writer, old[number][1]):
            yield old[number]
            continue
        view = memoryview(stretch)
        yield digest, writer.blocks(view[at : at + size] for at in range(0, len(view), size))


def _is_stored(writer: Any, pieces: Any) -> bool:
    """Say whether what a stretch was written as may be linked: its witness is still retained."""
    return all(type(part) is bytes or writer.is_stored(part.digest) for part in pieces.parts)


def _raw(pages: Any) -> Iterator[bytes]:
    """Yield the bytes of captured pages, in order."""
    for stretch in pages.elements():
        yield from stretch.raw()


def _form_of(payload: Any) -> str:
    form = payload.get("form").value()
    return form if type(form) is str else ""


def _faults(payload: Any) -> list[str]:
    if not payload.is_mapping:
        return ["is no dict"]
    keys = tuple(key for key, _ in payload.items())
    if not keys or keys[0] != "form":
        return [f"has no form; {FORM} is expected"]
    form = _form_of(payload)
    if form not in _KEYS:
        return [f"is of the form {quoted(form)}; {FORM} is expected"]
    if keys != _KEYS[form]:
        return [f"has the keys {quoted(keys)}; {', '.join(_KEYS[form])} are expected"]
    faults = []
    page_size = payload.get("page_size").value()
    if type(page_size) is not int or page_size not in _PAGE_SIZES:
        faults.append(f"has pages of {quoted(page_size)} bytes")
    page_count = payload.get("page_count").value()
    if type(page_count) is not int or not 0 < page_count <= _PAGES_MAX:
        faults.append(f"has {quoted(page_count)} pages")
    mode = payload.get("mode").value() if form == FORM else 0
    if type(mode) is not int or not 0 <= mode <= _MODE_MAX:
        faults.append(f"has the mode {quoted(mode)}")
    if payload.get("journal").value() not in ("wal", "rollback"):
        faults.append("has an unknown journal")
    if not payload.get("pages").is_listing:
        faults.append("has pages that are no list")
    return faults
