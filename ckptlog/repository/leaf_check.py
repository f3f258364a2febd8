"""The cache of leaf hashes beside the leaves that a verification computes from the log.

Others write to it meanwhile: each leaf is read where it must stand, and only what stands beyond
the log's present end is too much.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ckptlog.model.entry import Commit
from ckptlog.views.leaf import LEAF_BYTES, LeafCache, leaves_of


class LeafCheck:
    """Reads the cache along with the log. A cache that is short, or not there, is no fault.

    Args:
        boot: 16 bytes that differ after a reboot. What a power cut may have left behind what was
            synced is believed by nobody: the next write cuts it off.
    """

    def __init__(self, path: Path, boot: bytes) -> None:
        self._sound = LeafCache(path, boot).position_sound
        self._wrong_at: int | None = None
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1

    def add(self, commit: Commit) -> None:
        """Compare the leaves of a commit."""
        if self._fd < 0 or self._wrong_at is not None:
            return
        position = commit.entries[0].position
        leaves = b"".join(leaves_of(commit)[: max(0, self._sound - position)])
        try:
            cached = os.pread(self._fd, len(leaves), position * LEAF_BYTES)
        except OSError:  # a cache that cannot be read is as good as none
            self.close()
            return
        whole = len(cached) - len(cached) % LEAF_BYTES
        if cached[:whole] != leaves[:whole]:
            self._wrong_at = position

    def wrong_at(self, present: Callable[[], int]) -> int | None:
        """Return the position from which the cache is wrong, None where it is right.

        Args:
            present: Returns the position after the last durable event; asked after the cache.
        """
        if self._fd >= 0 and self._wrong_at is None:
            size = os.fstat(self._fd).st_size
            position = present()
            return position if min(self._sound, size // LEAF_BYTES) > position else None
        return self._wrong_at

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
