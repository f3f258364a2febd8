"""A reboot is simulated by another boot id; a power cut by copies of what was on the medium."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from ckptlog.views import current, seal
from ckptlog.views.current import CurrentView
from ckptlog.views.errors import ViewError
from ckptlog.views.schema import read_standing
from tests.views.author import BOOT, NEXT_BOOT, STORE, Author, assert_agrees


@pytest.fixture(autouse=True)
def seal_always(monkeypatch):
    monkeypatch.setattr(current, "SEAL_EVENTS_MIN", 0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "current.sqlite"


@pytest.fixture
def author():
    author = Author()
    for _ in range(5):
        author.create()
    return author


def opened(path: Path, boot: bytes = BOOT) -> CurrentView:
    view = CurrentView.open(path, STORE, boot=boot)
    assert view.kind == "file"
    return view


def home(view: CurrentView) -> str:
    return view._standing().home


def write(path: Path, author: Author, boot: bytes = BOOT) -> CurrentView:
    view = opened(path, boot)
    assert view.apply(author.commits, author.meta_of)
    return view


def test_a_sealed_view_outlives_a_reboot(path, author):
    write(path, author).close()
    view = opened(path, NEXT_BOOT)
    assert home(view) == seal.SEALED
    assert view.notes == ()
    assert_agrees(view, author)
    view.close()
    view = opened(path)  # nothing was written: the seal is as good as before
    assert_agrees(view, author)
    view.close()


def test_a_killed_writer_leaves_a_file_that_only_this_boot_believes(path, author):
    write(path, author).abandon()
    view = opened(path)
    assert_agrees(view, author)
    view.abandon()
    view = opened(path, NEXT_BOOT)
    assert view.mark.position == 0
    view.close()


def test_writing_leaves_the_seal(path, author):
    write(path, author).close()
    author.create()
    write(path, author, NEXT_BOOT).abandon()
    assert opened(path, NEXT_BOOT).mark.position == author.position
    assert opened(path).mark.position == 0


def test_a_sealed_file_is_whole_without_its_log(path, author, tmp_path):
    write(path, author).close()
    alone = tmp_path / "elsewhere" / "current.sqlite"
    alone.parent.mkdir()
    shutil.copy(path, alone)
    view = opened(alone, NEXT_BOOT)
    assert_agrees(view, author)
    author.create()
    assert view.apply(author.commits, author.meta_of)
    view.close()
    view = opened(alone)
    assert_agrees(view, author)
    view.close()


def test_sealing_syncs_in_order(path, author, monkeypatch):
    view = write(path, author)
    held = view._database
    steps: list[str] = []
    assert held.guard is not None
    held.writer.set_trace_callback(steps.append)
    monkeypatch.setattr(os, "fsync", lambda fd: steps.append(f"fsync {fd}"))
    assert seal.seal(held.writer, held.home, fd=held.guard.fd)
    held.writer.set_trace_callback(None)
    assert [step for step in steps if not step.startswith(("SELECT", "REPLACE"))] == [
        "PRAGMA synchronous",
        "PRAGMA synchronous = FULL",
        "BEGIN IMMEDIATE",
        "COMMIT",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        f"fsync {held.guard.fd}",
        "BEGIN IMMEDIATE",
        "COMMIT",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA synchronous = 0",
    ]
    view.abandon()


def test_a_small_view_is_not_sealed(path, author, monkeypatch):
    monkeypatch.setattr(current, "SEAL_EVENTS_MIN", author.position + 1)
    write(path, author).close()
    view = opened(path)
    assert home(view) != seal.SEALED
    assert_agrees(view, author)
    view.close()


def test_the_seal_is_left_before_anything_else_is_written(path, author, monkeypatch):
    """At each sync, what is on the medium must not say SEALED and hold unsynced pages."""
    write(path, author).close()
    sealed = path.read_bytes()
    author.create()
    view = opened(path, NEXT_BOOT)
    seen: list[bytes] = []

    def look(fd: int) -> None:
        # What SQLite has written so far, it has synced.
        assert view._database.writer.execute("PRAGMA synchronous").fetchone() == (2,)
        seen.append(path.read_bytes())

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", look)
        assert view.apply(author.commits, author.meta_of)
    assert len(seen) == 1
    medium = path.with_name("medium")
    medium.write_bytes(seen[0])
    copy = sqlite3.connect(f"file:{medium}?mode=ro&immutable=1", uri=True)
    found = read_standing(copy)
    copy.close()
    assert found.home.startswith("leaving ")
    assert found.position == author.position - 1
    assert seen[0] != sealed
    assert view._database.writer.execute("PRAGMA synchronous").fetchone() == (0,)
    view.abandon()


def test_an_interrupted_leaving_is_gone_through_again(path, author, monkeypatch):
    write(path, author).close()
    author.create()

    def fail(fd: int) -> None:
        raise KeyboardInterrupt

    view = opened(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(KeyboardInterrupt):
            view.apply(author.commits, author.meta_of)
    assert home(view).startswith("leaving ")
    view.abandon()
    other = opened(path)  # the same boot still believes it
    assert other.notes == ()
    assert other.apply(author.commits, author.meta_of)
    assert_agrees(other, author)
    other.close()
    view = opened(path, NEXT_BOOT)
    assert_agrees(view, author)
    view.close()


def test_a_sync_that_fails_sends_the_view_to_memory(path, author, monkeypatch):
    write(path, author).close()
    author.create()
    view = opened(path)

    def fail(fd: int) -> None:
        raise OSError(5, "EIO")

    monkeypatch.setattr(os, "fsync", fail)
    assert view.apply(author.commits, author.meta_of)
    assert view.kind == "memory"
    assert_agrees(view, author)
    view.close()


def test_a_sync_that_fails_at_the_close_leaves_it_unsealed(path, author, monkeypatch):
    view = write(path, author)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: os.close(-1))
        view.close()
    assert opened(path, NEXT_BOOT).mark.position == 0


def test_leaving_waits_for_readers(path, author):
    write(path, author).close()
    author.create()
    view, other = opened(path), opened(path)
    other._database.reader.execute("BEGIN")
    assert other._database.reader.execute("SELECT count(*) FROM checkpoint").fetchone() == (5,)
    view._database.writer.execute("PRAGMA busy_timeout = 1")
    other_position = other.mark.position
    assert not view.apply(author.commits, author.meta_of)
    assert view.mark.position == other_position
    other._database.reader.execute("COMMIT")
    assert view.apply(author.commits, author.meta_of)
    assert_agrees(other, author)
    view.close()
    other.close()


@pytest.mark.parametrize("is_other_sealing", [True, False])
def test_of_two_that_seal_or_leave_at_once_one_starts_again(
    path, author, monkeypatch, is_other_sealing
):
    """While one has synced and not yet said so, the other writes, and perhaps seals too."""
    view, other = write(path, author), opened(path)
    author.create()
    real = os.fsync

    def meddle(fd: int) -> None:
        real(fd)
        monkeypatch.setattr(os, "fsync", real)
        assert other.apply(author.commits, author.meta_of)
        if is_other_sealing:
            moved = seal.move(other._database.writer, None, seal._leaving(other._database.home))
            assert moved

    monkeypatch.setattr(os, "fsync", meddle)
    database = view._database
    assert database.guard is not None
    assert not seal.seal(database.writer, database.home, fd=database.guard.fd)
    assert home(view) != seal.SEALED
    view.abandon()
    other.abandon()
    assert opened(path, NEXT_BOOT).mark.position == 0


def test_a_view_that_wrote_nothing_seals_nothing(path, author):
    write(path, author).abandon()
    view = opened(path)
    view.close()
    view = opened(path)
    assert home(view) != seal.SEALED
    view.close()


def test_what_is_believed():
    own = "boot 1 file 2 log 3"
    for other in ("", own + "4", "boot 1 file 2 log 4", f"leaving {own}4 ab", "leaving ", "SEALED"):
        assert not seal.is_believable(other, own)
    for good in (own, seal.SEALED, seal._leaving(own)):
        assert seal.is_believable(good, own)


def test_a_failed_move_changes_nothing(path, author):
    view = write(path, author)
    before = home(view)
    writer = view._database.writer
    assert not seal.move(writer, "another", "new")
    assert home(view) == before
    writer.execute("DELETE FROM standing")
    with pytest.raises(ViewError):
        seal.move(writer, None, "new")
    assert not writer.in_transaction
    view.remove()
