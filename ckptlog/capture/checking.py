"""Reads every chunk of a payload, or some of them, and keeps none of it."""

from __future__ import annotations

from collections.abc import Callable

from ckptlog.blobs.payload import LEAF_KIND, Read, assemble, leaf_of, parts_below, root_of
from ckptlog.formats.branch import BYTES, LEAF, Link
from ckptlog.model.event import Reference


def check_chunks(reference: Reference, read: Read) -> None:
    """Read all chunks of a payload, each once.

    Args:
        read: Returns verified raw bytes, or raises.

    Raises:
        CheckpointCorruptionError, MissingBlobError: The first one that is wrong.

    Memory: some 100 bytes for each chunk, and the largest one.
    """
    if reference.kind == LEAF_KIND:
        assemble(reference, read)
        return
    root = root_of(reference)
    seen = {root}
    waiting = [(root, reference.size, False)]
    while waiting:
        digest, size, is_raw = waiting.pop()
        for part in parts_below(digest, size, read, is_raw=is_raw):
            if not isinstance(part, Link) or part.digest in seen:
                continue
            seen.add(part.digest)
            if part.kind == LEAF:
                leaf_of(part.digest, part.size, read)
            else:
                waiting.append((part.digest, part.size, is_raw or part.kind == BYTES))


def check_sample(
    reference: Reference, read: Read, count: int, choose: Callable[[int], int]
) -> None:
    """Read some chunks of a payload: ways from the root down to `count` of its leaves.

    Each way goes on in a part in proportion to its size, so every byte is as likely as another.

    Args:
        read: Returns verified raw bytes, or raises.
        choose: Returns a random number from 0 to below what it is given.

    Raises:
        CheckpointCorruptionError, MissingBlobError: The first one that is wrong.

    Cost: count times the depth of the tree; branches are read once each.
    """
    if reference.kind == LEAF_KIND:
        assemble(reference, read)
        return
    known: dict[bytes, list[Link]] = {}
    for _ in range(count):
        digest, size, is_raw = root_of(reference), reference.size, False
        while True:
            links = known.get(digest)
            if links is None:
                parts = parts_below(digest, size, read, is_raw=is_raw)
                links = known[digest] = [part for part in parts if isinstance(part, Link)]
            if not links:
                break
            link = _chosen(links, choose)
            if link.kind == LEAF:
                leaf_of(link.digest, link.size, read)
                break
            digest, size, is_raw = link.digest, link.size, is_raw or link.kind == BYTES


def _chosen(links: list[Link], choose: Callable[[int], int]) -> Link:
    """Return one of some links, the larger the likelier."""
    left = choose(sum(max(one.size, 1) for one in links))
    for one in links:
        left -= max(one.size, 1)
        if left < 0:
            return one
    return links[-1]
