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

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from ckptlog.errors import LogCorruptionError, OtherTimelineError
from ckptlog.formats.end import End
from ckptlog.log.follower import Follower
from ckptlog.log.published import PublishedEnd
from ckptlog.log.reader import LogReader
from ckptlog.model.cursor import Cursor, after_commit
from ckptlog.model.entry import Commit
from ckptlog.storage.disk import Disk
from ckptlog.views.errors import ViewDamagedError
from ckptlog.views.history import manifest as manifests
from ckptlog.views.history.build import Build
from ckptlog.views.history.dataset import open_dataset
from ckptlog.views.history.manifest import File, Manifest
from ckptlog.views.history.past import Past
from ckptlog.views.history.raw_size import RawSizes
from ckptlog.views.history.sheet import MetaOf, Sheet
from ckptlog.views.history.shelf import Shelf
from ckptlog.views.history.span import Span, common, large

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

# A long way is gone in steps, and each is kept: a process that is killed loses one at most.
STEP_EVENTS: Final = 1_048_576
WINDOW_EVENTS: Final = 4096


class Source(msgspec.Struct, frozen=True):
    """The log that a history is made of.

    root: The store's directory.
    meta_of: Returns the wire of an event's `meta` payload; None where it cannot be had.
    """

    root: Path
    store: str
    reader: LogReader
    published: PublishedEnd
    disk: Disk
    meta_of: MetaOf


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
                self._start_anew(error)
                return self._show(self._update(is_thorough=True))

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
        manifest = self._mend(manifest, broken)
        while manifest.position < end.position:
            manifest = self._extend(manifest, end)
        self._shelf.sweep(manifest, is_ours=is_ours)
        return manifest

    def _believed(self, end: End) -> Manifest:
        """Return the history that is there; an empty one where it is not of this log's past."""
        try:
            found = self._shelf.load()
            follower = Follower(self._source.reader, self._source.published, found.cursor)
            next(follower.commits(end), None)
        except (ViewDamagedError, OtherTimelineError) as error:
            return self._start_anew(error)
        return found

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
        follower = Follower(self._source.reader, self._source.published, before.cursor)
        with (
            Build(self._shelf, before, start) as build,
            closing(RawSizes(self._source.root, self._source.disk)) as raw_sizes,
        ):
            sheet = Sheet(Past(before.position, build.facts), raw_sizes, self._source.meta_of)
            cursor = before.cursor
            for window in _windows(follower.commits(end), self._window_events):
                build.add(sheet.rows(window))
                cursor = after_commit(window[-1])
                if not is_last and build.position >= stop:
                    break
            return self._save(cursor, build.finish())

    def _save(self, cursor: Cursor, files: Iterable[File]) -> Manifest:
        import pyarrow as pa

        manifest = manifests.make(
            self._source.store, cursor, tuple(files), f"pyarrow {pa.__version__}"
        )
        assert manifests.is_whole(manifest), "spans and files do not fit"  # noqa: S101
        self._shelf.save(manifest)
        return manifest

    # --- broken files -----------------------------------------------------------------------

    def _mend(self, manifest: Manifest, broken: Sequence[File]) -> Manifest:
        """Make the spans of broken files again, the earliest first: later rows rest on it."""
        spans = sorted({file.span for file in broken})
        if 2 * len(spans) > len({file.span for file in manifest.files}):
            return self._start_anew("most of its files are missing or damaged.")
        for span in spans:
            others = [file for file in manifest.files if file.span != span]
            earlier = [file for file in others if file.stop <= span.start]
            made = self._shelf.write(span, self._rows(span, earlier))
            self.notes.append(f"Made again: positions {span.start} to {span.stop - 1}.")
            manifest = self._save(manifest.cursor, (*others, *made))
        return manifest

    def _rows(self, span: Span, earlier: Sequence[File]) -> pa.Table:
        """Return the rows of a span, made from the log."""
        import pyarrow as pa

        commits = (
            commit
            for commit in self._source.reader.commits(position=span.start)
            if commit.position_next > span.start
        )
        batches: list[pa.RecordBatch] = []
        with closing(RawSizes(self._source.root, self._source.disk)) as raw_sizes:
            sheet: Sheet | None = None
            for window in _windows(commits, self._window_events):
                first = window[0].entries[0].position
                if sheet is None:
                    past = Past(first, lambda wanted: self._shelf.facts(earlier, wanted))
                    sheet, start = Sheet(past, raw_sizes, self._source.meta_of), first
                batches.append(sheet.rows(window))
                if window[-1].position_next >= span.stop:
                    break
        return pa.Table.from_batches(batches).slice(span.start - start, span.stop - span.start)


def _windows(commits: Iterable[Commit], events: int) -> Iterator[list[Commit]]:
    """Cut commits into runs of at least so many events, the last excepted."""
    window: list[Commit] = []
    count = 0
    for commit in commits:
        window.append(commit)
        count += len(commit.entries)
        if count >= events:
            yield window
            window, count = [], 0
    if window:
        yield window
