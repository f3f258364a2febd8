"""Keeps a store's file view current: a consumer of the log's follower (specs/view-files.md).

    follower -> commits -> Change (what became of each checkpoint) -> FilesView (files)

The view is opened with suspicion: a register that is torn, of another store, or of another history
is thrown away with all it says, and the files are built anew from the log; files that are missing,
foreign, or (after another boot, or on request) not what was written, are written again.

One process at a time works on the files (`.lock`); whoever comes second finds them current.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from threading import Event as Signal
from threading import RLock
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ckptlog.errors import (
    CheckpointError,
    LogCorruptionError,
    OtherTimelineError,
    ReadOnlyError,
    StoreClosedError,
    operating_system_door,
)
from ckptlog.log.follower import Follower, confirm
from ckptlog.model.cursor import Cursor, after_commit
from ckptlog.model.entry import Entry
from ckptlog.repository.collected import told_apart
from ckptlog.storage.files import make_below
from ckptlog.storage.lock import WriterLock
from ckptlog.views.document import FOLDERS, document
from ckptlog.views.errors import ViewDamagedError
from ckptlog.views.files import INDEX, LOCK, REGISTER, Change, FilesView
from ckptlog.views.register import index_of

if TYPE_CHECKING:
    from ckptlog.repository.store import Store

FOLDER: Final = "files"
# Bounds memory while much is caught up with: an entry takes about 1.5 KB.
CHANGES_MAX: Final = 20_000
_POLL_S: Final = 0.05
_PAUSE_MAX_S: Final = 5.0
# The index is written whole each time: then at most a tenth of the time goes there.
_REST_FACTOR: Final = 10
# A smaller one is written with each step: it costs no more than the step's own file.
_EAGER_MAX: Final = 1000
_logger = logging.getLogger("ckptlog")


class Refreshed(msgspec.Struct, frozen=True):
    """What a refresh did.

    position: After the last event that the files show. events: Taken in now.
    written, removed: Checkpoints whose files were. is_rebuilt: Whether all was built anew.
    repaired: Checkpoints whose files were missing or not what had been written.
    """

    position: int
    events: int = 0
    written: int = 0
    removed: int = 0
    repaired: int = 0
    is_rebuilt: bool = False


Teller = Callable[[Refreshed], None]


class _Suspicion(IntEnum):
    """What of the files has to be looked at."""

    NONE = 0
    NAMES = 1
    CONTENTS = 2
    OTHER_BOOT = 3


class FileView:
    """The file view of one open store.

    Threads: safe.        Processes: any may refresh; one waits for the other.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.folder = store.path / "views" / FOLDER
        self._lock = RLock()
        self._flock = WriterLock(self.folder / LOCK, store.environment)
        self._view = FilesView(self.folder, store.info.id_bytes, store.environment.boot())
        self._seen: tuple[int, int, int] | None = None
        self._index_seen: tuple[int, int, int] | None = None
        self._position = -1
        self._rests_until_s = -math.inf

    # --- what is asked for --------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Position after the last event that the files show, as far as this object knows.

        -1 before the first refresh.
        """
        return self._position

    def is_behind(self) -> bool:
        """Say whether there are durable events that the files do not show."""
        return self._store.position > self.position

    def refresh(self, *, is_thorough: bool = False, is_lazy: bool = False) -> Refreshed:
        """Let the files show everything that is durable now.

        An index.json that is missing or was changed is written again, and with it every file that
        is missing. A file that went alone is not looked for by the object that wrote it: another
        process, the next opening and `is_thorough` find it.

        Args:
            is_thorough: Also read every file and compare it with what was written.
            is_lazy: Where there are more than 1,000 checkpoints, leave index.json (and the files
                of those that are gone) to a later refresh until ten times as long has passed as
                they took the last time, 5 s at most. For who sees to it that one comes (`run`).

        Raises:
            ReadOnlyError: The store is open for reading only.
            LogCorruptionError: The log is damaged; the files show what stands before the damage.
            LockTimeoutError: Another process was at the files for too long.
            CheckpointStorageError: The system refused; the next refresh does it again.

        Cost: a file for each checkpoint that changed, and index.json, which names every one.
        """
        with self._held():
            try:
                return self._refreshed(is_thorough=is_thorough, is_lazy=is_lazy)
            except (ViewDamagedError, OtherTimelineError):
                self._view.clear()
                return self._follow(is_new=True)

    def _refreshed(self, *, is_thorough: bool, is_lazy: bool) -> Refreshed:
        """Follow the log and mend what is not as it was written.

        What a process left that was killed in a step, or has not settled it yet, is as it should
        be once the step is done again; so files are looked at after that. But after a reboot
        before: the register would say that all is of this boot.
        """
        is_new = self._open()
        if is_new:
            return self._follow(is_new=True)
        suspicion = self._suspicion(is_thorough=is_thorough)
        repaired = 0
        if suspicion == _Suspicion.OTHER_BOOT:
            repaired, suspicion = self._heal(suspicion), _Suspicion.NONE
        try:
            done = self._follow(is_new=False, is_lazy=is_lazy)
        except LogCorruptionError:
            self._heal(suspicion)
            raise
        repaired += self._heal(suspicion)
        return msgspec.structs.replace(done, repaired=repaired)

    def rebuild(self) -> Refreshed:
        """Write every file anew from the log, whatever is there.

        Raises:
            LogCorruptionError: The log is damaged; what cannot be built anew was left alone.
            CheckpointStorageError: As `refresh`.
        """
        with self._held():
            for _ in self._store.log.reader.commits(steps_over=False):
                pass
            self._view.clear()
            return self._follow(is_new=True)

    def run(self, stop: Signal, *, tell: Teller | None = None) -> None:
        """Keep the files current until `stop` is set, or the store is closed.

        What goes wrong is logged with its code, and tried again where that can help.
        """
        clock = self._store.environment.monotonic_s
        pause_s = 0.0
        while not stop.wait(pause_s):
            begin_s, pause_s = clock(), _POLL_S
            try:
                if not self.is_behind() and self._view.is_settled:
                    continue
                done = self.refresh()
                if tell is not None:
                    tell(done)
            except StoreClosedError:
                return
            except CheckpointError as error:
                _logger.warning("The file view was not refreshed: %s (%s)", error, error.code)
                if isinstance(error, ReadOnlyError):
                    return
                pause_s = _PAUSE_MAX_S
            rest_s = _REST_FACTOR * (clock() - begin_s)
            pause_s = max(pause_s, min(rest_s, _PAUSE_MAX_S))

    def index(self) -> dict[str, Any]:
        """Return the content of index.json as of the last refresh."""
        with self._lock:
            register = self._view.register
            return index_of(register.in_order(), register.last_updated, register.cursor.position)

    @property
    def is_there(self) -> bool:
        """Whether somebody has made the view before."""
        return (self.folder / REGISTER).exists()

    def size_bytes(self) -> int:
        """Return the bytes of the files and the index together."""
        return self._view.tree.size_bytes((*FOLDERS, ""))

    # --- opening ------------------------------------------------------------------------------

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Hold both locks; what goes wrong inside makes the next one read the register again."""
        store = self._store
        self.is_behind()  # refuses a store that was closed
        if store.read_only:
            raise ReadOnlyError(
                f"The store {store.path} is open for reading only; its file view stays as it is.",
                hint="Open it without read_only=True.",
                path=str(store.path),
            )
        with self._lock:
            with operating_system_door("Cannot make the folder of the file view"):
                make_below(store.path, self.folder)
            try:
                self._flock.acquire(store.timeout_s)
                yield
                self._seen = self._view.tree.stamp(REGISTER)
                self._index_seen = self._view.tree.stamp(INDEX)
                self._position = self._view.register.cursor.position
            except BaseException:
                self._seen = None
                raise
            finally:
                self._flock.close()  # nobody closes a view: it holds nothing when it is at rest

    def _open(self) -> bool:
        """Take up the register as it is now; say whether everything has to be built anew."""
        if self._seen is not None and self._view.tree.stamp(REGISTER) == self._seen:
            return False
        self._seen = None
        if not (self.folder / REGISTER).exists():
            self._view.clear()
            return True
        self._view.load()
        self._check_timeline()
        return False

    def _check_timeline(self) -> None:
        """Refuse a register that is not of this log's past.

        Raises:
            OtherTimelineError, ViewDamagedError: It is not.
        """
        end = self._store.log.published.read()
        cursor = self._view.register.cursor
        if end is None:
            raise LogCorruptionError(
                f"The published end of {self._store.path} is missing or damaged.",
                hint="Open the store for writing once; that rebuilds it.",
            )
        if cursor.position > end.position:
            raise ViewDamagedError("The file view shows events that the log does not have.")
        confirm(self._store.log.reader, cursor, end)

    def _suspicion(self, *, is_thorough: bool) -> _Suspicion:
        """Say what has to be looked at.

        Names are when the register was read, or index.json is not as it was left; contents on
        request, and after a reboot.

        Raises:
            ViewDamagedError: Everything has to be built anew.
        """
        view, is_fresh = self._view, self._seen is None
        if is_fresh and not view.is_of_this_boot:
            if not view.register.is_whole:
                raise ViewDamagedError("A view that was never whole cannot be compared.")
            return _Suspicion.OTHER_BOOT
        if is_thorough:
            return _Suspicion.CONTENTS
        is_touched = is_fresh or view.tree.stamp(INDEX) != self._index_seen
        return _Suspicion.NAMES if is_touched else _Suspicion.NONE

    def _heal(self, suspicion: _Suspicion) -> int:
        """Write again what is not as it was written; return how much that was."""
        if suspicion == _Suspicion.NONE:
            return 0
        view, is_other_boot = self._view, suspicion == _Suspicion.OTHER_BOOT
        if not view.is_settled:
            self._settle()
        faults = view.faults(is_thorough=suspicion >= _Suspicion.CONTENTS)
        if faults or is_other_boot or view.has_strangers():
            view.repair([self._shown_by(name) for name in faults if name], self._document)
        return len(faults)

    def _shown_by(self, name: str) -> Entry:
        """Return the event that a checkpoint's file shows."""
        row = self._view.register.get(name)
        entry = None if row is None else self._store.event_at(row.position)
        if entry is None or entry.event.subject.checkpoint != name:
            raise ViewDamagedError(f"The register of the file view is wrong about {name!r}.")
        return entry

    # --- following ----------------------------------------------------------------------------

    def _follow(self, *, is_new: bool, is_lazy: bool = False) -> Refreshed:
        view = self._view
        start, written, removed = view.register.cursor.position, 0, 0
        for change, cursor in self._changes():
            view.take_in(change, cursor, self._document)
            written += len(change.last)
            removed += len(change.gone)
            if not (is_lazy and self._may_rest()):
                self._settle()
        if not view.register.is_whole:
            view.finish()
        elif not (view.is_settled or (is_lazy and self._may_rest())):
            self._settle()
        position = view.register.cursor.position
        return Refreshed(position, position - start, written, removed, is_rebuilt=is_new)

    def _may_rest(self) -> bool:
        """Say whether index.json was written not long ago, by what that takes."""
        now_s = self._store.environment.monotonic_s()
        return len(self._view.register) > _EAGER_MAX and now_s < self._rests_until_s

    def _settle(self) -> None:
        clock = self._store.environment.monotonic_s
        begin_s = clock()
        self._view.settle()
        now_s = clock()
        self._rests_until_s = now_s + min(_REST_FACTOR * (now_s - begin_s), _PAUSE_MAX_S)

    def _changes(self) -> Iterator[tuple[Change, Cursor]]:
        """Yield what the events that are not shown yet come to, in portions."""
        log, register = self._store.log, self._view.register
        change, cursor = Change(register), register.cursor
        try:
            for commit in Follower(log.reader, log.published, cursor).commits():
                for entry in commit.entries:
                    change.add(entry)
                cursor = after_commit(commit)
                if len(change) >= CHANGES_MAX:
                    yield change, cursor
                    change = Change(register)
        except LogCorruptionError:
            if cursor != register.cursor:  # what stands before the damage is shown all the same
                yield change, cursor
            raise
        if cursor != register.cursor:
            yield change, cursor

    def _document(self, entry: Entry) -> bytes:
        return document_of(self._store, entry)


def document_of(store: Store, entry: Entry) -> bytes:
    """Return the file of a checkpoint after an event.

    Raises:
        CheckpointCorruptionError, MissingBlobError: Its bytes are damaged or gone.
    """
    event = entry.event
    with told_apart(store, entry):
        data = None if event.data is None else store.wire(event.data)
        meta = None if event.meta is None else store.wire(event.meta)
    return document(entry, data, meta)
