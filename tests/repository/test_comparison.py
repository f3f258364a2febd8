"""A view that tells something else than the log is a problem."""

from __future__ import annotations

import os
import shutil
import sqlite3

import msgspec
import pytest

import ckptlog
from ckptlog.repository.comparison import Comparison
from ckptlog.repository.verify import verify
from ckptlog.views.row import decode_row, encode
from ckptlog.views.schema import read_standing, write_standing
from tests.repository.damage import (
    fill,
    flipped,
)


def change_view(path, sql, *arguments):
    with sqlite3.connect(path / "views" / "current.sqlite") as connection:
        connection.execute(sql, arguments)
    connection.close()


def change_row(path, table="checkpoint", **fields):
    with sqlite3.connect(path / "views" / "current.sqlite") as connection:
        (body,) = connection.execute(f"SELECT body FROM {table}").fetchone()
        changed = encode(msgspec.structs.replace(decode_row(body), **fields))
        connection.execute(f"UPDATE {table} SET body = ?", (changed,))
    connection.close()


@pytest.mark.parametrize("level", ["full", "structure"])
@pytest.mark.parametrize(
    "fields",
    [
        {"state": "failed"},
        {"step": 7},
        {"position": 1},
        {"offset": 9},
        {"data_root": "00" * 32},
        {"updated": "2020-01-01T00:00:00.000000Z"},
        {"worker": "w"},
    ],
)
def test_a_row_that_differs(store_path, level, fields):
    with ckptlog.open(store_path) as store:
        change_row(store_path, **fields)
        (problem,) = store.verify(level).problems
        assert problem.code == "view.differs"
        assert "ckptlog replay" in problem.message
        store.rebuild_views()
        assert store.verify(level).ok


def test_a_cached_title_that_differs(store_path):
    with ckptlog.open(store_path) as store:
        change_row(store_path, meta=b'{"title":"Other"}')
        assert store.verify("structure").ok
        (problem,) = store.verify().problems
    assert "title and metadata" in problem.message


@pytest.mark.parametrize("level", ["full", "structure"])
@pytest.mark.parametrize("table", ["checkpoint", "tombstone"])
def test_rows_that_are_missing(store_path, level, table):
    with ckptlog.open(store_path) as store:
        change_view(store_path, f"DELETE FROM {table}")
        (problem,) = store.verify(level).problems
    assert problem.message.startswith("The view does not have 'cp_t")


def test_sums_that_differ(store_path):
    with ckptlog.open(store_path) as store:
        with sqlite3.connect(store_path / "views" / "current.sqlite") as connection:
            standing = read_standing(connection)
            write_standing(connection, msgspec.structs.replace(standing, logical=1))
        connection.close()
        (problem,) = store.verify("structure").problems
    assert "1 bytes logical" in problem.message


def test_rows_that_the_log_does_not_have(store_path):
    with ckptlog.open(store_path) as store:
        change_row(store_path, id="cp_other")
        messages = [problem.message for problem in store.verify().problems]
    assert any("has 'cp_other'; by the log there is no such" in message for message in messages)


def test_a_tombstone_at_another_place(store_path):
    with ckptlog.open(store_path) as store:
        change_row(store_path, "tombstone", position=3)
        (problem,) = store.verify().problems
    assert "was deleted at 3; the log says otherwise" in problem.message


def test_a_view_of_another_store_is_not_believed(store_path, tmp_path):
    fill(tmp_path / "other")
    shutil.rmtree(store_path / "views")
    shutil.copytree(tmp_path / "other" / "views", store_path / "views")
    with ckptlog.open(store_path) as store:
        assert store.verify().problems == ()


def test_a_view_that_is_damaged_is_a_problem(store_path):
    with ckptlog.open(store_path) as store:
        change_view(store_path, "UPDATE checkpoint SET body = x'00'")
        (problem,) = store.verify().problems
        assert problem.code == "view.differs"
        assert "cannot be read" in problem.message


def test_a_view_at_another_history(store_path, monkeypatch):
    """A view whose mark names another event than the log has there."""
    with ckptlog.open(store_path) as store:
        view = store.view()
        mark = msgspec.structs.replace(view.mark, leaf=b"\1" * 32)

        class Elsewhere:
            def __getattr__(self, name):
                return mark if name == "mark" else getattr(view, name)

        monkeypatch.setattr(store, "view", Elsewhere)
        (problem,) = verify(store).problems
    assert "of another history" in problem.message


@pytest.mark.parametrize("level", ["full", "structure"])
def test_what_came_after_the_reading_is_not_compared(store_path, level, monkeypatch):
    with ckptlog.CheckpointManager(store_path) as manager:
        living = [manager.create_checkpoint("t", "T", 1) for _ in range(3)]
        compare = Comparison.run

        def run(self, *arguments):
            manager.update_checkpoint(living[0], data={"n": 1})
            manager.delete_checkpoint(living[1])
            manager.create_checkpoint("new", "New", 1)
            manager.store.view()
            compare(self, *arguments)

        monkeypatch.setattr(Comparison, "run", run)
        assert manager.store.verify(level).problems == ()


def test_leaf_hashes_that_differ(store_path):
    path = store_path / "views" / "tree" / "leaves"
    with ckptlog.open(store_path) as store:
        store.view()
        with flipped(path, 2 * 32 + 5):
            (problem,) = store.verify("structure").problems
        assert (problem.code, problem.where) == ("view.differs", "views/tree/leaves")
        assert "from position 2 on" in problem.message
        with path.open("ab") as file:
            file.write(bytes(32))
        (problem,) = store.verify().problems
        assert "from position 5 on" in problem.message
        os.truncate(path, 3 * 32 + 7)
        assert store.verify().ok
        path.unlink()
        assert store.verify().ok
        path.mkdir()
        assert store.verify().ok
