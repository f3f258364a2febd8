"""A source: the tables of LangGraph's PostgresSaver, of every version with `checkpoint_blobs`.

    checkpoints        one row each; `checkpoint` and `metadata` are JSONB, small values in it
    checkpoint_blobs   the other channel values, by channel and version
    checkpoint_writes  pending writes [, task_path]

Each question is a read-only transaction of its own (a checkpoint with its values and writes: one
snapshot, REPEATABLE READ), so nothing is held back on a server at work. The address of the server
is never shown: it may hold a password.
"""

# ruff: noqa: S608 - queries are made of this file's own words; values are bound
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ckptlog.errors import ArgumentError, CheckpointStorageError, DeniedError, FormatError
from ckptlog.integrations.langgraph.original import Key, OldWrite, Original, Serialised
from ckptlog.model.quotation import quoted

if TYPE_CHECKING:
    import psycopg

_PAGE: Final = 500
_EMPTY: Final = "empty"
_TASKS: Final = "__pregel_tasks"
_TABLES: Final = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
_OF_KEY: Final = "thread_id = %s AND checkpoint_ns = %s"
_DENIED: Final = "42501"  # SQLSTATE insufficient_privilege
_BLOBS: Final = """
SELECT b.channel, b.type, b.blob
FROM jsonb_each_text(%s::jsonb) AS v
JOIN checkpoint_blobs AS b ON b.channel = v.key AND b.version = v.value
WHERE b.thread_id = %s AND b.checkpoint_ns = %s
ORDER BY b.channel
"""
_EXTRA: Final = "pip install 'psycopg[binary]'"

Answer = TypeVar("Answer")


class PostgresSource:
    """An open connection.

    Args:
        dsn: As psycopg takes it: "postgresql://user@host/database", or "host=... dbname=...".

    Raises:
        ArgumentError: psycopg is missing, the address is none, or the tables are not there.
        CheckpointStorageError: The server cannot be reached, or refuses.

    Threads: not safe.
    """

    def __init__(self, dsn: str) -> None:
        self._psycopg = _library()
        self.name = "PostgreSQL"
        with self._door("Connecting to PostgreSQL failed"):
            self._connection = self._connect(dsn)
        try:
            self.name = f"PostgreSQL database {self._connection.info.dbname}"
            self._has_path = self._check()
        except BaseException:
            self.close()
            raise

    def _connect(self, dsn: str) -> psycopg.Connection[tuple[Any, ...]]:
        connection: psycopg.Connection[tuple[Any, ...]]
        connection = self._psycopg.connect(dsn, prepare_threshold=None)
        connection.read_only = True
        connection.isolation_level = self._psycopg.IsolationLevel.REPEATABLE_READ
        return connection

    def _check(self) -> bool:
        """Look at the tables, and say whether writes have a task path.

        Raises:
            ArgumentError: They are not those of a PostgresSaver.
        """
        for table in _TABLES:
            if self._rows("SELECT to_regclass(%s)", (table,)) == [(None,)]:
                raise ArgumentError(
                    f"The {self.name} has no table {table}.",
                    hint="Name the database that PostgresSaver uses; a schema: options="
                    "'-c search_path=NAME' in the address.",
                )
        found = self._rows(
            "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s)",
            ("checkpoint_writes",),
        )
        return ("task_path",) in found

    # --- asking -----------------------------------------------------------------------------

    def _ask(self, question: Callable[[psycopg.Cursor[tuple[Any, ...]]], Answer]) -> Answer:
        """Return an answer from one snapshot."""
        with (
            self._door("Reading from PostgreSQL failed"),
            self._connection.transaction(),
            self._connection.cursor() as cursor,
        ):
            return question(cursor)

    def _rows(self, query: Any, arguments: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._ask(lambda cursor: cursor.execute(query, arguments).fetchall())

    @contextmanager
    def _door(self, doing: str) -> Iterator[None]:
        """Turn psycopg's errors into ours."""
        psycopg = self._psycopg
        try:
            yield
        except psycopg.Error as error:
            raise _translated(error, doing, psycopg) from None  # its text may show the address

    # --- what a source does -----------------------------------------------------------------

    def count(self, threads: Sequence[str] | None) -> int:
        """Return the number of checkpoints of threads; None for all."""
        if threads is None:
            return int(self._rows("SELECT count(*) FROM checkpoints")[0][0])
        query = "SELECT count(*) FROM checkpoints WHERE thread_id = ANY(%s)"
        return int(self._rows(query, (list(threads),))[0][0])

    def keys(self, threads: Sequence[str] | None) -> Iterator[Key]:
        """Yield the namespaces of threads, those of a thread together."""
        if threads is None:
            yield from self._keys("true", ())
        for thread in threads or ():
            yield from self._keys("thread_id = %s", (thread,))

    def _keys(self, condition: str, arguments: tuple[str, ...]) -> Iterator[Key]:
        # One seek in the primary key for each namespace, however many checkpoints it has.
        first = (
            f"SELECT thread_id, checkpoint_ns FROM checkpoints WHERE {condition} "
            "ORDER BY thread_id, checkpoint_ns LIMIT 1"
        )
        after = f"{condition} AND (thread_id, checkpoint_ns) > (%s, %s)"
        following = first.replace(f"WHERE {condition}", f"WHERE {after}")
        rows = self._rows(first, arguments)
        while rows:
            key = Key(*rows[0])
            yield key
            rows = self._rows(following, (*arguments, *key))

    def page(self, key: Key, after: str | None) -> Sequence[tuple[str, str]]:
        """Return ids and parents of the next checkpoints, the least id first; () at the end."""
        rows = self._rows(
            "SELECT checkpoint_id, parent_checkpoint_id FROM checkpoints "
            f"WHERE {_OF_KEY} AND checkpoint_id > %s ORDER BY checkpoint_id LIMIT {_PAGE}",
            (*key, after or ""),
        )
        return [(identifier, parent or "") for identifier, parent in rows]

    def parent(self, key: Key, identifier: str) -> str | None:
        """Return the parent of a checkpoint, "" for none; None where it is not there."""
        rows = self._rows(
            f"SELECT parent_checkpoint_id FROM checkpoints WHERE {_OF_KEY} AND checkpoint_id = %s",
            (*key, identifier),
        )
        return (rows[0][0] or "") if rows else None

    def read(self, key: Key, identifier: str) -> Original | None:
        """Return a checkpoint with its values and writes; None where it is not there (any more)."""
        return self._ask(lambda cursor: self._read(cursor, key, identifier))

    def _read(
        self, cursor: psycopg.Cursor[tuple[Any, ...]], key: Key, identifier: str
    ) -> Original | None:
        place = (*key, identifier)
        row = cursor.execute(
            "SELECT parent_checkpoint_id, checkpoint, metadata, "
            "checkpoint -> 'channel_versions', octet_length(checkpoint::text) + "
            "octet_length(metadata::text), jsonb_typeof(checkpoint -> 'channel_versions') "
            f"FROM checkpoints WHERE {_OF_KEY} AND checkpoint_id = %s",
            place,
        ).fetchone()
        if row is None:
            return None
        parent, checkpoint, metadata, versions, size, kind = row
        if type(checkpoint) is not dict or kind not in {"object", None}:
            raise FormatError(
                f"The row of the checkpoint {quoted(identifier)} is no checkpoint.",
                hint="It is not what PostgresSaver writes.",
            )
        blobs = self._blobs(cursor, key, versions or {})
        sends = self._sends(cursor, key, parent) if parent else []
        writes = self._writes(cursor, place)
        raws = (*blobs.values(), *(write.value for write in writes))
        total = size + sum(len(value.raw or b"") for value in raws)
        return Original(identifier, parent or "", checkpoint, blobs, sends, metadata, writes, total)

    def _blobs(
        self, cursor: psycopg.Cursor[tuple[Any, ...]], key: Key, versions: dict[str, Any]
    ) -> dict[str, Serialised]:
        from psycopg.types.json import Jsonb

        rows = cursor.execute(_BLOBS, (Jsonb(versions), *key)).fetchall()
        return {channel: Serialised(kind, raw) for channel, kind, raw in rows if kind != _EMPTY}

    def _sends(
        self, cursor: psycopg.Cursor[tuple[Any, ...]], key: Key, parent: str
    ) -> list[Serialised]:
        path = self._path
        rows = cursor.execute(
            f"SELECT type, blob FROM checkpoint_writes WHERE {_OF_KEY} "
            f"AND checkpoint_id = %s AND channel = %s ORDER BY {path}, task_id, idx",
            (*key, parent, _TASKS),
        ).fetchall()
        return [Serialised(*row) for row in rows]

    def _writes(
        self, cursor: psycopg.Cursor[tuple[Any, ...]], place: tuple[str, str, str]
    ) -> list[OldWrite]:
        rows = cursor.execute(
            f"SELECT task_id, idx, channel, type, blob, {self._path} FROM checkpoint_writes "
            f"WHERE {_OF_KEY} AND checkpoint_id = %s ORDER BY {self._path}, task_id, idx",
            place,
        ).fetchall()
        return [
            OldWrite(task, number, channel, Serialised(kind, raw), path)
            for task, number, channel, kind, raw, path in rows
        ]

    @property
    def _path(self) -> str:
        return "task_path" if self._has_path else "''"

    def size_bytes(self) -> int:
        """Return how much room the tables take, with their indices."""
        query = (
            "SELECT sum(pg_total_relation_size(to_regclass(name))) FROM unnest(%s::text[]) AS name"
        )
        return int(self._rows(query, (list(_TABLES),))[0][0])

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()


def _library() -> Any:
    try:
        import psycopg
    except ImportError as error:
        raise ArgumentError(
            "Reading from PostgreSQL needs psycopg, which is not installed here.",
            hint=f"Install it beside ckptlog: {_EXTRA}",
            argument="langgraph_postgres",
        ) from error
    return psycopg


def _translated(error: Any, doing: str, psycopg: Any) -> Exception:
    state = error.sqlstate or ""
    if isinstance(error, psycopg.ProgrammingError) and not state:
        return ArgumentError(
            "The address of the PostgreSQL server cannot be understood.",
            hint="For example: postgresql://user@localhost/database",
            argument="langgraph_postgres",
        )
    primary = error.diag.message_primary or "the server cannot be reached, or refused"
    kind = DeniedError if state == _DENIED else CheckpointStorageError
    return kind(
        f"{doing}: {primary}.",
        hint="Check the address, the rights, and that the server runs; then run it again.",
        sqlstate=state,
    )
