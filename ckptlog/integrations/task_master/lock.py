"""The lock that Task Master itself takes on its file: a folder beside it (npm proper-lockfile).

    FILE.lock/   made by whoever holds it; its modification time is renewed while the lock is held,
                 and one that is older than 10 s belongs to somebody who died
    FILE.lock    a file of that name: some of its commands make it in place of the folder

The rules are those of the other program, so that each waits for the other. We hold it for moments
only and so never renew it. It follows no link: its lock of one lies beside the link.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ckptlog.errors import LockTimeoutError, operating_system_door

STALE_S: Final = 10.0
_PAUSE_S: Final = 0.05


@contextmanager
def file_lock(path: Path, wait_s: float) -> Iterator[None]:
    """Hold the lock of a file for the time of a block.

    Raises:
        LockTimeoutError: Another program held it for too long.
        CheckpointStorageError: The folder refuses it.
    """
    folder = path.with_name(f"{path.name}.lock")
    end_s = time.monotonic() + wait_s
    while not _taken(folder):
        if time.monotonic() >= end_s:
            raise LockTimeoutError(
                f"Another program has {path} locked.",
                hint=f"Wait for it; if none is running, remove {folder}.",
                path=str(folder),
            )
        time.sleep(_PAUSE_S)
    try:
        yield
    finally:
        with suppress(OSError):
            folder.rmdir()


def _taken(folder: Path) -> bool:
    with operating_system_door("Cannot lock the tasks"):
        try:
            folder.mkdir()
        except FileExistsError:
            _remove_stale(folder)
            return False
    return True


def _remove_stale(folder: Path) -> None:
    with suppress(FileNotFoundError):
        found = folder.lstat()
        if abs(time.time() - found.st_mtime) <= STALE_S:
            return
        if stat.S_ISDIR(found.st_mode):
            folder.rmdir()
        else:
            folder.unlink()
