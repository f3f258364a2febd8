"""The commands on a store that was compacted: nothing is taken for damage that is none."""

from __future__ import annotations

import os

import pytest

import ckptlog
from ckptlog.cli.exit_status import CORRUPTION, NOT_FOUND, OK
from ckptlog.repository.collection import CollectOptions


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "compacted"
    with ckptlog.CheckpointManager(path, actor="tester") as manager:
        manager.store.log._segment_bytes = 10_000
        for step in range(1, 9):
            data = {"rows": [os.urandom(200).hex() for _ in range(20)], "loss": step}
            manager.create_checkpoint("t", "T", step, checkpoint_id=f"c{step}", data=data)
            manager.update_checkpoint(f"c{step}", data={**data, "loss": -step})
        manager.delete_checkpoint("c1")
    return path


def compact(path, **options):
    with ckptlog.CheckpointManager(path, actor="tester") as manager:
        manager.store.compact(CollectOptions(garbage_min=0, seal_bytes_min=1, **options))


def test_every_command_goes_on(run, store, tmp_path):
    told = run("--store", store, "--json", "compact", "--drop-superseded")
    assert told.status == OK
    compact(store, drop_superseded=True)
    assert list(store.glob("log/*.set"))
    for level in ("structure", "existence", "sampled", "full"):
        done = run("--store", store, "--json", "verify", "--level", level)
        assert (done.status, done.document["problems"]) == (OK, [])
    assert run("--store", store, "repair").status == OK
    assert run("--store", store, "doctor").status == OK
    assert run("--store", store, "--json", "stats").document["events"] == 19
    assert run("--store", store, "backup", tmp_path / "b", "--verify").status == OK
    assert run("restore-store", tmp_path / "b", tmp_path / "r").status == OK
    assert run("--store", tmp_path / "r", "verify").status == OK
    assert run("--store", store, "export", "archive", "t", "--to", tmp_path / "a").status == OK
    assert run("--store", store, "replay").status == OK


def test_what_was_collected_is_said_and_is_no_damage(run, store):
    compact(store, drop_superseded=True)
    for words in (("show", "c2", "--at", 2), ("show", "c1", "--at", 0), ("diff", "c2@2", "c2")):
        done = run("--store", store, "--json", *words)
        assert (done.status, done.error["code"]) == (NOT_FOUND, "payload.collected"), words
    lines = run("--store", store, "--json", "history", "c2").lines
    assert [one.get("collected", False) for one in lines] == [True, False]
    done = run("--store", store, "history", "c1")
    assert done.status == OK
    assert done.out.count("collected by event") == 2


def test_damage_of_a_settled_segment_is_mended(run, store, tmp_path):
    compact(store)
    assert run("--store", store, "backup", tmp_path / "b").status == OK
    file = min(store.glob("log/*.set"))
    whole = file.read_bytes()
    file.write_bytes(whole[:200] + b"\xff" * 40 + whole[240:])
    assert run("--store", store, "verify").status == CORRUPTION
    told = run("--store", store, "--json", "repair")
    assert told.document["files"][0]["container"] == f"log/{file.name}"
    done = run("--store", store, "repair", "--apply", "--from", tmp_path / "b")
    assert done.status == OK
    assert file.read_bytes() == whole
    assert run("--store", store, "verify").status == OK


@pytest.mark.parametrize("options", [{}, {"drop_superseded": True}])
def test_a_history_is_shown_with_what_was_collected(run, store, options):
    compact(store, **options)
    done = run("--store", store, "history", "c1")
    assert done.status == OK
    rows = [
        line for line in done.out.splitlines() if line.split()[:1] and line.split()[0].isdigit()
    ]
    assert len(rows) == 3
    assert ["collected by event" in row for row in rows] == [True, True, False]
    lines = run("--store", store, "--json", "history", "c1").lines
    assert [(one["type"], one.get("collected", False)) for one in lines] == [
        ("checkpoint.created", True),
        ("checkpoint.updated", True),
        ("checkpoint.deleted", False),
    ]
    assert [one["checkpoint"] for one in lines] == [None] * 3
