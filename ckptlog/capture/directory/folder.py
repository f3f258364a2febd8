"""What lies in one directory: every name with its status, as the walk needs it.

The kernel makes the rows where it can: the system is asked for all of them before one object is
made, and other threads run meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from ckptlog.capture.directory.table import Row
from ckptlog.kernel import native

_FILE: Final = 0o100000
_LINK: Final = 0o120000
_DIRECTORY: Final = 0o040000
_FORMAT: Final = 0o170000


class Folder(NamedTuple):
    """The names of a directory, in no order.

    rows: Of files, links and directories.
    folders: Of the directories the name, device and inode.
    special: Of all else the name and mode.
    unseen: Names that cannot be looked at: the name, whether it is a directory, and why.
    """

    rows: list[Row]
    folders: list[tuple[str, int, int]]
    special: list[tuple[str, int]]
    unseen: Sequence[tuple[str, bool, OSError]] = ()


def reserved_bytes(reserved: Iterable[str]) -> bytes:
    """Return names that do not count as the kernel takes them."""
    return b"".join(os.fsencode(name) + b"\0" for name in sorted(reserved))


def look(fd: int, reserved: frozenset[str]) -> Folder:
    """Return what lies in an open directory; what goes meanwhile is left out.

    Args:
        reserved: Names that do not count; each begins with a dot.

    Raises:
        OSError: It cannot be listed.

    Threads: safe, each with a descriptor of its own.
    """
    found = native.look(fd, reserved_bytes(reserved)) if native is not None else None
    return _look(fd, reserved) if found is None else Folder(*found)


def _look(fd: int, reserved: frozenset[str]) -> Folder:
    """Do it in Python."""
    unseen: list[tuple[str, bool, OSError]] = []
    made = Folder([], [], [], unseen)
    os.lseek(fd, 0, os.SEEK_SET)  # the kernel may have listed it before
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.name in reserved:
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # removed since it was listed
            except OSError as error:
                unseen.append((entry.name, entry.is_dir(follow_symlinks=False), error))
                continue
            _put(made, entry.name, status)
    return made


def _put(made: Folder, name: str, found: os.stat_result) -> None:
    mode = found.st_mode
    kind = mode & _FORMAT
    if kind in (_FILE, _LINK):
        times = found.st_mtime_ns, found.st_ctime_ns
        made.rows.append((name, mode, found.st_size, *times, found.st_ino))
    elif kind == _DIRECTORY:
        made.rows.append((name, mode, 0, 0, 0, 0))
        made.folders.append((name, found.st_dev, found.st_ino))
    else:
        made.special.append((name, mode))
