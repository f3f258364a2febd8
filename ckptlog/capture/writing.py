"""Writes what is held of a system's components, and commits it as one checkpoint.

    held -> frozen parts -> a tree writer of its own -> one planting -> created and completed

The previous capture is the witness: chunks that it holds are not stored again, and what is
remembered of its texts (the memo) saves cutting them again. Both only where it is the newest
checkpoint of the system and holds the very root that was remembered: so nothing is relied on that
the commit does not check under the log's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, Final, NamedTuple, Self

import msgspec

from ckptlog.blobs.memo import Memo
from ckptlog.blobs.pieces import Pieces, Root, pieces_of
from ckptlog.blobs.tree_reader import Stored
from ckptlog.blobs.tree_writer import TreeWriter
from ckptlog.capture import frozen as parts
from ckptlog.capture.frozen import Frozen
from ckptlog.capture.held import Held
from ckptlog.errors import CaptureTooLargeError
from ckptlog.formats.chunk import LEAF
from ckptlog.manager.draft import CreateRequest
from ckptlog.manager.lease import held_of
from ckptlog.manager.manager import CheckpointManager
from ckptlog.manager.planting import PLANTED_BYTES_UNCHECKED
from ckptlog.model.capture import METADATA_KEY, CaptureInfo
from ckptlog.model.component import ABSENT
from ckptlog.model.event import Reference
from ckptlog.repository.store import Store

# Bytes of texts that are kept in memory between two captures; longer ones are cut again.
MEMO_BYTES_MAX: Final = 64 * 1024 * 1024


class Written(NamedTuple):
    """A component's payload, on its way into a commit. bytes_new: Raw, of its new chunks."""

    root: Root
    bytes_new: int
    memo: Memo | None

    @property
    def reference(self) -> Reference:
        """Its name."""
        return self.root.reference


class Recollection:
    """What is remembered of the texts of the newest capture, by component.

    Threads: one changes it, while none reads.
    """

    def __init__(self) -> None:
        self._memos: dict[str, tuple[str, Memo]] = {}

    def of(self, name: str, root: str) -> Memo | None:
        """Return what is remembered of a component's text with a root."""
        found = self._memos.get(name)
        return found[1] if found is not None and found[0] == root else None

    def replace(self, written: Mapping[str, Written]) -> None:
        """Remember the texts of what was committed, as far as there is room."""
        self._memos.clear()
        left = MEMO_BYTES_MAX
        for name, one in written.items():
            if one.memo is not None and one.reference.size <= left:
                left -= one.reference.size
                self._memos[name] = (one.reference.root, one.memo)


class Writing:
    """The payloads of one capture; a context, whose end removes what was not committed.

    Args:
        before: The newest capture, or None.
        size_bytes_max: Limit of all payloads together; None for none.

    Threads: `write` may be called from several at once.
    """

    def __init__(
        self,
        manager: CheckpointManager,
        before: CaptureInfo | None,
        memos: Recollection,
        system: str,
        *,
        size_bytes_max: int | None = None,
    ) -> None:
        self._room = Room(system, size_bytes_max)
        self._manager = manager
        self._planting = manager.planting(system)
        self._memos = memos
        self._before: CaptureInfo | None = None
        self._stored: dict[str, Stored] = {}
        witness = self._planting.before
        if before is not None and witness is not None and witness.checkpoint == before.id:
            self._before = before
            top = manager.store.stored(witness.data)
            self._stored = {
                name: top.get(name)
                for name, one in before.components.items()
                if one.kind != ABSENT  # there is nothing in it to go on from
            }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._planting.discard()

    def write(self, held: Held) -> Written:
        """Write one component's payload.

        Raises:
            ChangedError: A snapshot saw that it is not one.
            UnstorableError: The value cannot be stored.
            CaptureTooLargeError: With it the capture passes its limit.
            CheckpointStorageError: The store refused.
        """
        written = self._write(held)
        self._room.take(held.name, written.reference.size)
        return written

    def _write(self, held: Held) -> Written:
        sink = _Sink(
            self._planting.put,
            lambda new: self._room.check(held.name, new),
            self._manager.check_room,
        )
        store = self._manager.store
        # Not the planting's own writer: that one replaces secrets, and what is brought back must
        # be what was there.
        writer = TreeWriter(
            sink,
            store.blobs.chunker,
            is_stored=self._planting.is_stored,
            expect=self._planting.expect,
            codecs=store.codecs,
        )
        if held.snapshot is not None:
            root = held.snapshot.write(writer, self._stored.get(held.name))
            if not isinstance(root, Root):
                raise TypeError(f"write() returned {type(root).__name__}, not writer.root(...)")
            return Written(root, sink.new, None)
        frozen = held.frozen()
        memo = None
        if isinstance(frozen, parts.Text) and self._before is not None:
            info = self._before.components.get(held.name)
            memo = None if info is None else self._memos.of(held.name, info.root)
        root = writer.root(_planted(writer, frozen, memo))
        is_text = isinstance(frozen, parts.Text)
        return Written(root, sink.new, writer.memo if is_text else None)

    def commit(
        self,
        written: Mapping[str, Written],
        draft: CaptureInfo,
        numbers: Callable[[], tuple[int, str]],
        lease: Any,
    ) -> str:
        """Commit the capture and return its id.

        Args:
            numbers: Gives a number and its command id; another one each time.

        Raises:
            PlantingStaleError: The witness is gone: capture again.
            CheckpointCreationError, CheckpointStorageError: As `create_checkpoint`.
        """
        number, command = numbers()
        clean = self._planting.clean
        about = {
            **draft.to_metadata(),
            "tags": [clean(tag) for tag in draft.tags],
            # The token tells two captures apart that have all else in common.
            "token": self._manager.new_command_id(),
        }
        request = CreateRequest(
            task=draft.system,
            title=draft.system,
            step=number,
            description=clean(draft.description),
            metadata={METADATA_KEY: about},
            # Names, paths and digests are read again: a component may be called "password".
            is_clean=True,
            namespace=self._manager.namespace,
            actor=self._manager.actor,
            command=command,
            leases=held_of(lease),
        )

        def instead(request: CreateRequest) -> CreateRequest:
            number, command = numbers()
            return msgspec.structs.replace(request, step=number, command=command)

        name = self._manager.create_planted(
            self._planting,
            {name: one.root for name, one in written.items()},
            request,
            instead=instead,
        )
        self._memos.replace(written)
        return name


def reference_of(value: Any, store: Store) -> Reference:
    """Return the name that a component's payload would have with a value; nothing is stored.

    Raises:
        UnstorableError: It cannot be stored.

    Cost: that of writing it, without compression and without the disk.
    """
    writer = TreeWriter(_drop, store.blobs.chunker, codecs=store.codecs)
    frozen = parts.freeze(value, path="data", codecs=store.codecs)
    return writer.root(_planted(writer, frozen)).reference


def _drop(_digest: bytes, _domain: int, _raw: bytes | memoryview) -> None:
    return None


class Room:
    """How much room a capture has: its components' sizes together are at most a limit.

    Threads: safe; several components are written at once.
    """

    def __init__(self, system: str, size_bytes_max: int | None) -> None:
        self._system = system
        self._size_bytes_max = size_bytes_max
        self._lock = Lock()
        self._taken: dict[str, int] = {}

    def take(self, name: str, size: int) -> None:
        """Take in how large a component is.

        Raises:
            CaptureTooLargeError: They are too large together; names the largest.
        """
        with self._lock:
            self._taken[name] = size
        self.check(name, size)

    def check(self, name: str, size: int) -> None:
        """Refuse a component that is at least so large, as early as that is known.

        Raises:
            CaptureTooLargeError: As `take`.
        """
        if self._size_bytes_max is None:
            return
        with self._lock:
            sizes = {**self._taken, name: max(size, self._taken.get(name, 0))}
        total = sum(sizes.values())
        if total <= self._size_bytes_max:
            return
        largest = max(sizes, key=lambda one: sizes[one])
        raise CaptureTooLargeError(
            f"{self._system!r} was not captured: it takes {total} bytes or more, "
            f"{sizes[largest]} of them component {largest!r}; "
            f"the limit is {self._size_bytes_max}.",
            hint="Leave out what need not be saved (ignore rules, fewer components), split the "
            "system, or raise maxCaptureSizeBytes (size_bytes_max).",
            component=largest,
            step="write",
            reason="too_large",
            size_bytes=total,
            limit_bytes=self._size_bytes_max,
        )


class _Sink:
    """Counts the new bytes of one component.

    Args:
        check: Asked with the bytes of its own text that are new so far.
        check_room: Asked now and then whether the store has room for more.
    """

    def __init__(
        self,
        put: Callable[[bytes, int, bytes | memoryview], bool],
        check: Callable[[int], None],
        check_room: Callable[[], None],
    ) -> None:
        self._put = put
        self._check = check
        self._check_room = check_room
        self.new = self._leaves = self._unchecked = 0

    def __call__(self, digest: bytes, domain: int, raw: bytes | memoryview) -> None:
        if self._put(digest, domain, raw):
            self.new += len(raw)
            self._unchecked += len(raw)
            if self._unchecked >= PLANTED_BYTES_UNCHECKED:
                self._unchecked = 0
                self._check_room()
            if domain == LEAF:  # branches are no part of a payload's size
                self._leaves += len(raw)
                self._check(self._leaves)


def _planted(writer: TreeWriter, frozen: Frozen, memo: Memo | None = None) -> Pieces:
    """Return a frozen value as a writer's pieces."""
    if isinstance(frozen, parts.Text):
        return writer.text(frozen.wire, memo=memo)
    if isinstance(frozen, parts.Raw):
        # `{"$bytes":"`, a link, `"}`: only the link is wanted.
        _, content, _ = writer.raw(frozen.data).parts
        return pieces_of((f'{frozen.head}"'.encode(), content, f'"{frozen.tail}'.encode()))
    if isinstance(frozen, parts.Mapping):
        mapping = writer.mapping(is_sorted=False)
        for key, part in frozen.items:
            mapping.add(key, _planted(writer, part))
        return mapping.finish()
    listing = writer.listing()
    for part in frozen.items:
        listing.append(_planted(writer, part))
    return listing.finish()
