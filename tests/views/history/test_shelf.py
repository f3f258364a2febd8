from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ckptlog.errors import ArgumentError, LockTimeoutError
from ckptlog.views.history.column import COLUMNS, SCHEMA
from tests.holding import living_child
from tests.views.history.scribe import contents, play


@pytest.fixture
def filled(scribe):
    for number in range(150):
        name = scribe.create(f"t{number % 3}")
        scribe.tick(1000)
        scribe.change(name)
        scribe.commit()
    scribe.view().update()
    return scribe


def files_of(scribe):
    return sorted((scribe.root / "views" / "history").rglob("*.parquet"))


def test_files_are_as_the_page_says(filled):
    paths = files_of(filled)
    assert len({path.parent.name for path in paths}) > 2
    for path in paths:
        with pq.ParquetFile(path, page_checksum_verification=True) as opened:
            metadata = opened.metadata
            assert metadata.metadata[b"ckptlog.store"].decode() == filled.info.id
            assert metadata.metadata[b"ckptlog.schema"] == str(SCHEMA).encode()
            start, stop = (int(part) for part in path.stem.split("-"))
            rows = opened.read().to_pylist()
        positions = [row["position"] for row in rows]
        assert positions == sorted(positions)
        assert start <= positions[0]
        assert positions[-1] < stop
        assert {f"date={row['time'].date()}" for row in rows} == {path.parent.name}
        group = metadata.row_group(0)
        columns = [group.column(n) for n in range(len(COLUMNS))]
        assert {column.compression for column in columns} == {"ZSTD"}
        assert all(column.is_stats_set and column.has_offset_index for column in columns)
        assert [column.path_in_schema for column in columns] == [one.name for one in COLUMNS]
        assert group.sorting_columns[0].column_index == 0
        statistics = columns[0].statistics
        assert (statistics.min, statistics.max) == (positions[0], positions[-1])


def test_the_folder_holds_nothing_else(filled):
    folder = filled.root / "views" / "history"
    assert all(path.suffix == ".parquet" for path in folder.rglob("*") if path.is_file())
    assert not folder.with_name("history.tmp").exists()


def test_bytes_do_not_depend_on_how_rows_came_together(filled, tmp_path):
    shelf, other = filled.view().shelf, filled.view(tmp_path / "other").shelf
    manifest = shelf.load()
    span = manifest.files[0].span
    own = [file for file in manifest.files if file.span == span]
    table = shelf.read(own)
    pieces = pa.concat_tables([table.slice(n, 1) for n in range(table.num_rows)])
    for rows in (table, pieces):
        assert sorted(other.write(span, rows)) == own


def test_one_process_at_a_time(filled):
    folder = filled.root / "views" / "history"
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(LockTimeoutError) as caught:
            filled.view().update(timeout_s=0.05)
        assert str(folder) in str(caught.value)
    finally:
        os.close(fd)
    filled.view().update(timeout_s=0.05)


def test_a_link_in_the_place_of_the_folder_is_not_followed(scribe, tmp_path):
    target = tmp_path / "elsewhere"
    (target / "date=2026-01-01").mkdir(parents=True)
    theirs = target / "date=2026-01-01" / f"{0:020d}-{9:020d}.parquet"
    theirs.write_bytes(b"theirs")
    (scribe.root / "views" / "history").symlink_to(target)
    scribe.create()
    scribe.commit()
    assert scribe.view().update().count_rows() == 1
    assert theirs.read_bytes() == b"theirs"
    assert not (scribe.root / "views" / "history").is_symlink()


def test_a_link_in_the_place_of_a_day_is_not_followed(filled, tmp_path):
    folder = filled.root / "views" / "history"
    before = contents(folder)
    day = next(folder.iterdir())
    day.rename(tmp_path / "day")
    day.symlink_to(tmp_path / "day")
    filled.view().update()
    assert contents(folder) == before
    assert not day.is_symlink()


@pytest.mark.parametrize("kind", ["file beside", "photo", "a file itself"])
def test_the_folder_of_somebody_else_is_refused(scribe, tmp_path, kind):
    folder = tmp_path / "theirs"
    if kind == "a file itself":
        folder.write_text("theirs")
    else:
        folder.mkdir()
    if kind == "photo":
        (folder / "photo.jpg").write_text("theirs")
    if kind == "file beside":
        (tmp_path / "theirs.json").write_text('{"their": "settings"}')
    with pytest.raises(ArgumentError):
        scribe.view(folder).shelf.refuse_foreign()


def test_a_new_an_empty_and_an_earlier_folder_are_not(scribe, tmp_path):
    scribe.create()
    scribe.commit()
    shelf = scribe.view(tmp_path / "new").shelf
    shelf.refuse_foreign()
    (tmp_path / "new").mkdir()
    shelf.refuse_foreign()
    scribe.view(tmp_path / "new").update()
    shelf.refuse_foreign()
    (tmp_path / "new.json").write_bytes(b"")  # torn by a power cut
    shelf.refuse_foreign()


def test_facts_are_found_over_days_and_spans(filled):
    shelf = filled.view().shelf
    manifest = shelf.load()
    wanted = [0, 5, 63, 64, 200, 298, 299]
    found = shelf.facts(manifest.files, [*wanted, 10_000])
    assert sorted(found) == wanted
    for position, fact in found.items():
        row = filled.rows[position]
        assert fact.state == row["state_after"]
        assert fact.time_us == round(row["time"].timestamp() * 1e6)


def test_rows_without_a_time_have_a_place_of_their_own(scribe, monkeypatch):
    scribe.create()
    scribe.commit()
    monkeypatch.setattr("ckptlog.views.history.sheet.read_times",
                        lambda texts: pa.nulls(len(texts), pa.timestamp("us", "UTC")))  # fmt: skip
    found = scribe.view().update()
    assert found.to_table().column("date").to_pylist() == [None]
    (path,) = files_of(scribe)
    assert path.parent.name == "date=__HIVE_DEFAULT_PARTITION__"


def test_random_logs_leave_no_empty_folders(make_scribe):
    scribe = make_scribe()
    play(scribe, [("create", n, 40_000.0 * (-1) ** n, True) for n in range(150)])
    scribe.view().update()
    folder = scribe.root / "views" / "history"
    assert all(any(day.iterdir()) for day in folder.iterdir())


def test_the_history_of_another_store_is_refused_and_kept(filled, make_scribe, tmp_path):
    folder = tmp_path / "theirs"
    filled.view(folder).update()
    before = contents(folder)
    other = make_scribe()
    other.create()
    other.commit()
    view = other.view(folder)
    with pytest.raises(ArgumentError, match=filled.info.id):
        view.shelf.refuse_foreign()
    assert contents(folder) == before
    assert filled.view(folder).current() is not None


def test_the_lock_ends_though_a_child_was_forked_under_it(filled):
    shelf = filled.view().shelf
    with ExitStack() as stack:
        with shelf.lock(0):
            stack.enter_context(living_child())
        with shelf.lock(0):
            pass


def test_another_store_that_comes_first_is_found_under_the_lock(filled, make_scribe, tmp_path):
    folder = tmp_path / "raced"
    other = make_scribe()
    other.create()
    other.commit()
    view = other.view(folder)
    view.shelf.refuse_foreign()
    filled.view(folder).update()
    before = contents(folder)
    with pytest.raises(ArgumentError):
        view.update()
    assert contents(folder) == before


@pytest.mark.parametrize("torn", [b"", b'{"checksum":"torn'])
def test_a_torn_manifest_does_not_make_a_folder_ours(scribe, tmp_path, torn):
    theirs = tmp_path / "data" / "date=2020-01-01" / "mine.parquet"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    (tmp_path / "data.json").write_bytes(torn)
    with pytest.raises(ArgumentError, match=r"mine\.parquet"):
        scribe.view(tmp_path / "data").shelf.refuse_foreign()
    assert theirs.exists()


def test_a_file_of_somebody_else_in_a_named_history_is_refused_not_removed(scribe, tmp_path):
    scribe.create()
    scribe.commit()
    view = scribe.view(tmp_path / "named")
    view.update()
    (day,) = (tmp_path / "named").iterdir()
    theirs = day / "mine.parquet"
    view.shelf.refuse_foreign()
    theirs.write_bytes(b"theirs")
    with pytest.raises(ArgumentError):
        view.update()
    with pytest.raises(ArgumentError):
        view.shelf.refuse_foreign()
    assert theirs.read_bytes() == b"theirs"
    theirs.unlink()
    view.shelf.refuse_foreign()
    assert view.update().count_rows() == 1
