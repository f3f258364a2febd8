"""Builds the view `current` from nothing, from the log read in bulk.

    stretches of raw events -> commits -> folded -> each checkpoint written once -> indexes last

A rebuild reads everything, so it does not look things up one by one: titles and metadata come
from the chunk records that ride in the log before their event, which are in the bytes just read.
All of it is one transaction; who reads the view meanwhile sees it as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

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
from ckptlog.model.entry import Commit, Entry, Placement
from ckptlog.model.event import Reference
from ckptlog.model.leaf import LEAF_EMPTY, leaf_hash
from ckptlog.views.current import CurrentView

# Returns the verified raw bytes of a chunk, in a domain (formats.chunk).
RawOf = Callable[[bytes, int], bytes]
# Is shown the commits of each window before they are applied, and the stretch that they were made
# of, for what they do not say then (`complete`); None where they say everything.
Taken = Callable[[Sequence[Commit], Stretch | None], None]

_STRETCH_EVENTS = 4096
_WIRES_BYTES = 16 * 1024 * 1024
_ENTRY_COST = 200


class Rebuild:
    """Brings one view up to an end of the log, in one transaction.

    Args:
        raw_of: Reads chunks that do not lie beside their event.
        taken: Whoever else lives on the same reading.
        with_places: Whether that one asks where chunks lie.

    Threads: one at a time.
    """

    def __init__(
        self,
        reader: LogReader,
        bulk: BulkReader,
        raw_of: RawOf,
        *,
        taken: Taken | None = None,
        with_places: bool = False,
    ) -> None:
        self._reader = reader
        self._bulk = bulk
        self._raw_of = raw_of
        self._taken = taken
        self._with_places = with_places
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
        return view.rebuild_windows(self.windows(place, stop), self.meta_of)

    def windows(self, place: Cursor, stop: End) -> Iterator[list[Commit]]:
        """Yield the commits from a place on; `meta_of` goes with the window that was taken last.

        Raises:
            LogCorruptionError: A durable event is damaged.
        """
        for window, stretch in self._read(place, stop):
            if self._taken is not None:
                self._taken(window, stretch)
            yield window

    def _read(self, place: Cursor, stop: End) -> Iterator[tuple[list[Commit], Stretch | None]]:
        for stretch in self._bulk.stretches(
            place, stop, events=_STRETCH_EVENTS, with_records=True, with_places=self._with_places
        ):
            self._records = stretch.records
            yield _commits(stretch), stretch
            place = stretch.cursor
        self._records = {}
        # What is odd for the bulk reader the log's own reads, or says what is wrong.
        window: list[Commit] = []
        start = (place.container, place.offset, place.position)
        try:
            for commit in self._reader.commits(*start, stop=stop):
                window.append(commit)
                if len(window) >= _STRETCH_EVENTS:
                    yield window, None
                    window = []
        except LogCorruptionError:
            if window:  # what is sound comes first: it may be all that is wanted
                yield window, None
            raise
        if window:
            yield window, None

    def meta_of(self, entry: Entry) -> bytes | None:
        """Return the wire of an event's `meta`; None where it has none, or a damaged one."""
        reference = entry.event.meta
        if reference is None:
            return None
        wire = self._beside(reference) or self._wires.get(reference.root)
        if wire is None:
            try:
                wire = payload.assemble(reference, self._raw)
            except CheckpointError:
                # A damaged title must not stop the listing of everything else.
                return None
            self._wires.put(reference.root, wire, len(wire) + _ENTRY_COST)
        return wire

    def _beside(self, reference: Reference) -> bytes | None:
        """Return a payload of one chunk that lies in the bytes at hand, as most titles do."""
        if reference.kind != payload.LEAF_KIND:
            return None
        try:
            digest = bytes.fromhex(reference.root)
            record = self._records.get(digest)
            wire = None if record is None else self._codec.raw(record, digest, domain=chunk.LEAF)
        except (ValueError, CheckpointError):  # looked at once more, and told apart, below
            return None
        return wire if wire is not None and len(wire) == reference.size else None

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
        if entries and commit == position:
            found.append(Commit(tuple(entries), (), LEAF_EMPTY, container, before))
            entries = []
        offset = end - len(raw) - EVENT_FRAME_BYTES
        entries.append(Entry(event, position, container, offset, end - offset, offset - before))
        before = end
    found.append(Commit(tuple(entries), (), stretch.cursor.leaf, container, before))
    return found


def complete(commits: Sequence[Commit], stretch: Stretch) -> list[Commit]:
    """Return the commits of a stretch with what few need: leaf hashes and the places of chunks."""
    raws, counts, places = iter(stretch.entries), iter(stretch.chunks), iter(stretch.places)
    found = []
    for commit in commits:
        size = len(commit.entries)
        raw = (*islice(raws, size),)
        own = islice(places, sum(islice(counts, size)))
        container = commit.container
        found.append(
            Commit(
                commit.entries,
                tuple(Placement(name, container, offset, length) for name, offset, length in own),
                leaf_hash(raw[-1]),
                container,
                commit.offset_end,
                raw if size > 1 else (),
            )
        )
    return found
