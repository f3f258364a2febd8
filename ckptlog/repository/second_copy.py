"""A second copy of a store, from which damaged bytes are taken. Who asks checks them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ckptlog.blobs.codec import Codec
from ckptlog.blobs.pack import FOLDER as PACKS
from ckptlog.blobs.pack import read_lines
from ckptlog.errors import ArgumentError, BlobCorruptionError, CheckpointError
from ckptlog.formats import chunk, frame, pack
from ckptlog.formats.segment import HEADER_FRAME_BYTES
from ckptlog.log.segments import FOLDER as LOG
from ckptlog.repository import layout
from ckptlog.repository.claim import KEY_BYTES
from ckptlog.repository.gap import Copy, Walk, judge_by
from ckptlog.storage.disk import Disk

_CHUNKS = frozenset({frame.CHUNK, frame.EVENT})


class SecondCopy:
    """Another directory of the same store.

    Raises:
        ArgumentError: It is another store, or the same directory.
        StoreMissingError, NotAStoreError: There is none.
    """

    def __init__(self, path: Path, root: Path, store_id: bytes, disk: Disk) -> None:
        self.path = path
        self._disk = disk
        self._store_id = store_id
        self._codec = Codec()
        if path.resolve() == root.resolve():
            raise ArgumentError(
                f"{path} is the damaged store itself.", hint="Name a copy.", argument="from"
            )
        info = layout.read_info(path)
        if info.id_bytes != store_id:
            raise ArgumentError(
                f"{path} is another store: its id is {info.id}, not {store_id.hex()}.",
                hint="Name a copy or a backup of this store.",
                argument="from",
            )

    def of(self, container: str) -> Copy | None:
        """Return what reads the copy of a container; None where it has none."""
        path = self.path / container
        if not path.exists():
            return None
        data: list[bytes] = []

        def read(offset: int, length: int) -> bytes:
            if not data:
                data.append(self._whole(path))
            return data[0][offset : offset + length]

        return read

    def _whole(self, path: Path) -> bytes:
        fd = self._disk.open_read(path)
        try:
            return self._disk.read(fd, self._disk.size(fd), 0)
        finally:
            self._disk.close(fd)

    def chunks(self, keys: set[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Yield digest and record of chunks, wherever they lie in the copy; verified, none a delta.

        Args:
            keys: First halves of their digests. What was found is removed.

        Cost: reads the indexes of all packs, and all segments until everything is found.
        """
        patterns = ((PACKS, "*.pack"), (LOG, "*.seg"))
        for path in (one for folder, kind in patterns for one in _sorted(self.path / folder, kind)):
            if not keys:
                return
            try:
                found = _Container(self, path, self._codec)
                for digest in [one for one in found.places if one[:KEY_BYTES] in keys]:
                    try:
                        yield digest, found.record(digest)
                    except CheckpointError:  # damaged there; it may lie elsewhere, too
                        continue
                    keys.discard(digest[:KEY_BYTES])
            except CheckpointError:  # gone, denied: a copy helps as far as it can be read
                continue

    def read_at(self, path: Path, offset: int, length: int) -> bytes:
        """Return bytes of a file of the copy."""
        fd = self._disk.open_read(path)
        try:
            return self._disk.read(fd, length, offset)
        finally:
            self._disk.close(fd)

    def places(self, path: Path) -> dict[bytes, tuple[int, int]]:
        """Return where a container's chunks lie, by digest: offset and length of frames."""
        if path.suffix == ".pack":
            try:
                lines = read_lines(path, self._store_id)
                return {digest: (offset, length) for digest, offset, length in lines}
            except CheckpointError:
                pass  # its index is damaged: by its frames, then
        data = self._whole(path)
        is_pack = path.suffix == ".pack"
        seed = frame.container_seed(self._store_id, path.name)
        walk = Walk(seed, data, judge_by(lambda _digest, _record: None), ())
        start = pack.HEADER_FRAME_BYTES if is_pack else HEADER_FRAME_BYTES
        walk.run(start, len(data), kinds=_CHUNKS)
        return {one.digest: (one.offset, one.length) for one in walk.pieces if one.digest}

    def frame_at(self, path: Path, offset: int, length: int) -> bytes:
        """Return the body of a frame of the copy, checked."""
        data = self.read_at(path, offset, length)
        seed = frame.container_seed(self._store_id, path.name)
        return bytes(frame.decode(seed, offset, data).body)


class _Container:
    """The chunks of one file of a copy."""

    def __init__(self, copy: SecondCopy, path: Path, codec: Codec) -> None:
        self._copy = copy
        self._path = path
        self._codec = codec
        self.places = copy.places(path)

    def record(self, digest: bytes) -> bytes:
        """Return a chunk's record, which needs no other chunk.

        Raises:
            CheckpointError: It is not whole.
        """
        record = self._stored(digest)
        raw = self._raw(digest)
        if not chunk.base_in(record):
            return record
        domain, _ = chunk.outline(record)
        return self._codec.encode(domain, digest, raw)

    def _stored(self, digest: bytes) -> bytes:
        place = self.places.get(digest)
        if place is None:
            raise BlobCorruptionError(f"The base {digest.hex()} is not there.")
        return self._copy.frame_at(self._path, *place)

    def _raw(self, digest: bytes) -> bytes:
        """Return a chunk's bytes: those of the base that differs from nothing, then each above."""
        chain = [(digest, self._stored(digest))]
        while base := chunk.base_in(chain[-1][1]):
            if len(chain) > _DIFFERENCES_MAX:
                raise BlobCorruptionError(f"{digest.hex()} differs from too many.")
            chain.append((base, self._stored(base)))
        raw = b""
        for name, record in reversed(chain):
            raw = self._codec.raw(record, name, base_of=lambda _, below=raw: below)  # type: ignore[misc]
        return raw


_DIFFERENCES_MAX = 128


def _sorted(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []
