"""Small files that are there whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from ckptlog.errors import CheckpointStorageError, FullError
from ckptlog.storage.tree import NEW, Tree


@pytest.fixture
def tree(tmp_path):
    tree = Tree(tmp_path / "t")
    tree.prepare(["a", "b"])
    return tree


def test_put_read_remove(tree):
    assert tree.read("a/x") is None
    tree.put("a/x", b"one")
    tree.put("a/x", b"two")
    assert tree.read("a/x") == b"two"
    assert tree.names("a") == ["x"]
    assert tree.names(NEW) == []
    tree.remove("a/x")
    tree.remove("a/x")
    tree.remove("a/x/y")
    assert tree.names("a") == []
    assert tree.names("nowhere") == []
    assert tree.names("nowhere/deeper") == []


def test_prepare_twice(tree):
    tree.put("a/x", b"one")
    tree.prepare(["a", "b", "c/d"])
    assert tree.read("a/x") == b"one"
    assert sorted(tree.names("")) == [NEW, "a", "b", "c"]


def test_a_link_in_the_place_of_a_folder_is_not_followed(tree, tmp_path):
    (tmp_path / "outside").mkdir()
    os.rmdir(tmp_path / "t" / "a")
    (tmp_path / "t" / "a").symlink_to(tmp_path / "outside")
    tree.prepare(["a"])
    tree.put("a/x", b"one")
    assert list((tmp_path / "outside").iterdir()) == []
    assert tree.read("a/x") == b"one"


def test_a_link_in_the_place_of_a_file_is_replaced(tree, tmp_path):
    (tmp_path / "precious").write_bytes(b"keep")
    (tmp_path / "t" / "a" / "x").symlink_to(tmp_path / "precious")
    tree.put("a/x", b"one")
    assert (tmp_path / "precious").read_bytes() == b"keep"
    assert not (tmp_path / "t" / "a" / "x").is_symlink()


def test_failures_leave_the_old_file_and_nothing_beside(tree, tmp_path, monkeypatch):
    tree.put("a/x", b"one")
    (tmp_path / "t" / "a" / "folder").mkdir()
    with pytest.raises(CheckpointStorageError):
        tree.put("a/folder", b"two")
    with pytest.raises(CheckpointStorageError):
        tree.put("missing/x", b"two")
    with pytest.raises(CheckpointStorageError):
        tree.remove("a/folder")

    def full(fd, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(FullError):
        tree.put("a/x", b"two")
    monkeypatch.undo()
    assert tree.read("a/x") == b"one"
    assert tree.names(NEW) == []


def test_short_writes_are_gone_on_with(tree, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data[:3])))
    tree.put("a/x", b"0123456789")
    tree.put("a/empty", b"")
    monkeypatch.undo()
    assert tree.read("a/x") == b"0123456789"
    assert tree.read("a/empty") == b""


def test_a_stamp_changes_with_the_file(tree):
    assert tree.stamp("a/x") is None
    tree.put("a/x", b"one")
    before = tree.stamp("a/x")
    assert tree.stamp("a/x") == before
    tree.put("a/x", b"two")
    assert tree.stamp("a/x") != before


WRITER = """
import sys
from pathlib import Path
from ckptlog.storage.tree import Tree
tree = Tree(Path(sys.argv[1]))
print("ready", flush=True)
number = 0
while True:
    number += 1
    tree.put("a/x", (b"%d " % number) * 50_000)
"""


def test_a_killed_writer_leaves_whole_files(tree):
    before = None
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tree.root)], stdout=subprocess.PIPE
        ) as process:
            process.stdout.readline()
            while tree.read("a/x") == before:
                pass
            process.send_signal(signal.SIGKILL)
        before = tree.read("a/x")
        number = before.split(b" ", 1)[0]
        assert before == (number + b" ") * 50_000
        assert tree.names("a") == ["x"]


def test_sizes_and_dropping(tree, tmp_path):
    tree.put("a/x", b"12345")
    tree.put("a/y", b"123")
    tree.put("b/x", b"1")
    tree.put("a/.hidden", b"1234567")
    (tmp_path / "t" / "a" / "link").symlink_to("x")
    assert tree.size_bytes(["a"]) == 8
    assert tree.size_bytes(["a", "b", "", "nowhere"]) == 9
    tree.drop("b")
    tree.drop("b")
    assert sorted(tree.names("")) == [NEW, "a"]
