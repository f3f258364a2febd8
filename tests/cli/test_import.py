from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ckptlog.cli.demo import SHIPPED


@pytest.fixture
def old(run):
    """Return an old folder with a good and a bad file, beside a new store `.ckptlog`."""
    run("init")
    Path("old/active").mkdir(parents=True)
    fields = {"checkpoint_id": "x", "task_id": "t", "state": "active", "step_number": 1}
    Path("old/active/checkpoint_x.json").write_text(json.dumps(fields))
    return Path("old")


def test_import_legacy(run, old):
    done = run("import", "legacy", old)
    assert (done.status, done.out) == (0, "Imported 1 checkpoint; 0 were there already.\n")
    done = run("import", "legacy", old, "--json")
    assert done.status == 0
    answer = {"folder": "old", "imported": 0, "unchanged": 1, "failed": []}
    assert done.document == answer


def test_a_bad_file_makes_a_partial_failure(run, old):
    bad = old / "active" / "checkpoint_y.json"
    bad.write_text("{")
    done = run("import", "legacy", old)
    assert done.status == 1
    assert done.out.startswith("Imported 1 checkpoint")
    assert f"not imported: {bad}: It is not JSON" in done.err
    assert "[cli.partial]" in done.err
    done = run("import", "legacy", old, "--json")
    assert (done.status, done.error["code"]) == (1, "cli.partial")
    assert done.document["failed"][0]["path"] == str(bad)


@pytest.mark.parametrize("folder", ["missing", "."])
def test_no_old_folder(run, folder):
    run("init", "s")
    done = run("--store", "s", "import", "legacy", folder, "--json")
    assert (done.status, done.error["code"]) == (2, "argument.invalid")


def test_an_import_makes_no_store(run, old):
    done = run("--store", "new", "import", "legacy", old, "--json")
    assert (done.status, done.error["code"]) == (3, "store.missing")


def test_import_transcript(run):
    run("init")
    done = run("import", "transcript", SHIPPED)
    assert done.status == 0
    assert done.out.startswith("Imported 12 steps as task demo_transcript")
    done = run("import", "transcript", SHIPPED, "--task", "two", "--json")
    assert (done.document["task_id"], len(done.document["checkpoints"])) == ("two", 12)
    again = run("import", "transcript", SHIPPED, "--task", "two", "--json")
    assert (again.status, again.document) == (0, done.document)
    Path("other.traj").write_bytes(SHIPPED.read_bytes() + b" ")
    done = run("import", "transcript", "other.traj", "--task", "two", "--json")
    assert (done.status, done.error["code"]) == (4, "update.conflict")


@pytest.mark.timeout(30)
def test_a_fifo_does_not_stop_an_import(run, old):
    os.mkfifo(old / "active" / "checkpoint_y.json")
    done = run("import", "legacy", old)
    assert done.status == 1
    assert done.out.startswith("Imported 1 checkpoint")
    assert "is a FIFO, not a regular file" in done.err
    done = run("import", "transcript", old / "active" / "checkpoint_y.json", "--json")
    assert (done.status, done.error["code"]) == (2, "argument.invalid")


@pytest.mark.parametrize("content", ["", "{}", "[]"])
def test_import_of_what_is_no_transcript(run, content):
    run("init")
    Path("bad.traj").write_text(content)
    done = run("import", "transcript", "bad.traj", "--json")
    assert (done.status, done.error["code"]) == (2, "argument.invalid")
