"""The sheaf: the places of all chunks of a log, gathered anew from its beginning on.

What a chunk index (see `index`) grows to by and by, and merges again and again, is made here at
once: entries are packed as they come, sorted by the hundred thousand into runs, and these merged
one time at the end. Nobody looks anything up in it: when it is whole, the index adopts its run.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ckptlog.blobs import run_writer
from ckptlog.blobs.run import ENTRY, Mark, Run
from ckptlog.blobs.run_writer import Stretch
from ckptlog.model.entry import Placement

# Some 25 MB of memory.
_ENTRIES_MAX: Final = 100_000


class Sheaf:
    """Gathers places in order, into runs in a folder.

    Args:
        folder: An empty one.

    Threads: one at a time.        Durability: none.
    """

    def __init__(self, folder: Path, store_id: bytes) -> None:
        self._folder = folder
        self._store_id = store_id
        self._tail: dict[bytes, bytes] = {}
        self._numbers: dict[str, int] = {}
        self._runs: list[Run] = []

    def add(self, container: str, places: Iterable[tuple[bytes, int, int]]) -> None:
        """Take in digest, offset and length of the frames of chunks in a container."""
        number = self._numbers.setdefault(container, len(self._numbers))
        tail, pack = self._tail, ENTRY.pack
        for digest, offset, length in places:
            tail[digest] = pack(digest, number, offset, length)

    def add_each(self, placements: Iterable[Placement]) -> None:
        """Take in chunks that may lie in any containers."""
        for place in placements:
            self.add(place.container, ((place.digest, place.offset, place.length),))

    def bind(self, mark: Mark, *, is_last: bool = False) -> None:
        """Say that everything below a mark is in.

        Raises:
            CheckpointStorageError: A run cannot be written.
        """
        if is_last or len(self._tail) >= _ENTRIES_MAX:
            start = self._runs[-1].mark.position if self._runs else 0
            self._numbers.setdefault(mark.container, len(self._numbers))
            entries = self._tail.values()
            self._runs.append(
                run_writer.write_entries(
                    self._folder, self._store_id, Stretch(start, mark), self._numbers, entries
                )
            )
            self._tail = {}

    def run(self, mark: Mark) -> Run:
        """Return everything, up to a mark, as one run.

        Raises:
            FormatError: What was written cannot be read any more.
            CheckpointStorageError: It cannot be written.
        """
        if self._tail or not self._runs or self._runs[-1].mark.position < mark.position:
            self.bind(mark, is_last=True)
        if len(self._runs) == 1:
            return self._runs[0]
        return run_writer.merge_runs(self._folder, self._store_id, self._runs)
