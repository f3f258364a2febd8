"""The digest of a database's pages, but for what SQLite's backup makes the target's own.

That are fields of the header, and the page in which SQLite keeps its locks, where nothing is ever
stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from blake3 import blake3

# Of the header: journal mode, change counter, schema cookie, and who wrote last.
LIVE_FIELDS: Final = ((18, 20), (24, 28), (40, 44), (92, 100))
_LOCKS_AT: Final = 1 << 30
_STRETCH_BYTES: Final = 1 << 20


def page_digest(read: Callable[[int, int], bytes], page_size: int, page_count: int) -> bytes:
    """Return the digest.

    Args:
        read: Gives pages: of the first one's number, from 0, and how many.

    Cost: reads all pages; BLAKE3 of them.
    """
    digest = blake3(page_count.to_bytes(8))
    step, locks = max(1, _STRETCH_BYTES // page_size), _LOCKS_AT // page_size
    for first in range(0, page_count, step):
        part = bytearray(read(first, min(step, page_count - first)))
        if first == 0:
            for begin, end in LIVE_FIELDS:
                part[begin:end] = bytes(end - begin)
        if 0 <= (at := (locks - first) * page_size) < len(part):
            part[at : at + page_size] = bytes(page_size)
        digest.update(part)
    return digest.digest()
