"""Publishing a log as static files that anybody can verify: C2SP tlog-tiles.

    entries and tiles that are new -> on the medium -> DIR/checkpoint, atomically

Tiles never change, so a second call writes only what is new. `checkpoint` is written last: whoever
follows it finds everything that it signs, also when a call was killed. What lies in DIR is compared
before anything is added: a folder of another log, or of another past of this one, is refused.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from ckptlog.errors import ForkedError, RewrittenError, operating_system_door
from ckptlog.formats import note, tile
from ckptlog.formats.head import Head
from ckptlog.formats.tile import WIDTH
from ckptlog.repository.head_shelf import SignedHead, signed_head
from ckptlog.repository.keyring import read_note
from ckptlog.repository.tree import rewritten
from ckptlog.storage import files

if TYPE_CHECKING:
    from ckptlog.repository.notary import Notary
    from ckptlog.views.tiles import Tree

CHECKPOINT: Final = "checkpoint"
ENTRIES: Final = "entries"

Progress = Callable[[int, int], None]
"""Called now and then with events done and events in all."""


class Published(NamedTuple):
    """What a call came to. former: Events that were there before. files, bytes: Written."""

    head: Head
    former: int
    files: int
    bytes: int


class Publication:
    """The published form of one log in one folder.

    Threads: one at a time.
    """

    def __init__(self, notary: Notary, folder: Path, progress: Progress | None = None) -> None:
        self._notary = notary
        self._folder = folder
        self._progress = progress
        self._files = self._bytes = 0
        self._folders: set[Path] = set()

    def publish(self, signed: SignedHead) -> Published:
        """Bring the folder up to a head.

        Raises:
            ForkedError: The folder holds another log, or another origin of this one.
            RewrittenError: It holds another past.
            CheckpointStorageError: It cannot be written.

        Durability: on the medium when it returns. Readers of the folder find a whole log at any
            time.
        """
        head = signed.head
        with self._notary.lock:
            tree = self._notary.tree.grown(head, head.size)
            former = self._former(head, tree)
            self._entries(former, head.size)
            self._tiles(former, head.size, tree)
        if self._files:
            os.sync()  # thousands of files: one call for all, before what names them
        self._checkpoint(signed)
        self._drop_partial(former, head.size)
        return Published(head, former, self._files, self._bytes)

    def _former(self, head: Head, tree: Tree) -> int:
        """Return how many events the folder has, having compared it with our tree."""
        found = read_note(self._folder / CHECKPOINT)
        if found is None:
            return 0
        former = signed_head(found).head
        if former.origin != head.origin:
            raise ForkedError(
                f"{self._folder} is published by {former.origin}, and this is {head.origin}.",
                hint="Publish into another folder.",
            )
        if former.size > head.size or tree.root(former.size) != former.root:
            raise rewritten(former)
        return former.size

    def _entries(self, former: int, size: int) -> None:
        for number, entries in self._bundles(former // WIDTH * WIDTH, size):
            path = tile.tile_path(ENTRIES, number, len(entries))
            self._put(path, tile.encode_entries(entries))
            if self._progress is not None:
                self._progress(number * WIDTH + len(entries), size)

    def _bundles(self, start: int, size: int) -> Iterator[tuple[int, list[bytes]]]:
        """Yield events in tiles: from a multiple of 256 on, the last one maybe partial."""
        bundle: list[bytes] = []
        position = start
        for run in self._notary.tree.runs(start, self._notary.tree.end()):
            for entry in run.entries[: max(0, size - run.first)]:
                bundle.append(entry)
                position += 1
                if len(bundle) == WIDTH:
                    yield position // WIDTH - 1, bundle
                    bundle = []
            if run.cursor.position >= size:
                break
        if bundle:
            yield position // WIDTH, bundle

    def _tiles(self, former: int, size: int, tree: Tree) -> None:
        before = dict(tile.levels(former))
        for level, count in tile.levels(size):
            for number in range(before.get(level, 0) // WIDTH, -(-count // WIDTH)):
                stop = min(count, (number + 1) * WIDTH)
                data = tree.hashes(level, number * WIDTH, stop)
                self._put(tile.tile_path(level, number, stop - number * WIDTH), data)

    def _put(self, name: str, data: bytes) -> None:
        """Write a file that is not there; refuse one that holds something else."""
        path = self._folder / name
        with operating_system_door("Cannot publish"):
            try:
                if path.read_bytes() == data:
                    return
            except FileNotFoundError:
                pass
            else:
                raise RewrittenError(
                    f"{path} holds something else than the log.",
                    hint="Publish into another folder and compare; published files never change.",
                    path=str(path),
                )
            if path.parent not in self._folders:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._folders.add(path.parent)
        files.write_atomically(path, data, durable=False)
        self._files += 1
        self._bytes += len(data)

    def _checkpoint(self, signed: SignedHead) -> None:
        path, data = self._folder / CHECKPOINT, note.encode(signed.note)
        with operating_system_door("Cannot publish"):
            self._folder.mkdir(parents=True, exist_ok=True)
            if path.exists() and path.read_bytes() == data:
                return
        files.write_atomically(path, data)
        self._files += 1
        self._bytes += len(data)

    def _drop_partial(self, former: int, size: int) -> None:
        """Drop the partial tiles of which the whole ones are there now."""
        before = dict(tile.levels(former))
        kinds: list[tuple[int | str, int, int]] = [(ENTRIES, former, size)]
        kinds += [(level, before.get(level, 0), count) for level, count in tile.levels(size)]
        for level, old, new in kinds:
            if old % WIDTH and old // WIDTH < new // WIDTH:
                partial = self._folder / f"{tile.tile_path(level, old // WIDTH)}.p"
                shutil.rmtree(partial, ignore_errors=True)
