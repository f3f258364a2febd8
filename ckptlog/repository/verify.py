"""Verification: everything that a store holds, read and compared with its hashes and rules.

    segments, in order -> frames, events, positions, links    (Chain)
      -> legality of every history                            (History)
      -> "full": every chunk and every payload                (Contents)
      -> the view against the fold                            (Comparison)

Only stored bytes are believed, never an index, a view or a cache. Damage is reported, never
raised, and the reading goes on behind it. Bytes beyond the published end are not looked at: they
belong to whoever writes next.

Memory: bounded by the numbers of checkpoints, events and chunks (about 500, 16 and 40 bytes each),
not by what they hold.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

import msgspec

from ckptlog.blobs.index import ChunkIndex
from ckptlog.errors import ArgumentError, CheckpointError
from ckptlog.formats.end import End
from ckptlog.formats.event import LEAF_EMPTY
from ckptlog.formats.store import StoreInfo
from ckptlog.log.published import PublishedEnd
from ckptlog.log.segments import FOLDER, Segments
from ckptlog.model.entry import Commit, Placement
from ckptlog.model.quotation import quoted
from ckptlog.repository import layout
from ckptlog.repository.chain import CORRUPT, Chain
from ckptlog.repository.comparison import DIFFERS, Comparison
from ckptlog.repository.contents import Contents, left_overs, pack_of, read_pack
from ckptlog.repository.head_check import NONE_KEPT, HeadCheck, KeptHeads
from ckptlog.repository.history import History
from ckptlog.repository.leaf_check import LeafCheck
from ckptlog.repository.report import Book, Level, Problem, Progress, Report
from ckptlog.storage.environment import Environment
from ckptlog.views.current import CurrentView
from ckptlog.views.errors import ViewError
from ckptlog.views.row import Mark

if TYPE_CHECKING:
    from ckptlog.repository.store import Store

__all__ = ["Level", "Problem", "Progress", "Report", "verify", "verify_directory"]

_FULL: Final = "full"


def verify(
    store: Store,
    level: Level = "full",
    progress: Progress | None = None,
    *,
    kept: KeptHeads = NONE_KEPT,
) -> Report:
    """Check a store up to its published end.

    Args:
        level: "structure": the log, its frames, every history, the packs' outlines, a sample of
            the view. "full": every chunk, every payload and every row of the view, too.
        progress: Called now and then with bytes read and bytes in all.
        kept: Signed heads that the user has kept, beside the store's (repository.head_check).

    Raises:
        ArgumentError: There is no such level. Damage is never raised.

    Threads: safe beside writers; what they add meanwhile is not looked at.
    """
    _check_level(level)
    view, mark, fault = _view_of(store)
    source = _Source(
        store.path, store.info, store.environment, store.log.published.read, store.index
    )
    run = _Run(source, level, progress, kept)
    if fault and store.log.published.read() is not None:  # else the log is told of, not the view
        run.book.problem(
            DIFFERS, f"The view cannot be read: {fault} `ckptlog replay` builds it anew.", "views"
        )
    return run.report(view, mark)


def verify_directory(
    path: Path,
    level: Level = "full",
    progress: Progress | None = None,
    *,
    environment: Environment | None = None,
    kept: KeptHeads = NONE_KEPT,
) -> Report:
    """Check a store that is not open, or cannot be: without its view, and without writing.

    Raises:
        ArgumentError: There is no such level.
        StoreMissingError, NotAStoreError, UnsupportedError, FormatError: By what store.json says.
    """
    _check_level(level)
    environment = environment or Environment()
    info = layout.read_info(path)
    published = PublishedEnd(path / FOLDER / "end", info.id_bytes, environment.disk, read_only=True)
    run = _Run(_Source(path, info, environment, published.read, None), level, progress, kept)
    run.book.notes.append("The view was not compared: the store was not opened.")
    try:
        return run.report(None, None)
    finally:
        published.close()


def _check_level(level: str) -> None:
    if level not in get_args(Level):
        raise ArgumentError(
            f"There is no level {quoted(level)}.",
            hint='Use "full" or "structure".',
            argument="level",
        )


def _view_of(store: Store) -> tuple[CurrentView | None, Mark | None, str]:
    """Return the view, caught up, and where it stands; or why there is none."""
    try:
        view = store.view()
        return view, view.mark, ""
    except (ViewError, CheckpointError) as error:
        return None, None, str(error)


class _Source(msgspec.Struct, frozen=True):
    """The store to read: its place and identity, its published end, its index if it is open."""

    root: Path
    info: StoreInfo
    environment: Environment
    published: Callable[[], End | None]
    index: ChunkIndex | None


class _Run:
    """One verification."""

    def __init__(
        self, source: _Source, level: Level, progress: Progress | None, kept: KeptHeads
    ) -> None:
        self._root = root = source.root
        self._info = info = source.info
        self._published = source.published
        self._end = source.published()
        self.book = Book(level, _size(root), progress)
        disk = source.environment.disk
        segments = Segments(root / FOLDER, info.id_bytes, disk)
        self._chain = Chain(segments, info.id_bytes, self.book)
        self._history = History(self.book, self._chain.is_lost)
        self._contents: Contents | None = None
        if level == _FULL:
            index = source.index
            knows = (lambda digest: index.get(digest) is not None) if index else None
            self._contents = Contents(root, info, disk, self.book, knows)
        self._registered: set[str] = set()
        self._leaves = LeafCheck(root / "views" / "tree" / "leaves")
        self._heads = HeadCheck(root, info.id, source.environment, kept)

    def report(self, view: CurrentView | None, mark: Mark | None) -> Report:
        """Read everything and return what was found."""
        try:
            leaf_at_mark = self._read(mark.position if mark else 0)
            self._history.close()
            is_whole = self._end is not None and not self._chain.lost
            self._heads.report(self.book, is_whole=is_whole)
            if self._contents:
                self._contents.report(self._newest)
            if view is not None and mark is not None:
                self._compare(view, mark, leaf_at_mark)
        finally:
            self._leaves.close()
            if self._contents:
                self._contents.close()
        self._check_info()
        self.book.notes += left_overs(self._root, self._registered)
        return self.book.close(checkpoints=self._history.living)

    def _read(self, mark: int) -> bytes | None:
        """Read the log; return the leaf hash at a position, None where no commit ends there."""
        leaf = None
        try:
            for commit, window in self._chain.commits(self._end):
                self._history.add(commit)
                self._leaves.add(commit)
                self._heads.add(commit)
                packs = self._packs(commit)
                if self._contents:
                    self._contents.add(commit, window, packs)
                else:
                    self.book.chunks += len(commit.placements) + len(packs)
                if commit.position_next == mark:
                    leaf = commit.leaf
        except CheckpointError as error:  # the folder itself: gone, denied
            self.book.problem(error.code, str(error), FOLDER)
        return leaf if mark else LEAF_EMPTY

    def _packs(self, commit: Commit) -> list[Placement]:
        """Check the packs that a commit registers; return where their chunks lie."""
        places = []
        for pack in commit.entries[-1].event.packs:
            self._registered.add(pack_of(pack))
            if self._contents:
                places += self._contents.pack(pack)
            else:
                places += read_pack(self._root, self._info.id_bytes, pack, self.book)
        return places

    def _newest(self, checkpoint: str) -> int:
        life = self._history.lives.get(checkpoint)
        return -1 if life is None or life.is_deleted else life.position

    def _compare(self, view: CurrentView, mark: Mark, leaf_at_mark: bytes | None) -> None:
        if self._chain.lost or self._end is None:
            self.book.notes.append("The view was not compared: a part of the log is lost.")
            return
        wire = self._contents.wire if self._contents else None
        comparison = Comparison(view, mark, self._history, self._chain.position)
        comparison.run(self.book, leaf_at_mark, wire)
        wrong_at = self._leaves.wrong_at(self._present)
        if wrong_at is not None:
            self.book.problem(
                DIFFERS,
                f"It is wrong from position {wrong_at} on. `ckptlog replay` writes it anew.",
                "views/tree/leaves",
            )

    def _present(self) -> int:
        end = self._published()
        return end.position if end else 0

    def _check_info(self) -> None:
        try:
            info = layout.read_info(self._root)
        except CheckpointError as error:
            self.book.problem(error.code, error.message, layout.STORE_JSON)
            return
        if info != self._info:
            self.book.problem(
                CORRUPT, "It is not what it was when the store was opened.", layout.STORE_JSON
            )


def _size(root: Path) -> int:
    """Return how much there is to read, bytes, as far as that can be told."""
    total = 0
    for pattern in ("log/*.seg", "log/*.set", "packs/*.pack"):
        for path in root.glob(pattern):
            try:
                total += path.stat().st_size
            except OSError:  # gone meanwhile
                continue
    return total
