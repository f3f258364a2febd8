"""Empties containers: what is wanted goes into packs, the log says so, their files go.

for a few at a time: settled forms aside (S1), packs (S2), `gc.settled` (S3), the end durable
(S4), files removed (S5), folders synced (S6): see specs/collection.md
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ckptlog.blobs.pack import FOLDER as PACKS
from ckptlog.blobs.pack import PackWriter
from ckptlog.errors import CheckpointError, CollectionBusyError, FullError
from ckptlog.formats import pack
from ckptlog.formats.line import LINE
from ckptlog.log import settling
from ckptlog.log.sealed import Sealed
from ckptlog.log.segments import FOLDER as LOG
from ckptlog.log.walks import Walks
from ckptlog.model.entry import Placement
from ckptlog.model.event import PackEntry
from ckptlog.policy.command import Settle
from ckptlog.policy.decide import Stale
from ckptlog.repository import layout
from ckptlog.repository.choice import batches
from ckptlog.repository.compaction import Collected, CollectOptions
from ckptlog.repository.disposal import Disposal
from ckptlog.repository.fate import DROPPED, KEPT, SUPERSEDED
from ckptlog.repository.intent import Intent, Step
from ckptlog.repository.mover import Mover, Source, Survey
from ckptlog.storage import files

if TYPE_CHECKING:
    from ckptlog.repository.store import Store

# Places of moved chunks that the index holds in memory; some 250 bytes each.
_TAIL_CHUNKS: Final = 200_000
# Beside what is copied: headers, the event that says so, what a file is rounded up to.
_SLACK_BYTES: Final = 64 * 1024


class Emptier:
    """Empties containers of one store for one collection.

    Args:
        found: What the collection did; its position is the fence.

    Attributes:
        commands: Of the events that were submitted.

    Threads: one.
    """

    def __init__(
        self,
        store: Store,
        options: CollectOptions,
        found: Collected,
        disposal: Disposal,
        walks: Walks,
    ) -> None:
        self._store = store
        self._options = options
        self._found = found
        self._disposal = disposal
        self._walks = walks
        self._tail_entries_max = store.blobs.index.tail_entries + _TAIL_CHUNKS
        self.commands: list[str] = []
        self._mover: Mover
        self._removed: set[str]
        self._tell: Callable[[int], None]

    def _new_id(self) -> str:
        self.commands.append(_command_id(self._store))
        return self.commands[-1]

    def empty(
        self,
        mover: Mover,
        chosen: list[tuple[Source, Survey]],
        removed: set[str],
        tell: Callable[[int], None],
    ) -> None:
        """Empty containers, a few at a time; on a full disk one after the other.

        Args:
            removed: Takes the names of what was emptied.
            tell: Is told the bytes of each container that was gone through.

        Raises:
            FullError: Of some there was no room to copy what is wanted; the others were emptied.
        """
        self._mover, self._removed, self._tell = mover, removed, tell
        full: FullError | None = None
        left: list[tuple[Source, Survey]] = []
        for batch in batches(chosen):
            try:
                self._settle(batch)
            except FullError as error:
                full = error
                left += self._empty_singly(batch)
        # What was emptied may have made room for what there was none for.
        while left and full is not None:
            before, left = left, self._empty_singly(left)
            if len(left) == len(before) and not self._store.shed_views():
                raise lack_of_room(self._store.path, left) from full

    def _empty_singly(self, several: list[tuple[Source, Survey]]) -> list[tuple[Source, Survey]]:
        """Empty containers one by one, the reserve given up; return those that did not fit."""
        left = []
        layout.release_reserve(self._store.path)
        for one in several:
            self._disposal.wait()
            try:
                self._settle([one])
            except FullError:
                left.append(one)
        return left

    def _settle(self, batch: list[tuple[Source, Survey]]) -> None:
        """Empty a few containers: copy, write the settled forms, append the event, remove."""
        store = self._store
        # In the order of registration, for what lies in two of them.
        sources = sorted((source for source, _ in batch), key=lambda source: source.order)
        sealed = [one.sealed for one in sources if one.sealed is not None]
        packs, placements = self._copied(batch, sources, sealed)
        removes = tuple(source.container for source in sources)
        survey = [one for _, one in batch]
        command = Settle(
            actor=self._options.actor or store.environment.actor(),
            command=self._new_id(),
            fence=self._found.position,
            removes=removes,
            facts={
                "chunks_kept": sum(one.live_chunks for one in survey),
                "chunks_dropped": sum(one.chunks - one.live_chunks for one in survey),
                "bytes_dropped": sum(one.chunk_bytes - one.live_bytes for one in survey),
                SUPERSEDED: DROPPED if self._options.drop_superseded else KEPT,
            },
        )
        self._register(Intent((Step(command),), packs, placements), sealed)
        self._found.packs_written += len(packs)
        self._removed.update(removes)
        self._disposal.make_durable()
        self._disposal.remove(removes)
        # One event brought many chunks: nobody else would write them out of memory so soon. But the
        # index is made anew at the end, so what was there before is not written for nothing.
        if store.blobs.index.tail_entries >= self._tail_entries_max:
            store.blobs.index.flush()

    def _copied(
        self,
        batch: list[tuple[Source, Survey]],
        sources: list[Source],
        sealed: list[Sealed],
    ) -> tuple[tuple[PackEntry, ...], tuple[Placement, ...]]:
        """Write what is wanted of containers into packs, and settled forms of segments.

        Durability: bytes and names, when it returns. Nothing is left where it raises, but settled
        forms that do not count.
        """
        store = self._store
        writer = PackWriter(
            store.path / PACKS,
            store.info.id_bytes,
            self._found.position,
            lambda: store.environment.random_bytes(16),
        )
        empty = {source.container for source, survey in batch if not survey.live_chunks}
        self._tell(sum(source.bytes for source in sources if source.container in empty))
        full = [source for source in sources if source.container not in empty]
        with self._written_settled(sealed) as forms:
            try:
                packs, placements = self._mover.move(full, writer, self._tell)
                self._publish(forms)
            except BaseException:
                writer.discard()
                raise
        return packs, placements

    def _register(self, intent: Intent, sealed: Sequence[Sealed]) -> None:
        """Commit what says that packs were written, and what they replace.

        Raises:
            CollectionBusyError: Another collection was faster; the packs are gone.
            FullError: Nothing was committed; the packs and settled forms are gone.
        """
        store = self._store
        try:
            outcome = store.submit_with_reserve(intent)
            if isinstance(outcome, Stale):  # perhaps of what was committed in the same round
                outcome = store.submit_with_reserve(intent)
        except FullError:
            if not self._is_told():
                self._discard(intent.packs)
                self._drop_settled(sealed)
            raise
        if isinstance(outcome, Stale):
            self._discard(intent.packs)
            raise overtaken()

    def _is_told(self) -> bool:
        """Say whether the log has the event that was submitted last, or whether nobody knows."""
        with suppress(CheckpointError):
            events = self._store.events(self._found.position)
            return any(entry.event.id == self.commands[-1] for entry in events)
        return True

    def _discard(self, packs: Sequence[PackEntry]) -> None:
        for one in packs:
            name = pack.pack_name(one.base, bytes.fromhex(one.id))
            files.remove(self._store.path / PACKS / name)

    @contextmanager
    def _written_settled(self, sealed: Sequence[Sealed]) -> Iterator[list[settling.Written]]:
        """Write the settled forms of segments, to be published; on a full disk none stays."""
        forms: list[settling.Written] = []
        segments = self._store.log.segments
        with ExitStack() as stack:
            try:
                for one in sealed:
                    forms.append(settling.write(segments, one, self._walks))
                    stack.callback(forms[-1].discard)
                yield forms
            except FullError:
                self._drop_settled(sealed)
                raise

    def _publish(self, forms: Sequence[settling.Written]) -> None:
        """Make settled forms durable under their names."""
        for form in forms:
            form.publish()
        if forms:
            files.sync_directory(self._store.path / LOG)

    def _drop_settled(self, sealed: Sequence[Sealed]) -> None:
        """Give the room of settled forms back: their segments are still there, and count."""
        segments = self._store.log.segments
        for one in sealed:
            name = (one.header.first, one.header.generation)
            if segments.exists(*name):
                files.remove(segments.settled_path(*name))


def lack_of_room(root: Path, left: Sequence[tuple[Source, Survey]]) -> FullError:
    """Return the error of a collection that had no room to empty containers."""
    state = os.statvfs(root)
    needed = min(_needed_bytes(*one) for one in left)
    missing = max(_SLACK_BYTES, needed - state.f_bavail * state.f_frsize)
    return FullError(
        f"There is no room to copy what is still wanted before the rest can go: some {missing:,} "
        "bytes more must be free.",
        hint="Free so much beside the store, or delete more checkpoints, and run ckptlog compact "
        "again; nothing was lost.",
        path=str(root),
        bytes_missing=missing,
    )


def _needed_bytes(source: Source, survey: Survey) -> int:
    """Return at most how many bytes it takes to empty a container: a pack, a settled form."""
    events = 0 if source.sealed is None else source.sealed.length - survey.chunk_bytes
    return survey.live_bytes + survey.live_chunks * LINE.size + events + _SLACK_BYTES


def overtaken() -> CollectionBusyError:
    """Return the error of a collection that another one was faster than."""
    return CollectionBusyError(
        "Another collection of this store was faster.", hint="Nothing is lost. Run again."
    )


def _command_id(store: Store) -> str:
    return f"{store.environment.now_us():014x}{store.environment.random_bytes(5).hex()}"
