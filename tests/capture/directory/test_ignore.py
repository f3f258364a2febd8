"""Ignore rules beside `git check-ignore` itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptlog.capture.directory.ignore import parse
from ckptlog.capture.directory.scan import Options, scan

GIT = shutil.which("git")
needs_git = pytest.mark.skipif(GIT is None, reason="git is not installed")


def git(root: Path, *words: str, given: bytes = b"") -> bytes:
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(root),
        "GIT_CONFIG_NOSYSTEM": "1",
        "XDG_CONFIG_HOME": str(root / "none"),
    }
    done = subprocess.run(
        [GIT, "-C", str(root), *words], input=given, capture_output=True, env=environ, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def git_tree(root: Path) -> set[bytes]:
    """Return the files that `git add -A` would take."""
    out = git(root, "ls-files", "-z", "--others", "--exclude-standard")
    return {name for name in out.split(b"\0") if name}


def our_tree(root: Path) -> set[bytes]:
    found = scan(root, Options())
    return {os.fsencode(path) for path, row in found.paths() if row[1] & 0o170000 != 0o040000}


def plant(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


CASES = {
    "names": (
        "*.pyc\nbuild/\n/top\nsub/deep.txt\n",
        [
            "a.pyc",
            "x/a.pyc",
            "build/a",
            "x/build/b",
            "top",
            "x/top",
            "sub/deep.txt",
            "x/sub/deep.txt",
            "keep",
        ],
    ),
    "negation": (
        "*.log\n!keep.log\n/logs/\n!/logs/keep.log\n",
        ["a.log", "keep.log", "x/keep.log", "logs/keep.log", "logs/b"],
    ),
    "stars": (
        "**/foo\nabc/**\na/**/z\nb/**x\n***/q\n/*/w\n",
        [
            "foo",
            "x/foo",
            "x/y/foo",
            "abc/a",
            "abc/d/e",
            "abcd",
            "a/z",
            "a/b/z",
            "a/b/c/z",
            "b/x",
            "b/yx",
            "b/y/x",
            "q",
            "k/q",
            "k/w",
            "w",
        ],
    ),
    "brackets": (
        "[ab].t\n[!a]?.u\n[a-c]1\n[]x]y\n[[:digit:]]z\n[\\]]v\n[b-a]n\n[a\n[[:nope:]]m\n",
        [
            "a.t",
            "c.t",
            "ab.u",
            "bb.u",
            "b1",
            "d1",
            "]y",
            "xy",
            "zy",
            "3z",
            "az",
            "]v",
            "bn",
            "an",
            "[a",
            "am",
        ],
    ),
    "escapes": (
        "\\#a\n\\!b\n#c\nd\\ \ne   \nf\\\n\\*g\nh\\?\n",
        ["#a", "!b", "#c", "d ", "d", "e", "e ", "f", "f\\", "*g", "xg", "h?", "hx"],
    ),
    "line ends": ("a\r\n\ufeffb\n\nc \t\nd\t\n", ["a", "b", "c", "c \t", "d", "d\t"]),
    "bytes": ("?\n[é]x\né*\n", ["a", "é", "éx", "éa", "x/b"]),
    "slashes": (
        "/\n//\na//b\nc/\n/d/\ne/f/\n./g\n",
        ["a/b", "c", "x/c/k", "d/k", "x/d/k", "e/f/k", "x/e/f/k", "g"],
    ),
    "whole": ("*\n!*/\n!*.txt\n", ["a", "b.txt", "c/d", "c/e.txt"]),
    "newline": ("*b\n", ["a\nb", "x/a\nb"]),
}


@needs_git
@pytest.mark.parametrize("name", CASES)
def test_the_same_files_as_git(name: str, tmp_path: Path) -> None:
    rules, files = CASES[name]
    git(tmp_path, "init", "-q")
    for file in files:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (tmp_path / ".gitignore").write_text(rules, newline="")
    assert our_tree(tmp_path) == git_tree(tmp_path)


@needs_git
def test_each_level_has_its_rules_and_the_deeper_one_is_asked_first(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    plant(
        tmp_path,
        {
            ".gitignore": "*.x\n/a/only\n",
            "a/.gitignore": "!keep.x\n/here\n",
            "a/keep.x": "",
            "a/other.x": "",
            "a/b/.gitignore": "keep.x\n",
            "a/b/keep.x": "",
            "a/here": "",
            "a/b/here": "",
            "a/only": "",
            "b/a/only": "",
            "here": "",
        },
    )
    (tmp_path / ".git/info").mkdir(exist_ok=True)
    (tmp_path / ".git/info/exclude").write_text("here\n!other.x\n")
    assert our_tree(tmp_path) == git_tree(tmp_path)


letters = st.sampled_from(
    ["a", "b", "/", "*", "**", "?", "[ab]", "[!a]", "!", "\\", "a*", ".", " ", "ab", "#", "[a-"]
)
lines = st.lists(st.lists(letters, min_size=1, max_size=5).map("".join), min_size=1, max_size=6)
NAMES = ["a", "b", "ab", "a.b", "a b", "ba", "#a", "!a", "aa"]


@needs_git
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(top=lines, below=lines)
def test_any_rules_leave_out_what_git_leaves_out(
    top: list[str], below: list[str], tmp_path: Path
) -> None:
    root = tmp_path / "tree"
    if not root.exists():
        root.mkdir()
        git(root, "init", "-q")
        for first in NAMES:
            for second in NAMES:
                plant(root, {f"{first}d/{second}d/{first}": "", f"{first}d/{second}": ""})
            (root / first).write_text("")
    (root / ".gitignore").write_text("\n".join(top))
    (root / "ad" / ".gitignore").write_text("\n".join(below))
    assert our_tree(root) == git_tree(root)


def test_our_own_file_is_asked_before_gits(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {".gitignore": "*.a\n", ".ckptlogignore": "!x.a\n*.b\n", "x.a": "", "y.a": "", "z.b": ""},
    )
    assert our_tree(tmp_path) == {b".gitignore", b".ckptlogignore", b"x.a"}


def test_rules_can_be_left_alone(tmp_path: Path) -> None:
    plant(tmp_path, {".gitignore": "*\n", "x": ""})
    found = scan(tmp_path, Options(has_rules=False, patterns=("y",)))
    assert [path for path, _ in found.paths()] == [".gitignore", "x"]
    assert scan(tmp_path, Options()).left_out == 2


def test_tracked_paths_are_never_left_out(tmp_path: Path) -> None:
    plant(tmp_path, {".gitignore": "d/\n", "d/e/x": "", "d/e/y": "", "d/z": ""})
    found = scan(tmp_path, Options(), lambda: {"d/e/x"})
    assert [path for path, _ in found.paths()][1:] == ["d", "d/e", "d/e/x"]


def test_lines_that_match_nothing_are_no_patterns() -> None:
    assert parse(b"\n#x\n/\n[a\nb\\\n[[:nope:]]\n  \n") == []
