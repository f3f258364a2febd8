"""Reads a whole view and says what is wrong in it: the pages, the indexes, the rows, the sums."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import islice
from typing import Final

from ckptlog.model.rank import rank_of
from ckptlog.views import schema
from ckptlog.views.entry import entries_of
from ckptlog.views.errors import FOREIGN, ViewDamagedError, translate
from ckptlog.views.key import id_key
from ckptlog.views.row import decode_grant, decode_row
from ckptlog.views.schema import HOUR_CHARACTERS

PROBLEMS_MAX: Final = 20
_LIVING: Final = (
    "SELECT body, origin, key, task, namespace, worker, parent, state, created, updated, hour, "
    "rank FROM checkpoint"
)
_ENTRY: Final = "SELECT 1 FROM entry WHERE name = ? AND value = ? AND origin = ?"
_LEASES: Final = "SELECT task, body FROM lease"
_DELETED: Final = "SELECT body, origin, key FROM tombstone"


def audit(connection: sqlite3.Connection) -> list[str]:
    """Return the first problems of a view, as of one moment; empty for a sound one."""
    try:
        connection.execute("BEGIN")
        try:
            return list(islice(_problems(connection), PROBLEMS_MAX))
        finally:
            connection.rollback()
    except FOREIGN as error:
        return [str(translate(error))]
    except ViewDamagedError as error:
        return [str(error)]


def _problems(connection: sqlite3.Connection) -> Iterator[str]:
    for (line,) in connection.execute(f"PRAGMA integrity_check({PROBLEMS_MAX})").fetchall():
        if line != "ok":
            yield str(line)
    living = entries = 0
    for body, *columns in connection.execute(_LIVING):
        living += 1
        row = decode_row(body)
        subject = [row.task, row.namespace, row.worker, row.parent]
        times = [row.created, row.updated, row.updated[:HOUR_CHARACTERS]]
        rank = rank_of(row.id) if row.meta_root else ""
        told = [row.origin, id_key(row.id), *subject, row.state, *times, rank]
        if columns != told or row.deleted:
            yield f"The row of {row.id!r} is not found by what it says."
        wanted = {(*entry, row.origin) for entry in entries_of(row)}
        entries += len(wanted)
        if not all(connection.execute(_ENTRY, entry).fetchone() for entry in wanted):
            yield f"The metadata of {row.id!r} is not found by what it says."
    for body, *columns in connection.execute(_DELETED):
        row = decode_row(body)
        if columns != [row.origin, id_key(row.id)] or not row.deleted:
            yield f"The tombstone of {row.id!r} is not found by what it says."
    yield from _lease_problems(connection)
    counted = schema.read_standing(connection).checkpoints
    if living != counted:
        yield f"The view has {living} checkpoints; by its sums there are {counted}."
    (there,) = connection.execute("SELECT count(*) FROM entry").fetchone()
    if there != entries:
        yield f"The view has {there} entries of metadata; its rows have {entries}."


def _lease_problems(connection: sqlite3.Connection) -> Iterator[str]:
    for task, body in connection.execute(_LEASES):
        if decode_grant(body).task != task:
            yield f"The lease of {task!r} is not found by what it says."
