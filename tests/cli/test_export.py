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
