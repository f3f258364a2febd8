"""A published end that is gone or damaged is never an empty store (specs/log.md)."""

from __future__ import annotations

import os

import pytest

import ckptlog
from ckptlog import CheckpointManager, LogCorruptionError


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
        data[40] ^= 1
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
def test_one_that_can_write_finds_it_again(path, how, name):
    with CheckpointManager(path) as manager:
        manager.get_checkpoint("c1")
        lose(path, how)
        assert readings(manager)[name]() == RIGHT[name]
        assert manager.validate_checkpoint_integrity() == []


@pytest.mark.parametrize("how", ["gone", "cut", "flipped"])
def test_while_another_process_writes_it_is_told(path, how):
    """Who holds the lock will publish; to wait for it could be for ever."""
    with CheckpointManager(path) as manager, CheckpointManager(path) as other:
        manager.get_checkpoint("c1")
        with other.store.log.exclusive(5.0):
            lose(path, how)
            with pytest.raises(LogCorruptionError):
                manager.get_task_checkpoints("t")
        assert len(manager.get_task_checkpoints("t")) == 3
