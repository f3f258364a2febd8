"""Collects rows and writes them as the files of a history, in bounded memory.

    rows of windows of commits -> a span is full -> its files, by another thread

At most one large span is collected while the one before is written, some 150 MB together, however
long the log is. Writing is Arrow's work and leaves the interpreter to the next rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ckptlog.views.history.manifest import File, Manifest
from ckptlog.views.history.past import Fact
from ckptlog.views.history.shelf import Shelf
from ckptlog.views.history.span import Span, large, spans

if TYPE_CHECKING:
    import pyarrow as pa


class Build:
    """Extends a history by rows, in order.

    Args:
        before: The history that is extended; its files stay where they are.
        start: From here on spans are made anew, of rows of `before` and of those to come; the end
            of one of its spans.

    Attributes:
        position: Of the next row.

    Threads: one at a time.
    """

    def __init__(self, shelf: Shelf, before: Manifest, start: int) -> None:
        self._shelf = shelf
        self._before = before
        self._kept = [file for file in before.files if file.stop <= start]
        self._written: list[File] = []
        self._writer = ThreadPoolExecutor(1, "ckptlog-history")
        self._writing: Future[list[File]] | None = None
        self._start = start
        self._batches: list[pa.RecordBatch] = []
        self.position = start
        again = [file for file in before.files if file.start >= start]
        if again:
            for batch in shelf.read(again).to_batches():
                self.add(batch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.shutdown(wait=True, cancel_futures=True)

    def add(self, rows: pa.RecordBatch) -> None:
        """Take in the next rows."""
        self._batches.append(rows)
        self.position += rows.num_rows
        while self.position - self._start >= large():
            self._cut(Span(self._start, self._start + large()))

    def finish(self) -> tuple[File, ...]:
        """Write what is left; return the files of the whole history."""
        for span in spans(self.position):
            if span.start >= self._start:
                self._cut(span)
        self._wait()
        return (*self._kept, *self._written)

    def facts(self, positions: Sequence[int]) -> dict[int, Fact]:
        """Return what rows say of checkpoints, as far as they are in files."""
        self._wait()
        end = self._before.position
        old = [one for one in positions if one < end]
        new = [one for one in positions if one >= end]
        found = self._shelf.facts(self._before.files, old)
        return found | self._shelf.facts(self._written, new) if new else found

    def _cut(self, span: Span) -> None:
        """Hand the rows of a span to the writer."""
        import pyarrow as pa

        size = span.stop - span.start
        collected = pa.Table.from_batches(self._batches)
        rest = collected.slice(size)
        self._batches = rest.to_batches() if rest.num_rows else []
        self._start = span.stop
        self._wait()
        self._writing = self._writer.submit(self._shelf.write, span, collected.slice(0, size))

    def _wait(self) -> None:
        if self._writing is not None:
            self._written += self._writing.result()
            self._writing = None
