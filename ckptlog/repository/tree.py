"""The tree over a store's events, brought up from the log and tied to a signed head.

    head that is trusted (size, root) -> the cached tree has that root? -> only what is new is read
                                         it has not -> all of it is made anew, from the log

So a wrong cache costs time and nothing else, and a log that was replaced under a good cache is
noticed: the log's event before the head's end must have the leaf hash that the tree has there.
Everything new comes from the log itself, never from a cache. Nothing here takes a lock of the log.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from ckptlog.errors import CheckpointStorageError, LogCorruptionError, RewrittenError
from ckptlog.formats import event
from ckptlog.formats.end import End
from ckptlog.formats.head import Head
from ckptlog.log.bulk import BulkReader
from ckptlog.model.cursor import Cursor, after_commit
from ckptlog.model.entry import Commit
from ckptlog.model.leaf import leaf_hash
from ckptlog.views.tiles import Tree

if TYPE_CHECKING:
    from ckptlog.repository.store import Store

_RUN_EVENTS: Final = 4096


class Run(NamedTuple):
    """Neighbouring events as they are stored. cursor: Behind them."""

    first: int
    entries: list[bytes]
    cursor: Cursor


class EventTree:
    """The tree of one open store.

    Threads: one at a time.
    """

    def __init__(self, store: Store) -> None:
        self._log = store.log
        self._bulk = BulkReader(store.log.segments, store.info.id_bytes)
        folder = store.path / "views" / "tree"
        self._kept: Tree | None = Tree(folder)
        self._is_read_only = store.read_only
        self._own: Tree | None = None
        # Where this process has read up to: saves reading a segment from its beginning.
        self._cursor: Cursor | None = None
        self._tied: tuple[Tree, Head] | None = None

    def end(self) -> End:
        """Return the published end.

        Raises:
            LogCorruptionError: It is missing.
        """
        end = self._log.published.read()
        if end is None:
            raise LogCorruptionError(
                "The published end of the log is missing or damaged.",
                hint="Open the store for writing once; that rebuilds it.",
            )
        return end

    def grown(self, head: Head | None, size: int) -> Tree:
        """Return the tree with at least the log's first `size` events.

        Args:
            head: What is known of the tree, from a signature that was verified.
            size: At most the position of the published end; at least that of the head.

        Raises:
            RewrittenError: The log has another past than the head.
            LogCorruptionError: The log is damaged.

        Cost: what is new since the head, where the cache is right; else the whole log.
        """
        end = self.end()
        kept = self._own or self._kept
        if self._tied == (kept, head) and head is not None and head.size == size:
            return self._tied[0]  # compared before; who proves something checks it once more
        if kept is not None and head is not None and self._is_tied(kept, head, end):
            if head.size == size:
                self._tied = (kept, head)
                return kept
            if self._may_write(kept) and self._is_extended(kept, head.size, end):
                return kept
        return self.made_anew(head)

    def _may_write(self, tree: Tree) -> bool:
        return tree is self._own or not self._is_read_only

    def _is_tied(self, tree: Tree, head: Head, end: End) -> bool:
        """Say whether a tree has the head's root, and the log the same event before its end."""
        try:
            if tree.root(head.size) != head.root:
                return False
            return not head.size or self._leaf_before(head.size, end) == tree.leaf(head.size - 1)
        except CheckpointStorageError:
            return False

    def _leaf_before(self, position: int, end: End) -> bytes:
        cursor = self._cursor
        if cursor is not None and cursor.position == position:
            return self._log.reader.locate(position, cursor, stop=end).leaf
        if position == end.position:
            return end.leaf
        for run in self.runs(position - 1, end):
            return leaf_hash(run.entries[0])
        raise LogCorruptionError(f"The log has no event {position - 1}.", position=position - 1)

    def _is_extended(self, tree: Tree, start: int, end: End) -> bool:
        """Add to a tree what the log has from a position on; False where it cannot be written."""
        try:
            self._extend(tree, start, end)
        except CheckpointStorageError:
            return False
        return True

    def _extend(self, tree: Tree, start: int, end: End) -> None:
        position = start
        for run in self.runs(start, end):
            tree.grow(run.first, [leaf_hash(entry) for entry in run.entries])
            position, self._cursor = run.cursor.position, run.cursor
        if position != end.position:
            raise LogCorruptionError(
                f"The log ends at position {position}, before {end.position}.", position=position
            )

    def made_anew(self, head: Head | None) -> Tree:
        """Return the tree, made from the whole log.

        Raises:
            RewrittenError: The log has another past than the head.
            LogCorruptionError: The log is damaged.
        """
        end, tree = self.end(), self._begun_anew()
        try:
            self._extend(tree, 0, end)
        except CheckpointStorageError:  # it cannot be written: there is memory
            tree = self._own = Tree(None)
            self._extend(tree, 0, end)
        if head is not None and tree.root(head.size) != head.root:
            raise rewritten(head)
        return tree

    def _begun_anew(self) -> Tree:
        if self._is_read_only or self._kept is None or self._own is not None:
            self._own = Tree(None)
            return self._own
        # The leaves stay: they are written over. What is above them must not be older than they.
        self._kept.clear(above=1)
        return self._kept

    def runs(self, start: int, end: End) -> Iterator[Run]:
        """Yield the log's events from a position up to an end, as stored.

        Raises:
            LogCorruptionError: The log is damaged.

        Cost: 3 to 4 us an event; from the beginning of the segment that holds `start` on, unless
            this process was there.
        """
        cursor = self._cursor
        known = cursor is not None and cursor.position <= start
        position = start
        place = cursor if known and cursor is not None else Cursor(start)
        for stretch in self._bulk.stretches(place, end, events=_RUN_EVENTS):
            if stretch.position_next > position:
                skipped = max(0, position - stretch.first)
                yield Run(stretch.first + skipped, stretch.entries[skipped:], stretch.cursor)
                position = stretch.position_next
        if position < end.position:
            yield from self._runs_slowly(position, end)

    def _runs_slowly(self, position: int, end: End) -> Iterator[Run]:
        """Read commit by commit what cannot be had in bulk; damage is told from here."""
        for commit in self._log.reader.commits(position=position, stop=end):
            if commit.position_next > position:
                first = commit.entries[0].position
                entries = stored_entries(commit)[max(0, position - first) :]
                yield Run(max(position, first), entries, after_commit(commit))
                position = commit.position_next


def stored_entries(commit: Commit) -> list[bytes]:
    """Return the stored bytes of a commit's events.

    Raises:
        LogCorruptionError: An event is not stored as it would be written.
    """
    if commit.raw:
        return list(commit.raw)
    entries = [event.encode(entry.event) for entry in commit.entries]
    if leaf_hash(entries[-1]) != commit.leaf:
        position = commit.entries[-1].position
        raise LogCorruptionError(f"Event {position} is not canonical.", position=position)
    return entries


def rewritten(head: Head) -> RewrittenError:
    """Return the error for a head whose tree the log does not have."""
    return RewrittenError(
        f"The log's first {head.size} events are not those that the head of {head.origin} signs: "
        "its past was changed, or it is a backup that was written on.",
        hint="Keep the store as it is and compare it with a backup or a published copy. If a "
        "backup was restored, or an event was lost for good (`ckptlog verify` tells), say so: "
        "ckptlog audit fork.",
        origin=head.origin,
        size=head.size,
        root=head.root.hex(),
    )
