"""Modes of what lies in an open directory: set without following links, fit to be synced.

A sync of the folder puts names on the medium, not what a file itself is: a mode that was set needs
a sync of its own. That takes a descriptor that may be read, which a mode can forbid: it is opened
before the change where the old mode lets it, else behind it.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import Final

_PRIVATE: Final = 0o700
_PATH: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_NONBLOCK)
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def let_in(name: str, folder: int) -> None:
    """Let the owner into a directory that is about to be entered."""
    fd = os.open(name, _PATH, dir_fd=folder)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode) and mode & _PRIVATE != _PRIVATE:
            os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(mode) | _PRIVATE)
    finally:
        os.close(fd)


def set_mode(name: str, folder: int, mode: int) -> int | None:
    """Set the mode of a directory, if it is one.

    Returns:
        A descriptor to sync it by; None where nobody may read it.
    """
    readable = opened(name, folder, os.O_DIRECTORY)
    try:
        fd = os.open(name, _PATH, dir_fd=folder)
        try:
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                os.chmod(f"/proc/self/fd/{fd}", mode)
        finally:
            os.close(fd)
    except BaseException:
        if readable is not None:
            os.close(readable)
        raise
    return opened(name, folder, os.O_DIRECTORY) if readable is None else readable


def set_root(fd: int, mode: int) -> None:
    """Set the mode of an open directory.

    Durability: it is on the medium.
    """
    os.fchmod(fd, mode)
    os.fsync(fd)


def opened(name: str, folder: int, flags: int = 0) -> int | None:
    """Return a descriptor of a file to sync it by; None where it cannot be read."""
    with suppress(OSError):
        return os.open(name, _READ | flags, dir_fd=folder)
    return None
