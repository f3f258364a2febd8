"""Repair: what can be saved of a damaged store is saved, what is lost is said (specs/repair.md).

    verify (closed) -> plan -> stage, verified
      -> [quarantine -> mended files -> published end -> views -> event]

Without `is_applied` it ends before the bracket: nothing of the store is changed. A repair that was
killed is gone on with by the next: every file is as it was, or mended. What is lost is found by
looking, not remembered: what is a tombstone now, and no event of a repair has told of.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import msgspec

from ckptlog.blobs.pack import FOLDER as PACKS
from ckptlog.blobs.pack import read_index, write_packs
from ckptlog.errors import CheckpointError, LogCorruptionError, operating_system_door
from ckptlog.formats import end as end_format
from ckptlog.formats import pack
from ckptlog.formats.end import End
from ckptlog.log.published import PublishedEnd
from ckptlog.log.segments import FOLDER as LOG
from ckptlog.log.segments import Segments
from ckptlog.model import value as values
from ckptlog.model.entry import Placement
from ckptlog.model.event import REPAIRED, PackEntry
from ckptlog.policy.command import Record
from ckptlog.policy.decide import Stale
from ckptlog.repository import layout
from ckptlog.repository.affected import affected_of
from ckptlog.repository.claim import KEY_BYTES
from ckptlog.repository.contents import pack_of
from ckptlog.repository.depth import Depth
from ckptlog.repository.intent import Intent, Step
from ckptlog.repository.mending import MendedFile, Mending
from ckptlog.repository.opening import open_store
from ckptlog.repository.plan import Planner, Refusal, suspects_of
from ckptlog.repository.quarantine import Quarantine, finish, unfinished
from ckptlog.repository.report import Problem, Progress, Report
from ckptlog.repository.salvage import Salvage, named_in, ranges
from ckptlog.repository.second_copy import Chunks, SecondCopy
from ckptlog.repository.stage import Stage, write_mended
from ckptlog.repository.verify import Run, closed_run
from ckptlog.storage import files
from ckptlog.storage.environment import Environment
from ckptlog.storage.lock import WriterLock

if TYPE_CHECKING:
    from ckptlog.repository.store import Store

_PACKED_BYTES: Final = 1024 * 1024
_DISPOSABLE: Final = ("current.sqlite*", "chunks", "tree", "history", "anew", "verify.json")
_ATTEMPTS_MAX: Final = 5
_END: Final = f"{LOG}/end"


def repair(
    path: Path,
    *,
    is_applied: bool = False,
    copy: Path | None = None,
    gives_up: bool = False,
    actor: str = "ckptlog repair",
    progress: Progress | None = None,
    timeout_s: float = 30.0,
    environment: Environment | None = None,
) -> Mending:
    """Find what is damaged, and mend it if that is asked for.

    Args:
        path: The store's directory. It need not be possible to open it.
        copy: Another directory of the same store, to take damaged bytes from.
        gives_up: Publish a lost end also below a signed head, which a fork then gives up.
        progress: Called with bytes read and bytes in all, of the first verification.

    Raises:
        ArgumentError: The copy is no copy of this store.
        StoreMissingError, NotAStoreError, UnsupportedError, FormatError: By what store.json says.
        LockTimeoutError: A writer is at work.
        CheckpointStorageError: The medium refused; what was done so far stands, originals are kept.

    Durability: as specs/repair.md says, step by step.        Threads: one repair at a time.
    Cost: a few verifications, and their memory; beside it the largest segment some times over, and
        where signed heads are asked 160 bytes an event.
    """
    environment = environment or Environment()
    work = _Work(path, environment, copy, gives_up=gives_up)
    if not is_applied:
        with TemporaryDirectory(prefix="ckptlog-repair-") as folder:
            return work.plan(Path(folder), progress)
    layout.refuse_read_only(path)
    layout.refuse_unsafe_file_system(path, environment)
    work.recover()
    with _locked(path, environment, timeout_s):
        mending = work.apply(progress)
    return work.record(mending, actor)


def repair_store(
    store: Store, *, is_applied: bool, copy: Path | None, actor: str, progress: Progress | None
) -> Mending:
    """Do as `repair` for an open store, which goes on with new views."""
    mending = repair(
        store.path,
        is_applied=is_applied,
        copy=copy,
        actor=actor,
        progress=progress,
        timeout_s=store.timeout_s,
        environment=store.environment,
    )
    if is_applied and not mending.is_empty:
        try:
            store.rebuild_views()
        except CheckpointError:
            if mending.ok:
                raise  # else the report says what is left, and comes first
    return mending


@contextmanager
def _locked(path: Path, environment: Environment, timeout_s: float) -> Iterator[None]:
    lock = WriterLock(path / "lock", environment)
    try:
        lock.acquire(timeout_s)
        yield
    finally:
        lock.close()


class _Fetched(msgspec.Struct, frozen=True):
    """A pack that was made of chunks found elsewhere. path: In the stage. copied: From a copy."""

    path: Path
    copied: int


class _Work:
    """One repair of one store."""

    def __init__(
        self, root: Path, environment: Environment, copy: Path | None, *, gives_up: bool
    ) -> None:
        self._root = root
        self._gives_up = gives_up
        self._environment = environment
        self._disk = environment.disk
        self._info = layout.read_info(root)
        self._now_us = environment.now_us()
        self._copy = None
        if copy is not None:
            self._copy = SecondCopy(copy, root, self._info.id_bytes, self._disk)
        self._packs: tuple[PackEntry, ...] = ()
        self._places: list[Placement] = []
        self._fetched: dict[str, _Fetched] = {}
        self._keys_back: set[bytes] = set()
        self._folders: list[Path] = []

    # --- finding out ------------------------------------------------------------------------

    def plan(self, stage_folder: Path, progress: Progress | None) -> Mending:
        """Return what would be done."""
        return self._look(stage_folder, progress)[0]

    def _look(self, stage_folder: Path, progress: Progress | None) -> tuple[Mending, Planner]:
        with closed_run(self._root, Depth(), progress, environment=self._environment) as run:
            before = run.report(None, None)
        planner, mending = self._best(stage_folder, run, before)
        is_work = not mending.is_empty or self._are_views_wrong(before, run)
        # A log with a damaged file can be read while its old views are there, and not anew.
        is_wanted = is_work and not _is_log_refused(mending)
        views = "would be rebuilt" if is_wanted else "kept"
        return msgspec.structs.replace(mending, views=views), planner

    def _best(self, folder: Path, run: Run, before: Report) -> tuple[Planner, Mending]:
        """Return a plan with the copy; one that takes less of it where that leaves more whole."""
        planner, mending, after = self._tried(folder / "1", run, before, self._copy)
        harm = _harm(before, after)
        if self._copy is None or not harm:
            return planner, mending
        least = len(_harm(before, self._tried(folder / "2", run, before, None)[2]))
        if least >= len(harm):  # it is none of the copy's
            return self._tried(folder / "3", run, before, self._copy)[:2]
        files = ", ".join(sorted({one.file for one in harm}))
        told = "Nothing of the copy was put into the log"
        planner, some, after = self._tried(folder / "4", run, before, self._copy, takes_back=False)
        if len(_harm(before, after)) <= least:
            told = "What earlier repairs have told lost was not taken back from the copy"
        else:
            planner, some, _ = self._tried(folder / "5", run, before, None)
        note = f"{told}: this would be wrong then: {files}."
        return planner, msgspec.structs.replace(some, notes=(*mending.notes, note))

    def _tried(
        self,
        folder: Path,
        run: Run,
        before: Report,
        copy: SecondCopy | None,
        *,
        takes_back: bool = True,
    ) -> tuple[Planner, Mending, Report]:
        planner = self._planned(run, copy, takes_back=takes_back)
        return planner, *self._staged(folder, planner, run, before)

    def _planned(self, run: Run, copy: SecondCopy | None, *, takes_back: bool) -> Planner:
        now_s = self._now_us / 1e6
        time = datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        planner = Planner(
            self._root,
            self._info,
            self._environment,
            time=time,
            copy=copy,
            heads=run.heads.binding,
            gives_up=self._gives_up,
            takes_back=takes_back,
        )
        suspects = suspects_of(run.book.files, run.registered)
        if self._copy is not None and takes_back:  # what was told lost may be there
            suspects |= run.chain.bereft
        end, damage = self._end(run, planner), run.outlook.damage
        if end is None and damage is not None:
            planner.refused.append(Refusal(run.outlook.file, damage.message))
        else:
            is_end_behind = damage is not None and end is not None and end != self._published()
            planner.segments(end, suspects, run.removed, is_end_behind=is_end_behind)
        planner.packs(run.registered, suspects)
        return planner

    def _end(self, run: Run, planner: Planner) -> End | None:
        """Return where the log ends; where damage beyond the published end hides it, the copy's."""
        if run.outlook.end is not None or run.outlook.damage is None:
            return run.outlook.end
        segments = Segments(self._root / LOG, self._info.id_bytes, self._disk)
        end = planner.continued(segments)
        published = self._published()
        is_later = end is not None and published is not None and end.position >= published.position
        return end if is_later else None

    def _published(self) -> End | None:
        path = self._root / _END
        published = PublishedEnd(path, self._info.id_bytes, self._disk, read_only=True)
        try:
            return published.read()
        finally:
            published.close()

    def _staged(
        self, folder: Path, planner: Planner, before: Run, report: Report
    ) -> tuple[Mending, Report]:
        """Verify the store as it would be, and tell of it."""
        run, after = self._laid_out(folder / "1", planner)
        hidden = {
            name: entry for name, entry in run.registered.items() if name not in before.registered
        }
        if hidden:  # by events that were behind damage: nobody has looked at these packs yet
            with closed_run(folder / "1", Depth(), environment=self._environment) as whole:
                whole.report(None, None)
            planner.packs(hidden, suspects_of(whole.book.files, hidden))
            run, after = self._laid_out(folder / "2", planner)
        return self._mending(planner, report, run, after), after

    def _laid_out(self, folder: Path, planner: Planner) -> tuple[Run, Report]:
        Stage(self._root, folder).lay_out(planner, planner.salvages, planner.strays)
        self._packs, self._fetched, self._keys_back = (), {}, set()
        self._places = []
        run, after = self._verified(folder, ())
        if _missing(run):
            old: list[Path] = []
            self._packs = self._helpful(run, planner, old)
            self._packs += self._fetch(folder, run, Chunks(old, self._info.id_bytes, self._disk))
            if self._packs:
                run, after = self._verified(folder, self._packs)
        # A node that came back names what lies below it: that may be missing, too.
        while self._copy is not None and (packs := self._fetch(folder, run, self._copy)):
            self._packs += packs
            run, after = self._verified(folder, self._packs)
        return run, after

    def _verified(self, folder: Path, packs: Sequence[PackEntry]) -> tuple[Run, Report]:
        with closed_run(folder, Depth("existence"), environment=self._environment) as run:
            for entry in packs:
                run.registered[pack_of(entry)] = entry
            return run, run.report(None, None)

    def _helpful(self, run: Run, planner: Planner, old: list[Path]) -> tuple[PackEntry, ...]:
        """Return sound packs that only lost events had registered, and that payloads need.

        Args:
            old: Takes those of which only chunks can be had: they are damaged, or a collection
                since keeps them from being registered again.
        """
        found, missing = [], _missing(run)
        for path in sorted((self._root / PACKS).glob("*.pack")):
            parsed = pack.parse_name(path.name)
            if parsed is None or path.name in run.registered:
                continue
            try:
                places = read_index(path, self._info.id_bytes)
            except CheckpointError:
                old.append(path)
                continue
            if not any(place.digest[:KEY_BYTES] in missing for place in places):
                continue
            entry = PackEntry(parsed[0], path.stat().st_size, parsed[1].hex())
            if parsed[0] < run.fence or not planner.is_sound_pack(entry):
                old.append(path)
            else:
                found.append(entry)
                self._places += places
        return tuple(found)

    def _fetch(self, folder: Path, run: Run, source: SecondCopy | Chunks) -> tuple[PackEntry, ...]:
        """Write what is missing, and what a source has of it anywhere, to packs of the stage."""
        wanted = _missing(run) - self._keys_back
        is_copied = isinstance(source, SecondCopy)
        found = source.chunks(wanted) if isinstance(source, SecondCopy) else source.found(wanted)
        entries, places = write_packs(
            folder / PACKS,
            self._info.id_bytes,
            run.chain.position,
            found,
            lambda: self._environment.random_bytes(16),
        )
        self._places += places
        for entry in entries:
            container = f"{PACKS}/{pack_of(entry)}"
            copied = sum(one.container == container for one in places) if is_copied else 0
            self._fetched[container] = _Fetched(folder / container, copied)
        self._keys_back |= {one.digest[:KEY_BYTES] for one in places}
        return entries

    def _mending(self, planner: Planner, before: Report, run: Run, after: Report) -> Mending:
        assert run.contents is not None  # noqa: S101 - of the level "existence"
        breakage = run.contents.breakage
        known = breakage.known
        broken = [*breakage.payloads.values(), *breakage.losses.values()]
        affected = {name for one in broken for name in one.present(run.newest)}
        touched = {name for one in broken for name in one.last}
        # What lacks a chunk is told of as affected, not as a problem that is left.
        rest = [
            one
            for one in after.problems
            if one.position is None or one.code not in ("blob.missing", "blob.corrupt")
        ]
        told, lost = run.told.positions, set(run.chain.tombstones)
        is_there = run.chain.is_there
        keys = {one.digest[:KEY_BYTES] for one in self._places}
        return Mending(
            store=str(self._root),
            is_applied=False,
            files=(*_files(planner), *self._new_packs()),
            problems_before=tuple(str(one) for one in before.problems),
            problems_before_total=before.problems_total,
            problems_after=tuple(str(one) for one in rest),
            problems_after_total=len(rest),
            lost_positions=tuple(ranges([*(lost - told)])),
            lost_chunks=tuple(sorted(key.hex() for key in breakage.missing - known)),
            positions_back=tuple(ranges([one for one in told if is_there(one)])),
            chunks_back=tuple(sorted(key.hex() for key in keys & known)),
            affected=tuple(affected_of(affected, run.history.lives)),
            past=tuple(sorted(touched - affected)),
            named=tuple(sorted(named_in(planner.salvages))),
            packs_registered=tuple(entry.id for entry in self._packs),
            copy=str(self._copy.path) if self._copy else "",
            notes=(*planner.notes, *self._unread()),
        )

    def _unread(self) -> Iterator[str]:
        unread = self._copy.unread if self._copy is not None else {}
        for container, message in sorted(unread.items()):
            yield f"The copy's {container} counts as missing, as it cannot be read: {message}"

    def _new_packs(self) -> Iterator[MendedFile]:
        for container, one in self._fetched.items():
            yield MendedFile(container=container, action="made", copied=one.copied)

    def _are_views_wrong(self, before: Report, run: Run) -> bool:
        """Say whether the view of a store whose files are sound tells something else."""
        if any(not one.is_of_heads for one in before.problems):
            return True
        if run.outlook.end != self._published():  # the next writer brings both together
            return False
        try:
            with open_store(self._root, read_only=True, environment=self._environment) as store:
                return any(one.code == "view.differs" for one in store.verify("structure").problems)
        except CheckpointError:
            return False

    # --- doing it ---------------------------------------------------------------------------

    def recover(self) -> None:
        """Let the log publish the event of a repair that was killed before that."""
        if unfinished(self._root) and self._published() is not None:
            with suppress(CheckpointError), open_store(self._root, environment=self._environment):
                pass

    def apply(self, progress: Progress | None) -> Mending:
        """Mend the files, under the writer's lock; the event follows."""
        self._folders = unfinished(self._root)
        quarantine = Quarantine(self._root, self._disk, self._now_us)
        with TemporaryDirectory(prefix="ckptlog-repair-") as folder:
            mending, planner = self._look(Path(folder), progress)
            if not _is_log_refused(mending):  # no event could register them
                self._publish_packs()
        if mending.is_empty and not self._folders:
            return mending
        is_kept = _is_log_refused(mending)
        end = None if is_kept else planner.end
        if planner.salvages or planner.strays or (end and planner.read(_END) is not None):
            quarantine.open(mending.to_dict())
            self._folders.append(self._root / quarantine.name)
        kept = {}
        for salvage in planner.salvages:
            kept[salvage.container] = self._mend(quarantine, planner, salvage)
        for container in planner.strays:
            kept[container] = quarantine.keep(container, is_copied=False)
            self._disk.remove(self._root / container)
            self._disk.sync_directory((self._root / container).parent)
        if end is not None:
            kept[_END] = self._publish(quarantine, planner, end)
        if not is_kept:
            self._throw_views_away()
        named = tuple(
            msgspec.structs.replace(one, quarantine=kept.get(one.container, ""))
            for one in mending.files
        )
        views = "kept" if is_kept else "rebuilt"
        return msgspec.structs.replace(mending, files=named, is_applied=True, views=views)

    def _publish(self, quarantine: Quarantine, planner: Planner, end: End) -> str:
        """Publish where the mended log ends; return where the record before is kept.

        Last of the log's files: until then nobody opens the store, and appends.
        """
        # A copy: writers know by the file that it was replaced.
        is_there = planner.read(_END) is not None
        kept = quarantine.keep(_END, is_copied=True) if is_there else ""
        self._disk.write_atomically(self._root / _END, end_format.encode(end))
        return kept

    def _publish_packs(self) -> None:
        """Put packs of what a copy has beside the others; the event registers them."""
        for container, one in self._fetched.items():
            path = self._root / container
            with operating_system_door("Cannot copy a pack"):
                path.parent.mkdir(exist_ok=True)
            with (
                files.replacing(path) as fd,
                one.path.open("rb") as source,
                open(fd, "wb", closefd=False) as target,
            ):
                shutil.copyfileobj(source, target, 1024 * 1024)

    def _mend(self, quarantine: Quarantine, planner: Planner, salvage: Salvage) -> str:
        """Put a mended file into the place of a damaged one; return where that is kept.

        The newest segment is written in place: a writer may have it open, and would go on in a file
        without a name. Only gaps are written, so a kill leaves them gaps.
        """
        path = self._root / salvage.container
        data = planner.read(salvage.container)
        if salvage.container == planner.live and data is not None:
            return self._mend_in_place(quarantine, path, salvage)
        kept = quarantine.keep(salvage.container, is_copied=False) if data is not None else ""
        with files.replacing(path) as fd:
            if data is not None:
                os.fchmod(fd, stat.S_IMODE(path.stat().st_mode))
            write_mended(fd, data or b"", salvage)
        return kept

    def _mend_in_place(self, quarantine: Quarantine, path: Path, salvage: Salvage) -> str:
        fd = self._disk.open_write(path)  # a link is refused before anything behind it is kept
        try:
            kept = quarantine.keep(salvage.container, is_copied=True)
            for offset, patch in salvage.patches:
                self._disk.write(fd, patch, offset)
            self._disk.sync(fd)
        finally:
            self._disk.close(fd)
        return kept

    def _throw_views_away(self) -> None:
        views = self._root / layout.VIEWS
        with operating_system_door("Cannot remove a view"):
            for pattern in _DISPOSABLE:
                for found in views.glob(pattern):
                    if found.is_dir():
                        shutil.rmtree(found)
                    else:
                        found.unlink()

    def record(self, mending: Mending, actor: str) -> Mending:
        """Append the event that says what was done, once files were mended or chunks lost."""
        if not mending.is_applied:
            return mending
        if not _is_log_refused(mending):
            try:
                mending = self._recorded(mending, actor)
            except CheckpointError as error:
                if not self._folders:
                    raise
                # Files were replaced: what was done is told all the same, and gone on with later.
                problems = (*mending.problems_after, f"{error.code}: {error.message}")
                total = mending.problems_after_total + 1
                return msgspec.structs.replace(
                    mending, problems_after=problems, problems_after_total=total
                )
        for folder in self._folders:
            finish(folder)
        return mending

    def _recorded(self, mending: Mending, actor: str) -> Mending:
        is_worth_it = mending.has_news or self._folders or self._packs
        with open_store(self._root, environment=self._environment) as store:
            store.view()
            if not is_worth_it:
                return mending
            wire = values.prepare(mending.record(), path="").wire
            for _ in range(_ATTEMPTS_MAX):
                draft = store.blobs.split(wire)
                size = sum(len(record) for _, record in draft.fresh)
                command = Record(
                    actor=actor,
                    command=f"repair-{self._now_us}-{os.getpid()}",
                    type=REPAIRED,
                    facts=mending.facts(),
                    data=draft.reference,
                    new=size,
                )
                packs, places = self._packs, tuple(self._places)
                step = Step(command, [record for _, record in draft.fresh])
                if size > _PACKED_BYTES:
                    more, more_places = store.write_packs(draft.fresh)
                    packs, places = (*packs, *more), (*places, *more_places)
                    step = Step(command)
                outcome = store.submit_with_reserve(Intent((step,), packs, places))
                if not isinstance(outcome, Stale):
                    position = store.position - 1
                    return msgspec.structs.replace(mending, position=position)
        raise LogCorruptionError("The event of the repair could not be appended.")


def _missing(run: Run) -> set[bytes]:
    return run.contents.breakage.missing if run.contents is not None else set()


def _harm(before: Report, after: Report) -> set[Problem]:
    """Return what is wrong afterwards with the log, or a head, in files that were sound."""
    hurt = {one.file for one in before.problems}
    return {
        one
        for one in after.problems
        if one.file not in hurt and one.file != _END and not one.code.startswith("blob.")
    }


def _is_log_refused(mending: Mending) -> bool:
    """Say whether a file of the log is left damaged, so that the store may not open anew."""
    return any(one.container.startswith(LOG) for one in mending.refused)


def _files(planner: Planner) -> Iterator[MendedFile]:
    for one in planner.salvages:
        yield MendedFile(
            container=one.container,
            action="made" if one.was_missing else "mended",
            bits=one.bits,
            copied=one.copied,
            events_lost=len(one.events_lost),
            chunks_lost=len(one.chunks_lost),
        )
    for container in planner.strays:
        yield MendedFile(container=container, action="moved")
    if planner.end is not None and not planner.refused:
        action = "made" if planner.read(_END) is None else "mended"
        yield MendedFile(container=_END, action=action)
    for refused in planner.refused:
        yield MendedFile(container=refused.container, action="refused", message=refused.message)
