"""A walk before the barrier, remembered as an index remembers the newest capture.

The walk inside the barrier, the one that counts, then has only to confirm that all is as it was
seen (see `confirmation`), which takes a fraction of the time: a tree that was never captured has no
index to do that with. Of contents nothing is known here, and nothing was read.
"""

from __future__ import annotations

from typing import Final

from ckptlog.capture.directory.draft import Draft, whole
from ckptlog.capture.directory.listing import NOTHING, Listing
from ckptlog.capture.directory.scan import Options, scan
from ckptlog.capture.directory.stat_index import StatIndex

# Nothing is racy: what is confirmed is a status, and contents are read behind the barrier.
_LATE_NS: Final = 1 << 62


def seen(root: str, options: Options) -> StatIndex:
    """Return what lies in a directory now, as a base for the walk that counts.

    Raises: As `scan`.

    Threads: safe.        Cost: a walk, and some 300 bytes of memory for each name.
    """
    found = scan(root, options)
    keys = Listing(found, None).keys
    contents = {folder: [NOTHING] * len(rows) for folder, rows in found.directories.items()}
    return StatIndex(whole(found, Draft("", [], keys, _LATE_NS, contents), ""))
