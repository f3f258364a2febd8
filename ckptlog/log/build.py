"""From events and chunks to the bytes of commits: what one append writes, and what it will be.

The hottest loop of the write path: plain locals, one pass, one join.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ckptlog.formats import event, frame
from ckptlog.log.batch import Group, Tail
from ckptlog.model.entry import Commit, Entry, Placement


class Built(msgspec.Struct, frozen=True, gc=False):
    """The bytes to write at the tail, the commits in them, and the tail after them.

    The new tail's `durable` is the old one's: nothing is synced yet.
    """

    data: bytes
    commits: tuple[Commit, ...]
    tail: Tail


def build(tail: Tail, seed: int, container: str, groups: Sequence[Group]) -> Built:
    """Lay out one commit for each group, from the tail on.

    Args:
        seed: Of the segment's checksums.
        container: Name of the segment, for places.

    Raises:
        FormatError: An event or a chunk is larger than it may be.
    """
    encode = frame.encode
    parts: list[bytes] = []
    commits: list[Commit] = []
    offset, position, leaf = tail.offset, tail.position, tail.leaf
    for group in groups:
        entries: list[Entry] = []
        placements: list[Placement] = []
        raw: list[bytes] = []
        left = len(group)
        for item in group:
            left -= 1
            start = offset
            for record in item.records:
                data = encode(seed, offset, frame.CHUNK, 0, record)
                parts.append(data)
                placements.append(Placement(record[:32], container, offset, len(data)))
                offset += len(data)
            entry = event.encode(item.event)
            body = event.encode_body(position, tail.durable, entry)
            data = encode(seed, offset, frame.EVENT, 0 if left else frame.COMMIT, body)
            parts.append(data)
            span = offset - start
            entries.append(Entry(item.event, position, container, offset, len(data), span))
            offset += len(data)
            position += 1
            raw.append(entry)
        leaf = event.leaf_hash(raw[-1])
        kept = tuple(raw) if len(raw) > 1 else ()
        commits.append(Commit(tuple(entries), tuple(placements), leaf, container, offset, kept))
    after = Tail(position, tail.first, tail.generation, offset, tail.durable, leaf)
    return Built(b"".join(parts), tuple(commits), after)
