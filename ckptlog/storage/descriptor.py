"""Descriptors: how many one task of a process may hold, and which ones no file may be given."""

from __future__ import annotations

import os
import resource
from typing import Final

_STANDARD: Final = range(3)


def share(most: int, part: int) -> int:
    """Return how many descriptors may be held at once: at most a part of the process's limit.

    Args:
        most: What is held where the limit is no concern.
        part: What the limit is divided by; 1024 is common, and 256 on macOS.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if soft < 0 else min(most, max(1, soft // part))


def occupy_standard() -> None:
    """Open what of stdin, stdout and stderr is closed to nothing.

    Else a file of a store is given the number, and whatever writes to that stream (a C library that
    complains, what `run` passes on) writes into the store. SQLite does the same for its files.

    Raises:
        OSError: There are no descriptors left.
    """
    for fd in _STANDARD:
        try:
            os.fstat(fd)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
            if opened not in _STANDARD:  # another thread was given that one
                os.close(opened)
