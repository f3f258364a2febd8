"""What can be wrong with a view, and the one door through which SQLite's errors leave.

These errors never leave the repository room: a view is never a reason to fail, so its owner
rebuilds it, or goes on without it (specs/view-current.md).
"""

from __future__ import annotations

import sqlite3
from typing import Final

# What `sqlite3` raises, and what binding a value that SQLite cannot hold raises.
FOREIGN: Final = (sqlite3.Error, OverflowError, UnicodeError)

_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_UNWRITABLE: Final = frozenset(
    {
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
    }
)
_UNWRITABLE_EXTENDED: Final = frozenset(
    {
        sqlite3.SQLITE_IOERR_WRITE,
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_IOERR_TRUNCATE,
        sqlite3.SQLITE_IOERR_SHMOPEN,
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_IOERR_SHMMAP,
    }
)


class ViewError(Exception):
    """Base: something is wrong with a view; the log and the payloads are not concerned."""


class ViewDamagedError(ViewError):
    """What the view holds cannot be believed: remove it and build it anew."""


class ViewGapError(ViewDamagedError):
    """The commits to apply do not begin where the view ends."""


class ViewBusyError(ViewError):
    """Another process held the view for longer than the wait."""


class ViewUnwritableError(ViewError):
    """The view's file cannot be written: denied, read-only, or no space."""


class ViewClosedError(ViewError):
    """The view was closed or abandoned."""


def translate(error: Exception) -> ViewError:
    """Return our error for one of `FOREIGN`; anything unknown counts as damage."""
    extended = getattr(error, "sqlite_errorcode", 0) or 0
    code = extended & 0xFF
    if code in _BUSY:
        return ViewBusyError(str(error))
    if code in _UNWRITABLE or extended in _UNWRITABLE_EXTENDED:
        return ViewUnwritableError(str(error))
    if isinstance(error, sqlite3.ProgrammingError) and "closed database" in str(error):
        return ViewClosedError("The view was closed.")
    return ViewDamagedError(str(error) or type(error).__name__)
