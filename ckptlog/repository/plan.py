"""What a repair would do: each damaged container with its salvage, and what cannot be mended.

Reads only. Segments are looked at in their order, since the header of one names the end of the one
before it; packs after them, by what whole events have registered.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from ckptlog.errors import CheckpointError
from ckptlog.formats.end import End
from ckptlog.formats.segment import SegmentHeader
from ckptlog.formats.store import StoreInfo
from ckptlog.log.segments import FOLDER, Segments, container_of
from ckptlog.model.event import PackEntry
from ckptlog.model.leaf import LEAF_EMPTY
from ckptlog.repository.contents import pack_of
from ckptlog.repository.lineage import Lineage, Link
from ckptlog.repository.salvage import Bounds, PackSalvage, Salvage, SegmentSalvage
from ckptlog.repository.second_copy import SecondCopy
from ckptlog.storage.disk import Disk
from ckptlog.views.leaf import LeafCache

_BLOCK_BYTES: Final = 4096


class Refusal(msgspec.Struct, frozen=True):
    """A container that is left as it is, and why."""

    container: str
    message: str


class Planner:
    """Makes the salvage of each container of one store.

    Attributes:
        salvages: Those that change something. refused: What cannot be mended. strays: Files that
            only keep the store from being opened. live: The newest segment.
    """

    def __init__(
        self,
        root: Path,
        info: StoreInfo,
        disk: Disk,
        *,
        time: str,
        copy: SecondCopy | None,
    ) -> None:
        self._root = root
        self._store_id = info.id_bytes
        self._disk = disk
        self._time = time
        self._copy = copy
        leaves = LeafCache(root / "views" / "tree" / "leaves")
        self._leaf_at = lambda position: next(iter(leaves.read(position, position + 1)), None)
        self.salvages: list[Salvage] = []
        self.refused: list[Refusal] = []
        self.strays: list[str] = []
        self.live = ""

    def segments(self, end: End | None, suspects: set[str]) -> None:
        """Plan the log.

        Args:
            suspects: Containers that a verification has found a problem in.
        """
        segments = Segments(self._root / FOLDER, self._store_id, self._disk)
        try:
            lineage = Lineage(segments, self._disk, self._store_id, end)
        except CheckpointError as error:
            self.refused.append(Refusal(FOLDER, error.message))
            return
        self.strays = lineage.strays
        self.live = container_of(*lineage.links[-1].name)
        before: SegmentHeader | None = None
        limit, leaf = 0, LEAF_EMPTY
        for link in lineage.links:
            made = self._made(link, before, limit, leaf)
            container = container_of(*link.name)
            bounds = link.bounds
            is_told = bounds.limit is not None and bounds.leaf is not None
            if link.header is not None and is_told and container not in suspects:
                before, limit, leaf = link.header, bounds.limit or 0, bounds.leaf or LEAF_EMPTY
                continue
            try:
                found = self._segment(made, bounds, container)
            except CheckpointError as error:
                self.refused.append(Refusal(container, error.message))
                before, limit, leaf = made, bounds.limit or 0, bounds.leaf or LEAF_EMPTY
                continue
            if found.is_needed:
                self.salvages.append(found)
            before, limit, leaf = found.header, found.limit, found.last_leaf

    def packs(self, registered: Mapping[str, PackEntry], suspects: set[str]) -> None:
        """Plan the packs that whole events have registered."""
        for name, entry in registered.items():
            container = f"packs/{name}"
            if container not in suspects:
                continue
            try:
                copy = self._copy.of(container) if self._copy else None
                salvage = PackSalvage(self._store_id, name, entry.bytes, copy=copy)
                found = salvage.run(self.read(container))
            except CheckpointError as error:
                self.refused.append(Refusal(container, error.message))
                continue
            if found.is_needed:
                self.salvages.append(found)

    def read(self, container: str) -> bytes | None:
        """Return a file's bytes, None where there is none; what cannot be read is zeros."""
        path = self._root / container
        if not path.exists():
            return None
        fd = self._disk.open_read(path)
        try:
            size = self._disk.size(fd)
            try:
                return self._disk.read(fd, size, 0)
            except CheckpointError:
                return b"".join(self._block(fd, at) for at in range(0, size, _BLOCK_BYTES))[:size]
        finally:
            self._disk.close(fd)

    def _block(self, fd: int, offset: int) -> bytes:
        try:
            return self._disk.read(fd, _BLOCK_BYTES, offset)
        except CheckpointError:
            return bytes(_BLOCK_BYTES)

    def _segment(self, made: SegmentHeader, bounds: Bounds, container: str) -> Salvage:
        salvage = SegmentSalvage(
            self._store_id,
            made,
            bounds,
            leaf_at=self._leaf_at,
            time=self._time,
            copy=self._copy.of(container) if self._copy else None,
        )
        return salvage.run(self.read(container))

    def _made(
        self, link: Link, before: SegmentHeader | None, limit: int, leaf: bytes
    ) -> SegmentHeader:
        """Return the header that a segment should have."""
        if link.header is not None:
            return link.header
        first, generation = link.name
        previous = (before.first, before.generation, limit) if before else (0, 0, 0)
        return SegmentHeader(self._store_id, first, generation, *previous, leaf, 0)


def suspects_of(files: set[str], registered: Mapping[str, PackEntry]) -> set[str]:
    """Return containers among files that problems were entered for."""
    packs = {f"packs/{pack_of(entry)}" for entry in registered.values()}
    return {name for name in files if name in packs or name.startswith("log/")}
