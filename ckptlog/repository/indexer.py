"""Feeds what lives on the log beside the view: the chunk index and the leaf hashes.

    commit by commit (`add`), with what is read in bulk for a view (`take`), or all of it anew,
    aside, until it is whole (`Gathering`)

Nothing here is ever a reason to fail: who misses a chunk asks the log (`find_missing`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from threading import RLock

from ckptlog.blobs.index import ChunkIndex
from ckptlog.blobs.pack import FOLDER as PACKS
from ckptlog.blobs.pack import read_lines
from ckptlog.blobs.run import Mark, Run
from ckptlog.blobs.sheaf import Sheaf
from ckptlog.errors import CheckpointError
from ckptlog.formats.end import End
from ckptlog.formats.pack import pack_name
from ckptlog.log.bulk import BulkReader, Stretch
from ckptlog.log.log import Log
from ckptlog.log.segments import container_of
from ckptlog.model.cursor import BEGINNING
from ckptlog.model.entry import Commit, Placement
from ckptlog.model.event import PackEntry
from ckptlog.model.leaf import leaf_hash
from ckptlog.views.leaf import LeafCache
from ckptlog.views.rebuild import complete

_STRETCH_EVENTS = 8192


class Indexer:
    """Chunk index and leaf hashes of one store in one process.

    Threads: safe.
    """

    def __init__(
        self, root: Path, store_id: bytes, log: Log, *, read_only: bool, boot: bytes | None = None
    ) -> None:
        self._root = root
        self._store_id = store_id
        self._log = log
        self._missing_lock = RLock()
        self._reindexed_at = -1
        self._reindexed_for: set[str] = set()
        path = None if read_only else root / "views" / "tree" / "leaves"
        self.leaves = LeafCache(path, boot)
        self.index = ChunkIndex(root / "views" / "chunks", store_id, read_only=read_only)

    def clear(self) -> None:
        """Throw everything away."""
        self.index.clear()
        self.leaves.remove()

    # --- following ----------------------------------------------------------------------------

    def add(self, commit: Commit) -> None:
        """Index the chunks that a commit brought, if they are not."""
        if commit.position_next <= self.index.position:
            return
        self.index.add(commit, self.packed(commit.entries[-1].event.packs))

    def packed(self, packs: tuple[PackEntry, ...]) -> Iterator[Placement]:
        """Yield the places of the chunks in packs."""
        for container, lines in self.lines(packs):
            for digest, offset, length in lines:
                yield Placement(digest, container, offset, length)

    def lines(
        self, packs: tuple[PackEntry, ...]
    ) -> Iterator[tuple[str, list[tuple[bytes, int, int]]]]:
        """Yield packs' containers and the digests, offsets and lengths of the frames in them."""
        for pack in packs:
            container = f"{PACKS}/{pack_name(pack.base, bytes.fromhex(pack.id))}"
            # One that is gone or damaged concerns who reads its chunks, and `verify`.
            with suppress(CheckpointError):
                yield container, read_lines(self._root / container, self._store_id)

    def take(self, commits: Sequence[Commit], stretch: Stretch | None) -> None:
        """Take in what is read in bulk for a view (views.rebuild).

        The index only where the places of chunks were told, all of them.
        """
        is_told = stretch is None or bool(stretch.places) or not any(stretch.chunks)
        if is_told and commits[-1].position_next > self.index.position:
            for commit in commits if stretch is None else complete(commits, stretch):
                self.add(commit)
            self.index.flush()
        self.take_leaves(commits, stretch)

    def take_leaves(self, commits: Sequence[Commit], stretch: Stretch | None) -> None:
        """Write the leaf hashes of what is read in bulk."""
        if stretch is None:
            self.leaves.write(commits)
        else:
            self.leaves.put(stretch.first, map(leaf_hash, stretch.entries))

    def fill_leaves(self, commits: Sequence[Commit]) -> None:
        """Write the leaf hashes of commits, and before them those that are missing."""
        if self.leaves.write(commits):
            return
        stop, position = commits[-1].position_next, self.leaves.position
        for commit in self._log.reader.commits(position=position):
            if commit.position_next > stop:
                return
            if commit.position_next > position:
                self.leaves.write((commit,))

    def index_up_to(self, position: int) -> None:
        """Index what lies between where the index stands and a position."""
        persisted = self.index.persisted
        place = (persisted[1], persisted[2], persisted[0]) if persisted else ("", 0, 0)
        # Damage on the way concerns who reads those chunks, and `verify`.
        with suppress(CheckpointError):
            for commit in self._log.reader.commits(*place):
                if commit.position_next > position:
                    return
                self.add(commit)

    # --- after a collection -------------------------------------------------------------------

    def gather(self, folder: Path, end: End, packs: Iterable[str]) -> Run | None:
        """Return the places of the chunks in segments and in packs, made anew in a folder.

        Args:
            packs: The containers that count, in the order of their registration.

        Returns:
            None where the log cannot be read through in bulk: the index that is there stays.

        Raises:
            CheckpointStorageError: The run cannot be written.
        """
        sheaf, position = Sheaf(folder, self._store_id), 0
        bulk = BulkReader(self._log.segments, self._store_id)
        stretches = bulk.stretches(
            BEGINNING, end, events=_STRETCH_EVENTS, with_places=True, with_settled=False
        )
        for stretch in stretches:
            sheaf.add(stretch.container, stretch.places)
            position = stretch.position_next
        if position != end.position or not position:
            return None
        for name in packs:
            with suppress(CheckpointError):
                sheaf.add(name, read_lines(self._root / name, self._store_id))
        container = container_of(end.first, end.generation)
        return sheaf.run(Mark(end.position, container, end.offset, end.leaf))

    def adopt(self, run: Run) -> None:
        """Let a gathered run be the index."""
        self.index.adopt(run)
        self._reindexed_at = -1

    # --- a chunk that is not found ------------------------------------------------------------

    def find_missing(self, digest: bytes, tried: Placement | None = None) -> Placement | None:
        """Look for a chunk that the index does not have, or has at a wrong place.

        Args:
            tried: Where it is not, or not whole.

        First the index reads on from where it stands; only then is it built anew, once for each
        position: a chunk that is really gone must not cost a scan of everything each time. Where
        the log is damaged, it is left as it is: it knows what lies behind the damage.
        """
        with self._missing_lock, suppress(CheckpointError):
            if self._index_forward():
                found = self.index.get(digest)
                if found is not None and found != tried:
                    return found
            end = self._log.published.read()
            # A container goes without the end moving (a collection): each is worth another scan.
            cause = "" if tried is None else tried.container
            if end is not None and self._is_news(end.position, cause):
                for _ in self._log.reader.commits(steps_over=False):
                    pass
                self.index.clear()
                self._index_forward()
            return self.index.get(digest)
        return None

    def _is_news(self, position: int, cause: str) -> bool:
        if self._reindexed_at != position:
            self._reindexed_at, self._reindexed_for = position, set()
        elif cause in self._reindexed_for or (self._root / cause).exists():
            return False
        self._reindexed_for.add(cause)
        return True

    def _index_forward(self) -> bool:
        """Index what the log has beyond the index; say whether there was anything."""
        before = self.index.position
        end = self._log.published.read()
        if end is not None and before < end.position:
            for commit in self._log.reader.commits(position=before):
                self.add(commit)
        return self.index.position > before


class Gathering:
    """The chunk index made anew from what is read in bulk for a view, in a folder of its own.

    The leaf hashes are written over those that are there: the same position always gets the same
    bytes.
    """

    def __init__(self, indexer: Indexer, folder: Path, store_id: bytes) -> None:
        self._indexer = indexer
        self._sheaf = Sheaf(folder, store_id)
        self._run: Run | None = None

    def take(self, commits: Sequence[Commit], stretch: Stretch | None) -> None:
        """Take in what is read in bulk for a view (views.rebuild)."""
        if stretch is not None:
            self._sheaf.add(stretch.container, stretch.places)
        for commit in commits:
            packs = commit.entries[-1].event.packs
            self._sheaf.add_each(commit.placements)
            for container, lines in self._indexer.lines(packs):
                self._sheaf.add(container, lines)
        self._indexer.take_leaves(commits, stretch)

    def finish(self, end: End) -> None:
        """Write what is left, once everything up to the end was taken in.

        Raises:
            CheckpointStorageError: There is no space, for one.
            FormatError: What was written cannot be read any more.
        """
        container = container_of(end.first, end.generation)
        if end.position:
            self._run = self._sheaf.run(Mark(end.position, container, end.offset, end.leaf))

    def publish(self, end: End) -> None:
        """Let it be the index, and nothing be there besides."""
        if self._run is None:
            self._indexer.index.clear()
        else:
            self._indexer.index.adopt(self._run)
        self._indexer.leaves.cut(end.position)
