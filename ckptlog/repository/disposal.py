"""Removes the files of containers that count no more (specs/collection.md, rule DELETE LAST)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ckptlog.blobs.pack import FOLDER as PACKS
from ckptlog.errors import CheckpointError
from ckptlog.log.segments import FOLDER as LOG
from ckptlog.log.segments import parse_container
from ckptlog.storage import files
from ckptlog.storage.removal import Removal

if TYPE_CHECKING:
    from ckptlog.repository.store import Store


class Disposal:
    """What a collection removes files with.

    Args:
        removal: Gives their room back.

    Threads: one.
    """

    def __init__(self, store: Store, removal: Removal) -> None:
        self._store = store
        self._removal = removal

    def wait(self) -> bool:
        """Wait for the room of what was removed; say whether there was any to wait for."""
        return self._removal.finish()

    def make_durable(self) -> None:
        """Make sure that no end can come back that lies before what will be removed."""
        self._store.log.flush()
        self._store.log.publish_durably()

    def remove(self, containers: Sequence[str]) -> int:
        """Remove the files of containers that the durable log says are removed; return how many.

        A segment goes only where its settled form is whole.
        """
        store = self._store
        there = [one for one in containers if (store.path / one).exists() and self.may_go(one)]
        self._removal.remove([store.path / one for one in there])
        for container in there:
            store.forget(container)
        for folder in (LOG, PACKS):
            if (store.path / folder).is_dir():  # a store of an older version may have no packs
                files.sync_directory(store.path / folder)
        self._removal.free()
        return len(there)

    def may_go(self, container: str) -> bool:
        """Say whether nothing is lost with a container: of a segment the settled form is whole."""
        name = parse_container(container)
        if name is None:
            return True
        segments = self._store.log.segments
        with suppress(CheckpointError):
            return segments.is_settled_whole(*name)
        return False
