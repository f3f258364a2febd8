"""The staging directory of a restore: files are made whole in it, then renamed to their places.

It lies in the root itself, under a reserved name, so that it is of the same file system as what is
restored (a root is often a mount point, and what is above it not ours to write). No capture holds
it. A killed restore leaves it behind: the next one, or the next capture, removes it, and its being
there tells that a restore did not end.

What stands in the way of another type (a directory where a file shall be) is moved here, too, and
what is overwritten or removed is kept here until all is done (see `trail`); then it goes with the
rest.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from typing import Final, NamedTuple

from ckptlog.capture.directory.batch import Batch
from ckptlog.capture.directory.entry import Entry
from ckptlog.capture.directory.scan import STAGING
from ckptlog.errors import BlobCorruptionError

_MADE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
# Of a long file, that are worth a sync of their own.
_SYNCED_BYTES: Final = 4 << 20
_PRIVATE_FILE = 0o600
_PRIVATE = 0o700
# Returns the content of an entry, piece by piece, checked.
Load = Callable[[Entry], Generator[bytes]]


class Placed(NamedTuple):
    """What tells a file that was brought in from one that somebody has written since."""

    mode: int
    size: int
    mtime: int
    inode: int


class Stage:
    """The open staging directory of one restore.

    Attributes:
        batch: What is synced together; whoever adds to it syncs it.

    Raises (every method): OSError; crosses at the restore's door. `file`: also what `load` raises.

    Threads: not safe.        Durability: `sync` puts everything that was made on the medium.
    """

    def __init__(self, root: int) -> None:
        clear(root)
        self._root = root
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            os.mkdir(STAGING, _PRIVATE, dir_fd=root)
            self.fd = os.open(STAGING, flags, dir_fd=root)
        except BaseException:  # an interrupt, too: its being there would tell of a restore
            clear(root)
            raise
        self._serial = 0
        self._waiting: set[str] = set()
        self.batch = Batch()
        self._is_begun = self._is_closed = False

    def file(self, entry: Entry, load: Load) -> str:
        """Make a file, with its mode, time and attributes; return its name here."""
        name = self.new_name()
        self._waiting.add(name)
        fd = os.open(name, _MADE, _PRIVATE_FILE, dir_fd=self.fd)
        try:
            with closing(load(entry)) as pieces:
                _fill(fd, entry, self._syncing(fd, pieces))
            for attribute, value in entry.attribute_bytes().items():
                os.setxattr(fd, attribute, value)
            os.fchmod(fd, entry.mode)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        except BaseException:
            os.close(fd)
            raise
        self.batch.add(fd)
        return name

    def _syncing(self, fd: int, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yield pieces; of a long file, what was written before goes to the medium meanwhile."""
        new = 0
        for piece in pieces:
            yield piece
            new += len(piece)
            if new >= _SYNCED_BYTES:
                self.batch.begin(fd)
                new = 0

    def sync(self) -> None:
        """Put what was made on the medium; no name may be placed before."""
        self.batch.sync()
        os.fsync(self.fd)

    def link(self, entry: Entry) -> str:
        """Make a symbolic link; return its name here."""
        name = self.new_name()
        os.symlink(entry.link_target(), name, dir_fd=self.fd)
        times = (entry.mtime, entry.mtime)
        os.utime(name, ns=times, dir_fd=self.fd, follow_symlinks=False)
        return name

    def put(self, staged: str, name: str, directory: int) -> None:
        """Rename what is here to its place, over what is there."""
        self._is_begun = True
        os.rename(staged, name, src_dir_fd=self.fd, dst_dir_fd=directory)
        self._waiting.discard(staged)

    def keep(self, name: str, directory: int) -> str | None:
        """Give what is about to be overwritten a second name here.

        Returns:
            The name; "" where nothing is there; None where the system gives no second name.
        """
        kept = self.new_name()
        try:
            os.link(name, kept, src_dir_fd=directory, dst_dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return ""
        except OSError:
            return None
        return kept

    def take(self, name: str, directory: int, taken: str, mode: int) -> None:
        """Move what stands in the way here, under a name that `new_name` gave.

        Args:
            mode: Of what stands there.
        """
        self._is_begun = True
        if stat.S_ISDIR(mode):  # moving it writes its own `..`
            os.chmod(name, mode | _PRIVATE, dir_fd=directory)
        os.rename(name, taken, src_dir_fd=directory, dst_dir_fd=self.fd)

    def new_name(self) -> str:
        """Return a name that nothing here has."""
        self._serial += 1
        return str(self._serial)

    def has(self, name: str) -> bool:
        """Say whether something lies here under a name."""
        with suppress(FileNotFoundError):
            os.stat(name, dir_fd=self.fd, follow_symlinks=False)
            return True
        return False

    def close(self, *, is_done: bool) -> None:
        """Let go; the directory is removed when everything is done, or nothing was begun.

        Else what was not placed is removed (the medium may be full), and the directory stays.
        Twice is fine: who was interrupted in it goes on.
        """
        is_done = is_done or not self._is_begun
        try:
            if is_done and not self._is_closed:
                with suppress(FileNotFoundError):
                    self.batch.remove(self._files(), self.fd)
            for name in () if is_done else self._waiting:
                with suppress(OSError):
                    os.unlink(name, dir_fd=self.fd)
        finally:
            self.batch.close()
            if not self._is_closed:
                self._is_closed = True
                os.close(self.fd)
        if is_done:
            clear(self._root)

    def _files(self) -> list[str]:
        with os.scandir(self.fd) as entries:
            return [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]


def placed_of(found: os.stat_result) -> Placed:
    """Return what tells a file from what others write; a rename does not change it."""
    return Placed(found.st_mode, found.st_size, found.st_mtime_ns, found.st_ino)


def is_left_over(root: str | os.PathLike[str]) -> bool:
    """Say whether a restore into a directory did not end."""
    return os.path.lexists(os.path.join(root, STAGING))


def empty(root: str) -> None:
    """Remove what a killed restore left in the staging directory, and not the directory.

    To be called before the tree is walked: names in there may be further ones of files in the
    tree, whose ctime changes with them.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(FileNotFoundError, NotADirectoryError):
        above = os.open(root, flags & ~os.O_NOFOLLOW)
        try:
            if not stat.S_ISDIR(os.stat(STAGING, dir_fd=above, follow_symlinks=False).st_mode):
                return
            _unlock(STAGING, above)
            fd = os.open(STAGING, flags, dir_fd=above)
            try:
                _remove_all(fd)
            finally:
                os.close(fd)
        finally:
            os.close(above)


def _remove_all(directory: int) -> None:
    with os.scandir(directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if is_directory:
            shutil.rmtree(name, dir_fd=directory)  # never follows links
        else:
            os.unlink(name, dir_fd=directory)


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


def _fill(fd: int, entry: Entry, pieces: Iterator[bytes]) -> None:
    """Write a content; all of it is gone through: who makes the pieces checks behind the last.

    So a content that is too short is found there, and not here.

    Raises:
        BlobCorruptionError: There is more than a sparse file's stretches take.
    """
    if entry.extents is None:
        for piece in pieces:
            _write(fd, piece)
        return
    os.ftruncate(fd, entry.size)
    pieces = filter(None, pieces)
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
    if rest or any(pieces):
        raise BlobCorruptionError(
            "A sparse file's content in a capture is longer than its stretches.",
            hint="`ckptlog verify` checks the store.",
        )


def _write(fd: int, piece: bytes | memoryview) -> None:
    left = memoryview(piece)
    while left:
        left = left[os.write(fd, left) :]
