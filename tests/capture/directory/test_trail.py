"""A restore knows its own changes of hard links, and takes back what it did when a step fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ckptlog.capture.directory import restoration as restoring
from ckptlog.capture.directory.component import DirectoryComponent
from ckptlog.capture.directory.scan import Options
from ckptlog.capture.directory.stage import STAGING, Stage
from ckptlog.capture.directory.trail import Trail
from ckptlog.errors import ChangedError, CheckpointStorageError
from tests.capture.directory.memory import Memory
from tests.capture.directory.picture import picture


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    made.mkdir()
    return made


@pytest.fixture
def memory() -> Memory:
    return Memory()


# --- hard links ----------------------------------------------------------------------------------


def test_all_names_of_one_file_come_back(root, memory) -> None:
    (root / "a").write_text("one")
    for name in "bcdefg":
        os.link(root / "a", root / name)
    component = DirectoryComponent("directory", root)
    stored = memory.capture(component)
    (root / "a").write_text("twoo")
    component.restore(stored)
    assert {(root / name).read_text() for name in "abcdefg"} == {"one"}
    assert memory.capture(component).reference == stored.reference


def test_a_link_that_was_made_after_the_capture_goes(root, memory, tmp_path) -> None:
    (root / "m").write_text("one")
    (root / "n").write_text("other")
    component = DirectoryComponent("directory", root)
    stored = memory.capture(component)
    os.link(root / "m", root / "a")
    os.link(root / "m", root / "z")
    os.link(root / "m", tmp_path / "outside")
    (root / "n").unlink()
    os.link(root / "m", root / "n")
    (root / "m").write_text("twoo")
    component.restore(stored)
    assert memory.capture(component).reference == stored.reference
    assert (tmp_path / "outside").read_text() == "twoo"


def test_a_mode_is_given_to_one_name_only(root, memory, tmp_path) -> None:
    for name, mode in (("a", 0o644), ("b", 0o600)):
        (root / name).write_text("same")
        (root / name).chmod(mode)
        os.utime(root / name, ns=(5, 5))
    component = DirectoryComponent("directory", root)
    stored = memory.capture(component)
    (root / "b").unlink()
    os.link(root / "a", root / "b")
    os.link(root / "a", tmp_path / "outside")
    component.restore(stored)
    assert memory.capture(component).reference == stored.reference
    assert (tmp_path / "outside").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("moment", ["before", "between"])
def test_another_program_that_writes_through_a_link_is_seen(
    moment, root, memory, monkeypatch
) -> None:
    for name in "ab":
        (root / name).write_text("one")
    component = DirectoryComponent("directory", root)
    stored = memory.capture(component)
    (root / "b").unlink()
    (root / "a").write_text("twoo")
    os.link(root / "a", root / "b")
    put, seen = Stage.put, []

    def then_write(self, staged, name, folder):
        if moment == "between":
            done = put(self, staged, name, folder)
        if not seen:
            seen.append(name)
            (root / "b").write_text("theirs")
        return done if moment == "between" else put(self, staged, name, folder)

    monkeypatch.setattr(Stage, "put", then_write)
    with pytest.raises(ChangedError, match=r"^b was changed"):
        component.restore(stored)
    assert (root / "b").read_text() == "theirs"


# --- taking back ---------------------------------------------------------------------------------


@pytest.fixture
def changed(root, memory):
    """A capture, and a tree in which everything there is was changed."""
    for name in ("a", "c", "d/e/f", "g/h", "i", "k"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"old {name}")
    (root / "link").symlink_to("a")
    stored = memory.capture(
        DirectoryComponent("directory", root, options=Options(has_attributes=True))
    )
    for name in ("a", "c", "k"):
        (root / name).write_text(f"new {name} as well")
    (root / "d/e/f").unlink()
    (root / "d/e").rmdir()
    (root / "d/e").write_text("a file")
    (root / "d").chmod(0o500)
    (root / "g/h").unlink()
    (root / "g").rmdir()
    (root / "i").unlink()
    (root / "i").mkdir()
    (root / "i/j").write_text("j")
    (root / "i").chmod(0o500)
    (root / "link").unlink()
    (root / "link").symlink_to("c")
    (root / "new/below").mkdir(parents=True)
    (root / "new/below/z").write_text("z")
    (root / "k").chmod(0o600)
    os.link(root / "a", root / "z")
    return stored


class Stop(BaseException):
    """As Ctrl-C is."""


@pytest.mark.parametrize("kind", [OSError, Stop])
def test_whatever_step_fails_all_is_as_it_was(kind, root, memory, changed, monkeypatch) -> None:
    component = DirectoryComponent("directory", root, options=Options(has_attributes=True))
    before, inodes = picture(root), _inodes(root)
    count = len(component.plan(changed).changes)
    assert count >= 12
    whole = restoring.Restoration._open_folder
    fails = 0
    for number in range(1, 400):
        calls = 0

        def fail(self, path, number=number):
            nonlocal calls
            calls += self._is_begun and self._left is None
            if calls == number:
                calls += 1
                raise kind(5, "Input/output error")
            return whole(self, path)

        monkeypatch.setattr(restoring.Restoration, "_open_folder", fail)
        try:
            component.restore(changed)
        except (CheckpointStorageError, Stop) as error:
            fails += 1
            assert picture(root) == before, number
            assert _inodes(root) == inodes, number
            assert not os.path.lexists(root / STAGING)
            if not isinstance(error, Stop):
                assert "is as it was before" in error.hint
        else:
            break
    assert fails > count
    monkeypatch.undo()
    assert memory.capture(component).reference == changed.reference


def test_an_interrupt_right_behind_an_act_takes_that_back_too(
    root, memory, changed, monkeypatch
) -> None:
    """Ctrl-C that comes in a system call is raised as soon as that has returned."""
    component = DirectoryComponent("directory", root, options=Options(has_attributes=True))
    before, inodes = picture(root), _inodes(root)
    sync, close = Stage.sync, Stage.close
    seen: set[str] = set()
    left = None  # acts until the interrupt; None: nobody counts

    def begin(self):
        nonlocal left
        sync(self)
        left = number

    def end(self, *, is_done):
        nonlocal left
        left = None
        close(self, is_done=is_done)

    def interrupting(act, name):
        def done(*args, **options):
            nonlocal left
            found = act(*args, **options)
            if left is not None and {"dir_fd", "src_dir_fd"} & options.keys():
                left -= 1
                if left == 0:
                    left = None
                    seen.add(name)
                    raise Stop
            return found

        return done

    with monkeypatch.context() as patched:
        patched.setattr(Stage, "sync", begin)
        patched.setattr(Stage, "close", end)
        for name in ("rename", "mkdir", "rmdir", "link"):
            patched.setattr(os, name, interrupting(getattr(os, name), name))
        for number in range(1, 400):
            try:
                component.restore(changed)
            except Stop:
                assert picture(root) == before, number
                assert _inodes(root) == inodes, number
            else:
                break
    assert seen == {"rename", "mkdir", "rmdir", "link"}
    assert memory.capture(component).reference == changed.reference


def _inodes(root: Path) -> dict[str, int]:
    """Directories that were removed are made anew; files are the same files."""
    return {str(path): path.lstat().st_ino for path in sorted(root.rglob("*")) if not path.is_dir()}


def test_an_error_names_the_path(root, memory, monkeypatch) -> None:
    for name in "abcd":
        (root / name).write_text("old")
    component = DirectoryComponent("directory", root)
    stored = memory.capture(component)
    for name in "abcd":
        (root / name).write_text("newer")
    put = Stage.put

    def refuse(self, staged, name, folder):
        if name == "c" and self._waiting:
            raise PermissionError(1, "Operation not permitted", staged)
        return put(self, staged, name, folder)

    monkeypatch.setattr(Stage, "put", refuse)
    with pytest.raises(CheckpointStorageError, match=r"failed \(c\)") as caught:
        component.restore(stored)
    assert caught.value.context["path"] == "c"
    assert {(root / name).read_text() for name in "abcd"} == {"newer"}


def test_what_somebody_wrote_meanwhile_is_not_put_back(root, memory, monkeypatch) -> None:
    for name in "abc":
        (root / name).write_text("old")
    component = DirectoryComponent("directory", root)
    stored = memory.capture(component)
    for name in "abc":
        (root / name).write_text("newer")
    put = Stage.put

    def refuse(self, staged, name, folder):
        if name == "c":
            (root / "a").write_text("theirs")
            raise PermissionError(1, "Operation not permitted", staged)
        return put(self, staged, name, folder)

    monkeypatch.setattr(Stage, "put", refuse)
    with pytest.raises(CheckpointStorageError) as caught:
        component.restore(stored)
    assert "Not put back: a." in caught.value.hint
    assert [(root / name).read_text() for name in "abc"] == ["theirs", "newer", "newer"]


def test_a_directory_that_was_there_is_not_taken_back_as_made(root, monkeypatch) -> None:
    """An interrupt may come before a directory is made, too: one of the user's is not ours then."""
    (root / "mine").mkdir()

    def interrupted(*args, **options):
        raise Stop

    fd = os.open(root, os.O_RDONLY)
    try:
        trail = Trail(Stage(fd))
        with monkeypatch.context() as patched:
            patched.setattr(os, "mkdir", interrupted)
            with pytest.raises((Stop, FileExistsError)):
                trail.make("mine", "mine", fd)
        assert trail.take_back(lambda path: (fd, path)) == []
    finally:
        os.close(fd)
    assert (root / "mine").is_dir()
