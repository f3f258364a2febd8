"""Whether a SQLite database is sound: whether SQLite can read all of it.

SQLite's quick check asks more than that, and a database that its program uses every day may not
pass it. So here

- collations and functions that only the program registers (in a column, an index, a constraint) are
  lent to the check: without them it refuses to begin;
- rows that break a constraint (NOT NULL, CHECK, a column's type) are no damage: they were brought
  in while it was not asked of them, and are restored as they are.
"""

from __future__ import annotations

import re
import sqlite3
from typing import Final

_FAULTS_MAX: Final = 5
_COLLATION: Final = re.compile(r"no such collation sequence: (.+)", re.DOTALL)
_FUNCTION: Final = re.compile(r"(?:unknown|no such) function: (.+?)(?:\(\))?", re.DOTALL)
_OF_A_ROW: Final = re.compile(r"(?:NULL|NUMERIC|TEXT|non-\S+) value in ")
# By another collation than the program's rows may stand in another order.
_OF_AN_ORDER: Final = "row not in PRIMARY KEY order"


def faults_of(connection: sqlite3.Connection) -> list[str]:
    """Return what SQLite's check finds wrong; at most some of it.

    Args:
        connection: Nobody else's: what it lacks is registered with it.

    Raises:
        sqlite3.Error: It cannot be checked.

    Cost: reads the whole database.
    """
    connection.execute("PRAGMA ignore_check_constraints=ON")
    lent: set[str] = set()
    while True:
        try:
            found = [str(row[0]) for row in connection.execute("PRAGMA quick_check")]
        except sqlite3.OperationalError as error:
            if not _lend(connection, str(error), lent):
                raise
        else:
            return [one for one in found if one != "ok" and _is_fault(one, lent)][:_FAULTS_MAX]


def _is_fault(told: str, lent: set[str]) -> bool:
    return not _OF_A_ROW.match(told) and not (lent and told.startswith(_OF_AN_ORDER))


def _lend(connection: sqlite3.Connection, told: str, lent: set[str]) -> bool:
    """Register what an error says is lacking; False where that is nothing, or did not help."""
    if told in lent:
        return False
    lent.add(told)
    if found := _COLLATION.fullmatch(told):
        connection.create_collation(found[1], lambda one, other: (one > other) - (one < other))
    elif found := _FUNCTION.fullmatch(told):
        connection.create_function(found[1], -1, lambda *_: None, deterministic=True)
    else:
        return False
    return True
