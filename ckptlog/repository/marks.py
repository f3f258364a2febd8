"""Marks: the chunks that a collection keeps, gathered payload by payload."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from ckptlog.blobs.live_set import LiveSet
from ckptlog.blobs.run import KEY_BYTES

# Chunks of one payload that are in memory: some 15 MB.
_FRESH_MAX: Final = 100_000


class Marks:
    """What a walk over payloads passes by: chunks that are marked, and those that are lost.

    Of a payload that turns out to be gone nothing is marked, unless it is a very large one: what
    was met of that stays for once.

    Args:
        live: Takes what is marked.
        lost: Keys of chunks that nothing needs, since a repair has told that they are lost.

    Threads: one.
    """

    def __init__(self, live: LiveSet, lost: frozenset[bytes]) -> None:
        self._live = live
        self._lost = lost
        self._fresh: set[bytes] = set()

    def __contains__(self, digest: object) -> bool:
        if digest in self._fresh or digest in self._live:
            return True
        return bool(self._lost) and type(digest) is bytes and digest[:KEY_BYTES] in self._lost

    def enter(self, reached: Iterable[Collection[bytes]]) -> None:
        """Mark the chunks of one payload; what the walk raises passes through."""
        fresh = self._fresh
        try:
            for digests in reached:
                fresh.update(digests)
                if len(fresh) >= _FRESH_MAX:
                    self._live.update(fresh)
                    fresh.clear()
            self._live.update(fresh)
        finally:
            fresh.clear()
