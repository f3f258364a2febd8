"""A database inside a directory of the same system: the directory leaves it alone."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from ckptlog import CheckpointManager, DirectoryComponent, SqliteComponent
from ckptlog.capture.capturer import Capturer
from ckptlog.capture.directory.scan import Options
from ckptlog.recovery.described import everything
from ckptlog.recovery.recovery import Recovery

WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
try:
    connection.execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError:
    print("locked")
"""


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    (root / "sub [1]").mkdir(parents=True)
    (root / "file").write_text("old")
    with closing(sqlite3.connect(root / "sub [1]" / "app #.db")) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES (1)")
        connection.commit()
    return root


@pytest.fixture
def manager(tmp_path):
    with CheckpointManager(tmp_path / "store") as manager:
        yield manager


def components(root, order=("directory", "database")):
    made = {
        "directory": DirectoryComponent("directory", root),
        "database": SqliteComponent("database", root / "sub [1]" / "app #.db"),
    }
    return [made[name] for name in order]


def test_locks_of_this_process_stay(tree, manager):
    with closing(sqlite3.connect(tree / "sub [1]" / "app #.db", isolation_level=None)) as live:
        capturer = Capturer(manager, "system", components(tree))
        live.execute("BEGIN IMMEDIATE")
        live.execute("INSERT INTO t VALUES (2)")
        capturer.capture()
        path = tree / "sub [1]" / "app #.db"
        done = subprocess.run([sys.executable, "-c", WRITER, path], capture_output=True, text=True)
        assert done.stdout == "locked\n"


@pytest.mark.parametrize("order", [("directory", "database"), ("database", "directory")])
@pytest.mark.parametrize("is_linked", [False, True])
@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_an_open_connection_sees_what_is_restored(tree, manager, order, is_linked, journal):
    root = tree
    if is_linked:
        root = tree.parent / "link"
        root.symlink_to(tree)
    with closing(sqlite3.connect(tree / "sub [1]" / "app #.db", isolation_level=None)) as live:
        live.execute(f"PRAGMA journal_mode={journal}")
        capturer = Capturer(manager, "system", components(root, order))
        info = capturer.capture()
        names = set(capturer.stored(info)["directory"].get("entries").value())
        assert names == {"file", "sub [1]"}
        live.execute("INSERT INTO t VALUES (2)")
        (tree / "file").write_text("new")
        Recovery(capturer).recover(info.id)
        assert live.execute("SELECT x FROM t").fetchall() == [(1,)]
        assert live.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert (tree / "file").read_text() == "old"


def test_what_is_told_of_the_directory_leaves_it_out_too(tree, manager):
    Capturer(manager, "system", components(tree)).capture()
    info = Capturer(manager, "system").find()
    made = {one.name: one for one in everything(info, manager.store.path)}
    assert "/sub\\ \\[1\\]/app\\ \\#.db-wal" in made["directory"].options.patterns


def test_given_patterns_stay_and_are_not_doubled(tree, manager):
    options = Options(patterns=("*.pyc",))
    given = [DirectoryComponent("directory", tree, options=options), *components(tree)[1:]]
    for _ in range(2):
        Capturer(manager, "system", given)
    patterns = given[0].options.patterns
    assert patterns[0] == "*.pyc"
    assert len(patterns) == len(set(patterns)) == 5
