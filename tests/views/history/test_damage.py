"""What is broken, missing, foreign or of another time is noticed, and made again from the log."""

from __future__ import annotations

import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ckptlog.errors import InputOutputError, LogCorruptionError
from ckptlog.formats import end as end_format
from ckptlog.log.log import Log
from ckptlog.storage.environment import Environment
from ckptlog.views.history import column, shelf
from tests.views.history.scribe import Scribe, contents

EVENTS = 150
COLUMN = column.schema().get_field_index("event_id")


@pytest.fixture
def folder(scribe):
    write(scribe)
    folder = scribe.root / "views" / "history"
    scribe.view(folder).update()
    return folder


def write(scribe, events=EVENTS, task="t"):
    while scribe.position < events:
        name = scribe.create(f"{task}{scribe.position % 3}")
        scribe.tick(1500)
        scribe.change(name)
        scribe.commit()


def flipped(at):
    def flip(path):
        data = bytearray(path.read_bytes())
        data[int(len(data) * at) if at < 1 else -int(at)] ^= 0x10
        path.write_bytes(data)

    return flip


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def emptied(path):
    os.truncate(path, 0)


def removed(path):
    path.unlink()


def linked(path):
    copy = path.with_suffix(".copy")
    path.rename(copy)
    path.symlink_to(copy)


def a_folder(path):
    path.unlink()
    path.mkdir()


DAMAGES = {
    "header": flipped(0.001),
    "page": flipped(0.3),
    "footer": flipped(20),
    "last byte": flipped(1),
    "cut": cut,
    "emptied": emptied,
    "removed": removed,
    "a link": linked,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("which", [0, 2, -1])
def test_a_broken_file_is_made_again_and_no_other(scribe, folder, damage, which):
    before = contents(folder)
    paths = sorted(folder.rglob("*.parquet"), key=lambda path: path.name)
    path = paths[which]
    others = {one: one.stat().st_mtime_ns for one in paths if one.name != path.name}
    damage(path)
    view = scribe.view(folder)
    assert view.update().to_table().sort_by("position").to_pylist() == scribe.rows
    found = contents(folder)
    leftover = str(path.with_suffix(".copy").relative_to(folder))
    found.pop(leftover, None)
    assert found == before
    assert len(view.notes) == 1
    assert {one: one.stat().st_mtime_ns for one in others} == others


def test_a_broken_span_is_made_again_before_the_history_grows(scribe, folder):
    removed(next(folder.rglob(f"{64:020d}-*.parquet")))
    write(scribe, EVENTS + 60)
    scribe.view(folder).update()
    scribe.view(scribe.root / "new").update()
    assert contents(folder) == contents(scribe.root / "new")


def test_where_most_is_gone_all_is_made_again(scribe, folder):
    before = contents(folder)
    shutil.rmtree(folder)
    view = scribe.view(folder)
    view.update()
    assert contents(folder) == before
    assert "Started anew" in view.notes[0]


def test_damage_after_the_first_look_is_noticed_by_its_time_and_size(scribe, folder):
    view = scribe.view(folder)
    before = contents(folder)
    view.update()
    path = min(folder.rglob("*.parquet"))
    flipped(0.3)(path)
    os.utime(path, ns=(1, 1))
    view.update()
    assert contents(folder) == before


def test_without_verifying_a_flipped_page_is_refused_when_it_is_read(scribe, folder):
    path = min(folder.rglob("*.parquet"))
    chunk = pq.read_metadata(path).row_group(0).column(COLUMN)
    data = bytearray(path.read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size - 2] ^= 1
    path.write_bytes(data)
    found = scribe.view(folder).update(is_thorough=False)
    with pytest.raises(OSError, match=r"(?i)(crc|checksum|corrupt)"):
        found.to_table()


def test_without_verifying_a_broken_end_is_still_noticed(scribe, folder):
    """The rows at the end are read on the way, so what is broken there is made again."""
    before = contents(folder)
    flipped(1)(max(folder.rglob("*.parquet"), key=lambda path: path.name))
    found = scribe.view(folder).update(is_thorough=False)
    assert found.to_table().sort_by("position").to_pylist() == scribe.rows
    assert contents(folder) == before


@pytest.mark.parametrize("damage", [flipped(0.2), flipped(0.9), cut, emptied, removed])
def test_a_broken_manifest_means_all_is_made_again(scribe, folder, damage):
    before = contents(folder)
    damage(folder.with_name("history.json"))
    view = scribe.view(folder)
    view.update()
    assert contents(folder) == before
    assert "Started anew" in view.notes[0]


def test_left_over_and_foreign_files_are_removed(scribe, folder):
    before = contents(folder)
    day = next(folder.iterdir())
    for path in (
        day / f"{999:020d}-{1001:020d}.parquet",
        day / "somebody.parquet",
        folder / "somebody.parquet",
    ):
        shutil.copy(next(day.glob("*.parquet")), path)
    (folder.with_name("history.tmp")).mkdir()
    half = f"{0:020d}-{64:020d}.parquet.1-1.tmp"
    (folder.with_name("history.tmp") / half).write_bytes(b"half")
    scribe.view(folder).update()
    assert contents(folder) == before


def test_what_is_no_parquet_file_is_left_alone(scribe, folder):
    (folder / "notes.txt").write_text("mine")
    (folder / "date=2026-01-01").mkdir(exist_ok=True)
    (folder / "date=2026-01-01" / "notes.txt").write_text("mine")
    scribe.view(folder).update()
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "date=2026-01-01" / "notes.txt").read_text() == "mine"


# --- another log ----------------------------------------------------------------------------


def place(folder, other):
    """Put another store's history in the place of this one's."""
    for path in (folder, folder.with_name("history.json")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(other, folder)
    shutil.copy(other.with_name("history.json"), folder.with_name("history.json"))


def test_the_history_of_another_store_is_thrown_away(scribe, folder, make_scribe):
    before = contents(folder)
    other = make_scribe()
    write(other, task="other")
    other.view().update()
    place(folder, other.root / "views" / "history")
    view = scribe.view(folder)
    view.update()
    assert contents(folder) == before
    assert "another store" in view.notes[0]


def copied(scribe, target):
    """Return a scribe on a copy of a store, as from a backup."""
    scribe.log.close()
    shutil.copytree(scribe.root, target)
    copy = object.__new__(Scribe)
    copy.__dict__ |= {**scribe.__dict__, "root": target, "rows": [], "facts": {}, "_group": []}
    copy.log = Log(target, scribe.info.id_bytes, Environment())
    return copy


@pytest.mark.parametrize("events", [10, 40, 90])
def test_a_store_set_back_to_a_backup_and_written_on_is_noticed(scribe, tmp_path, events):
    """The same store id, another history: only leaf hashes tell them apart."""
    write(scribe, 60)
    backup = copied(scribe, tmp_path / "backup")
    scribe = copied(scribe, tmp_path / "now")
    for one, task in ((scribe, "later"), (backup, "other")):
        one.rows, one._first = [None] * 60, 60
        write(one, 60 + (30 if one is scribe else events), task=task)
    scribe.view().update()
    place_from = tmp_path / "now" / "views"
    shutil.copytree(place_from, tmp_path / "backup" / "views", dirs_exist_ok=True)
    view = backup.view()
    tasks = set(view.update().to_table()["task"].to_pylist())
    assert any(task.startswith("other") for task in tasks)
    assert not any(task.startswith("later") for task in tasks)
    assert "Started anew" in view.notes[0]
    backup.view(tmp_path / "new").update()
    assert contents(backup.root / "views" / "history") == contents(tmp_path / "new")
    for one in (scribe, backup):
        one.log.close()


def test_a_history_of_the_future_is_thrown_away(scribe, folder, tmp_path):
    later = copied(scribe, tmp_path / "later")
    later.rows, later._first = [None] * EVENTS, EVENTS
    write(later, EVENTS + 30)
    later.view().update()
    before = contents(folder)
    place(folder, tmp_path / "later" / "views" / "history")
    scribe.view(folder).update()
    assert contents(folder) == before
    later.log.close()


# --- a damaged log --------------------------------------------------------------------------


def test_a_damaged_log_is_told_and_what_was_made_of_it_stays(scribe, folder):
    before = contents(folder)
    last = max((scribe.root / "log").glob("*.seg"))
    start = last.stat().st_size
    write(scribe, EVENTS + 30)
    scribe.log.close()
    newest = max((scribe.root / "log").glob("*.seg"))
    data = bytearray(newest.read_bytes())
    data[min(start, len(data)) - 40 if newest == last else len(data) - 40] ^= 1
    newest.write_bytes(data)
    with pytest.raises(LogCorruptionError):
        scribe.view(folder).update()
    assert contents(folder) == before


def test_an_end_that_is_lost_is_told(scribe, folder):
    end = scribe.root / "log" / "end"
    scribe.log.close()
    end.write_bytes(bytes(end_format.BYTES))
    with pytest.raises(LogCorruptionError):
        scribe.view(folder).update()


def test_damage_of_a_file_that_is_kept_open_cannot_reach_what_was_shown(scribe, folder):
    """Rows of the end are in memory: a dataset is a picture of its moment."""
    shown = scribe.view(folder).update()
    rows = shown.to_table().sort_by("position")
    write(scribe, EVENTS + 5)
    scribe.view(folder).update()
    assert shown.to_table().sort_by("position").equals(rows)
    assert isinstance(rows, pa.Table)


def test_an_old_end_is_waited_for_and_not_taken_for_another_log(scribe, folder):
    """After a power cut an old end may be there; the events behind it are there all the same."""
    before = contents(folder)
    old = (scribe.root / "log" / "end").read_bytes()
    write(scribe, EVENTS + 40)
    scribe.view(folder).update()
    after = contents(folder)
    assert after != before
    scribe.log.close()
    (scribe.root / "log" / "end").write_bytes(old)
    stale = Scribe.__new__(Scribe)
    stale.__dict__ |= scribe.__dict__
    stale.log = Log(scribe.root, scribe.info.id_bytes, Environment(), read_only=True)
    assert stale.view(folder).update().count_rows() == EVENTS + 40
    assert contents(folder) == after
    removed(max(folder.rglob("*.parquet"), key=lambda path: path.name))
    assert stale.view(folder).update().count_rows() == EVENTS
    assert contents(folder) == before


def test_a_medium_that_gives_back_something_else_is_told(scribe, monkeypatch):
    write(scribe)
    real = shelf.publish

    def publish(temporary, target, **options):
        real(temporary, target, **options)
        target.write_bytes(b"something else")

    monkeypatch.setattr(shelf, "publish", publish)
    with pytest.raises(InputOutputError, match="cannot be read"):
        scribe.view().update()


def test_while_it_is_made_anew_nobody_sees_old_rows_beside_new_ones(scribe, folder, monkeypatch):
    folder.with_name("history.json").write_bytes(b"torn")
    seen = []
    real = shelf.Shelf.write

    def write_span(self, span, table):
        seen.append(len(list(folder.rglob("*.parquet"))))
        return real(self, span, table)

    monkeypatch.setattr(shelf.Shelf, "write", write_span)
    scribe.view(folder).update()
    assert seen[0] == 0
