"""Small durable acts on local files; every OSError leaves as an error of ours.

What each call promises:
* a file that `write_atomically` made is there whole or not at all, to every reader, at any time;
* what `sync_file` returned for is on the medium; a new *name* is there only after
  `sync_directory` of its folder, so a file that must survive needs both;
* after an error from `sync_file` the descriptor must not be used again: the kernel may have
  dropped the pages and marked them clean, and the next sync would lie.

Temporary files stand in the folder of their target (rename does not cross file systems) and end
in `.tmp`. A crash can leave one behind. Whoever writes one holds a lock on it until it has its
final name, and a lock dies with its holder: what nobody holds is left over, and
`remove_left_over` removes it (specs/collection.md).
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ckptlog.errors import InputOutputError, from_os_error

TEMPORARY_SUFFIX: Final = ".tmp"
# Readable by whom the umask allows, like every file that a program makes.
_FILE_MODE = 0o666
_TEMPORARY_NAME: Final = re.compile(rf".+\.[0-9]+-[0-9]+{re.escape(TEMPORARY_SUFFIX)}")
_serial = itertools.count()


def sync_file(fd: int) -> None:
    """Put a file's bytes and size on the medium.

    Raises:
        CheckpointStorageError: The sync failed; never use the descriptor again.

    Durability: the bytes; not the file's name.        Threads: safe.
    """
    try:
        if sys.platform == "darwin":  # pragma: no cover - fsync does not reach the medium there
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(fd)
    except OSError as error:
        raise from_os_error(error, f"Syncing descriptor {fd} failed") from error


def sync_directory(path: Path) -> None:
    """Put the names in a folder on the medium.

    Durability: creations, renames and removals in the folder.        Threads: safe.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise from_os_error(error, f"Syncing the folder {path} failed") from error


def create_exclusive(path: Path) -> int:
    """Create a file that must not exist and return its descriptor, open for both ways.

    Raises:
        CheckpointStorageError: It exists (errno EEXIST in the context), or cannot be made.

    Durability: none yet; sync the file and then its folder.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, _FILE_MODE)
    except OSError as error:
        raise from_os_error(error, "Creating a file failed") from error


def open_in_place(path: Path, flags: int = 0) -> int:
    """Open a file of a store for both ways; one that is to be written where it lies.

    Never through a symbolic link: whoever may write to the store's folder would else choose any
    file of ours to be overwritten.

    Args:
        flags: More than O_RDWR: O_CREAT, say.

    Raises:
        CheckpointStorageError: By kind; a link is one of them.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | flags, _FILE_MODE)
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink():
            raise InputOutputError(
                f"{path} is a symbolic link; a store writes to its own files only.",
                hint="Put the file itself in its place. A link below views may be removed: "
                "ckptlog replay writes what is missing there.",
                errno=error.errno,
                path=str(path),
            ) from error
        raise from_os_error(error, "Cannot open for writing") from error


def open_regular(path: Path) -> int:
    """Open a regular file for reading; nothing is waited for.

    Raises:
        InputOutputError: It is something else: a FIFO would have no end, or never a beginning.
        OSError: It cannot be opened.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InputOutputError(
                f"{path} is no regular file.",
                hint="Put the file itself in its place.",
                path=str(path),
            )
    except BaseException:
        os.close(fd)
        raise
    return fd


def create_temporary(target: Path) -> tuple[int, Path]:
    """Create a new temporary file beside `target`; return its descriptor and path.

    The descriptor holds a lock that says that somebody works on it: it must stay open until the
    file was published, or removed.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    while True:
        name = f"{target.name}.{os.getpid()}-{next(_serial)}{TEMPORARY_SUFFIX}"
        path = target.with_name(name)
        try:
            fd = os.open(path, flags, _FILE_MODE)
        except FileExistsError:  # left by a dead process that had our id
            continue
        except OSError as error:
            raise from_os_error(error, "Creating a file failed") from error
        if _hold(fd):
            return fd, path
        os.close(fd)


def _hold(fd: int) -> bool:
    """Lock a file that was made just now; False if somebody took it for a left-over before."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks here: then nobody gets one to remove it, either
        return True
    return os.fstat(fd).st_nlink > 0


def remove_left_over(folder: Path, target: str = "") -> int:
    """Remove the temporary files in a folder that no living process works on; return how many.

    Args:
        target: Only those that were to become the file of this name.

    Durability: none.        Threads: safe beside those that write such files.
    """
    count = 0
    try:
        with os.scandir(folder) as found:
            names = [entry.name for entry in found if entry.name.endswith(TEMPORARY_SUFFIX)]
    except OSError:
        return 0
    for name in sorted(names):
        is_wanted = _TEMPORARY_NAME.fullmatch(name) is not None
        if is_wanted and (not target or name.rsplit(".", 2)[0] == target):
            count += _remove_unheld(folder / name)
    return count


def _remove_unheld(path: Path) -> bool:
    """Remove a file that nobody holds a lock on; say whether it was."""
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held, named = os.fstat(fd), path.lstat()
            if not stat.S_ISREG(held.st_mode) or (held.st_dev, held.st_ino) != (
                named.st_dev,
                named.st_ino,
            ):
                return False
            path.unlink()
            return True
        finally:
            os.close(fd)
    return False


def read_at(fd: int, length: int, offset: int) -> bytes:
    """Return `length` bytes from `offset`; fewer only where the file ends before."""
    try:
        data = os.pread(fd, length, offset)
        if len(data) == length or not data:
            return data
        return _read_on(fd, length, offset, data)
    except OSError as error:
        raise from_os_error(error, f"Reading {length} bytes at {offset} failed") from error


def read_into(fd: int, buffer: memoryview, offset: int) -> int:
    """Fill buffer from `offset`; return how many bytes came, fewer only where the file ends.

    A long buffer that is used again costs no page faults, which `read_at` pays for each call.
    """
    total = 0
    try:
        while total < len(buffer):
            count = os.preadv(fd, [buffer[total:]], offset + total)
            if not count:
                break
            total += count
    except OSError as error:
        raise from_os_error(error, f"Reading {len(buffer)} bytes at {offset} failed") from error
    return total


def _read_on(fd: int, length: int, offset: int, first: bytes) -> bytes:
    parts, total = [first], len(first)
    while total < length:
        part = os.pread(fd, length - total, offset + total)
        if not part:
            break
        parts.append(part)
        total += len(part)
    return b"".join(parts)


def write_all(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of data at `offset`, however many calls that takes.

    Raises:
        CheckpointStorageError: Some of the bytes may have been written.

    Durability: none; `sync_file` follows.        Threads: safe for disjoint ranges.
    """
    try:
        written = os.pwrite(fd, data, offset)
        if written == len(data):
            return
        rest = memoryview(data)
        while written < len(rest):
            written += os.pwrite(fd, rest[written:], offset + written)
    except OSError as error:
        raise from_os_error(error, f"Writing {len(data)} bytes at {offset} failed") from error


def begin_writing_back(fd: int, offset: int, length: int) -> None:
    """Let the system begin to put bytes on the medium, so that a later sync has less to wait for.

    Durability: none; nothing is promised, and a failure is the later sync's to tell.
    """
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):
            os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)


def publish(temporary: Path, target: Path, *, durable: bool = True) -> None:
    """Rename a temporary file to its target, replacing it; sync the folder when durable."""
    try:
        os.replace(temporary, target)
    except OSError as error:
        raise from_os_error(error, f"Renaming to {target} failed") from error
    if durable:
        sync_directory(target.parent)


def unlock_and_close(fd: int) -> None:
    """Give the flock of a descriptor back, and close it.

    Closing alone would leave it to a child that was forked meanwhile, for as long as that lives: it
    has a copy of the descriptor.
    """
    with suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def make_below(root: Path, folder: Path) -> None:
    """Make a folder where it is missing, and those above it, but not the root of them all.

    Where that was removed, what is made anew would be no store, and in the way of the next one.

    Raises:
        FileNotFoundError: The root is not there.
    """
    if not root.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(root))
    folder.mkdir(parents=True, exist_ok=True)


def remove(path: Path) -> None:
    """Remove a file if it is there; say nothing of any failure (it is only a left-over)."""
    with suppress(OSError):
        path.unlink()


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[int]:
    """Give a descriptor to write what path is once the block ends; after a failure it is as before.

    Args:
        durable: As for `write_atomically`.

    Raises:
        CheckpointStorageError: By kind; no temporary file stays.
    """
    fd, temporary = create_temporary(path)
    try:
        yield fd
        if durable:
            sync_file(fd)
        publish(temporary, path, durable=durable)
    except BaseException:
        remove(temporary)
        raise
    finally:
        os.close(fd)


def write_atomically(
    path: Path, data: bytes | bytearray | memoryview, *, durable: bool = True
) -> None:
    """Make path hold exactly data; on any failure the old content stays.

    Args:
        durable: Whether to return only when bytes and name are on the medium. Readers see the
            old or the new content in any case; without it, a power cut may leave neither.

    Raises:
        CheckpointStorageError: By kind (full, denied, read-only, io); no temporary file stays.

    Durability: as `durable` says.        Threads: safe; the last of two callers wins.
    """
    with replacing(path, durable=durable) as fd:
        write_all(fd, data, 0)
