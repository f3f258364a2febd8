"""How many bytes only some checkpoints hold: what collection can give back when they are gone.

A chunk counts once, with the bytes of its frame, if a payload of a checkpoint that goes has it and
none of one that stays. Two walks: chunks of those that go are gathered, then those of the ones that
stay are struck out. A node that was walked before is not walked again, so shared parts cost once.

Memory: bounded. Up to `DIGESTS_MAX` chunks (some 60 MB) the number is exact. Beyond, chunks are
sampled by their digests (every second, fourth, ...: digests are as good as random), and the
number is an estimate. It is one too where a payload could not be read.

What is not known from here: a chunk that is stored as a difference from one that goes needs its
base for as long as it is not stored anew, so collection may give back less at first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from ckptlog.blobs.payload import LEAF_KIND, LIST_KIND, TREE_KIND, root_of
from ckptlog.errors import CheckpointError
from ckptlog.formats import branch, chunk, node
from ckptlog.model.event import Reference
from ckptlog.repository.store import Store

DIGESTS_MAX: Final = 500_000
_WALKED_MAX: Final = 500_000


class Weight(msgspec.Struct, frozen=True):
    """What was found.

    bytes, chunks: That only the given checkpoints hold. is_estimate: Whether they are estimates;
    sample: one chunk in so many was looked at. unread: Payloads that could not be read.
    """

    bytes: int
    chunks: int
    is_estimate: bool
    sample: int
    unread: int


class Scale:
    """Weighs checkpoints: `take` those that go, then `keep` those that stay, then `weight`."""

    def __init__(self, store: Store, *, digests_max: int = DIGESTS_MAX) -> None:
        self._store = store
        self._digests_max = digests_max
        self._digests: set[bytes] = set()
        self._walked: set[bytes] = set()
        self._sample = 1
        self._unread = 0

    def take(self, payloads: Iterable[Reference]) -> None:
        """Take in the payloads of a checkpoint that goes."""
        self._walk(payloads, self._add)

    def begin_keeping(self) -> None:
        """End the first walk."""
        self._walked.clear()

    def keep(self, payloads: Iterable[Reference]) -> None:
        """Strike out what a checkpoint that stays holds."""
        if self._digests:
            self._walk(payloads, self._digests.discard)

    def weight(self) -> Weight:
        """Return what is left."""
        blobs = self._store.blobs
        total = count = 0
        for digest in self._digests:
            place = blobs.index.get(digest) or (
                blobs.missing(digest, None) if blobs.missing else None
            )
            if place is None:
                self._unread += 1
                continue
            total, count = total + place.length, count + 1
        is_estimate = self._sample > 1 or self._unread > 0
        return Weight(
            total * self._sample, count * self._sample, is_estimate, self._sample, self._unread
        )

    def _add(self, digest: bytes) -> None:
        if self._is_sampled(digest):
            self._digests.add(digest)
            while len(self._digests) > self._digests_max:
                self._sample *= 2
                self._digests = set(filter(self._is_sampled, self._digests))

    def _is_sampled(self, digest: bytes) -> bool:
        return int.from_bytes(digest[:8], "little") & (self._sample - 1) == 0

    def _walk(self, payloads: Iterable[Reference], meet: Callable[[bytes], None]) -> None:
        for reference in payloads:
            try:
                self._descend(reference, meet)
            except CheckpointError:
                self._unread += 1

    def _descend(self, reference: Reference, meet: Callable[[bytes], None]) -> None:
        root = root_of(reference)
        meet(root)
        if reference.kind == LEAF_KIND:
            return
        waiting = [root]
        while waiting:
            digest = waiting.pop()
            if digest in self._walked:
                continue
            if len(self._walked) >= _WALKED_MAX:
                self._walked.clear()
            self._walked.add(digest)
            for child, is_leaf in _CHILDREN[reference.kind](self._store, digest):
                meet(child)
                if not is_leaf:
                    waiting.append(child)


def _links(store: Store, digest: bytes) -> list[tuple[bytes, bool]]:
    parts = branch.decode(store.blobs.raw(digest, chunk.BRANCH))
    return [
        (part.digest, part.kind == branch.LEAF) for part in parts if isinstance(part, branch.Link)
    ]


def _nodes(store: Store, digest: bytes) -> list[tuple[bytes, bool]]:
    level, children = node.decode(store.blobs.raw(digest, chunk.NODE))
    return [(child.digest, level == 1) for child in children]


_CHILDREN: Final = {TREE_KIND: _links, LIST_KIND: _nodes}
