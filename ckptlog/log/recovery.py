"""Recovery: what the next holder of the lock does with bytes beyond the published end.

Runs under the exclusive lock only. The rules (specs/log.md):

1. Whole valid commits beyond the end are kept: they are *rewritten in place*, synced, and only
   then published. Rewriting matters: after a failed sync the kernel may hold the pages as clean,
   so a second sync alone would report success for bytes that never reached the medium.
2. Where no whole commit follows, the rest is a torn tail, unless something says that those bytes
   were durable: the published end itself, a later valid frame whose `durable` lies beyond the
   flaw, or a successor's header. Then it is corruption: reported, never cut.
3. A torn tail is kept aside (`log/torn-*`) and cut.
4. A segment whose header is not whole, beyond the end, is a torn roll: kept aside too.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from ckptlog.errors import LogCorruptionError, operating_system_door
from ckptlog.formats import segment
from ckptlog.formats.end import End
from ckptlog.formats.event import LEAF_EMPTY
from ckptlog.formats.segment import HEADER_FRAME_BYTES, SegmentHeader
from ckptlog.log.batch import Tail
from ckptlog.log.scan import Scan, Window, durable_after
from ckptlog.log.segments import Segments, container_of
from ckptlog.storage.environment import Environment

_COPY_BYTES = 4 * 1024 * 1024


class Recovered(msgspec.Struct, frozen=True):
    """What recovery found: the tail, commits beyond the published end, notes for people."""

    tail: Tail
    adopted: int
    notes: tuple[str, ...]


class _Start(NamedTuple):
    """The commit boundary that reading begins at."""

    offset: int
    position: int
    leaf: bytes


class Recovery:
    """One run. Threads: under the lock, one at a time."""

    def __init__(self, segments: Segments, store_id: bytes, environment: Environment) -> None:
        self._segments = segments
        self._store_id = store_id
        self._environment = environment
        self._disk = environment.disk
        self._notes: list[str] = []

    def run(self, end: End | None) -> Recovered:
        """Find the tail, starting from the published end; mend what a crash left.

        Raises:
            LogCorruptionError: Bytes that were durable are damaged or gone. Nothing was changed.
        """
        header, offset = self._first_segment(end)
        start = _Start(
            offset, end.position if end else header.first, end.leaf if end else header.leaf
        )
        adopted = 0
        while True:
            after = self._segments.successor(header)
            if after is not None and self._contradicts(end, header, after):
                self._set_aside(self._segments.path(after.first, after.generation))
                self._segments.refresh()
                continue
            tail, count = self._finish_segment(header, start, after)
            adopted += count
            if after is None:
                return Recovered(tail, adopted, tuple(self._notes))
            header, start = after, _Start(HEADER_FRAME_BYTES, tail.position, tail.leaf)

    def _first_segment(self, end: End | None) -> tuple[SegmentHeader, int]:
        live = self._segments.refresh()
        self._set_aside_torn_rolls(end)
        if end is None:
            if not live:
                raise LogCorruptionError(
                    f"{self._segments.folder} holds no segment with a valid header.",
                    hint="Restore the store from a backup.",
                    path=str(self._segments.folder),
                )
            return live[-1], HEADER_FRAME_BYTES
        for header in live:
            if (header.first, header.generation) == (end.first, end.generation):
                return header, end.offset
            # A segment that a sync error ended before its first event was replaced by one of
            # the same name and a higher generation.
            if header.first == end.first == end.position:
                return header, HEADER_FRAME_BYTES
        raise LogCorruptionError(
            f"The published end lies in {segment.segment_name(end.first, end.generation)}, which "
            f"is missing or has a damaged header.",
            hint="Restore that file from a backup.",
            path=str(self._segments.path(end.first, end.generation)),
        )

    def _contradicts(self, end: End | None, header: SegmentHeader, after: SegmentHeader) -> bool:
        """Say whether a successor claims an end before the published one: a failed roll's rest."""
        return (
            end is not None
            and (header.first, header.generation) == (end.first, end.generation)
            and after.previous_length < end.offset
        )

    def _set_aside(self, path: Path) -> None:
        aside = path.with_name(f"torn-{self._environment.now_us()}-{path.name}")
        with operating_system_door("Cannot set a file aside"):
            path.rename(aside)
        self._disk.sync_directory(path.parent)
        self._notes.append(f"A segment that was never finished is now {aside}.")

    def _set_aside_torn_rolls(self, end: End | None) -> None:
        newest = self._segments.names()[-1:] if self._segments.unreadable else []
        for path in self._segments.unreadable:
            name = segment.parse_name(path.name)
            is_beyond = end is None or (name is not None and name > (end.first, end.generation))
            if name is None or not is_beyond or [name] != newest:
                raise LogCorruptionError(
                    f"The header of {path} is damaged.",
                    hint="Restore that file from a backup; ckptlog verify lists what is affected.",
                    path=str(path),
                )
            self._set_aside(path)

    def _finish_segment(
        self,
        header: SegmentHeader,
        start: _Start,
        after: SegmentHeader | None,
    ) -> tuple[Tail, int]:
        path = self._segments.path(header.first, header.generation)
        fd = self._disk.open_write(path)
        try:
            stop = after.previous_length if after else None
            self._check_length(fd, str(path), start.offset, stop)
            scan = self._scan(fd, header, start, stop)
            adopted = sum(1 for _ in scan)
            if after is None:
                self._settle_tail(fd, header, scan, start.offset)
            elif scan.offset != stop:
                raise self._corrupt(str(path), scan, "its successor says that it was durable")
            return self._tail_after(header, scan), adopted
        finally:
            self._disk.close(fd)

    def _scan(self, fd: int, header: SegmentHeader, start: _Start, stop: int | None) -> Scan:
        return Scan(
            Window(self._disk, fd),
            segment.seed(self._store_id, header.first, header.generation),
            container_of(header.first, header.generation),
            offset=start.offset,
            position=start.position,
            leaf=start.leaf,
            stop=stop,
        )

    def _check_length(self, fd: int, path: str, offset: int, stop: int | None) -> None:
        size = self._disk.size(fd)
        if size < max(offset, stop or 0):
            raise LogCorruptionError(
                f"{path} has {size} bytes; {max(offset, stop or 0)} were durable.",
                hint="The file was cut. Restore it from a backup.",
                path=path,
                offset=size,
            )

    def _settle_tail(self, fd: int, header: SegmentHeader, scan: Scan, offset: int) -> None:
        path = str(self._segments.path(header.first, header.generation))
        rest = self._disk.read(fd, self._disk.size(fd) - scan.offset, scan.offset)
        is_torn = bool(rest.strip(b"\0"))
        if is_torn:
            seed = segment.seed(self._store_id, header.first, header.generation)
            if durable_after(rest, seed, scan.offset) > scan.offset:
                raise self._corrupt(path, scan, "later commits say that it was durable")
        self._rewrite(fd, offset, scan.offset)
        if is_torn:
            self._set_aside_rest(path, rest, scan)
        if rest:
            self._disk.truncate(fd, scan.offset)
        if rest or scan.offset > offset:
            self._disk.sync(fd)

    def _rewrite(self, fd: int, start: int, stop: int) -> None:
        for offset in range(start, stop, _COPY_BYTES):
            length = min(_COPY_BYTES, stop - offset)
            self._disk.write(fd, self._disk.read(fd, length, offset), offset)

    def _set_aside_rest(self, path: str, rest: bytes, scan: Scan) -> None:
        name = f"torn-{scan.position}-{self._environment.now_us()}"
        aside = self._segments.folder / name
        self._disk.write_atomically(aside, rest.rstrip(b"\0"))
        self._notes.append(
            f"{len(rest.rstrip(bytes(1)))} bytes of an unfinished commit at offset {scan.offset} "
            f"of {path} are now in {aside}."
        )

    def _corrupt(self, path: str, scan: Scan, why: str) -> LogCorruptionError:
        return LogCorruptionError(
            f"{path} is damaged at offset {scan.offset} (position {scan.position}): "
            f"{scan.flaw or 'no commit stands there'} It is no torn tail: {why}.",
            hint="Nothing was changed. Run ckptlog verify; restore the file from a backup.",
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
