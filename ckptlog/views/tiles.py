"""The tree over the events as rows of hashes: a cache (specs/tree.md).

    views/tree/leaves        level 0: the leaf hashes (views/leaf.py writes it too)
    views/tree/level-<n>     the roots over 256**n leaves each, as many as there are

Hash i of a level is at 32 * i, so each run of 256 is a tile (formats/tile.py), and a proof reads
some of at most three of them for 16 million events. Whole tiles never change. As with every view,
nothing here is believed: who uses a tree compares a root of it with a signed one, or has just made
it from the log (repository/tree.py).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from ckptlog.errors import CheckpointStorageError, MissingBlobError, operating_system_door
from ckptlog.formats import merkle
from ckptlog.formats.merkle import HASH_BYTES
from ckptlog.formats.tile import HEIGHT, LEVEL_MAX, WIDTH
from ckptlog.storage import files

# So many parents are made at once: bounds memory at 32 * 256 * 64 bytes.
_PARENTS_MAX = 64


class Row(Protocol):
    """The hashes of one level."""

    @property
    def count(self) -> int:
        """Return how many there are."""

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes of hashes start to stop, as far as they are there."""

    def write(self, start: int, data: bytes) -> None:
        """Put hashes at a place at or before the end."""

    def cut(self, count: int) -> None:
        """Drop all but the first so many."""


class FileRow:
    """A row in a file. Any process may write: the same place always gets the same bytes.

    Durability: none; it is disposable.        Threads: safe.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def count(self) -> int:
        """Return how many whole hashes are in the file."""
        try:
            return self._path.stat().st_size // HASH_BYTES
        except OSError:
            return 0

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes of hashes start to stop, as far as they are there."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            return os.pread(fd, (stop - start) * HASH_BYTES, start * HASH_BYTES)
        except OSError:
            return b""
        finally:
            os.close(fd)

    def write(self, start: int, data: bytes) -> None:
        """Put hashes at a place at or before the end."""
        with operating_system_door("Cannot write the tree"):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fd = files.open_in_place(self._path, os.O_CREAT)
            try:
                os.pwrite(fd, data, start * HASH_BYTES)
            finally:
                os.close(fd)

    def cut(self, count: int) -> None:
        """Drop all but the first so many."""
        if self.count > count:
            with suppress(CheckpointStorageError, OSError):
                fd = files.open_in_place(self._path)
                try:
                    os.ftruncate(fd, count * HASH_BYTES)
                finally:
                    os.close(fd)


class MemoryRow:
    """A row in memory, where nothing can be written.

    Threads: one writes at a time.
    """

    def __init__(self) -> None:
        self._data = bytearray()

    @property
    def count(self) -> int:
        """Return how many hashes there are."""
        return len(self._data) // HASH_BYTES

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes of hashes start to stop, as far as they are there."""
        return bytes(self._data[start * HASH_BYTES : stop * HASH_BYTES])

    def write(self, start: int, data: bytes) -> None:
        """Put hashes at a place at or before the end."""
        self._data[start * HASH_BYTES : start * HASH_BYTES + len(data)] = data

    def cut(self, count: int) -> None:
        """Drop all but the first so many."""
        del self._data[count * HASH_BYTES :]


class Tree:
    """All levels of one store's tree.

    Args:
        folder: `views/tree`; None keeps it in memory.

    Threads: reading is safe beside one that grows it.
    """

    def __init__(self, folder: Path | None) -> None:
        self._rows: list[Row]
        if folder is None:
            self._rows = [MemoryRow() for _ in range(LEVEL_MAX + 1)]
        else:
            names = ["leaves", *(f"level-{level}" for level in range(1, LEVEL_MAX + 1))]
            self._rows = [FileRow(folder / name) for name in names]

    @property
    def size(self) -> int:
        """Return how many leaves there are."""
        return self._rows[0].count

    def leaf(self, position: int) -> bytes:
        """Return one leaf hash.

        Raises:
            MissingBlobError: It is not here.
        """
        return self._hashes(0, position, position + 1)[0]

    def hashes(self, level: int, start: int, stop: int) -> bytes:
        """Return hashes of a level of tiles, one after the other.

        Raises:
            MissingBlobError: Some are not here.
        """
        data = self._rows[level].read(start, stop)
        if len(data) != (stop - start) * HASH_BYTES:
            raise MissingBlobError(f"The tree lacks hashes {start} to {stop} of level {level}.")
        return data

    def _hashes(self, level: int, start: int, stop: int) -> list[bytes]:
        data = self.hashes(level, start, stop)
        return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]

    def perfect(self, level: int, index: int) -> bytes:
        """Return the hash of a perfect subtree (formats.merkle.Perfect).

        Raises:
            MissingBlobError: The tree has not grown so far.

        Cost: one read, and at most 127 hashes.
        """
        tiles, rest = divmod(level, HEIGHT)
        start = index << rest
        return merkle.perfect_hash(self._hashes(tiles, start, start + (1 << rest)))

    def root(self, size: int) -> bytes:
        """Return the root of the first `size` leaves.

        Raises:
            MissingBlobError: The tree has not grown so far.
        """
        return merkle.root_hash(self.perfect, size)

    def grow(self, first: int, leaves: Sequence[bytes]) -> None:
        """Take in leaves from a position at or before the end on, and what is whole above them.

        Raises:
            MissingBlobError: There is a gap before them (somebody has cut the files).
            CheckpointStorageError: It cannot be written.

        Cost: 1 hash a leaf and 32 bytes written.
        """
        if first > self.size:
            raise MissingBlobError(f"The tree ends at {self.size}, before {first}.")
        self._rows[0].write(first, b"".join(leaves))
        below = first + len(leaves)
        for level, row in enumerate(self._rows[1:], 1):
            below = self._complete(level, row, below // WIDTH)
            if not below:
                return

    def _complete(self, level: int, row: Row, count: int) -> int:
        """Make the parents that are missing, up to so many; return their number."""
        while (at := row.count) < count:
            stop = min(count, at + _PARENTS_MAX)
            children = self._hashes(level - 1, at * WIDTH, stop * WIDTH)
            parents = (
                merkle.perfect_hash(children[child : child + WIDTH])
                for child in range(0, len(children), WIDTH)
            )
            row.write(at, b"".join(parents))
        return count

    def clear(self, *, above: int = 0) -> None:
        """Forget everything, or the levels from `above` on."""
        for row in self._rows[above:]:
            row.cut(0)
