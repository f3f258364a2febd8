"""Keeps what is disposable in step with the log: the ledger, the view and the chunk index.

    log -> commits -> ledger (memory) -> in batches -> view (SQLite)
                   -> chunk index, leaf hashes (repository.indexer)

All of it can be thrown away; `rebuild` does. A view or an index that stands elsewhere than the log
(foreign, future, stale, damaged) is noticed by the leaf hash of the event it stands at, and
replaced. What has (nearly) nothing is built in bulk (repository.builder); where that fails, and for
the rest, commit by commit. Nothing here is ever a reason to fail.

Locks: `fold_lock` guards the ledger, and is held only for moments; `_drain_lock` lets one thread
at a time write the view, and is taken before the fold lock, never after. The view is never
written under the log's lock (`follow` is what a writer calls there).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from threading import RLock

from ckptlog.errors import (
    CheckpointError,
    CheckpointStorageError,
    FormatError,
    LogCorruptionError,
)
from ckptlog.formats.end import End
from ckptlog.log.follower import Follower
from ckptlog.log.log import Log
from ckptlog.model.cursor import BEGINNING, Cursor
from ckptlog.model.entry import Entry
from ckptlog.model.event import Event, Reference
from ckptlog.repository.builder import Builder, is_worth_it
from ckptlog.repository.indexer import Gathering, Indexer
from ckptlog.repository.ledger import Ledger
from ckptlog.storage.environment import Environment
from ckptlog.views.current import CurrentView
from ckptlog.views.errors import (
    ViewBusyError,
    ViewClosedError,
    ViewDamagedError,
    ViewError,
)
from ckptlog.views.rebuild import RawOf

# Events kept in memory before they go to the view: bounds memory (about 1 KB each) and the time
# that one writer spends on it.
PENDING_EVENTS_MAX = 512
# A writer goes on for so long beside a thread that builds a view.
_PENDING_BUILDING_MAX = 64 * PENDING_EVENTS_MAX
# A reader that catches up with very much applies it on the way.
_CATCHING_UP_EVENTS_MAX = 8 * PENDING_EVENTS_MAX
# Of events, and of chunks, that are held in memory where the disk has no room: some 200 MB.
_SHED_MAX = 200_000
_VIEW_WAITS = 40
_VIEW_WAIT_S = 0.05


class Keeper:
    """Ledger, view and index of one store in one process.

    Args:
        wire: Reads a payload's bytes (titles and metadata, for the view).

    Threads: safe.
    """

    def __init__(
        self,
        root: Path,
        store_id: bytes,
        log: Log,
        environment: Environment,
        *,
        read_only: bool,
    ) -> None:
        self._root = root
        self._store_id = store_id
        self._log = log
        self._environment = environment
        self._view_path = None if read_only else root / "views" / "current.sqlite"
        self._drain_lock = RLock()
        self._epoch = log.epoch
        self._wire: Callable[[Reference], bytes]
        self._builder: Builder
        self.fold_lock = RLock()
        self._indexer = Indexer(root, store_id, log, read_only=read_only, boot=environment.boot())
        self.index = self._indexer.index
        self.find_missing = self._indexer.find_missing
        # Where the index was filled again last; once for each position, whatever is damaged.
        self._refilled_at = -1
        # Told of containers that another process has emptied: who has one open closes it, or its
        # room would come back only when this process ends.
        self.forget: Callable[[str], None] = lambda _: None
        self.ledger: Ledger

    def begin(self, wire: Callable[[Reference], bytes], raw_of: RawOf) -> None:
        """Open the view and read on from where it stands.

        Args:
            wire, raw_of: Read a payload, and a chunk.
        """
        self._wire = wire
        views = self._root / "views"
        self._builder = Builder(views, self._store_id, self._log, self._environment, raw_of)
        if self._view_path is not None:
            self._builder.tidy()
        self.ledger = self._open_ledger(self._new_view())

    def close(self) -> None:
        """Bring everything up to date, then close it."""
        try:
            self.drain()
            self.index.flush(force=True)
        except ViewDamagedError:
            self._renewed(self.ledger.view).close()
        except (ViewError, CheckpointError):  # the next opening takes in the rest
            pass
        finally:
            self.ledger.view.close()
            self.index.close()
            self._indexer.leaves.close()

    def abandon(self) -> None:
        """Drop everything without touching the store: for a forked child."""
        self.ledger.view.abandon()

    def _new_view(self) -> CurrentView:
        boot = self._environment.boot()
        return CurrentView.open(self._view_path, self._store_id, boot=boot)

    def _view_in_memory(self) -> CurrentView:
        return CurrentView.open(None, self._store_id)

    def _renewed(self, view: CurrentView) -> CurrentView:
        """Return an empty view in the place of one that cannot be believed."""
        try:
            view.remove()
        except ViewError:
            return self._view_in_memory()
        return self._new_view()

    # --- following the log --------------------------------------------------------------------

    def _open_ledger(self, view: CurrentView, *, may_apply: bool = True) -> Ledger:
        """Make a ledger on a view, after checking that the view belongs to this log's past."""
        if not self._is_past(view):
            # What is there is thrown away only once it is sure that the log can replace it.
            self._read_through()
            self._indexer.leaves.remove()
            view = self._renewed(view)
            if not self._is_past(view):  # its file could not be removed
                view.close()
                view = self._view_in_memory()
        persisted = self.index.persisted
        if persisted is not None:
            position, container, offset, leaf = persisted
            if not self._is_our_past(position, leaf, (container, offset)):
                self.index.clear()
        if may_apply:
            view = self._filled(view)
        ledger = Ledger(view, self._log.reader.entry)
        ledger.scan = self._event_from
        end = self._log.published.read()
        if end is not None and self.index.position > end.position:
            # It holds what was acknowledged and lost ("interval"), and would skip what came since.
            self.index.clear()
        if self.index.position < ledger.position:
            self._indexer.index_up_to(ledger.position)
        # Without a published end, which a medium that cannot be written may have, a store can
        # still be opened, to be verified; whoever reads from it is told.
        if end is not None:
            self._follow_into(ledger, may_apply=may_apply)
        return ledger

    def _filled(self, view: CurrentView) -> CurrentView:
        """Return a view with all that is published, where one has (nearly) nothing of it.

        Where that cannot be done in bulk the same view comes back: commit by commit it gets as
        far as it can, and who reads on is told what is wrong.
        """
        end = self._log.published.read()
        with suppress(LogCorruptionError, ViewError):
            if end is None or not is_worth_it(view.mark.position, end.position):
                return view
            take, is_asked = self._indexer.take, self.index.position < end.position
            if view.kind != "file":
                self._builder.fill(view, end, take, with_places=is_asked)
                return view
            with self._builder.workplace() as folder:
                if view.is_replaced:  # another process has built one while we waited for the place
                    other = self._new_view()
                    view.close()
                    view = other
                if folder is not None and is_worth_it(view.mark.position, end.position):
                    made = self._builder.make(folder, end, take, with_places=is_asked)
                    return self._put(made, view)
        return view

    def _put(self, made: Path, view: CurrentView) -> CurrentView:
        """Let a view that was made take the place of one that is let go."""
        try:
            return self._builder.put(made)
        except ViewError:
            return self._new_view()
        finally:
            view.close()

    def _is_past(self, view: CurrentView) -> bool:
        try:
            mark = view.mark
            place = (mark.container, mark.offset)
            return self._is_our_past(mark.position, mark.leaf, place)
        except ViewError:
            return False

    def _is_our_past(self, position: int, leaf: bytes, place: tuple[str, int]) -> bool:
        """Say whether a commit of the log ends at a position, with this leaf hash and place."""
        end = self._log.published.read()
        if position == 0 or end is None:  # None: it cannot be told, and who reads the log hears it
            return True
        found = self._log.reader.places.ends_commit(Cursor(position, leaf, *place), end)
        # None: it cannot be told. A damaged log cannot be folded anew, so what is left must stay;
        # rows and chunks are checked against the log and their digests when they are read.
        return found is not False

    def follow(self) -> None:
        """Bring ledger and index up to the published end. Under the fold lock."""
        if self._epoch != self._log.epoch:
            # Commits that were acknowledged but not durable are gone ("interval").
            self._reopen_ledger(may_apply=False)
            return
        # The log has just read the end itself; under the lock it cannot have moved since.
        if self.ledger.position < self._log.durable_position:
            self._follow_into(self.ledger, may_apply=False)
        if self.index.position < self.ledger.position != self._refilled_at:
            self._refill()

    def _refill(self) -> None:
        """Index again what the index has lost with a damaged run, so that differences can be."""
        self._refilled_at = self.ledger.position
        self._indexer.index_up_to(self.ledger.position)
        for commit in self.ledger.pending:  # acknowledged, but not durable yet
            self._indexer.add(commit)

    def _follow_into(self, ledger: Ledger, *, may_apply: bool = True) -> None:
        """Absorb what is published; apply it to the view on the way, unless the log is locked."""
        end = self._log.end()
        if end.position <= ledger.position:
            return
        cursor = Cursor(ledger.position, ledger.leaf, ledger.container, ledger.offset)
        log, start = self._log, cursor if cursor.position else BEGINNING
        follower = Follower(log.reader, log.published, start, environment=self._environment)
        for commit in follower.commits(end):
            self._indexer.add(commit)
            ledger.absorb((commit,))
            for container in commit.entries[-1].event.removes:
                self.forget(container)
            if may_apply and ledger.pending_events >= _CATCHING_UP_EVENTS_MAX:
                self._apply_pending(ledger)

    def catch_up(self) -> None:
        """Take in what other processes have committed since the last call."""
        if self._epoch != self._log.epoch:
            with self._drain_lock, self.fold_lock:
                self._reopen_ledger(may_apply=True)
            return
        end = self._log.end()
        if end.position > self.ledger.position:
            with self.fold_lock:
                if self._epoch == self._log.epoch:
                    self._follow_into(self.ledger)

    def _reopen_ledger(self, *, may_apply: bool) -> None:
        """Forget what was acknowledged but lost ("interval"): begin again at the view's mark."""
        epoch = self._log.epoch
        if self._epoch != epoch:
            self.ledger = self._open_ledger(self.ledger.view, may_apply=may_apply)
            self._epoch = epoch

    def renew_index(self, folder: Path, packs: Iterable[str], end: End) -> None:
        """Make the chunk index anew, after a collection: without what is no more.

        Args:
            folder: An empty one to work in. packs: As in `Indexer.gather`: what counts at
            end: which is where the new index begins to follow the log.
        """
        with suppress(CheckpointStorageError, FormatError):
            run = self._indexer.gather(folder, end, packs)
            if run is None:
                return
            with self.fold_lock:
                self._indexer.adopt(run)
                self._refill()

    # --- the view -----------------------------------------------------------------------------

    def view(self) -> CurrentView:
        """Return the view, caught up with everything durable (and with our own commits)."""
        if self._log.is_lagging:
            # "interval": a question about everything waits for what is acknowledged.
            self._log.flush()
        self.catch_up()
        # Others may go on writing meanwhile; what was there when we were asked is enough.
        target = self.ledger.position
        for attempt in range(_VIEW_WAITS):
            if not self.ledger.pending or self.drain() or self.ledger.view.at_least(target):
                return self.ledger.view
            self._environment.sleep(_VIEW_WAIT_S * min(1, attempt))
        # Somebody holds the database and does not let go: answer from one of our own.
        self.heal(self.ledger.view, ViewBusyError())
        self.drain()
        return self.ledger.view

    def relieve(self) -> None:
        """Apply pending events to the view if they are many; a writer calls it after a commit.

        While another thread is at it, building anew maybe, a writer waits only if they are very
        many.
        """
        pending = self.ledger.pending_events
        if pending < PENDING_EVENTS_MAX:
            return
        if not self._drain_lock.acquire(blocking=pending >= _PENDING_BUILDING_MAX):
            return
        try:
            view = self.ledger.view
            try:
                self.drain()
            except ViewError as error:
                self.heal(view, error)
        finally:
            self._drain_lock.release()

    def drain(self) -> bool:
        """Apply pending durable events to the view; say whether none is left."""
        with self._drain_lock:
            return self._apply_pending(self.ledger)

    def _apply_pending(self, ledger: Ledger) -> bool:
        durable = self._log.end().position
        with self.fold_lock:
            if self._epoch != self._log.epoch:
                return False  # some of it may be lost; the next look begins anew
            commits = [one for one in ledger.pending if one.position_next <= durable]
        if commits and ledger.view.apply(commits, self._meta_of):
            self._refuse_future(ledger.view)
            self.index.flush()
            self._indexer.fill_leaves(commits)
            with self.fold_lock:
                ledger.release(min(ledger.view.mark.position, commits[-1].position_next))
        return not ledger.pending or self._log.is_lagging

    def _refuse_future(self, view: CurrentView) -> None:
        position = view.mark.position
        # Others may have applied more than we knew of, never more than is published by now.
        end = self._log.published.read()
        if end is None or position > end.position:
            raise ViewDamagedError(f"The view claims {position} events; the log has fewer.")

    def _meta_of(self, entry: Entry) -> bytes | None:
        reference = entry.event.meta
        if reference is None:
            return None
        try:
            return self._wire(reference)
        except CheckpointError:
            # A damaged title must not stop the listing of everything else.
            return None

    def heal(self, view: CurrentView, error: ViewError) -> None:
        """Replace a view that does not answer by a new one, built from the log.

        One that is damaged is removed; one that is busy is others' too and stays, ours is in
        memory then. Does nothing where another thread was first, or the store was closed.
        """
        with self._drain_lock:
            if view is not self.ledger.view or isinstance(error, ViewClosedError):
                return
            if isinstance(error, ViewDamagedError):
                self._replace_view(self._renewed(view))
            else:
                self._replace_view(self._view_in_memory())
                view.close()

    def _replace_view(self, view: CurrentView) -> None:
        with self._drain_lock:
            view = self._filled(view)
            ledger = Ledger(view, self._log.reader.entry)
            ledger.scan = self._event_from
            # Most of the way without the fold lock: writers go on beside a long rebuild.
            self._follow_into(ledger)
        with self._drain_lock, self.fold_lock:
            own = self.ledger.pending
            self._follow_into(ledger, may_apply=False)
            for commit in own:  # acknowledged, but not durable yet: not to be had from the log
                self._indexer.add(commit)
                ledger.absorb((commit,))
            self.ledger = ledger

    def rebuild(self) -> int:
        """Throw view and index away and build them from the log; return the events read.

        Raises:
            LogCorruptionError: The log is damaged; what cannot be built anew was left alone.
        """
        with self._drain_lock:
            former = self.ledger.view
            view = self._built_aside() if former.kind == "file" else None
            if view is None:
                self._read_through()
                self._indexer.clear()
                self._replace_view(self._renewed(former))
            else:
                self._replace_view(view)
                former.close()
            self.drain()
            self.index.flush(force=True)
            return self.ledger.position

    def _built_aside(self) -> CurrentView | None:
        """Return a new view in the place of ours, with all that is published, and a new index.

        Nothing is thrown away before the whole log was read. None: it cannot be done so.

        Raises:
            LogCorruptionError: The log is damaged.
        """
        end = self._log.end()
        try:
            with self._builder.workplace() as folder:
                if folder is None:
                    return None
                gathering = Gathering(self._indexer, folder, self._store_id)
                made = self._builder.make(folder, end, gathering.take, with_places=True)
                gathering.finish(end)
                view = self._builder.put(made)
                gathering.publish(end)
                return view
        except (ViewError, CheckpointStorageError, FormatError):  # no space, for one
            return None

    def trim(self) -> None:
        """Give the room back that the view takes beyond what it holds."""
        with self._drain_lock:
            self.ledger.view.trim()

    def shed(self) -> bool:
        """Give the room of view and index back: they are in memory until the store is closed.

        Returns:
            False where there is nothing to give, or where it would not fit into memory.
        """
        with self._drain_lock:
            former = self.ledger.view
            is_small = max(self.index.entries, self.ledger.position) <= _SHED_MAX
            if self._view_path is None or not is_small:
                return False
            try:
                self._read_through()  # nothing goes that the log cannot bring back
                # Where ours is in memory already, the file could be written no more.
                (former if former.kind == "file" else self._new_view()).remove()
            except (ViewError, CheckpointError):
                return False
            self._view_path = None
            self.index.shed()
            self._replace_view(self._view_in_memory())
            self._indexer.index_up_to(self.ledger.position)
            return True

    def _read_through(self) -> None:
        for _ in self._log.reader.commits():
            pass

    def _event_from(self, container: str, offset: int, start: int, position: int) -> Event | None:
        for commit in self._log.reader.commits(container, offset, start):
            for entry in commit.entries:
                if entry.position == position:
                    return entry.event
        return None
