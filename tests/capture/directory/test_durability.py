"""All of a rewind is on the medium when it returns, by what POSIX promises and nothing more.

A file system with a journal forgives: ext4 puts every name and mode on the medium with the next
sync, whatever is synced. So each call is entered in a ledger instead: what was changed of which
inode, and what was synced since. Real power cuts: tests/faults/test_rewind_cut.py.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ckptlog import CheckpointManager
from ckptlog.capture.directory.scan import STAGING
from ckptlog.capture.directory.workspace import Workspace
from tools.crash.bug import replaced
from tools.rewind_cut import BUGS, picture, version


class Ledger:
    """What was done to files and folders, by inode.

    unsynced: Inodes whose content or mode was changed, and not synced since, with what it was.
    names: Folders in which a name was changed, and that were not synced since.
    early: Files that took their place before they were synced.
    """

    def __init__(self) -> None:
        self.unsynced: dict[int, str] = {}
        self.names: dict[int, str] = {}
        self.early: list[str] = []

    def fsync(self, real: Any, fd: int) -> None:
        real(fd)
        inode = os.fstat(fd).st_ino
        self.unsynced.pop(inode, None)
        self.names.pop(inode, None)

    def write(self, real: Any, fd: int, *arguments: Any) -> Any:
        self.unsynced[os.fstat(fd).st_ino] = "content"
        return real(fd, *arguments)

    def chmod(self, real: Any, path: Any, *arguments: Any, **options: Any) -> None:
        real(path, *arguments, **options)
        where = {key: one for key, one in options.items() if key in {"dir_fd", "follow_symlinks"}}
        found = os.stat(path, **where)
        if not stat.S_ISLNK(found.st_mode):  # nobody can sync a link
            self.unsynced[found.st_ino] = f"mode or time of {path}"

    def put(self, real: Any, name: str, *arguments: Any, dir_fd: int, **options: Any) -> None:
        """Enter mkdir, rmdir, unlink and symlink."""
        real(name, *arguments, dir_fd=dir_fd, **options)
        if name != STAGING:  # that it is left, or gone, hurts nobody
            self.names[os.fstat(dir_fd).st_ino] = name

    def rename(self, real: Any, old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        found = os.stat(old, dir_fd=src_dir_fd, follow_symlinks=False)
        if stat.S_ISREG(found.st_mode) and found.st_ino in self.unsynced:
            self.early.append(f"{new}: {self.unsynced[found.st_ino]}")
        real(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        self.names[os.fstat(src_dir_fd).st_ino] = self.names[os.fstat(dst_dir_fd).st_ino] = new

    def open(self, root: Path) -> list[str]:
        """Return what of a tree is not on the medium."""
        inodes = {path.lstat().st_ino for path in (root, *root.rglob("*"))}
        left = {**self.names, **self.unsynced}
        return sorted({what for inode, what in left.items() if inode in inodes})


@contextmanager
def kept(ledger: Ledger) -> Iterator[None]:
    """Have every call of the block entered."""
    entries = {"fsync": ledger.fsync, "write": ledger.write, "rename": ledger.rename}
    entries |= dict.fromkeys(("chmod", "fchmod", "utime", "setxattr"), ledger.chmod)
    entries |= dict.fromkeys(("mkdir", "rmdir", "unlink", "symlink"), ledger.put)

    def entered(name: str) -> Any:
        real, entry = getattr(os, name), entries[name]

        def call(*arguments: Any, **options: Any) -> Any:
            if name in {"mkdir", "rmdir", "unlink", "symlink"} and "dir_fd" not in options:
                return real(*arguments, **options)  # the store's
            if name == "rename" and "src_dir_fd" not in options:
                return real(*arguments, **options)
            return entry(real, *arguments, **options)

        return call

    with replaced({(os, name): entered(name) for name in entries}):
        yield


def rewound(folder: Path, bug: str) -> tuple[Ledger, list[str]]:
    """Return the ledger of a rewind, and what it leaves open."""
    root, pictures = folder / "tree", []
    ledger = Ledger()
    with CheckpointManager(folder / "store") as manager:
        space = Workspace(manager, root)
        for number in (0, 1):
            if number:
                root.rename(folder / "old")
            root.mkdir()
            version(root, number)
            pictures.append(picture(root))
            if not number:
                space.capture()
        with kept(ledger), replaced(BUGS[bug] if bug else {}):
            done = space.rewind(space.find("#1"))
    assert picture(root) == pictures[0]
    assert {step.kind for step in done.steps} == {"add", "change", "remove"}
    return ledger, ledger.open(root)


def test_a_rewind_leaves_nothing_unsynced(tmp_path: Path) -> None:
    ledger, left = rewound(tmp_path, "")
    assert ledger.early == []
    assert left == []


@pytest.mark.parametrize("bug", list(BUGS))
def test_each_sync_that_is_left_out_is_seen(bug: str, tmp_path: Path) -> None:
    ledger, left = rewound(tmp_path, bug)
    assert bool(ledger.early) == (bug == "no_file_sync")
    assert left != []
