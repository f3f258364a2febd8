"""Which segments a log is made of, told backwards from its end, whatever is damaged in between."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ckptlog.errors import CheckpointError, FormatError
from ckptlog.formats import frame, segment, settled
from ckptlog.formats.end import End
from ckptlog.formats.segment import HEADER_FRAME_BYTES, SegmentHeader
from ckptlog.log.segments import Segments, container_of
from ckptlog.repository.salvage import Bounds
from ckptlog.storage.disk import Disk

Name = tuple[int, int]


class Link(msgspec.Struct, frozen=True):
    """One segment of the log.

    header: None where it is damaged or the file is missing.
    is_damaged: Whether the end of a settled one cannot be read.
    """

    name: Name
    header: SegmentHeader | None
    bounds: Bounds
    is_there: bool
    is_damaged: bool = False


class Lineage:
    """The log's segments, first to last.

    Args:
        copied: Returns the header that a second copy has of a segment.
        end_of: Returns what our own segment says of its end: (segment, position after it).

    Attributes:
        links: Them. strays: Files of segments that cannot be read and are none of them.
    """

    def __init__(
        self,
        segments: Segments,
        disk: Disk,
        store_id: bytes,
        end: End | None,
        *,
        copied: Callable[[Name], SegmentHeader | None],
        end_of: Callable[[Name, int], Bounds | None],
    ) -> None:
        self._copied = copied
        self._end_of = end_of
        self._segments = segments
        self._disk = disk
        self._store_id = store_id
        self._damaged: set[Name] = set()
        self._headers: dict[Name, SegmentHeader | None] = {
            name: self._header(*name) for name in segments.names()
        }
        self.links = self._trace(end)
        live = {link.name for link in self.links}
        self.strays = [
            segments.file_name(*name)
            for name, header in self._headers.items()
            if (header is None or name in self._damaged)
            and name not in live
            and name < self.links[-1].name
        ]

    def _header(self, first: int, generation: int) -> SegmentHeader | None:
        try:
            return self._segments.header(first, generation)
        except CheckpointError as error:
            if not isinstance(error, FormatError):
                raise
        return self._settled_header(first, generation)

    def _settled_header(self, first: int, generation: int) -> SegmentHeader | None:
        """Return the header of a settled segment whose end is damaged: it is a frame of its own."""
        path = self._segments.settled_path(first, generation)
        if self._segments.exists(first, generation) or not path.exists():
            return None
        self._damaged.add((first, generation))
        fd = self._disk.open_read(path)
        try:
            data = self._disk.read(fd, HEADER_FRAME_BYTES, 0)
            return settled.decode_header(self._store_id, first, generation, data)
        except FormatError:
            return None
        finally:
            self._disk.close(fd)

    def _trace(self, end: End | None) -> list[Link]:
        name, bounds = self._last(end)
        links: list[Link] = []
        while True:
            header = self._headers.get(name)
            copied = self._copied(name) if header is None else None
            is_damaged = name in self._damaged
            is_there = name in self._headers
            links.append(Link(name, header, bounds, is_there, is_damaged))
            before, bounds = self._before(name, header, copied)
            if before is None:
                return links[::-1]
            if before[0] >= name[0]:
                raise FormatError(
                    f"{container_of(*name)} names {container_of(*before)} as the one before it."
                )
            name = before

    def _last(self, end: End | None) -> tuple[Name, Bounds]:
        if end is not None:
            name = (end.first, end.generation)
            later = [one for one in self._headers if one[0] == end.first and one > name]
            if name not in self._headers and later and end.position == end.first:
                return max(later), Bounds(None, end.position, None)
            leaf = end.leaf if end.position else None
            return name, Bounds(end.offset, end.position, leaf)
        for name in sorted(self._headers, reverse=True):
            if self._headers[name] is not None or self._holds_frames(name):
                return name, Bounds()
        raise FormatError(f"{self._segments.folder} holds no segment; nothing can be saved.")

    def _before(
        self, name: Name, header: SegmentHeader | None, copied: SegmentHeader | None
    ) -> tuple[Name | None, Bounds]:
        """Return the segment before one, and where it ended: our own files know it best."""
        if header is not None:
            if not header.previous_length:
                return None, Bounds()
            return _named_by(header)
        if name[0] == 0:
            return None, Bounds()
        ours = self._ours_before(name)
        told = None if ours is None else self._end_of(ours, name[0])
        if ours is not None and told is not None:
            return ours, told
        if copied is not None and copied.previous_length and copied.previous_first < name[0]:
            other, bounds = _named_by(copied)
            if ours is None or other == ours or other[0] > ours[0] or not self._counts(ours):
                return other, msgspec.structs.replace(bounds, is_copied=True)
        return ours or (0, 0), Bounds(None, name[0], None)

    def _ours_before(self, name: Name) -> Name | None:
        earlier = [one for one in self._headers if one[0] < name[0]]
        if not earlier:
            return None
        first = max(earlier)[0]
        candidates = [one for one in earlier if one[0] == first]
        sound = [one for one in candidates if self._headers[one] is not None]
        return max(sound or candidates)

    def _counts(self, name: Name) -> bool:
        """Say whether a file is more than what is left of one that was begun and never used."""
        is_settled = name in self._damaged
        return self._headers[name] is not None or is_settled or self._holds_frames(name)

    def _holds_frames(self, name: Name) -> bool:
        path = self._segments.path(*name)
        if not path.exists():  # a settled one is never the last
            return False
        fd = self._disk.open_read(path)
        try:
            data = self._disk.read(fd, self._disk.size(fd), 0)
        finally:
            self._disk.close(fd)
        seed = segment.seed(self._store_id, *name)
        at = data.find(frame.MAGIC, 1)
        while at >= 0:
            try:
                return frame.decode(seed, at, data, at).offset >= HEADER_FRAME_BYTES
            except FormatError:
                at = data.find(frame.MAGIC, at + 1)
        return False


def _named_by(header: SegmentHeader) -> tuple[Name, Bounds]:
    before = (header.previous_first, header.previous_generation)
    return before, Bounds(header.previous_length, header.first, header.leaf)
