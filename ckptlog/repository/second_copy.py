"""A second copy of a store, from which damaged bytes are taken. Who asks checks them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from ckptlog.blobs import difference
from ckptlog.blobs.cache import Cache
from ckptlog.blobs.codec import Codec
from ckptlog.blobs.pack import FOLDER as PACKS
from ckptlog.blobs.pack import read_lines
from ckptlog.errors import (
    ArgumentError,
    BlobCorruptionError,
    CheckpointError,
    NotAStoreError,
    StoreMissingError,
)
from ckptlog.formats import chunk, frame, pack
from ckptlog.formats.end import End
from ckptlog.formats.segment import HEADER_FRAME_BYTES
from ckptlog.formats.store import StoreInfo
from ckptlog.log.published import PublishedEnd
from ckptlog.log.segments import FOLDER as LOG
from ckptlog.repository import layout
from ckptlog.repository.claim import KEY_BYTES
from ckptlog.repository.gap import Admits, Copy, Walk, judge_by, stands_itself
from ckptlog.storage.disk import Disk

_CHUNKS: Final = frozenset({frame.CHUNK, frame.EVENT})
_RAWS_BYTES: Final = 8 * 1024 * 1024
FILE_BYTES_MAX: Final = 256 * 1024 * 1024
"""What is read of one of a copy's files: segments and packs are begun anew after 64 MiB, and a file
with holes may say any length."""
_FRAME_BYTES_MAX: Final = frame.HEADER_BYTES + frame.BODY_BYTES_MAX


class SecondCopy:
    """Another directory of the same store.

    Attributes:
        unread: Files that are there and cannot be read, and why: it counts as having none.

    Raises:
        ArgumentError: It is another store, or the same directory.
        StoreMissingError, NotAStoreError: There is none.
    """

    def __init__(self, path: Path, root: Path, store_id: bytes, disk: Disk) -> None:
        self.path = path
        self._disk = disk
        self._store_id = store_id
        self.unread: dict[str, str] = {}
        if path.resolve() == root.resolve():
            raise ArgumentError(
                f"{path} is the damaged store itself.", hint="Name a copy.", argument="from"
            )
        info = _info(path)
        if info.id_bytes != store_id:
            raise ArgumentError(
                f"{path} is another store: its id is {info.id}, not {store_id.hex()}.",
                hint="Name a copy or a backup of this store.",
                argument="from",
            )

    def of(self, container: str, admits: Admits | None = None) -> Copy | None:
        """Return the copy of a container; None where it has none.

        Args:
            admits: Says which of its frames may be taken; by default, none that are stand-ins.
        """
        if not self._has(container):
            return None
        return Copy(lambda: self._read(container), admits or stands_itself(container))

    def _has(self, container: str) -> bool:
        try:
            return (self.path / container).exists()
        except OSError as error:
            self.unread[container] = str(error)
            return False

    def _read(self, container: str) -> bytes:
        try:
            return read_whole(self._disk, self.path / container)
        except CheckpointError as error:
            self.unread[container] = error.message
            return b""

    def end(self) -> End | None:
        """Return its published end; None where that is missing or damaged."""
        published = PublishedEnd(
            self.path / LOG / "end", self._store_id, self._disk, read_only=True
        )
        try:
            return published.read()
        finally:
            published.close()

    def chunks(self, keys: set[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Yield what `Chunks.found` does of all its packs and segments."""
        folder = self.path
        paths = [*_sorted(folder / PACKS, "*.pack"), *_sorted(folder / LOG, "*.seg")]
        return Chunks(paths, self._store_id, self._disk).found(keys)


def _info(path: Path) -> StoreInfo:
    """Return what the copy's store.json says; who names a wrong path is not told to make a store.

    Raises:
        StoreMissingError, NotAStoreError, UnsupportedError, FormatError: By what is there.
    """
    hint = "Correct the path: a copy of this store is needed, or a backup of it."
    try:
        return layout.read_info(path)
    except StoreMissingError as error:
        raise StoreMissingError(
            f"There is no copy at {path}.", hint=hint, path=str(path)
        ) from error
    except NotAStoreError as error:
        raise NotAStoreError(error.message, hint=hint, path=str(path)) from error


class Chunks:
    """The chunks of some packs and segments, none of which need be whole."""

    def __init__(self, paths: Iterable[Path], store_id: bytes, disk: Disk) -> None:
        self._paths = paths
        self._store_id = store_id
        self._disk = disk

    def found(self, keys: set[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Yield digest and record of chunks, wherever they lie; verified, none a difference.

        Args:
            keys: First halves of their digests. What was found is removed.

        Cost: reads the indexes of packs, and whole segments, until everything is found.
        """
        for path in self._paths:
            if not keys:
                return
            try:
                container = _Container(path, self._store_id, self._disk)
            except CheckpointError:  # gone, denied: a copy helps as far as it can be read
                continue
            for digest in [one for one in container.places if one[:KEY_BYTES] in keys]:
                try:
                    record = container.record(digest)
                except CheckpointError:  # damaged there; it may lie elsewhere, too
                    continue
                keys.discard(digest[:KEY_BYTES])
                yield digest, record


class _Container:
    """The chunks of one file. places: By digest, offset and length of the frame."""

    def __init__(self, path: Path, store_id: bytes, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        self._store_id = store_id
        self._seed = frame.container_seed(store_id, path.name)
        self._codec = Codec()
        self._raws: Cache[bytes, bytes] = Cache(_RAWS_BYTES)
        self.places = self._found()

    def _found(self) -> dict[bytes, tuple[int, int]]:
        is_pack = self._path.suffix == ".pack"
        if is_pack:
            try:
                lines = read_lines(self._path, self._store_id)
                return {digest: (offset, length) for digest, offset, length in lines}
            except CheckpointError:
                pass  # its index is damaged: by its frames, then
        data = read_whole(self._disk, self._path)
        walk = Walk(self._seed, data, judge_by(lambda _digest, _record: None), ())
        start = pack.HEADER_FRAME_BYTES if is_pack else HEADER_FRAME_BYTES
        walk.run(start, len(data), kinds=_CHUNKS)
        return {one.digest: (one.offset, one.length) for one in walk.pieces if one.digest}

    def record(self, digest: bytes) -> bytes:
        """Return a chunk's record, which needs no other chunk.

        Raises:
            CheckpointError: It is not whole.
        """
        record = self._stored(digest)
        raw = difference.undone(digest, self._stored, self._codec, known=self._raws)
        if not chunk.base_in(record):
            return record
        domain, _ = chunk.outline(record)
        return self._codec.encode(domain, digest, raw)

    def _stored(self, digest: bytes) -> bytes:
        place = self.places.get(digest)
        if place is None:
            raise BlobCorruptionError(f"The base {digest.hex()} is not there.")
        offset, length = place
        fd = self._disk.open_read(self._path)
        try:
            data = self._disk.read(fd, min(length, _FRAME_BYTES_MAX), offset)
        finally:
            self._disk.close(fd)
        return bytes(frame.decode(self._seed, offset, data).body)


def read_whole(disk: Disk, path: Path) -> bytes:
    """Return the bytes of a file of a copy, as many as it can have."""
    fd = disk.open_read(path)
    try:
        return disk.read(fd, min(disk.size(fd), FILE_BYTES_MAX), 0)
    finally:
        disk.close(fd)


def _sorted(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []
