"""`ckptlog capture` and `ckptlog rewind`."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys

import pytest

from ckptlog import CheckpointManager
from ckptlog.capture.capturer import Capturer
from ckptlog.capture.directory.component import DirectoryComponent
from ckptlog.capture.directory.stage import STAGING, Stage
from ckptlog.cli.main import main
from ckptlog.errors import ArgumentError
from ckptlog.model.event import RECOVERY_STARTED
from ckptlog.recovery.recovery import Recovery
from tests.tmpfs import bound, mounted


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    (root / "src").mkdir(parents=True)
    (root / "src/a.py").write_text("print(1)\n")
    (root / "b").write_text("b")
    return root


def test_a_store_is_made_and_a_directory_comes_back(run, tree) -> None:
    first = run("capture", tree, "-m", "first", "--tag", "x", "--json").document
    assert (first["captured"], first["description"], first["tags"]) == (True, "first", ["x"])
    assert (tree / ".ckptlog/store.json").is_file()
    assert run("capture", tree).out.startswith("Nothing changed since cp_workspace_1_")
    (tree / "src/a.py").write_text("print(2)\n")
    shutil.rmtree(tree / "src")
    (tree / "new").write_text("n")
    plan = run("rewind", tree, "--dry-run", "--json").document
    assert [(one["kind"], one["path"]) for one in plan["changes"]] == [
        ("remove", "new"),
        ("add", "src"),
        ("add", "src/a.py"),
    ]
    assert "+print(1)" in run("rewind", tree, "--diff").out.splitlines()
    assert (tree / "new").exists()
    done = run("rewind", tree, "--json").document
    assert done["safety"]["reason"] == "safety"
    assert (tree / "src/a.py").read_text() == "print(1)\n"
    assert not (tree / "new").exists()
    assert run("rewind", tree, "--yes", "--to", done["safety"]["id"]).status == 0
    assert (tree / "new").read_text() == "n"
    listed = run("rewind", tree, "--list", "--json").lines
    assert [one["reason"] for one in listed] == ["safety", "safety", "manual"][-len(listed) :]
    assert first["id"] in run("rewind", tree, "--list").out


def test_a_capture_of_what_may_be_half_done_says_so(run, tree) -> None:
    info = run("capture", tree, "--json").document
    assert "mixture" not in run("capture", tree).err
    (tree / STAGING).mkdir()  # of a rewind that was killed
    (tree / "b").write_text("half")
    done = run("capture", tree)
    assert (done.status, "a rewind of it was killed" in done.err) == (0, True)
    assert run("rewind", tree, "--yes", "--to", info["id"]).status == 0
    assert "mixture" not in run("capture", tree).err
    with CheckpointManager(tree / ".ckptlog") as manager:
        facts = {"recovery": "r", "capture": info["id"], "safety": "", "names": "*"}
        manager.record(RECOVERY_STARTED, facts, task="workspace")
    done = run("capture", tree, "--json").document
    assert (done["captured"], done["half_done"]) == (False, True)
    done = run("capture", tree)
    assert "ckptlog recover --system workspace --resume, or --roll-back" in done.err


def test_a_rewind_leaves_alone_what_a_recovery_did_not_end(run, tree, tmp_path) -> None:
    info = run("capture", tree, "--json").document
    (tree / "b").write_text("half")
    with CheckpointManager(tree / ".ckptlog") as manager:
        facts = {"recovery": "r", "capture": info["id"], "safety": "", "names": "*"}
        manager.record(RECOVERY_STARTED, facts, task="workspace")
    done = run("rewind", tree, "--json", "--to", info["id"])
    assert (done.status, done.error["code"]) == (4, "recovery.unfinished")
    assert "ckptlog recover --system workspace --resume" in done.error["hint"]
    assert (tree / "b").read_text() == "half"
    assert run("rewind", tree, "--list").status == 0
    assert run("rewind", tree, "--dry-run").status == 0
    assert run("rewind", tree, "--yes", "--out", tmp_path / "out").status == 0
    done = run(
        "recover", "--store", tree / ".ckptlog", "--system", "workspace", "--resume", "--yes"
    )
    assert done.status == 0
    assert run("rewind", tree, "--yes").status == 0


def test_back_by_number_time_and_id(run, tree) -> None:
    for version in range(3):
        (tree / "b").write_text(f"{version}")
        run("capture", tree)
    for to, expected in (("1", "1"), ("2 back", "0"), ("#2", "1"), ("0s", "2")):
        assert run("rewind", tree, "--yes", "--to", to, "--path", "b").status == 0, to
        assert (tree / "b").read_text() == expected, to
    assert run("rewind", tree, "--to", "9").status == 3
    assert run("rewind", tree, "--to", "no-such-id").status == 3
    assert run("rewind", tree, "--to", "1", "--path", "none").status != 0


def test_elsewhere_and_unknown_files(run, tree, tmp_path) -> None:
    run("capture", tree)
    (tree / "new").write_text("n")
    assert run("rewind", tree, "--out", tmp_path / "out").status == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["b", "src"]
    assert run("rewind", tree, "--yes", "--keep-unknown").status == 0
    assert (tree / "new").exists()


def test_clear_errors(run, tree, tmp_path) -> None:
    assert run("rewind", tree).status == 3  # no store
    gone = run("capture", tmp_path / "none", "--json")
    assert (gone.status, gone.error["code"]) == (2, "argument.invalid")
    assert not (tmp_path / "none").exists()
    assert run("--store", tmp_path / "store", "capture", tree, "--exclude", "b").status == 0
    assert run("--store", tmp_path / "store", "rewind", tree, "--list").out.count("cp_tree-") == 1
    other = tmp_path / "other"
    other.mkdir()
    assert run("--store", tmp_path / "store", "rewind", other).status == 3


def test_a_preview_as_a_diff_and_as_a_list(run, tree) -> None:
    run("capture", tree)
    (tree / "b").write_text("other\n")
    (tree / "new").write_text("n")
    before = sorted(tree.rglob("*"))
    both = run("rewind", tree, "--diff", "--dry-run")
    lines = both.out.splitlines()
    assert "-other" in lines
    assert lines[-3:-1] == ["~ b", "- new"]
    assert lines[-1].endswith("to write.")
    assert both.out == run("rewind", tree, "--diff").out + run("rewind", tree, "--dry-run").out
    document = run("rewind", tree, "--diff", "--dry-run", "--json").document
    alone = run("rewind", tree, "--dry-run", "--json").document
    assert document == {**alone, "diff": run("rewind", tree, "--diff", "--json").document["diff"]}
    assert document["diff"]
    assert sorted(tree.rglob("*")) == before
    assert len(run("rewind", tree, "--list", "--json").lines) == 1  # no safety capture either
    for words in (["--list", "--diff"], ["--list", "--dry-run"], ["--out", "x", "--dry-run"]):
        assert run("rewind", tree, *words).status == 2


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("answer", "is_done"), [("y\n", True), ("n\n", False), ("", False)])
def test_whoever_sits_at_a_terminal_is_asked(run, tree, monkeypatch, answer, is_done) -> None:
    run("capture", tree)
    (tree / "b").write_text("other")
    error = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys, "stderr", error)
    assert main(["rewind", str(tree)]) == (0 if is_done else 1)
    assert "1 to change" in error.getvalue()
    assert str(tree) in error.getvalue()
    assert (tree / "b").read_text() == ("b" if is_done else "other")
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    assert main(["rewind", str(tree), "--yes"]) == 0
    assert (tree / "b").read_text() == "b"
    shown = error.getvalue()
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    assert main(["rewind", str(tree)]) == 0  # nothing would change: nobody is asked
    assert "[y/N]" not in error.getvalue()[len(shown) :]


def test_where_nobody_can_be_asked_nothing_is_overwritten(run, tree, monkeypatch) -> None:
    run("capture", tree)
    (tree / "b").write_text("other")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    refused = run("rewind", tree)
    assert refused.status == 2
    assert "--yes goes on without asking" in refused.err
    assert (tree / "b").read_text() == "other"
    assert run("rewind", tree, "--json").status == 0
    assert run("rewind", tree).status == 0  # nothing would change


# --- one at a time, whole or not at all ----------------------------------------------------------


def test_a_second_one_is_refused_and_touches_nothing(run, tree, tmp_path) -> None:
    run("capture", tree)
    (tree / "b").write_text("other")
    with DirectoryComponent("directory", tree).alone():
        refused = run("rewind", tree, "--yes", "--json")
        assert (refused.status, refused.error["code"]) == (4, "recovery.busy")
        refused = run("recover", "--yes", "--json", "--store", tree / ".ckptlog")
        assert (refused.status, refused.error["code"]) == (4, "recovery.busy")
        assert (tree / "b").read_text() == "other"
        assert len(run("rewind", tree, "--list", "--json").lines) == 1  # no safety capture
        assert run("rewind", tree, "--out", tmp_path / "out").status == 0
    assert run("rewind", tree, "--yes").status == 0
    assert (tree / "b").read_text() == "b"


def test_a_recovery_beside_a_recovery_is_a_conflict(run, tree) -> None:
    run("capture", tree)
    with CheckpointManager(tree / ".ckptlog") as manager:
        recovery = Recovery(Capturer(manager, "workspace"))
        with recovery.journal.alone():
            refused = run("recover", "--yes", "--json", "--store", tree / ".ckptlog")
    assert (refused.status, refused.error["code"]) == (4, "recovery.busy")


def test_two_processes_do_not_destroy_each_other(run, tree) -> None:
    for number in range(150):
        (tree / f"f{number}").write_text(f"old {number}")
    run("capture", tree)
    for number in range(150):
        (tree / f"f{number}").write_text(f"new {number} of them")
    words = [sys.executable, "-m", "ckptlog", "rewind", str(tree), "--to", "#1", "--yes"]
    both = [
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)
    ]
    errors = [process.communicate()[1] for process in both]
    statuses = sorted(process.returncode for process in both)
    assert statuses in ([0, 0], [0, 4]), errors  # one may begin when the other has ended
    assert {(tree / f"f{number}").read_text() for number in range(150)} == {
        f"old {number}" for number in range(150)
    }
    assert not (tree / STAGING).exists()


def test_one_that_fails_in_the_middle_is_taken_back(run, tree, monkeypatch) -> None:
    for name in "acd":
        (tree / name).write_text("old")
    run("capture", tree)
    for name in "acd":
        (tree / name).write_text("newer")
    put = Stage.put

    def refuse(self, staged, name, folder):
        if name == "c" and not is_written:
            raise PermissionError(1, "Operation not permitted", staged)
        if name == "c":
            (tree / "a").write_text("theirs")
            raise PermissionError(1, "Operation not permitted", staged)
        return put(self, staged, name, folder)

    is_written = False
    monkeypatch.setattr(Stage, "put", refuse)
    failed = run("rewind", tree, "--yes")
    assert failed.status == 6
    assert f"Restoring {tree} failed (c): Operation not permitted" in failed.err
    assert "What had been changed is as it was before." in failed.err
    assert {(tree / name).read_text() for name in "acd"} == {"newer"}
    assert not (tree / STAGING).exists()
    is_written = True
    failed = run("rewind", tree, "--to", "#1", "--yes", "--json")
    safety = run("rewind", tree, "--list", "--json").lines[0]["id"]
    assert "Not put back: a." in failed.error["hint"]
    assert f"ckptlog rewind --to {safety} {tree}" in failed.error["hint"]


# --- what is named --------------------------------------------------------------------------------


def test_an_empty_name_is_not_the_working_directory(run, tree, monkeypatch) -> None:
    run("capture", tree)
    monkeypatch.chdir(tree)
    (tree / "b").write_text("other")
    for words in (
        ("capture", ""),
        ("capture", " "),
        ("capture", "--system", ""),
        ("rewind", "", "--yes"),
        ("rewind", "--yes", "--path", ""),
        ("rewind", "--yes", "--out", ""),
        ("recover", "--yes", "--to", ""),
        ("recover", "--yes", "--system", ""),
        ("recover", "--yes", ""),
    ):
        ran = run(*words)
        assert ran.status == 2, words
        assert "it is empty" in ran.err
    for words in (("--name", ""), ("--dir", ""), ("--file", ""), ("--sqlite", "")):
        assert run("run", *words, "--", "true").status == 125, words
    assert (tree / "b").read_text() == "other"
    with pytest.raises(ArgumentError):
        DirectoryComponent("directory", "")


def test_paths_are_below_the_directory(run, tree) -> None:
    run("capture", tree)
    for path in ("../x", "src/../../x", ".", "/", tree, tree.parent / "x", f"{tree}/../x"):
        (tree / "src/a.py").write_text("other\n")
        ran = run("rewind", tree, "--yes", "--json", "--path", path)
        assert (ran.status, ran.error["code"]) == (2, "argument.invalid"), path
    link = tree.parent / "link"
    link.symlink_to(tree)
    for path in (tree / "src", f"{tree}//src/./a.py", link / "src/a.py", "./src/"):
        (tree / "src/a.py").write_text("other\n")
        (tree / "b").write_text("other")
        assert run("rewind", tree, "--yes", "--to", "#1", "--path", path).status == 0, path
        assert (tree / "src/a.py").read_text() == "print(1)\n"
        assert (tree / "b").read_text() == "other"


def test_a_path_that_is_nowhere_takes_no_safety_capture(run, tree) -> None:
    run("capture", tree)
    (tree / "b").write_text("other")
    assert run("rewind", tree, "--yes", "--path", "nope").status == 3
    assert len(run("rewind", tree, "--list", "--json").lines) == 1


def test_what_the_newest_capture_holds_is_undone_by_it(run, tree) -> None:
    run("capture", tree)
    (tree / "b").write_text("other")
    newest = run("capture", tree, "--json").document["id"]
    done = run("rewind", tree, "--to", "1", "--path", "b", "--yes")
    assert done.out.splitlines()[-2:] == [
        f"{tree} is as in {run('rewind', tree, '--list', '--json').lines[-1]['id']}: 1 changed.",
        f"To undo this: ckptlog rewind --to {newest} {tree}",
    ]
    again = run("rewind", tree, "--to", "1", "--path", "b", "--yes")
    assert again.out.splitlines()[-1].endswith(": nothing changed.")
    document = run("rewind", tree, "--to", newest, "--yes", "--json").document
    assert document["safety"] is None
    assert document["undo"] == run("rewind", tree, "--list", "--json").lines[0]["id"]


def test_attributes_that_came_later_are_removed(run, tree) -> None:
    def held():
        return {one: os.getxattr(tree / "b", one) for one in os.listxattr(tree / "b")}

    run("capture", "--xattrs", tree)
    try:
        os.setxattr(tree / "b", "user.late", b"1")
    except OSError:
        pytest.skip("this file system has no attributes")
    assert "nothing to change" in run("rewind", "--dry-run", tree).out
    told = run("rewind", "--xattrs", "--dry-run", tree).out
    assert told.splitlines() == ["~ b", "1 to change; 0 B to write."]
    done = run("rewind", "--xattrs", "--yes", tree)
    assert (done.status, held()) == (0, {}), done.err
    undo = done.out.splitlines()[-1].removeprefix("To undo this: ckptlog ")
    assert run(*undo.split(), "--yes").status == 0
    assert held() == {"user.late": b"1"}


def test_many_changes_are_told_in_short(run, tree) -> None:
    for number in range(60):
        (tree / f"f{number:02}").write_text("old")
    run("capture", tree)
    for number in range(60):
        (tree / f"f{number:02}").write_text("new")
    lines = run("rewind", tree, "--yes").out.splitlines()
    assert sum(line.startswith("~ ") for line in lines) == 40
    assert "... and 20 more; --json lists all" in lines


def test_a_mount_point_is_named_also_where_nothing_changed(tmp_path, run):
    root = tmp_path / "root"
    (root / "left_out").mkdir(parents=True)
    (root / "sub").mkdir()
    (root / ".ckptlogignore").write_text("left_out\n")
    with mounted(root / "sub" / "m", 1 << 20) as inside, mounted(root / "left_out" / "m", 1 << 20):
        (inside / "deep" / "deeper").mkdir(parents=True)
        with mounted(inside / "inner", 1 << 20):
            for is_captured in (True, False):
                document = run("capture", root, "--json").document
                assert (document["captured"], document["mounts"]) == (is_captured, ["sub/m"])
            assert "another file system or mount: sub/m (a rewind" in run("capture", root).err
            (inside / "deep" / "new").touch()  # only what changed is listed again
            document = run("capture", root, "--json").document
            assert (document["captured"], document["mounts"]) == (True, ["sub/m"])
    document = run("capture", root, "--json").document
    assert document["mounts"] == []


def test_a_mount_of_the_same_file_system_is_named_too(tmp_path, run):
    root, other = tmp_path / "a root", tmp_path / "other"
    for folder in (root / "left_out", root / "bound", other / "inner"):
        folder.mkdir(parents=True)
    for file in (root / "one", other / "file"):
        file.touch()
    (root / ".ckptlogignore").write_text("left_out\n")
    with (
        bound(other, root / "bound"),
        bound(other / "inner", root / "bound" / "inner"),
        bound(other, root / "left_out"),
        bound(other / "file", root / "one"),
    ):
        for _ in range(2):
            assert run("capture", root, "--json").document["mounts"] == ["bound", "one"]
    assert run("capture", root, "--json").document["mounts"] == []


def test_a_time_before_all_captures_says_which_is_the_first(run, tree):
    run("capture", tree)
    first = run("rewind", tree, "--list", "--json").lines[0]["created_at"]
    ran = run("rewind", tree, "--to", "2001-01-01")
    assert ran.status == 3
    assert "the first is of " in ran.err
    assert first[:19] in ran.err
    assert "the first is of " in run("rewind", tree, "--to", "5").err


@pytest.mark.parametrize(("given", "is_told"), [("yesterday", True), ("#7", False)])
def test_what_is_no_capture_may_have_been_meant_as_a_time(run, tree, given, is_told):
    run("capture", tree)
    found = run("rewind", tree, "--to", given)
    assert found.status == 3
    assert ("15m" in found.err) is is_told
