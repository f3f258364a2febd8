"""`ckptlog recover` on real directories, databases and files."""

from __future__ import annotations

import io
import multiprocessing
import os
import random
import shlex
import shutil
import signal
import sqlite3
import sys
import time

import pytest

from ckptlog import CheckpointManager, FileComponent, SqliteComponent
from ckptlog.capture.capturer import Capturer
from ckptlog.capture.directory.component import DirectoryComponent
from ckptlog.capture.directory.scan import Options
from ckptlog.cli.main import main
from ckptlog.recovery.recovery import Recovery
from tests.capture.sample import Value


def described(folder):
    return [
        SqliteComponent("db", folder / "app.db"),
        DirectoryComponent("tree", folder / "tree"),
        FileComponent("settings", folder / "settings.json"),
    ]


def fill(folder, word, rows):
    (folder / "tree").mkdir(parents=True, exist_ok=True)
    for number in range(rows):
        (folder / "tree" / f"{number}.txt").write_text(f"{word} {number}\n" * 50)
    (folder / "settings.json").write_text(f'{{"word": "{word}"}}')
    with sqlite3.connect(folder / "app.db") as database:
        database.execute("create table if not exists t (n integer primary key, word text)")
        database.execute("delete from t")
        database.executemany("insert into t values (?, ?)", [(n, word * 40) for n in range(rows)])
    database.close()


def state(folder):
    with sqlite3.connect(folder / "app.db") as database:
        rows = database.execute("select * from t order by n").fetchall()
    database.close()
    files = {p.name: p.read_text() for p in (folder / "tree").iterdir()}
    return rows, files, (folder / "settings.json").read_text()


@pytest.fixture
def live(tmp_path):
    """Make a system that was captured as "old" and is "new" now."""
    folder = tmp_path / "live"
    fill(folder, "old", 8)
    with CheckpointManager(tmp_path / "store") as manager:
        Capturer(manager, "sys", described(folder)).capture()
    captured = state(folder)
    shutil.rmtree(folder / "tree")
    fill(folder, "new", 5)
    (folder / "tree" / "more.txt").write_text("more")
    return tmp_path / "store", folder, captured, state(folder)


def newest(store, system="sys"):
    with CheckpointManager(store) as manager:
        return Capturer(manager, system).find()


def test_everything_comes_back_and_can_be_undone(run, live):
    store, folder, captured, before = live
    ran = run("recover", "--yes", "--store", store)
    assert ran.status == 0, ran.err
    assert state(folder) == captured
    assert f"restored db (sqlite {folder}/app.db)" in ran.out
    undo = ran.out.splitlines()[-1].removeprefix("To undo this: ckptlog ")
    assert undo == f"recover {newest(store).id} --store {store}"
    assert run(*shlex.split(undo), "--yes").status == 0
    assert state(folder) == before


@pytest.mark.parametrize("is_first", [True, False])
def test_the_command_that_undoes_it_names_the_store(run, live, is_first, tmp_path, monkeypatch):
    store, folder, captured, before = live
    monkeypatch.chdir(tmp_path)
    store.rename(tmp_path / "else where's")
    words = ["--store", "else where's"]
    ran = run(*words, "recover", "--yes") if is_first else run("recover", "--yes", *words)
    assert (ran.status, state(folder)) == (0, captured), ran.err
    undo = ran.out.splitlines()[-1].removeprefix("To undo this: ckptlog ")
    ran = run(*shlex.split(undo), "--yes")
    assert (ran.status, state(folder)) == (0, before), ran.err


def test_json_is_one_document(run, live):
    store, folder, captured, _ = live
    ran = run("recover", "--yes", "--json", "--store", store)
    assert (ran.status, ran.err) == (0, "")
    said = ran.document
    assert said["status"] == "completed"
    assert said["restored"] == ["db", "tree", "settings"]
    assert said["locations"]["tree"] == {"path": str(folder / "tree")}
    assert (said["left"], said["errors"], said["system"]) == ([], [], "sys")
    assert said["safety_id"] == newest(store).id
    assert state(folder) == captured


def test_a_dry_run_tells_and_changes_nothing(run, live):
    store, folder, _, before = live
    info = newest(store)
    ran = run("recover", "--yes", "--dry-run", "--store", store)
    assert ran.status == 0, ran.err
    assert "- more.txt" in ran.out
    assert "~ 0.txt" in ran.out
    assert "+ 7.txt" in ran.out
    assert "Nothing was changed." in ran.out
    assert state(folder) == before
    said = run("recover", "--yes", "--dry-run", "--json", "--store", store).document
    assert said["status"] == "planned"
    assert said["capture_id"] == info.id
    assert set(said["plans"]) == {"db", "tree", "settings"}
    assert said["bytes_total"] == info.bytes_logical
    assert said["estimated_s"] > 0
    assert newest(store).id == info.id


def test_one_component_alone(run, live):
    store, folder, captured, before = live
    ran = run("recover", "--yes", "--component", "tree", "--store", store)
    assert ran.status == 0, ran.err
    assert state(folder) == (before[0], captured[1], before[2])


def test_elsewhere(run, live, tmp_path):
    store, folder, captured, before = live
    out = tmp_path / "out"
    ran = run("recover", "--yes", "--to", out, "--store", store)
    assert ran.status == 0, ran.err
    assert state(folder) == before
    (out / "db").rename(out / "app.db")
    (out / "settings").rename(out / "settings.json")
    assert state(out) == captured
    again = run("recover", "--yes", "--to", out, "--component", "tree", "--json", "--store", store)
    assert again.status == 2
    assert again.error["code"] == "argument.invalid"


def test_at_a_time_or_a_position(run, live):
    store, folder, captured, before = live
    first = newest(store)
    time.sleep(0.01)
    with CheckpointManager(store) as manager:
        Capturer(manager, "sys", described(folder)).capture()
    assert run("recover", "--yes", "--at", first.position, "--store", store).status == 0
    assert state(folder) == captured
    assert run("recover", "--yes", "--store", store).status == 0
    assert state(folder) == before
    moment = first.created_at.isoformat()
    assert run("recover", "--yes", "--at", moment, "--store", store).status == 0
    assert state(folder) == captured
    early = run("recover", "--yes", "--at", "2001-01-01", "--json", "--store", store)
    assert (early.status, early.error["code"]) == (3, "checkpoint.not_found")


# --- what the program alone can restore ----------------------------------------------------------


@pytest.fixture
def mixed(tmp_path):
    folder = tmp_path / "live"
    fill(folder, "old", 3)
    parts = [*described(folder), Value("mind", {"n": 1}), Value("plan", [1, 2])]
    with CheckpointManager(tmp_path / "store") as manager:
        Capturer(manager, "sys", parts).capture()
    captured = state(folder)
    fill(folder, "new", 3)
    return tmp_path / "store", folder, captured


def test_what_only_the_program_has_is_named(run, mixed):
    store, folder, captured = mixed
    dry = run("recover", "--yes", "--dry-run", "--store", store)
    assert dry.status == 0
    assert "mind (value): only its program can restore it" in dry.out
    ran = run("recover", "--yes", "--store", store)
    assert ran.status == 1
    assert "[cli.partial]" in ran.err
    assert "mind, plan" in ran.err
    assert "recover_from_checkpoint" in ran.err
    assert state(folder) == captured
    words = ("--component", "db", "--component", "tree", "--component", "settings")
    assert run("recover", "--yes", *words, "--store", store).status == 0
    refused = run("recover", "--yes", "--component", "mind", "--json", "--store", store)
    assert (refused.status, refused.error["code"]) == (4, "recovery.refused")
    assert refused.error["context"]["left"] == ["mind"]


def test_its_values_are_written_as_json(run, mixed, tmp_path):
    store, _, _ = mixed
    ran = run("recover", "--yes", "--to", tmp_path / "out", "--json", "--store", store)
    assert ran.status == 0, ran.err
    assert ran.document["left"] == []
    assert (tmp_path / "out" / "mind.json").read_text() == '{\n  "n": 1\n}\n'
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "db", "mind.json", "plan.json", "settings", "tree",
    ]  # fmt: skip


def test_what_depends_on_the_program_is_refused_but_elsewhere(run, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_text("a")
    tree = DirectoryComponent("tree", tmp_path / "tree", depends_on=["mind"])
    with CheckpointManager(tmp_path / "store") as manager:
        Capturer(manager, "sys", [Value("mind", 1), tree]).capture()
    ran = run("recover", "--yes", "--json", "--store", tmp_path / "store")
    assert (ran.status, ran.error["code"]) == (4, "recovery.refused")
    assert "depends on 'mind'" in ran.error["message"]
    words = ("--component", "tree", "--to", tmp_path / "out")
    assert run("recover", "--yes", *words, "--store", tmp_path / "store").status == 0
    assert (tmp_path / "out" / "tree" / "a").read_text() == "a"


def test_what_was_never_captured_of_a_directory_stays(run, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("a.txt", "secret.key", "old.log"):
        (tree / name).write_text(name)
    for number, patterns in enumerate([("*.key", "*.log"), ("*.key", *["x" * 90 + "*"] * 60)]):
        component = DirectoryComponent("tree", tree, options=Options(patterns=patterns))
        with CheckpointManager(tmp_path / f"store{number}") as manager:
            Capturer(manager, "sys", [component]).capture()
        (tree / "a.txt").write_text("changed")
        (tree / "secret.key").write_text("newer")
        ran = run("recover", "--yes", "--store", tmp_path / f"store{number}")
        assert ran.status == 0, ran.err
        assert (tree / "a.txt").read_text() == "a.txt"
        assert (tree / "secret.key").read_text() == "newer"
        assert (tree / "old.log").exists()


def test_the_store_in_the_directory_stays(run, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a.txt").write_text("a")
    assert run("capture", tree).status == 0
    (tree / "a.txt").write_text("b")
    ran = run("recover", "--yes", "--store", tree / ".ckptlog")
    assert ran.status == 0, ran.err
    assert (tree / "a.txt").read_text() == "a"
    assert run("verify", "--store", tree / ".ckptlog").status == 0


# --- errors --------------------------------------------------------------------------------------


def test_no_captures_and_several_systems(run, filled, tmp_path):
    ran = run("recover", "--yes", "--json", "--store", filled.path)
    assert (ran.status, ran.error["code"]) == (3, "checkpoint.not_found")
    assert "no captures" in ran.error["message"]
    with CheckpointManager(filled.path) as manager:
        for name in ("one", "two"):
            part = FileComponent("settings", tmp_path / name)
            (tmp_path / name).write_text("captured")
            Capturer(manager, name, [part]).capture()
            (tmp_path / name).write_text("changed")
    ran = run("recover", "--yes", "--json", "--store", filled.path)
    assert (ran.status, ran.error["code"]) == (2, "argument.invalid")
    assert ran.error["context"]["systems"] == ["two", "one"]
    assert "--system" in ran.error["hint"]
    ran = run("recover", "--yes", "--system", "oen", "--json", "--store", filled.path)
    assert (ran.status, ran.error["hint"]) == (3, "It has some of two, one.")
    assert run("recover", "--yes", "--system", "one", "--store", filled.path).status == 0
    assert (tmp_path / "one").read_text() == "captured"
    assert (tmp_path / "two").read_text() == "changed"
    ran = run("recover", "--yes", newest(filled.path, "two").id, "--store", filled.path)
    assert ran.status == 0, ran.err
    assert (tmp_path / "two").read_text() == "captured"


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (["cp_unknown"], 3, "checkpoint.not_found"),
        (["--system", "other"], 3, "checkpoint.not_found"),
        (["--component", "nothing"], 3, "argument.no_such_part"),
        (["--at", "soon"], 2, "cli.usage"),
        (["--resume", "--roll-back"], 2, "cli.usage"),
        (["--resume", "--component", "db"], 2, "argument.invalid"),
        (["--abandon", "--no-safety"], 2, "argument.invalid"),
        (["--dry-run", "--to", "x"], 2, "argument.invalid"),
        (["some", "--at", "3"], 2, "argument.invalid"),
    ],
)
def test_wrong_words_change_nothing(run, live, words, status, code):
    store, folder, _, before = live
    ran = run("recover", "--yes", *words, "--json", "--store", store)
    assert (ran.status, ran.out, ran.error["code"]) == (status, "", code)
    assert state(folder) == before


def test_a_checkpoint_that_is_no_capture(run, filled):
    ran = run("recover", "--yes", filled.completed, "--json", "--store", filled.path)
    assert (ran.status, ran.error["code"]) == (3, "checkpoint.not_found")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("answer", "is_done"), [("y\n", True), ("n\n", False), ("", False)])
def test_whoever_sits_at_a_terminal_is_asked(live, monkeypatch, answer, is_done):
    store, folder, captured, before = live
    error = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys, "stderr", error)
    status = main(["recover", "--store", str(store)])
    assert status == (0 if is_done else 1)
    assert "[y/N]" in error.getvalue()
    assert str(folder / "tree") in error.getvalue()
    assert state(folder) == (captured if is_done else before)
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    assert main(["recover", "--yes", "--store", str(store)]) == 0
    assert state(folder) == captured


def test_where_nobody_can_be_asked_nothing_is_overwritten(live, run, monkeypatch):
    store, folder, captured, before = live
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    refused = run("recover", "--store", store)
    assert refused.status == 2
    assert "--yes goes on without asking" in refused.err
    assert state(folder) == before
    assert run("recover", "--to", folder.parent / "copy", "--store", store).status == 0
    assert run("recover", "--json", "--store", store).status == 0
    assert state(folder) == captured


def test_a_place_that_cannot_be_is_a_matter_of_the_path(live, run, tmp_path):
    store, *_ = live
    (tmp_path / "file").write_text("")
    failed = run("recover", "--to", tmp_path / "file" / "below", "--store", store)
    assert failed.status == 6
    assert "Check the path" in failed.err
    none = run("recover", "no-such-capture", "--system", "none", "--store", store)
    assert "Capturer" not in none.err


@pytest.mark.parametrize("lost", [["gone"], ["gone", "kept"]], ids=str)
def test_the_command_that_undoes_it_makes_missing_again_what_was(run, tmp_path, lost):
    folder = tmp_path / "live"
    for name in ("kept", "gone"):
        (folder / name).mkdir(parents=True)
        (folder / name / "a").write_text(name)
    with CheckpointManager(tmp_path / "store") as manager:
        parts = [DirectoryComponent(name, folder / name) for name in ("kept", "gone")]
        Capturer(manager, "sys", parts).capture()
    for name in lost:
        shutil.rmtree(folder / name)
    before = sorted(folder.rglob("*"))
    ran = run("recover", "--json", "--store", tmp_path / "store")
    assert sorted(ran.document["missing"]) == sorted(lost)
    for name in lost:
        shutil.rmtree(folder / name)
    ran = run("recover", "--yes", "--store", tmp_path / "store")
    undo, again = ran.out.splitlines()[-2:]
    assert undo.startswith("To undo this: ckptlog recover cp_sys_3")
    assert again.startswith("Then this is missing again, as before: ")
    assert f"gone (directory {folder / 'gone'})" in again
    assert ("kept" in again.removeprefix("Then ")) == ("kept" in lost)
    assert (folder / "gone" / "a").read_text() == "gone"
    done = run(*shlex.split(undo.removeprefix("To undo this: ckptlog ")), "--yes")
    assert done.status == 0
    assert sorted(folder.rglob("*")) == before


# --- killed in the middle ------------------------------------------------------------------------


def recover_in_child(store, folder):
    os.chdir(folder)
    sys.exit(main(["recover", "--yes", "--store", str(store)]))


def killed(tmp_path, delay):
    """Return (store, folder, captured, before) after a recovery that was killed."""
    folder = tmp_path / "live"
    fill(folder, "old", 300)
    with CheckpointManager(tmp_path / "store") as manager:
        Capturer(manager, "sys", described(folder)).capture()
    captured = state(folder)
    shutil.rmtree(folder / "tree")
    fill(folder, "new", 200)
    before = state(folder)
    child = multiprocessing.get_context("spawn").Process(
        target=recover_in_child, args=(tmp_path / "store", folder)
    )
    child.start()
    while child.is_alive() and not (tmp_path / "store" / "recovery").exists():
        time.sleep(0.001)
    time.sleep(delay)
    if child.is_alive():
        os.kill(child.pid, signal.SIGKILL)
    child.join()
    return tmp_path / "store", folder, captured, before


def unfinished(store):
    with CheckpointManager(store) as manager:
        return Recovery(Capturer(manager, "sys")).unfinished()


@pytest.mark.parametrize("how", ["--resume", "--roll-back"])
@pytest.mark.parametrize("number", range(4))
def test_killed_in_the_middle_it_is_finished_or_undone(run, tmp_path, how, number):
    delay = random.Random(number).uniform(0.05, 0.4)
    store, folder, captured, before = killed(tmp_path, delay)
    found = unfinished(store)
    if found is None:
        assert state(folder) in (before, captured)
    else:
        refused = run("recover", "--yes", "--json", "--store", store)
        assert (refused.status, refused.error["code"]) == (4, "recovery.unfinished")
        assert refused.error["hint"].startswith("ckptlog recover --resume")
    more = ["--no-safety"] if number % 2 else []
    ran = run("recover", "--yes", how, *more, "--json", "--store", store)
    assert ran.status == 0, ran.err
    if found is None:
        assert ran.document["status"] == "none"
    elif how == "--resume":
        assert ran.document["status"] == "completed"
        assert state(folder) == captured
    else:
        assert ran.document["rolled_back"]
        assert state(folder) == before
    assert unfinished(store) is None
    assert run("recover", "--yes", "--store", store).status == 0
    assert state(folder) == captured
