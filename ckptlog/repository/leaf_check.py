"""The cache of leaf hashes beside the leaves that a verification computes from the log."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from ckptlog.model.entry import Commit
from ckptlog.views.leaf import LEAF_BYTES, leaves_of


class LeafCheck:
    """Reads the cache along with the log. A cache that is short, or not there, is no fault."""

    def __init__(self, path: Path) -> None:
        self.wrong_at: int | None = None
        self._file: BinaryIO | None
        try:
            self._file = path.open("rb")
        except OSError:
            self._file = None

    def add(self, commit: Commit) -> None:
        """Compare the leaves of the next commit; commits come from position 0 on, all of them."""
        if self._file is None or self.wrong_at is not None:
            return
        leaves = b"".join(leaves_of(commit))
        cached = self._file.read(len(leaves))
        whole = len(cached) - len(cached) % LEAF_BYTES
        if cached[:whole] != leaves[:whole]:
            self.wrong_at = commit.entries[0].position

    def close(self, position: int) -> int | None:
        """Return the position from which the cache is wrong, None where it is right.

        position: After the last event that was read.
        """
        if self._file is not None:
            if self.wrong_at is None and self._file.read(LEAF_BYTES):
                self.wrong_at = position
            self._file.close()
        return self.wrong_at
