"""Collection: gives back the room of what nobody wants any more (specs/collection.md).

    seal -> P: the log says what counts and what became of each checkpoint   (fate)
         -> mark: the chunks of every payload that is kept                   (blobs.live_set)
         -> for a few containers at a time: copy what is wanted into packs,  (mover, log.settling)
            append `gc.settled`, make the end durable, remove the files
         -> sweep: what the durable log says is removed, packs that were never registered

Beside writers, readers and other collections; stopped at any moment it leaves a sound store, and
the next one finishes. Nothing is held while it works: what is dead at P stays dead, since a commit
may rely on stored chunks only through a checkpoint that lives where it is appended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ckptlog.blobs.live_set import LiveSet
from ckptlog.blobs.pack import FOLDER as PACKS
from ckptlog.blobs.pack import PackWriter
from ckptlog.errors import (
    BlobCorruptionError,
    CheckpointCorruptionError,
    CheckpointError,
    CollectionBusyError,
    FullError,
    InputOutputError,
    MissingBlobError,
    UnsupportedError,
)
from ckptlog.formats import pack
from ckptlog.formats.end import End
from ckptlog.formats.segment import SegmentHeader
from ckptlog.formats.store import SETTLED
from ckptlog.log import settling
from ckptlog.log.bulk import BulkReader
from ckptlog.log.segments import FOLDER as LOG
from ckptlog.log.segments import container_of, parse_container
from ckptlog.log.settling import Sealed, Walks
from ckptlog.model import value as values
from ckptlog.model.cursor import BEGINNING, Cursor
from ckptlog.model.entry import Entry, Placement
from ckptlog.model.event import Event, PackEntry
from ckptlog.policy.command import Settle
from ckptlog.policy.decide import Stale
from ckptlog.repository import layout
from ckptlog.repository.choice import batches, is_worth_it
from ckptlog.repository.compaction import Collected, CollectOptions
from ckptlog.repository.fate import DROPPED, KEPT, SUPERSEDED, EventReader, Fates, fates_of
from ckptlog.repository.intent import Intent, Step
from ckptlog.repository.loss import LOST_CHUNKS
from ckptlog.repository.marks import Marks
from ckptlog.repository.mover import Mover, Order, Source, Survey, file_bytes
from ckptlog.repository.statistics import measure
from ckptlog.repository.workplace import workplace
from ckptlog.storage import files
from ckptlog.storage.removal import Removal

__all__ = ["CollectOptions", "Collected", "collect", "spare_bytes"]

if TYPE_CHECKING:
    from ckptlog.repository.store import Store

Progress = Callable[[int, int], None]

# Places of moved chunks that the index holds in memory; some 250 bytes each.
_TAIL_CHUNKS: Final = 200_000
_TELL_EVENTS: Final = 4096
_VIEW_FOLDERS: Final = (f"{layout.VIEWS}/chunks", f"{layout.VIEWS}/tree")


def collect(
    store: Store,
    options: CollectOptions | None = None,
    progress: Progress | None = None,
    removal: Removal | None = None,
) -> Collected:
    """Give back the room of deleted checkpoints, and compress the log's settled part.

    Args:
        progress: Called now and then with how much is done, and of how much; what it raises ends
            the collection between two steps, and passes through.
        removal: Takes what is removed; its owner waits for the room. None: it is waited for here.

    Raises:
        CollectionBusyError: Another process collects this store.
        CheckpointCorruptionError: Something that must be kept is damaged; what was not emptied
            before stays as it is.
        CheckpointStorageError: By kind. On a full disk what is nothing but garbage goes first.

    Durability: what is removed is removed for good; everything that is kept was durable before.
    Threads: safe beside everything.
    """
    options = options or CollectOptions()
    progress = progress or (lambda _done, _total: None)
    with ExitStack() as stack:
        if removal is None:
            removal = stack.enter_context(Removal())
        folder = stack.enter_context(workplace(store))
        collection = _Collection(store, options, progress, removal)
        try:
            return collection.run(folder)
        except (CheckpointCorruptionError, InputOutputError, MissingBlobError) as error:
            # What was here a moment ago: another machine, or another folder of views, collects.
            if collection.is_overtaken():
                raise _faster() from error
            raise


class _Collection:
    """One collection."""

    def __init__(
        self, store: Store, options: CollectOptions, progress: Progress, removal: Removal
    ) -> None:
        self._store = store
        self._options = options
        self._progress = progress
        self._done = self._total = 0
        self._own: list[str] = []
        self._tail_entries_max = store.blobs.index.tail_entries + _TAIL_CHUNKS
        bulk = BulkReader(store.log.segments, store.info.id_bytes)
        self._walks = Walks()
        self._removal = removal
        self._events = EventReader(store.log.segments, store.log.reader, bulk, self._walks)
        self._found = Collected(bytes_before=_bytes(store), is_dry_run=options.dry_run)

    def run(self, folder: Path) -> Collected:
        store, options, found = self._store, self._options, self._found
        if not options.dry_run:
            _allow(store, has_agreed=options.upgrade)
            self._seal()
        end = store.opened().log.end()
        found.position = end.position
        fates = fates_of(self._events, end)
        sources = self._sources(fates, end)
        work = sum(source.bytes for source in sources)
        # A third each for the mark, the survey, and what is moved.
        self._total = 3 * work
        live = self._mark(fates, end, folder)
        self._done = work
        mover = Mover(
            store.path,
            store.info.id_bytes,
            store.log.segments,
            store.blobs,
            live=live,
            orders=_orders(fates, sources, end),
            removed=fates.removed,
            walks=self._walks,
        )
        chosen = self._chosen(mover, sources)
        if options.dry_run:
            found.bytes_after = found.bytes_before - found.bytes_dropped
            return found
        self._sweep(fates, end)
        self._empty(mover, chosen, fates)
        now = self._finish(fates, end)
        if chosen:
            by_position = sorted(fates.packs, key=lambda name: fates.packs[name].position)
            store.renew_index(folder, by_position, now)
        found.bytes_after = _bytes(store)
        return found

    def _seal(self) -> None:
        """Finish the newest segment; on a full disk it is left for another time."""
        store, bytes_min = self._store, self._options.seal_bytes_min
        try:
            store.log.seal(bytes_min)
        except FullError:
            if layout.release_reserve(store.path):
                with suppress(FullError):
                    store.log.seal(bytes_min)

    def is_overtaken(self) -> bool:
        """Say whether another collection removed containers since this one looked."""
        with suppress(CheckpointError):
            return any(
                entry.event.removes and entry.event.id not in self._own
                for entry in self._store.events(self._found.position)
            )
        return False

    def _new_id(self) -> str:
        self._own.append(_command_id(self._store))
        return self._own[-1]

    def _step(self, done: int) -> None:
        self._done += done
        self._progress(min(self._done, self._total), self._total)

    # --- what is kept -----------------------------------------------------------------------

    def _mark(self, fates: Fates, end: End, folder: Path) -> LiveSet:
        """Return the chunks of every payload that is kept."""
        live = LiveSet(folder, self._store.info.id_bytes)
        marks = Marks(live, self._told_losses(fates), self._store.blobs)
        for position, event in self._events.events(BEGINNING, end):
            if position % _TELL_EVENTS == 0:
                self._progress(self._total * position // (3 * end.position), self._total)
            if not fates.is_living(position, event):
                continue
            if self._options.drop_superseded and not fates.is_newest(position, event):
                continue
            for reference in (event.data, event.meta):
                try:
                    if reference is not None:
                        marks.enter(self._store.blobs.reach(reference, marks))
                except MissingBlobError as error:
                    entry = Entry(event, position, "", 0, 0, 0)
                    if self._store.collected.error_for(self._store, entry) is None:
                        raise _unknown(event, error) from error
                except BlobCorruptionError as error:
                    raise _unknown(event, error) from error
        live.close()
        return live

    def _told_losses(self, fates: Fates) -> frozenset[bytes]:
        """Return the keys of chunks that repairs have told to be lost: nothing needs them."""
        found: set[bytes] = set()
        for reference in fates.repairs:
            with suppress(CheckpointError, ValueError, TypeError):
                told = values.decode(self._store.blobs.wire(reference), opaque=True)
                found.update(map(bytes.fromhex, told.get(LOST_CHUNKS, ())))
        return frozenset(found)

    # --- containers -------------------------------------------------------------------------

    def _sources(self, fates: Fates, end: End) -> list[Source]:
        """Return every container that could be emptied: sealed segments that were not, packs."""
        store = self._store
        found = []
        for name, sealed in self._sealed(end):
            size = file_bytes(store.path, name)
            if size is not None and name not in fates.removed:
                found.append(Source(name, (sealed.header.first, 0), size, sealed))
        if self._options.dry_run and end.offset >= self._options.seal_bytes_min:
            # It would be finished first.
            header = store.log.segments.header(end.first, end.generation)
            name, sealed = container_of(*_name_of(header)), _open_as_sealed(header, end)
            if end.position > end.first:
                found.append(Source(name, (end.first, 0), end.offset, sealed))
        for name, registered in fates.packs.items():
            size = file_bytes(store.path, name)
            if size is not None:
                found.append(Source(name, (registered.position, 1), size))
        return found

    def _sealed(self, end: End) -> Iterator[tuple[str, Sealed]]:
        """Yield container and ends of every segment that nothing is appended to any more."""
        segments = self._store.log.segments
        headers = [header for header in segments.refresh() if header.first <= end.first]
        for header, after in zip(headers, headers[1:], strict=False):
            if after.first > header.first:
                sealed = Sealed(header, after.previous_length, after.first, after.leaf)
                yield container_of(header.first, header.generation), sealed

    def _chosen(self, mover: Mover, sources: list[Source]) -> list[tuple[Source, Survey]]:
        """Return what is worth to be emptied, what has least to copy first."""
        chosen = []
        for source in sources:
            survey = mover.survey(source)
            self._step(source.bytes)
            if is_worth_it(source, survey, self._options.garbage_min):
                chosen.append((source, survey))
                self._count(source, survey)
            else:
                self._step(source.bytes)
        chosen.sort(key=lambda pair: (pair[1].live_bytes, pair[0].order))
        return chosen

    def _count(self, source: Source, survey: Survey) -> None:
        found = self._found
        found.segments += source.sealed is not None
        found.packs += source.sealed is None
        found.chunks_kept += survey.live_chunks
        found.chunks_dropped += survey.chunks - survey.live_chunks
        found.bytes_dropped += survey.chunk_bytes - survey.live_bytes

    # --- emptying ---------------------------------------------------------------------------

    def _empty(self, mover: Mover, chosen: list[tuple[Source, Survey]], fates: Fates) -> None:
        """Empty containers, a few at a time; on a full disk one after the other.

        Raises:
            FullError: Of some there was no room to copy what is wanted; the others were emptied.
        """
        full: FullError | None = None
        left: list[tuple[Source, Survey]] = []
        for batch in batches(chosen):
            try:
                self._settle(mover, batch, fates)
            except FullError as error:
                full = error
                left += self._empty_singly(mover, batch, fates)
        # What was emptied may have made room for what there was none for.
        while left and full is not None:
            before, left = left, self._empty_singly(mover, left, fates)
            if len(left) == len(before):
                raise full

    def _empty_singly(
        self, mover: Mover, several: list[tuple[Source, Survey]], fates: Fates
    ) -> list[tuple[Source, Survey]]:
        """Empty containers one by one, the reserve given up; return those that did not fit."""
        left = []
        layout.release_reserve(self._store.path)
        for one in several:
            self._removal.finish()
            try:
                self._settle(mover, [one], fates)
            except FullError:
                left.append(one)
        return left

    def _settle(self, mover: Mover, batch: list[tuple[Source, Survey]], fates: Fates) -> None:
        """Empty a few containers: copy, write the settled forms, append the event, remove."""
        store = self._store
        # In the order of registration, for what lies in two of them.
        sources = sorted((source for source, _ in batch), key=lambda source: source.order)
        sealed = [one.sealed for one in sources if one.sealed is not None]
        packs, placements = self._copied(mover, batch, sources, sealed)
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
        fates.removed.update(removes)
        self._make_durable()
        self._remove(removes)
        # One event brought many chunks: nobody else would write them out of memory so soon. But the
        # index is made anew at the end, so what was there before is not written for nothing.
        if store.blobs.index.tail_entries >= self._tail_entries_max:
            store.blobs.index.flush()

    def _copied(
        self,
        mover: Mover,
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
        self._step(sum(source.bytes for source in sources if source.container in empty))
        full = [source for source in sources if source.container not in empty]
        with self._written_settled(sealed) as forms:
            try:
                packs, placements = mover.move(full, writer, self._step)
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
            raise _faster()

    def _is_told(self) -> bool:
        """Say whether the log has the event that was submitted last, or whether nobody knows."""
        with suppress(CheckpointError):
            events = self._store.events(self._found.position)
            return any(entry.event.id == self._own[-1] for entry in events)
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

    def _make_durable(self) -> None:
        """Make sure that no end can come back that lies before what will be removed."""
        self._store.log.flush()
        self._store.log.publish_durably()

    def _remove(self, containers: Sequence[str]) -> int:
        """Remove the files of containers that the durable log says are removed; return how many.

        A segment goes only where its settled form is whole.
        """
        store = self._store
        there = [one for one in containers if (store.path / one).exists() and self._may_go(one)]
        self._removal.remove([store.path / one for one in there])
        for container in there:
            store.forget(container)
        for folder in (LOG, PACKS):
            if (store.path / folder).is_dir():  # a store of an older version may have no packs
                files.sync_directory(store.path / folder)
        self._removal.free()
        return len(there)

    def _may_go(self, container: str) -> bool:
        name = parse_container(container)
        if name is None:
            return True
        segments = self._store.log.segments
        with suppress(CheckpointError):
            return segments.is_settled_whole(*name)
        return False

    # --- what others left -------------------------------------------------------------------

    def _sweep(self, fates: Fates, end: End) -> None:
        """Remove what earlier collections said is removed and had no time for, and orphans."""
        self._make_durable()
        for folder in (".", *layout.FOLDERS, layout.HEADS, *_VIEW_FOLDERS):
            self._found.orphans += files.remove_left_over(self._store.path / folder)
        left = [name for name in fates.removed if (self._store.path / name).exists()]
        sealed = dict(self._sealed(end)) if left else {}
        for name in left:
            if name in sealed and not self._may_go(name):  # its settled form came to harm
                settling.settle(self._store.log.segments, sealed[name])
        self._found.orphans += self._remove(left)
        self._found.orphans += self._remove_orphans(fates)

    def _remove_orphans(self, fates: Fates) -> int:
        """Remove packs whose base lies below the fence and that no event has registered.

        The fence makes sure that none will.
        """
        folder = self._store.path / PACKS
        count = 0
        for path in sorted(folder.glob("*.pack")):
            parsed = pack.parse_name(path.name)
            name = f"{PACKS}/{path.name}"
            if parsed is None or parsed[0] >= fates.fence or name in fates.packs:
                continue
            files.remove(path)
            self._store.forget(name)
            count += 1
        if count:
            files.sync_directory(folder)
        return count

    def _finish(self, fates: Fates, end: End) -> End:
        """Look once more at what was appended meanwhile, then remove orphans below our fence.

        Returns:
            The end up to which the fates are known.
        """
        now = self._store.opened().log.end()
        place = Cursor(end.position, end.leaf, container_of(end.first, end.generation), end.offset)
        for position, event in self._events.events(place if end.position else BEGINNING, now):
            if position >= end.position:
                fates.add(position, event)
        self._make_durable()
        self._found.orphans += self._remove_orphans(fates)
        return now


def _allow(store: Store, *, has_agreed: bool) -> None:
    """Make sure that no older program opens the store from now on.

    Raises:
        UnsupportedError: The store was made by one, and nobody has agreed.
    """
    if SETTLED in store.info.features:
        return
    if not has_agreed:
        raise UnsupportedError(
            f"The store {store.path} was made by an older version of ckptlog, which could not read "
            "it any more.",
            hint="Once no older program has it open: ckptlog compact --upgrade (upgrade=True).",
            path=str(store.path),
        )
    store.info = layout.upgrade(store.path, store.info, SETTLED)


def _unknown(event: Event, error: CheckpointError) -> CheckpointCorruptionError:
    subject = event.subject.checkpoint or event.subject.task or event.type
    return BlobCorruptionError(
        f"A payload of {subject!r} cannot be read, so nobody can say which chunks it needs: "
        f"{error.message}",
        hint="Nothing was collected. Repair the store, or delete that checkpoint; "
        "ckptlog verify lists what is damaged.",
        checkpoint_id=event.subject.checkpoint,
    )


def _orders(fates: Fates, sources: list[Source], end: End) -> dict[str, Order]:
    orders = {source.container: source.order for source in sources}
    orders[container_of(end.first, end.generation)] = (end.first, 0)
    for name, registered in fates.packs.items():
        orders.setdefault(name, (registered.position, 1))
    return orders


def _name_of(header: SegmentHeader) -> tuple[int, int]:
    return header.first, header.generation


def _open_as_sealed(header: SegmentHeader, end: End) -> Sealed:
    return Sealed(header, end.offset, end.position, end.leaf)


def _bytes(store: Store) -> int:
    sizes = measure(store.path)
    return sizes.log + sizes.packs - spare_bytes(store)


def spare_bytes(store: Store) -> int:
    """Return the zeros behind the log's end: room made ahead, cut off when the store is closed."""
    end = store.log.published.read()
    if end is None:
        return 0
    size = file_bytes(store.path, container_of(end.first, end.generation))
    return max(0, (size or 0) - end.offset)


def _faster() -> CollectionBusyError:
    return CollectionBusyError(
        "Another collection of this store was faster.", hint="Nothing is lost. Run again."
    )


def _command_id(store: Store) -> str:
    return f"{store.environment.now_us():014x}{store.environment.random_bytes(5).hex()}"
