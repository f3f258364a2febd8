"""Publishing a log as static files that anybody can verify: C2SP tlog-tiles.

    entries and tiles that are new -> on the medium -> DIR/checkpoint, atomically

Tiles never change, so a second call writes only what is new. `checkpoint` is written last: whoever
follows it finds everything that it signs, also when a call was killed. What it covers is compared
before anything is added: a folder of another log, or of another past of this one, is refused. What
it does not cover was never published: it is what a call left that was killed, or that a power cut
ended (files may then be there by name and empty), and is replaced where it differs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from ckptlog.errors import ArgumentError, ForkedError, RewrittenError, operating_system_door
from ckptlog.formats import note, tile
from ckptlog.formats.head import Head
from ckptlog.formats.tile import WIDTH
from ckptlog.repository.head_shelf import SignedHead, signed_head
from ckptlog.repository.keyring import read_note
from ckptlog.repository.output_file import refuse_house
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

    Raises:
        ArgumentError: The folder is a file; or it and a store, or a backup, lie in one another: its
            payloads would be served.

    Threads: one at a time.
    """

    def __init__(self, notary: Notary, folder: Path, progress: Progress | None = None) -> None:
        self._notary = notary
        self._folder = _checked(notary, folder)
        self._made = self._folder.parent
        self._progress = progress
        self._files = self._bytes = 0
        self._folders: set[Path] = set()
        self._unsynced: list[str] = []

    def publish(self, signed: SignedHead) -> Published:
        """Bring the folder up to a head.

        Raises:
            ForkedError: The folder holds another log, or another origin of this one.
            RewrittenError: It holds another past.
            CheckpointStorageError: It cannot be written; `checkpoint` stays as it was.

        Durability: on the medium when it returns. Readers of the folder find a whole log at any
            time.
        """
        head = signed.head
        self._make_folder()
        with self._notary.lock:
            tree = self._notary.tree.grown(head, head.size)
            former = self._former(head, tree)
            self._entries(former, head.size)
            self._tiles(former, head.size, tree)
        self._sync()
        self._checkpoint(signed)
        self._drop_partial(former, head.size)
        return Published(head, former, self._files, self._bytes)

    def _make_folder(self) -> None:
        """Make the folder, and remember what was there before it."""
        with operating_system_door("Cannot publish"):
            parent = self._folder.parent
            self._made = next(one for one in self._folder.parents if one.is_dir())
            if self._folder.is_dir() and not os.access(parent, os.R_OK):
                self._made = self._folder  # somebody else has made it, there
            self._folder.mkdir(parents=True, exist_ok=True)
            self._folders.add(self._folder)

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
            is_covered = number * WIDTH + len(entries) <= former
            self._put(path, tile.encode_entries(entries), is_covered=is_covered)
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
            old = before.get(level, 0)
            for number in range(old // WIDTH, -(-count // WIDTH)):
                stop = min(count, (number + 1) * WIDTH)
                data = tree.hashes(level, number * WIDTH, stop)
                path = tile.tile_path(level, number, stop - number * WIDTH)
                self._put(path, data, is_covered=stop <= old)

    def _put(self, name: str, data: bytes, *, is_covered: bool) -> None:
        """Let a file hold this; refuse one that the published head covers and that does not."""
        path = self._folder / name
        with operating_system_door("Cannot publish"):
            try:
                is_right = path.read_bytes() == data
            except FileNotFoundError:
                is_right = False
            else:
                if is_covered and not is_right:
                    raise RewrittenError(
                        f"{path} holds something else than the log.",
                        hint="Publish into another folder and compare; published files never "
                        "change.",
                        path=str(path),
                    )
            if path.parent not in self._folders:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._folders.add(path.parent)
        if is_covered and is_right:
            return
        # What is right by now may be what a killed call has left, and on no medium yet.
        self._unsynced.append(name)
        if not is_right:
            files.write_atomically(path, data, durable=False)
            self._files += 1
            self._bytes += len(data)

    def _sync(self) -> None:
        """Put all that is new on the medium, together: most of it is there by now.

        Not `os.sync`, which tells of no error.
        """
        with operating_system_door("Cannot sync what is published"):
            for name in self._unsynced:
                fd = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    files.sync_file(fd)
                finally:
                    os.close(fd)
        folders = {self._made}
        for folder in self._folders:
            folders |= {one for one in (folder, *folder.parents) if self._made in one.parents}
        for folder in sorted(folders, reverse=True):  # a name is synced after what it names
            files.sync_directory(folder)

    def _checkpoint(self, signed: SignedHead) -> None:
        path, data = self._folder / CHECKPOINT, note.encode(signed.note)
        with operating_system_door("Cannot publish"):
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


def _checked(notary: Notary, named: Path) -> Path:
    with operating_system_door("Cannot publish"):
        try:
            folder = named.expanduser().resolve()
        except RuntimeError as error:  # no such user, links in a circle
            raise ArgumentError(f"{named} leads nowhere: {error}", argument="folder") from error
        store = notary.store_path.resolve()
        if folder == store or store in folder.parents or folder in store.parents:
            raise ArgumentError(
                f"The folder {folder} and the store {store} lie in one another.",
                hint="Name a folder outside of the store, which has nothing else in it.",
                argument="folder",
            )
        refuse_house(folder, "folder")
        blocked = next(one for one in (folder, *folder.parents) if os.path.lexists(one))
        if not blocked.is_dir():
            raise ArgumentError(
                f"{blocked} is not a directory.",
                hint="Name a new folder, or an earlier export.",
                argument="folder",
            )
    return folder
