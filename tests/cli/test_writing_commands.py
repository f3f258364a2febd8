"""init, restore, delete, delete-task, cleanup: what they change, and what they say."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest


@pytest.fixture
def call(run, filled):
    return lambda *words: run("--store", filled.path, *words)


# --- init -------------------------------------------------------------------------------------


def test_init_makes_a_store_here(run):
    done = run("init")
    assert (done.status, done.err) == (0, "")
    assert str(Path(".ckptlog").absolute()) in done.out
    assert Path(".ckptlog/store.json").is_file()


@pytest.mark.parametrize("words", [["init", "new"], ["init", "--store", "new"]])
def test_init_makes_a_store_there_once(run, words):
    first = run(*words, "--json")
    assert (first.status, first.document["created"]) == (0, True)
    again = run(*words, "--json")
    assert (again.status, again.document["created"]) == (0, False)
    assert again.document["id"] == first.document["id"]
    assert "already a store" in run(*words).out


def test_init_refuses_a_directory_of_others(run):
    Path("other").mkdir()
    Path("other/notes.txt").write_text("x")
    done = run("init", "other", "--json")
    assert (done.status, done.error["code"]) == (3, "store.not_a_store")
    assert os.listdir("other") == ["notes.txt"]


def test_init_beside_the_old_layout_names_the_import(run):
    Path("old/active").mkdir(parents=True)
    Path("old/active/checkpoint_x.json").write_text("{}")
    done = run("init", "old")
    assert done.status == 0
    assert f"ckptlog import legacy {Path('old').absolute()}" in done.err


# --- restore ----------------------------------------------------------------------------------


def test_restore(call, filled):
    done = call("restore", filled.failed)
    assert (done.status, done.err) == (0, "")
    assert f"Restored {filled.failed}" in done.out
    assert call("show", filled.failed, "--json").document["state"] == "restored"


def test_restore_to_a_file(call, filled):
    done = call("restore", filled.completed, "--out", "data.json", "--json")
    assert done.status == 0
    assert done.document["checkpoint"]["state"] == "restored"
    assert done.document["out"] == "data.json"
    assert json.loads(Path("data.json").read_text()) == {"n": 3, "items": [1, 2], "result": True}
    assert os.listdir() == ["data.json"]
    document = call("restore", filled.completed, "--json").document
    assert document["checkpoint"]["data"]["n"] == 3


@pytest.mark.parametrize(
    ("target", "reason"),
    [("there.json", "exists"), (".", "is a directory"), ("no/data.json", "does not exist")],
)
def test_restore_changes_nothing_where_the_file_cannot_be(call, filled, target, reason):
    Path("there.json").write_text("mine")
    done = call("restore", filled.completed, "--out", target, "--json")
    assert (done.status, done.error["code"]) == (2, "argument.invalid")
    assert reason in done.error["message"]
    assert Path("there.json").read_text() == "mine"
    assert call("show", filled.completed, "--json").document["state"] == "completed"


def test_restore_replaces_a_file_with_force(call, filled):
    Path("there.json").write_text("mine")
    assert call("restore", filled.completed, "--out", "there.json", "--force").status == 0
    assert json.loads(Path("there.json").read_text())["n"] == 3


def test_restore_writes_to_what_is_no_file(call, filled, tmp_path):
    # A pipe of the test's own: were it replaced by a file, no device of the machine would suffer.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        done = call("restore", filled.completed, "--out", pipe, "--force")
        assert done.status == 0
        assert pipe.is_fifo()
        assert json.loads(os.read(reader, 65_536))["n"] == 3
    finally:
        os.close(reader)


# --- delete -----------------------------------------------------------------------------------


def test_delete(call, filled):
    done = call("delete", filled.created, filled.active)
    assert (done.status, done.err) == (0, "")
    assert done.out == f"Deleted {filled.created}.\nDeleted {filled.active}.\n"
    assert call("show", filled.created).status == 3


def test_delete_in_part_is_never_a_success(call, filled):
    done = call("delete", filled.created, "cp_none_1_1", "--json")
    assert (done.status, done.error["code"]) == (1, "cli.partial")
    assert done.document["deleted"] == [filled.created]
    assert done.document["failed"][0]["checkpoint_id"] == "cp_none_1_1"
    assert done.document["failed"][0]["code"] == "checkpoint.not_found"
    done = call("delete", filled.active, "cp_none_1_1")
    assert (done.status, done.out) == (1, f"Deleted {filled.active}.\n")
    assert "cp_none_1_1" in done.err
    assert "[cli.partial]" in done.err


def test_delete_of_what_is_gone(call, filled):
    done = call("delete", filled.deleted, "--json")
    assert (done.status, done.error["code"]) == (3, "checkpoint.not_found")
    assert call("delete", filled.deleted, "cp_none_1_1").status == 3
    assert call("delete", filled.created, filled.created).status == 0


def test_delete_task(call):
    done = call("delete-task", "job")
    assert (done.status, done.out, done.err) == (0, "Deleted task job with 5 checkpoints.\n", "")
    assert [fields["task_id"] for fields in call("list", "--json").lines] == ["other"]
    done = call("delete-task", "job", "--json")
    assert (done.status, done.error["code"]) == (3, "checkpoint.not_found")
    assert done.document == {"task_id": "job", "deleted": 0}


# --- cleanup ----------------------------------------------------------------------------------


class Clock:
    """An environment whose clock stands `days` ago."""

    @staticmethod
    def set_back(monkeypatch, days):
        then = datetime.now(UTC) - timedelta(days=days)
        monkeypatch.setattr(
            "ckptlog.storage.environment.Environment.now_us",
            lambda _: int(then.timestamp() * 1_000_000),
        )


@pytest.fixture
def aged(run, tmp_path, monkeypatch):
    """Return a store with checkpoints of 40 days ago and of today, and the old ones' ids."""
    import ckptlog

    path = tmp_path / "aged"
    with monkeypatch.context() as patch:
        Clock.set_back(patch, 40)
        with ckptlog.CheckpointManager(path) as manager:
            old = [manager.create_checkpoint("job", "A job", n) for n in (1, 2, 3)]
            manager.complete_checkpoint(old[0])
            manager.fail_checkpoint(old[1], {"message": "x"})
    with ckptlog.CheckpointManager(path) as manager:
        manager.complete_checkpoint(manager.create_checkpoint("job", "A job", 4))
    return path, old


def test_cleanup(run, aged):
    path, old = aged
    tried = run("--store", path, "cleanup", "--dry-run", "--json")
    assert tried.status == 0
    assert tried.document["is_dry_run"] is True
    assert tried.document["checkpoints"] == old[:2]
    assert len(run("--store", path, "list", "--json").lines) == 4
    assert all(name in run("--store", path, "cleanup", "--dry-run").out for name in old[:2])
    assert run("--store", path, "cleanup", "--max-age-days", 50).out.startswith("Deleted 0 ")
    done = run("--store", path, "cleanup", "--json")
    assert (done.status, done.err) == (0, "")
    assert done.document["deleted"] == 2
    left = [fields["checkpoint_id"] for fields in run("--store", path, "list", "--json").lines]
    assert left[0] == old[2]
    assert len(left) == 2


@pytest.mark.parametrize("days", ["-1", "x", "1.5"])
def test_cleanup_of_no_age(run, filled, days):
    assert run("--store", filled.path, "cleanup", "--max-age-days", days).status == 2


# --- paths that are empty, or two -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["init", ""], "PATH is empty"),
        (["init", "--store", ""], "--store is empty"),
        (["list", "--store", ""], "--store is empty"),
        (["demo", "--dir", ""], "--dir is empty"),
        (["demo", "--store", ""], "--store is empty"),
        (["init", "a", "--store", "b"], "PATH is 'a', and --store is 'b'"),
        (["demo", "--dir", "a", "--store", "b"], "--dir is 'a', and --store is 'b'"),
        (["--store", "b", "demo", "--dir", "a"], "--dir is 'a', and --store is 'b'"),
    ],
)
def test_a_path_is_never_guessed(run, words, message):
    done = run(*words, "--json")
    assert (done.status, done.error["code"]) == (2, "argument.invalid")
    assert done.error["message"].startswith(message)
    assert list(Path().iterdir()) == []


def test_the_same_path_twice_is_one(run):
    assert run("init", "a", "--store", "./a").status == 0
    assert Path("a/store.json").is_file()
