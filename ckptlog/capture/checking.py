"""Reads every chunk of a payload, of whatever size, and keeps none of it."""

from __future__ import annotations

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
