"""A source: the database of LangGraph's SqliteSaver or AsyncSqliteSaver, of every version.

    checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint,
                 metadata)
    writes      (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, value
                 [, task_path])

Never written to, and nothing new beside it:
- Whoever opens a database in WAL mode makes its `-wal` and `-shm` files, readers too. Where there
  is no `-wal`, nobody has it open; then it is read as `immutable`, which takes no locks and makes
  no files. Each answer counts only if afterwards the file is the same and there still is no
  `-wal`; else it is opened with `mode=ro`, among the files of whoever came, and asked again.
- Where there is a `-wal`, a live process may be writing: `mode=ro`, and each question is a read
  transaction of its own that ends at once, so the writer's log can be reset.
- The file is opened by us only where there is no `-wal`: closing a file drops all locks that this
  process has on it, those of a SqliteSaver of its own too.
"""

# ruff: noqa: S608 - queries are made of this file's own words; values are bound
from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

from ckptlog.errors import (
    ArgumentError,
    BusyError,
    CheckpointError,
    DeniedError,
    FormatError,
    InputOutputError,
    operating_system_door,
)
from ckptlog.integrations.langgraph.original import Key, OldWrite, Original, Serialised
from ckptlog.integrations.source import open_regular
from ckptlog.model.quotation import quoted

_PAGE: Final = 500
_MAGIC: Final = b"SQLite format 3\0"
_HEADER_BYTES: Final = 100
_WAL_VERSIONS: Final = b"\2\2"  # bytes 18 and 19: read and write version
_BUSY_S: Final = 30.0
_ATTEMPTS_MAX: Final = 100
_NEEDED: Final = {
    "checkpoints": (
        "thread_id",
        "checkpoint_ns",
        "checkpoint_id",
        "parent_checkpoint_id",
        "type",
        "checkpoint",
        "metadata",
    ),
    "writes": (
        "thread_id",
        "checkpoint_ns",
        "checkpoint_id",
        "task_id",
        "idx",
        "channel",
        "type",
        "value",
    ),
}
_OLD_COLUMN: Final = "thread_ts"
_OF_KEY: Final = "thread_id = ? AND checkpoint_ns = ?"

Answer = TypeVar("Answer")


class SqliteSource:
    """An open database.

    Raises:
        ArgumentError: It is no file, no database, or another program's.
        DeniedError: This user may not read it.

    Threads: not safe.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self.name = str(path)
        with operating_system_door(f"Looking for {path} failed"):
            if not self._path.exists():
                raise ArgumentError(
                    f"There is no file {path}.", hint="Check the name.", path=self.name
                )
            if not self._path.is_file():
                open_regular(self._path).close()  # refuses it
        self._connection, self._seen = self._open()
        try:
            self._has_path = self._check()
        except BaseException:
            self.close()
            raise

    # --- opening ----------------------------------------------------------------------------

    def _open(self) -> tuple[sqlite3.Connection, tuple[int, ...] | None]:
        """Return a connection, and the file's marks where it counts only while they stay."""
        seen = None if self._has_wal() else self._marks_of_quiet()
        options = "mode=ro" if seen is None else "mode=ro&immutable=1"
        address = f"file:{quote(str(self._path.absolute()))}?{options}"
        with self._door():
            connection = sqlite3.connect(
                address, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
        return connection, seen

    def _marks_of_quiet(self) -> tuple[int, ...] | None:
        """Return the file's marks; None where SQLite's own locks serve (no WAL mode).

        Raises:
            ArgumentError: It is no database.
        """
        marks = self._marks()
        with operating_system_door(f"Reading {self.name} failed"), open_regular(self._path) as file:
            header = file.read(_HEADER_BYTES)
        if header and not header.startswith(_MAGIC):
            raise self._fault("it is no SQLite database")
        if self._has_wal():  # somebody came meanwhile
            return None
        return marks if header[18:20] == _WAL_VERSIONS else None

    def _has_wal(self) -> bool:
        return os.path.lexists(f"{self._path}-wal")

    def _marks(self) -> tuple[int, ...]:
        with operating_system_door(f"Looking at {self.name} failed"):
            status = self._path.stat()
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    def _check(self) -> bool:
        """Look at the tables, and say whether writes have a task path.

        Raises:
            ArgumentError: They are not those of a SqliteSaver.
        """
        columns = {table: self._columns(table) for table in _NEEDED}
        if _OLD_COLUMN in columns["checkpoints"]:
            raise self._fault(
                "it is of a LangGraph before 0.2, which pickled everything",
                "Pickle is never read. Bring it up to date with a LangGraph of its own time first.",
            )
        if not columns["checkpoints"]:
            raise self._fault("it has no table `checkpoints`")
        for table, names in _NEEDED.items():
            missing = [name for name in names if name not in columns[table]]
            if missing:
                raise self._fault(f"its table `{table}` has no column `{missing[0]}`")
        return "task_path" in columns["writes"]

    def _columns(self, table: str) -> list[str]:
        return [row[1] for row in self._rows(f"PRAGMA table_info({table})")]

    def _fault(self, reason: str, hint: str = "") -> ArgumentError:
        return ArgumentError(
            f"{self.name} is not a SqliteSaver's database: {reason}.",
            hint=hint or "Name the file that SqliteSaver.from_conn_string was given.",
            path=self.name,
        )

    # --- asking -----------------------------------------------------------------------------

    def _ask(self, question: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """Return an answer that was whole at one moment."""
        for _ in range(_ATTEMPTS_MAX):
            failure = None
            try:
                with self._door():
                    answer = question(self._connection)
            except CheckpointError as error:
                failure = error
            if self._seen is None or (not self._has_wal() and self._marks() == self._seen):
                if failure is not None:
                    raise failure
                return answer
            self._connection.close()
            self._connection, self._seen = self._open()
        raise BusyError(
            f"{self.name} was changed during each of {_ATTEMPTS_MAX} attempts to read it.",
            hint="Try again when less is written to it.",
        )

    def _rows(self, query: str, arguments: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._ask(lambda connection: connection.execute(query, arguments).fetchall())

    @contextmanager
    def _door(self) -> Iterator[None]:
        """Turn SQLite's errors into ours."""
        try:
            yield
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            raise self._translated(error) from error

    # --- what a source does -----------------------------------------------------------------

    def count(self, threads: Sequence[str] | None) -> int:
        """Return the number of checkpoints of threads; None for all."""
        if threads is None:
            return int(self._rows("SELECT count(*) FROM checkpoints")[0][0])
        query = "SELECT count(*) FROM checkpoints WHERE thread_id = ?"
        return sum(int(self._rows(query, (thread,))[0][0]) for thread in threads)

    def keys(self, threads: Sequence[str] | None) -> Iterator[Key]:
        """Yield the namespaces of threads, those of a thread together."""
        if threads is None:
            yield from self._keys("", ())
        for thread in threads or ():
            yield from self._keys("thread_id = ? AND ", (thread,))

    def _keys(self, condition: str, arguments: tuple[str, ...]) -> Iterator[Key]:
        # One seek in the primary key for each namespace, however many checkpoints it has.
        query = (
            "SELECT thread_id, checkpoint_ns FROM checkpoints WHERE "
            f"{condition}(thread_id, checkpoint_ns) > (?, ?) "
            "ORDER BY thread_id, checkpoint_ns LIMIT 1"
        )
        first = query.replace("(thread_id, checkpoint_ns) > (?, ?)", "1")
        rows = self._rows(first, arguments)
        while rows:
            key = Key(*rows[0])
            if type(key.thread) is str and type(key.space) is str:
                yield key
            else:
                raise self._malformed(f"it has the thread and namespace {quoted(tuple(key))}")
            rows = self._rows(query, (*arguments, *key))

    def page(self, key: Key, after: str | None) -> Sequence[tuple[str, str]]:
        """Return ids and parents of the next checkpoints, the least id first; () at the end."""
        rows = self._rows(
            "SELECT checkpoint_id, parent_checkpoint_id FROM checkpoints "
            f"WHERE {_OF_KEY} AND checkpoint_id > ? ORDER BY checkpoint_id LIMIT {_PAGE}",
            (*key, after or ""),
        )
        for row in rows:
            if type(row[0]) is not str or type(row[1]) not in {str, type(None)}:
                raise self._malformed(f"it has the checkpoint ids {quoted(row)}")
        return [(identifier, parent or "") for identifier, parent in rows]

    def parent(self, key: Key, identifier: str) -> str | None:
        """Return the parent of a checkpoint, "" for none; None where it is not there."""
        rows = self._rows(
            f"SELECT parent_checkpoint_id FROM checkpoints WHERE {_OF_KEY} AND checkpoint_id = ?",
            (*key, identifier),
        )
        return (rows[0][0] or "") if rows else None

    def read(self, key: Key, identifier: str) -> Original | None:
        """Return a checkpoint with its writes; None where it is not there (any more)."""
        rows, written = self._ask(lambda connection: self._read(connection, (*key, identifier)))
        if not rows:
            return None
        parent, kind, checkpoint, metadata = rows[0]
        writes = [
            OldWrite(task, number, channel, Serialised(kind_of_it, value), path)
            for task, number, channel, kind_of_it, value, path in written
        ]
        sizes = map(_length, (checkpoint, metadata, *(write.value.raw for write in writes)))
        return Original(
            identifier,
            parent or "",
            Serialised(kind, checkpoint),
            {},
            (),
            metadata,
            writes,
            sum(sizes),
        )

    def _read(
        self, connection: sqlite3.Connection, place: tuple[str, str, str]
    ) -> tuple[list[Any], list[Any]]:
        path = "task_path" if self._has_path else "''"
        connection.execute("BEGIN")
        try:
            rows = connection.execute(
                "SELECT parent_checkpoint_id, type, checkpoint, metadata FROM checkpoints "
                f"WHERE {_OF_KEY} AND checkpoint_id = ?",
                place,
            ).fetchall()
            written = connection.execute(
                f"SELECT task_id, idx, channel, type, value, {path} FROM writes "
                f"WHERE {_OF_KEY} AND checkpoint_id = ? ORDER BY {path}, task_id, idx",
                place,
            ).fetchall()
        finally:
            connection.execute("ROLLBACK")
        return rows, written

    def size_bytes(self) -> int:
        """Return how much room the database takes, with its log."""
        names = (self._path, Path(f"{self._path}-wal"))
        return sum(name.stat().st_size for name in names if name.exists())

    def close(self) -> None:
        """Let go of the database."""
        self._connection.close()

    def _malformed(self, reason: str) -> FormatError:
        return FormatError(
            f"The database {self.name} is damaged: {reason}.",
            hint="Repair a copy of it (sqlite3 OLD .recover | sqlite3 NEW) and import that.",
            path=self.name,
        )

    def _translated(self, error: Exception) -> CheckpointError:
        code = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
        if code == sqlite3.SQLITE_NOTADB:
            return self._fault("it is no SQLite database")
        if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            return BusyError(
                f"{self.name} is locked by another process.", hint="Try again a little later."
            )
        if code in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY}:
            return DeniedError(
                f"{self.name} cannot be opened for reading: {error}.",
                hint="Check the rights of the file, its directory, its -wal and its -shm.",
                path=self.name,
            )
        if code == sqlite3.SQLITE_IOERR:
            return InputOutputError(f"Reading {self.name} failed: {error}.", path=self.name)
        return self._malformed(str(error))


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode(errors="surrogatepass"))
    return len(value) if isinstance(value, bytes) else 0
