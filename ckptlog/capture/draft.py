"""A draft: the file that is to take a place by one rename, made beside that place.

Whoever is killed in between leaves a draft behind, in a folder of the user's. So a draft has a name
by which the next one for the same place finds it (of fixed length: the place's own name may be as
long as names can be), and its maker holds a lock on it, which dies with him. A draft that can be
locked is nobody's, and is removed.
"""

from __future__ import annotations

import fcntl
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from blake3 import blake3

from ckptlog.storage.files import remove

_SUFFIX: Final = ".tmp"
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_LEFT: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_serial = itertools.count(1)


class Draft:
    """One draft, open. fd: Its descriptor. path: Where it lies."""

    def __init__(self, fd: int, path: Path) -> None:
        self.fd, self.path = fd, path

    def close(self) -> None:
        """Close it, and let go of its lock; what becomes a live database must not be open here."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@contextmanager
def draft_of(target: Path, mode: int = 0o600) -> Iterator[Draft]:
    """Make an empty draft for a place; at the end of the block it is removed, unless renamed.

    Args:
        target: The place; its folder is there.
        mode: Of the file, less the umask.

    Raises:
        OSError: It cannot be made.

    Durability: none; the caller syncs.        Threads: safe; so are other processes.
    """
    clear_drafts(target)
    draft = Draft(*_made(target.parent, _stem(target), mode))
    try:
        yield draft
    finally:
        draft.close()
        remove(draft.path)


def clear_drafts(target: Path) -> None:
    """Remove drafts for a place whose makers are dead.

    Durability: none.        Threads: safe; so are other processes.
    """
    stem = _stem(target)
    with suppress(OSError):
        for path in target.parent.iterdir():
            if path.name.startswith(stem) and path.name.endswith(_SUFFIX):
                with suppress(OSError):
                    _remove_unlocked(path)


def _stem(target: Path) -> str:
    """Return how the names of all drafts for a place begin."""
    return f".ckptlog-{blake3(os.fsencode(target.name)).hexdigest()[:16]}-"


def _made(folder: Path, stem: str, mode: int) -> tuple[int, Path]:
    while True:
        path = folder / f"{stem}{os.getpid()}-{next(_serial)}{_SUFFIX}"
        try:
            fd = os.open(path, _NEW, mode)
        except FileExistsError:  # of another machine's process, with our number
            continue
        _lock(fd)
        if os.fstat(fd).st_nlink:
            return fd, path
        os.close(fd)  # somebody cleared it away before it was locked


def _remove_unlocked(path: Path) -> None:
    fd = os.open(path, _LEFT)
    try:
        if _lock(fd):
            path.unlink()
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    with suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
