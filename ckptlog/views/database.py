"""The view's file: opened if it can be believed, replaced if not, left alone if not writable.

    path, path-wal, path-shm   SQLite in write-ahead mode, one writer and one reader connection

- Opening a large one costs no pass over the data: names, header, schema, the standing's checksum,
  store and home (views.seal) are looked at. What is wrong deeper down shows when it is read, as
  `ViewDamagedError`. A small one is compared with its checksum, where that is known
  (views.checksum).
- Replacing a file that other processes have open is made safe by views.guard.
- Links and folders in the place of the three files are not followed but removed.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Final, NamedTuple
from urllib.parse import quote

import msgspec

from ckptlog.storage.fork import free_in_child
from ckptlog.views import checksum, schema, seal
from ckptlog.views.errors import (
    FOREIGN,
    ViewBusyError,
    ViewDamagedError,
    ViewError,
    ViewUnwritableError,
    translate,
)
from ckptlog.views.guard import Guard, folder_lock
from ckptlog.views.row import Standing

WAIT_WRITE_S: Final = 0.2
WAIT_READ_S: Final = 2.0
CACHE_WRITER_KIB: Final = 8192
_CACHE_READER_KIB: Final = 4096
_WAL_BYTES_KEPT: Final = 16 * 1024 * 1024
# The log is copied into the database when it has so many pages: pages that change with every
# batch, as those of indexes do, are then copied once for many batches.
_WAL_PAGES: Final = 4000
# So many events fit into that many pages; until then the log is not copied, and the file's checksum
# holds (views.checksum).
SUMMED_EVENTS_MAX: Final = 256
_FROZEN: Final = "ro&immutable=1"  # reads the database alone, and makes nothing beside it
_SUFFIXES: Final = ("", "-wal", "-shm")
FILE_MODE: Final = 0o666


class _Kept(msgspec.Struct, gc=False):
    """Keeps an object for the life of the process: a cycle that the collector does not see."""

    held: object
    self: object = None


class Inheritance(NamedTuple):
    """What a forked child has of its parent's view."""

    reader: sqlite3.Connection
    writer: sqlite3.Connection
    guard: Guard | None


# SQLite knows a file once in a process, with the locks that are held on it. A child is given none
# of the locks, and believes in them all the same: another process would then cut off the memory
# that they share (SIGBUS), or begin the write-ahead log anew under a reader. So what was inherited
# is closed before another view is opened, and SQLite begins anew with the file.
_inherited: list[Inheritance] = []
_closing = Lock()
free_in_child(sys.modules[__name__], "_closing")
_CLOSED: Final = sqlite3.connect(":memory:", check_same_thread=False)
_CLOSED.close()


def _close_inherited() -> None:
    with _closing:
        while _inherited:
            reader, writer, guard = _inherited.pop()
            for connection in {reader, writer}:
                with suppress(sqlite3.Error):
                    connection.close()
            if guard is not None:
                guard.close()


class Database:
    """Connections to one view, and what is known of its file.

    Attributes:
        writer, reader: The connections; one and the same in memory.
        kind: "file", "memory" or "read-only".
        notes: Why it is not what was asked for.
        home: What `Standing.home` must say while this process writes.
        is_summed: Whether the file has a checksum beside it, and may not be changed so far.
    """

    def __init__(
        self,
        writer: sqlite3.Connection,
        reader: sqlite3.Connection,
        kind: str,
        *,
        guard: Guard | None = None,
        path: Path | None = None,
        home: str = "",
    ) -> None:
        self.writer = writer
        self.reader = reader
        self.kind = kind
        self.guard = guard
        self.path = path
        self.home = home
        self.notes: list[str] = []
        self.is_summed = False
        self._events = 0

    @property
    def is_replaced(self) -> bool:
        """Whether the name leads to another file by now, or to none."""
        return (
            self.kind == "file"
            and self.guard is not None
            and self.path is not None
            and not self.guard.is_of(self.path)
        )

    @property
    def is_at_rest(self) -> bool:
        """Whether it is open, and nothing is half written."""
        with suppress(sqlite3.ProgrammingError):  # it was closed
            return not (self.reader.in_transaction or self.writer.in_transaction)
        return False

    def keep_sum(self) -> None:
        """Keep the file as it is while its checksum stands: what is written stays in the log."""
        self.is_summed = True
        self.writer.execute("PRAGMA wal_autocheckpoint = 0")

    def give_sum_up(self) -> None:
        """Remove the checksum: from here on the log may be copied into the file."""
        if self.is_summed and self.path is not None:
            if not self.is_replaced:  # else it is its successor's
                checksum.remove(self.path)
            self.is_summed = False
            self.writer.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")

    def wrote(self, events: int) -> None:
        """Take note of what was committed to the log, while the checksum stands."""
        self._events += events
        if self._events > SUMMED_EVENTS_MAX:
            self.give_sum_up()

    def leave_seal(self) -> bool:
        """Make the file one that only this boot believes, before the first write."""
        self.give_sum_up()
        if self.guard is None or self.guard.fd < 0:  # then files are believed by other means
            return seal.move(self.writer, None, self.home)
        return seal.leave(self.writer, self.home, fd=self.guard.fd)

    def seal(self) -> None:
        """Put all on the medium if nothing is in the way."""
        if self.kind == "file" and self.guard is not None and self.guard.fd >= 0:
            with suppress(OSError, ViewError, *FOREIGN):
                self.give_sum_up()
                seal.seal(self.writer, self.home, fd=self.guard.fd)

    def empty_log(self) -> None:
        """Move what the write-ahead log holds into the database, so that the next open is fast."""
        if self.kind == "file":
            with suppress(sqlite3.Error, OSError):
                self.give_sum_up()
                self.writer.execute("PRAGMA busy_timeout = 0")
                self.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                self.writer.execute(f"PRAGMA busy_timeout = {int(WAIT_WRITE_S * 1000)}")

    def close(self) -> None:
        """Close the connections; a file that was replaced is let go without a touch."""
        if self.is_replaced and self.guard is not None and self.guard.fd < 0:
            self.abandon()
            return
        for connection in {self.reader, self.writer}:
            with suppress(sqlite3.Error):
                connection.close()
        if self.guard is not None:
            is_told = self.is_summed and self.path is not None and checksum.is_there(self.path)
            if self.kind == "file" and self.path is not None and not is_told:
                checksum.write(self.path, self.guard)
            self.guard.close()

    def abandon(self, *, is_still: bool = False) -> None:
        """Drop the connections: a parent process uses them. Calls nothing of SQLite's.

        Args:
            is_still: Nobody was at work with them when the process forked: they are closed before
                this process opens another view. Otherwise they are never closed.
        """
        if self.reader is _CLOSED:
            return
        inheritance = Inheritance(self.reader, self.writer, self.guard)
        if is_still:
            _inherited.append(inheritance)
        else:
            kept = _Kept(inheritance)
            kept.self = kept
        self.guard = None
        self.reader = self.writer = _CLOSED

    def remove(self) -> None:
        """Close, and delete the files unless they are another database's by now.

        Raises:
            ViewUnwritableError: They cannot be deleted.
        """
        path, guard = self.path, self.guard
        if path is None or self.kind == "read-only":
            self.close()
            return
        try:
            with folder_lock(path.parent, exclusive=True):
                is_same = guard is None or guard.is_of(path)
                self.close()
                if is_same:
                    _unlink(path)
        except FileNotFoundError:  # the folder is gone
            self.close()
        except OSError as error:
            raise ViewUnwritableError(f"The view cannot be removed: {error}") from error

    def copy_to_memory(self, note: str) -> Database:
        """Return a copy in memory, which can be written; this one is closed."""
        copied = _connect(":memory:", CACHE_WRITER_KIB)
        try:
            self.reader.backup(copied)
            seal.move(copied, None, "")
        except FOREIGN as error:
            copied.close()
            raise translate(error) from error
        memory = Database(copied, copied, "memory")
        memory.notes = [*self.notes, note]
        if self.kind == "file":  # `remove` must find the file, and know that it is ours
            memory.path, memory.guard, self.guard = self.path, self.guard, None
        self.close()
        return memory


def open_memory(store: bytes, note: str | None = None) -> Database:
    """Return an empty view in memory."""
    connection = _connect(":memory:", CACHE_WRITER_KIB)
    connection.execute("BEGIN")
    schema.create(connection, Standing(store))
    connection.execute("COMMIT")
    database = Database(connection, connection, "memory")
    database.notes += [note] if note else []
    return database


def open_file(path: Path, store: bytes, boot: bytes) -> Database:
    """Open the view at path; replace it by an empty one if it cannot be believed.

    A file that cannot be written is opened for reading only; the last resort is memory.
    """
    try:
        path.parent.mkdir(exist_ok=True)
        return _open_or_replace(path, store, boot)
    except (OSError, ViewError) as error:
        reason = f"{path} cannot be written: {error}"
    database = open_read_only(path, store, boot)
    database.notes.insert(0, reason)
    return database


def open_read_only(path: Path, store: bytes, boot: bytes) -> Database:
    """Open the view at path without ever writing to it; in memory and empty if that fails."""
    try:
        with folder_lock(path.parent, exclusive=False):
            try:
                return _attach(path, store, boot, mode="ro")
            except ViewUnwritableError:  # no shared memory can be made beside it
                if not _is_frozen(path):
                    raise
                return _attach(path, store, boot, mode=_FROZEN)
    except (OSError, ViewError) as error:
        return open_memory(store, f"{path} cannot be used: {error}")


def _is_frozen(path: Path) -> bool:
    """Say whether nobody can write to the file, and nothing of it waits in the log."""
    if not os.statvfs(path).f_flag & os.ST_RDONLY:
        return False
    log = _log_of(path)
    return not log.exists() or log.stat().st_size == 0


def _open_or_replace(path: Path, store: bytes, boot: bytes) -> Database:
    try:
        with folder_lock(path.parent, exclusive=False):
            return _attach(path, store, boot)
    except ViewDamagedError as error:
        note = str(error)
    with folder_lock(path.parent, exclusive=True):
        try:  # another process may have replaced it meanwhile
            return _attach(path, store, boot)
        except ViewDamagedError:
            _unlink(path)
        database = _create(path, store, boot)
    database.notes.append(f"Started anew: {note}")
    return database


def _attach(path: Path, store: bytes, boot: bytes, *, mode: str = "rw") -> Database:
    """Open an existing file that can be believed.

    Raises:
        ViewDamagedError: There is none.
    """
    for suffix in _SUFFIXES:
        _refuse_irregular(path.with_name(path.name + suffix), is_needed=not suffix)
    guard = Guard(path)
    opened: list[sqlite3.Connection] = []
    try:
        is_summed = checksum.compare(path, guard)
        home = _home(path, guard, boot)
        if guard.fd >= 0 and not _log_of(path).exists():
            # To look would make a new log, and that may get the inode of the lost one.
            frozen = _open_connection(path, _CACHE_READER_KIB, _FROZEN, boot)
            opened.append(frozen)
            _check(frozen, store, seal.SEALED)
        reader = _open_connection(path, _CACHE_READER_KIB, mode, boot)
        opened.append(reader)
        _check(reader, store, home)
        if mode != "rw":
            return Database(reader, reader, "read-only", guard=guard, path=path)
        writer = _open_connection(path, CACHE_WRITER_KIB, "rw", boot)
        opened.append(writer)
        _refuse_unwritable(writer)
        home = _home(path, guard, boot)
        database = Database(writer, reader, "file", guard=guard, path=path, home=home)
        if is_summed and _log_bytes(path) < _WAL_BYTES_KEPT:
            database.keep_sum()
        else:
            checksum.remove(path)
        return database
    except BaseException as error:
        _close(opened, guard)
        if isinstance(error, FOREIGN):
            raise translate(error) from error
        raise


def _refuse_irregular(path: Path, *, is_needed: bool) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        if is_needed:
            raise ViewDamagedError(f"{path.name} is missing.") from None
        return
    if not stat.S_ISREG(mode):
        raise ViewDamagedError(f"{path.name} is not a regular file.")


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _log_bytes(path: Path) -> int:
    try:
        return _log_of(path).stat().st_size
    except FileNotFoundError:
        return 0


def _home(path: Path, guard: Guard, boot: bytes) -> str:
    log = 0
    if guard.fd >= 0:  # otherwise SQLite removes the log with the last close
        with suppress(FileNotFoundError):
            log = _log_of(path).stat().st_ino
    device, inode = guard.inode
    return f"boot {boot.hex()} file {device}:{inode} log {log}"


def _check(connection: sqlite3.Connection, store: bytes, home: str) -> None:
    schema.check(connection)
    standing = schema.read_standing(connection)
    if standing.store != store:
        raise ViewDamagedError("The view belongs to another store.")
    if not seal.is_believable(standing.home, home):
        raise ViewDamagedError(
            "The view was not closed before a reboot, or was copied: it may be torn."
        )


def _refuse_unwritable(writer: sqlite3.Connection) -> None:
    try:
        writer.execute("BEGIN IMMEDIATE")  # which SQLite grants in a file for reading only, too
        writer.execute("UPDATE standing SET one = one")
        writer.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if not isinstance(translate(error), ViewBusyError):
            raise


def adopt(path: Path, made: Path, boot: bytes) -> Database:
    """Put a finished database (views.export) in the place of the view at path, and open it.

    Raises:
        ViewUnwritableError: That cannot be done; there may be no view at path then.
        ViewBusyError: The folder is locked by another process.
        ViewDamagedError: It is no view.
    """
    try:
        if not any(boot):  # then its home alone does not tell that it may be torn
            _sync(made)
        with folder_lock(path.parent, exclusive=True):
            _unlink(path)
            made.rename(path)
            return _move_in(path, boot, _begin_log)
    except OSError as error:
        raise ViewUnwritableError(f"The view cannot be replaced: {error}") from error


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _create(path: Path, store: bytes, boot: bytes) -> Database:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
    return _move_in(path, boot, lambda writer: _fill(writer, store))


def _move_in(path: Path, boot: bytes, prepare: Callable[[sqlite3.Connection], None]) -> Database:
    """Open a file that nobody else knows yet, and let it name its home, so that it is believed.

    Args:
        prepare: Writes to it with a write-ahead log, so that there is one.
    """
    opened: list[sqlite3.Connection] = []
    guard = None
    try:
        writer = _open_connection(path, CACHE_WRITER_KIB, "rw", boot)
        opened.append(writer)
        prepare(writer)
        guard = Guard(path)  # only now: it would keep the journal's mode as it is
        home = _home(path, guard, boot)
        standing = msgspec.structs.replace(schema.read_standing(writer), home=home)
        schema.write_standing(writer, standing)
        reader = _open_connection(path, _CACHE_READER_KIB, "rw", boot)
        opened.append(reader)
        database = Database(writer, reader, "file", guard=guard, path=path, home=home)
        if checksum.write_held(path, guard):
            database.keep_sum()
        return database
    except BaseException as error:
        _close(opened, guard)
        if isinstance(error, FOREIGN):
            raise translate(error) from error
        raise


def _close(opened: list[sqlite3.Connection], guard: Guard | None) -> None:
    for connection in opened:
        connection.close()
    if guard is not None:
        guard.close()


def _fill(writer: sqlite3.Connection, store: bytes) -> None:
    writer.execute("PRAGMA auto_vacuum = NONE")
    _use_log(writer)
    writer.execute("BEGIN IMMEDIATE")
    schema.create(writer, Standing(store))
    writer.execute("COMMIT")


def _begin_log(writer: sqlite3.Connection) -> None:
    _use_log(writer)
    schema.write_standing(writer, schema.read_standing(writer))


def _use_log(writer: sqlite3.Connection) -> None:
    (mode,) = writer.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise ViewUnwritableError("The file system does not support a write-ahead log.")


def _unlink(path: Path) -> None:
    for suffix in (*_SUFFIXES, checksum.SUFFIX):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).unlink()


def _open_connection(path: Path, cache_kib: int, mode: str, boot: bytes) -> sqlite3.Connection:
    _close_inherited()
    uri = f"file:{quote(os.fsencode(path.absolute()))}?mode={mode}"
    connection = _connect(uri, cache_kib)
    try:
        # Where the machine does not tell its boots apart, SQLite must keep its own promises.
        connection.execute(f"PRAGMA synchronous = {'OFF' if any(boot) else 'NORMAL'}")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES_KEPT}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
        if cache_kib == CACHE_WRITER_KIB:
            connection.execute(f"PRAGMA busy_timeout = {int(WAIT_WRITE_S * 1000)}")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(target: str, cache_kib: int) -> sqlite3.Connection:
    connection = sqlite3.connect(
        target, timeout=WAIT_READ_S, isolation_level=None, check_same_thread=False, uri=True
    )
    # The file may be hostile: nothing in its schema may call functions with effects, and a
    # malformed page is refused rather than walked.
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA secure_delete = FAST")
    connection.execute(f"PRAGMA cache_size = -{cache_kib}")
    return connection
