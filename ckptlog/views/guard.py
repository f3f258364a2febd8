"""Makes it safe to replace a database that other processes have open.

- SQLite opens the write-ahead log by name, some time after the database, and must not find the
  log of another file: openers hold a shared flock on the folder, whoever replaces the file an
  exclusive one.
- SQLite's last close removes the log by name, even where the database was replaced meanwhile and
  the name belongs to its successor: two processes would then write two logs for one database.
  `Guard` holds a lock that makes every close believe that it is not the last.
- For the same reason a close in a forked child does not touch what its parent uses.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ckptlog.storage.files import unlock_and_close
from ckptlog.views.errors import ViewBusyError

_WAIT_FOLDER_S: Final = 5.0
# The bytes of a database that SQLite's connections hold shared locks on; nothing is stored there.
_SHARED_FIRST: Final = 0x40000002
_SHARED_BYTES: Final = 510


class Guard:
    """Holds the database's inode, and a lock on it that keeps SQLite's last close from tidying.

    Without the kernel's support (locks of an open file description, Linux) it holds nothing:
    a second descriptor would then do harm, as closing it drops every lock of the process.
    """

    def __init__(self, path: Path) -> None:
        self.fd = -1
        if sys.platform == "linux":
            self._take(path)
        found = path.stat() if self.fd < 0 else os.fstat(self.fd)
        self.inode = (found.st_dev, found.st_ino)

    def _take(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        lock = struct.pack("hhqqi", fcntl.F_RDLCK, os.SEEK_SET, _SHARED_FIRST, _SHARED_BYTES, 0)
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
        except OSError:
            os.close(fd)
        else:
            self.fd = fd

    def is_alone(self) -> bool:
        """Say whether nobody else has the database open; False where that cannot be known."""
        if self.fd < 0:
            return False
        asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, _SHARED_FIRST, _SHARED_BYTES, 0)
        try:
            found = fcntl.fcntl(self.fd, fcntl.F_OFD_GETLK, asked)
        except OSError:
            return False
        return bool(struct.unpack("hhqqi", found)[0] == fcntl.F_UNLCK)

    def is_of(self, path: Path) -> bool:
        """Say whether the name still leads to the guarded file."""
        try:
            found = path.stat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self.inode

    def close(self) -> None:
        """Let go; after SQLite's connections have closed."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@contextmanager
def folder_lock(folder: Path, *, exclusive: bool, wait_s: float = _WAIT_FOLDER_S) -> Iterator[None]:
    """Hold a lock on a folder for as long as a block runs.

    Raises:
        ViewBusyError: Others held it for too long.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline_s = time.monotonic() + wait_s
        kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        while True:
            try:
                fcntl.flock(fd, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline_s:
                    raise ViewBusyError(f"{folder} is locked by another process.") from None
                time.sleep(0.002)
        yield
    finally:
        unlock_and_close(fd)
