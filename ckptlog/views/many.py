"""Writes many rows with few statements.

Between Python and SQLite each execution of a statement has a price of its own, about that of the
row itself where the row is small. So rows go in by the dozen: one statement with many rows of
parameters, its text constant, so that SQLite prepares it once; the rest goes in one by one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Final

# 12 columns times 64 stay below the 999 parameters that old versions of SQLite allow.
BLOCK_ROWS: Final = 64


def insert(
    connection: sqlite3.Connection,
    head: str,
    rows: Sequence[Sequence[object]],
    *,
    is_single: bool = False,
) -> None:
    """Insert rows, in order, inside the caller's transaction.

    Args:
        head: The statement up to its values: `INSERT INTO table (column, ...)`.
        rows: All as long as the list of columns.
        is_single: Let each row be written by itself all the same.
    """
    if not rows:
        return
    width = len(rows[0])
    whole = 0 if is_single else len(rows) - len(rows) % BLOCK_ROWS
    if whole:
        blocks = (
            tuple(chain.from_iterable(rows[start : start + BLOCK_ROWS]))
            for start in range(0, whole, BLOCK_ROWS)
        )
        connection.executemany(_statement(head, width, BLOCK_ROWS), blocks)
    connection.executemany(_statement(head, width, 1), rows[whole:])


@cache
def _statement(head: str, width: int, rows: int) -> str:
    row = f"({', '.join('?' * width)})"
    return f"{head} VALUES {', '.join([row] * rows)}"
