"""The view `history`: kept in step with the log, one row for each event (specs/history.md).

Invariants:
- The log is the truth. Rows and files are a function of the log up to a position: a history that
  grew in steps has the same files, byte for byte, as one that was made at once.
- The manifest says what counts. Files are written first, then the manifest, then what it does not
  name is removed. A process that is killed anywhere leaves the history before, or the new one.
- It is never believed without a reason: the manifest proves itself, its cursor is compared with
  the log's leaf hash, its files with their digests. What is broken is made again from the log, and
  only that; a history of another log, or of a later state of it, is thrown away whole.
- Writers never come here. One process at a time changes a history; others wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from ckptlog.errors import (
    FormatError,
    InputOutputError,
    LogCorruptionError,
    OtherTimelineError,
)
from ckptlog.formats.end import End
from ckptlog.log.bulk import BulkReader, Stretch
from ckptlog.log.follower import Follower
from ckptlog.log.published import PublishedEnd
from ckptlog.log.reader import LogReader
from ckptlog.model.cursor import Cursor
from ckptlog.views.errors import ViewDamagedError
from ckptlog.views.history import entry_table
from ckptlog.views.history import manifest as manifests
from ckptlog.views.history.build import Build
from ckptlog.views.history.dataset import open_dataset
from ckptlog.views.history.entry_table import Columns
from ckptlog.views.history.manifest import File, Manifest
from ckptlog.views.history.past import Past
from ckptlog.views.history.sheet import Sheet, WireOf
from ckptlog.views.history.shelf import Shelf
from ckptlog.views.history.span import Span, common, large

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

# A long way is gone in steps, and each is kept: a process that is killed loses one at most.
STEP_EVENTS: Final = 1_048_576
WINDOW_EVENTS: Final = 4096
_READ_AHEAD: Final = 3
_ATTEMPTS: Final = 3


class Source(msgspec.Struct, frozen=True):
    """The log that a history is made of.

    root: The store's directory. store: Its id.
    wire_of: Returns a payload's bytes; None where they cannot be had.
    """

    root: Path
    store: str
    reader: LogReader
    bulk: BulkReader
    published: PublishedEnd
    wire_of: WireOf


class HistoryView:
    """One history in one folder.

    Attributes:
        notes: Why parts of it, or all, were made anew.

    Threads: one at a time. Processes: safe.        Durability: none; it is disposable.
    """

    def __init__(
        self,
        folder: Path,
        source: Source,
        *,
        step_events: int = STEP_EVENTS,
        window_events: int = WINDOW_EVENTS,
    ) -> None:
        self._shelf = Shelf(folder, source.store)
        self._source = source
        self._step_events = step_events
        self._window_events = window_events
        self._shown: tuple[Manifest, ds.Dataset] | None = None
        self.notes: list[str] = []

    @property
    def shelf(self) -> Shelf:
        """Its files."""
        return self._shelf

    def current(self, *, is_thorough: bool = True) -> ds.Dataset | None:
        """Return the rows if they are up to date and sound as they are; else None.

        Writes nothing, and waits for nobody.
        """
        end = self._source.published.read()
        try:
            found = self._shelf.load()
            is_current = end is not None and found.cursor.leaf == end.leaf
            if not is_current or end is None or found.position != end.position:
                return None
            if self._shelf.broken(found.files, is_thorough=is_thorough):
                return None
            return self._show(found)
        except ViewDamagedError:
            return None

    def update(self, *, is_thorough: bool = True, timeout_s: float = 30.0) -> ds.Dataset:
        """Bring the history up to the published end of the log, mend what is broken, show it.

        Args:
            is_thorough: Hash every file that this process has not hashed yet.
            timeout_s: Seconds to wait for another process that is at it.

        Raises:
            LockTimeoutError: Another process was at it for longer.
            LogCorruptionError: The log is damaged where it was to be read.
            CheckpointStorageError: The folder cannot be written, by kind.
        """
        with self._shelf.lock(timeout_s):
            try:
                return self._show(self._update(is_thorough=is_thorough))
            except ViewDamagedError as error:  # a file that was believed cannot be read
                self.notes.append(str(error))
            self._shelf.forget()
            try:
                return self._show(self._update(is_thorough=True))
            except ViewDamagedError as error:
                return self._last_attempt(error)

    def _last_attempt(self, reason: ViewDamagedError) -> ds.Dataset:
        self._start_anew(reason)
        try:
            return self._show(self._update(is_thorough=True))
        except ViewDamagedError as error:
            raise InputOutputError(
                f"What was just written to {self._shelf.folder} cannot be read: {error}",
                hint="Check the medium, or name another folder.",
                path=str(self._shelf.folder),
            ) from error

    def _show(self, manifest: Manifest) -> ds.Dataset:
        if self._shown is None or self._shown[0] != manifest:
            self._shown = (manifest, open_dataset(self._shelf, manifest))
        return self._shown[1]

    def _update(self, *, is_thorough: bool) -> Manifest:
        end = self._source.published.read()
        if end is None:
            raise LogCorruptionError(
                f"The published end of {self._source.root} is missing or damaged.",
                hint="Open the store for writing once; that rebuilds it.",
                path=str(self._source.root),
            )
        manifest = self._believed(end)
        is_ours = manifest.position > 0
        broken = self._shelf.broken(manifest.files, is_thorough=is_thorough)
        if broken and manifest.position > end.position:
            manifest = self._start_anew("it is damaged where the log shows nothing at present.")
        else:
            manifest = self._mend(manifest, broken, end)
        while manifest.position < end.position:
            manifest = self._extend(manifest, end)
            self._shelf.sweep(manifest, is_ours=is_ours)
        self._shelf.sweep(manifest, is_ours=is_ours)
        return manifest

    def _believed(self, end: End) -> Manifest:
        """Return the history that is there; an empty one where it is not of this log's past."""
        try:
            found = self._shelf.load()
            cursor = self._confirmed(found.cursor, end)
        except (ViewDamagedError, OtherTimelineError) as error:
            return self._start_anew(error)
        return manifests.make(found.store, cursor, found.files, found.written_by)

    def _confirmed(self, cursor: Cursor, end: End) -> Cursor:
        """Return a cursor with its true place, compared with the log.

        Raises:
            OtherTimelineError: It is of another log, or of a later state of it.
        """
        follower = Follower(self._source.reader, self._source.published, cursor)
        next(follower.commits(end), None)
        return follower.cursor

    def _start_anew(self, reason: object) -> Manifest:
        self.notes.append(f"Started anew: {reason}")
        nothing = manifests.empty(self._source.store)
        self._shelf.save(nothing)
        # What others list must not show old rows beside new ones.
        self._shelf.sweep(nothing, is_ours=False)
        return nothing

    # --- new rows ---------------------------------------------------------------------------

    def _extend(self, before: Manifest, end: End) -> Manifest:
        """Add rows up to an end, or as many as one step has."""
        # Whole commits are taken, so a step may end further on; by then a large span is full, and
        # where it begins does not depend on where the step ends.
        stop = before.position + max(self._step_events, large())
        is_last = end.position <= stop
        start = common(before.position, end.position if is_last else stop)
        cursor = before.cursor
        with Build(self._shelf, before, start) as build:
            sheet = Sheet(Past(before.position, build.facts), self._source.wire_of)
            with closing(self._read(cursor, end)) as reading:
                for stretch, fields in reading:
                    build.add(sheet.rows(stretch, fields))
                    cursor = stretch.cursor
                    if not is_last and build.position >= stop:
                        break
            return self._save(cursor, build.finish())

    def _read(self, cursor: Cursor, end: End) -> Generator[tuple[Stretch, Columns], None, None]:
        """Yield the log from a cursor on, in stretches, and the fields of their events.

        Raises:
            LogCorruptionError: A durable event is damaged.
        """
        stretches = self._stretches(cursor, end)
        with ThreadPoolExecutor(1, "ckptlog-history") as reader:
            reading: deque[tuple[Stretch, Future[Columns]]] = deque()
            for stretch in stretches:
                reading.append((stretch, reader.submit(entry_table.read, stretch.entries)))
                if len(reading) > _READ_AHEAD:
                    yield _fields(*reading.popleft())
            while reading:
                yield _fields(*reading.popleft())

    def _stretches(self, cursor: Cursor, end: End) -> Iterator[Stretch]:
        reader, window = self._source.reader, self._window_events
        for _ in range(_ATTEMPTS):
            for stretch in self._source.bulk.stretches(cursor, end, events=window):
                yield stretch
                cursor = stretch.cursor
            if cursor.position >= end.position:
                return
            # Something is odd; the log's own reader says what. Should it find nothing, a segment
            # was replaced under our hands, and another look will do.
            for _ in reader.commits(cursor.container, cursor.offset, cursor.position, stop=end):
                pass
        raise LogCorruptionError(
            f"The log is damaged behind position {cursor.position}: what its chunks were cannot be "
            "told, so there are no rows of them.",
            hint="Run ckptlog verify, then ckptlog repair.",
            position=cursor.position,
        )

    def _save(self, cursor: Cursor, files: Iterable[File]) -> Manifest:
        import pyarrow as pa

        manifest = manifests.make(
            self._source.store, cursor, tuple(files), f"pyarrow {pa.__version__}"
        )
        assert manifests.is_whole(manifest), "spans and files do not fit"  # noqa: S101
        self._shelf.save(manifest)
        return manifest

    # --- broken files -----------------------------------------------------------------------

    def _mend(self, manifest: Manifest, broken: Sequence[File], end: End) -> Manifest:
        """Make the spans of broken files again, the earliest first: later rows rest on it."""
        spans = sorted({file.span for file in broken})
        if 2 * len(spans) > len({file.span for file in manifest.files}):
            return self._start_anew("most of its files are missing or damaged.")
        for span in spans:
            others = [file for file in manifest.files if file.span != span]
            earlier = [file for file in others if file.stop <= span.start]
            made = self._shelf.write(span, self._rows(span, earlier, end))
            self.notes.append(f"Made again: positions {span.start} to {span.stop - 1}.")
            manifest = self._save(manifest.cursor, (*others, *made))
        return manifest

    def _rows(self, span: Span, earlier: Sequence[File], end: End) -> pa.Table:
        """Return the rows of a span, made from the log."""
        import pyarrow as pa

        batches: list[pa.RecordBatch] = []
        sheet: Sheet | None = None
        start = span.start
        with closing(self._read(Cursor(span.start), end)) as reading:
            for stretch, fields in reading:
                if stretch.position_next <= span.start:
                    continue
                if sheet is None:
                    start = stretch.first
                    past = Past(start, lambda wanted: self._shelf.facts(earlier, wanted))
                    sheet = Sheet(past, self._source.wire_of)
                batches.append(sheet.rows(stretch, fields))
                if stretch.position_next >= span.stop:
                    break
        return pa.Table.from_batches(batches).slice(span.start - start, span.stop - span.start)


def _fields(stretch: Stretch, reading: Future[Columns]) -> tuple[Stretch, Columns]:
    try:
        return stretch, reading.result()
    except FormatError as error:
        raise LogCorruptionError(
            f"An event in {stretch.container} between positions {stretch.first} and "
            f"{stretch.position_next - 1} is damaged: {error.message}",
            hint="Run ckptlog verify.",
            path=stretch.container,
            position=stretch.first,
        ) from error
