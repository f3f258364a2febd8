"""A published end that is gone or damaged is never an empty store (specs/log.md)."""

from __future__ import annotations

import os

import pytest

import ckptlog
from ckptlog import CheckpointManager, LogCorruptionError
from ckptlog.repository.repair import repair
from ckptlog.repository.verify import verify_directory


@pytest.fixture
def path(tmp_path):
    with CheckpointManager(tmp_path / "s") as manager:
        for step in (1, 2, 3):
            manager.create_checkpoint("t", "T", step, data={"n": step}, checkpoint_id=f"c{step}")
    return tmp_path / "s"


def readings(manager):
    return {
        "get": lambda: manager.get_checkpoint("c2").data,
        "latest": lambda: manager.get_latest_checkpoint("t").checkpoint_id,
        "task": lambda: len(manager.get_task_checkpoints("t")),
        "all": lambda: len(list(manager.iterate())),
        "recovery": lambda: manager.get_recovery_point("t").checkpoint_id,
        "history": lambda: len(manager.history("c1")),
        "summary": lambda: manager.get_checkpoint_summary()["total_events"],
        "events": lambda: len(list(manager.store.events())),
        "position": lambda: manager.store.position,
    }


RIGHT = {"get": {"n": 2}, "latest": "c3", "task": 3, "all": 3, "recovery": "c3"}
RIGHT |= {"history": 1, "summary": 3, "events": 3, "position": 3}


def lose(path, how):
    end = path / "log" / "end"
    if how == "gone":
        os.unlink(end)
    elif how == "cut":
        os.truncate(end, 60)
    else:
        data = bytearray(end.read_bytes())
        data[3] ^= 1  # behind the words that all records share it could be a torn one
        end.write_bytes(data)


@pytest.mark.parametrize("how", ["gone", "cut", "flipped"])
@pytest.mark.parametrize("name", RIGHT)
def test_a_reader_that_cannot_write_is_told(path, how, name):
    lose(path, how)
    with ckptlog.open(path, read_only=True) as store:
        with pytest.raises(LogCorruptionError, match="published end") as caught:
            readings(CheckpointManager(store=store))[name]()
        assert "ckptlog repair" in caught.value.hint
        assert [problem.code for problem in store.verify().problems] == ["log.corrupt"]


@pytest.mark.parametrize("how", ["gone", "cut", "flipped"])
@pytest.mark.parametrize("name", RIGHT)
def test_one_that_can_write_is_told_too(path, how, name):
    """It cannot know whether more followed, no more than anybody else."""
    with CheckpointManager(path) as manager:
        manager.get_checkpoint("c1")
        lose(path, how)
        before = listing(path)
        with pytest.raises(LogCorruptionError, match="published end") as caught:
            readings(manager)[name]()
        assert "ckptlog repair" in caught.value.hint
        with pytest.raises(LogCorruptionError, match="published end"):
            manager.create_checkpoint("t", "T", 4)
    assert listing(path) == before


@pytest.mark.parametrize("how", ["gone", "cut", "flipped"])
@pytest.mark.parametrize("segments", ["whole", "cut"])
def test_nobody_opens_the_store_until_it_is_repaired(path, how, segments):
    if segments == "cut":  # at a commit's end: it looks like a shorter log
        with CheckpointManager(path) as manager:
            (*_, third, _) = [one.offset_end for one in manager.store.log.reader.commits()]
        os.truncate(next((path / "log").glob("*.seg")), third)
    lose(path, how)
    before = listing(path)
    for options in ({}, {"create": True}, {"durability": "interval"}):
        with pytest.raises(LogCorruptionError, match="published end") as caught:
            ckptlog.open(path, **options)
        assert "ckptlog repair" in caught.value.hint
    with ckptlog.open(path, read_only=True) as store:
        assert not store.verify().ok
        assert store.doctor()
    assert not verify_directory(path).ok
    assert repair(path).files[0].container == "log/end"
    assert listing(path) == before
    done = repair(path, is_applied=True)
    (file,) = done.files
    assert (file.action, bool(file.quarantine)) == (("made", False), ("mended", True))[
        how != "gone"
    ]
    assert "nobody can know" in done.notes[0]
    with CheckpointManager(path) as manager:
        assert len(manager.get_task_checkpoints("t")) == (3 if segments == "whole" else 2)
        assert manager.create_checkpoint("t", "T", 4)
        assert manager.validate_checkpoint_integrity() == []


def listing(path):
    return {one.name: one.read_bytes() for one in (path / "log").iterdir()}
