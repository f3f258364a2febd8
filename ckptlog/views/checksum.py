"""A checksum of the whole view file, for the time in which nobody has it open.

SQLite does not checksum its pages: a bit that turns in an index makes a checkpoint look absent, and
nothing tells. So the last one that closes the file leaves its checksum beside it, and who opens it
compares. It holds from that close to the next opening for writing:

    close, alone, the write-ahead log empty -> the checksum is written
    opened for writing -> compared, then removed, before anything is written

Whoever finds another checksum looks for the file with it again: if that is gone, somebody has begun
to write meanwhile, and nothing is known. A checksum that is torn or damaged itself says nothing.
Page: specs/view-current.md, section 5.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

from xxhash import xxh3_64_intdigest, xxh3_128_digest

from ckptlog.views.errors import ViewBusyError, ViewDamagedError
from ckptlog.views.guard import Guard, folder_lock

SUFFIX: Final = "-sum"
# Above that, opening would cost what it must not: some milliseconds at 8 MiB.
BYTES_MAX: Final = 8 * 1024 * 1024
_RECORD: Final = struct.Struct("<Q16s")
_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def compare(path: Path, guard: Guard) -> None:
    """Compare the view at path with the checksum beside it, if there is one.

    Raises:
        ViewDamagedError: It is another one.
    """
    told = _read(path)
    if told is None or told == _measure(guard):
        return
    if _read(path) == told:
        raise ViewDamagedError("The view has changed since it was closed: it is damaged.")


def remove(path: Path) -> None:
    """Remove the checksum, before anything is written to the view at path."""
    with suppress(FileNotFoundError, IsADirectoryError):
        _name(path).unlink()


def write(path: Path, guard: Guard) -> None:
    """Leave a checksum beside the view at path if nobody else has it open.

    The caller's connections are closed.

    Durability: none; one that is lost says nothing.
    """
    with suppress(OSError, ViewBusyError), folder_lock(path.parent, exclusive=True, wait_s=0.0):
        log = path.with_name(f"{path.name}-wal")
        if not guard.is_alone() or not guard.is_of(path) or (log.exists() and log.stat().st_size):
            return
        measured = _measure(guard)
        if measured is None:
            return
        body = _RECORD.pack(*measured)
        fd = os.open(_name(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o666)
        try:
            os.write(fd, body + xxh3_64_intdigest(body).to_bytes(8, "little"))
        finally:
            os.close(fd)


def _name(path: Path) -> Path:
    return path.with_name(path.name + SUFFIX)


def _read(path: Path) -> tuple[int, bytes] | None:
    """Return length and checksum, None where nothing is told."""
    data = b""
    with suppress(OSError):
        fd = os.open(_name(path), os.O_RDONLY | _FLAGS)
        try:
            data = os.read(fd, _RECORD.size + 9)
        finally:
            os.close(fd)
    if len(data) != _RECORD.size + 8:
        return None
    body = data[: _RECORD.size]
    if xxh3_64_intdigest(body).to_bytes(8, "little") != data[_RECORD.size :]:
        return None
    length, digest = _RECORD.unpack(body)
    return length, digest


def _measure(guard: Guard) -> tuple[int, bytes] | None:
    """Return length and checksum of the view; None for one that is too large, or not guarded.

    By the guard's descriptor: closing another one would drop this process's locks on the file.
    """
    if guard.fd < 0:
        return None
    length = os.fstat(guard.fd).st_size
    if length > BYTES_MAX:
        return None
    return length, xxh3_128_digest(os.pread(guard.fd, length, 0))
