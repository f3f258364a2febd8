"""Takes the chunks of one commit as they come, however many: the sink of blobs.tree_writer.

    known, and held by the witness?  -> nothing
    up to 1 MiB of records           -> held here, to ride in the log
    more                             -> compressed by two threads -> packs, as they come

Nothing counts before a commit registers it. What is dropped unfinished leaves no file behind; a
crash leaves packs that no event names, which a collection removes.

A chunk is taken as stored only if the witness holds it: a checkpoint that lives, which is checked
again under the log's lock. So the index alone is not believed; a walk over the witness's branches
is made, as far as it takes to find what is asked for, and only once something is asked for that
the index knows: a capture without changes reads nothing.

Memory: 16 MiB of chunks on their way, 1 MiB of a pack, some 100 bytes for each chunk of the
witness that was walked over, some 400 for each new one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from threading import Lock
from typing import TYPE_CHECKING, Final, Self

import msgspec

from ckptlog.blobs.pack import PackWriter
from ckptlog.blobs.payload import LEAF_KIND, TREE_KIND, root_of
from ckptlog.blobs.tree_reader import Stored
from ckptlog.blobs.tree_writer import SINGLE_RAW_MAX, TreeWriter
from ckptlog.errors import CheckpointError, StoreClosedError
from ckptlog.formats import branch, chunk
from ckptlog.formats.frame import HEADER_BYTES
from ckptlog.log.batch import CHUNK_BYTES_IN_LOG_MAX
from ckptlog.model.entry import Placement
from ckptlog.model.event import PackEntry, Reference
from ckptlog.storage.pool import Pool

if TYPE_CHECKING:
    from ckptlog.model.secret import Sanitiser
    from ckptlog.repository.store import Store

_THREADS: Final = 2
_IN_FLIGHT_BYTES: Final = 16 * 1024 * 1024
# Shorter chunks are compressed at once: handing them over costs as much.
_THREAD_BYTES_MIN: Final = 16 * 1024
# Of chunks that are stored, but perhaps not by the witness: about what finding out costs.
_WRITTEN_AGAIN_MAX: Final = 1024 * 1024


class Before(msgspec.Struct, frozen=True, gc=False):
    """The witness: a checkpoint whose payload holds chunks that need not be stored again."""

    checkpoint: str
    data: Reference


class Planted(msgspec.Struct, frozen=True, gc=False):
    """What a commit brings: records for the log, or packs. new: Bytes that it adds."""

    records: tuple[bytes, ...]
    packs: tuple[PackEntry, ...]
    placements: tuple[Placement, ...]
    new: int


class Planting:
    """The chunks of one commit to be. End with a commit (`finish`), or `discard`.

    Args:
        before: Whose chunks are reused; None where everything is new.
        sanitiser: For the values that writers of it are given.

    Attributes:
        base: Position of the log when it began.
        new_bytes: Raw bytes of the chunks that were new so far.

    Threads: safe; several writers may plant at once.
    """

    def __init__(
        self, store: Store, before: Before | None = None, *, sanitiser: Sanitiser | None = None
    ) -> None:
        store.catch_up()
        self._store = store
        self.before = before
        self.base = store.position
        self.new_bytes = 0
        self._sanitiser = sanitiser
        self._cleaned = 0
        self._index = store.blobs.index
        self._retained = _Retained(store, before.data if before else None)
        self._lock = Lock()
        self._own: set[bytes] = set()
        self._pool: Pool | None = None
        self._waiting: deque[tuple[bytes, Future[bytes] | bytes, int]] = deque()
        self._in_flight = 0
        self._held: list[tuple[bytes, bytes]] = []
        self._held_bytes = 0
        self._record_bytes = 0
        self._packs: PackWriter | None = None
        self._writers: list[TreeWriter] = []
        self._is_over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    @property
    def sanitised(self) -> int:
        """Secrets that its writers, and `clean`, replaced."""
        return self._cleaned + sum(writer.sanitised for writer in self._writers)

    def clean(self, text: str) -> str:
        """Return a text with its secrets replaced; they count as those of the commit."""
        if self._sanitiser is None:
            return text
        text, count = self._sanitiser.clean_text(text)
        self._cleaned += count
        return text

    def writer(self) -> TreeWriter:
        """Return a writer for one component, for one thread."""
        blobs = self._store.blobs
        made = TreeWriter(
            self.put,
            blobs.chunker,
            is_stored=self.is_stored,
            expect=self.expect,
            sanitiser=self._sanitiser,
            codecs=self._store.codecs,
        )
        self._writers.append(made)
        return made

    def stored_before(self) -> Stored | None:
        """Return the witness's value, for what is kept of it."""
        if self.before is None:
            return None
        return self._store.stored(self.before.data)

    def put(self, digest: bytes, domain: int, raw: bytes | memoryview) -> bool:
        """Take a chunk, unless it is known; say whether it was new.

        The bytes may change after the call.
        """
        with self._lock:
            self._refuse_over()
            if digest in self._own:
                return False
            self._own.add(digest)
            if self.is_stored(digest) and self._retained.holds(digest, len(raw)):
                return False
            self.new_bytes += len(raw)
            encode = self._store.blobs.record
            if len(raw) < _THREAD_BYTES_MIN:
                self._enqueue(digest, encode(digest, domain, raw), len(raw))
                return True
            if self._pool is None:
                self._pool = Pool(_THREADS, "ckptlog-planting")
            future = self._pool.submit(encode, digest, domain, bytes(raw))
            self._enqueue(digest, future, len(raw))
            return True

    def is_stored(self, digest: bytes) -> bool:
        """Say whether a chunk is stored; that it is retained, only the witness can say."""
        return self._index.get(digest) is not None

    def expect(self, digest: bytes, size: int) -> None:
        """Look first below raw bytes that the witness holds, an earlier version of what comes."""
        with self._lock:
            self._retained.expect(digest, size)

    def put_records(self, fresh: Iterable[tuple[bytes, bytes]]) -> None:
        """Take chunks that are records already, each whole."""
        with self._lock:
            self._refuse_over()
            for digest, record in fresh:
                if digest not in self._own:
                    self._own.add(digest)
                    self._enqueue(digest, record, len(record))

    def finish(self) -> Planted:
        """Return what a commit must bring; packs are durable by then. Afterwards nothing is taken.

        The packs stay: who does not commit calls `discard`.
        """
        with self._lock:
            self._refuse_over()
            self._drain(0)
            self._is_over = True
            self._end_pool()
            if self._packs is None:
                records = tuple(record for _, record in self._held)
                return Planted(records, (), (), self._record_bytes)
            packs, placements = self._packs.finish()
            return Planted((), packs, placements, self._record_bytes)

    def keep(self) -> None:
        """Let what was finished stay: it was committed, or may have been."""
        with self._lock:
            self._packs = None

    def discard(self) -> None:
        """Remove what was written, unless it was kept. Twice is fine."""
        with self._lock:
            self._is_over = True
            self._end_pool()
            self._waiting.clear()
            self._held.clear()
            if self._packs is not None:
                self._packs.discard()
                self._packs = None

    # --- on the way -------------------------------------------------------------------------

    def _refuse_over(self) -> None:
        if self._is_over:
            raise StoreClosedError("This planting is over.", hint="Begin another.")

    def _enqueue(self, digest: bytes, made: Future[bytes] | bytes, size: int) -> None:
        self._waiting.append((digest, made, size))
        self._in_flight += size
        if type(made) is bytes and len(self._waiting) == 1:
            self._drain(0)
        elif self._in_flight > _IN_FLIGHT_BYTES:
            self._drain(_IN_FLIGHT_BYTES * 3 // 4)

    def _drain(self, left: int) -> None:
        """Place what is ready, until no more than some bytes are on their way."""
        while self._waiting and (self._in_flight > left or not left):
            digest, made, size = self._waiting.popleft()
            self._in_flight -= size
            self._place(digest, made if isinstance(made, bytes) else made.result())

    def _place(self, digest: bytes, record: bytes) -> None:
        self._record_bytes += len(record) + HEADER_BYTES
        if self._packs is None:
            self._held.append((digest, record))
            self._held_bytes += len(record) + HEADER_BYTES
            if self._held_bytes <= CHUNK_BYTES_IN_LOG_MAX:
                return
            self._packs = self._store.pack_writer(self.base)
            for one in self._held:
                self._packs.add(*one)
            self._held.clear()
            return
        self._packs.add(digest, record)

    def _end_pool(self) -> None:
        if self._pool is not None:
            self._pool.close(cancel=True)
            self._pool = None


class _Retained:
    """The digests of the witness's chunks, found as they are asked for.

    Texts come first, as they are few and hold the links to all else; then what lies below raw
    bytes; before all others what is expected to be asked for. A branch that cannot be read is left
    out: what it holds is stored again.
    """

    def __init__(self, store: Store, reference: Reference | None) -> None:
        self._store = store
        self._found: set[bytes] = set()
        self._texts: deque[bytes] = deque()
        self._raws: deque[bytes] = deque()
        self._expected: deque[bytes] = deque()
        self._is_led = False
        self._written_again = 0
        if reference is not None and reference.kind in (LEAF_KIND, TREE_KIND):
            root = root_of(reference)
            self._found.add(root)
            if reference.kind == TREE_KIND:
                self._texts.append(root)

    def expect(self, digest: bytes, size: int) -> None:
        """Look first below raw bytes that are the witness's."""
        self._is_led = True
        self._found.add(digest)
        if size > SINGLE_RAW_MAX:
            self._expected.append(digest)

    def holds(self, digest: bytes, size: int) -> bool:
        """Say whether the witness holds a chunk of so many bytes.

        Where somebody says what to expect, nearly all that it holds is found there. What is not is
        written again, as long as that is cheaper than to go through everything.
        """
        while self._expected and digest not in self._found:
            self._expand(self._expected.pop(), is_raw=True, below=self._expected)
        if digest in self._found:
            return True
        if self._is_led and self._written_again + size <= _WRITTEN_AGAIN_MAX:
            self._written_again += size
            return False
        return digest in self

    def __contains__(self, digest: object) -> bool:
        while digest not in self._found:
            if self._texts:
                self._expand(self._texts.popleft(), is_raw=False, below=self._raws)
            elif self._raws:
                self._expand(self._raws.popleft(), is_raw=True, below=self._raws)
            else:
                return False
        return True

    def _expand(self, digest: bytes, *, is_raw: bool, below: deque[bytes]) -> None:
        try:
            leaves, links = branch.links_in(self._store.blobs.raw(digest, chunk.BRANCH))
        except CheckpointError:
            return
        self._found.update(leaves)
        for inner, size, kind in links:
            if inner in self._found:
                continue
            self._found.add(inner)
            if is_raw or kind == branch.BYTES:
                # A writer makes one chunk of so few bytes.
                if is_raw or size > SINGLE_RAW_MAX:
                    below.append(inner)
            else:
                self._texts.append(inner)
