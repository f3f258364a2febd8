"""The cursor: how far a consumer has read the log, and which log that was."""

from __future__ import annotations

from typing import Final

import msgspec

from ckptlog.model.entry import Commit, Entry
from ckptlog.model.leaf import LEAF_EMPTY


class Cursor(msgspec.Struct, frozen=True, gc=False):
    """A place between two events; it may lie inside a commit.

    The position alone would fit any log. The leaf hash ties it to one history: a store that was
    restored from a backup and written on has another event there.

    position: Of the next event to deliver; from 0.
    leaf: Leaf hash of event position - 1, 32 bytes; zeros at position 0.
    container, offset: First byte after the frame of event position - 1; "" and 0 where unknown.
        Only a hint: it saves reading a segment from its beginning, and nothing rests on it.
    """

    position: int = 0
    leaf: bytes = LEAF_EMPTY
    container: str = ""
    offset: int = 0


BEGINNING: Final = Cursor()


def after_commit(commit: Commit) -> Cursor:
    """Return the cursor of a consumer that has taken a whole commit."""
    return Cursor(commit.position_next, commit.leaf, commit.container, commit.offset_end)


def after_entry(entry: Entry, leaf: bytes) -> Cursor:
    """Return the cursor of a consumer that has taken one event, whose leaf hash this is."""
    return Cursor(entry.position + 1, leaf, entry.container, entry.offset + entry.length)
