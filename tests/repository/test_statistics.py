"""The figures of a store are those of its folder, its view and its log."""

from __future__ import annotations

import json
import os
import sqlite3

import pytest

import ckptlog
from ckptlog.errors import CheckpointStorageError, StoreMissingError
from ckptlog.repository.statistics import ask, measure
from ckptlog.views.errors import ViewBusyError, ViewDamagedError, ViewUnwritableError


def folder_bytes(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def test_figures(tmp_path):
    path = tmp_path / "s"
    with ckptlog.CheckpointManager(path) as manager:
        for step in range(1, 6):
            name = manager.create_checkpoint(f"t{step % 2}", "T", step, data={"x": "ab " * 500})
            manager.complete_checkpoint(name)
        manager.delete_checkpoint(name)
    with ckptlog.open(path) as store:
        figures = store.stats()
        events = [entry.event for entry in store.events()]
        total = folder_bytes(path)
    assert json.loads(json.dumps(figures)) == figures
    assert (figures["path"], figures["id"]) == (str(path), store.id)
    assert (figures["events"], figures["checkpoints"], figures["tasks"]) == (11, 4, 2)
    assert figures["states"] == {
        "created": 0,
        "active": 0,
        "completed": 4,
        "failed": 0,
        "restored": 0,
    }
    saved = [event for event in events if event.new or event.type == "checkpoint.created"]
    references = [one for event in saved for one in (event.data, event.meta) if one is not None]
    assert figures["logical_bytes"] == sum(reference.size for reference in references)
    assert figures["new_bytes"] == sum(event.new for event in events)
    assert figures["view_position"] == 11
    assert (figures["segments"], figures["packs"]) == (1, 0)
    assert (figures["torn_files"], figures["temporary_files"]) == (0, 0)
    parts = ("log_bytes", "packs_bytes", "views_bytes", "reserve_bytes", "other_bytes")
    assert figures["total_bytes"] == sum(figures[part] for part in parts) == total
    assert figures["stored_bytes"] == total - figures["views_bytes"] - figures["reserve_bytes"]
    assert figures["compression_ratio"] > 2
    assert figures["dedup_ratio"] == round(figures["logical_bytes"] / figures["new_bytes"], 3)


def test_an_empty_store_has_no_ratios(tmp_path):
    with ckptlog.open(tmp_path / "s", create=True) as store:
        figures = store.stats()
    assert (figures["events"], figures["tasks"]) == (0, 0)
    assert [figures[name] for name in figures if name.endswith("_ratio")] == [None] * 3


def test_packs_are_counted_and_sampled(tmp_path):
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        manager.create_checkpoint("t", "T", 1, data={"x": os.urandom(1_500_000).hex()})
        figures = manager.store.stats()
    assert figures["packs"] == 1
    assert figures["packs_bytes"] > 1_500_000
    assert 1.5 < figures["compression_ratio"] < 2.5


def test_a_read_only_store(tmp_path):
    with ckptlog.CheckpointManager(tmp_path / "s") as manager:
        manager.create_checkpoint("t", "T", 1)
    with ckptlog.open(tmp_path / "s", read_only=True) as store:
        assert store.stats()["checkpoints"] == 1
        assert store.stats()["view"] == "memory"


def test_what_others_keep_beside_it_does_not_count(tmp_path):
    path = tmp_path / "s"
    with ckptlog.open(path, create=True) as store:
        before = measure(path)
        (path / "active").mkdir()
        (path / "active" / "checkpoint_1.json").write_text("x" * 1000)
        (path / "checkpoint_2.json").write_text("x" * 1000)
        (path / "notes.txt").write_text("x")
        assert measure(path) == before
        (path / "log" / "torn-1-2").write_bytes(b"x" * 10)
        (path / "packs" / "a.pack.tmp").write_bytes(b"x" * 20)
        after = store.stats()
    assert (after["torn_files"], after["temporary_files"]) == (1, 1)
    assert after["log_bytes"] == before.log + 10
    assert after["packs_bytes"] == before.packs + 20


def test_a_folder_that_is_gone(tmp_path):
    with pytest.raises(StoreMissingError):
        measure(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointStorageError):
        measure(tmp_path / "file")


def test_a_damaged_view_is_made_anew(tmp_path):
    path = tmp_path / "s"
    with ckptlog.CheckpointManager(path) as manager:
        manager.create_checkpoint("t", "T", 1)
        assert manager.store.stats()["checkpoints"] == 1
        with sqlite3.connect(path / "views" / "current.sqlite") as connection:
            connection.execute("UPDATE standing SET body = x'00'")
        connection.close()
        assert manager.store.stats()["checkpoints"] == 1


def test_damaged_chunks_are_no_reason_to_fail(tmp_path):
    path = tmp_path / "s"
    with ckptlog.CheckpointManager(path) as manager:
        manager.create_checkpoint("t", "T", 1, data={"x": "abc" * 100})
    (segment,) = path.glob("log/*.seg")
    with segment.open("r+b") as file:
        file.seek(150)
        file.write(b"\xff\xff")
    with ckptlog.open(path) as store:
        assert store.stats()["compression_ratio"] is None


@pytest.mark.parametrize(
    ("faults", "answers"),
    [
        ([ViewBusyError("busy")], True),
        ([ViewDamagedError("bad"), ViewBusyError("busy")], True),
        ([ViewBusyError("busy")] * 3, False),
        ([ViewUnwritableError("read-only")], False),
    ],
)
def test_asking_again(tmp_path, faults, answers):
    left = list(faults)

    def question(view):
        if left:
            raise left.pop(0)
        return view.kind

    with ckptlog.open(tmp_path / "s", create=True) as store:
        if answers:
            assert ask(store, question) == "file"
        else:
            with pytest.raises(CheckpointStorageError, match="does not answer"):
                ask(store, question)
