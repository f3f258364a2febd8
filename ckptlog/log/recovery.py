"""Recovery: what the next holder of the lock does with bytes beyond the published end.

Runs under the exclusive lock only. The rules (specs/log.md):

1. Whole valid commits beyond the end are kept: they are *rewritten in place*, synced, and only
   then published. Rewriting matters: after a failed sync the kernel may hold the pages as clean,
   so a second sync alone would report success for bytes that never reached the medium.
2. Where no whole commit follows, the rest is a torn tail, unless something says that those bytes
   were durable: the published end itself, a later valid frame whose `durable` lies beyond the
   flaw, or a successor's header. Then it is corruption: reported, never cut.
3. A torn tail is kept aside (`log/torn-*`) and cut.
4. A segment whose header is not whole, beyond the end, is a torn roll: kept aside too. It has
   nothing behind its header, for commits come only after the header is durable.
5. Where the log goes on in a segment that the end did not name yet, that segment's header and its
   name in the folder count as unsynced too: they are made durable before the end is published.
6. A settled segment is finished and durable. Where an end of before that was put back, it is read
   like any other, and nothing of it is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from ckptlog.errors import FullError, LogCorruptionError
from ckptlog.formats import segment
from ckptlog.formats.end import End
from ckptlog.formats.event import LEAF_EMPTY
from ckptlog.formats.segment import HEADER_FRAME_BYTES, SegmentHeader
from ckptlog.log.batch import Tail
from ckptlog.log.scan import Scan, Window, durable_after
from ckptlog.log.segment_file import SegmentFile, WrittenSegment
from ckptlog.log.segments import Segments, container_of
from ckptlog.storage.environment import Environment

_COPY_BYTES = 4 * 1024 * 1024


class Recovered(msgspec.Struct, frozen=True):
    """What recovery found: the tail, commits beyond the published end, notes for people."""

    tail: Tail
    adopted: int
    notes: tuple[str, ...]


class _Start(NamedTuple):
    """The commit boundary that reading begins at.

    durable: Bytes of the segment that are known to be on the medium, its name included.
    """

    offset: int
    position: int
    leaf: bytes
    durable: int


class Recovery:
    """One run.

    Args:
        is_dry: Only look: raise what a run would raise, find what it would find, change nothing.

    Threads: under the lock, one at a time; a dry one needs none (log.outlook).
    """

    def __init__(
        self,
        segments: Segments,
        store_id: bytes,
        environment: Environment,
        *,
        is_dry: bool = False,
    ) -> None:
        self._segments = segments
        self._store_id = store_id
        self._environment = environment
        self._disk = environment.disk
        self._is_dry = is_dry
        self._notes: list[str] = []

    def run(self, end: End | None) -> Recovered:
        """Find the tail, starting from the published end; mend what a crash left.

        Args:
            end: None where a power cut has torn it: the newest segment is read from its beginning.

        Raises:
            LogCorruptionError: Bytes that were durable are damaged or gone. Nothing was changed.
        """
        header, start = self._first_segment(end)
        adopted = 0
        while True:
            after = self._segments.successor(header)
            tail, count = self._finish_segment(header, start, after)
            adopted += count
            if after is None:
                return Recovered(tail, adopted, tuple(self._notes))
            header, start = after, _beginning(after)

    def _first_segment(self, end: End | None) -> tuple[SegmentHeader, _Start]:
        live = self._segments.refresh()
        self._set_aside_torn_rolls(end)
        if end is None:
            if not live:
                raise LogCorruptionError(
                    f"{self._segments.folder} holds no segment with a valid header.",
                    hint="Restore the store from a backup.",
                    path=str(self._segments.folder),
                )
            return live[-1], _beginning(live[-1])
        for header in live:
            if (header.first, header.generation) == (end.first, end.generation):
                return header, _Start(end.offset, end.position, end.leaf, end.offset)
            # A segment that a sync error ended before its first event was replaced by one of
            # the same name and a higher generation.
            if header.first == end.first == end.position:
                return header, _beginning(header)
        raise LogCorruptionError(
            f"The published end lies in {segment.segment_name(end.first, end.generation)}, which "
            f"is missing or has a damaged header.",
            hint="Run ckptlog repair (--from COPY takes it from a backup).",
            path=str(self._segments.path(end.first, end.generation)),
        )

    def _set_aside(self, path: Path) -> None:
        if self._is_dry:
            return
        aside = path.with_name(f"torn-{self._environment.now_us()}-{path.name}")
        self._disk.rename(path, aside)
        self._disk.sync_directory(path.parent)
        self._notes.append(f"A segment that was never finished is now {aside}.")

    def _set_aside_torn_rolls(self, end: End | None) -> None:
        newest = self._segments.names()[-1:] if self._segments.unreadable else []
        for path in self._segments.unreadable:
            name = segment.parse_name(path.name)
            is_beyond = end is None or (name is not None and name > (end.first, end.generation))
            if not is_beyond or [name] != newest or self._holds_frames(path):
                raise LogCorruptionError(
                    f"The header of {path} is damaged.",
                    hint="Run ckptlog verify, which lists what is affected, then ckptlog repair.",
                    path=str(path),
                )
            self._set_aside(path)

    def _holds_frames(self, path: Path) -> bool:
        fd = self._disk.open_read(path)
        try:
            size = self._disk.size(fd)
            return any(
                self._disk.read(fd, _COPY_BYTES, offset).strip(b"\0")
                for offset in range(HEADER_FRAME_BYTES, size, _COPY_BYTES)
            )
        finally:
            self._disk.close(fd)

    def _finish_segment(
        self,
        header: SegmentHeader,
        start: _Start,
        after: SegmentHeader | None,
    ) -> tuple[Tail, int]:
        path = self._segments.path(header.first, header.generation)
        if not path.exists():
            return self._pass_settled(header, start, after)
        fd = self._disk.open_read(path) if self._is_dry else self._disk.open_write(path)
        try:
            stop = after.previous_length if after else None
            self._check_length(self._disk.size(fd), str(path), start, stop)
            scan = self._scan(WrittenSegment(self._disk, fd), header, start, stop)
            adopted = sum(1 for _ in scan)
            if after is None:
                self._settle_tail(fd, header, scan, start)
            else:
                self._check_end(str(path), scan, after)
            return self._tail_after(header, scan), adopted
        finally:
            self._disk.close(fd)

    def _pass_settled(
        self, header: SegmentHeader, start: _Start, after: SegmentHeader | None
    ) -> tuple[Tail, int]:
        path = str(self._segments.settled_path(header.first, header.generation))
        if after is None:
            raise LogCorruptionError(
                f"The segment that follows {path} is missing.",
                hint="Run ckptlog repair (--from COPY takes it from a backup).",
                path=path,
            )
        file = self._segments.open(header.first, header.generation)
        try:
            self._check_length(file.size, path, start, after.previous_length)
            scan = self._scan(file, header, start, after.previous_length)
            adopted = sum(1 for _ in scan)
            self._check_end(path, scan, after)
            return self._tail_after(header, scan), adopted
        finally:
            file.close()

    def _check_end(self, path: str, scan: Scan, after: SegmentHeader) -> None:
        told = after.previous_length, after.first, after.leaf
        if (scan.offset, scan.position, scan.leaf) != told:
            raise self._corrupt(path, scan, "its successor says what was durable")

    def _scan(
        self, file: SegmentFile, header: SegmentHeader, start: _Start, stop: int | None
    ) -> Scan:
        return Scan(
            Window(file),
            segment.seed(self._store_id, header.first, header.generation),
            container_of(header.first, header.generation),
            offset=start.offset,
            position=start.position,
            leaf=start.leaf,
            stop=stop,
        )

    def _check_length(self, size: int, path: str, start: _Start, stop: int | None) -> None:
        durable = max(start.offset, stop or 0)
        if size < durable:
            raise LogCorruptionError(
                f"{path} has {size} bytes; {durable} were durable.",
                hint="The file was cut. Restore it from a backup.",
                path=path,
                offset=size,
            )
        if stop is not None and stop < start.offset:
            raise LogCorruptionError(
                f"The segment after {path} says that it ends at {stop}; {start.offset} bytes of it "
                "were published.",
                hint="Files of different times stand side by side. Restore all from one backup.",
                path=path,
                offset=stop,
            )

    def _settle_tail(self, fd: int, header: SegmentHeader, scan: Scan, start: _Start) -> None:
        """Make durable what is kept of the newest segment; cut a torn rest, leave zeros."""
        path = str(self._segments.path(header.first, header.generation))
        rest = self._disk.read(fd, self._disk.size(fd) - scan.offset, scan.offset)
        is_torn = bool(rest.strip(b"\0"))
        if is_torn:
            seed = segment.seed(self._store_id, header.first, header.generation)
            if durable_after(rest, seed, scan.offset) > scan.offset:
                raise self._corrupt(path, scan, "later commits say that it was durable")
        if self._is_dry:
            return
        self._rewrite(fd, start.durable, scan.offset)
        if is_torn:
            self._set_aside_rest(path, rest, scan)
            self._disk.truncate(fd, scan.offset)
        if is_torn or scan.offset > start.durable:
            self._disk.sync(fd)
        if start.durable == 0:
            self._disk.sync_directory(self._segments.folder)

    def _rewrite(self, fd: int, start: int, stop: int) -> None:
        for offset in range(start, stop, _COPY_BYTES):
            length = min(_COPY_BYTES, stop - offset)
            self._disk.write(fd, self._disk.read(fd, length, offset), offset)

    def _set_aside_rest(self, path: str, rest: bytes, scan: Scan) -> None:
        name = f"torn-{scan.position}-{self._environment.now_us()}"
        aside = self._segments.folder / name
        torn = rest.rstrip(b"\0")
        what = f"{len(torn)} bytes of an unfinished commit at offset {scan.offset} of {path}"
        try:
            self._disk.write_atomically(aside, torn)
        except FullError:
            # Nobody was ever told of them; a full disk must not keep a store from opening.
            self._notes.append(f"{what} were cut; there was no room to keep them aside.")
            return
        self._notes.append(f"{what} are now in {aside}.")

    def _corrupt(self, path: str, scan: Scan, why: str) -> LogCorruptionError:
        return LogCorruptionError(
            f"{path} is damaged at offset {scan.offset} (position {scan.position}): "
            f"{scan.flaw or 'no commit stands there'} It is no torn tail: {why}.",
            hint="Nothing was changed. Run ckptlog verify, then ckptlog repair.",
            path=path,
            offset=scan.offset,
            position=scan.position,
        )

    def _tail_after(self, header: SegmentHeader, scan: Scan) -> Tail:
        return Tail(
            position=scan.position,
            first=header.first,
            generation=header.generation,
            offset=scan.offset,
            durable=scan.offset,
            leaf=scan.leaf if scan.position else LEAF_EMPTY,
        )


def _beginning(header: SegmentHeader) -> _Start:
    return _Start(HEADER_FRAME_BYTES, header.first, header.leaf, 0)
