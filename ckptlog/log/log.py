"""The log of one store: append at the tail under the lock, read anywhere without it.

The order of writes of a commit, and what each crash point leaves, is specs/log.md. In short:

    lock -> catch up (recover if anything stands beyond the published end) -> frames -> fdatasync
    -> publish the end -> unlock

After a sync error the descriptor is never used again and the segment is finished: a new one
begins at the last durable position, and its header makes the rest of the old one dead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ckptlog.errors import (
    CheckpointError,
    CheckpointStorageError,
    FullError,
    LockTimeoutError,
    LogCorruptionError,
    OutcomeUnknownError,
    ReadOnlyError,
)
from ckptlog.formats import segment
from ckptlog.formats.end import End
from ckptlog.formats.event import LEAF_EMPTY
from ckptlog.formats.segment import SegmentHeader
from ckptlog.log.batch import Group, Lost, Tail, Won, has_difference
from ckptlog.log.build import Built, build
from ckptlog.log.hold import Hold
from ckptlog.log.published import PublishedEnd
from ckptlog.log.reader import LogReader
from ckptlog.log.recovery import Recovery
from ckptlog.log.segments import FOLDER, Segments, container_of
from ckptlog.storage.environment import Environment
from ckptlog.storage.lock import WriterLock

SEGMENT_BYTES = 64 * 1024 * 1024
# Room is made ahead with zeros, which are synced together with a commit: writing into blocks that
# exist spares the file system's journal at each fdatasync (specs/decisions/004).
PREALLOCATION_BYTES = 1024 * 1024
_PEEK_BYTES = 4


class Log:
    """One process's hold on a store's log.

    Threads: `exclusive` serialises writers of this process; reading is safe beside them.
    """

    def __init__(
        self,
        root: Path,
        store_id: bytes,
        environment: Environment,
        *,
        read_only: bool = False,
        is_durable: bool = True,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._root = root
        self._store_id = store_id
        self._environment = environment
        self._disk = environment.disk
        self._read_only = read_only
        self._is_durable = is_durable
        self._segment_bytes = segment_bytes
        self.segments = Segments(root / FOLDER, store_id, self._disk)
        self.published = PublishedEnd(
            root / FOLDER / "end", store_id, self._disk, read_only=read_only
        )
        self.reader = LogReader(root, store_id, self.segments, self.published)
        self._lock = WriterLock(root / "lock", environment)
        self._hold = Hold(self._lock, environment)
        self._boot = environment.boot()
        self._tail: Tail | None = None
        self._end_seen: End | None = None
        self._fd = -1
        self._seed = 0
        self._container = ""
        self._allocated = 0
        self.spare_bytes: Callable[[], int] | None = None
        """Says how many zeros there is room for, where the store has a limit; None: any number."""
        # Position after the last event that our callers take for granted.
        self._acknowledged = 0
        # A tail that was given up with acknowledged commits beyond what was durable, and that.
        self._left: tuple[Tail, End | None] | None = None
        self.notes: list[str] = []
        # Counts the times that acknowledged but unsynced commits were lost ("interval" only).
        self.epoch = 0

    # --- the lock ---------------------------------------------------------------------------

    @contextmanager
    def exclusive(self, timeout_s: float) -> Iterator[Tail]:
        """Hold the writer's lock; yield the tail, with everything before it durable or ours.

        Raises:
            LockTimeoutError: Another process held it for too long.
            LogCorruptionError: The log is damaged where it was durable, or its end is lost.
        """
        depth = self._hold.depth
        try:
            yield self.hold(timeout_s)
        finally:
            try:
                self.release(depth)
            except BaseException:
                self.release(depth)
                raise

    def hold(self, timeout_s: float) -> Tail:
        """Take the lock as `exclusive` does; `release` gives it back. Holds nest in one thread.

        The call stands inside the `try` whose end calls `release`: see `log.hold`.
        """
        if self._read_only:
            raise ReadOnlyError(
                f"The store {self._root} is open for reading only.",
                hint="Open it without read_only=True to write.",
                path=str(self._root),
            )
        depth = self._hold.depth
        try:
            self._hold.take(timeout_s)
            # Inside another hold of ours nobody else can have written.
            return self._tail if depth and self._tail is not None else self._catch_up()
        except BaseException:
            self.release(depth)
            raise

    def release(self, depth: int = 0) -> None:
        """Give the lock back after `hold`; depth: that of the caller before it. Twice is fine."""
        self._hold.give_back(depth)

    def recover_if_free(self, timeout_s: float = 0.0) -> bool:
        """Recover what stands beyond the published end, if no writer is at work; say whether.

        Args:
            timeout_s: How long to wait for a writer where nobody has written since the machine
                was started: the end is not synced at each commit, so a power cut may have left
                one that is older than what was acknowledged, and that writer is recovering.
        """
        end = self.published.read()
        is_of_this_boot = end is not None and end.boot == self._boot
        try:
            with self.exclusive(0.0 if is_of_this_boot else timeout_s):
                return True
        except LockTimeoutError:
            return False

    def end(self) -> End:
        """Return the published end; one that a power cut may have torn is found again first.

        Raises:
            LogCorruptionError: It is missing or damaged, or torn where we cannot write, or where
                somebody else is writing.
        """
        end = self.published.read()
        if end is None and not self._read_only and self.recover_if_free():
            end = self.published.read()
        if end is None:
            raise self._lost_end()
        return end

    def _lost_end(self) -> LogCorruptionError:
        path = self._root / FOLDER / "end"
        return LogCorruptionError(
            f"The published end of the log, {path}, is missing or damaged.",
            hint="Run ckptlog repair, with --from where there is a second copy of this store; "
            "ckptlog verify reads what is there.",
            path=str(path),
        )

    def _catch_up(self) -> Tail:
        shown = self.published.read()
        tail = self._tail
        is_seen = shown is not None and shown is self._end_seen
        if tail is not None and is_seen and self._is_clear(tail):
            return tail
        return self._recover(shown)

    def _is_clear(self, tail: Tail) -> bool:
        """Say whether nothing stands at our tail, nor a next segment: nobody began and died."""
        peek = self._disk.read(self._fd, _PEEK_BYTES, tail.offset)
        return not peek.strip(b"\0") and not self.segments.exists(*_next_name(tail))

    def _recover(self, shown: End | None) -> Tail:
        self._drop_segment()
        if shown is None and not self.published.is_torn:
            raise self._lost_end()  # nobody knows what came after: nobody appends (specs/log.md)
        recovered = Recovery(self.segments, self._store_id, self._environment).run(shown)
        self.notes.extend(recovered.notes)
        tail = recovered.tail
        self._open_segment(tail)
        place = (tail.position, tail.first, tail.generation)
        is_right = shown is not None and place == (shown.position, shown.first, shown.generation)
        # One of an earlier boot is written again: until then everyone who opens waits for us.
        if is_right and shown is not None and shown.boot == self._boot:
            self._end_seen = shown
        else:
            self._publish(tail)
        self._judge_left()
        return tail

    # --- appending --------------------------------------------------------------------------

    def append(self, groups: Sequence[Group], at: int, *, timeout_s: float = 30.0) -> Won | Lost:
        """Append one commit for each group at position `at`, durably; one write, one sync.

        Args:
            groups: Items of each commit, in order; positions are given densely from `at`.
            at: The position that the caller's decisions were made for.

        Returns:
            Won with the commits and their places; Lost where the tail is elsewhere by now.

        Raises:
            FullError: No space; nothing was appended.
            OutcomeUnknownError: The sync failed.

        Durability: with "commit", all is on the medium when it returns; with "interval", after
            the next `flush`.
        """
        with self.exclusive(timeout_s) as tail:
            return self.append_held(groups, at, tail)

    def append_held(self, groups: Sequence[Group], at: int, tail: Tail) -> Won | Lost:
        """Do as `append`, for a caller that holds the lock since `hold` returned this tail.

        Where a new segment must begin and a chunk is a difference from one in the present segment,
        the answer is Lost, with the new tail: such chunks lie in one container.
        """
        if tail.position != at:
            return Lost(tail)
        built = build(tail, self._seed, self._container, groups)
        if built.tail.offset > self._segment_bytes and tail.position > tail.first:
            tail = self._roll(tail)
            if has_difference(groups):
                return Lost(tail)
            built = build(tail, self._seed, self._container, groups)
        self._write(tail, built)
        return Won(built.commits)

    def seal(self, bytes_min: int, timeout_s: float = 30.0) -> bool:
        """Finish the present segment and begin another, where it has so many bytes; say whether.

        Durability: all that it holds, when it returns.
        """
        with self.exclusive(timeout_s) as tail:
            if tail.position == tail.first or tail.offset < bytes_min:
                return False
            self._roll(tail)
            return True

    def give_back_zeros(self, timeout_s: float = 30.0) -> int:
        """Cut the zeros behind the tail; return how many there were.

        They speed commits up, and are no part of the log: whoever needs the room may have it.
        """
        with self.exclusive(timeout_s) as tail:
            count = self._allocated - tail.offset
            if count <= 0:
                return 0
            self._disk.truncate(self._fd, tail.offset)
            self._allocated = tail.offset
            return count

    def publish_durably(self, timeout_s: float = 30.0) -> None:
        """Put the published end on the medium: no earlier one can come back with a power cut."""
        with self.exclusive(timeout_s):
            self.published.sync()

    def flush(self, timeout_s: float = 30.0) -> None:
        """Sync and publish what "interval" has left unsynced. Does nothing where all is durable."""
        tail = self._tail
        if self._is_durable or (tail is not None and tail.durable == tail.offset):
            return
        if self._acknowledged == 0:
            return  # nothing was ever appended through this object
        with self.exclusive(timeout_s) as current:
            if current.durable < current.offset:
                self._sync(current)

    def _write(self, tail: Tail, built: Built) -> None:
        try:
            self._disk.write(self._fd, built.data, tail.offset)
            if built.tail.offset > self._allocated:
                self._preallocate(built.tail.offset)
            if self._is_durable:
                self._sync(built.tail)
            else:
                self._tail = built.tail
            self._acknowledged = built.tail.position
        except OutcomeUnknownError:
            raise
        except CheckpointStorageError as error:
            is_undone = self._undo_write(tail)
            if is_undone and isinstance(error, FullError):
                raise
            raise OutcomeUnknownError(
                f"Writing a commit at position {tail.position} failed: {error.message}",
                hint="Retry with the same command id.",
                position=tail.position,
            ) from error
        except BaseException:
            # An interrupt: what was written may be whole. Whoever holds the lock next finds out.
            self._drop_segment()
            raise

    def _undo_write(self, tail: Tail) -> bool:
        """Take back a partial write; if even that fails, the next holder recovers.

        Synced, because the part may hold whole commits, and a power cut could bring them back.
        """
        try:
            self._disk.truncate(self._fd, tail.offset)
            self._disk.sync(self._fd)
        except CheckpointStorageError:
            self._drop_segment()
            return False
        self._allocated = tail.offset
        return True

    def _preallocate(self, offset: int) -> None:
        step = min(PREALLOCATION_BYTES, max(0, self._segment_bytes - offset))
        self._allocated = offset
        if self.spare_bytes is not None:
            step = min(step, self.spare_bytes())
        if step <= 0:
            return
        try:
            self._disk.write(self._fd, bytes(step), offset)
            self._allocated = offset + step
        except CheckpointStorageError:
            # A full disk has no room to spare, but the commit itself fitted.
            self._trim(offset)

    def _trim(self, offset: int) -> None:
        try:
            self._disk.truncate(self._fd, offset)
        except CheckpointStorageError:
            self.notes.append("The zeros after the tail could not be cut.")

    def _sync(self, tail: Tail) -> None:
        """Make everything up to `tail` durable, then the tail of ours, then published."""
        try:
            self._disk.sync(self._fd)
        except CheckpointStorageError as error:
            self._abandon_segment()
            raise OutcomeUnknownError(
                f"Syncing the log failed: {error.message} The events from position "
                f"{self.durable_position} on may not be durable.",
                hint="Retry with the same command id; it is never applied twice.",
                position=self.durable_position,
            ) from error
        try:
            self._publish(
                Tail(
                    tail.position, tail.first, tail.generation, tail.offset, tail.offset, tail.leaf
                )
            )
        except CheckpointStorageError as error:
            # Durable, but not shown: the next holder finds and publishes it.
            self._drop_segment()
            raise OutcomeUnknownError(
                f"Publishing the log's end failed: {error.message}",
                hint="Retry with the same command id; it is never applied twice.",
                position=tail.position,
            ) from error

    def _publish(self, tail: Tail) -> None:
        self._tail = tail
        self._end_seen = end = End(
            self._store_id,
            tail.position,
            tail.first,
            tail.generation,
            tail.offset,
            tail.leaf,
            self._boot,
        )
        self.published.publish(end)

    @property
    def is_lagging(self) -> bool:
        """Whether commits of ours were acknowledged and are not durable yet ("interval")."""
        tail = self._tail
        return tail is not None and tail.durable < tail.offset

    @property
    def durable_position(self) -> int:
        """Position after the last durable event, as of our last look under the lock."""
        return self._end_seen.position if self._end_seen else 0

    # --- segments ---------------------------------------------------------------------------

    @property
    def container(self) -> str:
        """The segment that this object last wrote to or held the lock on; "" before that."""
        return self._container

    def create_first(self) -> None:
        """Make the first segment of a new, empty log, and its end. Under the lock."""
        header = SegmentHeader(
            self._store_id, 0, 0, 0, 0, 0, LEAF_EMPTY, self._environment.now_us()
        )
        self._create_segment(header)

    def _roll(self, tail: Tail) -> Tail:
        """Finish the present segment and begin the next one at its end."""
        if tail.durable < tail.offset:
            self._sync(tail)
        self._trim(tail.offset)
        try:
            self._disk.sync(self._fd)
        except CheckpointStorageError:
            self._drop_segment()
            raise
        return self._begin_segment(tail)

    def _abandon_segment(self) -> None:
        """After a sync error: go back to the durable end, in a new segment, or give up the hold.

        Giving up is safe: the next holder rewrites whatever it keeps before it believes a sync.
        """
        end = self._end_seen
        self._drop_segment()
        if end is None:
            return
        durable = Tail(end.position, end.first, end.generation, end.offset, end.offset, end.leaf)
        try:
            self._begin_segment(durable)
        except CheckpointStorageError as error:
            self.notes.append(f"No new segment could be made after a sync error: {error}")
            self._drop_segment()

    def _begin_segment(self, tail: Tail) -> Tail:
        previous = (tail.first, tail.generation, tail.offset)
        if tail.position == tail.first:
            dead = self.segments.header(tail.first, tail.generation)
            previous = (dead.previous_first, dead.previous_generation, dead.previous_length)
        header = SegmentHeader(
            self._store_id,
            *_next_name(tail),
            *previous,
            tail.leaf,
            self._environment.now_us(),
        )
        return self._create_segment(header)

    def _create_segment(self, header: SegmentHeader) -> Tail:
        path = self.segments.path(header.first, header.generation)
        data = segment.encode(header)
        fd = self._disk.create(path)
        try:
            self._write_header(fd, path, data)
            self._disk.sync(fd)
            self._disk.sync_directory(path.parent)
        except CheckpointStorageError:
            # A header that may be on the medium must stay: once removed, a power cut could bring
            # it back, and make dead what was appended to the old segment. The next hold goes on
            # in it.
            self._disk.close(fd)
            self._drop_segment()
            raise
        self._drop_segment()
        self._fd = fd
        tail = Tail(
            header.first,
            header.first,
            header.generation,
            len(data),
            len(data),
            header.leaf,
        )
        self._adopt(tail, len(data))
        self._publish(tail)
        self._judge_left()
        return tail

    def _write_header(self, fd: int, path: Path, data: bytes) -> None:
        try:
            self._disk.write(fd, data, 0)
        except CheckpointStorageError:
            # No whole header was ever there. Should the file stay, recovery keeps it aside.
            with suppress(CheckpointStorageError):
                self._disk.remove(path)
            raise

    def _open_segment(self, tail: Tail) -> None:
        path = self.segments.path(tail.first, tail.generation)
        self._fd = self._disk.open_write(path)
        self._adopt(tail, self._disk.size(self._fd))

    def _adopt(self, tail: Tail, allocated: int) -> None:
        self._acknowledged = tail.position
        self._tail = tail
        self._seed = segment.seed(self._store_id, tail.first, tail.generation)
        self._container = container_of(tail.first, tail.generation)
        self._allocated = allocated

    def _judge_left(self) -> None:
        """Find out whether what was acknowledged but not durable is still there ("interval").

        Another process may have adopted it, or it may be gone: then our callers must look again.
        """
        if self._left is not None:
            tail, since = self._left
            self._left = None
            if not self._is_there(tail, since):
                self.epoch += 1

    def _is_there(self, tail: Tail, since: End | None) -> bool:
        if since is None:
            return False
        container = container_of(since.first, since.generation)
        with suppress(CheckpointError):
            for commit in self.reader.commits(container, since.offset, since.position):
                if commit.position_next >= tail.position:
                    return (commit.position_next, commit.leaf) == (tail.position, tail.leaf)
        return False

    def _close_segment(self) -> None:
        # Forgotten first: a child that is forked in between must not close it once more.
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._disk.close(fd)

    def _drop_segment(self) -> None:
        tail = self._tail
        if tail is not None and tail.durable < tail.offset:
            self._left = (tail, self._end_seen)
        self._close_segment()
        self._tail = None
        self._end_seen = None

    def close(self) -> None:
        """Finish cleanly: sync, cut the preallocated zeros, put the end on the medium.

        A store that another process writes to, or that cannot be written, or is damaged, is left
        as it is.
        """
        try:
            if self._tail is not None and not self._read_only:
                self._close_tail()
        finally:
            with self._hold.mutex:
                self._acknowledged = 0
                self._drop_segment()
                self.reader.close()
                self.published.close()
                self._lock.close()

    def _close_tail(self) -> None:
        try:
            with self.exclusive(1.0) as tail:
                if tail.durable < tail.offset:
                    self._sync(tail)
                self._disk.truncate(self._fd, tail.offset)
                self._disk.sync(self._fd)
                self.published.sync()
        except (CheckpointStorageError, LogCorruptionError) as error:
            self.notes.append(f"The log was not closed cleanly: {error}")

    def abandon(self) -> None:
        """Drop everything without touching the store: for a forked child."""
        self._lock.abandon()
        self.reader.abandon()
        self.published.close()
        self._close_segment()


def _next_name(tail: Tail) -> tuple[int, int]:
    """Return first position and generation of the segment that would follow the tail."""
    return tail.position, tail.generation + 1 if tail.position == tail.first else 0
