"""Pieces of a long content, read by another thread while those before are worked on.

Theory. Reading a chunk is decompressing and hashing it, writing a piece is hashing it again and a
copy into the page cache; all of that lets other threads run. So two processors are used, and the
pieces come in the order in which they were made, a few at a time.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import Final

from ckptlog.storage.thread import is_begun

# Of a shorter content, a thread costs more than it saves.
PREFETCHED_BYTES_MIN: Final = 1 << 20
# That are ready at once: of chunks some 64 KiB each, of a file that is captured 1 MiB.
_READY_MAX: Final = 16


def prefetched(pieces: Iterable[bytes]) -> Generator[bytes]:
    """Yield pieces in their order; what making one raises is raised in its place.

    Threads: `pieces` is gone through by another thread, which has ended when this is closed. Who
        may not come to its end closes it. Where no thread is to be had (the interpreter is about to
        end, say) it is gone through here.
    """
    source = _Source(pieces)
    if not is_begun(source):
        yield from pieces
        return
    try:
        while (piece := source.next()) is not None:
            yield piece
    finally:
        source.end()


class _Source(Thread):
    def __init__(self, pieces: Iterable[bytes]) -> None:
        super().__init__(name="ckptlog-prefetch", daemon=True)
        self._pieces = pieces
        self._room = Semaphore(_READY_MAX)
        self._ready: SimpleQueue[bytes | BaseException | None] = SimpleQueue()
        self._is_over = False

    def run(self) -> None:
        last: BaseException | None = None
        try:
            for piece in self._pieces:
                self._room.acquire()
                if self._is_over:
                    break
                self._ready.put(piece)
        except BaseException as error:  # noqa: BLE001 - it is raised where the piece is wanted
            last = error
        self._ready.put(last)

    def next(self) -> bytes | None:
        """Return the next piece; None behind the last."""
        found = self._ready.get()
        if isinstance(found, BaseException):
            raise found
        self._room.release()
        return found

    def end(self) -> None:
        """Let no more be made, and wait for the thread."""
        self._is_over = True
        self._room.release()
        self.join()
