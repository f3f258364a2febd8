"""The file system as the log uses it: one object, so that a test can make it fail or simulate.

The acts themselves, and what each promises, are in `storage.files`; this class only gives them
a place to be replaced. Descriptors are plain integers.
"""

from __future__ import annotations

import os
from pathlib import Path

from ckptlog.errors import from_os_error, operating_system_door
from ckptlog.storage import files


class Disk:
    """The real file system.

    Threads: safe; it holds no state.
    """

    def create(self, path: Path) -> int:
        """Create a file that must not exist, open for both ways."""
        return files.create_exclusive(path)

    def open_write(self, path: Path) -> int:
        """Open a file for both ways; never through a symbolic link."""
        return files.open_in_place(path)

    def open_read(self, path: Path) -> int:
        """Open a regular file for reading; a FIFO or a device is refused, and not waited for."""
        with operating_system_door("Cannot open for reading"):
            return files.open_regular(path)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def read(self, fd: int, length: int, offset: int) -> bytes:
        """Return up to length bytes from offset; fewer only at the end of the file."""
        return files.read_at(fd, length, offset)

    def read_into(self, fd: int, buffer: memoryview, offset: int) -> int:
        """Fill a buffer from offset; return how many bytes came, fewer only at the file's end."""
        return files.read_into(fd, buffer, offset)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        """Write all of data at offset."""
        files.write_all(fd, data, offset)

    def sync(self, fd: int) -> None:
        """Put a file's bytes on the medium."""
        files.sync_file(fd)

    def sync_directory(self, path: Path) -> None:
        """Put the names in a directory on the medium."""
        files.sync_directory(path)

    def truncate(self, fd: int, length: int) -> None:
        """Cut or extend a file to length bytes."""
        with operating_system_door("Cannot cut a file"):
            os.ftruncate(fd, length)

    def size(self, fd: int) -> int:
        """Return a file's length in bytes."""
        with operating_system_door("Cannot stat a file"):
            return os.fstat(fd).st_size

    def is_removed(self, fd: int) -> bool:
        """Say whether a file that is open has no name any more."""
        try:
            return os.fstat(fd).st_nlink == 0
        except OSError as error:
            raise from_os_error(error, "Cannot stat a file") from error

    def remove(self, path: Path) -> None:
        """Remove a file."""
        with operating_system_door("Cannot remove"):
            path.unlink()

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name in the same folder; `sync_directory` makes it last."""
        with operating_system_door("Cannot rename"):
            os.rename(old, new)

    def write_atomically(self, path: Path, data: bytes) -> None:
        """Make path hold exactly data, durably, or leave it as it was."""
        files.write_atomically(path, data)
