"""Reading the log without the lock: whole commits in order, or one event where it lies.

Readers stop at the published end: what lies beyond belongs to whoever takes the lock next.
Segments never change below that end, so no reader needs a lease.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from ckptlog.errors import FormatError, LogCorruptionError
from ckptlog.formats import chunk, event, frame, segment
from ckptlog.formats.end import End
from ckptlog.formats.segment import HEADER_FRAME_BYTES, SegmentHeader
from ckptlog.log.published import PublishedEnd
from ckptlog.log.scan import Scan, Window, event_before
from ckptlog.log.segments import Segments, container_of, parse_container
from ckptlog.model.cursor import BEGINNING, Cursor, after_entry
from ckptlog.model.entry import Commit, Entry
from ckptlog.storage.disk import Disk

_DESCRIPTORS_MAX = 32


class LogReader:
    """Reads one store's segments.

    Threads: safe; a descriptor stays open while any thread reads through it.
    """

    def __init__(
        self,
        root: Path,
        store_id: bytes,
        segments: Segments,
        published: PublishedEnd,
        disk: Disk,
    ) -> None:
        self._root = root
        self._store_id = store_id
        self._segments = segments
        self._published = published
        self._disk = disk
        self._open: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._lock = Lock()
        self._near = ("", root)

    def entry(
        self, container: str, offset: int, length: int, span: int
    ) -> tuple[Entry, dict[bytes, bytes]]:
        """Return the event at a place, checked, and the chunk records that came with it.

        Args:
            container, offset, length, span: As in `Entry`; they may come from a view, so nothing
                is believed: the frame's checksum binds it to this place in this store.

        Returns:
            The entry, and chunk records by digest (not yet verified; the digest does that).

        Raises:
            LogCorruptionError: No such event stands there.
        """
        where = f"{container} at offset {offset}"
        if not 0 <= span <= offset or not 0 < length <= frame.BODY_BYTES_MAX:
            raise LogCorruptionError(f"No event can stand in {where}.", path=container)
        with self._lock:
            fd, seed = self._descriptor(container)
            data = self._disk.read(fd, span + length, offset - span)
        try:
            found = frame.decode(seed, offset, data, span)
            if found.kind != frame.EVENT or len(found.body) + frame.HEADER_BYTES != length:
                raise FormatError("Another frame stands there.")
            position, _ = event.decode_prefix(found.body)
            fact = event.decode(found.body[event.PREFIX_BYTES :])
        except FormatError as error:
            raise LogCorruptionError(
                f"The event in {where} is damaged: {error.message}",
                hint="Run ckptlog verify.",
                path=container,
                offset=offset,
            ) from error
        return Entry(fact, position, container, offset, length, span), _records(data, span)

    def close(self) -> None:
        """Close every descriptor."""
        with self._lock:
            self.abandon()

    def abandon(self) -> None:
        """Close every descriptor in a forked child, whose lock another thread may have held."""
        for fd, _ in self._open.values():
            self._disk.close(fd)
        self._open.clear()

    def _descriptor(self, container: str) -> tuple[int, int]:
        found = self._open.get(container)
        if found is not None:
            return found
        name = parse_container(container)
        if name is None:
            raise LogCorruptionError(f"{container!r} is not a segment.", path=container)
        path = self._segments.path(*name)
        if not path.exists():
            raise LogCorruptionError(f"The segment {path} is missing.", path=str(path))
        found = (self._disk.open_read(path), segment.seed(self._store_id, *name))
        self._open[container] = found
        if len(self._open) > _DESCRIPTORS_MAX:
            _, (oldest, _) = self._open.popitem(last=False)
            self._disk.close(oldest)
        return found

    def commits(
        self, container: str = "", offset: int = 0, position: int = 0, *, stop: End | None = None
    ) -> Iterator[Commit]:
        """Yield every durable commit from a commit boundary on, in order.

        Args:
            container, offset, position: The boundary; a container of "" means: find the segment
                that holds `position` and begin at its first commit (so earlier events of that
                segment come first).
            stop: The end to read up to; the published one by default.

        Raises:
            LogCorruptionError: A durable commit is damaged or missing.
        """
        stop = self._end(stop)
        self._segments.follow(stop.first, stop.generation)
        header, offset = self._begin(container, offset, position, stop)
        at = header.first if offset == HEADER_FRAME_BYTES else position
        leaf = header.leaf
        while header.first < stop.first:
            after = self._segments.successor(header)
            if after is None:
                raise _missing(header, stop, at)
            limit = _Limit(after.previous_length, after.first, after.leaf)
            yield from self._segment_commits(header, offset, at, leaf, limit)
            header, offset, at, leaf = after, HEADER_FRAME_BYTES, after.first, after.leaf
        if header.first == stop.first and header.generation == stop.generation:
            limit = _Limit(stop.offset, stop.position, stop.leaf)
            yield from self._segment_commits(header, offset, at, leaf, limit)
        elif stop.position > stop.first:
            raise _missing(header, stop, at)
        # Else the end names a segment without events, and a writer has just replaced it.

    def _end(self, stop: End | None) -> End:
        stop = stop or self._published.read()
        if stop is None:
            raise LogCorruptionError(
                f"The published end of {self._root} is missing or damaged.",
                hint="Open the store for writing once; that rebuilds it.",
                path=str(self._root),
            )
        return stop

    def locate(
        self, position: int, near: Cursor | None = None, *, stop: End | None = None
    ) -> Cursor:
        """Return the cursor at a position of this log: its leaf hash and place, as they are.

        Args:
            position: At most the position of `stop`.
            near: A cursor whose place may be right; where it is not, the segment is read from
                its beginning.
            stop: The log is looked at up to there; to the published end by default.

        Raises:
            LogCorruptionError: The segment is damaged before that position.

        Cost: one or two reads where `near` is right or the position is the end.
        """
        stop = self._end(stop)
        if position == 0:
            return BEGINNING
        if position == stop.position:
            return Cursor(
                position, stop.leaf, container_of(stop.first, stop.generation), stop.offset
            )
        self._segments.follow(stop.first, stop.generation)
        header = self._segments.holding(min(position, stop.first))
        container = container_of(header.first, header.generation)
        if header.first == position:
            return Cursor(position, self._leaf_before(header), container, HEADER_FRAME_BYTES)
        if near is not None and near.container == container:
            leaf = self._leaf_at(header, near.offset, position, stop)
            if leaf is not None:
                return Cursor(position, leaf, container, near.offset)
        return self._search(position, stop)

    def _leaf_before(self, header: SegmentHeader) -> bytes:
        """Return the leaf hash that stands in a segment's header, read anew.

        What was read of it before may be of a store that was set back since.
        """
        try:
            return self._segments.header(header.first, header.generation).leaf
        except FormatError as error:
            path = self._segments.path(header.first, header.generation)
            raise LogCorruptionError(
                f"The header of {path} is damaged: {error.message}",
                hint="Run ckptlog verify.",
                path=str(path),
            ) from error

    def holds(self, cursor: Cursor) -> bool:
        """Say whether the event before a cursor stands at the cursor's place.

        Also beyond the published end: nothing is shown that is not durable, it is only compared.
        """
        named = parse_container(cursor.container)
        if named is None or not self._segments.exists(*named):
            return False
        return self._before(*named, cursor.offset) == (cursor.position - 1, cursor.leaf)

    def _leaf_at(
        self, header: SegmentHeader, offset: int, position: int, stop: End
    ) -> bytes | None:
        """Return the leaf hash of event position - 1 if its frame ends at an offset."""
        if header.first == stop.first:
            limit = stop.offset
        else:
            after = self._segments.successor(header)
            limit = after.previous_length if after else 0
        if not HEADER_FRAME_BYTES < offset <= limit:
            return None
        found = self._before(header.first, header.generation, offset)
        return found[1] if found is not None and found[0] == position - 1 else None

    def _before(self, first: int, generation: int, offset: int) -> tuple[int, bytes] | None:
        """Return position and leaf hash of the event whose frame ends at an offset."""
        if offset <= HEADER_FRAME_BYTES:
            return None
        fd = self._disk.open_read(self._segments.path(first, generation))
        try:
            seed = segment.seed(self._store_id, first, generation)
            return event_before(self._disk, fd, seed, offset)
        finally:
            self._disk.close(fd)

    def _search(self, position: int, stop: End) -> Cursor:
        for commit in self.commits(position=position, stop=stop):
            if commit.position_next >= position:
                index = position - 1 - commit.entries[0].position
                return after_entry(commit.entries[index], commit.leaves[index])
        raise LogCorruptionError(
            f"No event stands at position {position - 1}, which was durable.",
            hint="Run ckptlog verify.",
            position=position - 1,
        )

    def _begin(
        self, container: str, offset: int, position: int, stop: End
    ) -> tuple[SegmentHeader, int]:
        named = parse_container(container) if container else None
        if named is not None and offset > HEADER_FRAME_BYTES:
            return self._segments.header(*named), offset
        # By position, for a segment that a sync error ended before its first event was replaced;
        # and never beyond the end, where a writer may be at work.
        first = named[0] if named else position
        return self._segments.holding(min(first, stop.first)), HEADER_FRAME_BYTES

    def resume(self, cursor: Cursor, stop: End) -> Iterator[Commit] | None:
        """Yield every durable commit from a cursor on, where that takes one opened file.

        Returns:
            None where the cursor lies in an earlier segment, or does not belong to its place:
            `locate` finds out more.

        Cost: what follows a log that grows; for each new commit one open and two reads.
        """
        first, generation = stop.first, stop.generation
        container = container_of(first, generation)
        if cursor.container != container or not HEADER_FRAME_BYTES < cursor.offset < stop.offset:
            return None
        path = self._path(container, first, generation)
        fd = self._disk.open_read(path)
        seed = segment.seed(self._store_id, first, generation)
        try:
            found = event_before(self._disk, fd, seed, cursor.offset)
        except BaseException:
            self._disk.close(fd)
            raise
        if found != (cursor.position - 1, cursor.leaf):
            self._disk.close(fd)
            return None
        scan = Scan(
            Window(self._disk, fd),
            seed,
            container,
            offset=cursor.offset,
            position=cursor.position,
            leaf=cursor.leaf,
            stop=stop.offset,
        )
        return self._scanned(fd, path, scan, _Limit(stop.offset, stop.position, stop.leaf))

    def _path(self, container: str, first: int, generation: int) -> Path:
        """Return a segment's path; a follower asks for the same one again and again."""
        near = self._near
        if near[0] != container:
            near = self._near = (container, self._segments.path(first, generation))
        return near[1]

    def _segment_commits(
        self, header: SegmentHeader, offset: int, position: int, leaf: bytes, limit: _Limit
    ) -> Iterator[Commit]:
        path = self._segments.path(header.first, header.generation)
        fd = self._disk.open_read(path)
        scan = Scan(
            Window(self._disk, fd),
            segment.seed(self._store_id, header.first, header.generation),
            container_of(header.first, header.generation),
            offset=offset,
            position=position,
            leaf=leaf,
            stop=limit.offset,
        )
        yield from self._scanned(fd, path, scan, limit)

    def _scanned(self, fd: int, path: Path, scan: Scan, limit: _Limit) -> Iterator[Commit]:
        """Yield what a scan finds, close the file, and check that it ends where it must."""
        offset = scan.offset
        try:
            yield from scan
        finally:
            self._disk.close(fd)
        # From a place in the middle on, the leaf hash is known only once a commit was read.
        is_leaf_known = scan.offset > offset or offset == HEADER_FRAME_BYTES
        if (scan.offset, scan.position) != (limit.offset, limit.position) or (
            is_leaf_known and scan.leaf != limit.leaf
        ):
            raise LogCorruptionError(
                f"{path} is damaged at offset {scan.offset} (position {scan.position}): "
                f"{scan.flaw or 'other events stood there'}; {limit.offset} bytes up to position "
                f"{limit.position} were durable.",
                hint="Run ckptlog verify; restore the file from a backup.",
                path=str(path),
                offset=scan.offset,
                position=scan.position,
            )


class _Limit(NamedTuple):
    """Where the durable part of a segment ends, as the published end or the next header says."""

    offset: int
    position: int
    leaf: bytes


def _missing(header: SegmentHeader, stop: End, position: int) -> LogCorruptionError:
    return LogCorruptionError(
        f"The log ends in {container_of(header.first, header.generation)}, before position "
        f"{stop.position}, which was durable.",
        hint="A segment file is missing; restore it from a backup.",
        position=position,
    )


def _records(data: bytes, span: int) -> dict[bytes, bytes]:
    """Return the chunk records in the first span bytes, by the digest they claim."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at + frame.HEADER_BYTES <= span:
        size = frame.body_length(data[at : at + frame.HEADER_BYTES])
        if size is None:
            break
        begin = at + frame.HEADER_BYTES
        record = data[begin : begin + size]
        records[chunk.digest_in(record)] = record
        at = begin + size
    return records
