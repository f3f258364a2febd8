"""A database that its program reads every day is restored, whatever SQLite's check needs for it."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from ckptlog import Capturer, CheckpointManager, SqliteComponent
from ckptlog.capture.soundness import faults_of
from ckptlog.recovery.recovery import Recovery

OF_THE_PROGRAM = {
    "collation of a column": ["CREATE TABLE t(a TEXT COLLATE mine)"],
    "collation of an index": ["CREATE TABLE t(a)", "CREATE INDEX i ON t(a COLLATE mine DESC)"],
    "collation of a key": ["CREATE TABLE t(a TEXT COLLATE mine PRIMARY KEY) WITHOUT ROWID"],
    "function of a constraint": ["CREATE TABLE t(a CHECK (is_good(a)))"],
    "function of an index": ["CREATE TABLE t(a)", "CREATE INDEX i ON t(is_good(a))"],
    "function of a column": ["CREATE TABLE t(a, b AS (is_good(a)) NOT NULL)"],
    "all of them": ["CREATE TABLE t(a TEXT COLLATE mine CHECK (is_good(a)), b AS (is_good(a)))"],
}
BROKEN_RULES = {
    "check": ("CREATE TABLE t(a)", "CREATE TABLE t(a CHECK (a > 'b'))"),
    "not null": ("CREATE TABLE t(a, b)", "CREATE TABLE t(a, b NOT NULL)"),
    "type": ("CREATE TABLE t(a)", "CREATE TABLE t(a INT) STRICT"),
}


def program(path):
    """Return a connection that has what only the program knows: the collation turns the order."""
    connection = sqlite3.connect(path)
    connection.create_collation("mine", lambda one, other: (one < other) - (one > other))
    connection.create_function("is_good", 1, lambda _: 1, deterministic=True)
    return closing(connection)


def rows_of(path):
    with program(path) as connection:
        return sorted(row[0] for row in connection.execute("SELECT a FROM t"))


def check_recovery(folder):
    """Capture the database, change it and bring it back; the undo brings back the change."""
    path = folder / "data.db"
    with CheckpointManager(folder / "store") as manager:
        capturer = Capturer(manager, "shop", [SqliteComponent("data", path)])
        info = capturer.capture()
        with program(path) as connection:
            connection.execute("DELETE FROM t WHERE a = 'a'")
            connection.commit()
        recovery = Recovery(capturer)
        assert recovery.recover(dry_run=True).errors == ()
        done = recovery.recover(info.id)
        assert rows_of(path) == ["a", "b", "c"]
        recovery.recover(done.safety_id)
        assert rows_of(path) == ["b", "c"]


@pytest.mark.parametrize("statements", OF_THE_PROGRAM.values(), ids=OF_THE_PROGRAM)
def test_what_only_the_program_registers_does_not_forbid_a_restore(tmp_path, statements):
    with program(tmp_path / "data.db") as connection:
        for statement in statements:
            connection.execute(statement)
        connection.executemany("INSERT INTO t(a) VALUES (?)", ["b", "a", "c"])
        connection.commit()
    check_recovery(tmp_path)


@pytest.mark.parametrize(("made", "said"), BROKEN_RULES.values(), ids=BROKEN_RULES)
def test_rows_that_break_a_rule_are_restored_as_they_are(tmp_path, made, said):
    with program(tmp_path / "data.db") as connection:
        connection.execute(made)
        connection.executemany("INSERT INTO t(a) VALUES (?)", ["b", "a", "c"])
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 't'", (said,))
        connection.commit()
    check_recovery(tmp_path)


def test_damage_is_told_also_beside_what_is_lent(tmp_path):
    path = tmp_path / "data.db"
    with program(path) as connection:
        connection.execute("CREATE TABLE t(a TEXT COLLATE mine NOT NULL CHECK (is_good(a)))")
        connection.executemany("INSERT INTO t VALUES (?)", [(f"{n:099d}",) for n in range(999)])
        connection.commit()
    with path.open("r+b") as file:
        file.seek(3 * 4096 + 7)
        file.write(b"\x70")  # more fragments than the page has
    with closing(sqlite3.connect(path)) as connection:
        faults = faults_of(connection)
    assert ["Fragmentation" in one for one in faults] == [True]


def test_what_cannot_be_lent_is_raised(tmp_path):
    path = tmp_path / "data.db"
    with program(path) as connection:
        connection.execute("CREATE TABLE t(a)")
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_schema SET sql = 'CREATE TABLE t(' WHERE name = 't'")
        connection.commit()
    with closing(sqlite3.connect(path)) as connection, pytest.raises(sqlite3.DatabaseError):
        faults_of(connection)
