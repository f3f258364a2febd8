"""Opens the files that an import reads: regular ones only.

Whoever opens a FIFO that nobody writes to waits for ever, and a device has no end. What lies in a
folder is a stranger's, so this is looked at before the file is opened, and at the open file again.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO, Final

from ckptlog.errors import ArgumentError

_KINDS: Final = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a directory",
}


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading; symbolic links are followed.

    Raises:
        ArgumentError: It is no regular file.
        OSError: It cannot be opened.
    """
    _refuse_other(path.stat(), path)
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _refuse_other(os.fstat(fd), path)
        return os.fdopen(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def _refuse_other(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise ArgumentError(
            f"{path} is {kind}, not a regular file.", hint="Name a file.", path=str(path)
        )
