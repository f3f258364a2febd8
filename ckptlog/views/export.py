"""Writes the view `current` as of some point into a file of its own, for whoever takes it away.

The file is one database without a write-ahead log beside it. It is nobody's view yet: either it
is sealed, so that it is believed wherever it goes, and nothing is applied to it later; or the view
of a store adopts it (views.database).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

from ckptlog.model.entry import Commit
from ckptlog.views import schema, seal, transaction
from ckptlog.views.database import FILE_MODE, Database
from ckptlog.views.errors import FOREIGN, ViewUnwritableError, translate
from ckptlog.views.projection import MetaOf
from ckptlog.views.row import Standing

Windows = Iterable[Sequence[Commit]]


def export_current(path: Path, store_id: bytes, windows: Windows, meta_of: MetaOf) -> Standing:
    """Write what commits from position 0 on come to; return how far that is, and its sums.

    Args:
        path: Of a file that does not exist.
        windows: The commits; each window is folded as a whole.

    Raises:
        ViewError: The system refused, or the commits do not follow one another.

    Durability: none; the caller syncs what it wants to keep.
    """
    return _make(path, store_id, windows, meta_of, home=seal.SEALED)


def make_current(path: Path, store_id: bytes, windows: Windows, meta_of: MetaOf) -> Standing:
    """Do as `export_current`, for a view that adopts the file; nobody believes it before."""
    return _make(path, store_id, windows, meta_of, home="")


def _make(path: Path, store_id: bytes, windows: Windows, meta_of: MetaOf, *, home: str) -> Standing:
    try:
        # As the view's own file, for whoever may share the store; SQLite would be less generous.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
    except OSError as error:
        raise ViewUnwritableError(f"{path} cannot be made: {error}") from error
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA journal_mode = MEMORY")
            connection.execute("BEGIN")
            schema.create(connection, Standing(store_id))
            connection.execute("COMMIT")
            database = Database(connection, connection, "memory")
            transaction.apply(database, windows, meta_of, is_bulk=True)
            seal.move(connection, None, home)
            connection.execute("PRAGMA journal_mode = DELETE")
            return schema.read_standing(connection)
    except FOREIGN as error:
        raise translate(error) from error
