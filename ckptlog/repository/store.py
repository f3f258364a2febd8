"""The store: everything a directory holds, opened and composed.

    Store = log (truth) + blobs (payload bytes) + view and index (disposable) + ledger (the fold)

One direction: a write goes manager -> writer -> log; what was appended comes back through
`absorb` into ledger and index, and later, in batches, into the view. Another process's commits
come in by the same `absorb`, read from the log. Nothing here is true that the log does not say.

Locks, always taken in this order: the round (writer's lock and the log's mutex), the keeper's
fold lock, then those of view, index and cache.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event as Signal
from threading import Lock, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, TypeVar, Unpack

from ckptlog.blobs.chunker import Chunker
from ckptlog.blobs.codec import Codec
from ckptlog.blobs.pack import PackWriter, write_packs
from ckptlog.blobs.payload import TREE_BYTES_MAX, WIRE_BYTES_MAX
from ckptlog.blobs.store import BlobStore
from ckptlog.errors import (
    CheckpointError,
    FullError,
    ReadOnlyError,
    StoreClosedError,
    UnsupportedError,
)
from ckptlog.formats.end import End
from ckptlog.formats.store import DICTIONARY, LARGE, TREES, StoreInfo
from ckptlog.log.log import Log
from ckptlog.model.codec import NO_CODECS, Codecs
from ckptlog.model.entry import Placement
from ckptlog.model.event import PackEntry
from ckptlog.repository import layout
from ckptlog.repository.attesting import Attesting
from ckptlog.repository.backing import refuse_backup
from ckptlog.repository.collected import CollectedPast
from ckptlog.repository.head_check import NONE_KEPT, KeptHeads
from ckptlog.repository.intent import Intent, Outcome
from ckptlog.repository.keeper import Keeper
from ckptlog.repository.locator import Locator
from ckptlog.repository.reader import StoreReader
from ckptlog.repository.report import Finding, Level, Progress, Report
from ckptlog.repository.retrospect import Retrospect
from ckptlog.repository.writer import Writer
from ckptlog.storage.environment import Environment
from ckptlog.storage.fork import free_in_child
from ckptlog.views.current import CurrentView

if TYPE_CHECKING:
    import pyarrow.dataset as ds

    from ckptlog.repository.analytics import Analytics
    from ckptlog.repository.archive import ArchiveReport
    from ckptlog.repository.backup import BackupReport
    from ckptlog.repository.collection import Collected, CollectOptions
    from ckptlog.repository.depth import Depth
    from ckptlog.repository.mending import Mending
    from ckptlog.storage.removal import Removal
    from ckptlog.watch.consumer import ConsumerList
    from ckptlog.watch.option import WatchOptions
    from ckptlog.watch.start import Start
    from ckptlog.watch.subscription import Subscription
    from ckptlog.watch.watcher import Watcher

Durability = Literal["commit", "interval"]
Answer = TypeVar("Answer")

# Answers that a view may fail to give before one in memory is asked.
_VIEW_ATTEMPTS = 3


# Lets one thread of a forked child open a store anew.
_reopening = Lock()
free_in_child(sys.modules[__name__], "_reopening")


class Store(StoreReader, Retrospect, Attesting):
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
        codecs: Codecs = NO_CODECS,
        head_interval_s: float | None = None,
        environment: Environment | None = None,
    ) -> None:
        self.path = root
        self.codecs = codecs
        self.read_only = read_only
        self.durability = durability
        self.timeout_s = timeout_s
        self.environment = environment or Environment()
        self._interval_s = interval_s
        self._queue_max = queue_max
        self._cache_bytes = cache_bytes
        self._compression_level = compression_level
        self._head_interval_s = head_interval_s
        self._is_closed = False
        self.info: StoreInfo = layout.read_info(root)
        if not read_only:
            layout.refuse_unsafe_file_system(root, self.environment)
            layout.refuse_read_only(root)
            layout.make_folders(root)
            refuse_backup(root)
        try:
            self._compose()
            if not read_only:
                layout.restore_reserve(root)
        except BaseException:  # nobody else can close what was opened so far
            if hasattr(self, "log"):
                self.log.abandon()
            raise

    # --- opening and closing ------------------------------------------------------------------

    def _compose(self) -> None:
        store_id = self.info.id_bytes
        self.collected = CollectedPast()
        self.log = Log(
            self.path,
            store_id,
            self.environment,
            read_only=self.read_only,
            is_durable=self.durability == "commit",
        )
        if not self.read_only:
            self.log.recover_if_free(self.timeout_s)
        self._keeper = keeper = Keeper(
            self.path, store_id, self.log, self.environment, read_only=self.read_only
        )
        self.index = keeper.index
        self.blobs = BlobStore(
            self.path,
            store_id,
            self.index,
            Codec(self._compression_level, has_dictionary=DICTIONARY in self.info.features),
            Chunker(self.info.chunker),
            cache_bytes=self._cache_bytes,
            missing=keeper.find_missing,
            has_trees=TREES in self.info.features,
        )
        keeper.forget = self.forget
        keeper.begin(self.blobs.wire, self.blobs.raw)
        self._writer = Writer(
            self.log,
            keeper,
            self.environment,
            timeout_s=self.timeout_s,
            queue_max=self._queue_max,
            schema=self.info.event_schema,
        )
        self._locator = Locator(self.log, self._waypoint)
        self._watching: Watcher | None = None
        self._stop = Signal()
        if self.durability == "interval" and not self.read_only:
            Thread(target=self._flush_forever, name="ckptlog-flush", daemon=True).start()
        self._analytics: Analytics | None = None
        self._begin_attesting()
        # Last: the other threads of a forked child go by it.
        self._pid = os.getpid()

    @property
    def watcher(self) -> Watcher:
        """What opens subscriptions; made by the first who asks, for most stores are not watched."""
        self._check_open()
        with _reopening:
            if self._watching is None:
                from ckptlog.watch.watcher import Watcher

                self._watching = Watcher(
                    self.path, self.info.id_bytes, self.environment, read_only=self.read_only
                )
            return self._watching

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
        self._writer.close()
        try:
            if not self.read_only:
                self.log.flush(self.timeout_s)
                layout.restore_reserve(self.path)
            if self._watching is not None:
                self._watching.close()
        finally:
            self._end_attesting()
            self._keeper.close()
            self.log.close()
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
        state = "closed" if self._is_closed else f"position {self._keeper.ledger.position}"
        return f"<Store {self.path} {state}>"

    def _repr_html_(self) -> str:
        from ckptlog.repository.portrait import portrait

        return portrait(self, is_closed=self._is_closed)

    def _abandon(self) -> None:
        self.log.abandon()
        self._keeper.abandon()
        # Not closed: a parent's thread may have held its locks. Its files close when it goes.

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreClosedError(
                f"The store {self.path} was closed.", hint="Open it again.", path=str(self.path)
            )
        if os.getpid() != self._pid:
            self._reopen_after_fork()

    def opened(self) -> Self:
        """Return this store with all that it acknowledged durable, refusing one that was closed."""
        self._check_open()
        if self.log.is_lagging:
            self.log.flush(self.timeout_s)
        return self

    def _reopen_after_fork(self) -> None:
        """Open anew: a child shares descriptors and locks with its parent and must not use them."""
        with _reopening:
            if os.getpid() != self._pid:
                self._abandon()
                self._compose()

    def _flush_forever(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                self.log.flush(self.timeout_s)
            except CheckpointError as error:
                self.log.notes.append(f"An interval's commits may be lost: {error}")

    # --- standing -----------------------------------------------------------------------------

    @property
    def settings(self) -> dict[str, Any]:
        """How the store was opened, by the names that CheckpointConfiguration has for it."""
        return {
            "durability": self.durability,
            "interval_s": self._interval_s,
            "operation_timeout_seconds": self.timeout_s,
            "max_concurrent_operations": self._queue_max,
            "cache_size_bytes": self._cache_bytes,
            "zstd_level": self._compression_level,
            "head_interval_s": self._head_interval_s or 0,
        }

    @property
    def id(self) -> str:
        """The store's id, 32 hexadecimal digits."""
        return self.info.id

    @property
    def position(self) -> int:
        """Position after the last durable event."""
        self._check_open()
        return self.log.end().position

    def catch_up(self) -> None:
        """Take in what other processes have committed since the last call."""
        self._check_open()
        # A round that is appending holds the lock and has followed the log.
        if not self._writer.is_appending:
            self._keeper.catch_up()

    def view(self) -> CurrentView:
        """Return the view, caught up with everything that was acknowledged."""
        self._check_open()
        return self._guarded(self._keeper.view)

    def rebuild_views(self) -> int:
        """Throw the views and the chunk index away and build them from the log.

        Returns:
            Events that were read.
        """
        self._check_open()
        events = self._keeper.rebuild()
        layout.discard_history(self.path)
        return events

    def history(
        self, folder: str | os.PathLike[str] | None = None, *, verify: bool = True
    ) -> ds.Dataset:
        """Return the log as rows, one for each durable event (specs/history.md); Parquet below.

        What is new since the last call is added first; what is damaged is made again.

        Args:
            folder: Where to keep the files; STORE/views/history by default. A store that is open
                for reading only and has no current history there gets one that lives as long as
                this process.
            verify: Hash each file once in a process; otherwise sizes must do.

        Raises:
            ArgumentError: The folder holds something else.
            LogCorruptionError: The log is damaged where it was to be read.
            CheckpointStorageError: The files cannot be written, by kind.
        """
        from ckptlog.repository.analytics import Analytics

        self._check_open()
        if self.log.is_lagging:
            self.log.flush(self.timeout_s)
        if self._analytics is None:
            self._analytics = Analytics(self)
        return self._analytics.dataset(folder, verify=verify)

    # --- writing ------------------------------------------------------------------------------

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

    def pack_writer(self, base: int) -> PackWriter:
        """Return a writer of packs for a commit whose preparation began at a position."""
        return PackWriter(
            self.path / "packs",
            self.info.id_bytes,
            base,
            lambda: self.environment.random_bytes(16),
        )

    def refuse_read_only(self) -> None:
        """Refuse what writes.

        Raises:
            ReadOnlyError: The store is open for reading only.
        """
        if self.read_only:
            self._refuse_writing()

    def check_plantable(self, size: int = 0) -> None:
        """Refuse what is written piece by piece where the store was not made for it.

        Raises:
            UnsupportedError: It has no trees, or none of so many bytes.
        """
        limit = WIRE_BYTES_MAX if TREES in self.info.features else -1
        if LARGE in self.info.features:
            limit = TREE_BYTES_MAX
        if size > limit:
            raise UnsupportedError(
                f"The store {self.path} was made by an older version; it takes no value that is "
                f"written piece by piece{'' if limit < 0 else ' and has more than 1 GiB'}.",
                hint="Make a new store; ckptlog export and import bring old checkpoints into it.",
                path=str(self.path),
            )

    def submit(self, intent: Intent) -> Outcome:
        """Commit an intent (see `Writer.submit`).

        Raises:
            ReadOnlyError: The store is open for reading only.
        """
        if self.read_only:
            self._refuse_writing()
        self._check_open()
        watching = self._watching
        if watching is not None:
            watching.expect(step.command.command for step in intent.steps)
        outcome = self._writer.submit(intent)
        if watching is not None:
            watching.notify()
        self._keeper.relieve()
        return outcome

    def _refuse_writing(self) -> NoReturn:
        raise ReadOnlyError(
            f"The store {self.path} is open for reading only.",
            hint="Open it without read_only=True to write.",
            path=str(self.path),
        )

    def submit_with_reserve(self, intent: Intent) -> Outcome:
        """Commit what frees space; on a full disk with the reserve's room, then with the views'."""
        try:
            return self.submit(intent)
        except FullError:
            if layout.lend_reserve(self.path):
                with suppress(FullError):
                    return self.submit(intent)
            if not self.shed_views():
                raise
        return self.submit(intent)

    # --- watching -----------------------------------------------------------------------------

    def watch(self, consumer: str | None = None, **options: Unpack[WatchOptions]) -> Subscription:
        """Return a subscription to events: durable ones, in order, each at least once.

        Args:
            consumer: A name; what it acknowledges survives, and one process reads as it at a
                time. None keeps the cursor in memory.
            options: Filters (`watch.filter.EventFilter`) and `watch.option.Options`.

        Raises:
            ConsumerBusyError: Somebody else reads as this consumer.
            ConsumerDamagedError, ConsumerForeignError: Its cursor cannot be believed.
            ReadOnlyError: A name, and no place for its cursor.
            ArgumentError: An option is wrong.

        Threads: safe. Page: specs/consumers.md.
        """
        return self.watcher.open(consumer, dict(options))

    def consumers(self) -> ConsumerList:
        """Return every named consumer: its position, its lag, who reads as it."""
        return self.watcher.consumers()

    def reset_consumer(self, name: str, start: Start = "beginning") -> int:
        """Move a consumer that is not at work; return the position that it begins at."""
        return self.watcher.reset(name, start)

    def remove_consumer(self, name: str) -> bool:
        """Forget a consumer that is not at work; say whether there was one."""
        return self.watcher.remove(name)

    # --- upkeep -------------------------------------------------------------------------------

    def verify(
        self,
        level: Level | Depth = "full",
        progress: Progress | None = None,
        *,
        kept: KeptHeads = NONE_KEPT,
    ) -> Report:
        """Check everything that is stored (see `repository.verify`)."""
        from ckptlog.repository.verify import verify

        self._check_open()
        return verify(self, level, progress, kept=kept)

    def compact(
        self,
        options: CollectOptions | None = None,
        progress: Progress | None = None,
        removal: Removal | None = None,
    ) -> Collected:
        """Give back the room of what was deleted (see `repository.collection.collect`)."""
        from ckptlog.repository.collection import collect

        self._check_open()
        is_asking = options is not None and options.dry_run
        if self.read_only and not is_asking:
            self._refuse_writing()
        try:
            return collect(self, options, progress, removal)
        finally:
            # On a full disk it may have been given up; what was freed has room for it again.
            if not is_asking:
                layout.restore_reserve(self.path)

    def renew_index(self, folder: Path, packs: Iterable[str], end: End) -> None:
        """Make the chunk index anew (see `Keeper.renew_index`)."""
        self._keeper.renew_index(folder, packs, end)

    def trim_views(self) -> None:
        """Give the room back that views take beyond what they hold (see `Keeper.trim`)."""
        self._check_open()
        self._keeper.trim()

    def shed_views(self) -> bool:
        """Give the room of views back, on a full disk (see `Keeper.shed`)."""
        return self._keeper.shed()

    def forget(self, container: str) -> None:
        """Close a container that counts no more."""
        self.blobs.forget(container)
        self.log.reader.forget(container)

    def backup(
        self,
        dest: str | os.PathLike[str],
        *,
        verify: bool = False,
        progress: Progress | None = None,
    ) -> BackupReport:
        """Make a backup in a directory, or bring one there to the present end.

        Args:
            dest: A new or empty directory, or an earlier backup of this store.
            verify: Read the whole backup again and check it.
            progress: Called now and then with bytes done and bytes in all.

        Raises:
            BackupForeignError, BackupDivergedError, BackupDamagedError: It may not go there.
            LockTimeoutError: Another backup to it is at work.
            CheckpointCorruptionError: What would be copied is damaged; the old state stays.

        Durability: on the medium when it returns; killed anywhere, the state before is there.
        Threads: safe beside writers.        Page: specs/backup.md.
        """
        from ckptlog.repository.backup import back_up

        return back_up(self.opened(), dest, verify=verify, progress=progress)

    def export_archive(
        self,
        tasks: Sequence[str],
        path: str | os.PathLike[str],
        *,
        is_replaced: bool = False,
        progress: Progress | None = None,
    ) -> ArchiveReport:
        """Write tasks, with a proof of where they come from, into one file.

        See `repository.archive.export_archive`; `ckptlog.import_archive` brings them into a store.
        """
        from ckptlog.repository.archive import export_archive

        self._check_open()
        return export_archive(self, tasks, path, is_replaced=is_replaced, progress=progress)

    def repair(
        self,
        *,
        apply: bool = False,
        copy: str | os.PathLike[str] | None = None,
        actor: str = "ckptlog repair",
        progress: Progress | None = None,
    ) -> Mending:
        """Say what of the damage can be mended; with apply, mend it (see `repository.repair`).

        A store that cannot be opened is repaired by its path: `repository.repair.repair`.
        """
        from ckptlog.repository.repair import repair_store

        self._check_open()
        source = None if copy is None else Path(copy)
        return repair_store(self, is_applied=apply, copy=source, actor=actor, progress=progress)

    def stats(self) -> dict[str, Any]:
        """Return counts and sizes (see `repository.statistics`)."""
        from ckptlog.repository.statistics import statistics

        self._check_open()
        return statistics(self)

    def doctor(self) -> list[Finding]:
        """Return what is wrong and what to do (see `repository.doctor`)."""
        from ckptlog.repository.doctor import diagnose

        self._check_open()
        return diagnose(self)
