from __future__ import annotations

import sqlite3

import pytest

from ckptlog.views.many import BLOCK_ROWS, insert


@pytest.fixture
def connection():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)")
    yield connection
    connection.close()


@pytest.mark.parametrize("is_single", [False, True])
@pytest.mark.parametrize(
    "count", [0, 1, BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 1, 3 * BLOCK_ROWS + 5]
)
def test_every_row_goes_in_once(connection, count, is_single):
    rows = [(number, str(number)) for number in range(count)]
    insert(connection, "INSERT INTO t (a, b)", rows, is_single=is_single)
    assert connection.execute("SELECT * FROM t ORDER BY a").fetchall() == rows


def test_what_is_to_be_ignored_is_ignored_row_by_row(connection):
    rows = [(number % 100, str(number)) for number in range(200)]
    insert(connection, "INSERT OR IGNORE INTO t (a, b)", rows)
    assert connection.execute("SELECT b FROM t ORDER BY a").fetchall() == [
        (str(n),) for n in range(100)
    ]


def test_a_refused_row_refuses_the_statement(connection):
    connection.execute("BEGIN")
    with pytest.raises(sqlite3.IntegrityError):
        insert(connection, "INSERT INTO t (a, b)", [(1, "x"), (1, "y")])
    connection.rollback()
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
