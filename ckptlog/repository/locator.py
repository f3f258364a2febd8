"""Finds one event by its position, without decoding those before it.

    waypoint (a hint of the view) -> headers of frames, one after the other -> the event, checked

Walking over frames costs a microsecond each, decoding and checking one fifteen. What a walk meets
on its way is remembered, as a history asks for neighbours next. Nothing is believed that was met
only by its header: the event itself is read through the log's reader, which checks its frame, and
its position is compared; and no walk goes beyond what is durable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from ckptlog.errors import CheckpointError
from ckptlog.formats import event, frame
from ckptlog.formats.end import End
from ckptlog.formats.segment import HEADER_FRAME_BYTES
from ckptlog.log.log import Log
from ckptlog.log.scan import Window
from ckptlog.log.segments import container_of, parse_container
from ckptlog.model.entry import Entry

_WINDOW_BYTES: Final = 64 * 1024
_PLACES_MAX: Final = 4096

Place = tuple[str, int, int, int]
"""Container, offset, length, span: as in `model.entry.Entry`."""

Waypoint = Callable[[int], tuple[str, int, int] | None]
"""Returns (container, offset, position) of a commit boundary at or before a position."""


class Locator:
    """Finds events of one store's log.

    Threads: safe; what is remembered may be lost between two of them.
    """

    def __init__(self, log: Log, waypoint: Waypoint) -> None:
        self._log = log
        self._waypoint = waypoint
        self._places: dict[int, Place] = {}

    def entry(self, position: int) -> Entry | None:
        """Return the durable event at a position; None where it was not found this way.

        That says nothing of the log: ask it by reading.
        """
        place = self._places.get(position)
        if place is not None:
            found = self._read(place, position)
            if found is not None:
                return found
        try:
            place = self._find(position)
        except CheckpointError:  # whatever is wrong, reading the log tells it in full
            return None
        return None if place is None else self._read(place, position)

    def _read(self, place: Place, position: int) -> Entry | None:
        try:
            entry, _ = self._log.reader.entry(*place)
        except CheckpointError:
            return None
        return entry if entry.position == position else None

    def _find(self, position: int) -> Place | None:
        end = self._log.published.read()
        if end is None or position >= end.position:
            return None
        container, offset, limit = self._start(position, end)
        places: dict[int, Place] = {}
        for met, place in self._walk(container, offset, limit):
            if len(places) >= _PLACES_MAX:  # a long way, without a waypoint: the near ones count
                places.clear()
            places[met] = place
            if met >= position:
                break
        if len(self._places) + len(places) > _PLACES_MAX:
            self._places = {}
        self._places.update(places)
        return places.get(position)

    def _start(self, position: int, end: End) -> tuple[str, int, int]:
        """Return the segment that holds a position, where to begin in it, and where it ends."""
        segments = self._log.segments
        segments.follow(end.first, end.generation)
        header = segments.holding(min(position, end.first))
        container = container_of(header.first, header.generation)
        limit = end.offset
        if header.first != end.first:
            after = segments.successor(header)
            limit = after.previous_length if after else 0
        near = self._waypoint(position)
        is_near = near is not None and near[0] == container and near[2] <= position
        offset = near[1] if near is not None and is_near else HEADER_FRAME_BYTES
        return container, max(offset, HEADER_FRAME_BYTES), limit

    def _walk(self, container: str, offset: int, limit: int) -> Iterator[tuple[int, Place]]:
        """Yield position and place of each event frame from a commit boundary on."""
        name = parse_container(container)
        if name is None:
            return
        file = self._log.segments.open(*name)
        try:
            window = Window(file, _WINDOW_BYTES)
            span_start = offset
            needed = frame.HEADER_BYTES + event.PREFIX_BYTES
            while (offset := window.seek(offset)) + needed <= limit:
                begin = window.locate(offset, needed)
                head = window.data[begin : begin + needed]
                size = frame.body_length(head)
                if size is None or len(head) < needed:
                    return
                length = frame.HEADER_BYTES + size
                if head[2] == frame.EVENT:
                    position, _ = event.decode_prefix(head[frame.HEADER_BYTES :])
                    yield position, (container, offset, length, offset - span_start)
                    span_start = offset + length
                offset += length
        finally:
            file.close()
