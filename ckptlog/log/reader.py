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
from ckptlog.log.place import Places, is_behind
from ckptlog.log.published import PublishedEnd
from ckptlog.log.scan import Scan, Window, event_before
from ckptlog.log.segment_file import SegmentFile
from ckptlog.log.segments import Segments, container_of, parse_container
from ckptlog.model.cursor import Cursor
from ckptlog.model.entry import Commit, Entry
from ckptlog.storage.fork import free_in_child

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
    ) -> None:
        self._root = root
        self._store_id = store_id
        self._segments = segments
        self._published = published
        self._open: OrderedDict[str, tuple[SegmentFile, int]] = OrderedDict()
        self._lock = Lock()
        free_in_child(self, "_lock")
        self.places = Places(store_id, segments, self.commits)

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
            file, seed = self._opened(container)
            # Of a settled segment the chunks are gone, and how far they reached is only claimed.
            near = 0 if file.is_settled else span
            data = file.read(near + length, offset - near)
        try:
            found = frame.decode(seed, offset, data, near)
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
        return Entry(fact, position, container, offset, length, span), _records(data, near)

    def close(self) -> None:
        """Close every descriptor."""
        with self._lock:
            self.abandon()

    def abandon(self) -> None:
        """Close every descriptor in a forked child, whose lock another thread may have held."""
        for file, _ in self._open.values():
            file.close()
        self._open.clear()

    def forget(self, container: str) -> None:
        """Close a segment that is no more, so that its room comes back."""
        with self._lock:
            found = self._open.pop(container, None)
            if found is not None:
                found[0].close()

    def _opened(self, container: str) -> tuple[SegmentFile, int]:
        found = self._open.get(container)
        if found is not None:
            return found
        name = parse_container(container)
        if name is None:
            raise LogCorruptionError(f"{container!r} is not a segment.", path=container)
        if not self._segments.is_there(*name):
            path = self._segments.path(*name)
            raise LogCorruptionError(f"The segment {path} is missing.", path=str(path))
        found = (self._segments.open(*name), segment.seed(self._store_id, *name))
        self._open[container] = found
        if len(self._open) > _DESCRIPTORS_MAX:
            _, (oldest, _) = self._open.popitem(last=False)
            oldest.close()
        return found

    def commits(
        self,
        container: str = "",
        offset: int = 0,
        position: int = 0,
        *,
        stop: End | None = None,
        steps_over: bool = True,
    ) -> Iterator[Commit]:
        """Yield every durable commit from a commit boundary on, in order.

        Args:
            container, offset, position: The boundary; a container of "" means: find the segment
                that holds `position` and begin at its first commit (so earlier events of that
                segment come first).
            stop: The end to read up to; the published one by default.
            steps_over: Whether damage that took no event is stepped over (specs/log.md): a chunk
                that stood there is told of by who reads it, and by `verify`.

        Raises:
            LogCorruptionError: A durable commit is damaged or missing.
        """
        stop = self._end(stop)
        self._segments.follow(stop.first, stop.generation)
        header, offset = self._begin(container, offset, position, stop)
        position = header.first if offset == HEADER_FRAME_BYTES else position
        place = Cursor(position, header.leaf, _container(header), offset)
        while header.first < stop.first:
            after = self._segments.successor(header)
            if after is None:
                raise _missing(header, stop, place.position)
            limit = _Limit(after.previous_length, after.first, after.leaf)
            yield from self._segment_commits(header, place, limit, steps_over=steps_over)
            header = after
            place = Cursor(after.first, after.leaf, _container(after), HEADER_FRAME_BYTES)
        if header.first == stop.first and header.generation == stop.generation:
            limit = _Limit(stop.offset, stop.position, stop.leaf)
            yield from self._segment_commits(header, place, limit, steps_over=steps_over)
        elif stop.position > stop.first:
            raise _missing(header, stop, place.position)
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
        """Return the cursor at a position of this log (see `Places.locate`)."""
        return self.places.locate(position, near, self._end(stop))

    def _begin(
        self, container: str, offset: int, position: int, stop: End
    ) -> tuple[SegmentHeader, int]:
        named = parse_container(container) if container else None
        if named is not None and offset > HEADER_FRAME_BYTES:
            return self._segments.header(*named), offset
        # By position, for a segment that a sync error ended before its first event was replaced;
        # and never beyond the end, where a writer may be at work.
        first = named[0] if named else position
        header = self._segments.holding(min(first, stop.first))
        if header.first > position:
            raise LogCorruptionError(
                f"The segment {container} begins behind position {position}, which is wanted.",
                hint="Whoever keeps the place (a view, a cursor) is wrong: look from the position.",
                position=position,
            )
        return header, HEADER_FRAME_BYTES

    def resume(self, cursor: Cursor, stop: End) -> Iterator[Commit] | None:
        """Yield every durable commit from a cursor on, where that takes one opened file.

        Returns:
            None where the cursor lies in an earlier segment, or does not belong to its place:
            `places` finds out more.

        Cost: what follows a log that grows; for each new commit one open and two reads.
        """
        first, generation = stop.first, stop.generation
        container = container_of(first, generation)
        if cursor.container != container or not HEADER_FRAME_BYTES < cursor.offset < stop.offset:
            return None
        file = self._segments.open(first, generation)
        seed = segment.seed(self._store_id, first, generation)
        try:
            found = event_before(file, seed, cursor.offset)
        except BaseException:
            file.close()
            raise
        if not is_behind(found, cursor):
            file.close()
            return None
        scan = Scan(
            Window(file),
            seed,
            container,
            offset=cursor.offset,
            position=cursor.position,
            leaf=cursor.leaf,
            stop=stop.offset,
        )
        limit = _Limit(stop.offset, stop.position, stop.leaf)
        return self._scanned(file, container, scan, limit)

    def _segment_commits(
        self, header: SegmentHeader, place: Cursor, limit: _Limit, *, steps_over: bool
    ) -> Iterator[Commit]:
        file = self._segments.open(header.first, header.generation)
        scan = Scan(
            Window(file),
            segment.seed(self._store_id, header.first, header.generation),
            place.container,
            offset=place.offset,
            position=place.position,
            leaf=place.leaf,
            stop=limit.offset,
            steps_over=steps_over,
        )
        yield from self._scanned(file, place.container, scan, limit)

    def _scanned(
        self, file: SegmentFile, container: str, scan: Scan, limit: _Limit
    ) -> Iterator[Commit]:
        """Yield what a scan finds, close the file, and check that it ends where it must."""
        offset = scan.offset
        try:
            yield from scan
        finally:
            file.close()
        # From a place in the middle on, the leaf hash is known only once a commit was read.
        is_leaf_known = scan.offset > offset or offset == HEADER_FRAME_BYTES
        if (scan.offset, scan.position) != (limit.offset, limit.position) or (
            is_leaf_known and scan.leaf != limit.leaf
        ):
            path = self._root / container
            raise LogCorruptionError(
                f"{path} is damaged at offset {scan.offset} (position {scan.position}): "
                f"{(scan.flaw or 'other events stood there').rstrip('.')}; {limit.offset} bytes "
                f"up to position {limit.position} were durable.",
                hint="Run ckptlog verify, then ckptlog repair (--from COPY takes from a backup).",
                path=str(path),
                offset=scan.offset,
                position=scan.position,
            )


class _Limit(NamedTuple):
    """Where the durable part of a segment ends, as the published end or the next header says."""

    offset: int
    position: int
    leaf: bytes


def _container(header: SegmentHeader) -> str:
    return container_of(header.first, header.generation)


def _missing(header: SegmentHeader, stop: End, position: int) -> LogCorruptionError:
    return LogCorruptionError(
        f"The log ends in {container_of(header.first, header.generation)}, before position "
        f"{stop.position}, which was durable.",
        hint="A segment file is missing: ckptlog repair (--from COPY takes it from a backup).",
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
