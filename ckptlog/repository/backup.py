"""Makes or renews a backup of a store, beside whoever works on it.

    small files (before the end is read) -> the published end P -> containers that are missing
    -> manifest (the new state counts) -> end, removals

Nothing that the present manifest names is changed before the next one counts. Files may vanish from
the source by collection; then it is looked at again. Orders and refusals: specs/backup.md.
"""

from __future__ import annotations

import errno
import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from blake3 import blake3

from ckptlog.errors import (
    ArgumentError,
    BackupDivergedError,
    BackupForeignError,
    BlobCorruptionError,
    CheckpointStorageError,
    FormatError,
    LogCorruptionError,
    MissingBlobError,
    operating_system_door,
)
from ckptlog.formats import end as end_format
from ckptlog.formats import segment
from ckptlog.formats.backup import SMALL_FOLDERS, BackedFile, Manifest, in_order, is_name
from ckptlog.formats.end import End
from ckptlog.log.segments import container_of
from ckptlog.model.cursor import BEGINNING, Cursor
from ckptlog.model.quotation import quoted
from ckptlog.repository import inventory
from ckptlog.repository.backing import STORE_JSON, BackupFolder, locked, read_manifest, seed_of
from ckptlog.repository.carrier import Carrier, Job, TargetChangedError, TargetLongerError
from ckptlog.repository.inventory import Container
from ckptlog.repository.report import Progress
from ckptlog.storage import files

if TYPE_CHECKING:
    from ckptlog.repository.store import Store

# A cursor has 8 KiB, a key or a head less; what is larger does not belong there.
_SMALL_BYTES_MAX: Final = 16 * 1024 * 1024
_ATTEMPTS_MAX: Final = 100
_SET_BACK: Final = (
    "The store was set back, or is another copy that went on by itself. Keep this backup; back up "
    "to another directory."
)
_NOT_COPIED: Final = (".lock", files.TEMPORARY_SUFFIX)


class BackupReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup did.

    path: The directory. store: The store's id. position: P, after the last event in it.
    previous: P of the state before; 0 for a first one. bytes_copied, files_copied: Written.
    bytes_skipped, files_skipped: There already. files_removed: Not needed any more.
    is_verified: Whether it was read again and found sound. notes: What is worth knowing.
    """

    path: str
    store: str
    position: int
    previous: int
    bytes_copied: int
    bytes_skipped: int
    files_copied: int
    files_skipped: int
    files_removed: int
    is_verified: bool = False
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything, safe for JSON; `verified` as in the command's answer."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        fields["notes"] = list(fields["notes"])
        fields["verified"] = fields.pop("is_verified")
        return fields


def back_up(
    store: Store,
    destination: str | os.PathLike[str],
    *,
    verify: bool = False,
    progress: Progress | None = None,
) -> BackupReport:
    """Bring a backup to the store's present end (see `Store.backup`)."""
    root = _directory(store, destination)
    if read_manifest(root) is None:  # before a lock is left in somebody else's directory
        BackupFolder(root).refuse_other_things()
    with locked(root, store.environment, store.timeout_s):
        for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
            files.remove_left_over(folder)
        report = _Run(store, BackupFolder(root), progress).run()
        if not verify:
            return report
        from ckptlog.repository.restoration import verify_backup

        verify_backup(root, environment=store.environment, progress=progress)
        return msgspec.structs.replace(report, is_verified=True)


def _directory(store: Store, destination: object) -> Path:
    text = os.fspath(destination) if isinstance(destination, str | os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise ArgumentError(f"{quoted(destination)} is not a path.", argument="destination")
    with operating_system_door("Cannot make the backup's directory"):
        root, source = Path(text).expanduser().resolve(), store.path.resolve()
        if root == source or source in root.parents or root in source.parents:
            raise ArgumentError(
                f"The backup {root} and the store {source} lie in one another.",
                hint="Name a directory outside of the store, best on another disk.",
                argument="destination",
            )
        if root.exists() and not root.is_dir():
            raise BackupForeignError(
                f"{root} is not a directory.",
                hint="Back up to a new or an empty directory.",
                path=str(root),
            )
        root.mkdir(parents=True, exist_ok=True)
    return root


class _VanishedError(Exception):
    """A file of the source went while it was wanted; its name is the argument."""


class _Run:
    """One backup."""

    def __init__(self, store: Store, folder: BackupFolder, progress: Progress | None) -> None:
        self._store = store
        self._folder = folder
        self._progress = progress
        self._done_bytes = self._total_bytes = 0
        self._carrier = Carrier(store.environment.disk, self._advance)
        # What this run has brought already, for when it must look again.
        self._brought: dict[str, BackedFile] = {}
        self._written: dict[str, int] = {}
        self._notes: list[str] = []
        self._old: Manifest
        self._firsts: set[int] = set()

    def run(self) -> BackupReport:
        folder, store = self._folder, self._store
        created = datetime.fromtimestamp(store.environment.now_us() / 1e6, UTC)
        text = created.isoformat(timespec="seconds")
        self._old = folder.begin(read_manifest(folder.root), store.info.id, text)
        parsed = (segment.parse_name(f.name.rpartition("/")[2]) for f in self._old.files)
        self._firsts = {name[0] for name in parsed if name is not None}
        small = self._small_files()
        end, found = self._containers()
        manifest = Manifest(
            created=text,
            end=end_format.encode(end).hex(),
            files=in_order([*small, *found]),
            serial=self._serial,
            store=store.info.id,
        )
        removed = 0
        if (manifest.end, manifest.files) != (self._old.end, self._old.files):
            folder.commit(manifest)
            removed = folder.finish(manifest)
        else:
            folder.finish(self._old)
        if self._progress:
            self._progress(self._total_bytes, self._total_bytes)
        return self._report(manifest, end, removed)

    @property
    def _serial(self) -> int:
        return self._old.serial + 1

    def _report(self, manifest: Manifest, end: End, removed: int) -> BackupReport:
        copied = {name: count for name, count in self._written.items() if count}
        names = manifest.by_name
        total = sum(file.bytes for file in manifest.files)
        copied_bytes = sum(copied.values())
        return BackupReport(
            path=str(self._folder.root),
            store=manifest.store,
            position=end.position,
            previous=self._old.end_record.position if self._old.is_whole else 0,
            bytes_copied=copied_bytes,
            bytes_skipped=max(0, total - copied_bytes),
            files_copied=len(copied),
            files_skipped=len(names) - len(copied.keys() & names.keys()),
            files_removed=removed,
            notes=tuple(self._notes),
        )

    def _advance(self, count: int) -> None:
        self._done_bytes += count
        if self._progress:
            self._progress(min(self._done_bytes, self._total_bytes), self._total_bytes)

    # --- small files --------------------------------------------------------------------------

    def _small_files(self) -> list[BackedFile]:
        """Bring what is copied as a whole, before the end is read: none of it is ahead of that."""
        found = [self._small(STORE_JSON)]
        for name in SMALL_FOLDERS:
            found += [self._small(f"{name}/{one}") for one in self._names(name)]
        return [file for file in found if file is not None]

    def _names(self, folder: str) -> list[str]:
        with operating_system_door("Cannot list"):
            try:
                names = sorted(os.listdir(self._store.path / folder))
            except (FileNotFoundError, NotADirectoryError):
                return []
        names = [name for name in names if f"{folder}/{name}" not in SMALL_FOLDERS]
        return [name for name in names if not name.endswith(_NOT_COPIED)]

    def _small(self, name: str) -> BackedFile | None:
        path = self._store.path / name
        with operating_system_door("Cannot read a file of the store"):
            try:
                status = os.lstat(path)
                is_odd = not stat.S_ISREG(status.st_mode) or status.st_size > _SMALL_BYTES_MAX
                if is_odd or not is_name(name):
                    self._notes.append(f"{name} is not copied: it is no small file.")
                    return None
                data = path.read_bytes()
            except FileNotFoundError:  # a consumer, a key that was removed this moment
                return None
        file = BackedFile(name, len(data), blake3(data).hexdigest())
        if self._old.by_name.get(name) != file or _size(self._folder.path(name)) != file.bytes:
            files.write_atomically(self._folder.stage(self._serial, name), data, durable=True)
            self._written[name] = len(data)
        return file

    # --- containers ---------------------------------------------------------------------------

    def _containers(self) -> tuple[End, list[BackedFile]]:
        """Bring the containers of the present end; look again where one has gone meanwhile."""
        missing: set[tuple[str, int]] = set()
        for _ in range(_ATTEMPTS_MAX):
            end = self._store.log.end()
            self._check_past(end)
            try:
                return end, self._bring(end)
            except _VanishedError as error:
                name = str(error)
                if (name, end.position) in missing:
                    raise _gone(name) from error
                missing.add((name, end.position))
        raise CheckpointStorageError(
            f"Files of {self._store.path} went away again and again while they were copied.",
            hint="Call again when less is collected.",
        )

    def _check_past(self, end: End) -> None:
        """Refuse where the backup's end is not in the past of the store's."""
        if not self._old.is_whole:
            return
        old = self._old.end_record
        if end.position < old.position:
            raise BackupDivergedError(
                f"The backup {self._folder.root} has {old.position} events, the store only "
                f"{end.position}.",
                hint=_SET_BACK,
                position=end.position,
            )
        near = Cursor(old.position, old.leaf, container_of(old.first, old.generation), old.offset)
        if (
            old.position
            and self._store.log.reader.locate(old.position, near, stop=end).leaf != old.leaf
        ):
            raise BackupDivergedError(
                f"Event {old.position - 1} is another one in the store than in the backup "
                f"{self._folder.root}.",
                hint=_SET_BACK,
                position=old.position - 1,
            )

    def _bring(self, end: End) -> list[BackedFile]:
        wanted = inventory.segments_at(self._store, end)
        packs, kept = self._packs(end)
        wanted += packs
        jobs = [(one, self._known(one)) for one in wanted]
        self._total_bytes = sum(self._lacking(one) for one, known in jobs if known is None)
        self._done_bytes = 0
        return [known or self._carry(one) for one, known in jobs] + kept

    def _lacking(self, wanted: Container) -> int:
        file = self._present(wanted.name)
        return max(0, wanted.bytes - (file.bytes if file else 0))

    def _packs(self, end: End) -> tuple[list[Container], list[BackedFile]]:
        """Return the packs to have at an end, and those that only the backup has by now."""
        told = inventory.registered(self._store, self._start(), end)
        present = inventory.pack_names(self._store)
        wanted, kept = [], []
        for file in self._old.files:
            if not file.name.startswith("packs/"):
                continue
            if file.name in told.removed:
                continue
            if file.name in present:
                wanted.append(Container(file.name, file.bytes))
            else:
                kept.append(file)
                self._note(f"{file.name} is missing in the store; the backup keeps its copy.")
        for name, size in told.packs.items():
            if name in present:
                wanted.append(Container(name, size))
            else:
                raise _VanishedError(name)
        return wanted, kept

    def _start(self) -> Cursor:
        """Return where to read on for packs: all before is in the manifest."""
        if not self._old.is_whole or not self._old.end_record.position:
            return BEGINNING
        old, reader = self._old.end_record, self._store.log.reader
        near = Cursor(old.position, old.leaf, container_of(old.first, old.generation), old.offset)
        return reader.locate(old.position, near, stop=self._store.log.end())

    def _known(self, wanted: Container) -> BackedFile | None:
        """Return what the backup has already, where that is all of a container."""
        file = self._present(wanted.name)
        if file is None:
            return None
        length = wanted.bytes
        if length < 0:
            length = _size(self._store.path / wanted.name)
        there = _size(self._place(wanted.name))
        if there < file.bytes:
            self._note(f"{wanted.name} was missing or cut in the backup; it is copied anew.")
            return None
        return file if length == file.bytes else None

    def _present(self, name: str) -> BackedFile | None:
        return self._brought.get(name) or self._old.by_name.get(name)

    def _place(self, name: str) -> Path:
        waiting = self._folder.staged(self._serial, name)
        return waiting if waiting.exists() else self._folder.path(name)

    def _carry(self, wanted: Container) -> BackedFile:
        name = wanted.name
        kept = self._present(name)
        place = self._place(name)
        if kept is None and self._replaces(name):
            place = self._folder.stage(self._serial, name)
        if kept is not None and _size(place) < kept.bytes:
            kept = None
        job = Job(
            name=name,
            source=self._store.path / name,
            target=place,
            bytes=wanted.bytes,
            seed=seed_of(name, self._store.info.id_bytes),
            kept=kept,
        )
        try:
            carried = self._carrier.carry(job)
        except TargetChangedError:
            self._note(f"{name} was damaged in the backup; it is copied anew.")
            carried = self._carrier.carry(msgspec.structs.replace(job, kept=None))
        except TargetLongerError as error:
            raise BackupDivergedError(
                f"{name} is longer in the backup {self._folder.root} than in the store.",
                hint=_SET_BACK,
                path=name,
            ) from error
        except FormatError as error:
            raise _damaged(self._store.path / name, error) from error
        except CheckpointStorageError as error:
            if error.context.get("errno") == errno.ENOENT:
                raise _VanishedError(name) from error
            raise
        self._brought[name] = carried.file
        self._written[name] = self._written.get(name, 0) + carried.written
        return carried.file

    def _replaces(self, name: str) -> bool:
        """Say whether a segment takes the place of one that the present state needs."""
        parsed = segment.parse_name(name.rpartition("/")[2])
        return parsed is not None and parsed[0] in self._firsts

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _damaged(path: Path, error: FormatError) -> BlobCorruptionError | LogCorruptionError:
    kind = BlobCorruptionError if path.parent.name == "packs" else LogCorruptionError
    return kind(
        f"{path} is damaged: {error.message}",
        hint="The backup stays as it was. Run ckptlog verify on the store.",
        path=str(path),
    )


def _gone(name: str) -> MissingBlobError | LogCorruptionError:
    kind = MissingBlobError if name.startswith("packs/") else LogCorruptionError
    return kind(
        f"{name} is missing in the store, and no collection has removed it.",
        hint="The backup stays as it was. Run ckptlog verify on the store.",
        path=name,
    )
