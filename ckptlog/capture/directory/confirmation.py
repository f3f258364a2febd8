"""Asks which directories are exactly as they were remembered: names, modes, sizes, times, inodes.

Theory. On a tree at rest every walk finds what the one before found. So the remembered tables go
down to the system, instead of its answers coming up as objects: the kernel lists each directory,
looks at each name, and compares; nothing is made of what is the same, and as no object is made,
several threads do it at once. A directory that is not confirmed is walked as ever.
"""

from __future__ import annotations

import os
from typing import Final

from ckptlog.capture.directory.folder import reserved_bytes
from ckptlog.capture.directory.table import NEVER, Record, decoded
from ckptlog.kernel import Kernel, native
from ckptlog.storage.pool import Pool

_LISTED: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY: Final = 0o040000
_FORMAT: Final = 0o170000
_THREADS_MAX: Final = 8
# Fewer directories are not worth a thread.
_SHARE_MIN: Final = 128


def unconfirmed(
    root: int, blob: bytes, records: list[Record], reserved: frozenset[str]
) -> list[Record]:
    """Return the records of the directories that are not as remembered.

    Args:
        root: Descriptor of the directory that paths begin at.
        reserved: Names that do not count; each begins with a dot.

    Threads: safe.        Cost: one listing for each directory, one stat for each name.
    """
    if native is None:
        flags = _confirm(root, blob, records, reserved)
    else:
        flags = _natively(native, root, blob, records, reserved)
    if 0 not in flags:
        return []
    return [one for one, is_same in zip(records, flags, strict=True) if not is_same]


def _natively(
    kernel: Kernel, root: int, blob: bytes, records: list[Record], reserved: frozenset[str]
) -> bytes:
    confirm = kernel.confirm
    names = reserved_bytes(reserved)
    # Twice as many as processors: a file system that is cold or remote lets them wait.
    threads = min(2 * (os.cpu_count() or 1), _THREADS_MAX, len(records) // _SHARE_MIN)
    if threads < 2:
        return confirm(root, blob, 0, len(blob), names)
    # More shares than threads: directories differ in size, and processors in what else they do.
    step = max(_SHARE_MIN // 2, len(records) // (threads * 8))
    places = [one.start for one in records[::step]]
    with Pool(threads, "ckptlog-walk") as pool:
        shares = zip(places, [*places[1:], len(blob)], strict=True)
        jobs = [pool.submit(confirm, root, blob, begin, end, names) for begin, end in shares]
        return b"".join([job.result() for job in jobs])


def _confirm(root: int, blob: bytes, records: list[Record], reserved: frozenset[str]) -> bytes:
    """Do it in Python."""
    return bytes(_is_same(root, blob, one, reserved) for one in records)


def _is_same(root: int, blob: bytes, one: Record, reserved: frozenset[str]) -> bool:
    if one.flags & NEVER:
        return False
    rows, left = decoded(blob[one.table : one.stop])
    status = {name: tuple(rest) for name, *rest in rows}
    left_out = dict(left)
    try:
        fd = os.open(one.path or ".", _LISTED, dir_fd=root)
    except OSError:
        return False
    try:
        count = 0
        with os.scandir(fd) as names:
            for entry in names:
                if entry.name in reserved:
                    continue
                count += 1
                is_folder = left_out.get(entry.name)
                if is_folder is None:
                    if _status(entry) != status.get(entry.name):
                        return False
                elif is_folder != entry.is_dir(follow_symlinks=False):
                    return False
    except OSError:
        return False
    finally:
        os.close(fd)
    return count == len(rows) + len(left)


def _status(entry: os.DirEntry[str]) -> tuple[int, ...]:
    found = entry.stat(follow_symlinks=False)
    if found.st_mode & _FORMAT == _DIRECTORY:
        return found.st_mode, 0, 0, 0, 0
    times = found.st_mtime_ns, found.st_ctime_ns
    return found.st_mode, found.st_size, *times, found.st_ino
