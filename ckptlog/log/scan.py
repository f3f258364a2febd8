"""Frames to commits: the one loop that reads segments, for readers, recovery and verification.

A scan starts at a commit boundary and yields whole commits. It stops at `stop`, at the end of the
file, or where no whole commit follows; then `offset` is the end of the last whole commit and
`flaw` says what stands there: None for nothing (end of file, or the zeros of preallocation).
What a flaw *means* (a torn tail or corruption) is not decided here: see log.recovery.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckptlog.errors import FormatError
from ckptlog.formats import chunk, event, frame
from ckptlog.model.entry import Commit, Entry, Placement
from ckptlog.storage.disk import Disk

_WINDOW_BYTES = 1024 * 1024
_NOTHING = bytes(4)
# Most event frames are below the first; none is above the second.
_EVENT_START = frame.MAGIC + bytes([frame.EVENT])
_LOOKS_BACK_BYTES = (4096, frame.HEADER_BYTES + event.PREFIX_BYTES + event.ENTRY_BYTES_MAX)


class Window:
    """A sliding buffer over a file, so that a scan makes few reads."""

    def __init__(self, disk: Disk, fd: int, window_bytes: int = _WINDOW_BYTES) -> None:
        self._disk = disk
        self._fd = fd
        self._window_bytes = window_bytes
        self._start = 0
        self._data = b""
        self.view = memoryview(b"")

    def locate(self, offset: int, length: int) -> int:
        """Bring length bytes at offset into `view`; return where in it they begin.

        Fewer are there when the file ends before.
        """
        begin = offset - self._start
        if begin < 0 or begin + length > len(self._data):
            self._data = self._disk.read(self._fd, max(length, self._window_bytes), offset)
            self._start, begin = offset, 0
            self.view = memoryview(self._data)
        return begin


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
    ) -> None:
        self._window = window
        self._seed = seed
        self._container = container
        self._stop = stop
        self.offset = offset
        self.position = position
        self.leaf = leaf
        self.durable = 0
        self.flaw: str | None = None

    def __iter__(self) -> Iterator[Commit]:
        """Yield each whole commit and step over it."""
        while self._stop is None or self.offset < self._stop:
            try:
                commit = self._commit()
            except FormatError as error:
                self.flaw = error.message
                return
            if commit is None:
                return
            if self._stop is not None and commit.offset_end > self._stop:
                self.flaw = f"The commit at offset {self.offset} goes on beyond {self._stop}."
                return
            self.offset = commit.offset_end
            self.position = commit.position_next
            self.leaf = commit.leaf
            yield commit

    def _commit(self) -> Commit | None:
        """Read one commit; None when nothing begins at the present offset."""
        offset = self.offset
        entries: list[Entry] = []
        placements: list[Placement] = []
        leaves: list[bytes] = []
        span_start = offset
        while True:
            found = self._frame(offset)
            if found is None:
                if offset == self.offset:
                    return None
                raise FormatError(f"The commit at offset {self.offset} is not whole.")
            end = found.offset_end
            if found.kind == frame.CHUNK:
                digest = chunk.digest_in(found.body)
                placements.append(Placement(digest, self._container, offset, end - offset))
            elif found.kind == frame.EVENT:
                entries.append(self._entry(found, len(entries), offset - span_start))
                leaves.append(event.leaf_hash(found.body[event.PREFIX_BYTES :]))
                span_start = end
            else:
                raise FormatError(f"A frame of kind {found.kind} at {offset} belongs elsewhere.")
            offset = end
            if found.flags & frame.COMMIT:
                if found.kind != frame.EVENT:
                    raise FormatError(f"The frame at {found.offset} cannot end a commit.")
                return Commit(
                    tuple(entries),
                    tuple(placements),
                    leaves[-1],
                    self._container,
                    offset,
                    tuple(leaves),
                )

    def _frame(self, offset: int) -> frame.Frame | None:
        window = self._window
        begin = window.locate(offset, frame.HEADER_BYTES)
        head = window.view[begin : begin + frame.HEADER_BYTES]
        if len(head) == 0 or (len(head) >= 4 and head[:4] == _NOTHING):
            return None
        size = frame.body_length(head)
        if size is None:
            raise FormatError(f"No frame begins at offset {offset}.")
        begin = window.locate(offset, frame.HEADER_BYTES + size)
        return frame.decode(self._seed, offset, window.view, begin)

    def _entry(self, found: frame.Frame, index: int, span: int) -> Entry:
        position, durable = event.decode_prefix(found.body)
        if position != self.position + index:
            raise FormatError(
                f"The event at offset {found.offset} has position {position}; "
                f"{self.position + index} is expected."
            )
        self.durable = max(self.durable, durable)
        fact = event.decode(found.body[event.PREFIX_BYTES :])
        length = found.offset_end - found.offset
        return Entry(fact, position, self._container, found.offset, length, span)


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


def event_before(disk: Disk, fd: int, seed: int, offset: int) -> tuple[int, bytes] | None:
    """Return position and leaf hash of the event whose frame ends at an offset, None for no such.

    Frames name their length in front, so their magic is searched from the back. The checksum
    binds a frame to its place; who relies on the answer compares the leaf hash.
    """
    for length in _LOOKS_BACK_BYTES:
        base = max(0, offset - length)
        data = disk.read(fd, offset - base, base)
        at = data.rfind(_EVENT_START)
        while at >= 0:
            size = frame.body_length(data[at : at + frame.HEADER_BYTES])
            if size is not None and base + at + frame.HEADER_BYTES + size == offset:
                try:
                    body = frame.decode(seed, base + at, data, at).body
                    position, _ = event.decode_prefix(body)
                except FormatError:
                    pass
                else:
                    return position, event.leaf_hash(body[event.PREFIX_BYTES :])
            at = data.rfind(_EVENT_START, 0, at + len(_EVENT_START) - 1)
        if base == 0:
            break
    return None
