"""Trusting a file that was written without syncs: where it was written, or that it was sealed.

The view is written with `synchronous=OFF`: after a power cut its pages may be of any age, each
by itself, and SQLite cannot tell. So the standing names the home of the bytes: the machine's
boot, the inodes of the database and of its write-ahead log. What a killed process wrote is in
the system's cache and safe; after another boot, or in a copy made meanwhile, or with a lost
write-ahead log, the home is another one and the file is not believed.

A large view would then be rebuilt after each reboot, so a clean close *seals* it:

    1. home := LEAVING, synced; the write-ahead log is emptied; the database is synced.
    2. if home is as we left it, so nobody wrote since: home := SEALED, synced.

and the first write after that *leaves* the seal, in an order such that no unsynced byte can be
written while the medium may still say SEALED:

    1. home := LEAVING, synced; the write-ahead log is emptied; the database is synced.
    2. if home is as we left it: home := this home; from here on nothing is synced.

LEAVING names the home and a number of its own for each act, so that of two processes at it one
succeeds and the other starts again. Whoever finds another home than its own, in a transaction, does
the leaving first; so nobody writes unsynced between the two steps of another.
"""

from __future__ import annotations

import os
import sqlite3
from typing import Final

import msgspec

from ckptlog.views.schema import read_standing, write_standing

SEALED: Final = "sealed"
_LEAVING: Final = "leaving "


def is_believable(home: str, own: str) -> bool:
    """Say whether bytes whose standing names `home` can be believed by a process at `own`."""
    return home in (SEALED, own) or home.startswith(f"{_LEAVING}{own} ")


def leave(connection: sqlite3.Connection, own: str, *, fd: int) -> bool:
    """Make the file one that only this boot believes; False when others are in the way.

    Args:
        own: The home to write.
        fd: Of the database, to sync it.
    """
    before = _synchronous(connection)
    leaving = _leaving(own)
    try:
        if not _sync_as(connection, leaving, fd):
            return False
    finally:
        connection.execute(f"PRAGMA synchronous = {before}")
    return move(connection, leaving, own)


def seal(connection: sqlite3.Connection, own: str, *, fd: int) -> bool:
    """Put the file on the medium and say so; False when others write to it meanwhile."""
    before = _synchronous(connection)
    leaving = _leaving(own)
    try:
        if not _sync_as(connection, leaving, fd) or not move(connection, leaving, SEALED):
            return False
        # So that the database alone, without its log, is whole and sealed too.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return True
    finally:
        connection.execute(f"PRAGMA synchronous = {before}")


def move(connection: sqlite3.Connection, old: str | None, new: str) -> bool:
    """Write the home in a transaction, if it is the old one (None: any); say whether it was."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        standing = read_standing(connection)
        is_expected = old is None or standing.home == old
        if is_expected:
            write_standing(connection, msgspec.structs.replace(standing, home=new))
        connection.execute("COMMIT" if is_expected else "ROLLBACK")
        return is_expected
    except BaseException:
        connection.rollback()
        raise


def _synchronous(connection: sqlite3.Connection) -> int:
    (before,) = connection.execute("PRAGMA synchronous").fetchone()
    connection.execute("PRAGMA synchronous = FULL")
    return int(before)


def _leaving(own: str) -> str:
    return f"{_LEAVING}{own} {os.urandom(8).hex()}"


def _sync_as(connection: sqlite3.Connection, home: str, fd: int) -> bool:
    move(connection, None, home)
    (is_busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if is_busy:
        return False
    # Another process may have copied the pages, unsynced, before our checkpoint could.
    os.fsync(fd)
    return True
