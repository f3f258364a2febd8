"""The blob store: payloads in, verified payloads out.

Invariants:
* Every byte that leaves was checked: the frame's sum, the record's shape, the chunk's digest, the
  tree's sizes. What the index or a container says is only a hint of where to look.
* A chunk that is not where it should be is asked for once more through `missing`, whose owner
  catches up with the log; only then is it an error: `MissingBlobError` where nothing is there,
  `BlobCorruptionError` where the bytes are wrong.
* Container names come from disk and other programs. Only the two shapes that this program writes
  (`log/<segment>`, `packs/<pack>`) ever reach the operating system.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from ckptlog.blobs import difference, payload
from ckptlog.blobs.cache import Cache
from ckptlog.blobs.chunker import Chunker
from ckptlog.blobs.codec import Codec
from ckptlog.blobs.index import ChunkIndex
from ckptlog.blobs.memo import Memo
from ckptlog.blobs.part import Step, part_of
from ckptlog.blobs.recent import Recent
from ckptlog.blobs.tree import Chunk
from ckptlog.errors import (
    BlobCorruptionError,
    CheckpointError,
    FormatError,
    MissingBlobError,
    operating_system_door,
)
from ckptlog.formats import chunk, frame, pack, segment
from ckptlog.model import value as values
from ckptlog.model.codec import Codecs
from ckptlog.model.entry import Placement
from ckptlog.model.event import Reference
from ckptlog.storage import files

# Few enough to leave a program its descriptors; a hot store has a handful of containers.
FILES_OPEN_MAX: Final = 64
# What a frame around the largest record takes; a longer claim is refused before it is read.
_FRAME_BYTES_MAX: Final = (
    frame.HEADER_BYTES + chunk.HEADER_BYTES + chunk.DIGEST_BYTES + chunk.RAW_BYTES_MAX
)
_OFFSET_MAX: Final = (1 << 63) - 1
# What was written and not read again; then what an entry costs besides its bytes, and a digest.
_WRITTEN_BYTES: Final = 2 * 1024 * 1024
_ENTRY_COST: Final = 300
_DIGEST_COST: Final = 110
# Chunks that others are differences from: a list of steps reads the same ones again and again.
_BASES_BYTES: Final = 4 * 1024 * 1024
# What tells a damaged chunk from others, and how many are remembered.
DISTRUST_BYTES: Final = 16
_DISTRUSTED_MAX: Final = 100_000
_DEPTHS_REMEMBERED: Final = 10_000
# Of a short value, which is read faster otherwise, there are fewer differences.
_DELTA_DEPTHS: Final = {chunk.LEAF: 16, chunk.BRANCH: difference.DEPTH_MAX}
_NOTHING: Final[Mapping[bytes, bytes]] = MappingProxyType({})


class BlobStore:
    """Splits values into chunks and reads them back from the containers of one store.

    Args:
        root: The store's folder.
        store_id: 16 bytes.
        cache_bytes: Kept in memory: verified bytes, and what the next versions of payloads that
            were written can be made from; 0 keeps nothing.
        missing: Asked for the place of a chunk that the index does not know, or knows wrongly; it
            should catch up with the log first. May be set later.
        has_trees: Whether long values are cut along their structure (a feature of the store).

    Threads: safe.
    """

    def __init__(
        self,
        root: Path,
        store_id: bytes,
        index: ChunkIndex,
        codec: Codec,
        chunker: Chunker,
        *,
        cache_bytes: int,
        missing: Callable[[bytes, Placement | None], Placement | None] | None = None,
        has_trees: bool = False,
    ) -> None:
        self.index = index
        self.missing = missing
        self._codec = codec
        self._chunker = chunker
        self._cache: Cache[tuple[str, str], bytes] = Cache(cache_bytes * 3 // 10)
        self._digests: Cache[tuple[str, str], frozenset[bytes]] = Cache(cache_bytes // 10)
        # What was just written is read again soon or never: it must not fill the whole cache.
        self._written: Recent[tuple[str, str], bytes] = Recent(
            min(_WRITTEN_BYTES, cache_bytes // 10)
        )
        self._has_trees = has_trees
        self._memos: Cache[str, Memo] = Cache(cache_bytes * 2 // 5)
        self._depths: Cache[tuple[str, int], int] = Cache(_DEPTHS_REMEMBERED)
        # Depths of chunks that were made lately, for a batch: they may be written, or never.
        self._emitted: Cache[bytes, int] = Cache(_DEPTHS_REMEMBERED)
        self._bases: Cache[bytes, bytes] = Cache(min(_BASES_BYTES, cache_bytes // 10))
        self._containers = _Containers(root, store_id)
        self._distrusted: set[bytes] = set()

    @property
    def cached_bytes(self) -> int:
        """What the cache holds: bytes of payloads and of what is known of them."""
        kept = self._digests.cost + self._memos.cost + self._bases.cost
        return self._cache.cost + self._written.cost + kept

    def split(
        self,
        wire: bytes,
        known: frozenset[bytes] = frozenset(),
        old: Reference | None = None,
        container: str = "",
        *,
        is_pending: bool = False,
    ) -> payload.Draft:
        """Return wire as chunks; those in `known` are neither compressed nor emitted.

        Args:
            old: The payload that this one probably comes from; saves work and bytes.
            container: Where the chunks will be written, "" where that is not known: a chunk may be
                stored as a difference from one in the same container only.
            is_pending: Whether the old payload will be committed with this one.

        Where a chunk of `known` was found damaged nothing of it is relied on: all is stored again.
        """
        distrusted = self._distrusted
        if distrusted and any(digest[:DISTRUST_BYTES] in distrusted for digest in known):
            known, old = frozenset(), None
        if not self._has_trees:
            return payload.split(wire, self._chunker, self._codec, known=known)
        if len(wire) < payload.MEMO_BYTES_MIN:
            # Never a difference, nor what another is a difference from: nothing is remembered.
            return payload.plant(wire, self._chunker, self._encode_whole, known=known)
        memo = None if old is None else self._memos.get(old.root)

        def encode(digest: bytes, made: Chunk) -> bytes:
            base = made.base
            depth = -1
            # A chunk that was stored before is stored whole (specs/chunk.md: no cycles).
            if base is not None and container and not self._was_stored(digest, is_pending):
                depth = self._base_depth(base.digest, container, is_pending)
            if base is None or not 0 <= depth < _DELTA_DEPTHS[made.domain]:
                record = self._codec.encode(made.domain, digest, made.raw)
            else:
                record = self._codec.encode_from(made.domain, digest, made.raw, base)
            self._emitted.put(digest, depth + 1 if chunk.base_in(record) else 0, 1)
            if distrusted:
                distrusted.discard(digest[:DISTRUST_BYTES])
            return record

        return payload.plant(wire, self._chunker, encode, memo=memo, known=known)

    @property
    def chunker(self) -> Chunker:
        """What cuts long texts here."""
        return self._chunker

    def record(self, digest: bytes, domain: int, raw: bytes | memoryview) -> bytes:
        """Return the record of a chunk, whole.        Threads: safe."""
        return self._codec.encode(domain, digest, raw)  # type: ignore[arg-type]

    def _encode_whole(self, digest: bytes, made: Chunk) -> bytes:
        self._distrusted.discard(digest[:DISTRUST_BYTES])
        return self._codec.encode(made.domain, digest, made.raw)

    def packed(self, digests: Iterable[bytes]) -> None:
        """Take note that chunks were written into packs: nothing can be a difference from them."""
        for digest in digests:
            self._emitted.put(digest, difference.DEPTH_MAX, 1)

    def _was_stored(self, digest: bytes, is_pending: bool) -> bool:  # noqa: FBT001
        """Say whether a chunk has a record already, or will have one with the pending commit."""
        if self.index.get(digest) is not None:
            return True
        return is_pending and self._emitted.get(digest) is not None

    def _base_depth(self, base: bytes, container: str, is_pending: bool) -> int:  # noqa: FBT001
        """Return the depth of a chunk that another may be a difference from; -1 where it may not.

        Args:
            is_pending: Whether it may be one of a commit that is still being gathered.
        """
        place = self.index.get(base)
        if place is not None:
            return self._depth(place) if place.container == container else -1
        depth = self._emitted.get(base) if is_pending else None
        return -1 if depth is None else depth

    def _depth(self, place: Placement) -> int:
        """Return how many differences lie between a stored record and a whole one.

        It is remembered by place: two records of one chunk may have two depths.
        """
        above: list[Placement] = []
        depth: int | None = None
        with suppress(CheckpointError):
            while (depth := self._depths.get((place.container, place.offset))) is None:
                base = chunk.base_in(self._containers.read(place))
                if not base:
                    depth = 0
                    self._depths.put((place.container, place.offset), 0, 1)
                    break
                above.append(place)
                found = self.index.get(base)
                if found is None or len(above) > difference.DEPTH_MAX:
                    break
                place = found
        if depth is None:
            return difference.DEPTH_MAX
        for place in reversed(above):
            depth += 1
            self._depths.put((place.container, place.offset), depth, 1)
        return depth

    def remember(self, draft: payload.Draft) -> None:
        """Keep what the next version of a payload can be made from."""
        if draft.memo is not None:
            self._memos.put(draft.reference.root, draft.memo, draft.memo.cost)

    def wire(self, reference: Reference, hint: Mapping[bytes, bytes] = _NOTHING) -> bytes:
        """Return the verified wire that a reference names.

        Args:
            hint: Records that the caller has read already, by digest; verified like any other.

        Raises:
            BlobCorruptionError, MissingBlobError: It cannot be read; the message names the chunk.
        """
        key = (reference.kind, reference.root)
        wire = self._cache.get(key) or self._written.get(key) or self._remembered(reference)
        if wire is None:
            wire = payload.assemble(reference, self._reader(hint))
            self._cache.put(key, wire, len(wire) + _ENTRY_COST)
        elif len(wire) != reference.size:
            raise BlobCorruptionError(
                f"Payload {reference.root} has {len(wire)} bytes; {reference.size} are expected.",
                root=reference.root,
            )
        return wire

    def value(
        self, reference: Reference, codecs: Codecs, hint: Mapping[bytes, bytes] = _NOTHING
    ) -> Any:
        """Return a payload's value, new, verified.

        One that is too long for the cache is put together without base64 (`payload.value_of`).

        Args:
            hint: As for `wire`.

        Raises:
            As `wire`, and FormatError as `model.value.decode`.
        """
        if reference.kind == payload.TREE_KIND and reference.size > self._cache.cost_max:
            read = self._reader(hint)
            return payload.value_of(payload.parts_of(reference, read), read, codecs)
        return values.decode(self.wire(reference, hint), codecs)

    def part(self, reference: Reference, path: Sequence[Step]) -> bytes:
        """Return the verified wire of a part of a payload; reads what leads to it and what it is.

        Raises:
            NoSuchPartError: There is nothing at the path.
            BlobCorruptionError, MissingBlobError: It cannot be read.
        """
        wire = self._cache.get((reference.kind, reference.root))
        read = self._reader(_NOTHING)
        wire = wire or self._remembered(reference)
        parts = payload.parts_of(reference, read) if wire is None else [wire]
        return part_of(parts, path, read)

    def _remembered(self, reference: Reference) -> bytes | None:
        """Return the wire of a payload that was written lately and may get a next version."""
        memo = self._memos.get(reference.root)
        return None if memo is None else memo.text

    def put_cached(self, reference: Reference, wire: bytes, digests: frozenset[bytes]) -> None:
        """Keep what was just written, so that the next read or change finds it in memory."""
        if len(wire) < payload.MEMO_BYTES_MIN or not self._has_trees:
            self._written.put((reference.kind, reference.root), wire, len(wire) + _ENTRY_COST)
        self.put_digests(reference, digests)

    def put_digests(self, reference: Reference, digests: frozenset[bytes]) -> None:
        """Keep the digests of a payload's chunks; those of a single chunk are its name."""
        if reference.kind != payload.LEAF_KIND:
            cost = len(digests) * _DIGEST_COST + _ENTRY_COST
            self._digests.put((reference.kind, reference.root), digests, cost)

    def digests(self, reference: Reference) -> frozenset[bytes]:
        """Return the digests of a payload's chunks that are stored, reading its nodes only.

        What the index has nowhere was lost (specs/repair.md), and so was what it has in a container
        that is gone: nobody may rely on it.

        Raises:
            BlobCorruptionError, MissingBlobError: A node cannot be read.
        """
        if reference.kind == payload.LEAF_KIND:
            return self._stored((payload.root_of(reference),))
        key = (reference.kind, reference.root)
        found = self._digests.get(key)
        if found is None:
            found = self._stored(payload.digests_of(reference, self._reader(_NOTHING)))
            self._digests.put(key, found, len(found) * _DIGEST_COST + _ENTRY_COST)
        return found

    def _stored(self, digests: Iterable[bytes]) -> frozenset[bytes]:
        get, is_there = self.index.get, self._containers.is_there
        places = ((digest, get(digest)) for digest in digests)
        return frozenset(
            digest for digest, place in places if place is not None and is_there(place.container)
        )

    def reach(self, reference: Reference, seen: Container[bytes]) -> Iterator[Collection[bytes]]:
        """Yield the digests of a payload's chunks that were not seen yet (`payload.reach`)."""
        return payload.reach(reference, self._reader(_NOTHING), seen)

    def check_payload(self, reference: Reference) -> None:
        """Read and verify every chunk of a payload of any size, without putting it together.

        Raises:
            BlobCorruptionError, MissingBlobError: One is damaged or missing.
        """
        branches: set[bytes] = set()

        def read(digest: bytes, domain: int) -> bytes:
            branches.add(digest)
            return self.raw(digest, domain)

        for digest in payload.digests_of(reference, read) - branches:
            self.raw(digest, chunk.LEAF)

    def forget(self, container: str) -> None:
        """Close a container that counts no more, so that its room comes back."""
        self._containers.forget(container)

    def read_record(self, placement: Placement) -> bytes:
        """Return the record at a place: its frame is checked, the chunk itself is not decoded.

        Raises:
            MissingBlobError: There is no such container.
            BlobCorruptionError: No sound frame with that chunk stands there.
        """
        return self._containers.read(placement)

    def raw(self, digest: bytes, domain: int, hint: Mapping[bytes, bytes] = _NOTHING) -> bytes:
        """Return the verified raw bytes of one chunk."""
        record = hint.get(digest)
        if record is not None:
            try:
                return self._codec.raw(record, digest, domain=domain, base_of=self._base)
            # The copy in the store may be whole; and of a segment that was removed while it is
            # open here, what a difference needs may be gone.
            except (BlobCorruptionError, MissingBlobError):
                pass
        placement = self.index.get(digest)
        if placement is None:
            return self._raw_at(self._ask(digest, None), digest, domain)
        try:
            return self._raw_at(placement, digest, domain)
        except (BlobCorruptionError, MissingBlobError) as error:
            self._containers.forget(placement.container)
            try:
                return self._raw_at(self._ask(digest, error, placement), digest, domain)
            except (BlobCorruptionError, MissingBlobError):
                self.distrust((digest[:DISTRUST_BYTES],))
                raise

    def distrust(self, beginnings: Iterable[bytes]) -> None:
        """Let no new payload rely on chunks that were found damaged or missing.

        Args:
            beginnings: The first DISTRUST_BYTES of their digests.
        """
        if len(self._distrusted) < _DISTRUSTED_MAX:
            self._distrusted.update(beginnings)

    def check(self, digest: bytes, record: bytes) -> bytes:
        """Return the raw bytes of a record that was read already, verified.

        Raises:
            BlobCorruptionError, MissingBlobError: It, or a chunk that it is a difference from, is
                damaged or missing.
        """
        return self._codec.raw(record, digest, base_of=self._base)

    def whole(self, fresh: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Return digests and records of chunks with no difference among them.

        Args:
            fresh: Digests and records; a base is stored, or stands before its differences.

        Raises:
            BlobCorruptionError, MissingBlobError: A base cannot be read.
        """
        raws: dict[bytes, bytes] = {}

        def base_of(digest: bytes) -> bytes:
            raw = raws.get(digest)
            return self._base(digest) if raw is None else raw

        found = []
        for digest, record in fresh:
            raws[digest] = raw = self._codec.raw(record, digest, base_of=base_of)
            if chunk.base_in(record):
                record = self._codec.encode(chunk.decode(record).domain, digest, raw)  # noqa: PLW2901
            found.append((digest, record))
        return found

    def close(self) -> None:
        """Close the files and drop what is cached; a later call opens and reads anew."""
        self._containers.close()
        self._cache.clear()
        self._written.clear()
        self._digests.clear()
        self._memos.clear()
        self._bases.clear()

    def _reader(self, hint: Mapping[bytes, bytes]) -> payload.Read:
        return lambda digest, domain: self.raw(digest, domain, hint)

    def _raw_at(self, placement: Placement, digest: bytes, domain: int | None) -> bytes:
        record = self._containers.read(placement)
        return self._codec.raw(record, digest, domain=domain, base_of=self._base)

    def _base(self, digest: bytes) -> bytes:
        """Return the raw bytes of a chunk that another is a difference from."""
        return difference.undone(
            digest, self._record, self._codec, known=self._bases, cost=_ENTRY_COST
        )

    def _record(self, digest: bytes) -> bytes:
        placement = self.index.get(digest)
        if placement is not None:
            try:
                return self._containers.read(placement)
            except (BlobCorruptionError, MissingBlobError) as error:
                self._containers.forget(placement.container)
                return self._containers.read(self._ask(digest, error, placement))
        return self._containers.read(self._ask(digest, None))

    def _ask(
        self,
        digest: bytes,
        error: BlobCorruptionError | MissingBlobError | None,
        tried: Placement | None = None,
    ) -> Placement:
        placement = self.missing(digest, tried) if self.missing else None
        if placement is not None:
            return placement
        if error is not None:
            raise error
        raise MissingBlobError(
            f"Chunk {digest.hex()} is in no container that the log knows.",
            hint=_GONE,
            digest=digest.hex(),
        )


_GONE: Final = (
    "A compaction lets go of what was deleted, or replaced where it was told to; of anything else "
    "run ckptlog verify: a backup may have it."
)


class _OpenFile:
    """A descriptor that closes when the last thread lets go of it."""

    __slots__ = ("fd",)

    def __init__(self, path: Path) -> None:
        self.fd = -1
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class _Containers:
    """The containers of a store, open for reading, a few at a time."""

    def __init__(self, root: Path, store_id: bytes) -> None:
        self._root = root
        self._store_id = store_id
        self._open: Cache[str, tuple[_OpenFile, int]] = Cache(FILES_OPEN_MAX)
        self._seen: set[str] = set()

    def is_there(self, container: str) -> bool:
        """Say whether a container is there, or was when this was asked before."""
        if container not in self._seen:
            if not (self._root / container).exists():
                return False
            self._seen.add(container)
        return True

    def read(self, placement: Placement) -> bytes:
        """Return the record at a place, its frame checked."""
        container, offset, length = placement.container, placement.offset, placement.length
        if not frame.HEADER_BYTES < length <= _FRAME_BYTES_MAX or not 0 <= offset <= _OFFSET_MAX:
            raise _damaged(placement, f"no chunk has {length} bytes")
        found = self._open.get(container)
        if found is None:
            found = self._opened(placement)
            self._open.put(container, found, 1)
        file, seed = found
        data = files.read_at(file.fd, length, offset)
        try:
            checked = frame.decode(seed, offset, data)
            found_digest = chunk.digest_in(checked.body)
        except FormatError as error:
            raise _damaged(placement, error.message.rstrip(".")) from error
        if checked.kind != frame.CHUNK or checked.offset_end != offset + length:
            raise _damaged(placement, "another frame stands there")
        if found_digest != placement.digest:
            raise _damaged(placement, f"chunk {found_digest.hex()} stands there")
        return bytes(checked.body)

    def forget(self, container: str) -> None:
        """Close a container, so that the next read sees what its name means by then."""
        self._open.remove(container)
        self._seen.discard(container)

    def close(self) -> None:
        self._open.clear()

    def _opened(self, placement: Placement) -> tuple[_OpenFile, int]:
        container = placement.container
        name = container_name(container)
        if name is None:
            raise _damaged(placement, "there are no such containers")
        with operating_system_door("Cannot open a container"):
            try:
                file = _OpenFile(self._root / container)
            except FileNotFoundError as error:
                raise MissingBlobError(
                    f"Chunk {placement.digest.hex()} is in {container}, which is missing.",
                    hint=_GONE,
                    digest=placement.digest.hex(),
                    container=container,
                ) from error
        return file, frame.container_seed(self._store_id, name)


def container_name(container: str) -> str | None:
    """Return the file name in a container's path, None where it is none that we would write."""
    folder, _, name = container.partition("/")
    if folder == "log" and segment.parse_name(name):
        return name
    return name if folder == "packs" and pack.parse_name(name) else None


def _damaged(placement: Placement, why: str) -> BlobCorruptionError:
    return BlobCorruptionError(
        f"Chunk {placement.digest.hex()} is not at {placement.offset} in "
        f"{placement.container!r}: {why}.",
        hint="Run ckptlog verify; other checkpoints can still be read.",
        digest=placement.digest.hex(),
        container=placement.container,
        offset=placement.offset,
    )
