"""What became of checkpoints and containers, as the log tells it up to a position.

One pass over the events gives a few bits for each position; from them `is_kept` says of any event
whether the payloads that it names are still wanted. The view is not asked: a row that it lacks must
not cost anybody data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

import msgspec

from ckptlog.errors import CheckpointError, FormatError, LogCorruptionError
from ckptlog.formats import event as event_format
from ckptlog.formats.end import End
from ckptlog.formats.pack import pack_name
from ckptlog.formats.segment import HEADER_FRAME_BYTES, SegmentHeader
from ckptlog.log.bulk import BulkReader
from ckptlog.log.reader import LogReader
from ckptlog.log.sealed import EVENT_FRAME_BYTES, Sealed, reading
from ckptlog.log.segments import Segments, container_of
from ckptlog.log.walks import Walks
from ckptlog.model.cursor import BEGINNING, Cursor
from ckptlog.model.event import (
    CHECKPOINT_TYPES,
    CREATED,
    DELETED,
    REPAIRED,
    SETTLED,
    TASK_DELETED,
    Event,
    PackEntry,
    Reference,
    fence_of,
)

_STRETCH_EVENTS: Final = 8192
SUPERSEDED: Final = "superseded"
"""The fact of a collection that says what became of payloads that a later event replaced."""
DROPPED: Final = "dropped"
KEPT: Final = "kept"


class EventReader:
    """Reads events in bulk: positions and events, in order.

    Of a sealed segment the chunks are stepped over by their headers. What is checked is what a
    collection rests on: the sum of each event's frame, that positions are dense, and that the
    segment ends where its successor says, with that leaf hash.

    Args:
        walks: Where events are, for who reads them again.

    Threads: one.
    """

    def __init__(
        self, segments: Segments, reader: LogReader, bulk: BulkReader, walks: Walks | None = None
    ) -> None:
        self._segments = segments
        self._reader = reader
        self._bulk = bulk
        self._walks = walks

    def events(self, place: Cursor, stop: End) -> Iterator[tuple[int, Event]]:
        """Yield every event from a commit boundary on up to an end.

        Raises:
            LogCorruptionError: A durable event is damaged.

        Cost: some 4 us each.
        """
        if not place.position:
            for position, event in self._sealed(stop):
                yield position, event
                place = Cursor(position + 1, b"", "", 0)
        first = place.position
        if not place.container and first:
            place = _begin(self._segments.holding(min(first, stop.first)))
        for position, event in self._rest(place, stop):
            if position >= first:
                yield position, event

    def _sealed(self, stop: End) -> Iterator[tuple[int, Event]]:
        """Yield the events of the sealed segments, as far as nothing is odd."""
        with suppress(CheckpointError):
            self._segments.follow(stop.first, stop.generation)
            header = self._segments.holding(0)
            while header.first < stop.first:
                after = self._segments.successor(header)
                if after is None:
                    return
                if self._segments.exists(header.first, header.generation):
                    sealed = Sealed(header, after.previous_length, after.first, after.leaf)
                    with reading(self._segments, sealed, self._walks) as source:
                        for position, row in source.rows():
                            yield position, event_format.decode(row.data[EVENT_FRAME_BYTES:])
                else:
                    # Its chunks are gone already.
                    position = header.first - 1
                    for position, event in self._settled(header, after.first, stop):
                        yield position, event
                    if position + 1 != after.first:
                        return
                header = after

    def _settled(
        self, header: SegmentHeader, behind: int, stop: End
    ) -> Iterator[tuple[int, Event]]:
        """Yield the events of one segment in bulk, up to a position."""
        place = _begin(header)
        for stretch in self._bulk.stretches(place, stop, events=_STRETCH_EVENTS):
            for position, entry in enumerate(stretch.entries, stretch.first):
                yield position, event_format.decode(entry)
            if stretch.position_next >= behind:
                return

    def _rest(self, place: Cursor, stop: End) -> Iterator[tuple[int, Event]]:
        for stretch in self._bulk.stretches(place, stop, events=_STRETCH_EVENTS):
            try:
                for position, entry in enumerate(stretch.entries, stretch.first):
                    yield position, event_format.decode(entry)
            except FormatError as error:
                raise LogCorruptionError(
                    f"An event in {stretch.container} is damaged: {error.message}",
                    hint="Run ckptlog verify.",
                    path=stretch.container,
                ) from error
            place = stretch.cursor
        # What is odd for the bulk reader the log's own reads, or says what is wrong.
        start = (place.container, place.offset, place.position)
        for commit in self._reader.commits(*start, stop=stop):
            for one in commit.entries:
                if one.position >= place.position:
                    yield one.position, one.event


def _begin(header: SegmentHeader) -> Cursor:
    name = container_of(header.first, header.generation)
    return Cursor(header.first, header.leaf, name, HEADER_FRAME_BYTES)


class Bits:
    """A bit for each position."""

    __slots__ = ("_bytes",)

    def __init__(self, count: int) -> None:
        self._bytes = bytearray((count >> 3) + 1)

    def add(self, position: int) -> None:
        """Set a bit; positions beyond the count are passed over."""
        if 0 <= position >> 3 < len(self._bytes):
            self._bytes[position >> 3] |= 1 << (position & 7)

    def discard(self, position: int) -> None:
        """Clear a bit."""
        if 0 <= position >> 3 < len(self._bytes):
            self._bytes[position >> 3] &= ~(1 << (position & 7))

    def __contains__(self, position: int) -> bool:
        return bool(
            0 <= position >> 3 < len(self._bytes)
            and self._bytes[position >> 3] & (1 << (position & 7))
        )


class Registered(msgspec.Struct, frozen=True, gc=False):
    """A pack that counts: the position of the event that registered it, and its size in bytes."""

    position: int
    bytes: int


class Fates:
    """The outcome of the events up to a position.

    Attributes:
        packs: Those that count, by container.
        removed: Containers that count no more.
        fence: Of the last collection.
        repairs: Roots of what repairs have recorded.

    Memory: two bits for each position, and some 150 bytes for each deleted task and each container.
    """

    def __init__(self, stop: int) -> None:
        self.stop = stop
        self.packs: dict[str, Registered] = {}
        self.removed: set[str] = set()
        self.fence = 0
        self.repairs: list[Reference] = []
        self._dead = Bits(stop)
        self._newest = Bits(stop)
        self._task_ends: dict[str, int] = {}

    def add(self, position: int, event: Event) -> None:
        """Take in the next event."""
        kind = event.type
        if kind in CHECKPOINT_TYPES:
            if kind == DELETED:
                self._dead.add(event.origin)
            elif kind != CREATED:
                self._newest.discard(event.previous)
            self._newest.add(position)
        elif kind == TASK_DELETED:
            self._task_ends[event.subject.task] = position
        elif kind == SETTLED:
            self._settle(event)
        elif kind == REPAIRED and event.data is not None:
            self.repairs.append(event.data)
        for pack in event.packs:
            self.packs[container_of_pack(pack)] = Registered(position, pack.bytes)

    def _settle(self, event: Event) -> None:
        fence = fence_of(event)
        self.fence = max(self.fence, fence)
        self.removed.update(event.removes)
        for name in event.removes:
            self.packs.pop(name, None)

    def is_living(self, position: int, event: Event) -> bool:
        """Say whether the checkpoint of an event is not deleted; True of events about none."""
        if event.type not in CHECKPOINT_TYPES:
            return True
        origin = position if event.origin < 0 else event.origin
        return origin not in self._dead and self._task_ends.get(event.subject.task, -1) < origin

    def is_newest(self, position: int, event: Event) -> bool:
        """Say whether no later event of its checkpoint stands; True of events about none."""
        return event.type not in CHECKPOINT_TYPES or position in self._newest


def fates_of(reader: EventReader, stop: End, tell: Callable[[int], None] = lambda _: None) -> Fates:
    """Return what the log says up to an end.

    Args:
        tell: Is told positions now and then.

    Raises:
        LogCorruptionError: A durable event is damaged.
    """
    fates = Fates(stop.position)
    for position, event in reader.events(BEGINNING, stop):
        fates.add(position, event)
        if position % _STRETCH_EVENTS == 0:
            tell(position)
    return fates


def container_of_pack(pack: PackEntry) -> str:
    """Return the container of a registered pack."""
    return f"packs/{pack_name(pack.base, bytes.fromhex(pack.id))}"
