"""What earlier repairs have told of: chunks and events that were lost (specs/repair.md).

The lists stand in the payload of each `repair.finished`. They are read from where the event's
commit has put them, or from the packs to which collections have moved them since, by digest, so
that they can be believed in a store that is damaged, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from ckptlog.blobs import payload
from ckptlog.blobs.codec import Codec
from ckptlog.blobs.pack import FOLDER, read_index
from ckptlog.errors import CheckpointError, MissingBlobError
from ckptlog.formats import frame
from ckptlog.formats.pack import pack_name
from ckptlog.model import value as values
from ckptlog.model.entry import Commit, Placement
from ckptlog.model.event import REPAIRED, PackEntry
from ckptlog.repository.claim import KEY_BYTES
from ckptlog.storage.disk import Disk

LOST_CHUNKS: Final = "lost_chunks"


class Told(msgspec.Struct, frozen=True):
    """What repairs have told.

    chunks: Keys of all that were lost.
    positions: Of events that were lost, and not told back since.
    """

    chunks: frozenset[bytes] = frozenset()
    positions: frozenset[int] = frozenset()


def told_losses(
    root: Path, store_id: bytes, repairs: Iterable[Commit], packs: Sequence[PackEntry]
) -> Told:
    """Return what all repairs have told.

    Args:
        repairs: Commits that end with a `repair.finished`.
        packs: That count now.
    """
    chunks: set[bytes] = set()
    positions: set[int] = set()
    for commit in repairs:
        try:
            told, stop = _record(root, store_id, commit, packs), commit.entries[-1].position
            chunks.update(_key(digits) for digits in told.get(LOST_CHUNKS, ()))
            positions |= positions_in(told.get("lost_positions", ()), stop)
            positions -= positions_in(told.get("positions_back", ()), stop)
        except (CheckpointError, ValueError, TypeError):
            continue  # the payload is damaged, which is told as what it is
    return Told(frozenset(chunks), frozenset(positions))


def positions_in(stretches: Iterable[tuple[int, int]], stop: int) -> set[int]:
    """Return positions by their stretches (first, last), which lie before the event's own."""
    return {one for first, last in stretches for one in range(max(first, 0), min(last + 1, stop))}


def _key(digits: object) -> bytes:
    key = bytes.fromhex(str(digits))
    if len(key) != KEY_BYTES:
        raise ValueError(digits)
    return key


def _record(
    root: Path, store_id: bytes, commit: Commit, packs: Sequence[PackEntry]
) -> dict[str, Any]:
    """Return what a repair has recorded.

    Raises:
        CheckpointError: It cannot be read.
    """
    event = commit.entries[-1].event
    if event.type != REPAIRED or event.data is None:
        return {}
    reader = _Reader(root, store_id, commit.placements, packs)
    value = values.decode(payload.assemble(event.data, reader.raw), opaque=True)
    return value if isinstance(value, dict) else {}


class _Reader:
    """Reads the chunks of one commit, whole as a repair writes and a collection moves them."""

    def __init__(
        self,
        root: Path,
        store_id: bytes,
        placements: Iterable[Placement],
        packs: Sequence[PackEntry],
    ) -> None:
        self._root = root
        self._store_id = store_id
        self._places = {place.digest: place for place in placements}
        self._packs = packs
        self._codec = Codec()
        self._disk = Disk()

    def raw(self, digest: bytes, domain: int) -> bytes:
        place = self._places.get(digest) or self._in_packs(digest)
        if place is None:
            raise MissingBlobError(f"Chunk {digest.hex()} of a repair's record is gone.")
        fd = self._disk.open_read(self._root / place.container)
        try:
            data = self._disk.read(fd, place.length, place.offset)
        finally:
            self._disk.close(fd)
        name = place.container.rpartition("/")[2]
        seed = frame.container_seed(self._store_id, name)
        record = frame.decode(seed, place.offset, data).body
        return self._codec.raw(record, digest, domain=domain)

    def _in_packs(self, digest: bytes) -> Placement | None:
        for pack in self._packs:
            path = self._root / FOLDER / pack_name(pack.base, bytes.fromhex(pack.id))
            with suppress(CheckpointError):  # a damaged pack is told as what it is
                for place in read_index(path, self._store_id):
                    if place.digest == digest:
                        return place
        return None
