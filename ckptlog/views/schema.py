"""The tables of the view `current`, and how a database proves that it has exactly these.

    standing    one record: how far, whose, sums (views.row.Standing)
    checkpoint  one row per living checkpoint, keyed by origin; `body` holds all facts
    tombstone   one small row per deleted checkpoint: its id is spent
    command     the position of each event by its id; generated ids rise, so it grows at its end
    waypoint    commit boundaries about 64 events apart
    task_end    the position of each task's last deletion, and how many there were
    entry       scalars of metadata, by name and value (views.entry)
    lease       who alone may write about a task: leases that were not released

`hour` is the first 13 characters of `updated`: an index over it is left alone by nearly every
update, an index over `updated` itself by none. Worker, parent and namespace are often empty and
then left out of their indexes; so is `rank`, which few ids have (model.rank).
"""

from __future__ import annotations

import sqlite3
from typing import Final

from ckptlog.views.errors import ViewDamagedError
from ckptlog.views.row import Standing, decode_standing, encode

SCHEMA: Final = 3
APPLICATION_ID: Final = 0x636B7076  # "ckpv"
HOUR_CHARACTERS: Final = 13

_TABLES: Final = (
    "CREATE TABLE standing (one INTEGER PRIMARY KEY, body BLOB NOT NULL)",
    (
        "CREATE TABLE checkpoint (origin INTEGER PRIMARY KEY, key INTEGER NOT NULL, "
        "task TEXT NOT NULL, namespace TEXT NOT NULL, worker TEXT NOT NULL, parent TEXT NOT NULL, "
        "state TEXT NOT NULL, created TEXT NOT NULL, updated TEXT NOT NULL, hour TEXT NOT NULL, "
        "rank TEXT NOT NULL, body BLOB NOT NULL)"
    ),
    (
        "CREATE TABLE tombstone (origin INTEGER PRIMARY KEY, key INTEGER NOT NULL, "
        "body BLOB NOT NULL)"
    ),
    "CREATE TABLE command (id TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID",
    (
        "CREATE TABLE waypoint (position INTEGER PRIMARY KEY, container TEXT NOT NULL, "
        '"offset" INTEGER NOT NULL)'
    ),
    (
        "CREATE TABLE task_end (task TEXT PRIMARY KEY, position INTEGER NOT NULL, "
        '"count" INTEGER NOT NULL) WITHOUT ROWID'
    ),
    (
        "CREATE TABLE entry (name TEXT NOT NULL, value TEXT NOT NULL, origin INTEGER NOT NULL, "
        "PRIMARY KEY (name, value, origin)) WITHOUT ROWID"
    ),
    "CREATE TABLE lease (task TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID",
)
_INDEXES: Final = {
    "by_key": "checkpoint (key)",
    "by_task": "checkpoint (task)",
    "by_state": "checkpoint (state)",
    "by_created": "checkpoint (created)",
    "by_hour": "checkpoint (hour)",
    "by_worker": "checkpoint (worker) WHERE worker <> ''",
    "by_parent": "checkpoint (parent) WHERE parent <> ''",
    "by_namespace": "checkpoint (namespace) WHERE namespace <> ''",
    "by_rank": "checkpoint (task, namespace, rank) WHERE rank <> ''",
    "tombstone_by_key": "tombstone (key)",
}


def _index(name: str) -> str:
    return f"CREATE INDEX {name} ON {_INDEXES[name]}"


def _make(name: str) -> str:
    return f"CREATE INDEX IF NOT EXISTS {name} ON {_INDEXES[name]}"


_EXPECTED: Final = sorted([*_TABLES, *(_index(name) for name in _INDEXES)])
_READ_STANDING: Final = "SELECT body FROM standing WHERE one = 1"
_WRITE_STANDING: Final = "REPLACE INTO standing (one, body) VALUES (1, ?)"


def create(connection: sqlite3.Connection, standing: Standing) -> None:
    """Make the tables in an empty database; the caller holds a transaction."""
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA}")
    for statement in _TABLES:
        connection.execute(statement)
    create_indexes(connection)
    write_standing(connection, standing)


def create_indexes(connection: sqlite3.Connection) -> None:
    """Make every index that is not there."""
    for name in _INDEXES:
        connection.execute(_make(name))


def create_task_index(connection: sqlite3.Connection) -> None:
    """Make the index that the end of a task needs, also in the middle of a large build."""
    connection.execute(_make("by_task"))


def drop_indexes(connection: sqlite3.Connection) -> None:
    """Drop every index, before a large build inside one transaction."""
    for name in _INDEXES:
        connection.execute(f"DROP INDEX {name}")


def check(connection: sqlite3.Connection) -> None:
    """Refuse a database that is not this view in this version, down to the last statement.

    A trigger or a view that someone added would run with our queries; hence the whole schema.

    Raises:
        ViewDamagedError: It is another program's, another version's, or changed.
    """
    if connection.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
        raise ViewDamagedError("The file is not a view of ckptlog.")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != SCHEMA:
        raise ViewDamagedError(f"The view has schema {version}; this version uses {SCHEMA}.")
    found = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    if sorted(str(sql) for (sql,) in found) != _EXPECTED:
        raise ViewDamagedError("The view's tables are not those of its schema.")


def read_standing(connection: sqlite3.Connection) -> Standing:
    """Return how far the view is.

    Raises:
        ViewDamagedError: That record is missing or damaged.
    """
    found = connection.execute(_READ_STANDING).fetchone()
    return decode_standing(found[0] if found else None)


def write_standing(connection: sqlite3.Connection, standing: Standing) -> None:
    """Say how far the view is, in the caller's transaction."""
    connection.execute(_WRITE_STANDING, (encode(standing),))
