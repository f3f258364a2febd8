"""Frames to commits: the one loop that reads segments, for readers, recovery and verification.

A scan starts at a commit boundary and yields whole commits. It stops at `stop`, at the end of the
file, or where no whole commit follows; then `offset` is the end of the last whole commit and
`flaw` says what stands there: None for nothing (end of file, or the zeros of preallocation).
What a flaw *means* (a torn tail or corruption) is not decided here: see log.recovery.

Who wants the events of what is durable may have a scan step over damage (`steps_over`): what stands
there is no event as long as the positions behind it go on without a gap, for each event names its
own. A lost event is a flaw as ever. Page: specs/log.md, "Damage among chunks".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ckptlog.errors import FormatError
from ckptlog.formats import chunk, event, frame
from ckptlog.log.segment_file import SegmentFile
from ckptlog.model.entry import Commit, Entry, Placement
from ckptlog.model.leaf import leaf_hash

_WINDOW_BYTES = 1024 * 1024
_NOTHING = bytes(4)
_RECORD_MIN = frame.HEADER_BYTES + chunk.HEADER_BYTES
_DIGEST_END = frame.HEADER_BYTES + chunk.DIGEST_BYTES
_ENTRY_AT = frame.HEADER_BYTES + event.PREFIX_BYTES
# Most event frames are below the first; none is above the second.
# What the frames behind the segment's header are.
_STEPS = frozenset({frame.EVENT, frame.CHUNK})
_EVENT_START = frame.MAGIC + bytes([frame.EVENT])
_LOOKS_BACK_BYTES = (4096, frame.HEADER_BYTES + event.PREFIX_BYTES + event.ENTRY_BYTES_MAX)


class Window:
    """A sliding buffer over a file, so that a scan makes few reads.

    Attributes:
        start: Offset of the buffer in the file.
        data: The buffer.
    """

    def __init__(self, file: SegmentFile, window_bytes: int = _WINDOW_BYTES) -> None:
        self._file = file
        self._window_bytes = window_bytes
        self.start = 0
        self.data = b""

    @property
    def view(self) -> memoryview:
        """The buffer without a copy."""
        return memoryview(self.data)

    def locate(self, offset: int, length: int) -> int:
        """Bring length bytes at offset into `data`; return where in it they begin.

        Fewer are there when the file ends before.
        """
        begin = offset - self.start
        if begin < 0 or begin + length > len(self.data):
            self.move(offset, length)
            return 0
        return begin

    def move(self, offset: int, length: int, stop: int | None = None) -> None:
        """Begin the window at offset, with at least length bytes where the file has them.

        Args:
            stop: More than up to there is not wanted.
        """
        wanted = self._window_bytes
        if stop is not None:
            wanted = min(wanted, stop - offset)
        self.data = self._file.run(max(length, wanted), offset)
        self.start = offset

    @property
    def is_settled(self) -> bool:
        """Whether the chunks of the file are gone."""
        return self._file.is_settled

    def seek(self, offset: int) -> int:
        """Return the first offset from this one on at which something may stand."""
        return self._file.seek(offset)

    def brought(self, offset: int) -> tuple[int, int] | None:
        """Return what came with the event there (`SegmentFile.brought`)."""
        return self._file.brought(offset)


class Scan:
    """One pass over a segment from a commit boundary.

    Attributes:
        offset: End of the last whole commit, bytes.
        position: Of the event after it.
        leaf: Leaf hash of the last event; the caller's where none was met.
        durable: Highest `durable` that a commit named.
        flaw: What stopped the scan; None when nothing stands at `offset`, or `stop` was reached.
    """

    def __init__(
        self,
        window: Window,
        seed: int,
        container: str,
        *,
        offset: int,
        position: int,
        leaf: bytes,
        stop: int | None = None,
        steps_over: bool = False,
    ) -> None:
        self._window = window
        self._seed = seed
        self._container = container
        self._stop = stop
        self._steps_over = steps_over and stop is not None and not window.is_settled
        self._passed: FormatError | None = None
        self._claimed: Placement | None = None
        self.offset = offset
        self.position = position
        self.leaf = leaf
        self.durable = 0
        self.flaw: str | None = None

    def __iter__(self) -> Iterator[Commit]:
        """Yield each whole commit and step over it."""
        try:
            yield from self._commits()
        except FormatError as error:
            self.flaw = error.message

    def _commits(self) -> Iterator[Commit]:
        """Read commits; every event that is ever read passes here, so little is called."""
        container, next_ = self._container, self.position
        offset = span_start = self.offset
        entries: list[Entry] = []
        placements: list[Placement] = []
        raw: list[bytes] = []
        while self._is_more(offset):
            if self._claimed is not None:
                placements.append(self._claimed)
                self._claimed = None
            offset = self._window.start
            base, data = self._window.start, self._window.data
            for kind, flags, begin, end in frame.walk(self._seed, base, data):
                offset, length = base + begin, end - begin
                if kind == frame.EVENT and length >= _ENTRY_AT:
                    entry = data[begin + _ENTRY_AT : end]
                    position, durable = event.prefix_at(data, begin + frame.HEADER_BYTES)
                    if position != next_:
                        raise self._passed or _other_position(offset, position, next_)
                    next_ += 1
                    if durable > self.durable:  # noqa: PLR1730 - no call for each event
                        self.durable = durable
                    span, span_start = offset - span_start, offset + length
                    fact = event.decode(entry)
                    entries.append(Entry(fact, position, container, offset, length, span))
                    raw.append(entry)
                    if flags & frame.COMMIT:
                        commit = self._whole(entries, placements, raw, offset + length)
                        if commit is None:
                            return
                        yield commit
                        entries, placements, raw = [], [], []
                elif kind == frame.CHUNK and length >= _RECORD_MIN and not flags & frame.COMMIT:
                    digest = data[begin + frame.HEADER_BYTES : begin + _DIGEST_END]
                    placements.append(Placement(digest, container, offset, length))
                else:
                    raise FormatError(
                        f"A frame of kind {kind}, {length} bytes, at {offset} is misplaced."
                    )
                offset += length

    def _whole(
        self, entries: list[Entry], placements: list[Placement], raw: list[bytes], end: int
    ) -> Commit | None:
        """Step over a commit and return it; None where it lies beyond the stop."""
        if self._stop is not None and end > self._stop:
            self.flaw = f"The commit at offset {self.offset} goes on beyond {self._stop}."
            return None
        self._passed = None
        self.leaf = leaf = leaf_hash(raw[-1])
        self.position += len(raw)
        self.offset = end
        kept = tuple(raw) if len(raw) > 1 else ()
        return Commit(tuple(entries), tuple(placements), leaf, self._container, end, kept)

    def _is_more(self, offset: int) -> bool:
        """Bring a whole checked frame to the front of the window; say whether there is one.

        Raises:
            FormatError: Something else stands there, or nothing in the middle of a commit.
        """
        if self._stop is not None and offset >= self._stop and offset == self.offset:
            return False
        flaw: FormatError | None = None
        try:
            is_whole = self._brings(offset)
        except FormatError as error:
            if not self._steps_over:
                raise
            is_whole, flaw = False, error
        if is_whole or not self._steps_over:
            return is_whole
        flaw = flaw or FormatError(f"No frame begins at offset {offset}.")
        if not self._steps(offset):
            raise self._passed or flaw
        self._passed = self._passed or flaw
        return True

    def _steps(self, offset: int) -> bool:
        """Go to the next whole frame behind a damaged one; say whether there is one.

        Where the damaged one has its length still, and says that it is a chunk, its place counts:
        who reads it is told that it is damaged.
        """
        stop, window = self._stop or 0, self._window
        window.move(offset, frame.HEADER_BYTES + chunk.DIGEST_BYTES, stop)
        head = window.data[:_DIGEST_END]
        size = frame.body_length(head[: frame.HEADER_BYTES])
        if size is not None and frame.HEADER_BYTES + size >= _RECORD_MIN:
            end = offset + frame.HEADER_BYTES + size
            if end < stop and self._stands(end):
                if head[2] == frame.CHUNK:
                    digest, length = head[frame.HEADER_BYTES :], end - offset
                    self._claimed = Placement(digest, self._container, offset, length)
                return True
        return self._searches(offset + 1, stop)

    def _searches(self, offset: int, stop: int) -> bool:
        """Go to the first whole frame from an offset on; say whether there is one."""
        while offset + frame.HEADER_BYTES < stop:
            self._window.move(offset, frame.HEADER_BYTES, stop)
            data = self._window.data
            if len(data) < frame.HEADER_BYTES:
                return False
            at = _next_head(data)
            if data[at : at + 2] == frame.MAGIC and len(data) - at >= frame.HEADER_BYTES:
                if self._stands(offset + at):
                    return True
                at += 1
            offset += at
        return False

    def _stands(self, offset: int) -> bool:
        """Bring what begins at an offset into the window; say whether that is a whole frame."""
        try:
            is_frame = self._window.seek(offset) == offset and self._brings(offset)
        except FormatError:
            return False
        return is_frame and self._window.data[2] in _STEPS

    def _brings(self, offset: int) -> bool:
        """Do as `_is_more`, of what stands at an offset itself.

        Raises:
            FormatError: Something else stands there, or nothing in the middle of a commit.
        """
        window = self._window
        at = window.seek(offset)
        window.move(at, frame.HEADER_BYTES, self._stop)
        head = window.data[: frame.HEADER_BYTES]
        if not head or head[:4] == _NOTHING:
            if offset == self.offset:
                return False
            raise FormatError(f"The commit at offset {self.offset} is not whole.")
        size = frame.body_length(head)
        if size is None:
            raise FormatError(f"No frame begins at offset {at}.")
        if len(window.data) < frame.HEADER_BYTES + size:
            window.move(at, frame.HEADER_BYTES + size, self._stop)
        frame.measure(self._seed, at, window.data)
        return True


def _next_head(data: bytes) -> int:
    """Return where something like a frame's head begins, or so much of one that more is needed."""
    last = len(data) - frame.HEADER_BYTES
    at = data.find(frame.MAGIC)
    while 0 <= at <= last:
        if frame.body_length(data[at : at + frame.HEADER_BYTES]) is not None:
            return at
        at = data.find(frame.MAGIC, at + 1)
    return last + 1 if at < 0 else at


def _other_position(offset: int, position: int, expected: int) -> FormatError:
    return FormatError(
        f"The event at offset {offset} has position {position}; {expected} is expected."
    )


def durable_after(data: bytes, seed: int, base: int) -> int:
    """Return the highest `durable` that any valid event frame in data names; 0 where there is none.

    Args:
        data: The bytes of a damaged region, whole to the end of the file.
        seed: The segment's checksum seed.
        base: Offset of data in the segment.

    The checksum binds a frame to its offset, so a chance match is as good as impossible.
    """
    highest, at = 0, data.find(frame.MAGIC)
    while at >= 0:
        step = 1
        if data[at + 2 : at + 3] == bytes([frame.EVENT]):
            try:
                found = frame.decode(seed, base + at, data, at)
                highest = max(highest, event.decode_prefix(found.body)[1])
                step = frame.HEADER_BYTES + len(found.body)
            except FormatError:
                pass
        at = data.find(frame.MAGIC, at + step)
    return highest


class Before(NamedTuple):
    """The event whose frame ends at a place.

    position: Of the event. leaf: Its leaf hash. ends_commit: Whether it is the last of its commit.
    """

    position: int
    leaf: bytes
    ends_commit: bool


def event_before(file: SegmentFile, seed: int, offset: int) -> Before | None:
    """Return the event whose frame ends at an offset, None for no such.

    Frames name their length in front, so their magic is searched from the back. The checksum
    binds a frame to its place; who relies on the answer compares the leaf hash.
    """
    for length in _LOOKS_BACK_BYTES:
        base = max(0, offset - length)
        data = file.read(offset - base, base)
        at = data.rfind(_EVENT_START)
        while at >= 0:
            size = frame.body_length(data[at : at + frame.HEADER_BYTES])
            if size is not None and base + at + frame.HEADER_BYTES + size == offset:
                found = _event_at(data, at, seed, base)
                if found is not None:
                    return found
            at = data.rfind(_EVENT_START, 0, at + len(_EVENT_START) - 1)
        if base == 0:
            break
    return None


def _event_at(data: bytes, at: int, seed: int, base: int) -> Before | None:
    try:
        _, flags, end = frame.measure(seed, base + at, data, at)
        body = data[at + frame.HEADER_BYTES : end]
        position, _ = event.decode_prefix(body)
    except FormatError:
        return None
    return Before(position, leaf_hash(body[event.PREFIX_BYTES :]), bool(flags & frame.COMMIT))
