"""Damage of every kind to the view's file: noticed and replaced, or at least never believed."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptlog.model.event import UPDATED
from ckptlog.views import current, database, schema
from ckptlog.views.current import CurrentView
from ckptlog.views.errors import (
    ViewBusyError,
    ViewClosedError,
    ViewDamagedError,
    ViewError,
    ViewUnwritableError,
)
from ckptlog.views.guard import Guard
from ckptlog.views.query import Filter
from ckptlog.views.row import Standing
from tests.views.author import BOOT, NEXT_BOOT, OTHER_STORE, STORE, Author, assert_agrees


def written(events: int = 40) -> Author:
    author = Author()
    names = [author.create(f"t{n % 3}", worker="w") for n in range(events)]
    for name in names[::2]:
        author.change(name, UPDATED, title="new")
    author.delete(names[1])
    author.delete_task("t2")
    return author


AUTHOR = written()


def opened(path: Path, **options) -> CurrentView:
    return CurrentView.open(path, options.pop("store", STORE), boot=BOOT, **options)


@pytest.fixture
def path(tmp_path):
    """A healthy file that was closed."""
    path = tmp_path / "views" / "current.sqlite"
    view = opened(path)
    assert view.apply(AUTHOR.commits, AUTHOR.meta_of)
    view.close()
    return path


def is_usable(view: CurrentView) -> None:
    position = view.mark.position
    commits = [commit for commit in AUTHOR.commits if commit.position_next > position]
    assert view.apply(commits, AUTHOR.meta_of)
    assert_agrees(view, AUTHOR)


def test_a_healthy_file_is_kept(path):
    view = opened(path)
    assert (view.kind, view.notes) == ("file", ())
    assert_agrees(view, AUTHOR)
    view.close()


def test_a_missing_file_and_folder_are_made(tmp_path):
    view = opened(tmp_path / "views" / "current.sqlite")
    assert (view.kind, view.mark.position) == ("file", 0)
    assert "missing" in view.notes[0]
    is_usable(view)
    view.close()


@pytest.mark.parametrize(
    "name", ["ü name with blanks", "100%", "a?b=c#d", "quote'\"", os.fsdecode(b"\xff")]
)
def test_any_path_will_do(tmp_path, name):
    path = tmp_path / name / f"{name}.sqlite"
    for _ in range(2):
        view = opened(path)
        assert view.kind == "file"
        is_usable(view)
        view.close()
    assert path.exists()


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096 + 17)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"x" * 100)


def renumbered(path: Path) -> None:
    """Make it a view of a later version."""
    edit(path, f"PRAGMA user_version = {schema.SCHEMA + 1}")


def of_another_program(path: Path) -> None:
    edit(path, "PRAGMA application_id = 7")


def with_a_trigger(path: Path) -> None:
    edit(path, "CREATE TRIGGER t AFTER INSERT ON command BEGIN DELETE FROM checkpoint; END")


def without_an_index(path: Path) -> None:
    edit(path, "DROP INDEX by_task")


def without_a_standing(path: Path) -> None:
    edit(path, "DELETE FROM standing")


def with_a_false_standing(path: Path) -> None:
    edit(path, "UPDATE standing SET body = zeroblob(100)")


def with_a_standing_of_another_type(path: Path) -> None:
    edit(path, "UPDATE standing SET body = 'text'")


def replaced_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replaced_by_text(path: Path) -> None:
    path.write_text("not a database, but long enough to hold a header of one" * 100)


def replaced_by_another_database(path: Path) -> None:
    path.unlink()
    edit(path, "CREATE TABLE t (a)")


def without_its_log(path: Path) -> None:
    path.with_name("current.sqlite-wal").unlink()


def copied(path: Path) -> None:
    """Copy it as a backup of a live store does: nobody knows when each page was read."""
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").replace(path)


def edit(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(sql)
    # Another program's last close would remove the log, which is damage of its own.
    Guard(path)
    connection.close()


DAMAGE = [
    truncated,
    emptied,
    overwritten,
    renumbered,
    of_another_program,
    with_a_trigger,
    without_an_index,
    without_a_standing,
    with_a_false_standing,
    with_a_standing_of_another_type,
    replaced_by_text,
    replaced_by_another_database,
    without_its_log,
    copied,
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_cannot_be_believed_is_replaced(path, damage):
    damage(path)
    view = opened(path)
    assert (view.kind, view.mark.position) == ("file", 0)
    assert view.notes[0].startswith("Started anew: ")
    is_usable(view)
    view.close()
    view = opened(path)
    assert (view.kind, view.notes) == ("file", ())
    assert_agrees(view, AUTHOR)
    view.close()


@pytest.mark.parametrize("damage", [*DAMAGE, replaced_by_a_folder])
def test_for_reading_only_it_is_left_alone(path, damage):
    damage(path)
    before = path.read_bytes() if path.is_file() else None
    view = opened(path, read_only=True)
    assert (view.kind, view.mark.position) == ("memory", 0)
    assert str(path) in view.notes[0]
    is_usable(view)
    view.close()
    assert (path.read_bytes() if path.is_file() else None) == before


def test_noise_in_the_log_of_a_closed_file_does_no_harm(path):
    path.with_name("current.sqlite-wal").write_bytes(b"noise" * 5000)
    view = opened(path)
    is_usable(view)
    view.close()


def test_the_view_of_another_store_is_replaced(path):
    view = opened(path, store=OTHER_STORE)
    assert (view.kind, view.mark.position) == ("file", 0)
    assert "another store" in view.notes[0]
    view.close()


def test_a_folder_in_its_place_sends_the_view_to_memory(path):
    replaced_by_a_folder(path)
    view = opened(path)
    assert view.kind == "memory"
    is_usable(view)
    view.remove()
    assert path.is_dir()


def test_links_are_not_followed(path, tmp_path):
    """A hostile store could point at any file of the user."""
    for suffix in ("", "-wal", "-shm"):
        precious = tmp_path / "precious"
        precious.write_bytes(b"mine")
        link = path.with_name(path.name + suffix)
        link.unlink(missing_ok=True)
        link.symlink_to(precious)
        view = opened(path)
        assert (view.kind, view.mark.position) == ("file", 0)
        is_usable(view)
        view.close()
        assert precious.read_bytes() == b"mine"
        assert not link.is_symlink()


def test_nothing_can_be_made_where_there_is_no_store(tmp_path):
    view = opened(tmp_path / "missing" / "views" / "current.sqlite")
    assert view.kind == "memory"
    assert not (tmp_path / "missing").exists()
    is_usable(view)
    view.close()


def test_a_file_system_without_a_log_sends_the_view_to_memory(tmp_path, monkeypatch):
    class Old(sqlite3.Connection):
        def execute(self, sql, *arguments):
            return super().execute(sql.replace("= WAL", "= DELETE"), *arguments)

    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: real(*a, factory=Old, **k))
    view = opened(tmp_path / "current.sqlite")
    assert view.kind == "memory"
    assert "write-ahead log" in view.notes[0]
    is_usable(view)


@settings(max_examples=40)
@given(
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), max_size=4),
    cut=st.none() | st.floats(0, 1),
)
def test_no_damage_makes_a_row_lie(tmp_path_factory, sealed, flips, cut):
    """A missing answer is possible (the index is torn), a wrong one is not."""
    data = bytearray(sealed)
    for where, bit in flips:
        data[int(where * len(data))] ^= 1 << bit
    if cut is not None:
        del data[int(cut * len(data)) :]
    path = tmp_path_factory.mktemp("damaged") / "current.sqlite"
    path.write_bytes(data)
    view = opened(path)
    for name, row in AUTHOR.model.items():
        with suppress(ViewDamagedError):
            assert view.row(name) in (row, None)
    for wanted in (Filter(), Filter(task="t0"), Filter(updated_before="2025-01-01T01")):
        with suppress(ViewDamagedError):
            rows = view.select(wanted, limit=100)
            assert [row for row in rows if row != AUTHOR.model[row.id]] == []
    try:
        problems = view.check()
        position = view.mark.position
        ahead = [commit for commit in AUTHOR.commits if commit.position_next > position]
        assert view.apply(ahead, AUTHOR.meta_of)
        if not problems:
            assert_agrees(view, AUTHOR)
    except ViewDamagedError:
        view.remove()
        view = opened(path)
        assert view.mark.position == 0
        is_usable(view)
    view.close()
    shutil.rmtree(path.parent)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory) -> bytes:
    """The bytes of a file that is believed in any place."""
    path = tmp_path_factory.mktemp("sealed") / "current.sqlite"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(current, "SEAL_EVENTS_MIN", 0)
        view = opened(path)
        assert view.apply(AUTHOR.commits, AUTHOR.meta_of)
        view.close()
    return path.read_bytes()


def test_damage_below_the_surface_shows_when_it_is_read(path):
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(os.urandom(size - 4096 * 3))
    view = opened(path)
    with pytest.raises(ViewDamagedError):
        view.select(Filter(), limit=1000)
    assert view.check() != []
    view.remove()
    assert sorted(path.parent.iterdir()) == []


# --- reading only, and files that cannot be written ---------------------------------------------


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
    assert len(list(path.parent.iterdir())) == 3
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
    overwritten(path)
    real = database._unlink
    views = []

    def unlink(where: Path) -> None:
        monkeypatch.setattr(database, "_unlink", real)
        monkeypatch.setattr("ckptlog.views.guard._WAIT_FOLDER_S", 0.01)
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
