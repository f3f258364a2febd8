"""A checksum of the whole view file, from one change of it to the next.

SQLite does not checksum its pages: a bit that turns in an index makes a checkpoint look absent, and
nothing tells. So the last one that closes the file leaves its checksum beside it, and who opens it
compares. What is written goes to the write-ahead log, which has checksums of its own; so it holds
until a checkpoint copies the log into the file, also where a process was killed:

    close, alone, the write-ahead log empty -> the checksum is written
    a file that is new, and nobody else knows -> likewise
    the log will be copied into the file -> removed before that

Whoever finds another checksum looks for the file with it again: if that is gone, somebody has begun
to change the file meanwhile, and nothing is known. A checksum that is torn or damaged itself says
nothing. Page: specs/view-current.md, section 5.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

from xxhash import xxh3_64_intdigest, xxh3_128

from ckptlog.views.errors import ViewBusyError, ViewDamagedError
from ckptlog.views.guard import Guard, folder_lock

SUFFIX: Final = "-sum"
# Above that, opening would cost what it must not: some milliseconds at 16 MiB.
BYTES_MAX: Final = 16 * 1024 * 1024
# Larger ones are fresh memory each time, which costs more than the hash.
_BUFFER_BYTES: Final = 256 * 1024
_RECORD: Final = struct.Struct("<Q16s")
_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def compare(path: Path, guard: Guard) -> bool:
    """Compare the view at path with the checksum beside it; False where nothing is told.

    Raises:
        ViewDamagedError: It is another one.
    """
    told = _read(path)
    if told is None:
        return False
    if told == _measure(guard):
        return True
    if _read(path) == told:
        raise ViewDamagedError("The view has changed since it was closed: it is damaged.")
    return False


def remove(path: Path) -> None:
    """Remove the checksum, before the view at path itself is changed."""
    with suppress(FileNotFoundError, IsADirectoryError):
        _name(path).unlink()


def is_there(path: Path) -> bool:
    """Say whether something lies in the place of a checksum of the view at path."""
    return os.path.lexists(_name(path))


def write(path: Path, guard: Guard) -> None:
    """Leave a checksum beside the view at path if nobody else has it open.

    The caller's connections are closed.

    Durability: none; one that is lost says nothing.
    """
    with suppress(OSError, ViewBusyError), folder_lock(path.parent, exclusive=True, wait_s=0.0):
        log = path.with_name(f"{path.name}-wal")
        if not guard.is_alone() or not guard.is_of(path) or (log.exists() and log.stat().st_size):
            return
        write_held(path, guard)


def write_held(path: Path, guard: Guard) -> bool:
    """Leave a checksum beside a view that nobody can change meanwhile; say whether there is one.

    Raises:
        OSError: It cannot be written.
    """
    measured = _measure(guard)
    if measured is None:
        return False
    body = _RECORD.pack(*measured)
    fd = os.open(_name(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o666)
    try:
        os.write(fd, body + xxh3_64_intdigest(body).to_bytes(8, "little"))
    finally:
        os.close(fd)
    return True


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
    buffer = memoryview(bytearray(min(_BUFFER_BYTES, length)))
    hasher, offset = xxh3_128(), 0
    while offset < length and (count := os.preadv(guard.fd, [buffer], offset)):
        hasher.update(buffer[:count])
        offset += count
    return offset, hasher.digest()
