"""What nobody has open has a checksum beside it: a bit that turns in it is noticed at opening."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest

from ckptlog.views import checksum, current, database
from ckptlog.views.current import CurrentView
from ckptlog.views.errors import ViewError
from tests.views.author import BOOT, STORE, Author, assert_agrees


@pytest.fixture
def path(tmp_path):
    return tmp_path / "current.sqlite"


@pytest.fixture
def author():
    author = Author()
    for _ in range(5):
        author.create()
    return author


def opened(path: Path) -> CurrentView:
    return CurrentView.open(path, STORE, boot=BOOT)


def written(path: Path, author: Author) -> CurrentView:
    view = opened(path)
    assert view.apply(author.commits, author.meta_of)
    return view


def sum_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-sum")


def flip(path: Path, at: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    with path.open("r+b") as file:  # the same inode: only the bytes are others
        file.seek(at)
        file.write(data[at : at + 1])


def test_a_view_is_believed_again_and_again(path, author):
    written(path, author).close()
    for _ in range(3):
        assert sum_of(path).exists()
        view = opened(path)
        assert (view.kind, view.notes) == ("file", ())
        assert_agrees(view, author)
        assert sum_of(path).exists()
        author.create()
        assert view.apply(author.commits[-1:], author.meta_of)
        view.close()


def test_any_bit_that_turns_makes_it_new(path, author, monkeypatch):
    monkeypatch.setattr(current, "SEAL_EVENTS_MIN", 0)  # believed in any place
    written(path, author).close()
    whole, told = path.read_bytes(), sum_of(path).read_bytes()
    chance = random.Random(5)
    places = {*range(0, 100, 19), *(chance.randrange(len(whole)) for _ in range(12))}
    for at in sorted(places):
        flip(path, at, chance.randrange(8))
        view = opened(path)
        assert view.mark.position == 0, at
        view.close()
        for suffix in ("-wal", "-shm"):  # what the new one has written would count
            path.with_name(path.name + suffix).unlink()
        path.write_bytes(whole)
        sum_of(path).write_bytes(told)


def test_without_it_some_bit_hides_a_checkpoint(path, author, monkeypatch):
    """SQLite tells nothing: this is what the checksum is for."""
    written(path, author).close()
    monkeypatch.setattr(checksum, "compare", lambda *_: None)
    key = next(iter(author.model))
    whole = path.read_bytes()
    (key_number,) = sqlite3.connect(path).execute("SELECT key FROM checkpoint").fetchone()
    places = [
        at
        for at in range(len(whole) - 8)
        if whole[at : at + 8] == key_number.to_bytes(8, "big", signed=True)
    ]
    assert places, "the key stands in the row and in the index"
    hidden = []
    for at in places:
        flip(path, at, 6)
        view = opened(path)
        with suppress(ViewError):
            hidden.append(view.mark.position > 0 and view.row(key) is None)
        view.close()
        path.write_bytes(whole)
    assert any(hidden)


def test_its_own_damage_says_nothing(path, author):
    written(path, author).close()
    told = sum_of(path).read_bytes()
    for at in range(len(told)):
        flip(sum_of(path), at, at % 8)
        view = opened(path)
        assert_agrees(view, author)
        view.close()
        assert sum_of(path).read_bytes() == told


@pytest.mark.parametrize("made", ["short", "long", "folder", "link"])
def test_one_that_is_none_says_nothing(path, author, made):
    """What lies there would tell of damage, were it believed."""
    written(path, author).close()
    author.create()
    other = path.with_name("other.sqlite")
    written(other, author).close()
    told, beside = sum_of(other).read_bytes(), sum_of(path)
    beside.unlink()
    if made == "folder":
        beside.mkdir()
    elif made == "link":
        beside.symlink_to(sum_of(other))
    else:
        beside.write_bytes(told[:-1] if made == "short" else told + b"1")
    view = opened(path)
    assert view.mark.position == author.position - 1
    assert view.notes == ()
    view.close()


def test_who_is_not_alone_leaves_none(path, author):
    first = written(path, author)
    second = opened(path)
    first.close()  # which has copied its log into the file
    assert not sum_of(path).exists()
    second.close()
    assert sum_of(path).exists()
    assert_agrees(opened(path), author)


def test_it_goes_before_the_log_is_copied_into_the_file(path, author, monkeypatch):
    written(path, author).close()
    monkeypatch.setattr(database, "_WAL_PAGES", 1)
    monkeypatch.setattr(database, "SUMMED_EVENTS_MAX", 3)
    view, whole = opened(path), path.read_bytes()
    for number in range(1, 6):
        author.create()
        assert view.apply(author.commits[-1:], author.meta_of)
        assert sum_of(path).exists() is (number <= 3)
        assert (path.read_bytes() == whole) is (number <= 4), number
    view.abandon()
    assert_agrees(opened(path), author)


def test_a_log_that_has_grown_long_is_copied(path, author, monkeypatch):
    """Else it would grow with every process that is killed before it has written much."""
    written(path, author).close()
    view = opened(path)
    author.create()
    assert view.apply(author.commits[-1:], author.meta_of)
    view.abandon()
    monkeypatch.setattr(database, "_WAL_BYTES_KEPT", 1)
    view = opened(path)
    assert not sum_of(path).exists()
    assert_agrees(view, author)
    view.close()


def killed(path: Path, author: Author, *, is_new: bool = False) -> None:
    """Let another process write to the view, and kill it."""
    if not is_new:
        written(path, author).close()
    author.create()
    child = os.fork()
    if not child:
        try:
            written(path, author)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.mark.parametrize("is_new", [False, True], ids=["old", "new"])
def test_after_a_kill_the_view_is_believed(path, author, is_new):
    killed(path, author, is_new=is_new)
    assert sum_of(path).exists()
    view = opened(path)
    assert (view.kind, view.notes) == ("file", ())
    assert_agrees(view, author)
    view.close()


@pytest.mark.parametrize("is_new", [False, True], ids=["old", "new"])
@pytest.mark.parametrize("suffix", ["", "-wal", "-sum"])
def test_after_a_kill_no_bit_that_turns_is_believed(path, author, monkeypatch, is_new, suffix):
    """In the file: it is made anew. In the log: SQLite stops before it. In the sum: it is none."""
    monkeypatch.setattr(database, "_home", lambda *_: "here")  # whatever the file's inode is
    killed(path, author, is_new=is_new)
    kept = path.with_name("kept")
    kept.mkdir()
    for one in path.parent.glob("current.sqlite*"):
        shutil.copy(one, kept)
    target = path.with_name(path.name + suffix)
    size, chance = target.stat().st_size, random.Random(7)
    for at in sorted({*range(0, min(size, 100), 19), *(chance.randrange(size) for _ in range(25))}):
        for one in kept.iterdir():
            path.with_name(one.name).write_bytes(one.read_bytes())
        flip(target, at, chance.randrange(8))
        view = opened(path)
        position = view.mark.position
        assert position == 0 or suffix
        assert view.apply(
            [one for one in author.commits if one.position_next > position], author.meta_of
        )
        assert_agrees(view, author)
        view.close()  # so that the next one is the first to open the log


def test_who_finds_that_another_one_has_begun_to_write_believes(path, author, monkeypatch):
    """A reader has read the checksum; a writer opens, and its bytes reach the file."""
    written(path, author).close()
    measure = checksum._measure

    def measured_late(guard):
        monkeypatch.setattr(checksum, "_measure", measure)
        author.create()
        other = opened(path)
        assert other.apply(author.commits[-1:], author.meta_of)
        other._database.empty_log()
        others.append(other)
        return measure(guard)

    others: list[CurrentView] = []
    monkeypatch.setattr(checksum, "_measure", measured_late)
    view = CurrentView.open(path, STORE, boot=BOOT, read_only=True)
    assert view.kind == "read-only"
    assert_agrees(view, author)
    view.close()
    others[0].close()


def test_a_large_one_has_none(path, author, monkeypatch):
    monkeypatch.setattr(checksum, "BYTES_MAX", 4096)
    written(path, author).close()
    assert not sum_of(path).exists()


def test_a_copy_that_was_sealed_is_compared_too(path, author, monkeypatch, tmp_path):
    monkeypatch.setattr(current, "SEAL_EVENTS_MIN", 0)
    written(path, author).close()
    (tmp_path / "copy").mkdir()
    copy = tmp_path / "copy" / path.name
    for one in (path, sum_of(path)):
        shutil.copy(one, copy.with_name(one.name))
    view = opened(copy)
    assert_agrees(view, author)
    view.close()
    flip(copy, copy.stat().st_size - 10, 3)
    view = opened(copy)
    assert view.mark.position == 0
    view.close()
