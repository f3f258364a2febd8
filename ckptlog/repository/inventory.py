"""What a store consists of at a published end: its live segments, and the packs that count.

    segments = the live chain up to the end, each up to its valid length
    packs    = those that events below the end register, less what collections have removed

A segment is the file that was written, or its settled form once that file is gone. Files may vanish
at any time by collection: who reads them asks anew then (specs/backup.md).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from ckptlog.blobs.pack import FOLDER as PACKS
from ckptlog.errors import LogCorruptionError, operating_system_door
from ckptlog.formats import event
from ckptlog.formats.end import End
from ckptlog.formats.segment import SegmentHeader
from ckptlog.log.bulk import BulkReader
from ckptlog.log.segments import FOLDER as LOG
from ckptlog.log.segments import container_of
from ckptlog.model.cursor import BEGINNING, Cursor
from ckptlog.model.event import Event
from ckptlog.repository.contents import pack_of

if TYPE_CHECKING:
    from ckptlog.repository.store import Store

_STRETCH_EVENTS: Final = 4096


class Container(msgspec.Struct, frozen=True, gc=False):
    """A file of the log, or a pack. bytes: Its valid length; -1 for the whole file."""

    name: str
    bytes: int


class Registered(msgspec.Struct, frozen=True):
    """What a stretch of events says of packs.

    packs: Bytes of each that counts, by container name.
    removed: Containers that collections have removed.
    """

    packs: dict[str, int]
    removed: frozenset[str]


def segments_at(store: Store, end: End) -> list[Container]:
    """Return the segments that hold the events below an end, in order.

    Raises:
        LogCorruptionError: One is missing, or does not follow the one before.
    """
    segments = store.log.segments
    headers = [one for one in segments.refresh() if one.first <= end.first]
    if not headers or headers[0].first != 0 or headers[-1].first != end.first:
        raise _missing(store, end)
    found = [
        _sealed(store, header, after) for header, after in zip(headers, headers[1:], strict=False)
    ]
    last = headers[-1]
    if last.generation != end.generation and end.position > end.first:
        raise _missing(store, end)
    length = end.offset if last.generation == end.generation else -1
    return [*found, Container(_name(last), length)]


def _sealed(store: Store, header: SegmentHeader, after: SegmentHeader) -> Container:
    name = (header.first, header.generation)
    if (after.previous_first, after.previous_generation) != name:
        raise LogCorruptionError(
            f"Segment {_name(after)} does not follow {_name(header)}: one is missing.",
            hint="ckptlog verify lists what is there.",
            path=str(store.path / "log"),
        )
    segments = store.log.segments
    if segments.exists(*name):
        return Container(_name(header), after.previous_length)
    return Container(f"{LOG}/{segments.settled_path(*name).name}", -1)


def _name(header: SegmentHeader) -> str:
    return container_of(header.first, header.generation)


def _missing(store: Store, end: End) -> LogCorruptionError:
    return LogCorruptionError(
        f"A segment of {store.path} is missing before position {end.position}.",
        hint="ckptlog verify lists what is there.",
        path=str(store.path / "log"),
    )


def registered(store: Store, start: Cursor, end: End) -> Registered:
    """Return the packs that events from a cursor up to an end register.

    Raises:
        LogCorruptionError: The log is damaged there.

    Cost: 4 us for an event; only those that name packs are decoded.
    """
    packs: dict[str, int] = {}
    removed: set[str] = set()
    for one in _telling(store, start, end):
        removed.update(one.removes)
        for name in one.removes:
            packs.pop(name, None)
        for entry in one.packs:
            packs[f"{PACKS}/{pack_of(entry)}"] = entry.bytes
    return Registered(packs, frozenset(removed))


def _telling(store: Store, start: Cursor, end: End) -> Iterator[Event]:
    """Yield each event that may say something of packs."""
    log, at = store.log, start
    if at.position == 0:
        at = BEGINNING
    bulk = BulkReader(log.segments, store.info.id_bytes)
    for stretch in bulk.stretches(at, end, events=_STRETCH_EVENTS):
        for entry in stretch.entries:
            if b'"packs"' in entry or b'"removes"' in entry:
                yield event.decode(entry)
        at = stretch.cursor
    if at.position < end.position:  # it ends where anything is odd: the careful reader tells what
        for commit in log.reader.commits(at.container, at.offset, at.position, stop=end):
            for one in commit.entries:
                if one.position >= at.position:
                    yield one.event


def pack_names(store: Store) -> frozenset[str]:
    """Return the container names of the files in the folder of packs."""
    with operating_system_door("Cannot list the packs"):
        return frozenset(f"{PACKS}/{name}" for name in os.listdir(store.path / PACKS))
