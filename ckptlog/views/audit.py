"""Reads a whole view and says what is wrong in it: the pages, the indexes, the rows, the sums."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import islice
from typing import Final

from ckptlog.views import schema
from ckptlog.views.errors import FOREIGN, ViewDamagedError, translate
from ckptlog.views.key import id_key
from ckptlog.views.row import decode_row
from ckptlog.views.schema import HOUR_CHARACTERS

PROBLEMS_MAX: Final = 20
_LIVING: Final = (
    "SELECT body, origin, key, task, namespace, worker, parent, state, created, updated, hour "
    "FROM checkpoint"
)
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
    living = 0
    for body, *columns in connection.execute(_LIVING):
        living += 1
        row = decode_row(body)
        subject = [row.task, row.namespace, row.worker, row.parent]
        times = [row.created, row.updated, row.updated[:HOUR_CHARACTERS]]
        if columns != [row.origin, id_key(row.id), *subject, row.state, *times] or row.deleted:
            yield f"The row of {row.id!r} is not found by what it says."
    for body, *columns in connection.execute(_DELETED):
        row = decode_row(body)
        if columns != [row.origin, id_key(row.id)] or not row.deleted:
            yield f"The tombstone of {row.id!r} is not found by what it says."
    told = schema.read_standing(connection).checkpoints
    if living != told:
        yield f"The view has {living} checkpoints; by its sums there are {told}."
