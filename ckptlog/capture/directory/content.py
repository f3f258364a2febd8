"""Reads one file so that what was read is one state of it: stat before, read, stat behind.

The stat of the walk is the first of three: a file that is not as the walk saw it has changed since
the cut (`consistency="cut"`), and one whose stat moved while it was read may be torn. Both are a
`ChangedFile`. A file that is gone is told by None: between a walk and a read files may go.
Only the file itself is opened: never through a link, never a pipe that would wait for a writer.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

READ_BYTES: Final = 1 << 20
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
# Below it the file system's own blocks make a hole not worth two calls.
_SPARSE_BYTES_MIN: Final = 65_536
_BLOCK: Final = 512

Identity = tuple[int, int, int, int, int]


class ChangedFile(Exception):  # noqa: N818 - a signal between two modules here, not an error of ours
    """A file changed between the walk and the end of its reading."""


@dataclass
class OpenFile:
    """A file that is being read.

    identity: mode, size, mtime_ns, ctime_ns, inode as `fstat` gave them when it was opened.
    links: How many names it has.
    """

    fd: int
    identity: Identity
    links: int
    blocks: int

    @property
    def size(self) -> int:
        """Bytes, holes included."""
        return self.identity[1]

    def extents(self) -> list[tuple[int, int]] | None:
        """Return offset and length of each stretch of data; None for a file without holes."""
        size = self.size
        if size < _SPARSE_BYTES_MIN or self.blocks * _BLOCK >= size:
            return None
        found = _data(self.fd, size)
        return None if found == [(0, size)] else found

    def read(self, extents: list[tuple[int, int]] | None) -> Iterator[bytes]:
        """Yield the file's data, in pieces of at most `READ_BYTES`.

        Raises:
            ChangedFile: It is shorter than it was.
        """
        for offset, length in extents if extents is not None else [(0, self.size)]:
            at, end = offset, offset + length
            while at < end:
                piece = os.pread(self.fd, min(READ_BYTES, end - at), at)
                if not piece:
                    raise ChangedFile
                at += len(piece)
                yield piece

    def check(self) -> None:
        """Check that the file is as it was opened.

        Raises:
            ChangedFile: It is not.
        """
        if identity_of(os.fstat(self.fd)) != self.identity:
            raise ChangedFile


def identity_of(found: os.stat_result) -> Identity:
    """Return what must not change while a file is read."""
    return found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def open_file(name: str, directory: int) -> OpenFile | None:
    """Open a file of a directory for reading; None where there is none any more.

    Raises:
        ChangedFile: It is no plain file now.
        OSError: It cannot be read.
    """
    try:
        fd = os.open(name, _FLAGS, dir_fd=directory)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise ChangedFile from error
        raise
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise ChangedFile
    return OpenFile(fd, identity_of(found), found.st_nlink, found.st_blocks)


def _data(fd: int, size: int) -> list[tuple[int, int]] | None:
    """Return the stretches of data of a file; None where the file system does not tell."""
    found = []
    at = 0
    try:
        while at < size:
            try:
                begin = os.lseek(fd, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # a hole up to the end
                    break
                raise
            at = min(os.lseek(fd, begin, os.SEEK_HOLE), size)
            if begin < at:
                found.append((begin, at - begin))
    except OSError:
        return None
    return found
