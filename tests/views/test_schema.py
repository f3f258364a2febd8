from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from ckptlog.views import current, database, projection, schema
from ckptlog.views.errors import ViewDamagedError
from ckptlog.views.fold import WAYPOINT_EVENTS
from ckptlog.views.row import Standing
from tests.views.author import STORE

PAGE = (Path(__file__).parents[2] / "specs" / "view-current.md").read_text(encoding="utf-8")


@pytest.fixture
def connection():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    schema.create(connection, Standing(STORE))
    yield connection
    connection.close()


def names(connection: sqlite3.Connection, kind: str) -> set[str]:
    sql = "SELECT name FROM sqlite_master WHERE type = ? AND sql IS NOT NULL"
    return {name for (name,) in connection.execute(sql, (kind,))}


def test_the_page_names_every_table_and_index(connection):
    tables = PAGE[PAGE.index("## 3.") : PAGE.index("## 4.")]
    rows = re.findall(r"^\| (`.*?`) \|", tables, re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert names(connection, "table") | names(connection, "index") == listed


def test_the_page_has_the_numbers_of_the_code():
    for text in (
        f"`application_id` is 0x{schema.APPLICATION_ID:X}, `user_version` is {schema.SCHEMA}",
        f"up to {projection.META_BYTES_MAX:,} bytes",
        f"A view of {current.SEAL_EVENTS_MIN:,} events",
        f"a multiple of {WAYPOINT_EVENTS}",
        f"the first {schema.HOUR_CHARACTERS} characters",
        f"waiting {database.WAIT_WRITE_S:g} s at most",
        f"read waited for {database.WAIT_READ_S:g} s",
    ):
        assert re.search(re.sub(r"\s+", r"\\s+", re.escape(text).replace(r"\ ", " ")), PAGE), text


def test_indexes_come_back_as_they_were(connection):
    schema.check(connection)
    schema.drop_indexes(connection)
    assert names(connection, "index") == set()
    with pytest.raises(ViewDamagedError):
        schema.check(connection)
    schema.create_task_index(connection)
    schema.create_task_index(connection)
    schema.create_indexes(connection)
    schema.check(connection)
    assert schema.read_standing(connection) == Standing(STORE)
