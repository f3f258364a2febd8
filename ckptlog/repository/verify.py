"""Verification: everything that a store holds, read and compared with its hashes and rules.

    segments, in order -> frames, events, positions, links    (Chain)
      -> legality of every history                            (History)
      -> from "existence" on: chunks and payloads             (Contents, Breakage)
      -> the view against the fold                            (Comparison)

Only stored bytes are believed, never an index, a view or a cache. Damage is reported, never
raised, and the reading goes on behind it. What stands beyond the published end is judged as
recovery judges it (log.outlook). Levels, and how a run is gone on with: specs/verify.md.

Memory: bounded by the numbers of checkpoints and events (about 500 and 16 bytes each), and some
50 MiB for chunks, however many they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain as chained
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from ckptlog.blobs.chunker import Chunker
from ckptlog.blobs.codec import Codec
from ckptlog.blobs.index import ChunkIndex
from ckptlog.blobs.store import BlobStore
from ckptlog.errors import CheckpointError
from ckptlog.formats.end import End
from ckptlog.formats.event import LEAF_EMPTY
from ckptlog.formats.store import StoreInfo
from ckptlog.log.outlook import Outlook, look
from ckptlog.log.published import PublishedEnd
from ckptlog.log.segments import FOLDER, Segments
from ckptlog.model.entry import Commit
from ckptlog.model.event import REPAIRED, SETTLED, Event, PackEntry, Reference, fence_of
from ckptlog.repository import layout
from ckptlog.repository.bookmark import Bookmark
from ckptlog.repository.chain import CORRUPT, Chain
from ckptlog.repository.collected import Outcomes
from ckptlog.repository.comparison import DIFFERS, Comparison
from ckptlog.repository.contents import Contents, left_overs, pack_of, read_pack
from ckptlog.repository.depth import Depth, damaged_share_max
from ckptlog.repository.head_check import NONE_KEPT, HeadCheck, KeptHeads
from ckptlog.repository.history import History
from ckptlog.repository.leaf_check import LeafCheck
from ckptlog.repository.loss import Told, told_losses
from ckptlog.repository.report import Book, Level, Problem, Progress, Report
from ckptlog.storage.environment import Environment
from ckptlog.views.current import CurrentView
from ckptlog.views.errors import ViewError
from ckptlog.views.row import Mark

if TYPE_CHECKING:
    from ckptlog.repository.store import Store

__all__ = [
    "VIEW_NOT_COMPARED",
    "Depth",
    "Level",
    "Problem",
    "Progress",
    "Report",
    "verify",
    "verify_directory",
]

VIEW_NOT_COMPARED: Final = "The view was not compared: the store was not opened."
"""The note of a run without the store's view."""
_STRUCTURE: Final = "structure"
# Passes that collections may spoil, one after the other.
_ATTEMPTS: Final = 5


def verify(
    store: Store,
    level: Level | Depth = "full",
    progress: Progress | None = None,
    *,
    kept: KeptHeads = NONE_KEPT,
) -> Report:
    """Check a store up to its published end; what stands beyond only where it is damaged.

    Args:
        level: "structure", "existence", "sampled" or "full" (specs/verify.md), or a `Depth`, which
            says how large a sample is, or that an interrupted run is to be gone on with.
        progress: Called now and then with bytes read and bytes in all.
        kept: Signed heads that the user has kept, beside the store's (repository.head_check).

    Raises:
        ArgumentError: There is no such level. Damage is never raised.

    Threads: safe beside writers; what they add meanwhile is not looked at.
    """
    depth = _depth(level)
    view, mark, fault = _view_of(store)
    source = _Source(
        store.path,
        store.info,
        store.environment,
        store.log.published.read,
        store.index,
        is_kept=not store.read_only,
    )

    def run(depth: Depth) -> Report:
        one = Run(source, depth, progress, kept)
        if fault and store.log.published.read() is not None:  # else the log is told of
            told = f"The view cannot be read: {fault} `ckptlog replay` builds it anew."
            one.book.problem(DIFFERS, told, "views")
        report = one.report(view, mark)
        if one.contents:
            store.blobs.distrust(one.contents.breakage.missing)
        return report

    return _resumed(run, depth)


def verify_directory(
    path: Path,
    level: Level | Depth = "full",
    progress: Progress | None = None,
    *,
    environment: Environment | None = None,
    kept: KeptHeads = NONE_KEPT,
) -> Report:
    """Check a store that is not open, or cannot be: without its view.

    Nothing is written but how far "full" has come (`views/verify.json`), where that is possible.

    Raises:
        ArgumentError: There is no such level.
        StoreMissingError, NotAStoreError, UnsupportedError, FormatError: By what store.json says.
    """
    depth = _depth(level)

    def run(depth: Depth) -> Report:
        with closed_run(
            path, depth, progress, environment=environment, is_kept=True, kept=kept
        ) as one:
            one.book.notes.append(VIEW_NOT_COMPARED)
            return one.report(None, None)

    return _resumed(run, depth)


@contextmanager
def closed_run(
    path: Path,
    depth: Depth,
    progress: Progress | None = None,
    *,
    environment: Environment | None = None,
    is_kept: bool = False,
    kept: KeptHeads = NONE_KEPT,
) -> Iterator[Run]:
    """Give a run over a store that is not open; see `verify_directory`.

    Args:
        is_kept: Whether it writes down how far it has come.
    """
    environment = environment or Environment()
    info = layout.read_info(path)
    published = PublishedEnd(path / FOLDER / "end", info.id_bytes, environment.disk, read_only=True)
    try:
        source = _Source(path, info, environment, published.read, None, is_kept=is_kept)
        yield Run(source, depth, progress, kept)
    finally:
        published.close()


def _depth(level: Level | Depth) -> Depth:
    depth = level if isinstance(level, Depth) else Depth(level)
    depth.check()
    return depth


class _OtherHistoryError(Exception):
    """What an interrupted run had checked was another history of this store."""


class _CollectedError(Exception):
    """A collection moved chunks while we read: what is missing may lie elsewhere by now."""


def _resumed(run: Callable[[Depth], Report], depth: Depth) -> Report:
    for _ in range(_ATTEMPTS):
        try:
            return run(depth)
        except _OtherHistoryError:  # a restored backup, say: once more, from the beginning
            depth = msgspec.structs.replace(depth, is_resuming=False)
        except _CollectedError:
            continue
    return run(depth)


def _view_of(store: Store) -> tuple[CurrentView | None, Mark | None, str]:
    """Return the view, caught up, and where it stands; or why there is none."""
    try:
        view = store.view()
        return view, view.mark, ""
    except (ViewError, CheckpointError) as error:
        return None, None, str(error)


class _Source(msgspec.Struct, frozen=True):
    """The store to read: its place and identity, its published end, its index if it is open.

    is_kept: Whether it may be written down how far a run has come.
    """

    root: Path
    info: StoreInfo
    environment: Environment
    published: Callable[[], End | None]
    index: ChunkIndex | None
    is_kept: bool = False


class Run:
    """One verification; `report` carries it out, once.

    Attributes:
        history, chain: What was read of the log. contents: None for "structure".
        registered, removed: Packs that count; containers that collections have removed.
        fence: Of the last collection: no pack with a lower base can be registered.
        outlook: What stands beyond the published end.
        repairs: Commits of the events that repairs have left; told: what those say.
        heads: Compared with what was read.
    """

    def __init__(
        self,
        source: _Source,
        depth: Depth,
        progress: Progress | None,
        kept: KeptHeads = NONE_KEPT,
    ) -> None:
        self._source = source
        self._depth = depth
        self._begin_s = source.environment.monotonic_s()
        self._root = root = source.root
        self._info = info = source.info
        self.outlook = self._looked()
        self._end = self._wanted()
        self.book = Book(depth.level, _size(root, depth.level), progress)
        self.chain = self._chain(self.book)
        self.history = History(self.book, self.chain.is_lost)
        self._bookmark = Bookmark(
            root,
            info.id_bytes,
            self._end,
            is_kept=source.is_kept and depth.level == "full",
            is_resuming=depth.is_resuming,
        )
        self.contents: Contents | None = None
        if depth.level != _STRUCTURE:
            index = source.index
            self.contents = Contents(
                root,
                info,
                source.environment.disk,
                self.book,
                depth=depth,
                bookmark=self._bookmark,
                knows=(lambda digest: index.get(digest) is not None) if index else None,
            )
        self.registered: dict[str, PackEntry] = {}
        self.removed: set[str] = set()
        self.fence = 0
        self.repairs: list[Commit] = []
        self.told = Told()
        self._leaves = LeafCheck(root / "views" / "tree" / "leaves", source.environment.boot())
        self.heads = HeadCheck(root, info.id, source.environment, kept)

    def report(self, view: CurrentView | None, mark: Mark | None) -> Report:
        """Read everything and return what was found."""
        try:
            leaf_at_mark = self._read(mark.position if mark else 0)
            self.history.close()
            is_whole = self._end is not None and not self.chain.is_broken
            is_whole = is_whole and self.outlook.damage is None
            self.heads.report(self.book, is_whole=is_whole)
            if self.contents:
                self._finish(self.contents)
            if view is not None and mark is not None:
                self._compare(view, mark, leaf_at_mark)
        except BaseException:
            self._bookmark.save()
            raise
        finally:
            self._leaves.close()
            if self.contents:
                self.contents.close()
        if not self.book.is_clean and self._was_collected():
            raise _CollectedError
        self._check_info()
        self._bookmark.remove()
        self.book.notes += left_overs(self._root, set(self.registered))
        return self.book.close(checkpoints=self.history.living, **self._sampling())

    def newest(self, checkpoint: str) -> int:
        """Return the position of a checkpoint's last event; -1 where it is deleted."""
        life = self.history.lives.get(checkpoint)
        return -1 if life is None or life.is_deleted else life.position

    def _looked(self) -> Outlook:
        environment, published = self._source.environment, self._source.published
        return look(self._segments(), self._info.id_bytes, environment, published)

    def _wanted(self) -> End | None:
        """Return up to where to read: the published end; the log's where nobody has recovered it.

        Of an open store that is the published one, and what is behind belongs to its writers.
        """
        is_open = self._source.index is not None
        if self.outlook.end is None or (is_open and self.outlook.damage is None):
            return self._source.published()
        return self.outlook.end

    def _segments(self) -> Segments:
        disk = self._source.environment.disk
        return Segments(self._root / FOLDER, self._info.id_bytes, disk)

    def _chain(self, book: Book) -> Chain:
        return Chain(self._segments(), self._info.id_bytes, book)

    def _read(self, mark: int) -> bytes | None:
        """Read the log; return the leaf hash at a position, None where no commit ends there."""
        leaf = None
        resumed = self._bookmark.mark
        is_other = resumed is not None and resumed[0] > 0
        try:
            for commit, window in self.chain.commits(self._end):
                self.history.add(commit)
                self._leaves.add(commit)
                self.heads.add(commit)
                self._register(commit)
                if self.contents:
                    self.contents.add(commit, window)
                else:
                    self.book.chunks += len(commit.placements)
                if commit.position_next == mark:
                    leaf = commit.leaf
                if resumed == (commit.position_next, commit.leaf):
                    is_other = False
        except CheckpointError as error:  # the folder itself: gone, denied
            self.book.problem(error.code, str(error), FOLDER)
        if (damage := self.outlook.damage) is not None and not self.chain.is_broken:
            self.book.problem(damage.code, str(damage), self.outlook.where)
        if is_other and self.book.resumed:
            self._bookmark.doubt()
            raise _OtherHistoryError
        self._packs()
        return leaf if mark else LEAF_EMPTY

    def _register(self, commit: Commit) -> None:
        last = commit.entries[-1].event
        if last.type == SETTLED:
            self._settled(last)
        for pack in last.packs:
            self.registered[pack_of(pack)] = pack
        if last.type == REPAIRED:
            self.repairs.append(commit)

    def _settled(self, event: Event) -> None:
        """Take note of what a collection let go (specs/collection.md)."""
        self.fence = max(self.fence, fence_of(event))
        self.removed.update(event.removes)
        for container in event.removes:
            self.registered.pop(container.partition("/")[2], None)

    def _was_collected(self) -> bool:
        """Say whether a collection came between what we read up to and now."""
        end, now = self._end, self._source.published()
        if end is None or now is None or now.position == end.position:
            return False
        return any(
            entry.event.type == SETTLED
            for commit, _ in self._chain(Book(_STRUCTURE, 0, None)).commits(now)
            if commit.position_next > end.position
            for entry in commit.entries
        )

    def _packs(self) -> None:
        """Check the packs that the log has registered."""
        entries = [*self.registered.values()]
        if self.contents:
            self.contents.packs(entries)
            return
        for pack in entries:
            self.book.chunks += len(read_pack(self._root, self._info.id_bytes, pack, self.book))

    def _finish(self, contents: Contents) -> None:
        packs = [*self.registered.values()]
        self.told = told_losses(self._root, self._info.id_bytes, self.repairs, packs)
        contents.finish(self.told.chunks)
        breakage = contents.breakage
        if not breakage.is_empty:
            outcomes = Outcomes()
            for commit in self._again():
                for entry in commit.entries:
                    outcomes.add(entry)
            breakage.name(self._again(), lambda entry: outcomes.gone(entry) is not None)
            breakage.report(self.book, self.newest)

    def _again(self) -> Iterator[Commit]:
        """Yield the commits that can be read, once more and in silence."""
        silent = Book(_STRUCTURE, 0, None)
        return (commit for commit, _ in self._chain(silent).commits(self._end))

    def _sampling(self) -> dict[str, float | int | None]:
        seconds = round(self._source.environment.monotonic_s() - self._begin_s, 3)
        if self._depth.level != "sampled":
            return {"seconds": seconds}
        return {
            "seconds": seconds,
            "share": self._depth.share,
            "seed": self._depth.seed,
            "damaged_share_max": damaged_share_max(self.book.leaves_hashed),
        }

    def _compare(self, view: CurrentView, mark: Mark, leaf_at_mark: bytes | None) -> None:
        if self.chain.is_broken or self._end is None:
            self.book.notes.append("The view was not compared: a part of the log is lost.")
            return
        blobs = self._blobs() if self._depth.level == "full" else None
        comparison = Comparison(view, mark, self.history, self.chain.position)
        try:
            wire: Callable[[Reference], bytes] | None = blobs.wire if blobs else None
            comparison.run(self.book, leaf_at_mark, wire)
        finally:
            if blobs:
                blobs.close()
        wrong_at = self._leaves.wrong_at(self._present)
        if wrong_at is not None:
            self.book.problem(
                DIFFERS,
                f"It is wrong from position {wrong_at} on. `ckptlog replay` writes it anew.",
                "views/tree/leaves",
            )

    def _blobs(self) -> BlobStore | None:
        """Return a reader past every cache; places come from the index, digests are checked."""
        index = self._source.index
        if index is None:
            return None
        chunker = Chunker(self._info.chunker)
        return BlobStore(self._root, self._info.id_bytes, index, Codec(), chunker, cache_bytes=0)

    def _present(self) -> int:
        end = self._source.published()
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


def _size(root: Path, level: Level) -> int:
    """Return how much there is to go through, bytes, as far as that can be told."""
    patterns = ["log/*.seg", "log/*.set", *(["packs/*.pack"] if level != _STRUCTURE else [])]
    total = 0
    for path in chained.from_iterable(map(root.glob, patterns)):
        try:
            total += path.stat().st_size
        except OSError:  # gone meanwhile
            continue
    return total
