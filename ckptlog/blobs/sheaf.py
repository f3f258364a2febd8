"""The sheaf: the places of all chunks of a log, gathered anew from its beginning on.

What a chunk index (see `index`) grows to by and by, and merges again and again, is made here at
once: entries are packed as they come, sorted by the hundred thousand into runs, and these merged
one time at the end. Nobody looks anything up in it: when it is whole, the index adopts its run.

The runs in between know nothing of the log: one commit may bring more chunks than fit into memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Final

from ckptlog.blobs import run_writer
from ckptlog.blobs.run import ENTRY, Mark, Run
from ckptlog.blobs.run_writer import Stretch
from ckptlog.formats.chunk import DIGEST_BYTES
from ckptlog.model.entry import Placement
from ckptlog.storage import files

# Some 25 MB of memory, and what is taken in before that is looked at.
_ENTRIES_MAX: Final = 100_000
_PIECE: Final = 10_000


class Sheaf:
    """Gathers places in order, into runs in a folder.

    Args:
        folder: An empty one.

    Threads: one at a time.        Durability: none.        Memory: bounded, whatever comes.
    """

    def __init__(self, folder: Path, store_id: bytes) -> None:
        self._folder = folder
        self._store_id = store_id
        self._tail: dict[bytes, bytes] = {}
        self._numbers: dict[str, int] = {}
        self._runs: list[Run] = []

    def add(self, container: str, places: Iterable[tuple[bytes, int, int]]) -> None:
        """Take in digest, offset and length of the frames of chunks in a container.

        Raises:
            CheckpointStorageError: A run cannot be written.
        """
        number = self._numbers.setdefault(container, len(self._numbers))
        pack, rest = ENTRY.pack, iter(places)
        while piece := tuple(islice(rest, _PIECE)):
            tail = self._tail
            for digest, offset, length in piece:
                tail[digest] = pack(digest, number, offset, length)
            if len(tail) >= _ENTRIES_MAX:
                self._spill()

    def add_each(self, placements: Iterable[Placement]) -> None:
        """Take in chunks that may lie in any containers."""
        for place in placements:
            self.add(place.container, ((place.digest, place.offset, place.length),))

    def _spill(self) -> None:
        number = len(self._runs)
        mark = Mark(number + 1, next(iter(self._numbers)), 0, bytes(DIGEST_BYTES))
        self._runs.append(self._written(Stretch(number, mark)))

    def _written(self, stretch: Stretch) -> Run:
        entries, self._tail = self._tail.values(), {}
        return run_writer.write_entries(
            self._folder, self._store_id, stretch, self._numbers, entries
        )

    def run(self, mark: Mark) -> Run:
        """Return everything, up to a mark, as one run.

        Raises:
            FormatError: What was written cannot be read any more.
            CheckpointStorageError: It cannot be written.
        """
        self._numbers.setdefault(mark.container, len(self._numbers))
        whole = Stretch(0, mark)
        if not self._runs:
            return self._written(whole)
        if self._tail:
            self._spill()
        runs, self._runs = self._runs, []
        found = run_writer.merge_runs(self._folder, self._store_id, runs, whole)
        for run in runs:
            if run.path is not None and run.path != found.path:
                files.remove(run.path)
        return found
