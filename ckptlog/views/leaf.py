"""The leaf hashes of the log's RFC 6962 tree, one after the other: a cache (specs/tree.md).

Leaf n is SHA-256 over 0x00 and event n's JSON; the file holds it at 32 * n, and nothing else. Any
process may write: the same position always gets the same bytes. What is missing or wrong is
computed again from the log; verification never believes this file, it compares. A symbolic link in
its place is never written through: nothing is cached then, and a rebuild puts a file there.

Between the look at the file's length and the write behind it nobody may cut the file: the write
would leave zeros before it. So a write holds the file's lock shared, a cut alone. Who cannot have
it at once writes nothing: the next write finds what is missing.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from xxhash import xxh3_64_intdigest

from ckptlog.errors import CheckpointStorageError
from ckptlog.model.entry import Commit
from ckptlog.storage import files

LEAF_BYTES: Final = 32
# What the folder's writers put in its place is not written through.
_WRITING: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
# boot id, position up to which the leaves are on the medium, sum
_SEAL: Final = struct.Struct("<16sQQ")


class LeafCache:
    """The file of leaf hashes; nothing is kept where it cannot be written.

    Args:
        boot: 16 bytes that differ after a reboot: a power cut may leave a file that is long enough
            and holds zeros, so what was not synced before a reboot is cut off. None: whoever reads
            compares what it gets.

    Durability: none; it is disposable.        Threads: the owner serialises writes.
    """

    def __init__(self, path: Path | None, boot: bytes | None = None) -> None:
        self._path = path
        self._boot = boot
        self._is_sealed = boot is None
        self._has_written = False

    @property
    def position(self) -> int:
        """Position after the last whole leaf in the file."""
        if self._path is None:
            return 0
        try:
            return self._path.stat().st_size // LEAF_BYTES
        except OSError:
            return 0

    def read(self, start: int, stop: int) -> list[bytes]:
        """Return the leaves of positions start <= position < stop, as far as they are there."""
        if self._path is None or start >= stop:
            return []
        try:
            with self._path.open("rb") as file:
                file.seek(start * LEAF_BYTES)
                data = file.read(max(0, stop - start) * LEAF_BYTES)
        except OSError:
            return []
        whole = len(data) // LEAF_BYTES
        return [data[at * LEAF_BYTES : (at + 1) * LEAF_BYTES] for at in range(whole)]

    @property
    def position_sound(self) -> int:
        """Position up to which no reboot can have left zeros: what was synced, or is of this boot.

        For who has nothing to compare with, and so needs a cache that was given the boot.
        """
        if self._boot is None or self._path is None:
            return 0
        boot, synced = self._read_seal()
        is_ours = boot == self._boot and any(boot)  # zeros tell no boots apart
        return self.position if is_ours else min(self.position, synced)

    def write(self, commits: Sequence[Commit]) -> bool:
        """Add the leaves of commits; say whether nothing is missing before them."""
        if self._path is None or not commits:
            return True
        first = commits[0].entries[0].position
        return self.put(first, [leaf for commit in commits for leaf in leaves_of(commit)])

    def put(self, first: int, leaves: Iterable[bytes]) -> bool:
        """Add the leaves of the positions from `first` on; False as `write`."""
        if self._path is None:
            return True
        if first > self.position:
            return False
        data = b"".join(leaves)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if first == 0 and self._path.is_symlink():
                self._path.unlink()  # all of it is written anew: into a file of its own
            fd = os.open(self._path, _WRITING | os.O_CREAT, 0o666)
            try:
                self._leave_seal(fd)
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                if first > os.fstat(fd).st_size // LEAF_BYTES:
                    return False
                os.pwrite(fd, data, first * LEAF_BYTES)
            finally:
                files.unlock_and_close(fd)
        except BlockingIOError:  # somebody cuts it
            return True
        except OSError:
            # A cache that cannot be written is simply not there.
            self._path = None
        return True

    def close(self) -> None:
        """Put what is there on the medium, so that it counts after a reboot."""
        if self._path is None or self._boot is None or not self._has_written:
            return
        with suppress(OSError):
            position = self.position
            fd = os.open(self._path, _WRITING)
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)
            self._seal(position)

    def _leave_seal(self, fd: int) -> None:
        """Before the first write: cut off what was not synced before a reboot, if nobody did."""
        self._has_written = True
        if self._is_sealed or self._path is None:
            return
        if self._read_seal()[0] != self._boot:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            boot, synced = self._read_seal()
            if boot != self._boot:
                if os.fstat(fd).st_size > synced * LEAF_BYTES:
                    os.ftruncate(fd, synced * LEAF_BYTES)
                self._seal(synced)
        self._is_sealed = True

    def _read_seal(self) -> tuple[bytes, int]:
        try:
            data = self._seal_path.read_bytes()
        except OSError:
            return b"", 0
        is_whole = len(data) == _SEAL.size and xxh3_64_intdigest(data[:-8]) == int.from_bytes(
            data[-8:], "little"
        )
        return (data[:16], int.from_bytes(data[16:24], "little")) if is_whole else (b"", 0)

    def _seal(self, position: int) -> None:
        """Say in which boot the file is written, and up to where it is on the medium."""
        assert self._boot is not None  # noqa: S101 - asked by the callers
        self._seal_path.parent.mkdir(parents=True, exist_ok=True)
        data = self._boot + position.to_bytes(8, "little")
        data += xxh3_64_intdigest(data).to_bytes(8, "little")
        with suppress(CheckpointStorageError):
            files.write_atomically(self._seal_path, data, durable=False)

    @property
    def _seal_path(self) -> Path:
        assert self._path is not None  # noqa: S101 - asked by the callers
        return self._path.with_name("seal")

    def cut(self, position: int) -> None:
        """Drop what lies behind a position, after it was written anew up to there."""
        if self._path is not None and self.position > position:
            with suppress(OSError):
                fd = os.open(self._path, _WRITING)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX)
                    os.ftruncate(fd, position * LEAF_BYTES)
                finally:
                    files.unlock_and_close(fd)

    def remove(self) -> None:
        """Throw the file away, for a rebuild."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)


def leaves_of(commit: Commit) -> tuple[bytes, ...]:
    """Return the leaf hashes of a commit's events, in order."""
    return commit.leaves
