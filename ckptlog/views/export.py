"""Writes the view `current` as of some point into a file of its own, for whoever takes it away.

The file is one database without a write-ahead log beside it, sealed, so that it is believed
wherever it goes. It is nobody's view: nothing is applied to it later.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Final

from ckptlog.model.entry import Commit
from ckptlog.views import schema, seal, transaction
from ckptlog.views.database import Database
from ckptlog.views.errors import FOREIGN, translate
from ckptlog.views.projection import MetaOf
from ckptlog.views.row import Standing

_WINDOW_EVENTS: Final = 4096


def export_current(
    path: Path, store_id: bytes, commits: Iterable[Commit], meta_of: MetaOf
) -> Standing:
    """Write what commits from position 0 on come to; return how far that is, and its sums.

    Args:
        path: Of a file that does not exist.

    Raises:
        ViewError: The system refused, or the commits do not follow one another.

    Durability: none; the caller syncs what it wants to keep.
    """
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA journal_mode = MEMORY")
            connection.execute("BEGIN")
            schema.create(connection, Standing(store_id))
            connection.execute("COMMIT")
            database = Database(connection, connection, "memory")
            windows = transaction.windows_of(commits, _WINDOW_EVENTS)
            transaction.apply(database, windows, meta_of, is_bulk=True)
            seal.move(connection, None, seal.SEALED)
            connection.execute("PRAGMA journal_mode = DELETE")
            return schema.read_standing(connection)
    except FOREIGN as error:
        raise translate(error) from error
