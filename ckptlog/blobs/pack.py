"""Packs: many chunks outside of the log, written whole, named once, never changed.

Invariants (specs/pack.md has the bytes):
* A file of a pack's name is a whole pack: it is written under a temporary name, synced, and only
  then renamed. When `write_packs` returns, bytes and names are durable, so that a commit may
  register the packs; nothing else makes them count.
* On any failure nothing is left behind under a pack's name or a temporary one (a crash can leave
  both; collection knows them by their base).
* `read_index` trusts nothing but what checksums bind to this store and this name. Chunk frames
  themselves are checked when they are read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Final

from ckptlog.errors import (
    BlobCorruptionError,
    CheckpointStorageError,
    FormatError,
    MissingBlobError,
    operating_system_door,
)
from ckptlog.formats import frame, pack
from ckptlog.formats.line import Lines, lines_among, met_among
from ckptlog.formats.relocation import Place, relocate
from ckptlog.model.entry import Placement
from ckptlog.model.event import PackEntry
from ckptlog.storage import files

FOLDER: Final = "packs"
PACK_BYTES_MAX: Final = 64 * 1024 * 1024
# Fewer than the format allows: it bounds the memory of whoever goes through a pack's lines.
PACK_CHUNKS_MAX: Final = 200_000
# Lines that are looked at together, and bytes of a pack that are read at once.
_LINES_AT_ONCE: Final = 50_000
_SPAN_BYTES: Final = 2 * 1024 * 1024
_BUFFER_BYTES: Final = 1024 * 1024
_WRITE_BACK_BYTES: Final = 8 * 1024 * 1024
# One line of a pack's index: digest, offset, length (specs/pack.md).
_INDEX_LINE_BYTES: Final = 44
# What a pack with one chunk has besides its record and what was written before.
_FOOT_BYTES: Final = frame.HEADER_BYTES + pack.TRAILER_FRAME_BYTES
_AROUND_BYTES: Final = frame.HEADER_BYTES + _INDEX_LINE_BYTES + _FOOT_BYTES
_NAME_TRIES_MAX: Final = 8

Relocated = Callable[[Lines, Place], tuple[bytes, int]]
"""Gives the frames of chunks for another place, and of how many lines (formats.relocation)."""


def write_packs(
    folder: Path,
    store_id: bytes,
    base: int,
    records: Iterable[tuple[bytes, bytes]],
    random_id: Callable[[], bytes],
) -> tuple[tuple[PackEntry, ...], tuple[Placement, ...]]:
    """Write the chunks of one commit as packs of at most 64 MiB each.

    Args:
        folder: The store's folder of packs; it exists.
        base: Log position at which the commit's preparation began.
        records: Digest and record of each chunk; a digest that comes again is left out.
        random_id: Returns 16 unpredictable bytes.

    Returns:
        What the commit's event must register, and where each chunk lies.

    Raises:
        CheckpointStorageError: Nothing was written that counts, and nothing is left behind.

    Durability: all of it, bytes and names, when the call returns.
    """
    writer = PackWriter(folder, store_id, base, random_id)
    try:
        for digest, record in records:
            writer.add(digest, record)
        return writer.finish()
    except BaseException:
        writer.discard()
        raise


class PackWriter:
    """Writes packs one after another; end with `finish` or `discard`.

    Threads: one.
    """

    def __init__(
        self, folder: Path, store_id: bytes, base: int, random_id: Callable[[], bytes]
    ) -> None:
        self._folder = folder
        self._store_id = store_id
        self._base = base
        self._random_id = random_id
        self._open: _OpenPack | None = None
        self._written: list[Path] = []
        self._entries: list[PackEntry] = []
        self._placements: dict[bytes, Placement] = {}

    def has(self, digest: bytes) -> bool:
        """Say whether a chunk was written."""
        return digest in self._placements

    def has_beside(self, digest: bytes) -> bool:
        """Say whether a chunk lies in the pack that the next one goes to, if that has room."""
        place = self._placements.get(digest)
        return (
            place is not None
            and self._open is not None
            and (place.container == self._open.container)
        )

    def make_room(self, record_bytes: int) -> None:
        """Begin a new pack with the next chunk, where the present one has no room for so much."""
        if self._open is not None and not self._open.has_room(record_bytes):
            self._close_pack(self._open)

    def add(self, digest: bytes, record: bytes) -> None:
        """Write one chunk, into a new pack where the present one is full."""
        if digest in self._placements:
            return
        self.make_room(len(record))
        if self._open is None:
            self._open = self._begin()
        self._placements[digest] = self._open.add(digest, record)

    def copy(self, lines: Lines, relocated: Relocated) -> int:
        """Write chunks as their frames are given for here; return how many were.

        It ends where the present pack does. 0: the first one is not for this way, but for `add`.

        Args:
            lines: At least one; none was written before, and none is there twice.
        """
        self.make_room(lines[0][2] - frame.HEADER_BYTES)
        if self._open is None:
            self._open = self._begin()
        added = self._open.copy(lines, relocated)
        self._placements.update([(one.digest, one) for one in added])
        return len(added)

    def finish(self) -> tuple[tuple[PackEntry, ...], tuple[Placement, ...]]:
        """Make everything durable and return what to register and where the chunks lie."""
        if self._open is not None:
            self._close_pack(self._open)
        if self._written:
            files.sync_directory(self._folder)
        return tuple(self._entries), tuple(self._placements.values())

    def discard(self) -> None:
        """Remove everything that was written."""
        if self._open is not None:
            self._open.discard()
            self._open = None
        for path in self._written:
            files.remove(path)

    def _begin(self) -> _OpenPack:
        for _ in range(_NAME_TRIES_MAX):
            pack_id = self._random_id()
            path = self._folder / pack.pack_name(self._base, pack_id)
            if not os.path.lexists(path):
                header = pack.PackHeader(self._store_id, pack_id, self._base)
                return _OpenPack(path, header)
        raise CheckpointStorageError(
            f"Every name that was drawn for a pack is taken in {self._folder}."
        )

    def _close_pack(self, written: _OpenPack) -> None:
        self._open = None
        try:
            size = written.close()
        except BaseException:
            written.discard()
            raise
        self._written.append(written.path)
        pack_id = written.header.pack_id.hex()
        self._entries.append(PackEntry(base=self._base, bytes=size, id=pack_id))


class _OpenPack:
    """One pack while it is written, under a temporary name."""

    def __init__(self, path: Path, header: pack.PackHeader) -> None:
        self.path = path
        self.header = header
        self._seed = pack.seed(header.store_id, header.base, header.pack_id)
        self.container = f"{FOLDER}/{path.name}"
        self._chunks: list[Placement] = []
        self._buffer = bytearray(pack.encode_header(header))
        self._flushed = 0
        self._begun = 0  # up to where the system was told to write it out
        if not path.parent.is_dir():  # a copy of a store may lack a folder that was empty
            with operating_system_door("Cannot make the folder of packs"):
                path.parent.mkdir(exist_ok=True)
            files.sync_directory(path.parent.parent)
        self._fd, self._temporary = files.create_temporary(path)

    @property
    def _size(self) -> int:
        return self._flushed + len(self._buffer)

    def has_room(self, record_bytes: int) -> bool:
        count = len(self._chunks)
        written = self._flushed + len(self._buffer)
        size = written + record_bytes + count * _INDEX_LINE_BYTES + _AROUND_BYTES
        return count < PACK_CHUNKS_MAX and size <= PACK_BYTES_MAX

    def copy(self, lines: Lines, relocated: Relocated) -> list[Placement]:
        lines = self._fitting(lines)
        at, container = self._size, self.container
        frames, count = relocated(lines, Place(self._seed, at))
        added = []
        for digest, _, length in lines[:count]:
            added.append(Placement(digest, container, at, length))
            at += length
        self._chunks += added
        self._write(frames)
        return added

    def _fitting(self, lines: Lines) -> Lines:
        """Return those of some chunks, from the first one on, that there is room for.

        No more than are held in memory at once.
        """
        count = len(self._chunks)
        room = PACK_BYTES_MAX - self._size - count * _INDEX_LINE_BYTES - _FOOT_BYTES
        lines, size = lines[: PACK_CHUNKS_MAX - count], 0
        for number, (_, _, length) in enumerate(lines):
            size += length
            if size + (number + 1) * _INDEX_LINE_BYTES > room or (number and size > _SPAN_BYTES):
                return lines[:number]
        return lines

    def add(self, digest: bytes, record: bytes) -> Placement:
        offset = self._flushed + len(self._buffer)
        framed = frame.encode(self._seed, offset, frame.CHUNK, 0, record)
        self._write(framed)
        placement = Placement(digest, self.container, offset, len(framed))
        self._chunks.append(placement)
        return placement

    def close(self) -> int:
        """Write the index, sync, take the final name; return the size in bytes."""
        chunks = [(one.digest, one.offset, one.length) for one in self._chunks]
        self._write(pack.encode_lines(self._seed, self._size, chunks))
        self._flush()
        files.sync_file(self._fd)
        files.publish(self._temporary, self.path, durable=False)
        self._close_fd()
        return self._size

    def discard(self) -> None:
        files.remove(self._temporary)
        files.remove(self.path)
        self._close_fd()

    def _write(self, data: bytes) -> None:
        if len(data) >= _BUFFER_BYTES:
            self._flush()
            self._put(data)
            return
        self._buffer += data
        if len(self._buffer) >= _BUFFER_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._put(self._buffer)
        self._buffer.clear()

    def _put(self, data: bytes | bytearray) -> None:
        files.write_all(self._fd, data, self._flushed)
        self._flushed += len(data)
        if self._flushed - self._begun >= _WRITE_BACK_BYTES:
            files.begin_writing_back(self._fd, self._begun, self._flushed - self._begun)
            self._begun = self._flushed

    def _close_fd(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with suppress(OSError):  # synced already, or thrown away
                os.close(fd)


def read_index(path: Path, store_id: bytes) -> tuple[Placement, ...]:
    """Return where the chunks of a pack lie, sorted by digest; errors are those of `read_lines`."""
    container = f"{FOLDER}/{path.name}"
    return tuple(
        Placement(digest, container, offset, length)
        for digest, offset, length in read_lines(path, store_id)
    )


def read_lines(path: Path, store_id: bytes) -> list[tuple[bytes, int, int]]:
    """Return digest, offset and length of the chunks' frames in a pack, sorted by digest.

    Raises:
        MissingBlobError: There is no such file.
        FormatError: It is not a whole pack of this store under its own name.
        UnsupportedError: A newer version wrote it.

    Cost: reads header, index and trailer only; allocates no more than the file's size.
    """
    with _opened(path) as fd:
        offset, count, data, place = _index(fd, path.name, store_id)
        lines = pack.decode_lines(place, offset, data)
        if len(lines) != count:
            raise FormatError("Its index does not agree with its trailer.")
        return lines


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    with operating_system_door("Cannot open a pack"):
        try:
            fd = files.open_regular(path)
        except FileNotFoundError as error:
            raise MissingBlobError(
                f"The pack {path} is missing.", hint="Run ckptlog verify.", path=str(path)
            ) from error
    try:
        yield fd
    except FormatError as error:
        raise FormatError(
            f"The pack {path} is damaged: {error.message}",
            hint="Run ckptlog verify; other checkpoints can still be read.",
            path=str(path),
        ) from error
    finally:
        os.close(fd)


class PackIndex:
    """The lines of a pack's index as they stand there, for who looks at few of a million.

    Attributes:
        count: Number of chunks. chunk_bytes: Of their frames.

    Raises:
        MissingBlobError, FormatError, UnsupportedError: As `read_lines`; the lines themselves are
            covered by the frame's sum only.
    """

    def __init__(self, path: Path, store_id: bytes) -> None:
        with _opened(path) as fd:
            offset, self.count, data, place = _index(fd, path.name, store_id)
            self._body = bytes(frame.decode(place, offset, data).body)
            if len(self._body) != self.count * _INDEX_LINE_BYTES:
                raise FormatError("Its index does not agree with its trailer.")
        self.chunk_bytes = offset - pack.HEADER_FRAME_BYTES

    def first(self, count: int) -> Lines:
        """Return so many lines, or all."""
        return lines_among(self._body[: count * _INDEX_LINE_BYTES], None)

    def lines(self, keys: AbstractSet[bytes] | None, sieve: bytes = b"") -> Iterator[Lines]:
        """Yield the lines of chunks, as they stand there, some at a time.

        Args:
            keys, sieve: Of those that are wanted, as for `lines_among`; None for all.
        """
        step = _LINES_AT_ONCE * _INDEX_LINE_BYTES
        for at in range(0, len(self._body), step):
            yield lines_among(self._body[at : at + step], keys, sieve)

    def met(self, keys: AbstractSet[bytes], sieve: bytes) -> tuple[set[bytes], int, int]:
        """Return of the chunks that are wanted the keys, how many, and the frames' bytes."""
        return met_among(self._body, keys, sieve)


def _index(fd: int, name: str, store_id: bytes) -> tuple[int, int, bytes, int]:
    """Return offset, lines and bytes of a pack's index frame, and the pack's seed."""
    with operating_system_door("Cannot look at a pack"):
        size = os.fstat(fd).st_size
    if size < pack.HEADER_FRAME_BYTES + pack.TRAILER_FRAME_BYTES:
        raise FormatError(f"{size} bytes cannot be a pack.")
    header = pack.decode_header(store_id, name, files.read_at(fd, pack.HEADER_FRAME_BYTES, 0))
    place = pack.seed(store_id, header.base, header.pack_id)
    trailer = files.read_at(fd, pack.TRAILER_FRAME_BYTES, size - pack.TRAILER_FRAME_BYTES)
    offset, count = pack.decode_trailer(place, size, trailer)
    data = files.read_at(fd, size - pack.TRAILER_FRAME_BYTES - offset, offset)
    return offset, count, data, place


class PackReader:
    """Reads many chunks of one pack, ahead of who goes forward.

    Raises:
        MissingBlobError: There is no such pack.

    Threads: one.
    """

    def __init__(self, root: Path, container: str, store_id: bytes) -> None:
        self._container = container
        self._seed = frame.container_seed(store_id, container.rpartition("/")[2])
        self._data, self._start = b"", 0
        with operating_system_door("Cannot open a pack"):
            try:
                self._fd = os.open(root / container, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError as error:
                raise MissingBlobError(
                    f"The pack {container} is missing.", container=container
                ) from error

    def record(self, offset: int, length: int, digest: bytes) -> bytes:
        """Return the record at a place, its frame checked.

        Raises:
            BlobCorruptionError: No sound frame with that chunk stands there.
        """
        begin = offset - self._start
        if begin < 0 or begin + length > len(self._data):
            self._data = files.read_at(self._fd, max(length, _BUFFER_BYTES), offset)
            self._start, begin = offset, 0
        try:
            kind, _, end = frame.measure(self._seed, offset, self._data, begin)
        except FormatError as error:
            raise self._damaged(offset, error.message) from error
        record = self._data[begin + frame.HEADER_BYTES : end]
        if kind != frame.CHUNK or end - begin != length or not record.startswith(digest):
            raise self._damaged(offset, "another frame stands there.")
        return record

    def relocated(self, lines: Lines, target: Place) -> tuple[bytes, int]:
        """Return the frames of chunks for another place, and of how many lines (see `relocate`).

        Args:
            lines: In the order of the file; what lies far behind the first is left for later.
        """
        start = lines[0][1]
        stop = max(start + lines[0][2], start + _SPAN_BYTES)
        near = list(takewhile(lambda line: line[1] + line[2] <= stop, lines))
        span = near[-1][1] + near[-1][2] - start
        return relocate(files.read_at(self._fd, span, start), start, near, self._seed, target)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _damaged(self, offset: int, why: str) -> BlobCorruptionError:
        return BlobCorruptionError(
            f"The pack {self._container} is damaged at {offset}: {why}",
            hint="Run ckptlog verify; other checkpoints can still be read.",
            container=self._container,
            offset=offset,
        )
