"""The store: everything a directory holds, opened and composed.

    Store = log (truth) + blobs (payload bytes) + view and index (disposable) + ledger (the fold)

One direction: a write goes manager -> writer -> log; what was appended comes back through
`absorb` into ledger and index, and later, in batches, into the view. Another process's commits
come in by the same `absorb`, read from the log. Nothing here is true that the log does not say.

Locks, always taken in this order: the round (writer's lock and the log's mutex), the fold lock,
then those of view, index and cache. The view is never written under the log's lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event as Signal
from threading import RLock, Thread
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from ckptlog.blobs.chunker import Chunker
from ckptlog.blobs.codec import Codec
from ckptlog.blobs.index import ChunkIndex
from ckptlog.blobs.pack import read_index, write_packs
from ckptlog.blobs.store import BlobStore
from ckptlog.errors import (
    ArgumentError,
    CheckpointError,
    CheckpointStorageError,
    ReadOnlyError,
    StoreClosedError,
)
from ckptlog.formats.pack import pack_name
from ckptlog.formats.store import StoreInfo
from ckptlog.log.log import Log
from ckptlog.model import value as values
from ckptlog.model.entry import Commit, Entry, Placement
from ckptlog.model.event import Event, PackEntry, Reference
from ckptlog.repository import layout
from ckptlog.repository.intent import Intent, Outcome
from ckptlog.repository.ledger import Ledger, ViewBehindError
from ckptlog.repository.report import Finding, Level, Progress, Report
from ckptlog.repository.writer import Writer
from ckptlog.storage.environment import Environment
from ckptlog.views.current import CurrentView
from ckptlog.views.errors import ViewDamagedError
from ckptlog.views.query import Filter
from ckptlog.views.row import Row

Durability = Literal["commit", "interval"]
Answer = TypeVar("Answer")

# Events kept in memory before they go to the view: bounds memory (about 1 KB each) and the time
# that one writer spends on it.
PENDING_EVENTS_MAX = 512
_VIEW_WAITS = 40
_VIEW_WAIT_S = 0.05


class Store:
    """An open store. Make one with `ckptlog.open`.

    Threads: safe. A forked child that uses it opens it anew by itself.
    """

    def __init__(
        self,
        root: Path,
        *,
        read_only: bool = False,
        durability: Durability = "commit",
        interval_s: float = 0.05,
        timeout_s: float = 30.0,
        queue_max: int = 100,
        cache_bytes: int = 100 * 1024 * 1024,
        compression_level: int = 1,
        environment: Environment | None = None,
    ) -> None:
        if durability not in ("commit", "interval"):
            raise ArgumentError(
                f"durability is {durability!r}.", hint='Use "commit" or "interval".'
            )
        self.path = root
        self.read_only = read_only
        self.durability = durability
        self.timeout_s = timeout_s
        self.environment = environment or Environment()
        self._interval_s = interval_s
        self._queue_max = queue_max
        self._cache_bytes = cache_bytes
        self._compression_level = compression_level
        self._is_closed = False
        self.info: StoreInfo = layout.read_info(root)
        if not read_only:
            layout.refuse_unsafe_file_system(root, self.environment)
            layout.refuse_read_only(root)
        self._compose()

    # --- opening and closing ------------------------------------------------------------------

    def _compose(self) -> None:
        store_id = self.info.id_bytes
        self._pid = os.getpid()
        self._fold_lock = RLock()
        self._drain_lock = RLock()
        self._reindex_lock = RLock()
        self.log = Log(
            self.path,
            store_id,
            self.environment,
            read_only=self.read_only,
            is_durable=self.durability == "commit",
        )
        if not self.read_only:
            self.log.recover_if_free()
        self.index = ChunkIndex(
            self.path / "views" / "chunks", store_id, read_only=self.read_only
        )
        self.blobs = BlobStore(
            self.path,
            store_id,
            self.index,
            Codec(self._compression_level),
            Chunker(self.info.chunker),
            cache_bytes=self._cache_bytes,
            missing=self._find_missing,
        )
        self._epoch = 0
        self._reindexed_at = -1
        self._ledger = self._open_ledger(CurrentView.open(self._view_path, store_id))
        self._writer = Writer(
            self.log,
            lambda: self._ledger,
            self.index,
            self.environment,
            follow=self._follow,
            heal=self._heal_view,
            fold_lock=self._fold_lock,
            timeout_s=self.timeout_s,
            queue_max=self._queue_max,
        )
        self._stop = Signal()
        if self.durability == "interval" and not self.read_only:
            Thread(target=self._flush_forever, name="ckptlog-flush", daemon=True).start()

    @property
    def _view_path(self) -> Path | None:
        return None if self.read_only else self.path / "views" / "current.sqlite"

    def close(self) -> None:
        """Finish cleanly: everything durable, views up to date, files closed. Twice is fine.

        A view that cannot be written, or another process at work, is no reason to fail.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if os.getpid() != self._pid:
            self._abandon()
            return
        self._stop.set()
        try:
            if not self.read_only:
                self.log.flush(self.timeout_s)
                self._drain()
                self.index.flush(force=True)
                layout.restore_reserve(self.path)
        except ViewDamagedError:
            self._ledger.view.remove()
        finally:
            self.log.close()
            self._ledger.view.close()
            self.index.close()
            self.blobs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"position {self._ledger.position}"
        return f"<Store {self.path} {state}>"

    def _abandon(self) -> None:
        self.log.abandon()
        self._ledger.view.abandon()
        self.blobs.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreClosedError(
                f"The store {self.path} was closed.", hint="Open it again.", path=str(self.path)
            )
        if os.getpid() != self._pid:
            # A forked child shares descriptors and locks with its parent: it must not use them.
            self._abandon()
            self._compose()

    def _flush_forever(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                self.log.flush(self.timeout_s)
            except CheckpointError as error:
                self.log.notes.append(f"An interval's commits may be lost: {error}")

    # --- following the log --------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The store's id, 32 hexadecimal digits."""
        return self.info.id

    @property
    def position(self) -> int:
        """Position after the last durable event."""
        self._check_open()
        end = self.log.published.read()
        return end.position if end else 0

    def _open_ledger(self, view: CurrentView) -> Ledger:
        """Make a ledger on a view, after checking that the view belongs to this log's past."""
        if not self._is_our_past(view.mark.position, view.mark.leaf, view):
            view.remove()
            view = CurrentView.open(self._view_path, self.info.id_bytes)
        ledger = Ledger(view, self.log.reader.entry)
        ledger.scan = self._event_from
        persisted = self.index.persisted
        if persisted is not None and not self._is_our_past(persisted[0], persisted[3], view):
            self.index.clear()
        if self.index.position < ledger.position:
            self._index_up_to(ledger)
        self._follow_into(ledger)
        return ledger

    def _is_our_past(self, position: int, leaf: bytes, view: CurrentView) -> bool:
        """Say whether the log, at a position, has the leaf hash that a view remembers."""
        if position == 0:
            return True
        end = self.log.published.read()
        if end is None or position > end.position:
            return False
        if position == end.position:
            return leaf == end.leaf
        place = view.waypoint(position - 1) or ("", 0, position - 1)
        try:
            for commit in self.log.reader.commits(*place):
                if commit.position_next >= position:
                    return commit.position_next == position and commit.leaf == leaf
        except CheckpointError:
            return False
        return False

    def _index_up_to(self, ledger: Ledger) -> None:
        persisted = self.index.persisted
        place = (persisted[1], persisted[2], persisted[0]) if persisted else ("", 0, 0)
        for commit in self.log.reader.commits(*place):
            if commit.position_next > ledger.position:
                return
            self._index(commit)

    def _follow(self) -> None:
        """Bring ledger and index up to the published end. Under the fold lock."""
        if self._epoch != self.log.epoch:
            # Commits that were acknowledged but not durable are gone ("interval").
            self._epoch = self.log.epoch
            self._ledger = self._open_ledger(self._ledger.view)
            return
        # The log has just read the end itself; under the lock it cannot have moved since.
        if self._ledger.position < self.log.durable_position:
            self._follow_into(self._ledger, may_apply=False)

    def _follow_into(self, ledger: Ledger, *, may_apply: bool = True) -> None:
        """Absorb what is published; apply it to the view on the way, unless the log is locked."""
        end = self.log.published.read()
        if end is None or end.position <= ledger.position:
            return
        place = (ledger.container, ledger.offset, ledger.position)
        for commit in self.log.reader.commits(*place, stop=end):
            self._index(commit)
            ledger.absorb((commit,))
            if may_apply and ledger.pending_events >= 8 * PENDING_EVENTS_MAX:
                self._apply_pending(ledger)

    def _index(self, commit: Commit) -> None:
        if commit.position_next <= self.index.position:
            return
        packs = commit.entries[-1].event.packs
        self.index.add(commit, self._packed(packs))

    def _packed(self, packs: tuple[PackEntry, ...]) -> Iterator[Placement]:
        for pack in packs:
            name = pack_name(pack.base, bytes.fromhex(pack.id))
            yield from read_index(self.path / "packs" / name, self.info.id_bytes)

    def catch_up(self) -> None:
        """Take in what other processes have committed since the last call."""
        self._check_open()
        if self._writer.is_appending:
            return
        end = self.log.published.read()
        if end is not None and end.position > self._ledger.position:
            with self._fold_lock:
                if self._epoch == self.log.epoch:
                    self._follow_into(self._ledger)

    # --- the view -----------------------------------------------------------------------------

    def view(self) -> CurrentView:
        """Return the view, caught up with everything durable (and with our own commits)."""
        self.catch_up()
        for attempt in range(_VIEW_WAITS):
            if not self._ledger.pending or self._drain():
                return self._ledger.view
            self.environment.sleep(_VIEW_WAIT_S * min(1, attempt))
        # Somebody holds the database and does not let go: answer from one of our own.
        self._replace_view(CurrentView.open(None, self.info.id_bytes))
        self._drain()
        return self._ledger.view

    def relieve(self) -> None:
        """Apply pending events to the view if they are many; a writer calls it after a commit."""
        if self._ledger.pending_events >= PENDING_EVENTS_MAX:
            try:
                self._drain()
            except ViewDamagedError:
                self._heal_view()

    def _drain(self) -> bool:
        """Apply pending durable events to the view; say whether none is left."""
        with self._drain_lock:
            return self._apply_pending(self._ledger)

    def _apply_pending(self, ledger: Ledger) -> bool:
        end = self.log.published.read()
        durable = end.position if end else 0
        with self._fold_lock:
            commits = [one for one in ledger.pending if one.position_next <= durable]
        if commits and ledger.view.apply(commits, self._meta_of):
            self.index.flush()
            with self._fold_lock:
                ledger.release(min(ledger.view.mark.position, commits[-1].position_next))
        return not ledger.pending or self.durability == "interval"

    def _meta_of(self, entry: Entry) -> bytes | None:
        reference = entry.event.meta
        if reference is None:
            return None
        try:
            return self.blobs.wire(reference)
        except CheckpointError:
            # A damaged title must not stop the listing of everything else.
            return None

    def _heal_view(self) -> None:
        """Replace a damaged view by a new one, built from the log."""
        with self._drain_lock, self._fold_lock:
            self._ledger.view.remove()
            self._replace_view(CurrentView.open(self._view_path, self.info.id_bytes))

    def _replace_view(self, view: CurrentView) -> None:
        with self._drain_lock, self._fold_lock:
            ledger = Ledger(view, self.log.reader.entry)
            ledger.scan = self._event_from
            self._ledger = ledger
            self._follow_into(ledger)

    def rebuild_views(self) -> int:
        """Throw the views and the chunk index away and build them from the log.

        Returns:
            Events that were read.
        """
        self._check_open()
        with self._drain_lock, self._fold_lock:
            self.index.clear()
            self._ledger.view.remove()
            self._replace_view(CurrentView.open(self._view_path, self.info.id_bytes))
            self._drain()
            self.index.flush(force=True)
            return self._ledger.position

    # --- reading ------------------------------------------------------------------------------

    def events(self, start: int = 0, end: int | None = None) -> Iterator[Entry]:
        """Yield durable events with start <= position < end, in order.

        Raises:
            LogCorruptionError: A durable event is damaged.
        """
        self._check_open()
        if start < 0 or (end is not None and end < start):
            raise ArgumentError(f"Positions {start} to {end} are no range.")
        place = self._ledger.view.waypoint(start) or ("", 0, start)
        for commit in self.log.reader.commits(*place) if start < self.position else ():
            for entry in commit.entries:
                if end is not None and entry.position >= end:
                    return
                if entry.position >= start:
                    yield entry

    def event_at(self, position: int) -> Entry | None:
        """Return the event at a position, None beyond the end."""
        return next(self.events(position, position + 1), None)

    def _event_from(self, container: str, offset: int, start: int, position: int) -> Event | None:
        for commit in self.log.reader.commits(container, offset, start):
            for entry in commit.entries:
                if entry.position == position:
                    return entry.event
        return None

    def newest(self, checkpoint: str) -> Entry | None:
        """Return the newest event of a living checkpoint."""
        self.catch_up()
        found = self._guarded(lambda: self._ledger.peek(checkpoint))
        return None if found is None or found[1] else found[0]

    def newest_ever(self, checkpoint: str) -> Entry | None:
        """Return the newest event of a checkpoint, its deletion included."""
        self.catch_up()
        found = self._guarded(lambda: self._ledger.peek(checkpoint))
        return None if found is None else found[0]

    def select(
        self, wanted: Filter, *, after: int | None, limit: int, newest_first: bool = False
    ) -> list[Row]:
        """Return a page of rows from the view, caught up."""
        return self._guarded(
            lambda: self.view().select(
                wanted, after=after, limit=limit, newest_first=newest_first
            )
        )

    def read_row(self, row: Row) -> tuple[Entry, dict[bytes, bytes]] | None:
        """Return the event behind a row; None where it was deleted since the row was read."""
        try:
            return self._ledger.read_row(row)
        except ViewDamagedError:
            self._heal_view()
            return self.read(row.id)

    def read(self, checkpoint: str) -> tuple[Entry, dict[bytes, bytes]] | None:
        """Return a living checkpoint's newest event, and chunk records found beside it."""
        self.catch_up()
        return self._guarded(lambda: self._read(checkpoint))

    def _read(self, checkpoint: str) -> tuple[Entry, dict[bytes, bytes]] | None:
        ledger = self._ledger
        found = ledger.known(checkpoint)
        if found is not None:
            return None if found[1] else (found[0], {})
        row = ledger.view.row(checkpoint)
        if row is None or ledger.is_deleted(row):
            return None
        return ledger.read_row(row)

    def read_latest(self, task: str) -> tuple[Entry, dict[bytes, bytes]] | None:
        """Do as `read` for a task's newest living checkpoint."""
        self.catch_up()
        return self._guarded(lambda: self._read_latest(task))

    def _read_latest(self, task: str) -> tuple[Entry, dict[bytes, bytes]] | None:
        ledger = self._ledger
        if ledger.is_recent(task):
            entry = self._latest(task)
            return None if entry is None else (entry, {})
        row = ledger.view.latest_of_task(task)
        return None if row is None else ledger.read_row(row)

    def latest(self, task: str) -> Entry | None:
        """Return the newest event of a task's newest living checkpoint."""
        self.catch_up()
        return self._guarded(lambda: self._latest(task))

    def _latest(self, task: str) -> Entry | None:
        try:
            return self._ledger.latest(task)
        except ViewBehindError:
            row = self.view().latest_of_task(task)
            return None if row is None else self._ledger.read_row(row)[0]

    def _guarded(self, look_up: Callable[[], Answer]) -> Answer:
        """Run a look-up; should the view prove damaged, rebuild it and run once more."""
        try:
            return look_up()
        except ViewDamagedError:
            self._heal_view()
            return look_up()

    def wire(self, reference: Reference) -> bytes:
        """Return a payload's bytes, verified.

        Raises:
            BlobCorruptionError, MissingBlobError: They are damaged or gone.
        """
        self._check_open()
        return self.blobs.wire(reference)

    def value(self, reference: Reference | None) -> Any:
        """Return a payload's value, a new object each time; None for no payload."""
        return None if reference is None else values.decode(self.wire(reference))

    def _find_missing(self, digest: bytes) -> Placement | None:
        """Look for a chunk that the index does not have, or has at a wrong place.

        First the index reads on from where it stands; only then is it built anew, once for each
        position: a chunk that is really gone must not cost a scan of everything each time.
        """
        with self._reindex_lock:
            if self._index_forward():
                found = self.index.get(digest)
                if found is not None:
                    return found
            position = self.log.published.read()
            if position is not None and self._reindexed_at != position.position:
                self._reindexed_at = position.position
                self.index.clear()
                self._index_forward()
            return self.index.get(digest)

    def _index_forward(self) -> bool:
        """Index what the log has beyond the index; say whether there was anything."""
        before = self.index.position
        if before < self.position:
            for commit in self.log.reader.commits(position=before):
                self._index(commit)
        return self.index.position > before

    def write_packs(
        self, records: Sequence[tuple[bytes, bytes]]
    ) -> tuple[tuple[PackEntry, ...], tuple[Placement, ...]]:
        """Write chunks to packs, durably; they count once a commit registers them."""
        return write_packs(
            self.path / "packs",
            self.info.id_bytes,
            self.position,
            records,
            lambda: self.environment.random_bytes(16),
        )

    # --- writing ------------------------------------------------------------------------------

    def submit(self, intent: Intent) -> Outcome:
        """Commit an intent (see `Writer.submit`).

        Raises:
            ReadOnlyError: The store is open for reading only.
        """
        if self.read_only:
            raise ReadOnlyError(
                f"The store {self.path} is open for reading only.",
                hint="Open it without read_only=True to write.",
                path=str(self.path),
            )
        self._check_open()
        outcome = self._writer.submit(intent)
        self.relieve()
        return outcome

    def submit_with_reserve(self, intent: Intent) -> Outcome:
        """Commit what frees space; on a full disk the reserve is given up for it."""
        try:
            return self.submit(intent)
        except CheckpointStorageError as error:
            if error.code != "storage.full" or not layout.release_reserve(self.path):
                raise
            return self.submit(intent)

    # --- upkeep -------------------------------------------------------------------------------

    def verify(self, level: Level = "full", progress: Progress | None = None) -> Report:
        """Check everything that is stored (see `repository.verify`)."""
        from ckptlog.repository.verify import verify

        return verify(self, level, progress)

    def stats(self) -> dict[str, Any]:
        """Return counts and sizes (see `repository.statistics`)."""
        from ckptlog.repository.statistics import statistics

        return statistics(self)

    def doctor(self) -> list[Finding]:
        """Return what is wrong and what to do (see `repository.doctor`)."""
        from ckptlog.repository.doctor import diagnose

        return diagnose(self)
