"""User attributes: what came, went or changed since a capture is as it was after a restore."""

from __future__ import annotations

import os

import pytest

from ckptlog import CheckpointManager
from ckptlog.capture.capturer import Capturer
from ckptlog.capture.directory import manifest, snapshot, stage
from ckptlog.capture.directory.component import DirectoryComponent
from ckptlog.capture.directory.entry import Content, Entry, checked
from ckptlog.capture.directory.scan import Options
from ckptlog.capture.directory.workspace import Workspace
from ckptlog.errors import CheckpointStorageError, FormatError
from ckptlog.recovery.recovery import Recovery

WITH = Options(has_attributes=True)
NAMES = ("added", "changed", "removed", "odd", "closed", "twin", "long")


def give(root, path, **values):
    for name, value in values.items():
        os.setxattr(root / path, f"user.{name}", value)


def held(root):
    return {
        path.name: {name: os.getxattr(path, name) for name in os.listxattr(path)}
        for path in sorted(root.iterdir())
    }


@pytest.fixture
def tree(tmp_path):
    """A tree with attributes; `stir` changes them all."""
    root = tmp_path / "root"
    root.mkdir()
    for name in NAMES:
        (root / name).write_text(name * (900 if name == "long" else 1))
    os.link(root / "twin", root / "twin2")
    try:
        give(root, "changed", k=b"v", l=b"")
    except OSError:
        pytest.skip("this file system has no attributes")
    give(root, "removed", k=b"\xff\x00")
    os.setxattr(root / "odd", b"user.100%\xff$", b"odd")
    (root / "closed").chmod(0o400)
    return root


def stir(root):
    give(root, "added", k=b"new")
    give(root, "changed", k=b"w", m=b"more")
    os.removexattr(root / "removed", "user.k")
    give(root, "odd", more=b"1")
    give(root, "closed", k=b"1")
    give(root, "twin", k=b"1")
    give(root, "long", k=b"1")


@pytest.fixture
def system(tmp_path, tree):
    component = DirectoryComponent("w", tree, options=WITH)
    with CheckpointManager(tmp_path / "store") as manager:
        yield Capturer(manager, "s", [component]), component


@pytest.mark.parametrize("how", ["recover", "restore", "fast", "anew"])
def test_all_are_as_they_were(system, tree, how, tmp_path) -> None:
    capturer, component = system
    info = capturer.capture()
    before = held(tree)
    assert component.plan(capturer.stored(info)["w"]).summary == "nothing to change"
    stir(tree)
    assert held(tree) != before
    expected = {*NAMES, "twin2"}
    stored = capturer.stored(info)["w"]
    assert {one.path for one in component.plan(stored).changes} == expected
    if how == "recover":
        Recovery(capturer).recover(info.id)
    elif how == "restore":
        component.restore(stored)
    elif how == "fast":
        capturer.capture()
        made = component.restore_paths(stored, saved=component.last)
        assert {step.path for step in made} == expected
    else:
        component.restore_paths(stored, to=tmp_path / "other")
        tree = tmp_path / "other"
    assert held(tree) == before
    if how != "anew":
        assert component.plan(stored).changes == ()
        assert capturer.capture().digest == info.digest


def untold(monkeypatch):
    """Capture as versions did that did not say in a capture whether it has attributes."""
    whole = snapshot.DirectorySnapshot._write

    def write(self, writer, listing, reading):
        self._options = Options()
        return whole(self, writer, listing, reading)

    monkeypatch.setattr(snapshot.DirectorySnapshot, "_write", write)


@pytest.mark.parametrize("is_fast", [False, True])
@pytest.mark.parametrize("kind", ["older", "without", "by one without"])
def test_where_nobody_looked_nothing_is_removed(system, tree, kind, is_fast, monkeypatch) -> None:
    capturer, component = system
    plain = DirectoryComponent("w", tree)
    os.removexattr(tree / "removed", "user.k")
    if kind == "older":
        untold(monkeypatch)
        info = capturer.capture()
        monkeypatch.undo()
    elif kind == "without":
        info = Capturer(capturer.manager, "s", [plain]).capture()
    else:
        info = capturer.capture()
        capturer, component = Capturer(capturer.manager, "s", [plain]), plain
    give(tree, "added", k=b"new")
    give(tree, "closed", k=b"new")
    (tree / "closed").chmod(0o600)
    saved = None
    if is_fast:
        capturer.capture()
        saved = component.last
    component.restore_paths(capturer.stored(info)["w"], saved=saved)
    assert held(tree)["added"] == held(tree)["closed"] == {"user.k": b"new"}
    assert (tree / "closed").stat().st_mode & 0o777 == 0o400


def test_what_an_older_version_left_is_captured_anew(tmp_path, tree, monkeypatch) -> None:
    """Its index named a root that does not say that attributes were looked at."""
    with CheckpointManager(tmp_path / "store") as manager:
        workspace = Workspace(manager, tree, options=WITH)
        with monkeypatch.context() as patch:
            untold(patch)
            patch.setattr("ckptlog.capture.directory.index_file._options_text", ascii)
            first = workspace.capture()
        second = Workspace(manager, tree, options=WITH).capture()
        assert not manifest.load(workspace.stored(first)).has_attributes
        assert manifest.load(workspace.stored(second)).has_attributes
        assert workspace.capture() is None


def test_a_capture_without_them_says_nothing_of_them(tmp_path, tree) -> None:
    with CheckpointManager(tmp_path / "store") as manager:
        workspace = Workspace(manager, tree)
        assert "attributes" not in workspace.stored(workspace.capture()).value()


def test_they_are_taken_back_when_a_step_fails(system, tree, monkeypatch) -> None:
    capturer, component = system
    info = capturer.capture()
    stir(tree)
    after = held(tree)
    whole = stage.Stage.put

    def fail(self, staged, name, directory):
        if name == "twin2":
            raise OSError(28, "No space left on device")
        return whole(self, staged, name, directory)

    monkeypatch.setattr(stage.Stage, "put", fail)
    with pytest.raises(CheckpointStorageError):
        component.restore(capturer.stored(info)["w"])
    assert held(tree) == after
    assert (tree / "closed").stat().st_mode & 0o777 == 0o400


@pytest.mark.parametrize("name", ["security.capability", "trusted.x", "user.\0"])
def test_no_capture_sets_others_than_the_users(name) -> None:
    entry = Entry("file", attributes={name: Content("")})
    with pytest.raises(FormatError, match="not the user's"):
        checked("a", entry)
