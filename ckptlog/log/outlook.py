"""Where a log ends beyond its published end, as recovery would find it; nothing is changed.

    published end -> Recovery, dry -> where it ends, if nothing is corrupt
                                   -> else, over the damage: the newest segment that was in use
      -> the last whole commit behind the largest `durable` that a valid event names there

Below that `durable` all was on the medium: what is damaged there is lost. What is not whole behind
it is a torn tail, as ever, and no part of the log. Page: specs/log.md, "Who only looks".
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from ckptlog.errors import CheckpointError, FormatError, LogCorruptionError
from ckptlog.formats import event, frame, segment
from ckptlog.formats.end import End
from ckptlog.formats.segment import HEADER_FRAME_BYTES, SegmentHeader
from ckptlog.log.recovery import Recovery
from ckptlog.log.scan import Scan, Window, durable_after, event_before
from ckptlog.log.segment_file import WrittenSegment
from ckptlog.log.segments import FOLDER, Segments, container_of
from ckptlog.model.leaf import leaf_hash
from ckptlog.storage.environment import Environment

_EVENT_START = frame.MAGIC + bytes([frame.EVENT])

_Name = tuple[int, int]


class Outlook(msgspec.Struct, frozen=True):
    """What stands beyond a published end.

    end: Where the log ends; None where nothing tells it. damage: What keeps the log from being
        opened; None where nothing does.
    """

    end: End | None
    damage: CheckpointError | None = None

    @property
    def file(self) -> str:
        """The damaged file below the store's root; the log's folder where it is no single one."""
        path = Path(str(self.damage.context.get("path", FOLDER))) if self.damage else Path(FOLDER)
        return FOLDER if path.name == FOLDER else f"{FOLDER}/{path.name}"

    @property
    def where(self) -> str:
        """The damaged file, with the offset where that is known."""
        offset = self.damage.context.get("offset") if self.damage else None
        return self.file if offset is None else f"{self.file}:{offset}"


def look(
    segments: Segments,
    store_id: bytes,
    environment: Environment,
    published: Callable[[], End | None],
) -> Outlook:
    """Judge what stands beyond the published end; one that is lost is not judged.

    Threads: safe beside a writer. Where the end has moved meanwhile, whoever moved it has recovered
    what stood there.        Cost: what stands beyond the end; over damage the newest segment.
    """
    end = published()
    if end is None:
        return Outlook(None)
    try:
        tail = Recovery(segments, store_id, environment, is_dry=True).run(end).tail
        name = (tail.first, tail.generation)
        found = Outlook(_moved(end, name, tail.offset, tail.position, tail.leaf))
    except LogCorruptionError as error:
        found = Outlook(_Damaged(segments, store_id, environment, end).end(), error)
    except CheckpointError as error:  # the medium: nobody can look
        found = Outlook(end, error)
    now = published()
    return found if now == end else Outlook(now)


def _moved(end: End, name: _Name, offset: int, position: int, leaf: bytes) -> End:
    first, generation = name
    return End(end.store_id, position, first, generation, offset, leaf, end.boot)


class _Damaged:
    """Finds the end of a log that is damaged beyond the published one."""

    def __init__(
        self, segments: Segments, store_id: bytes, environment: Environment, end: End
    ) -> None:
        self._segments = segments
        self._store_id = store_id
        self._disk = environment.disk
        self._end = end

    def end(self) -> End | None:
        """Return where it ends; None where nothing tells, or two things contradict each other."""
        end = self._end
        own = (end.first, end.generation)
        names = [name for name in self._segments.names() if name > own]
        headers = {name: self._header(name) for name in names}
        if any(name[0] < end.position or self._is_against(headers[name]) for name in names):
            return None
        for name in reversed(names):
            header = headers[name]
            if header is not None or self._holds_more(name):
                return self._end_in(
                    name, HEADER_FRAME_BYTES, name[0], header.leaf if header else None
                )
        if not self._segments.exists(*own):
            # That it is gone is told by who reads up to it; a settled one had another behind it.
            return None if self._segments.is_there(*own) else end
        return self._end_in(own, end.offset, end.position, end.leaf)

    def _header(self, name: _Name) -> SegmentHeader | None:
        try:
            return self._segments.header(*name)
        except FormatError:
            return None

    def _is_against(self, header: SegmentHeader | None) -> bool:
        """Say whether a header makes dead what was published."""
        end = self._end
        if header is None:
            return False
        before = (header.previous_first, header.previous_generation)
        return before == (end.first, end.generation) and header.previous_length < end.offset

    def _holds_more(self, name: _Name) -> bool:
        """Say whether anything stands where commits do; else a roll was torn."""
        if not self._segments.exists(*name):
            return False
        file = self._open(name)
        try:
            return bool(file.read(file.size, HEADER_FRAME_BYTES).strip(b"\0"))
        finally:
            file.close()

    def _open(self, name: _Name) -> WrittenSegment:
        return WrittenSegment(self._disk, self._disk.open_read(self._segments.path(*name)))

    def _end_in(self, name: _Name, offset: int, position: int, leaf: bytes | None) -> End | None:
        """Return where the log ends in its newest segment, reading it from a commit's end on."""
        if not self._segments.exists(*name):
            return None
        file = self._open(name)
        try:
            scan = self._scan(file, name, offset, position, leaf)
            rest = file.read(max(0, file.size - scan.offset), scan.offset)
            durable = durable_after(rest, segment.seed(self._store_id, *name), scan.offset)
            if durable > scan.offset:
                return self._end_behind(file, name, durable, scan.position)
            if scan.position == position and leaf is None:
                return None
            return _moved(self._end, name, scan.offset, scan.position, scan.leaf)
        finally:
            file.close()

    def _end_behind(
        self, file: WrittenSegment, name: _Name, durable: int, position_min: int
    ) -> End | None:
        """Return the end behind an offset below which all was durable, and something is lost."""
        seed = segment.seed(self._store_id, *name)
        data = file.read(max(0, file.size - durable), durable)
        before = event_before(file, seed, durable)
        position = _first_in(data, seed, durable) if before is None else before.position + 1
        if position is not None and position >= position_min:
            scan = self._scan(file, name, durable, position, before.leaf if before else None)
            if scan.position > position or (before is not None and before.ends_commit):
                return _moved(self._end, name, scan.offset, scan.position, scan.leaf)
        # The damage goes on beyond that offset, and nothing tells how many events lie before it.
        last = _last_in(data, seed, durable)
        if last is None or last[1] < position_min:
            return None
        return _moved(self._end, name, *last)

    def _scan(
        self, file: WrittenSegment, name: _Name, offset: int, position: int, leaf: bytes | None
    ) -> Scan:
        """Return a scan that has come to its end."""
        scan = Scan(
            Window(file),
            segment.seed(self._store_id, *name),
            container_of(*name),
            offset=offset,
            position=position,
            leaf=leaf or b"",
        )
        for _ in scan:
            pass
        return scan


def _first_in(data: bytes, seed: int, base: int) -> int | None:
    """Return the position of the event to which whole frames lead up from the beginning of data."""
    for kind, _, begin, end in frame.walk(seed, base, data):
        if kind == frame.EVENT:
            position, _ = event.decode_prefix(data[begin + frame.HEADER_BYTES : end])
            return position
    return None


def _last_in(data: bytes, seed: int, base: int) -> tuple[int, int, bytes] | None:
    """Return where the last valid event of data that ends a commit does, position and leaf hash."""
    at = data.rfind(_EVENT_START)
    while at >= 0:
        try:
            found = frame.decode(seed, base + at, data, at)
        except FormatError:
            found = None
        if found is not None and found.flags & frame.COMMIT:
            position, _ = event.decode_prefix(found.body)
            return found.offset_end, position + 1, leaf_hash(found.body[event.PREFIX_BYTES :])
        at = data.rfind(_EVENT_START, 0, at)
    return None
