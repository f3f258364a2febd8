"""`ckptlog import --langgraph-sqlite` and `--langgraph-postgres`, as they are called."""

from __future__ import annotations

import subprocess
import sys

import pytest
from langgraph.checkpoint.sqlite import SqliteSaver

from tests.architecture.tree import ROOT
from tests.integrations.langgraph.test_migration import Colour, change
from tests.integrations.langgraph.thread import config, put


@pytest.fixture
def old(run, tmp_path):
    """A store `.ckptlog` in the working directory, beside a database of three threads."""
    run("init")
    path = tmp_path / "old.sqlite"
    with SqliteSaver.from_conn_string(str(path)) as saver:
        for thread in "abc":
            where = put(saver, config(thread), {"n": 0})
            saver.put_writes(where, [("n", 1)], "task")
            put(saver, where, {"n": 1})
    return path


def test_it_copies_and_says_so(run, old):
    dry = run("import", "--langgraph-sqlite", old, "--dry-run")
    assert dry.status == 0
    assert dry.out.startswith("Would copy 6 checkpoints (")
    assert "3 writes of 3 threads (--dry-run)." in dry.out
    assert run("list", "--threads", "--json").out == ""
    done = run("import", "--langgraph-sqlite", old)
    assert done.status == 0
    assert done.out.startswith("Copied 6 checkpoints and 3 writes of 3 threads in ")
    assert "6 checkpoints read back and equal.\n" in done.out
    again = run("import", "--langgraph-sqlite", old, "--json")
    assert (again.status, again.err) == (0, "")
    document = again.document
    assert (document["copied"], document["unchanged"], document["verified"]) == (0, 6, 6)
    assert [line["thread_id"] for line in run("list", "--threads", "--json").lines] == [
        "a",
        "b",
        "c",
    ]


def test_threads_are_chosen(run, old):
    done = run("import", "--langgraph-sqlite", old, "--thread", "b", "--thread", "c", "--json")
    assert (done.status, done.document["threads"]) == (0, 2)
    wrong = run("import", "--langgraph-sqlite", old, "--thread", "z", "--json")
    assert (wrong.status, wrong.error["code"]) == (2, "argument.invalid")


def test_what_could_not_be_copied_makes_the_status_1(run, old):
    with SqliteSaver.from_conn_string(str(old)) as saver:
        put(saver, config("d"), {"colour": [Colour.RED]})
    change(old, "UPDATE checkpoints SET type = 'pickle' WHERE thread_id = 'a'")
    command = ("import", "--langgraph-sqlite", old)
    done = run(*command)
    assert done.status == 1
    assert "checkpoint.channel_values.colour[0]" in done.err
    assert "[import.unknown_type]" in done.err
    assert "3 checkpoints could not be copied whole" in done.err
    assert "2 import.pickle, 1 import.unknown_type" in done.err
    done = run(*command, "--json")
    assert (done.status, done.error["code"]) == (1, "cli.partial")
    assert done.error["context"]["by_code"] == {"import.pickle": 2, "import.unknown_type": 1}
    assert len(done.document["faults"]) == 3
    assert {fault["thread_id"] for fault in done.document["faults"]} == {"a", "d"}


def test_langgraphs_own_warnings_stay_away(old):
    with SqliteSaver.from_conn_string(str(old)) as saver:
        put(saver, config("d"), {"colour": Colour.RED})
    command = [sys.executable, "-m", "ckptlog", "import", "--langgraph-sqlite", str(old)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "PATH": ""}
    )
    assert done.returncode == 1
    assert "Blocked deserialization" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if "not copied" in line]) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "No source is named"),
        (("--langgraph-sqlite", "a", "--langgraph-postgres", "b"), "Two sources are named"),
        (("--langgraph-sqlite", "a", "legacy", "x"), "does not go with `import legacy`"),
        (("--dry-run", "transcript", "x"), "--dry-run does not go with `import transcript`"),
        (("--langgraph-sqlite", "nowhere"), "There is no file nowhere"),
        (("--langgraph-postgres", "nonsense hush"), "cannot be understood"),
    ],
)
def test_wrong_words(run, words, said):
    run("init")
    done = run("import", *words)
    assert done.status == 2
    assert said in done.err
    assert "hush" not in done.err


def test_without_psycopg_it_says_what_to_install(run, monkeypatch):
    run("init")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    done = run("import", "--langgraph-postgres", "postgresql://localhost/x", "--json")
    assert (done.status, done.error["code"]) == (2, "argument.invalid")
    assert "psycopg" in done.error["hint"]


def test_without_langgraph_it_says_what_to_install(run, old, monkeypatch):
    monkeypatch.setitem(sys.modules, "langgraph.checkpoint.serde.jsonplus", None)
    done = run("import", "--langgraph-sqlite", old, "--json")
    assert (done.status, done.error["code"]) == (2, "argument.invalid")
    assert "ckptlog[langgraph]" in done.error["hint"]


def test_no_store_is_made(run, old, tmp_path):
    done = run("import", "--langgraph-sqlite", old, "--store", tmp_path / "none", "--json")
    assert done.status == 3
    assert not (tmp_path / "none").exists()
