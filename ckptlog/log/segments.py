"""The segments of a store: which are live, how long each is, and where to find a position.

The folder may hold several files with one first position (after a sync error); the one with the
highest generation and a valid header counts. A segment's valid length is what the header of its
successor says; the newest one's is the published end.

A segment that was settled (specs/settled.md) is another file of the same name and generation. While
the written one is there, it counts: it has all that the settled one has.
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_right
from pathlib import Path

from ckptlog.errors import (
    CheckpointStorageError,
    FormatError,
    LogCorruptionError,
    operating_system_door,
)
from ckptlog.formats import segment, settled
from ckptlog.formats.segment import SegmentHeader
from ckptlog.log.segment_file import SegmentFile, SettledSegment, WrittenSegment
from ckptlog.storage.disk import Disk

FOLDER = "log"


def container_of(first: int, generation: int) -> str:
    """Return the container name of a segment, as placements use it."""
    return f"{FOLDER}/{segment.segment_name(first, generation)}"


def parse_container(container: str) -> tuple[int, int] | None:
    """Return (first, generation) of a segment's container name, None for any other."""
    folder, _, name = container.partition("/")
    return segment.parse_name(name) if folder == FOLDER else None


class Segments:
    """The segment files of one store, listed anew on request.

    Threads: safe for reading; `refresh` replaces the list in one step.
    """

    def __init__(self, folder: Path, store_id: bytes, disk: Disk) -> None:
        self.folder = folder
        self._prefix = f"{folder}{os.sep}"
        self._store_id = store_id
        self._disk = disk
        self._live: tuple[SegmentHeader, ...] = ()
        self._by_first: dict[int, SegmentHeader] = {}
        # Headers never change; a folder of thousands of segments is listed, not read, each time.
        self._known: dict[tuple[int, int], SegmentHeader] = {}
        self.unreadable: tuple[Path, ...] = ()

    def path(self, first: int, generation: int) -> Path:
        """Return the path of a segment."""
        return self.folder / segment.segment_name(first, generation)

    def settled_path(self, first: int, generation: int) -> Path:
        """Return the path of a segment that was settled."""
        return self.folder / settled.settled_name(first, generation)

    def open(self, first: int, generation: int, *, is_lenient: bool = False) -> SegmentFile:
        """Open a segment for reading, written or settled.

        Args:
            is_lenient: Step over damaged blocks of a settled one (`SettledSegment`).

        Raises:
            CheckpointStorageError: There is neither, or it cannot be opened.
            LogCorruptionError: The settled one is damaged.
        """
        path = self.path(first, generation)
        try:
            return WrittenSegment(self._disk, self._disk.open_read(path))
        except CheckpointStorageError as error:
            if error.context.get("errno") != errno.ENOENT:
                raise
            other = self.settled_path(first, generation)
            try:
                fd = self._disk.open_read(other)
            except CheckpointStorageError as second:
                if second.context.get("errno") != errno.ENOENT:
                    raise
                raise error from second
            name = (first, generation)
            return SettledSegment(
                self._disk, fd, self._store_id, name, str(other), is_lenient=is_lenient
            )

    def is_settled_whole(self, first: int, generation: int) -> bool:
        """Say whether the settled form of a segment is there, as long as it must be, and sound.

        Raises:
            CheckpointError: It cannot be read.
        """
        after = self.successor(self.header(first, generation))
        path = self.settled_path(first, generation)
        fd = self._disk.open_read(path)
        file = SettledSegment(self._disk, fd, self._store_id, (first, generation), str(path))
        try:
            file.check()
            return after is not None and file.size == after.previous_length
        finally:
            file.close()

    def refresh(self) -> tuple[SegmentHeader, ...]:
        """List the folder; return the live headers in order of their first position."""
        best: dict[int, SegmentHeader] = {}
        known: dict[tuple[int, int], SegmentHeader] = {}
        unreadable = []
        for name in self.names():
            try:
                header = self._known.get(name) or self.header(*name)
            except FormatError:
                unreadable.append(self.path(*name))
            except CheckpointStorageError as error:
                # A writer that recovers may rename a file between our listing and our look.
                if error.context.get("errno") != errno.ENOENT:
                    raise
            else:
                best[name[0]] = known[name] = header
        self._live = tuple(best[first] for first in sorted(best))
        self._by_first, self._known = best, known
        self.unreadable = tuple(unreadable)
        return self._live

    def names(self) -> list[tuple[int, int]]:
        """Return (first, generation) of every segment, written or settled, sorted."""
        with operating_system_door("Cannot list the log"):
            files = os.listdir(self.folder)
        found = {segment.parse_name(name) or settled.parse_name(name) for name in files}
        return sorted(name for name in found if name is not None)

    def header(self, first: int, generation: int) -> SegmentHeader:
        """Read one segment's header.

        Raises:
            FormatError: It is damaged or not whole.
        """
        try:
            file = self.open(first, generation)
            try:
                data = file.read(segment.HEADER_FRAME_BYTES, 0)
            finally:
                file.close()
        except LogCorruptionError as error:  # of a settled one
            raise FormatError(error.message) from error
        return segment.decode(self._store_id, first, generation, data)

    def exists(self, first: int, generation: int) -> bool:
        """Say whether there is a written segment of this name, whatever is in it."""
        # access, not exists: a file that is not there, the usual case, raises nothing inside.
        return os.access(self._prefix + segment.segment_name(first, generation), os.F_OK)

    def file_name(self, first: int, generation: int) -> str:
        """Return the path below the store's root of the file that counts; written, if neither."""
        name = settled.settled_name(first, generation)
        if not self.exists(first, generation) and os.access(self._prefix + name, os.F_OK):
            return f"{FOLDER}/{name}"
        return container_of(first, generation)

    def is_there(self, first: int, generation: int) -> bool:
        """Say whether there is a segment of this name, written or settled."""
        return self.exists(first, generation) or os.access(
            self._prefix + settled.settled_name(first, generation), os.F_OK
        )

    def follow(self, first: int, generation: int) -> None:
        """Make sure that the list is no older than this segment, which the published end names."""
        header = self._by_first.get(first)
        if header is None or header.generation < generation:
            self.refresh()

    def holding(self, position: int) -> SegmentHeader:
        """Return the header of the live segment that holds a position, or would."""
        for attempt in range(2):
            live = self._live if attempt == 0 and self._live else self.refresh()
            index = bisect_right(live, position, key=lambda header: header.first) - 1
            # The newest known segment may have successors that another process made.
            if index >= 0 and (attempt or index + 1 < len(live)):
                return live[index]
        raise LogCorruptionError(
            f"No segment in {self.folder} holds position {position}.",
            hint="Run ckptlog verify; a segment file may be missing.",
            path=str(self.folder),
            position=position,
        )

    def successor(self, header: SegmentHeader) -> SegmentHeader | None:
        """Return the live segment that follows, or None."""
        for attempt in range(2):
            live = self._live if attempt == 0 and self._live else self.refresh()
            later = [other for other in live if other.first > header.first]
            if later:
                self._check_link(header, later[0])
                return later[0]
        return None

    def _check_link(self, header: SegmentHeader, after: SegmentHeader) -> None:
        if (after.previous_first, after.previous_generation) != (header.first, header.generation):
            raise LogCorruptionError(
                f"Segment {segment.segment_name(after.first, after.generation)} does not follow "
                f"{segment.segment_name(header.first, header.generation)}: one is missing.",
                hint="Restore the missing file from a backup; ckptlog verify lists what is there.",
                path=str(self.folder),
            )
