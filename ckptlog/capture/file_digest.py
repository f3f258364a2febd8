"""The digest of a database file as it was captured, but for its journal mode.

It is computed while captured pages are written, and asked of the file that takes the database's
place before it does: whatever a medium, a full disk or somebody else made of it meanwhile.
"""

from __future__ import annotations

import os
from typing import Final

from blake3 import blake3

VERSIONS: Final = slice(18, 20)
"""Of the header: 1, 1 rollback journal; 2, 2 write-ahead log. The restore sets them."""
_PART_BYTES: Final = 1 << 20


class FileDigest:
    """Takes in a database from its first byte on.

    Threads: one.        Cost: BLAKE3 of all bytes.
    """

    def __init__(self) -> None:
        self._hash = blake3()
        self._size = 0

    def update(self, part: bytes | bytearray | memoryview) -> None:
        """Take in what follows."""
        if self._size < VERSIONS.stop and part:
            masked = bytearray(part)
            for at in range(VERSIONS.start, VERSIONS.stop):
                if 0 <= at - self._size < len(masked):
                    masked[at - self._size] = 0
            part = masked
        self._hash.update(part)
        self._size += len(part)

    def digest(self) -> bytes:
        """Return the digest of all that was taken in."""
        return self._hash.digest()


def digest_of_file(fd: int) -> bytes:
    """Return the digest of an open file, whatever its offset is."""
    found, at = FileDigest(), 0
    while part := os.pread(fd, _PART_BYTES, at):
        found.update(part)
        at += len(part)
    return found.digest()
