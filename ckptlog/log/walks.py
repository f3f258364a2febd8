"""What walks over sealed segments found: each walk touches all pages of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

from ckptlog.formats import settled
from ckptlog.formats.outline import Outline

if TYPE_CHECKING:
    from ckptlog.log.sealed import Sealed

# In memory: 44 bytes for each chunk; rows, which take so much besides.
_OUTLINES_BYTES_MAX: Final = 24 * 1024 * 1024
_ROWS_BYTES_MAX: Final = 10 * 1024 * 1024

Kept = TypeVar("Kept")
_Key = tuple[int, int, int, int, bytes]


class Walks:
    """What walks over sealed segments found, and the events that were read: each touches all pages.

    Some 35 MB at most; of what is more nothing is remembered. Of outlines as little is believed as
    of the headers that they come from; rows were checked, to the end of their segment.

    Threads: one.
    """

    def __init__(self) -> None:
        self._outlines = _Memory[Outline](_OUTLINES_BYTES_MAX)
        self._rows = _Memory[list[settled.Row]](_ROWS_BYTES_MAX)

    def outline_of(self, sealed: Sealed) -> Outline | None:
        """Return the outline of a whole segment, None where that is not known."""
        return self._outlines.get(sealed)

    def remember_outline(self, sealed: Sealed, found: Outline) -> None:
        """Take note of the outline of a whole segment, if there is room."""
        self._outlines.put(sealed, found, len(found.lines) + len(found.events))

    def forget_chunks(self, sealed: Sealed) -> None:
        """Make room: nobody asks for a segment's chunks any more."""
        self._outlines.drop(sealed)

    def rows_of(self, sealed: Sealed) -> list[settled.Row] | None:
        """Return the checked rows of a segment, None where they are not known."""
        return self._rows.get(sealed)

    def has_room_for_rows(self, size: int) -> bool:
        """Say whether rows of so many bytes would be remembered."""
        return size <= self._rows.room

    def remember_rows(self, sealed: Sealed, rows: list[settled.Row], size: int) -> None:
        """Take note of all rows of a segment, checked; if there is room."""
        self._rows.put(sealed, rows, size)


class _Memory(Generic[Kept]):
    """What is known of segments, up to so many bytes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._kept: dict[_Key, tuple[Kept, int]] = {}

    def get(self, sealed: Sealed) -> Kept | None:
        found = self._kept.get(_key(sealed))
        return None if found is None else found[0]

    def put(self, sealed: Sealed, found: Kept, size: int) -> None:
        self.drop(sealed)
        if size <= self.room:
            self.room -= size
            self._kept[_key(sealed)] = found, size

    def drop(self, sealed: Sealed) -> None:
        _, size = self._kept.pop(_key(sealed), (None, 0))
        self.room += size


def _key(sealed: Sealed) -> _Key:
    header = sealed.header
    return header.first, header.generation, sealed.length, sealed.stop, sealed.leaf
