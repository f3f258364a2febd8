"""The view against the fold of the log: a view that tells something else is a problem.

Other threads and processes go on while this runs, so only what both can know is compared: rows
whose last event lies below the position up to which the log was folded, and lives whose last event
lies below where the view stood when the comparison began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

import msgspec

from ckptlog.errors import CheckpointError
from ckptlog.formats import chunk
from ckptlog.model.event import Reference
from ckptlog.repository.history import ROW_DIGEST_BYTES, History, Life
from ckptlog.repository.report import Book
from ckptlog.views.current import CurrentView
from ckptlog.views.errors import ViewError
from ckptlog.views.query import Filter
from ckptlog.views.row import Mark, Row, encode

DIFFERS: Final = "view.differs"
_WHERE: Final = "views/current.sqlite"
_MENDED: Final = "The log is right; `ckptlog replay` builds the view anew."
_SAMPLE: Final = 1000
_PAGE_ROWS: Final = 1000


class Comparison:
    """Compares one view with one fold.

    Args:
        mark: Where the view stood before the log was read.
        position: Up to where the log was read.
    """

    def __init__(self, view: CurrentView, mark: Mark, history: History, position: int) -> None:
        self._view = view
        self._mark = mark
        self._lives = history.lives
        self._history = history
        self._position = position
        self._stands = 0

    def run(
        self, book: Book, leaf_at_mark: bytes | None, wire: Callable[[Reference], bytes] | None
    ) -> None:
        """Report every difference.

        Args:
            leaf_at_mark: Leaf hash of the event before the mark; None where no commit ends there.
            wire: Reads a payload, to compare what the view has cached; None for a sample only.
        """
        try:
            self._stands = self._view.mark.position
            faults = [*self._check_mark(leaf_at_mark), *self._check_sums()]
            rows = self._sample() if wire is None else self._all(wire)
            for fault in (*faults, *rows):
                book.problem(DIFFERS, f"{fault} {_MENDED}", _WHERE)
        except ViewError as error:
            book.problem(DIFFERS, f"The view cannot be read: {error} {_MENDED}", _WHERE)

    def _check_mark(self, leaf: bytes | None) -> Iterator[str]:
        if self._mark.position and self._mark.leaf != leaf:
            yield f"The view stands at position {self._mark.position} of another history."

    def _check_sums(self) -> Iterator[str]:
        totals = self._view.totals()
        if totals.events != self._position:
            return  # it has moved on
        history = self._history
        told = (totals.checkpoints, totals.logical_bytes, totals.new_bytes)
        if told != (history.living, history.logical, history.new):
            yield (
                f"By the view's sums there are {told[0]} checkpoints, {told[1]} bytes logical and "
                f"{told[2]} new; by the log {history.living}, {history.logical} and {history.new}."
            )

    # --- rows -------------------------------------------------------------------------------

    def _sample(self) -> Iterator[str]:
        step = max(1, len(self._lives) // _SAMPLE)
        for name, life in islice(self._lives.items(), 0, None, step):
            yield from self._check_one(name, life)

    def _all(self, wire: Callable[[Reference], bytes]) -> Iterator[str]:
        seen: set[int] = set()
        after = None
        while page := self._view.select(Filter(), after=after, limit=_PAGE_ROWS):
            after = page[-1].origin
            for row in page:
                seen.add(row.origin)
                yield from self._check_row(row)
                yield from self._check_meta(row, wire)
        for name, life in self._lives.items():
            if life.is_deleted or life.origin not in seen:
                yield from self._check_one(name, life)

    def _check_one(self, name: str, life: Life) -> Iterator[str]:
        if life.position >= self._stands:
            return  # the view was not there yet
        row = self._view.row(name)
        if row is None:
            yield f"The view does not have {name!r}."
        elif row.deleted and row.position < self._position:
            if not life.is_deleted or row.position != life.position:
                yield f"By the view {name!r} was deleted at {row.position}; the log says otherwise."
        elif not row.deleted:
            yield from self._check_row(row)

    def _check_row(self, row: Row) -> Iterator[str]:
        if row.position >= self._position:
            return  # newer than what was folded
        life = self._lives.get(row.id)
        if life is not None and life.position >= self._stands:
            return  # the view was not there yet
        if life is None or life.is_deleted:
            yield f"The view has {row.id!r}; by the log there is no such checkpoint."
        elif encode(msgspec.structs.replace(row, meta=None))[:ROW_DIGEST_BYTES] != life.row:
            yield (
                f"The view has {row.id!r} as {row.state} by event {row.position}; by the log it "
                f"is {life.state} by event {life.position}, or differs in other facts."
            )

    def _check_meta(self, row: Row, wire: Callable[[Reference], bytes]) -> Iterator[str]:
        if row.meta is None or row.position >= self._position:
            return
        if row.meta_kind == "leaf":
            is_same = chunk.digest_of(chunk.LEAF, row.meta).hex() == row.meta_root
        else:
            try:
                is_same = wire(Reference(row.meta_kind, row.meta_root, row.meta_size)) == row.meta
            except CheckpointError:
                return  # told as what it is: a damaged payload
        if not is_same:
            yield f"The view's title and metadata of {row.id!r} are not those of the log."
