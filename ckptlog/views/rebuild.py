"""Builds the view `current` from nothing, from the log read in bulk.

    stretches of raw events -> commits -> folded -> each checkpoint written once -> indexes last

A rebuild reads everything, so it does not look things up one by one: titles and metadata come
from the chunk records that ride in the log before their event, which are in the bytes just read.
All of it is one transaction; who reads the view meanwhile sees it as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ckptlog.blobs import payload
from ckptlog.blobs.cache import Cache
from ckptlog.blobs.codec import Codec
from ckptlog.errors import CheckpointError, FormatError, LogCorruptionError
from ckptlog.formats import chunk
from ckptlog.formats import event as event_format
from ckptlog.formats.end import End
from ckptlog.log.bulk import EVENT_FRAME_BYTES, BulkReader, Stretch
from ckptlog.log.reader import LogReader
from ckptlog.model.cursor import Cursor
from ckptlog.model.entry import Commit, Entry
from ckptlog.model.leaf import LEAF_EMPTY
from ckptlog.views.current import CurrentView

# Returns the verified raw bytes of a chunk, in a domain (formats.chunk).
RawOf = Callable[[bytes, int], bytes]

_STRETCH_EVENTS = 4096
_WIRES_BYTES = 16 * 1024 * 1024
_ENTRY_COST = 200


class Rebuild:
    """Brings one view up to an end of the log, in one transaction.

    Args:
        raw_of: Reads chunks that do not lie beside their event.

    Threads: one at a time.
    """

    def __init__(self, reader: LogReader, bulk: BulkReader, raw_of: RawOf) -> None:
        self._reader = reader
        self._bulk = bulk
        self._raw_of = raw_of
        self._codec = Codec()
        self._records: dict[bytes, bytes] = {}
        # A title that is shared by a task's checkpoints is stored once, maybe far back.
        self._wires: Cache[str, bytes] = Cache(_WIRES_BYTES)

    def run(self, view: CurrentView, stop: End) -> bool:
        """Apply the log from the view's mark to an end; False as `CurrentView.rebuild`.

        Raises:
            LogCorruptionError: A durable event is damaged; nothing was applied.
            ViewDamagedError: The view does not fit the log.
        """
        mark = view.mark
        place = Cursor(mark.position, mark.leaf, mark.container, mark.offset)
        return view.rebuild_windows(self._windows(place, stop), self._meta_of)

    def _windows(self, place: Cursor, stop: End) -> Iterator[list[Commit]]:
        stretches = self._bulk.stretches(place, stop, events=_STRETCH_EVENTS, with_records=True)
        for stretch in stretches:
            self._records = stretch.records
            yield _commits(stretch)
            place = stretch.cursor
        self._records = {}
        # What is odd for the bulk reader the log's own reads, or says what is wrong.
        window: list[Commit] = []
        for commit in self._reader.commits(
            place.container, place.offset, place.position, stop=stop
        ):
            window.append(commit)
            if len(window) >= _STRETCH_EVENTS:
                yield window
                window = []
        if window:
            yield window

    def _meta_of(self, entry: Entry) -> bytes | None:
        reference = entry.event.meta
        if reference is None:
            return None
        wire = self._wires.get(reference.root)
        if wire is None:
            try:
                wire = payload.assemble(reference, self._raw)
            except CheckpointError:
                # A damaged title must not stop the listing of everything else.
                return None
            self._wires.put(reference.root, wire, len(wire) + _ENTRY_COST)
        return wire

    def _raw(self, digest: bytes, domain: int) -> bytes:
        record = self._records.get(digest)
        if record is None or chunk.base_in(record):
            return self._raw_of(digest, domain)
        return self._codec.raw(record, digest, domain=domain)


def _commits(stretch: Stretch) -> list[Commit]:
    """Return the commits of a stretch; only the last one knows its leaf hash: no other needs it.

    Raises:
        LogCorruptionError: An event cannot be decoded.
    """
    try:
        events = [event_format.decode(entry) for entry in stretch.entries]
    except FormatError as error:
        raise LogCorruptionError(
            f"An event in {stretch.container}, from position {stretch.first} on, is damaged: "
            f"{error.message}",
            hint="Run ckptlog verify.",
            path=stretch.container,
            position=stretch.first,
        ) from error
    container, before = stretch.container, stretch.start
    found: list[Commit] = []
    entries: list[Entry] = []
    rows = zip(events, stretch.entries, stretch.commits, stretch.ends, strict=True)
    for position, (event, raw, commit, end) in enumerate(rows, stretch.first):
        if entries and entries[0].position != commit:
            found.append(Commit(tuple(entries), (), LEAF_EMPTY, container, before))
            entries = []
        offset = end - len(raw) - EVENT_FRAME_BYTES
        entries.append(Entry(event, position, container, offset, end - offset, offset - before))
        before = end
    found.append(Commit(tuple(entries), (), stretch.cursor.leaf, container, before))
    return found
