"""Keeps two restores of one directory apart, in all processes.

The lock is on the directory itself (flock): it leaves nothing behind, a killed process gives it up,
and it is the same one whatever store and system the restore is of. Where the file system has no
such locks there is none.

A child that is forked meanwhile (a worker that a component starts) shares the lock: it is given up
by name and not by a close alone, and the child closes its copy, as with `storage.lock`.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from ckptlog.capture.directory import name as naming
from ckptlog.errors import RecoveryBusyError
from ckptlog.storage.files import unlock_and_close

# The descriptors that are open, one in each list, for the children.
_all_held: Final[list[list[int]]] = []
_TAKEN: Final = frozenset((errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES))


@contextmanager
def alone(root: str) -> Iterator[bool]:
    """Be the only one who restores a directory; says whether that could be had.

    Raises:
        RecoveryBusyError: Another process, or thread, restores it.

    Where there is no directory yet, there is no lock either.
    """
    try:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    held = [fd]
    _all_held.append(held)
    try:
        yield _is_locked(fd, root)
    finally:
        _all_held.remove(held)
        if held:  # in a forked child it was closed
            unlock_and_close(held.pop())


def _close_in_child() -> None:
    for held in _all_held:
        with suppress(OSError):
            os.close(held.pop())


os.register_at_fork(after_in_child=_close_in_child)


def _is_locked(fd: int, root: str) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _TAKEN:
            return False
        raise RecoveryBusyError(
            f"Another rewind or recovery of {naming.shown(root)} is at work.",
            hint="Wait for its end, and run this again; nothing was touched.",
            path=naming.shown(root),
        ) from error
    return True
