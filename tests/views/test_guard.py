from __future__ import annotations

import fcntl
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import ExitStack

import pytest

from ckptlog.views.current import CurrentView
from ckptlog.views.errors import ViewBusyError
from ckptlog.views.guard import Guard, folder_lock
from tests.holding import living_child
from tests.views.author import BOOT, STORE, Author, assert_agrees

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's file locks")


def wal_database(path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE t (a)")
    return connection


def names(path) -> set[str]:
    return {each.name for each in path.parent.iterdir()}


@linux_only
def test_a_guarded_database_keeps_its_log_at_the_last_close(tmp_path):
    path = tmp_path / "db"
    connection = wal_database(path)
    held = Guard(path)
    assert held.fd >= 0
    connection.close()
    assert names(path) == {"db", "db-wal", "db-shm"}
    held.close()
    held.close()
    sqlite3.connect(path).execute("SELECT * FROM t").connection.close()
    assert names(path) == {"db"}  # what SQLite does without it


@linux_only
def test_guards_of_one_process_are_independent(tmp_path):
    path = tmp_path / "db"
    connection = wal_database(path)
    first, second = Guard(path), Guard(path)
    first.close()
    connection.close()
    assert "db-wal" in names(path)
    second.close()


def test_a_guard_knows_its_file(tmp_path):
    path = tmp_path / "db"
    path.touch()
    held = Guard(path)
    assert held.is_of(path)
    path.rename(tmp_path / "other")
    assert not held.is_of(path)
    path.touch()
    assert not held.is_of(path)
    held.close()


def test_without_the_kernels_support_it_holds_nothing(tmp_path, monkeypatch):
    path = tmp_path / "db"
    path.touch()
    before = len(os.listdir("/dev/fd"))

    def refuse(*arguments):
        raise OSError

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    held = Guard(path)
    assert held.fd == -1
    assert held.is_of(path)
    assert len(os.listdir("/dev/fd")) == before


@pytest.fixture
def no_locks(monkeypatch):
    """A system without locks of an open file description."""
    monkeypatch.setattr(Guard, "_take", lambda self, path: None)


def test_a_view_works_without_the_kernels_support(tmp_path, no_locks):
    path, author = tmp_path / "current.sqlite", Author()
    for _ in range(3):
        author.create()
        view = CurrentView.open(path, STORE, boot=BOOT)
        assert view.kind == "file"
        assert view.apply(author.commits, author.meta_of)
        assert_agrees(view, author)
        view.close()
        assert names(path) == {"current.sqlite"}  # SQLite tidied
    view = CurrentView.open(path, STORE, boot=BOOT)
    assert view.notes == ()
    assert_agrees(view, author)
    view.remove()
    assert names(path) == set()


@pytest.mark.parametrize("is_supported", [True, False])
def test_closing_a_replaced_file_leaves_its_successor_alone(tmp_path, request, is_supported):
    """SQLite's last close deletes the log by name: it must not delete the successor's."""
    if not is_supported:
        request.getfixturevalue("no_locks")
    path, author = tmp_path / "current.sqlite", Author()
    author.create()
    old = CurrentView.open(path, STORE, boot=BOOT)
    assert old.apply(author.commits, author.meta_of)
    for name in names(path):
        (tmp_path / name).unlink()
    new = CurrentView.open(path, STORE, boot=BOOT)
    assert new.apply(author.commits, author.meta_of)
    before = names(path)
    old.close()
    assert names(path) == before
    assert before >= {"current.sqlite", "current.sqlite-wal", "current.sqlite-shm"}
    author.create()
    assert new.apply(author.commits, author.meta_of)
    other = CurrentView.open(path, STORE, boot=BOOT)
    assert_agrees(other, author)
    other.close()
    new.close()


def test_a_folder_lock_excludes_other_processes(tmp_path):
    with (
        folder_lock(tmp_path, exclusive=False),
        folder_lock(tmp_path, exclusive=False),
        pytest.raises(ViewBusyError),
        folder_lock(tmp_path, exclusive=True, wait_s=0.02),
    ):
        pass
    program = (
        "import fcntl, os, sys; fd = os.open(sys.argv[1], os.O_RDONLY);"
        "fcntl.flock(fd, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with (
            pytest.raises(ViewBusyError),
            folder_lock(tmp_path, exclusive=False, wait_s=0.02),
        ):
            pass
        assert holder.stdin is not None
        holder.stdin.close()


def test_a_folder_lock_waits(tmp_path):
    order = []

    def wait() -> None:
        with folder_lock(tmp_path, exclusive=True):
            order.append("second")

    with folder_lock(tmp_path, exclusive=True):
        waiting = threading.Thread(target=wait)
        waiting.start()
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]


def test_a_folder_lock_ends_though_a_child_was_forked_under_it(tmp_path):
    with ExitStack() as stack:
        with folder_lock(tmp_path, exclusive=True):
            stack.enter_context(living_child())
        with folder_lock(tmp_path, exclusive=True, wait_s=0):
            pass
