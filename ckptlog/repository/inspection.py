"""Chunk records on their way through two threads: decoded, hashed, and what they stand for told.

BLAKE3, zstd and XXH3 let go of the interpreter's lock on bytes of some length, so two threads keep
two processors at work. Of segments the one that scans hands over records; packs are read by the
threads themselves. What was found comes back in the order in which work was given; a few are under
way at once, which bounds memory.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Lock, local
from typing import Any, Final

from ckptlog.blobs import difference
from ckptlog.blobs.cache import Cache
from ckptlog.blobs.codec import Codec
from ckptlog.errors import (
    BlobCorruptionError,
    CheckpointError,
    FormatError,
    MissingBlobError,
)
from ckptlog.formats import frame
from ckptlog.formats.raw_leaf import RAW_AT, whole_leaves
from ckptlog.model.entry import Placement
from ckptlog.repository.claim import LEAF, Shape, shape_of
from ckptlog.storage.disk import Disk
from ckptlog.storage.pool import Pool

THREADS: Final = 2
# What is handed to a thread at once: handing over costs as much as hashing some chunks.
STRETCH_BYTES: Final = 8 * 1024 * 1024
# What is read at once: sequential enough for a disk, and it stays in the processor's cache.
READ_BYTES: Final = 512 * 1024
_UNDER_WAY_MAX: Final = 4
_LONG_BYTES: Final = 32 * 1024
_BASES_BYTES: Final = 8 * 1024 * 1024
# Values of one chunk are mostly shorter; they are kept for a moment, to be decoded.
_VALUE_BYTES_MAX: Final = 16 * 1024


class Bases:
    """Chunks of one container that others in it are differences from, undone once while they last.

    Threads: `learn` is called by the one that reads; `raw` by those that hash.
    """

    def __init__(self, path: Path, seed: int, disk: Disk, codec: Codec) -> None:
        self._path = path
        self._seed = seed
        self._disk = disk
        self._codec = codec
        self._places: dict[bytes, tuple[int, int]] = {}
        self._later: Sequence[Placement] = ()
        self._raws: Cache[bytes, bytes] = Cache(_BASES_BYTES)
        self._lock = Lock()
        self._fd = -1

    def learn_later(self, places: Sequence[Placement]) -> None:
        """Take note of the chunks of a pack once one is asked for: few have differences."""
        self._later = places

    def learn(self, places: Sequence[Placement]) -> None:
        """Take note of chunks; the first record of a digest is the one that others may name."""
        known = self._places
        for place in places:
            known.setdefault(place.digest, (place.offset, place.length))

    def raw(self, digest: bytes) -> bytes:
        """Return the verified raw bytes of a chunk in the container.

        Raises:
            MissingBlobError, BlobCorruptionError: It is not here, or not whole.
        """
        return difference.undone(digest, self._record, self._codec, known=self._raws)

    def _record(self, digest: bytes) -> bytes:
        with self._lock:
            if self._later:
                self.learn(self._later)
                self._later = ()
        place = self._places.get(digest)
        if place is None:
            raise MissingBlobError(
                f"Chunk {digest.hex()}, from which another is a difference, is not in "
                f"{self._path.name}.",
                digest=digest.hex(),
            )
        with self._lock:
            if self._fd < 0:
                self._fd = self._disk.open_read(self._path)
        data = self._disk.read(self._fd, place[1], place[0])
        try:
            return bytes(frame.decode(self._seed, place[0], data).body)
        except FormatError as error:
            raise BlobCorruptionError(
                f"Chunk {digest.hex()}, from which it is a difference, is not there: "
                f"{error.message}",
                digest=digest.hex(),
            ) from error

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            self._disk.close(self._fd)
            self._fd = -1


class Batch:
    """Records of one segment, whose frames were checked, to be looked at.

    items: Places, and the records.
    owner: What the caller wants to do once the batch is done.
    """

    __slots__ = ("bases", "items", "owner", "size")

    def __init__(self, bases: Bases | None) -> None:
        self.bases = bases
        self.items: list[tuple[Placement, memoryview]] = []
        self.owner: list[Any] = []
        self.size = 0

    def add(self, place: Placement, data: memoryview) -> None:
        """Add a record; the buffer below data stays alive."""
        self.items.append((place, data))
        self.size += len(data)


class Stretch:
    """Frames of a pack, to be read and looked at by the thread that hashes them.

    places: Ascending, with no more than a few bytes between them.
    bases: Of the whole pack.
    """

    __slots__ = ("bases", "disk", "fd", "places", "seed")

    def __init__(
        self, disk: Disk, fd: int, seed: int, places: list[Placement], bases: Bases
    ) -> None:
        self.disk = disk
        self.fd = fd
        self.seed = seed
        self.places = places
        self.bases = bases


class Found:
    """What was met: facts of sound chunks, links of branches and nodes, faults, short values.

    unread: Containers of which something could not be read, each with why.
    """

    __slots__ = ("facts", "faults", "owner", "shapes", "unread", "values")

    def __init__(self, owner: list[Any]) -> None:
        self.owner = owner
        self.facts: list[tuple[bytes, int]] = []
        self.shapes: list[tuple[bytes, Shape]] = []
        self.faults: list[tuple[Placement, CheckpointError]] = []
        self.unread: list[tuple[str, CheckpointError]] = []
        self.values: dict[bytes, bytes] = {}


class Inspection:
    """Hands work to threads and gives back what was found, in order. Close it.

    Attributes:
        submitted: How many works were handed in.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._pool = Pool(THREADS, "ckptlog-verify")
        self._under_way: deque[Future[Found]] = deque()
        self._local = local()
        self.submitted = 0

    def submit(self, work: Batch | Stretch) -> Iterator[Found]:
        """Hand in work; yield what is done, so that no more than a few are under way."""
        act = self._records if isinstance(work, Batch) else self._frames
        self._under_way.append(self._pool.submit(act, work))  # type: ignore[arg-type]
        self.submitted += 1
        while len(self._under_way) > _UNDER_WAY_MAX:
            yield self._under_way.popleft().result()

    def drain(self, until: int | None = None) -> Iterator[Found]:
        """Yield what is still under way: all, or so much that of all works so many are done."""
        left = 0 if until is None else self.submitted - until
        while len(self._under_way) > left:
            yield self._under_way.popleft().result()

    def close(self) -> None:
        """End the threads."""
        self._pool.close(cancel=True)

    def _records(self, batch: Batch) -> Found:
        found = Found(batch.owner)
        base_of = batch.bases.raw if batch.bases is not None else None
        verified = self._codec.verified
        for place, record in batch.items:
            try:
                domain, raw = verified(record, place.digest, base_of=base_of)
                if domain == LEAF:
                    found.facts.append((place.digest, len(raw)))
                    if len(raw) <= _VALUE_BYTES_MAX:
                        found.values[place.digest] = bytes(raw)
                else:
                    found.shapes.append((place.digest, shape_of(domain, bytes(raw))))
            except CheckpointError as error:
                found.faults.append((place, error))
        return found

    def _frames(self, work: Stretch) -> Found:
        found = Found([])
        for run in runs_of(work.places, READ_BYTES):
            try:
                self._run(work, run, found)
            except CheckpointError as error:  # the medium
                found.unread.append((run[0].container, error))
        return found

    def _run(self, work: Stretch, places: list[Placement], found: Found) -> None:
        """Read frames at once, and look at them while they are in the processor's cache."""
        start = places[0].offset
        length = places[-1].offset + places[-1].length - start
        view = self._buffer(length)
        count = work.disk.read_into(work.fd, view, start)
        view, seed, verified = view[:count], work.seed, self._codec.verified
        leaves = whole_leaves(seed, start, view)
        for place in places:
            begin = place.offset - start
            leaf = leaves.get(begin)
            if leaf == (place.digest, place.length - RAW_AT):
                found.facts.append(leaf)
                continue
            try:
                record = _body(seed, place, view[begin : begin + place.length])
                domain, raw = verified(record, place.digest, base_of=work.bases.raw)
                if domain == LEAF:
                    found.facts.append((place.digest, len(raw)))
                else:
                    found.shapes.append((place.digest, shape_of(domain, bytes(raw))))
            except CheckpointError as error:
                found.faults.append((place, error))

    def _buffer(self, length: int) -> memoryview:
        """Return a buffer of this thread's, which is used again."""
        kept: bytearray | None = getattr(self._local, "buffer", None)
        if kept is None or len(kept) < length:
            kept = self._local.buffer = bytearray(max(length, READ_BYTES))
        return memoryview(kept)[:length]


def runs_of(places: list[Placement], size: int) -> Iterator[list[Placement]]:
    """Yield runs of chunks of so many bytes at most, or of one chunk."""
    first = 0
    while first < len(places):
        limit = places[first].offset + size
        stop = bisect_right(places, limit, first + 1, key=lambda place: place.offset + place.length)
        yield places[first:stop]
        first = stop


def _body(seed: int, place: Placement, data: memoryview) -> memoryview:
    try:
        # Giving the interpreter's lock away and waiting for it costs more than a short copy.
        measure = frame.measure if len(data) < _LONG_BYTES else frame.measure_long
        kind, _, end = measure(seed, place.offset, data)
    except FormatError as error:
        raise _damaged(place, error.message) from error
    if kind != frame.CHUNK or end != place.length:
        raise _damaged(place, "another frame stands there")
    return data[frame.HEADER_BYTES :]


def _damaged(place: Placement, why: str) -> BlobCorruptionError:
    return BlobCorruptionError(f"Chunk {place.digest.hex()} is not there: {why}")
