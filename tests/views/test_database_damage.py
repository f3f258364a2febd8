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

from ckptlog.views import current, schema
from ckptlog.views.errors import (
    ViewDamagedError,
)
from ckptlog.views.guard import Guard
from ckptlog.views.query import Filter
from tests.views.author import OTHER_STORE, assert_agrees
from tests.views.healthy import AUTHOR, is_usable, opened


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
    path.with_name(f"{path.name}-sum").unlink()  # as it is where it was not closed cleanly
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
