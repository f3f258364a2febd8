"""Reads what a walk found: each file's content once, into a sink that stores it or only hashes it.

What the index knows is not read. A file that went away between the walk and its reading is left
out. One that changed is tried again where the consistency is "file" (a file is never torn, but two
files may be of two moments); where it is "cut", all that are read are of the moment of the walk, so
that a change means that the whole capture is taken again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from blake3 import blake3

from ckptlog.capture.directory import name as naming
from ckptlog.capture.directory.content import (
    READ_BYTES,
    ChangedFile,
    OpenFile,
    identity_of,
    open_file,
)
from ckptlog.capture.directory.descent import Descent
from ckptlog.capture.directory.entry import INLINE_BYTES_MAX, attributes_of
from ckptlog.capture.directory.prefetch import PREFETCHED_BYTES_MIN, prefetched
from ckptlog.capture.directory.scan import Options, unreadable
from ckptlog.capture.directory.stat_index import Kept
from ckptlog.capture.directory.table import Row
from ckptlog.errors import ChangedError

_ATTEMPTS: Final = 5

# Stores content piece by piece; returns digest and size of what holds it.
Sink = Callable[[Iterable[bytes]], tuple[bytes, int]]
Known = Callable[[bytes], Kept | None]


@dataclass
class Tally:
    """What was read. hard_links: files that have other names as well; each is stored by itself."""

    files: int = 0
    size_bytes: int = 0
    hard_links: int = 0


class Reading:
    """Reads the files of one walk, in the walk's order.

    Args:
        is_cut: Whether a file must be as the walk saw it.
        known: Returns what the capture before has of a content with a BLAKE3; None where nothing.

    Threads: not safe.
    """

    def __init__(
        self,
        root: str,
        options: Options,
        sink: Sink | None,
        *,
        is_cut: bool,
        known: Known | None = None,
    ) -> None:
        self._root = root
        self._options = options
        self._sink = sink
        self._is_cut = is_cut
        self._known = known
        self._descent = Descent(root)
        self.tally = Tally()
        self.skipped: dict[str, str] = {}

    def close(self) -> None:
        """Close what is open."""
        self._descent.close()

    def read(self, directory: str, row: Row, before: Kept | None = None) -> tuple[Row, Kept] | None:
        """Return what a file or link holds, with the row as it was read; None where it is gone.

        Args:
            before: What it held when it was captured last: the same content is not stored again.

        Raises:
            ChangedError: It changed, in spite of repetitions where these are allowed.
            DeniedError: It cannot be read, and this is not to be reported only.
        """
        path = naming.join(directory, row[0])
        for _ in range(1 if self._is_cut else _ATTEMPTS):
            try:
                fd = self._descent.open(directory)
                is_link = stat.S_ISLNK(row[1])
                return self._link(fd, row) if is_link else self._file(fd, row, before)
            except ChangedFile:
                continue
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError as error:
                self._refuse(path, error)
                return None
        raise ChangedError(
            f"{naming.shown(os.path.join(self._root, path))} changed while it was read.",
            hint="Capture again; leave files that never rest out with a line in .ckptlogignore.",
            path=naming.shown(path),
        )

    def _refuse(self, path: str, error: OSError) -> None:
        reason = f"cannot be read: {error.strerror}"
        if self._options.unreadable == "report":
            self.skipped[naming.encode(path)] = reason
            return
        raise unreadable(os.path.join(self._root, path), reason) from error

    def _link(self, fd: int, row: Row) -> tuple[Row, Kept]:
        try:
            target = os.readlink(row[0], dir_fd=fd)
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise ChangedFile from error
        return row, Kept(os.fsencode(target))

    def _file(self, fd: int, row: Row, before: Kept | None) -> tuple[Row, Kept] | None:
        opened = open_file(row[0], fd)
        if opened is None:
            return None
        try:
            if self._is_cut and opened.identity != row[1:]:
                raise ChangedFile
            kept = self._content(opened, before)
            opened.check()
            self.tally.files += 1
            self.tally.hard_links += opened.links > 1
            return (row[0], *opened.identity), kept
        finally:
            os.close(opened.fd)

    def _content(self, opened: OpenFile, before: Kept | None) -> Kept:
        there = attributes_of(opened.fd) if self._options.has_attributes else {}
        attributes = {naming.encode(name): value for name, value in there.items()}
        extents = opened.extents()
        pieces = opened.read(extents)
        size = opened.size if extents is None else sum(length for _, length in extents)
        self.tally.size_bytes += size
        if size <= INLINE_BYTES_MAX:
            return Kept(b"".join(pieces), extents=extents, attributes=attributes or None)
        if self._known is not None and size <= READ_BYTES:  # it is in memory at once, whole
            whole = b"".join(pieces)
            found = blake3(whole).digest()
            same = before if before is not None and before.hash == found else self._known(found)
            if same is not None:
                return Kept(b"", found, same.digest, same.size, extents, attributes or None)
            pieces = iter((whole,))
        hasher = blake3()
        hashed = _hashed(pieces, hasher)
        with closing(prefetched(hashed) if size >= PREFETCHED_BYTES_MIN else hashed) as made:
            digest, stored = (self._sink or _drained)(made)
        return Kept(b"", hasher.digest(), digest, stored, extents, attributes or None)


def _hashed(pieces: Iterator[bytes], hasher: blake3) -> Generator[bytes]:
    for piece in pieces:
        hasher.update(piece)
        yield piece


def _drained(pieces: Iterable[bytes]) -> tuple[bytes, int]:
    for _ in pieces:
        pass
    return b"", 0


def is_as_walked(name: str, directory: int, row: Row) -> bool:
    """Say whether a name still is what a walk saw."""
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if stat.S_ISDIR(row[1]):
        return stat.S_ISDIR(found.st_mode)
    return identity_of(found) == row[1:]
