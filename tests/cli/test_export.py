from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from ckptlog import CheckpointManager


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "store"
    with CheckpointManager(path) as manager:
        for step in range(1, 4):
            manager.complete_checkpoint(manager.create_checkpoint("t", "T", step))
    return path


def test_the_history_is_written_and_grows(run, store, tmp_path):
    folder = tmp_path / "out"
    first = run("--store", store, "export", "history", folder)
    assert first.status == 0
    assert "6 rows in 1 file" in first.out
    with CheckpointManager(store) as manager:
        manager.create_checkpoint("t", "T", 4)
    done = run("--store", store, "--json", "export", "history", folder)
    told = done.document
    assert (told["rows"], told["files"], told["folder"]) == (7, 1, str(folder))
    (file,) = folder.rglob("*.parquet")
    assert told["bytes"] == file.stat().st_size
    assert pq.read_metadata(file).num_rows == 7


def test_the_folder_of_somebody_else_is_refused(run, store, tmp_path):
    (tmp_path / "photo.jpg").write_text("mine")
    done = run("--store", store, "--json", "export", "history", tmp_path)
    assert done.status == 2
    assert done.error["code"] == "argument.invalid"
    assert done.out == ""


@pytest.mark.parametrize("typed", ["~/out", "gone/../out"])
def test_what_is_told_is_counted_where_the_files_are(run, store, tmp_path, monkeypatch, typed):
    monkeypatch.setenv("HOME", str(tmp_path / "elsewhere"))
    told = run("--store", store, "--json", "export", "history", typed).document
    (file,) = (tmp_path / "elsewhere" / "out").rglob("*.parquet")
    assert told["folder"] == str(tmp_path / "elsewhere" / "out")
    assert (told["rows"], told["files"], told["bytes"]) == (6, 1, file.stat().st_size)


def test_a_folder_of_nobody_is_refused(run, store):
    done = run("--store", store, "--json", "export", "history", "~nobody-of-this-name/out")
    assert (done.status, done.error["code"]) == (2, "argument.invalid")


def test_the_export_of_another_store_is_refused(run, store, tmp_path):
    run("--store", store, "export", "history", tmp_path / "out")
    (file,) = (tmp_path / "out").rglob("*.parquet")
    with CheckpointManager(tmp_path / "other") as manager:
        manager.create_checkpoint("t", "T", 1)
    done = run("--store", tmp_path / "other", "--json", "export", "history", tmp_path / "out")
    assert (done.status, done.error["code"]) == (2, "argument.invalid")
    assert pq.read_metadata(file).num_rows == 6
