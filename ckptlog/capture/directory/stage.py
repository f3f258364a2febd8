"""The staging directory of a restore: files are made whole in it, then renamed to their places.

It lies in the root itself, under a reserved name, so that it is of the same file system as what is
restored (a root is often a mount point, and what is above it not ours to write). No capture holds
it. A killed restore leaves it behind: the next one, or the next capture, removes it, and its being
there tells that a restore did not end.

What stands in the way of another type (a directory where a file shall be) is moved here, too, and
removed with the rest.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress

from ckptlog.capture.directory.batch import Batch
from ckptlog.capture.directory.entry import Entry
from ckptlog.capture.directory.scan import STAGING

_MADE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_PRIVATE_FILE = 0o600
_PRIVATE = 0o700
# Returns the content of an entry, piece by piece, checked.
Load = Callable[[Entry], Iterator[bytes]]


class Stage:
    """The open staging directory of one restore.

    Raises (every method): OSError; crosses at the restore's door.

    Threads: not safe.        Durability: `sync` puts everything that was made on the medium.
    """

    def __init__(self, root: int) -> None:
        clear(root)
        os.mkdir(STAGING, _PRIVATE, dir_fd=root)
        self._root = root
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self.fd = os.open(STAGING, flags, dir_fd=root)
        self._serial = 0
        self._waiting: set[str] = set()
        self._batch = Batch()
        self._is_begun = False

    def file(self, entry: Entry, load: Load) -> str:
        """Make a file, with its mode, time and attributes; return its name here."""
        name = self._next()
        self._waiting.add(name)
        fd = os.open(name, _MADE, _PRIVATE_FILE, dir_fd=self.fd)
        try:
            _fill(fd, entry, load)
            for attribute, value in entry.attribute_bytes().items():
                os.setxattr(fd, attribute, value)
            os.fchmod(fd, entry.mode)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        except BaseException:
            os.close(fd)
            raise
        self._batch.add(fd)
        return name

    def sync(self) -> None:
        """Put what was made on the medium; no name may be placed before."""
        self._batch.sync()
        os.fsync(self.fd)

    def link(self, entry: Entry) -> str:
        """Make a symbolic link; return its name here."""
        name = self._next()
        os.symlink(entry.link_target(), name, dir_fd=self.fd)
        times = (entry.mtime, entry.mtime)
        os.utime(name, ns=times, dir_fd=self.fd, follow_symlinks=False)
        return name

    def put(self, staged: str, name: str, directory: int) -> None:
        """Rename what was made here to its place, over what is there."""
        self._is_begun = True
        os.rename(staged, name, src_dir_fd=self.fd, dst_dir_fd=directory)
        self._waiting.discard(staged)

    def take(self, name: str, directory: int) -> None:
        """Move what stands in the way here."""
        self._is_begun = True
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):  # moving it writes its own `..`
            os.chmod(name, found.st_mode | _PRIVATE, dir_fd=directory)
        os.rename(name, self._next(), src_dir_fd=directory, dst_dir_fd=self.fd)

    def close(self, *, is_done: bool) -> None:
        """Let go; the directory is removed when everything is done, or nothing was begun.

        Else what was not placed is removed (the medium may be full), and the directory stays.
        """
        self._batch.close()
        is_done = is_done or not self._is_begun
        for name in () if is_done else self._waiting:
            with suppress(OSError):
                os.unlink(name, dir_fd=self.fd)
        os.close(self.fd)
        if is_done:
            clear(self._root)

    def _next(self) -> str:
        self._serial += 1
        return str(self._serial)


def is_left_over(root: str | os.PathLike[str]) -> bool:
    """Say whether a restore into a directory did not end."""
    return os.path.lexists(os.path.join(root, STAGING))


def clear(root: int) -> None:
    """Remove the staging directory of a root, if there is one."""
    with suppress(FileNotFoundError):
        if not stat.S_ISDIR(os.stat(STAGING, dir_fd=root, follow_symlinks=False).st_mode):
            os.unlink(STAGING, dir_fd=root)
            return
        _unlock(STAGING, root)
        shutil.rmtree(STAGING, dir_fd=root)  # never follows links


def _unlock(name: str, directory: int) -> None:
    """Make every directory below one writable for its owner, so that it can be removed."""
    os.chmod(name, _PRIVATE, dir_fd=directory)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=directory)
    try:
        with os.scandir(fd) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        for one in names:
            _unlock(one, fd)
    finally:
        os.close(fd)


def _fill(fd: int, entry: Entry, load: Load) -> None:
    if entry.extents is None:
        for piece in load(entry):
            _write(fd, piece)
        return
    os.ftruncate(fd, entry.size)
    pieces = load(entry)
    rest = memoryview(b"")
    for offset, length in entry.extents:
        os.lseek(fd, offset, os.SEEK_SET)
        left = length
        while left:
            if not rest:
                rest = memoryview(next(pieces, b""))
                if not rest:
                    return  # the size is checked by who made the pieces
            _write(fd, rest[:left])
            left, rest = left - len(rest[:left]), rest[left:]


def _write(fd: int, piece: bytes | memoryview) -> None:
    left = memoryview(piece)
    while left:
        left = left[os.write(fd, left) :]
