"""One SQLite file, touched through SQLite alone: read at one moment, copied, checked, replaced.

Why through SQLite alone. POSIX locks belong to a process and a file: were we to open and close a
live database by ourselves, every lock that SQLite holds on it in this process would be gone, and
with them the program's own transactions. So no descriptor of a live database is ever opened here,
not even to look at its header. Copies in a private, nameless file are read directly.

A replacement is one transaction of SQLite's backup: what the old pages were stands in the journal
(or the new ones in the write-ahead log) until the commit, so a process that is killed in the middle
leaves the old database to whoever opens it next, and other connections see the old or the new one.

specs/capture-components.md, section 6.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

from ckptlog.capture.draft import draft_of
from ckptlog.capture.file_digest import VERSIONS, FileDigest, digest_of_file
from ckptlog.capture.page_digest import page_digest
from ckptlog.capture.soundness import faults_of
from ckptlog.errors import (
    CheckpointStorageError,
    DeniedError,
    FullError,
    InputOutputError,
    SourceBusyError,
    SourceError,
    operating_system_door,
)
from ckptlog.storage.files import publish, remove, sync_directory, sync_file

BUSY_TIMEOUT_S: Final = 5.0
"""Seconds to wait for other connections' locks."""

_PAUSE_S: Final = 0.0005
_STRETCH_PAGES: Final = 256
_SIBLINGS: Final = ("-journal", "-wal", "-shm")
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_DENIED: Final = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH})
_ROLLBACK: Final = b"\x01\x01"
_LOGGED: Final = b"\x02\x02"
_MODE: Final = 0o644
_PRIVATE: Final = "ckptlog-sqlite-"

_swept: set[Path] = set()


class Assembled(NamedTuple):
    """A database in a private file. digest: Of what was captured (capture.file_digest)."""

    path: Path
    digest: bytes


class NotADatabaseError(SourceError):
    """A file is no SQLite database, or an encrypted one."""


@contextmanager
def database_door(path: Path) -> Iterator[None]:
    """Turn every error of SQLite about a database into one of ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translated(error, path) from error


_TRANSLATIONS: Final[dict[int, tuple[type[CheckpointStorageError], str, str]]] = {
    sqlite3.SQLITE_NOTADB: (
        NotADatabaseError,
        "is no SQLite database, or it is encrypted",
        (
            "Name the database itself. One that is encrypted is captured by its own tools, through "
            "CallableComponent, or as a file."
        ),
    ),
    sqlite3.SQLITE_CORRUPT: (
        SourceError,
        "is damaged",
        "PRAGMA integrity_check tells more; restore an earlier capture.",
    ),
    sqlite3.SQLITE_FULL: (FullError, "has no space left", "Free some space and call again."),
    sqlite3.SQLITE_IOERR: (InputOutputError, "met an error of the medium", "Check the medium."),
    **dict.fromkeys(
        _BUSY,
        (
            SourceBusyError,
            "is locked by another connection",
            (
                "Call again, let the writer end its transaction, or raise busy_timeout_s; in WAL "
                "mode readers and writers do not wait for each other."
            ),
        ),
    ),
    **dict.fromkeys(
        _DENIED,
        (
            DeniedError,
            "cannot be written",
            "Check the owner and the permissions of the file and of its folder.",
        ),
    ),
}


def _translated(error: sqlite3.Error, path: Path) -> CheckpointStorageError:
    code = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
    kind, what, hint = _TRANSLATIONS.get(code, (SourceError, "is refused by SQLite", ""))
    return kind(f"The database {path} {what}: {error}.", hint=hint, path=str(path))


Stamp = tuple[tuple[int, ...] | None, ...]
"""Stat of a database and of its journals; equal ones of old files say that nothing changed."""


def stamp_of(path: Path) -> Stamp:
    """Return what stat says of a database and its journals, taken without opening them.

    An empty journal is as none: to open a database makes one.
    """
    found: list[tuple[int, ...] | None] = []
    for suffix in ("", "-wal", "-journal"):
        try:
            one = Path(f"{path}{suffix}").stat()
        except OSError:
            found.append(None)
        else:
            is_none = suffix != "" and one.st_size == 0
            facts = (one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns)
            found.append(None if is_none else facts)
    return tuple(found)


def is_settled(stamp: Stamp, now_ns: int, age_ns: int = 2_000_000_000) -> bool:
    """Say whether a later write cannot have the same stamp: the clock of the files has gone on.

    Times of files stand still for some milliseconds, so what was written just now could be
    written again without a change of its time.
    """
    return stamp[0] is not None and all(one is None or one[4] < now_ns - age_ns for one in stamp)


def open_database(path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """Return a connection to a database that is there, in autocommit mode, for any thread.

    Raises:
        SourceError: There is none, or it is no file.
    """
    with operating_system_door(f"Looking at the database {path} failed"):
        try:
            found = path.stat()
        except FileNotFoundError as error:
            raise SourceError(
                f"There is no database {path}.",
                hint="Correct the path, or make the database before the first capture.",
                path=str(path),
            ) from error
    if not stat.S_ISREG(found.st_mode):
        raise SourceError(f"{path} is no regular file.", hint="Name a database.", path=str(path))
    with database_door(path):
        return _connected(path, "mode=rw", busy_timeout_s)


def _connected(path: Path, options: str, busy_timeout_s: float) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(path))}?{options}",
        uri=True,
        timeout=busy_timeout_s,
        isolation_level=None,
        check_same_thread=False,
    )


def begin_reading(
    connection: sqlite3.Connection, path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S
) -> None:
    """Open a read transaction: from now on the connection sees the database of this moment.

    In WAL mode writers go on. With a rollback journal they cannot commit until it ends, and it
    cannot begin while one commits. SQLite's own way to wait sleeps 100 ms between its tries, in
    which a busy writer is always faster; so here the tries follow each other.

    Raises:
        SourceBusyError: Writers held it all the time.
    """
    end = time.monotonic() + busy_timeout_s
    with database_door(path):
        connection.execute("PRAGMA busy_timeout=0")
        connection.execute("BEGIN")
        while True:
            try:
                connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in _BUSY or time.monotonic() > end:
                    raise
            time.sleep(_PAUSE_S)


class PageCopy:
    """A database's pages in a private file without a name; gone with the descriptor.

    Attributes:
        page_size: Bytes, 512 to 65,536.
        page_count: Pages.
        is_wal: Whether the database uses a write-ahead log.

    Durability: none, on purpose.        Threads: one at a time.
    """

    def __init__(self, fd: int, page_size: int, page_count: int) -> None:
        self._fd = fd
        self.page_size = page_size
        self.page_count = page_count
        self.is_wal = os.pread(fd, 2, VERSIONS.start) == _LOGGED

    def read(self, first: int, count: int) -> bytes:
        """Return pages, counted from 0; fewer at the end."""
        return os.pread(self._fd, count * self.page_size, first * self.page_size)

    def close(self) -> None:
        """Free the space; again does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def copy_pages(
    connection: sqlite3.Connection, path: Path, *, folder: str | None = None
) -> PageCopy:
    """Copy a database, as a connection sees it, by SQLite's backup.

    Args:
        connection: In a read transaction, or the copy is of any one moment.
        path: Of the database, for messages.
        folder: Where the copy is made; the system's temporary folder if None.

    Cost: one copy of the pages: 0.09 s for 100 MB.
    """
    with _private(folder) as place:
        with database_door(place):
            target = _connected(place, "mode=rwc", 0)
        with closing(target), database_door(path):
            for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE"):
                target.execute(f"PRAGMA {pragma}")
            try:
                connection.backup(target, progress=_Patience(path, BUSY_TIMEOUT_S))
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL:  # the copy, not its source
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
                raise
            page_size = target.execute("PRAGMA page_size").fetchone()[0]
        fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        return PageCopy(fd, page_size, os.fstat(fd).st_size // page_size)


@contextmanager
def _private(folder: str | None) -> Iterator[Path]:
    """Yield a path in a new folder that nobody else may enter; remove both afterwards.

    What the operating system refuses meanwhile is told with the temporary folder.

    The folder is locked meanwhile; those that a killed process left are removed by the next one.
    """
    home = Path(folder or tempfile.gettempdir())
    if home not in _swept:
        _swept.add(home)
        _sweep(home)
    with operating_system_door(f"Making a temporary database in {home} failed"):
        while True:
            place = Path(tempfile.mkdtemp(prefix=_PRIVATE, dir=home))
            fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            _locked(fd)  # where there are no such locks nobody sweeps either
            if place.exists():
                break
            os.close(fd)  # another process swept it before it was locked
        try:
            yield place / "database"
        finally:
            os.close(fd)
            _remove_private(place)


def _sweep(home: Path) -> None:
    """Remove private folders of ours that nobody holds."""
    with suppress(OSError):
        for place in home.glob(f"{_PRIVATE}*"):
            with suppress(OSError):
                fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    if os.fstat(fd).st_uid == os.geteuid() and _locked(fd):
                        _remove_private(place)
                finally:
                    os.close(fd)


def _remove_private(place: Path) -> None:
    for suffix in ("", *_SIBLINGS):
        remove(place / f"database{suffix}")
    with suppress(OSError):
        place.rmdir()


def _locked(fd: int) -> bool:
    with suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


class _Patience:
    """Ends a backup that waits for locks: Python's own tries for ever."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._end = time.monotonic() + timeout_s

    def __call__(self, status: int, *_pages: int) -> None:
        if status in _BUSY and time.monotonic() > self._end:
            raise SourceBusyError(
                f"The database {self._path} was locked for {self._timeout_s:g} s.",
                hint="Call again, or let the other connection end its transaction.",
                path=str(self._path),
            )


@contextmanager
def kept(copy: PageCopy, *, folder: str | None = None) -> Iterator[Path]:
    """Yield a copy as a file of its own that SQLite can open, gone afterwards."""
    with _private(folder) as place:
        fd = os.open(place, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            for first in range(0, copy.page_count, _STRETCH_PAGES):
                _write(fd, copy.read(first, _STRETCH_PAGES))
            if copy.page_count:
                os.pwrite(fd, _ROLLBACK, VERSIONS.start)
        finally:
            os.close(fd)
        yield place


@contextmanager
def assembled(
    pages: Iterator[bytes], page_size: int, page_count: int, *, folder: str | None = None
) -> Iterator[Assembled]:
    """Yield a checked database in a private file, made of captured pages.

    Raises:
        SourceError: The pages are no sound database.

    Durability: the file is synced, so that it may be renamed.
    """
    with _private(folder) as place:
        fd = os.open(place, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            captured = FileDigest()
            for part in pages:
                captured.update(part)
                _write(fd, part)
            if page_count:
                # As a rollback database it needs no journal of its own beside it.
                os.pwrite(fd, _ROLLBACK, VERSIONS.start)
            size = os.fstat(fd).st_size
            sync_file(fd)
        finally:
            os.close(fd)
        if size != page_size * page_count:
            raise SourceError(
                f"A captured database has {size} bytes; {page_count} pages of {page_size} were "
                "captured.",
                hint="ckptlog verify; restore another capture.",
            )
        _check(place, page_count)
        yield Assembled(place, captured.digest())


def _write(fd: int, part: bytes) -> None:
    view = memoryview(part)
    while view:
        view = view[os.write(fd, view) :]


def _check(place: Path, page_count: int) -> None:
    """Raise if a private database is not sound, by SQLite's own check."""
    with database_door(place), closing(_connected(place, "mode=ro&immutable=1", 0)) as connection:
        faults = faults_of(connection)
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
    if faults or pages != page_count:
        what = "; ".join(faults) or f"its header says {pages} pages"
        raise SourceError(
            f"A captured database is not sound: {what}.",
            hint="It was captured so; restore an earlier capture.",
        )


def faults_in(path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> list[str]:
    """Return what SQLite's quick check finds wrong with a live database."""
    with closing(open_database(path, busy_timeout_s=busy_timeout_s)) as live, database_door(path):
        return faults_of(live)


def replace(
    path: Path,
    source: Assembled,
    *,
    is_wal: bool = False,
    mode: int | None = None,
    busy_timeout_s: float = BUSY_TIMEOUT_S,
) -> None:
    """Make a database hold what a private one holds; at any moment it is the old or the new one.

    A file that is no database is set aside (`.damaged-1`, with its journals) and replaced.

    Args:
        path: Of the live database; it need not be there.
        source: A checked database that nobody else uses.
        is_wal: Whether the database uses a write-ahead log if it is made anew; one that is there
            goes on as it does.
        mode: Of the file, likewise; the usual one if None.

    Raises:
        SourceBusyError: Another connection holds it; it is the old one.
        SourceError: What was written is something else (and nobody else has written since). Where
            the file was to be made anew, it was not put in place.

    Durability: committed by SQLite with full syncs.        Threads: safe; so are other processes.
    Cost: all pages are written, once more than their journal.
    """
    if path.exists():
        try:
            _replace_live(path, source, busy_timeout_s)
            return
        except NotADatabaseError:
            pass
    # Where the path is a symbolic link, that stays.
    _place(Path(os.path.realpath(path)), source, _LOGGED if is_wal else _ROLLBACK, mode)


def _replace_live(path: Path, source: Assembled, busy_timeout_s: float) -> None:
    with (
        closing(open_database(path, busy_timeout_s=busy_timeout_s)) as live,
        database_door(path),
        closing(_connected(source.path, "mode=ro&immutable=1", 0)) as new,
    ):
        live.execute("PRAGMA synchronous=EXTRA")
        mode = live.execute("PRAGMA journal_mode").fetchone()[0]
        sizes = [one.execute("PRAGMA page_size").fetchone()[0] for one in (live, new)]
        is_wal = mode == "wal"
        if is_wal and sizes[0] != sizes[1]:
            live.execute("PRAGMA journal_mode=DELETE")  # pages change their size in no other
        is_same_text = _encoding(live) == _encoding(new)
        version = _version_seen(live)
        new.backup(live, progress=_Patience(path, busy_timeout_s))
        if is_same_text:  # else this connection cannot read what it has brought in
            _compare_unless_changed(live, version, path, source)
    if is_wal:
        _use_log(path, busy_timeout_s)


def _encoding(connection: sqlite3.Connection) -> str:
    """Return how a database encodes its texts; "" where that cannot be told."""
    with suppress(sqlite3.Error):
        return str(connection.execute("PRAGMA encoding").fetchone()[0])
    return ""


def _use_log(path: Path, busy_timeout_s: float) -> None:
    """Let a database use a write-ahead log, as it did; bring into the file what stands there."""
    with closing(open_database(path, busy_timeout_s=busy_timeout_s)) as live, database_door(path):
        live.execute("PRAGMA synchronous=EXTRA")
        live.execute("PRAGMA journal_mode=WAL")
        # What others still read stays in the log; that is no failure.
        live.execute("PRAGMA busy_timeout=0")
        with suppress(sqlite3.OperationalError):
            live.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _version_seen(connection: sqlite3.Connection) -> int:
    """Return a number that changes where another connection commits, and not by our own commits."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def _compare_unless_changed(
    live: sqlite3.Connection, version: int, path: Path, source: Assembled
) -> None:
    """Compare, unless others have written since a version: what they wrote is theirs.

    Where it cannot be done (one of them writes just now, or there is no room for a second copy) it
    is not: what was written stays, and SQLite's own check is left.
    """
    try:
        with suppress(SourceBusyError, FullError):
            begin_reading(live, path, busy_timeout_s=0)
            if _version_seen(live) == version:
                _compare(live, path, source)
    finally:
        if live.in_transaction:
            live.execute("ROLLBACK")


def _compare(live: sqlite3.Connection, path: Path, source: Assembled) -> None:
    """Compare what a connection sees with a private database, and that with what was captured.

    Raises:
        SourceError: It is something else, whatever SQLite said when it wrote it.

    Cost: a copy of the pages, and BLAKE3 of both.
    """
    with closing(copy_pages(live, path, folder=str(source.path.parent.parent))) as copy:
        found = page_digest(copy.read, copy.page_size, copy.page_count)
        page_size = copy.page_size
    with source.path.open("rb") as file:
        count = os.fstat(file.fileno()).st_size // page_size

        def read(first: int, wanted: int) -> bytes:
            return os.pread(file.fileno(), wanted * page_size, first * page_size)

        is_same = page_digest(read, page_size, count) == found
        if not is_same or digest_of_file(file.fileno()) != source.digest:
            raise _differs(path)


def _differs(path: Path) -> SourceError:
    return SourceError(
        f"The database {path} is not what was captured, although it was written.",
        hint="Check the medium, and who else writes there; then recover again.",
        path=str(path),
    )


def _place(path: Path, source: Assembled, versions: bytes, mode: int | None) -> None:
    """Bring a database to where none is, by one rename; what lies there is set aside.

    Raises:
        SourceError: What was written is not what was captured; nothing was renamed.
    """
    with operating_system_door(f"Restoring the database {path} failed"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft_of(path, _MODE if mode is None else _MODE & mode) as draft:
            _copy_file(source.path, draft.fd, versions)
            if mode is not None:
                os.fchmod(draft.fd, mode)
            if digest_of_file(draft.fd) != source.digest:
                raise _differs(path)
            draft.close()
            _set_aside(path)
            publish(draft.path, path)


def _copy_file(source: Path, into: int, versions: bytes) -> None:
    with source.open("rb") as origin:
        while part := origin.read(1 << 20):
            _write(into, part)
    if os.fstat(into).st_size:
        os.pwrite(into, versions, VERSIONS.start)
    sync_file(into)


def _set_aside(path: Path) -> None:
    """Rename a file that is no database, and journals without one, out of the way.

    A journal that stayed would be played back into the new database.
    """
    left = [suffix for suffix in ("", *_SIBLINGS) if os.path.lexists(f"{path}{suffix}")]
    if not left:
        return
    number = 1
    while os.path.lexists(f"{path}.damaged-{number}"):
        number += 1
    for suffix in reversed(left):
        os.rename(f"{path}{suffix}", f"{path}.damaged-{number}{suffix}")  # noqa: PTH104
    sync_directory(path.parent)
