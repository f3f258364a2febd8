"""Sizes of chunks before compression, of the chunks that ride in the log before an event.

A payload of one chunk has the size of that chunk; nothing needs to be read. Else the chunks'
records say it, and they lie in the bytes of the log that were just read and checked. Chunks that
went into a pack lie elsewhere: reading packs for one number each would make a rebuild read the
whole store, so their sizes stay unknown.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ckptlog.errors import CheckpointError
from ckptlog.formats import frame
from ckptlog.log.scan import Window
from ckptlog.log.segments import parse_container
from ckptlog.model.entry import Commit, Placement
from ckptlog.model.event import Event, Reference
from ckptlog.storage.disk import Disk

# Offset of the raw length in a chunk's record (formats.chunk).
_RAW_LENGTH_AT: Final = frame.HEADER_BYTES + 44
_LENGTH: Final = struct.Struct("<I")
_LEAF: Final = "leaf"
_NONE: Final = Reference("", "", 0)


class RawSizes:
    """Reads raw sizes along the log; one open segment at a time.

    Threads: one at a time.
    """

    def __init__(self, root: Path, disk: Disk) -> None:
        self._root = root
        self._disk = disk
        self._container = ""
        self._fd = -1
        self._window: Window | None = None

    def of(self, commits: Sequence[Commit]) -> list[int | None]:
        """Return, for each event, the raw bytes of the chunks that came with it.

        0 where none came; None where they lie in a pack, or cannot be looked at.
        """
        sizes: list[int | None] = []
        for commit in commits:
            if not commit.placements:
                sizes += [None if entry.event.new else 0 for entry in commit.entries]
            elif len(commit.entries) == 1:
                sizes.append(self._sum(commit.entries[0].event, commit.placements))
            else:
                sizes += self._shared(commit)
        return sizes

    def _shared(self, commit: Commit) -> list[int | None]:
        """Give each event of a commit the chunks that stand before it."""
        sizes: list[int | None] = []
        places, start = commit.placements, 0
        for entry in commit.entries:
            stop = start
            while stop < len(places) and places[stop].offset < entry.offset:
                stop += 1
            if stop > start:
                sizes.append(self._sum(entry.event, places[start:stop]))
            else:
                sizes.append(None if entry.event.new else 0)
            start = stop
        return sizes

    def _sum(self, event: Event, places: Sequence[Placement]) -> int | None:
        data, meta = event.data or _NONE, event.meta or _NONE
        data_root = data.root if data.kind == _LEAF else ""
        meta_root = meta.root if meta.kind == _LEAF else ""
        total = 0
        for place in places:
            digest = place.digest.hex()
            if digest == data_root:
                total += data.size
            elif digest == meta_root:
                total += meta.size
            else:
                size = self._read(place)
                if size is None:
                    return None
                total += size
        return total

    def _read(self, place: Placement) -> int | None:
        window = self._open(place.container)
        if window is None:
            return None
        at = window.locate(place.offset, place.length) + _RAW_LENGTH_AT
        return int(_LENGTH.unpack_from(window.data, at)[0])

    def _open(self, container: str) -> Window | None:
        if container != self._container:
            self.close()
            if parse_container(container) is None:
                return None
            try:
                self._fd = self._disk.open_read(self._root / container)
            except CheckpointError:
                return None
            self._container, self._window = container, Window(self._disk, self._fd)
        return self._window

    def close(self) -> None:
        """Close the segment."""
        if self._fd >= 0:
            os.close(self._fd)
        self._container, self._fd, self._window = "", -1, None
