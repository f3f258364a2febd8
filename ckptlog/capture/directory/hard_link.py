"""Tells a restore's own changes from those of others, where a file has several names.

Theory. To replace or to remove one name of a file changes the ctime of the file, which its other
names share. By what the walk saw, each of them would then look as if another program had written
it. So the file is held by a descriptor for the time of the change, and looked at again behind it:
where nothing but the ctime is another, that is what its other names are expected to be from now on.
Where more is, somebody else wrote: the old expectation stays, and the next name does not meet it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ckptlog.capture.directory.content import Identity, identity_of
from ckptlog.capture.directory.table import Row

_PATH: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_NONBLOCK)


class HardLinks:
    """The files with several names that one restore has changed names of.

    Threads: not safe.
    """

    def __init__(self) -> None:
        self._expected: dict[tuple[int, int], Identity] = {}

    @contextmanager
    def held(self, name: str, folder: int, row: Row) -> Iterator[bool]:
        """Say whether a name still is what the walk saw; in the block it may be changed.

        Raises:
            FileNotFoundError: It is gone.
        """
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(row[1]):
            yield stat.S_ISDIR(found.st_mode)
            return
        file = (found.st_dev, found.st_ino)
        expected = self._expected.get(file, row[1:])
        is_same = identity_of(found) == expected
        if found.st_nlink == 1 or not is_same:
            yield is_same
            return
        fd = os.open(name, _PATH, dir_fd=folder)
        try:
            now = os.fstat(fd)
            if (now.st_dev, now.st_ino) != file:
                yield False
                return
            yield True
            self._follow(fd, file, expected)
        finally:
            os.close(fd)

    def _follow(self, fd: int, file: tuple[int, int], expected: Identity) -> None:
        now = identity_of(os.fstat(fd))
        if (*now[:3], now[4]) == (*expected[:3], expected[4]):
            self._expected[file] = now
