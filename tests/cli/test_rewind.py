"""`ckptlog capture` and `ckptlog rewind`."""

from __future__ import annotations

import io
import shutil
import sys

import pytest

from ckptlog.cli.main import main


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
    assert run("rewind", tree, "--to", done["safety"]["id"]).status == 0
    assert (tree / "new").read_text() == "n"
    listed = run("rewind", tree, "--list", "--json").lines
    assert [one["reason"] for one in listed] == ["safety", "safety", "manual"][-len(listed) :]
    assert first["id"] in run("rewind", tree, "--list").out


def test_back_by_number_time_and_id(run, tree) -> None:
    for version in range(3):
        (tree / "b").write_text(f"{version}")
        run("capture", tree)
    for to, expected in (("1", "1"), ("2 back", "0"), ("#2", "1"), ("0s", "2")):
        assert run("rewind", tree, "--to", to, "--path", "b").status == 0, to
        assert (tree / "b").read_text() == expected, to
    assert run("rewind", tree, "--to", "9").status == 3
    assert run("rewind", tree, "--to", "no-such-id").status == 3
    assert run("rewind", tree, "--to", "1", "--path", "none").status != 0


def test_elsewhere_and_unknown_files(run, tree, tmp_path) -> None:
    run("capture", tree)
    (tree / "new").write_text("n")
    assert run("rewind", tree, "--out", tmp_path / "out").status == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["b", "src"]
    assert run("rewind", tree, "--keep-unknown").status == 0
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
