"""Files that cannot be written, that are closed, removed, and replaced by others."""

from __future__ import annotations

import os
import shutil
import sqlite3
from functools import partial
from pathlib import Path

import pytest

from ckptlog.views import database, schema
from ckptlog.views.current import CurrentView
from ckptlog.views.errors import (
    ViewBusyError,
    ViewClosedError,
    ViewDamagedError,
    ViewError,
    ViewUnwritableError,
)
from ckptlog.views.query import Filter
from ckptlog.views.row import Standing
from tests.views.author import BOOT, NEXT_BOOT, STORE, assert_agrees
from tests.views.healthy import AUTHOR, is_usable, opened, written


def test_a_file_for_reading_only_is_read(path):
    before = path.read_bytes()
    view = opened(path, read_only=True)
    assert (view.kind, view.notes) == ("read-only", ())
    assert_agrees(view, AUTHOR)
    view.close()
    assert path.read_bytes() == before


def test_what_is_newer_than_a_file_for_reading_only_goes_to_memory(path):
    author = written()
    before = path.read_bytes()
    view = opened(path, read_only=True)
    author.create("later")
    assert view.apply(author.commits, author.meta_of)
    assert view.kind == "memory"
    assert "read-only" in view.notes[-1]
    assert_agrees(view, author)
    view.remove()
    assert path.read_bytes() == before


def test_what_a_file_for_reading_only_has_is_not_copied(path):
    view = opened(path, read_only=True)
    assert view.apply(AUTHOR.commits, AUTHOR.meta_of)
    assert view.kind == "read-only"
    view.close()


def test_a_file_that_cannot_be_removed(path, monkeypatch):
    def refuse(where: Path) -> None:
        raise PermissionError(13, "denied")

    view = opened(path)
    monkeypatch.setattr(database, "_unlink", refuse)
    with pytest.raises(ViewUnwritableError, match="denied"):
        view.remove()
    with pytest.raises(ViewClosedError):
        view.row("x")


def test_a_damaged_file_cannot_be_copied_to_memory(path):
    view = opened(path, read_only=True)
    author = written()
    author.create("later")
    view._database.reader.execute("SELECT 1")
    os.truncate(path, 8192)
    with pytest.raises(ViewDamagedError):
        view.apply(author.commits, author.meta_of)
    view.close()


def test_a_view_for_reading_only_follows_the_one_that_writes(path):
    author = written()
    writing, reading = opened(path), opened(path, read_only=True)
    author.create("later")
    assert writing.apply(author.commits, author.meta_of)
    assert_agrees(reading, author)
    assert reading.kind == "read-only"
    writing.close()
    reading.close()


def deny(monkeypatch, code: int) -> None:
    """Let SQLite refuse to write to any file."""
    real = schema.write_standing

    def refuse(connection: sqlite3.Connection, standing: Standing) -> None:
        if connection.execute("PRAGMA database_list").fetchone()[2]:
            error = sqlite3.OperationalError("refused")
            error.sqlite_errorcode = code
            raise error
        real(connection, standing)

    monkeypatch.setattr(schema, "write_standing", refuse)


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE])
def test_when_the_medium_refuses_the_view_goes_on_in_memory(path, monkeypatch, code):
    author = written()
    view = opened(path)
    author.create("later")
    deny(monkeypatch, code)
    assert view.apply(author.commits, author.meta_of)
    assert view.kind == "memory"
    assert "refused" in view.notes[-1]
    assert_agrees(view, author)
    view.remove()
    assert sorted(path.parent.iterdir()) == []


def test_when_the_medium_refuses_a_rebuild_it_can_be_repeated_in_memory(tmp_path, monkeypatch):
    view = opened(tmp_path / "current.sqlite")
    deny(monkeypatch, sqlite3.SQLITE_FULL)
    assert not view.rebuild(iter(AUTHOR.commits), AUTHOR.meta_of)
    assert view.kind == "memory"
    assert view.rebuild(iter(AUTHOR.commits), AUTHOR.meta_of)
    assert_agrees(view, AUTHOR)


def test_a_file_that_cannot_be_written_is_opened_for_reading(path, monkeypatch):
    def refuse(writer: sqlite3.Connection) -> None:
        raise ViewUnwritableError("denied")

    monkeypatch.setattr(database, "_refuse_unwritable", refuse)
    view = opened(path)
    assert view.kind == "read-only"
    assert "denied" in view.notes[0]
    assert_agrees(view, AUTHOR)
    view.close()


def test_sqlite_says_when_a_file_cannot_be_written(path):
    """The real refusal, which modes do not provoke for the superuser."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    with pytest.raises(sqlite3.OperationalError):
        database._refuse_unwritable(connection)
    connection.close()


def test_a_frozen_medium_needs_no_shared_memory(path, monkeypatch):
    """Simulated: a file system mounted read-only lets SQLite make nothing beside the file."""
    real = database._open_connection

    def refuse(where: Path, cache_kib: int, mode: str, boot: bytes) -> sqlite3.Connection:
        if mode == "ro":
            raise ViewUnwritableError("no shared memory")
        return real(where, cache_kib, mode, boot)

    monkeypatch.setattr(database, "_open_connection", refuse)
    view = opened(path, read_only=True)
    assert view.kind == "memory"  # others could still write here
    view.close()
    frozen = os.statvfs(path)

    class Frozen:
        f_flag = frozen.f_flag | os.ST_RDONLY

    monkeypatch.setattr(os, "statvfs", lambda path: Frozen)
    view = opened(path, read_only=True)
    assert view.kind == "read-only"
    assert_agrees(view, AUTHOR)
    view.close()


@pytest.mark.root
def test_a_medium_that_is_mounted_read_only(path, tmp_path):
    mount = tmp_path / "mount"
    mount.mkdir()
    if os.system(f"mount --bind {path.parent} {mount} 2>/dev/null") != 0:
        pytest.skip("mounting is not allowed here")
    try:
        if os.system(f"mount -o remount,ro,bind {mount} 2>/dev/null") != 0:
            pytest.skip("remounting is not allowed here")
        view = opened(mount / path.name)
        assert view.kind == "read-only"
        assert_agrees(view, AUTHOR)
        author = written()
        author.create("later")
        assert view.apply(author.commits, author.meta_of)
        assert_agrees(view, author)
        view.close()
    finally:
        os.system(f"umount -l {mount}")


# --- closing, removing ------------------------------------------------------------------------


def test_remove_deletes_all_files(path):
    view = opened(path)
    assert len(list(path.parent.iterdir())) == 4
    view.remove()
    assert list(path.parent.iterdir()) == []
    view = opened(path)
    assert view.mark.position == 0
    view.close()


def test_remove_after_the_folder_went_away(path):
    view = opened(path)
    shutil.rmtree(path.parent)
    view.remove()
    with pytest.raises(ViewClosedError):
        view.row("x")


def test_a_closed_view_says_so(path):
    author = written()
    author.create("later")
    view = opened(path)
    view.close()
    view.close()
    for act in (
        lambda: view.mark,
        lambda: view.row("x"),
        lambda: view.select(Filter()),
        lambda: view.apply(author.commits, author.meta_of),
    ):
        with pytest.raises(ViewClosedError):
            act()
    assert view.check() == ["The view was closed."]


def test_a_replaced_file_is_noticed_and_not_deleted(path):
    """Two processes that both find the damage must not remove each other's new file."""
    first, second = opened(path), opened(path)
    first.remove()
    first = opened(path)
    is_usable(first)
    author = written()
    author.create("later")
    with pytest.raises(ViewDamagedError, match="replaced"):
        second.apply(author.commits, author.meta_of)
    assert second.row("no such id") is None  # what it has open can still be read
    second.remove()
    second = opened(path)
    assert (second.kind, second.notes) == ("file", ())
    assert second.apply(author.commits, author.meta_of)
    assert_agrees(first, author)
    first.close()
    second.close()


def test_two_that_find_damage_make_one_new_file(path, monkeypatch):
    """The second waits for the folder, looks again, and finds the file of the first."""
    path.write_bytes(b"x" * 5000)
    real = database._unlink
    views = []

    def unlink(where: Path) -> None:
        monkeypatch.setattr(database, "_unlink", real)
        monkeypatch.setattr(database, "folder_lock", partial(database.folder_lock, wait_s=0.01))
        views.append(opened(path))  # cannot get the folder
        real(where)

    monkeypatch.setattr(database, "_unlink", unlink)
    view = opened(path)
    assert view.kind == "file"
    assert views[0].kind == "memory"
    assert "locked" in views[0].notes[0]


def test_a_file_that_was_repaired_meanwhile_is_used(path, monkeypatch):
    attached = database._attach
    views: list[CurrentView] = []

    def attach(where: Path, *arguments, **options):
        if not views:
            views.append(view)
            raise ViewDamagedError("seen before the other replaced it")
        return attached(where, *arguments, **options)

    view = opened(path)
    monkeypatch.setattr(database, "_attach", attach)
    second = opened(path)
    assert (second.kind, second.notes) == ("file", ())
    assert_agrees(second, AUTHOR)
    second.close()
    view.close()


def test_busy_at_opening_means_memory(path, monkeypatch):
    def busy(*arguments) -> None:
        raise ViewBusyError("held")

    monkeypatch.setattr(database, "_check", busy)
    view = opened(path)
    assert view.kind == "memory"


def test_an_error_of_sqlite_while_making_the_file_means_memory(tmp_path, monkeypatch):
    def fail(*arguments) -> None:
        error = sqlite3.OperationalError("disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    monkeypatch.setattr(schema, "create_indexes", fail)
    with pytest.raises(ViewError):
        database._create(tmp_path / "current.sqlite", STORE, BOOT)
    monkeypatch.undo()
    view = opened(tmp_path / "current.sqlite")  # what was half made is replaced
    assert view.kind == "file"
    is_usable(view)
    view.close()


def test_another_boot_replaces_what_was_not_sealed(path):
    view = CurrentView.open(path, STORE, boot=NEXT_BOOT)
    assert view.mark.position == 0
    assert "reboot" in view.notes[0]
    view.close()


def test_without_boot_ids_sqlite_keeps_its_own_promise(tmp_path):
    path = tmp_path / "current.sqlite"
    for boot, synchronous in ((bytes(16), 1), (BOOT, 0)):
        view = CurrentView.open(path, STORE, boot=boot)
        for connection in (view._database.writer, view._database.reader):
            assert connection.execute("PRAGMA synchronous").fetchone() == (synchronous,)
        view.remove()
