"""The marks of a collection: what its walk over the payloads that are kept need not visit again."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from ckptlog.blobs.live_set import LiveSet
from ckptlog.blobs.run import KEY_BYTES
from ckptlog.blobs.store import BlobStore
from ckptlog.errors import BlobCorruptionError, MissingBlobError
from ckptlog.formats import chunk

# Chunks of one payload that are in memory: some 15 MB.
_FRESH_MAX: Final = 100_000


class Marks:
    """What a walk over payloads passes by: chunks that are marked, and those that are lost.

    Of a payload that turns out to be gone nothing is marked, unless it is a very large one: what
    was met of that stays for once.

    A chunk that was lost is there again once somebody has saved the same data, or given it back:
    then it is as good as any other.

    Args:
        live: Takes what is marked.
        lost: Keys of chunks of which a repair has told that they are lost.

    Threads: one.
    """

    def __init__(self, live: LiveSet, lost: frozenset[bytes], blobs: BlobStore) -> None:
        self._live = live
        self._lost = lost
        self._fresh: set[bytes] = set()
        self._blobs = blobs
        self._missing: dict[bytes, bool] = {}

    def __contains__(self, digest: object) -> bool:
        if digest in self._fresh or digest in self._live:
            return True
        if not self._lost or type(digest) is not bytes or digest[:KEY_BYTES] not in self._lost:
            return False
        if digest not in self._missing:
            self._missing[digest] = self._is_missing(digest)
        return self._missing[digest]

    def _is_missing(self, digest: bytes) -> bool:
        try:
            self._blobs.raw(digest, chunk.BRANCH)
        except MissingBlobError:
            return True
        except BlobCorruptionError:  # it is there: as a leaf, or damaged, which its reader tells
            return False
        return False

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
