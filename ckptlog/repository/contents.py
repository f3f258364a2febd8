"""What the log's events rely on: chunks in segments and packs, and the payloads made of them.

    commit -> its chunks -> Inspection (two threads) -> facts, links -> Claims -> what is broken
           -> its events -> claims about roots
    packs, after the log -> Inspection, or the frames' heads -> facts, links

The places of chunks come from the containers themselves, never from the store's index, whose word
is only compared. A damaged payload is one problem, however many events name it.

Memory: some batches of a few MiB, and what `Claims` keeps.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from ckptlog.blobs.cache import Cache
from ckptlog.blobs.codec import Codec
from ckptlog.blobs.pack import FOLDER, read_index
from ckptlog.errors import CheckpointError, FormatError, UnsupportedError
from ckptlog.formats import chunk, frame, pack
from ckptlog.formats.store import StoreInfo
from ckptlog.log.scan import Window
from ckptlog.model import value as values
from ckptlog.model.entry import Commit, Placement
from ckptlog.model.event import PackEntry, Reference
from ckptlog.repository import claim
from ckptlog.repository.bookmark import Bookmark
from ckptlog.repository.breakage import Breakage, name_of
from ckptlog.repository.depth import Depth
from ckptlog.repository.inspection import (
    STRETCH_BYTES,
    Bases,
    Batch,
    Found,
    Inspection,
    Stretch,
    runs_of,
)
from ckptlog.repository.report import Book
from ckptlog.storage.disk import Disk

_BATCH_BYTES: Final = 2 * 1024 * 1024
_BATCH_ITEMS: Final = 2000
# A root comes again with the next events of its checkpoint; much later it is simply claimed again.
_ROOTS_REMEMBERED: Final = 50_000
_VALUES_BYTES: Final = 8 * 1024 * 1024
# Asking the index takes longer than hashing a small chunk.
_ASKED_ALWAYS: Final = 10_000
_ASKED_EVERY: Final = 16
_KINDS: Final = {"leaf": claim.LEAF, "tree": claim.BRANCH, "list": claim.NODE}
_HEAD_BYTES: Final = frame.HEADER_BYTES + chunk.HEADER_BYTES


class _OpenPack:
    """A pack that threads read; all of it has come back with the work of number `end`."""

    def __init__(self, container: str, depth: Depth, disk: Disk, fd: int, bases: Bases) -> None:
        self.container = container
        self.depth = depth
        self.end = 0
        self._disk = disk
        self._fd = fd
        self._bases = bases

    def close(self) -> None:
        """Close the file."""
        self._disk.close(self._fd)
        self._bases.close()


class Contents:
    """Checks chunks and payloads.

    Args:
        knows: Says whether the store's index knows a chunk; None where there is none to ask.
    """

    def __init__(
        self,
        root: Path,
        info: StoreInfo,
        disk: Disk,
        book: Book,
        *,
        depth: Depth,
        bookmark: Bookmark,
        knows: Callable[[bytes], bool] | None = None,
    ) -> None:
        self._root = root
        self._store_id = info.id_bytes
        self._disk = disk
        self._book = book
        self._depth = depth
        self._bookmark = bookmark
        self._knows = knows
        self._unknown = 0
        self._codec = Codec()
        self._inspection = Inspection(self._codec)
        self._claims = claim.Claims()
        self.breakage = Breakage(self._claims)
        self._seen: Cache[bytes, bool] = Cache(_ROOTS_REMEMBERED)
        self._values: Cache[bytes, bytes] = Cache(_VALUES_BYTES)
        self._unread: set[str] = set()
        self._undecoded: set[str] = set()
        self._container = ""
        self._depth_here = depth
        self._bases: Bases | None = None
        self._batch = Batch(None)
        self._open_packs: deque[_OpenPack] = deque()

    def add(self, commit: Commit, window: Window) -> None:
        """Check the next commit: its chunks, then the payloads that its events name.

        Args:
            window: On the commit's file.
        """
        if commit.container != self._container:
            self._begin(commit.container)
        assert self._bases is not None  # noqa: S101 - `_begin` made it
        self._bases.learn(commit.placements)
        self._count(commit.placements)
        for place in commit.placements:
            begin = window.locate(place.offset, place.length) + frame.HEADER_BYTES
            record = window.view[begin : begin + place.length - frame.HEADER_BYTES]
            self._record(place, record)
        self._batch.owner.append(commit)
        if self._batch.size >= _BATCH_BYTES or len(self._batch.owner) >= _BATCH_ITEMS:
            self._send()

    def packs(self, entries: list[PackEntry]) -> None:
        """Check packs, after the log."""
        self._end_container()
        for entry in entries:
            self._pack(entry)
            self._end_packs(1)  # the threads work on it while the next one's index is read

    def finish(self, known_losses: frozenset[bytes]) -> None:
        """Join what was found; `breakage` tells of it.

        Args:
            known_losses: Keys of chunks that a repair has told of.
        """
        self._end_container()
        self._end_packs()
        self.breakage.join(known_losses)
        if self._unknown:
            self._book.notes.append(
                f"At least {self._unknown} chunks are not in the chunk index; `ckptlog replay` "
                "renews it."
            )
        for reason in sorted(self._undecoded):
            self._book.notes.append(f"Some values were not decoded: {reason}")

    def close(self) -> None:
        """End the threads, close files."""
        self._inspection.close()
        if self._bases is not None:
            self._bases.close()
        for open_pack in self._open_packs:
            open_pack.close()
        self._claims.close()

    # --- segments ---------------------------------------------------------------------------

    def _begin(self, container: str) -> None:
        self._end_container()
        self._container = container
        self._depth_here = self._depth_of(container)
        name = container.rpartition("/")[2]
        seed = frame.container_seed(self._store_id, name)
        self._bases = Bases(self._root / container, seed, self._disk, self._codec)
        self._batch = Batch(self._bases)

    def _depth_of(self, container: str) -> Depth:
        if self._bookmark.is_done(container):
            self._book.resumed += 1
            self._bookmark.enter(container)
            return Depth("existence")
        return self._depth

    def _record(self, place: Placement, record: memoryview) -> None:
        if self._depth_here.level == "full":
            self._batch.add(place, record)
        else:
            self._record_below_full(place, record)

    def _record_below_full(self, place: Placement, record: memoryview) -> None:
        try:
            domain, size = chunk.outline(record)
        except FormatError as error:
            self._fault(place, error)
            return
        if self._depth_here.takes(place.digest, domain):
            self._batch.add(place, record)
        else:
            self._claims.fact(place.digest, claim.LEAF, size)

    def _count(self, places: Sequence[Placement]) -> None:
        book, knows = self._book, self._knows
        before = book.chunks
        book.chunks += len(places)
        if knows is None:
            return
        asked = places if before < _ASKED_ALWAYS else places[before % _ASKED_EVERY :: _ASKED_EVERY]
        self._unknown += sum(not knows(place.digest) for place in asked)

    def _send(self) -> None:
        batch = self._batch
        self._batch = Batch(batch.bases)
        if batch.items or batch.owner:
            for found in self._inspection.submit(batch):
                self._take(found)

    def _end_container(self) -> None:
        self._send()
        for found in self._inspection.drain():
            self._take(found)
        if self._container:
            self._checked(self._container, self._depth_here)
        self._container = ""
        if self._bases is not None:
            self._bases.close()
            self._bases = None
            self._batch = Batch(None)

    def _checked(self, container: str, depth: Depth) -> None:
        """Take note that all of a container was looked at."""
        if depth.level == "full" and container not in self._book.files:
            self._bookmark.enter(container)

    def _take(self, found: Found) -> None:
        """Enter what a batch held, then the events that came with it."""
        claims = self._claims
        for container, error in found.unread:
            self._not_read(container, error)
        self._book.chunks_hashed += len(found.facts) + len(found.shapes)
        self._book.leaves_hashed += len(found.facts)
        claims.leaves(found.facts)
        for digest, shape in found.shapes:
            claims.fact(digest, shape.code, shape.size)
            for child, size, code in shape.links:
                claims.claim(child, size, code, digest)
        for place, error in found.faults:
            self._fault(place, error)
        for digest, raw in found.values.items():
            self._values.put(digest, raw, len(raw))
        for commit in found.owner:
            for entry in commit.entries:
                for reference in (entry.event.data, entry.event.meta):
                    if reference is not None:
                        self._reference(reference)

    def _not_read(self, container: str, error: CheckpointError) -> None:
        """Tell it once: a bad medium has many bad places."""
        if container not in self._unread:
            self._unread.add(container)
            self._book.problem(error.code, str(error), container)

    def _fault(self, place: Placement, error: CheckpointError) -> None:
        self._book.problem(error.code, error.message, f"{place.container}:{place.offset}")
        self.breakage.bad_chunk(place.digest, error)

    # --- references -------------------------------------------------------------------------

    def _reference(self, reference: Reference) -> None:
        key = name_of(reference)
        if self._seen.get(key):
            return
        self._seen.put(key, True, 1)
        self._book.payloads += 1
        code = _KINDS.get(reference.kind)
        try:
            root = bytes.fromhex(reference.root)
            if code is None or len(root) != chunk.DIGEST_BYTES:
                raise FormatError(f"No payload is a {reference.kind} of {reference.root}.")
            self._claims.claim(root, reference.size, code, key)
            if code == claim.LEAF:
                self._decode(root)
        except UnsupportedError as error:
            self._undecoded.add(error.message)
        except CheckpointError as error:
            self.breakage.bad_payload(key, error)
        except ValueError as error:
            self.breakage.bad_payload(key, FormatError(f"No root of a payload: {error}."))

    def _decode(self, root: bytes) -> None:
        """Decode a value of one chunk, if it was read just now."""
        raw = self._values.get(root)
        if raw is None:
            return
        value = values.decode(raw, opaque=True)
        if type(value) is not dict:
            raise FormatError(f"It is of type {type(value).__name__}; a dictionary is needed.")

    # --- packs ------------------------------------------------------------------------------

    def _pack(self, entry: PackEntry) -> None:
        """Check a registered pack, every frame of it as deep as is asked for."""
        places = read_pack(self._root, self._store_id, entry, self._book)
        if not places:
            return
        name = pack_of(entry)
        container = f"{FOLDER}/{name}"
        self._depth_here = self._depth_of(container)
        seed = frame.container_seed(self._store_id, name)
        places.sort(key=lambda place: place.offset)
        bases = Bases(self._root / container, seed, self._disk, self._codec)
        bases.learn_later(places)
        try:
            fd = self._disk.open_read(self._root / FOLDER / name)
        except CheckpointError as error:  # the medium, or the file went meanwhile
            self._book.problem(error.code, str(error), container)
            return
        open_pack = _OpenPack(container, self._depth_here, self._disk, fd, bases)
        self._open_packs.append(open_pack)
        if self._depth_here.level == "full":
            self._frames(fd, seed, places, bases)
        else:
            try:
                self._heads(fd, seed, places, bases)
            except CheckpointError as error:  # the medium
                self._not_read(container, error)
        open_pack.end = self._inspection.submitted

    def _end_packs(self, left: int = 0) -> None:
        """Wait for packs, the oldest first, and close them, until so many are left."""
        while len(self._open_packs) > left:
            done = self._open_packs[0]
            for found in self._inspection.drain(done.end):
                self._take(found)
            self._open_packs.popleft().close()
            self._checked(done.container, done.depth)

    def _frames(self, fd: int, seed: int, places: list[Placement], bases: Bases) -> None:
        """Read a pack from its beginning to its end, in long reads."""
        expected = pack.HEADER_FRAME_BYTES
        for run in runs_of(places, STRETCH_BYTES):
            for place in run:
                if place.offset != expected:
                    self._gap(place, expected)
                expected = place.offset + place.length
            self._count(run)
            for found in self._inspection.submit(Stretch(self._disk, fd, seed, run, bases)):
                self._take(found)
            self._book.advance(expected - run[0].offset)

    def _gap(self, place: Placement, expected: int) -> None:
        self._book.problem(
            "blob.corrupt",
            f"Chunk {place.digest.hex()} is not there: {expected} is where it should begin",
            f"{place.container}:{place.offset}",
        )

    def _heads(self, fd: int, seed: int, places: list[Placement], bases: Bases) -> None:
        """Read the head of each frame; whole ones where the depth takes them."""
        self._count(places)
        for place in places:
            head = memoryview(self._disk.read(fd, min(_HEAD_BYTES, place.length), place.offset))
            self._book.advance(len(head), place.length)
            size = frame.body_length(head)
            record = head[frame.HEADER_BYTES :]
            try:
                if size is None or frame.HEADER_BYTES + size != place.length:
                    raise FormatError("no such frame stands there")
                if chunk.digest_in(record) != place.digest:
                    raise FormatError("another chunk stands there")
                domain, length = chunk.outline(record)
            except FormatError as error:
                why = f"Chunk {place.digest.hex()} is not there: {error.message}"
                self._fault(place, FormatError(why))
                continue
            if self._depth_here.takes(place.digest, domain):
                self._book.advance(place.length - len(head), 0)
                for found in self._inspection.submit(Stretch(self._disk, fd, seed, [place], bases)):
                    self._take(found)
            else:
                self._claims.fact(place.digest, claim.LEAF, length)


def pack_of(entry: PackEntry) -> str:
    """Return the file name of a registered pack."""
    return pack.pack_name(entry.base, bytes.fromhex(entry.id))


def read_pack(root: Path, store_id: bytes, entry: PackEntry, book: Book) -> list[Placement]:
    """Return where the chunks of a registered pack lie; report it if it is not whole."""
    name = pack_of(entry)
    path = root / FOLDER / name
    try:
        places = list(read_index(path, store_id))
        size = os.stat(path).st_size
        if size != entry.bytes:
            raise FormatError(f"It has {size} bytes; {entry.bytes} were registered.")
    except CheckpointError as error:
        book.problem(error.code, error.message, f"{FOLDER}/{name}")
    except OSError as error:
        book.problem("storage.io", str(error), f"{FOLDER}/{name}")
    else:
        # What was read of it so far: all but its chunks.
        book.advance(size - sum(place.length for place in places))
        return places
    return []


def left_overs(root: Path, registered: set[str]) -> Iterator[str]:
    """Yield a line for each file that does not count: unregistered packs, torn, temporary."""
    for folder in ("", "log", FOLDER, "views", "views/chunks"):
        try:
            names = sorted(os.listdir(root / folder))
        except OSError:
            continue
        for name in names:
            where = f"{folder}/{name}" if folder else name
            if name.endswith(".tmp"):
                yield f"{where} is a temporary file; it does not count."
            elif folder == "log" and name.startswith("torn-"):
                yield f"{where} was cut off by a recovery; it does not count."
            elif folder == FOLDER and name not in registered:
                yield f"{where} is registered by no event that was read; it does not count."
            elif not folder and name == "quarantine":
                yield f"{where} keeps what repairs have replaced; it does not count."
