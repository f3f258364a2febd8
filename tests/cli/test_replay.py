"""`ckptlog replay` at times and into folders, and `ckptlog files`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

import ckptlog
from tests.manager.clock import SettableEnvironment, open_at


@pytest.fixture
def call(run, filled):
    return lambda *words: run("--store", filled.path, *words)


# --- replay ---------------------------------------------------------------------------------------


def test_at_a_time(call, filled):
    done = call("replay", "--until", "2000-01-01")
    assert (done.status, done.out) == (0, "Before the first event: 0 checkpoints.\n")
    done = call("replay", "--until", "0s")
    assert done.out.startswith("After position 12 (20")
    with ckptlog.open(filled.path) as store:
        at = store.event_at(0).event.time
    document = call("replay", "--until", at, "--json").document
    assert (document["position"], document["time"], document["later"]) == (0, at, 0)


def test_a_clock_that_went_back_and_a_commit_cut_in_two_are_told(run, tmp_path):
    environment = SettableEnvironment()
    with open_at(tmp_path / "s", environment) as store:
        manager = ckptlog.CheckpointManager(store=store)
        manager.create_checkpoint("t", "T", 1)
        environment.advance(days=-1)
        with manager.batch() as batch:
            batch.create_checkpoint("t", "T", 2, activate=True)
        at = store.event_at(2).event.time
    done = run("--store", tmp_path / "s", "replay", "--until", at)
    assert "1 event of these are stamped later" in done.err
    done = run("--store", tmp_path / "s", "replay", "--until", 1)
    assert "events 1 to 2 are one commit" in done.err
    document = run("--store", tmp_path / "s", "replay", "--until", 1, "--json").document
    assert document["commit"] == [1, 2]


def test_into_a_folder(call, tmp_path, filled):
    done = call("replay", "--until", 5, "--into", tmp_path / "out")
    assert (done.status, done.err) == (0, "")
    assert f"The views as of then are in {tmp_path / 'out'}." in done.out
    index = json.loads((tmp_path / "out" / "files" / "index.json").read_text())
    assert index["metadata"]["total_checkpoints"] == 6
    document = call("replay", "--into", tmp_path / "now", "--json").document
    assert document["into"] == str(tmp_path / "now")
    done = call("replay", "--into", tmp_path / "now", "--json")
    assert (done.status, done.out, done.error["code"]) == (2, "", "argument.invalid")
    done = call("replay", "--into", filled.path / "x", "--json")
    assert (done.status, done.error["code"]) == (2, "argument.invalid")


@pytest.mark.parametrize("until", ["yesterday", "-1", "1.5"])
def test_points_that_are_none(call, until):
    assert call("replay", f"--until={until}", "--json").error["code"] == "cli.usage"


def test_a_rebuild_takes_the_files_along(call, filled):
    assert call("replay", "--json").document["files"] is False
    call("files")
    stray = filled.path / "views" / "files" / "active" / "checkpoint_stray.json"
    stray.write_text("{}")
    done = call("replay")
    assert "Its files were written anew, too." in done.out
    assert not stray.exists()
    assert call("replay", "--json").document["files"] is True


# --- files ----------------------------------------------------------------------------------------


def test_files(call, filled):
    done = call("files")
    folder = filled.path / "views" / "files"
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines() == [
        f"The files lie in {folder}.",
        "After 13 events: 6 written, 1 removed (built anew).",
    ]
    assert (folder / "completed" / f"checkpoint_{filled.completed}.json").exists()
    document = call("files", "--json").document
    assert (document["folder"], document["written"], document["is_rebuilt"]) == (
        str(folder),
        0,
        False,
    )


def test_check_and_rebuild(call, filled):
    call("files")
    path = filled.path / "views" / "files" / "completed" / f"checkpoint_{filled.completed}.json"
    wanted = path.read_bytes()
    path.write_bytes(wanted[:-5])
    assert call("files", "--json").document["repaired"] == 0
    done = call("files", "--check")
    assert "1 repaired" in done.out
    assert path.read_bytes() == wanted
    path.write_bytes(b"")
    assert call("files", "--rebuild", "--json").document["is_rebuilt"] is True
    assert path.read_bytes() == wanted


def test_follow(filled):
    words = ["--store", str(filled.path), "files", "--follow", "--json"]
    with subprocess.Popen(
        [sys.executable, "-m", "ckptlog", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        first = json.loads(process.stdout.readline())
        assert (first["position"], first["is_rebuilt"]) == (13, True)
        with ckptlog.CheckpointManager(filled.path) as manager:
            name = manager.create_checkpoint("late", "L", 1)
            second = json.loads(process.stdout.readline())
            assert second["position"] == 14
            assert (filled.path / "views" / "files" / "active" / f"checkpoint_{name}.json").exists()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130


def test_a_store_that_cannot_be_written(call, filled, monkeypatch):
    from ckptlog.repository import layout

    def refuse(root):
        from ckptlog.errors import ReadOnlyError

        raise ReadOnlyError("no", path=str(root))

    monkeypatch.setattr(layout, "refuse_read_only", refuse)
    done = call("files", "--json")
    assert (done.status, done.error["code"]) == (6, "store.read_only")
