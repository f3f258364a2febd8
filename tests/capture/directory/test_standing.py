"""A restore from what was just captured does what one does that looks at everything."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptlog.blobs.tree_writer import TreeWriter
from ckptlog.capture.directory.component import DirectoryComponent
from ckptlog.capture.directory.standing import Difference
from ckptlog.errors import ChangedError, FormatError, NoSuchPartError
from tests.capture.directory.memory import Memory, Payload
from tests.capture.directory.picture import FAST, picture


def plant(root: Path, draw: random.Random, count: int) -> None:
    for number in range(count):
        path = root / f"d{number % 9}" / f"e{number % 4}" / f"file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw.randbytes(draw.choice([0, 30, 300, 3_000, 20_000])))
        os.utime(path, ns=(number, number))  # groups end where the entries say, always there


def edit(root: Path, draw: random.Random, serial: int) -> None:
    found = sorted(path for path in root.rglob("*") if not path.is_symlink())
    files, folders = [p for p in found if p.is_file()], [p for p in found if p.is_dir()]
    what = draw.choice(
        ["change", "change", "touch", "mode", "add", "remove", "move", "turn", "rules"]
    )
    if what == "add" or not files or not folders:
        root.joinpath(f"d{serial % 9}").mkdir(exist_ok=True)
        (root / f"d{serial % 9}" / f"new{serial}").write_text("new" * serial)
    elif what == "change":
        draw.choice(files).write_bytes(draw.randbytes(serial))
    elif what == "touch":
        os.utime(draw.choice(files), ns=(serial, serial))
    elif what == "mode":
        draw.choice(found).chmod(draw.choice([0o700, 0o755, 0o750]))
    elif what == "remove":
        path = draw.choice(found)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif what == "move":
        draw.choice(found).rename(root / f"moved{serial}")
    elif what == "turn":
        path = draw.choice(files)
        path.unlink()
        path.mkdir()
        (path / "in").write_text("in")
    else:
        (draw.choice(folders) / ".gitignore").write_text(f"new{serial}\n#{serial}\n")


class Tree:
    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.folder = Path(tempfile.mkdtemp(dir=FAST))
        self.root = self.folder / "root"
        self.memory = Memory()
        self.component = DirectoryComponent("directory", self.root, index=self.folder / "index")
        self.last: Payload | None = None
        self.serial = 0
        plant(self.root, self.draw, 160)

    def edit(self, count: int) -> None:
        for _ in range(count):
            self.serial += 1
            edit(self.root, self.draw, self.serial)

    def capture(self) -> Payload:
        self.last = self.memory.capture(self.component, self.last)
        return self.last


@given(st.integers(0, 10**9), st.integers(0, 6), st.integers(0, 6))
@settings(max_examples=30, deadline=None)
def test_the_same_steps_as_of_a_whole_comparison(seed: int, before: int, after: int) -> None:
    tree = Tree(seed)
    try:
        tree.edit(before)
        time.sleep(0.03)
        target = tree.capture()
        expected = picture(tree.root)
        tree.edit(after)
        with tree.component.tracking(target):
            tree.capture()
        plan = tree.component.plan(target)
        done = tree.component.restore_paths(target, saved=tree.component.last)
        assert sorted((one.kind, one.path) for one in plan.changes) == sorted(
            (step.kind, step.path) for step in done
        )
        found = picture(tree.root)
        assert {path: found.get(path) for path in expected} == expected
        assert tree.component.plan(target).changes == ()
    finally:
        shutil.rmtree(tree.folder)


@pytest.fixture
def tree():
    made = Tree(7)
    time.sleep(0.03)
    yield made
    shutil.rmtree(made.folder)


def test_what_both_have_is_not_read(tree: Tree) -> None:
    target = tree.capture()
    (tree.root / "d3/e0/file12").write_text("changed")
    tree.capture()
    reads = []

    def read(digest: bytes, domain: int) -> bytes:
        reads.append(digest)
        return tree.memory.read(digest, domain)

    whole = len(target.entries())
    found = Difference(Payload(target.reference, read), tree.component.last.standing)
    assert "d3/e0/file12" in found.manifest.entries
    assert len(found.manifest.entries) < whole * 3 / 4
    assert len(set(found.shared_paths())) == whole - len(found.manifest.entries)
    assert len(reads) < 12
    assert sorted({*found.manifest.entries, *found.shared_paths()}) == sorted(target.entries())


def test_a_path_that_was_changed_behind_the_capture_is_not_overwritten(tree: Tree) -> None:
    target = tree.capture()
    path = tree.root / "d3/e0/file12"
    path.write_text("saved")
    tree.capture()
    path.write_text("in no capture")
    with pytest.raises(ChangedError):
        tree.component.restore_paths(target, saved=tree.component.last)
    assert path.read_text() == "in no capture"


def test_named_paths(tree: Tree) -> None:
    target = tree.capture()
    one, other = tree.root / "d3/e0/file12", tree.root / "d4/e1/file13"
    before = one.read_bytes()
    one.write_text("one")
    other.write_text("other")
    tree.capture()
    saved = tree.component.last
    with pytest.raises(NoSuchPartError):
        tree.component.restore_paths(target, ["d3/nowhere"], saved=saved)
    assert tree.component.restore_paths(target, ["d5"], saved=saved) == []
    done = tree.component.restore_paths(target, ["d3/e0"], saved=saved)
    assert [step.path for step in done] == ["d3/e0/file12"]
    assert one.read_bytes() == before
    assert other.read_text() == "other"


def test_an_entry_without_its_directory_is_refused(tree: Tree) -> None:
    tree.capture()
    entry = b'{"type":"file","mode":420,"mtime":0,"size":1,"content":"x"}'
    head = b'{"format":1,"kind":"directory","mode":493,"entries":{"%b":' + entry + b"}}"
    saved = tree.component.last
    for path in (b"d3/e9/x", b"../x", b".ckptlog-rewind/x", b".git/x"):
        hostile = tree.memory.payload(head % path)
        with pytest.raises(FormatError):
            tree.component.restore_paths(hostile, saved=saved)
    assert (tree.root / "d3/e0/file12").exists()


def test_content_that_moved_is_not_stored_again(tree: Tree, monkeypatch) -> None:
    path = tree.root / "d3/e0/file12"
    path.write_bytes(b"x" * 20_000)
    tree.capture()
    path.rename(tree.root / "d3/e0/other")
    (tree.root / "copy").write_bytes(b"x" * 20_000)
    (tree.root / "new").write_bytes(b"y" * 20_000)
    stored = []

    def raw(self, data):
        stored.append(b"".join(data))
        return plain(self, [stored[-1]])

    plain = TreeWriter.raw
    monkeypatch.setattr(TreeWriter, "raw", raw)
    captured = tree.capture()
    assert stored == [b"y" * 20_000]
    for name in ("copy", "d3/e0/other"):
        assert captured.manifest().whole(captured.entries()[name]) == b"x" * 20_000


def test_an_index_is_written_anew_where_much_was_listed_again(tree: Tree) -> None:
    for number in range(40):
        (tree.root / f"g{number}").mkdir()
        (tree.root / f"g{number}/a").write_text("a")
    (tree.root / ".gitignore").write_text("*.o\n")
    time.sleep(0.03)
    first = tree.capture()
    for number in range(40):
        (tree.root / f"g{number}/a.o").write_text("left out")
    assert tree.capture().reference == first.reference
    assert len(tree.component.last.found.directories) >= 40
    again = tree.capture()
    assert again.reference == first.reference
    assert tree.component.last.found.directories == {}
    (tree.root / "g7/a").write_text("changed")
    assert tree.capture().manifest().whole(tree.last.entries()["g7/a"]) == b"changed"
