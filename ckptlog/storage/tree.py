"""A folder of small files that readers may open at any time: each is there whole, or not at all.

Files are written in `.new/` and renamed to their place, so a reader never meets a part of one, a
killed writer leaves nothing in the folders that are read, and what it leaves is found in one place.
Nothing is synced: after a power cut files may be old, empty or gone; the owner has to notice.

Folders of ours that are links are not followed but replaced: they may lead out of the tree.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from ckptlog.errors import from_os_error, operating_system_door

NEW: Final = ".new"
_FILE_MODE: Final = 0o666
_serial = itertools.count()


class Tree:
    """The files below one folder; paths are relative and have forward slashes.

    Raises (every method):
        CheckpointStorageError: The operating system refused.

    Threads: safe.        Durability: none.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._prefix = f"{root}{os.sep}"

    def prepare(self, folders: Iterable[str]) -> None:
        """Make the folders that are not there."""
        with operating_system_door("Cannot make a folder"):
            for name in ("", NEW, *folders):
                path = self._prefix + name
                if name and os.path.islink(path):
                    os.unlink(path)
                os.makedirs(path, exist_ok=True)

    def put(self, path: str, content: bytes) -> None:
        """Make a path hold exactly this content; on any failure the old one stays."""
        new = f"{self._prefix}{NEW}{os.sep}{os.getpid()}-{next(_serial)}"
        try:
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _FILE_MODE)
            try:
                _write_all(fd, content)
            finally:
                os.close(fd)
            os.replace(new, self._prefix + path)
        except OSError as error:
            with suppress(OSError):
                os.unlink(new)
            raise from_os_error(error, "Cannot write a file") from error

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        try:
            os.unlink(self._prefix + path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise from_os_error(error, "Cannot remove a file") from error

    def drop(self, folder: str) -> None:
        """Remove a folder of ours with the files in it, if it is there."""
        for name in self.names(folder):
            self.remove(f"{folder}/{name}")
        with operating_system_door("Cannot remove a folder"), suppress(FileNotFoundError):
            os.rmdir(self._prefix + folder)

    def read(self, path: str) -> bytes | None:
        """Return a file's content; None where there is no file that can be read."""
        try:
            with open(self._prefix + path, "rb") as file:
                return file.read()
        except OSError:
            return None

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder; none where it is missing."""
        try:
            return os.listdir(self._prefix + folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise from_os_error(error, "Cannot list a folder") from error

    def size_bytes(self, folders: Iterable[str]) -> int:
        """Return the bytes of the files in these folders, without those that begin with a dot."""
        total = 0
        for folder in folders:
            for name in self.names(folder):
                with suppress(OSError):  # removed meanwhile
                    found = os.lstat(self._prefix + os.path.join(folder, name))
                    is_counted = stat.S_ISREG(found.st_mode) and not name.startswith(".")
                    total += found.st_size if is_counted else 0
        return total

    def stamp(self, path: str) -> tuple[int, int, int] | None:
        """Return what changes when a file is replaced: inode, time, size; None for no file."""
        try:
            found = os.stat(self._prefix + path)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def _write_all(fd: int, content: bytes) -> None:
    written = os.write(fd, content)
    while written < len(content):
        written += os.write(fd, memoryview(content)[written:])
