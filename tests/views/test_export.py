"""The view `current` in a file of its own: the same rows, believed anywhere."""

from __future__ import annotations

import os
import shutil
import sqlite3

import pytest

import ckptlog
from ckptlog.views.current import CurrentView
from ckptlog.views.errors import ViewError, ViewGapError, ViewUnwritableError
from ckptlog.views.export import export_current, make_current
from ckptlog.views.query import Filter
from ckptlog.views.row import decode_standing


@pytest.fixture
def store(tmp_path):
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        for step in range(1, 40):
            name = manager.create_checkpoint(f"t{step % 3}", "T", step, metadata={"n": step})
            if step % 2:
                manager.complete_checkpoint(name)
            if step % 7 == 0:
                manager.delete_checkpoint(name)
        manager.delete_task("t1")
        yield manager.store


def meta_of(store):
    return lambda entry: None if entry.event.meta is None else store.wire(entry.event.meta)


def rows_of(connection):
    """Return every table's rows, without where the bytes were written."""
    tables = ("checkpoint", "tombstone", "command", "waypoint", "task_end")
    found = {name: sorted(connection.execute(f"SELECT * FROM {name}")) for name in tables}
    (body,) = connection.execute("SELECT body FROM standing").fetchone()
    standing = decode_standing(body)
    found["standing"] = [
        getattr(standing, field) for field in standing.__struct_fields__ if field != "home"
    ]
    found["schema"] = sorted(
        sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master") if sql
    )
    return found


def test_it_has_what_the_view_has(store, tmp_path):
    path = tmp_path / "out" / "x.sqlite"
    path.parent.mkdir()
    commits = list(store.log.reader.commits())
    standing = export_current(path, store.info.id_bytes, [commits], meta_of(store))
    assert standing.position == store.position
    assert [one.name for one in path.parent.iterdir()] == ["x.sqlite"]
    with sqlite3.connect(path) as connection:
        exported = rows_of(connection)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    view = store.view()
    current = rows_of(view._database.reader)
    # Waypoints depend on how commits came in windows: both lead to commit boundaries.
    assert {key: exported[key] for key in exported if key != "waypoint"} == {
        key: current[key] for key in current if key != "waypoint"
    }


def test_it_is_believed_in_any_place(store, tmp_path):
    path = tmp_path / "x.sqlite"
    export_current(path, store.info.id_bytes, [list(store.log.reader.commits())], meta_of(store))
    for read_only in (True, False):
        copy = tmp_path / f"elsewhere {read_only}" / "current.sqlite"
        copy.parent.mkdir()
        shutil.copy(path, copy)
        view = CurrentView.open(copy, store.info.id_bytes, read_only=read_only, boot=b"b" * 16)
        try:
            assert view.notes == ()
            assert view.mark.position == store.position
            assert view.count(Filter()) == store.view().count(Filter())
            assert view.check() == []
        finally:
            view.close()


def test_nothing_at_all(store, tmp_path):
    path = tmp_path / "x.sqlite"
    assert export_current(path, store.info.id_bytes, (), meta_of(store)).position == 0
    view = CurrentView.open(path, store.info.id_bytes, read_only=True)
    assert (view.notes, view.mark.position) == ((), 0)
    view.close()


def test_what_cannot_be_exported(store, tmp_path):
    commits = list(store.log.reader.commits())
    with pytest.raises(ViewGapError):
        export_current(tmp_path / "a", store.info.id_bytes, [commits[1:]], meta_of(store))
    with pytest.raises(ViewError):
        export_current(tmp_path / "none" / "b", store.info.id_bytes, [commits], meta_of(store))
    (tmp_path / "c").write_text("something else, and not small" * 100)
    with pytest.raises(ViewError):
        export_current(tmp_path / "c", store.info.id_bytes, [commits], meta_of(store))


@pytest.mark.parametrize("boot", [b"b" * 16, bytes(16)])
def test_a_view_adopts_it(store, tmp_path, monkeypatch, boot):
    """Where boots cannot be told apart it is synced first: else a torn one might be believed."""
    path, made = tmp_path / "views" / "current.sqlite", tmp_path / "made"
    path.parent.mkdir()
    former = CurrentView.open(path, store.info.id_bytes, boot=boot)
    windows = [list(store.log.reader.commits())]
    make_current(made, store.info.id_bytes, windows, meta_of(store))
    inode = made.stat().st_ino
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_ino), real(fd)))
    view = CurrentView.adopt(path, made, boot=boot)
    assert (inode in synced) is (not any(boot))
    assert former.is_replaced
    assert not view.is_replaced
    assert (view.kind, view.notes, view.mark) == ("file", (), store.view().mark)
    assert (former.mark.position, made.exists()) == (0, False)
    former.close()
    assert view.check() == []
    other = CurrentView.open(path, store.info.id_bytes, boot=boot)
    assert (other.notes, other.mark) == ((), view.mark)
    other.close()
    view.close()
    for again in (boot, b"another boot, 16"):
        view = CurrentView.open(path, store.info.id_bytes, boot=again)
        is_believed = again == boot
        assert view.mark.position == (store.position if is_believed else 0)
        view.close()


def test_what_was_made_is_believed_by_nobody_before(store, tmp_path):
    path = tmp_path / "current.sqlite"
    make_current(path, store.info.id_bytes, [list(store.log.reader.commits())], meta_of(store))
    view = CurrentView.open(path, store.info.id_bytes)
    assert view.mark.position == 0
    view.close()


def test_what_is_not_there_cannot_be_adopted(store, tmp_path):
    with pytest.raises(ViewUnwritableError):
        CurrentView.adopt(tmp_path / "current.sqlite", tmp_path / "made")
