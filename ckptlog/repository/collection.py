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

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ckptlog.blobs.live_set import LiveSet
from ckptlog.blobs.pack import FOLDER as PACKS
from ckptlog.errors import (
    BlobCorruptionError,
    CheckpointCorruptionError,
    CheckpointError,
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
from ckptlog.log.sealed import Sealed
from ckptlog.log.segments import container_of
from ckptlog.log.walks import Walks
from ckptlog.model import value as values
from ckptlog.model.cursor import BEGINNING, Cursor
from ckptlog.model.entry import Entry
from ckptlog.model.event import Event
from ckptlog.repository import absence, layout
from ckptlog.repository.choice import is_worth_it
from ckptlog.repository.compaction import Collected, CollectOptions, add
from ckptlog.repository.desk import desk
from ckptlog.repository.disposal import Disposal
from ckptlog.repository.emptier import Emptier, lack_of_room, overtaken
from ckptlog.repository.fate import EventReader, Fates, fates_of
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
        folder = stack.enter_context(desk() if store.read_only else workplace(store))
        collection = _Collection(store, options, progress, removal)
        try:
            found = collection.run(folder)
            # What was emptied may have made room to finish the newest segment.
            while collection.unsealed and found.bytes_freed > 0:
                before, collection = found, _Collection(store, options, progress, removal)
                found = collection.run(folder)
                add(found, before)
                if found.bytes_after >= before.bytes_after:
                    break
            if collection.unsealed and not found.segments + found.packs:
                raise lack_of_room(store.path, collection.unsealed)
            return found
        except (CheckpointCorruptionError, InputOutputError, MissingBlobError) as error:
            # What was here a moment ago: another machine, or another folder of views, collects.
            if collection.is_overtaken():
                raise overtaken() from error
            raise


class _Collection:
    """One collection."""

    def __init__(
        self, store: Store, options: CollectOptions, progress: Progress, removal: Removal
    ) -> None:
        self._store = store
        self._options = options
        self._progress = progress
        # The newest segment, where it would be emptied and there was no room to finish it.
        self.unsealed: list[tuple[Source, Survey]] = []
        self._done = self._total = 0
        bulk = BulkReader(store.log.segments, store.info.id_bytes)
        self._walks = Walks()
        self._disposal = Disposal(store, removal)
        self._events = EventReader(store.log.segments, store.log.reader, bulk, self._walks)
        self._found = Collected(bytes_before=_bytes(store), is_dry_run=options.dry_run)
        self._emptier = Emptier(store, options, self._found, self._disposal, self._walks)

    def run(self, folder: Path) -> Collected:
        store, options, found = self._store, self._options, self._found
        is_full = False
        if not options.dry_run:
            _allow(store, has_agreed=options.upgrade)
            is_full = not self._seal()
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
        damaged = self._set_apart(mover, chosen, end)
        if is_full:
            newest = self._newest(end)
            survey = mover.survey(newest)
            if is_worth_it(newest, survey, options.garbage_min):
                self.unsealed = [(newest, survey)]
        for source, survey in chosen:
            self._count(source, survey)
        if options.dry_run:
            if damaged:
                raise absence.error_for(damaged)
            found.bytes_after = found.bytes_before - found.bytes_dropped
            return found
        self._sweep(fates, end)
        self._emptier.empty(mover, chosen, fates.removed, self._step)
        now = self._finish(fates, end)
        if chosen:
            by_position = sorted(fates.packs, key=lambda name: fates.packs[name].position)
            store.renew_index(folder, by_position, now)
        if damaged:
            raise absence.error_for(damaged)
        found.bytes_after = _bytes(store)
        return found

    def _set_apart(
        self, mover: Mover, chosen: list[tuple[Source, Survey]], end: End
    ) -> absence.Damaged:
        """Take out of what was chosen what may hold wanted chunks that were met nowhere."""
        if not chosen or next(mover.unmet(), None) is None:
            return []
        segments = self._store.log.segments
        # The newest segment is no source: what lies there was not looked for.
        header = segments.header(end.first, end.generation)
        newest = absence.keys_in(segments, _open_as_sealed(header, end))
        if all(key in newest for key in mover.unmet()):
            return []
        damaged = absence.damaged_among(segments, [source for source, _ in chosen])
        names = {name for name, _ in damaged}
        chosen[:] = [pair for pair in chosen if pair[0].container not in names]
        return damaged

    def _seal(self) -> bool:
        """Finish the newest segment; on a full disk with the room of what is disposable.

        Returns:
            False where there is no room for the next one.
        """
        store, bytes_min = self._store, self._options.seal_bytes_min
        for make_room in (
            lambda: True,
            lambda: layout.release_reserve(store.path),
            self._remove_left_over,
            store.shed_views,
        ):
            if make_room():
                with suppress(FullError):
                    store.log.seal(bytes_min)
                    return True
        return False

    def _remove_left_over(self) -> int:
        """Remove temporary files of whoever is dead; return how many."""
        count = 0
        for folder in (".", *layout.FOLDERS, layout.HEADS, *_VIEW_FOLDERS):
            count += files.remove_left_over(self._store.path / folder)
        self._found.orphans += count
        return count

    def is_overtaken(self) -> bool:
        """Say whether another collection removed containers since this one looked."""
        with suppress(CheckpointError):
            return any(
                entry.event.removes and entry.event.id not in self._emptier.commands
                for entry in self._store.events(self._found.position)
            )
        return False

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
        is_enough = end.offset >= self._options.seal_bytes_min and end.position > end.first
        if self._options.dry_run and is_enough:  # it would be finished first
            found.append(self._newest(end))
        for name, registered in fates.packs.items():
            size = file_bytes(store.path, name)
            if size is not None:
                found.append(Source(name, (registered.position, 1), size))
        return found

    def _newest(self, end: End) -> Source:
        """Return the segment that is being written, as if it were finished."""
        header = self._store.log.segments.header(end.first, end.generation)
        sealed = _open_as_sealed(header, end)
        return Source(container_of(end.first, end.generation), (end.first, 0), end.offset, sealed)

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

    # --- what others left -------------------------------------------------------------------

    def _sweep(self, fates: Fates, end: End) -> None:
        """Remove what earlier collections said is removed and had no time for, and orphans."""
        self._disposal.make_durable()
        self._remove_left_over()
        left = [name for name in fates.removed if (self._store.path / name).exists()]
        sealed = dict(self._sealed(end)) if left else {}
        for name in left:
            if name in sealed and not self._disposal.may_go(name):  # its settled form came to harm
                settling.settle(self._store.log.segments, sealed[name])
        self._found.orphans += self._disposal.remove(left)
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
        self._disposal.make_durable()
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
