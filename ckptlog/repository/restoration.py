"""A backup read again: checked where it is, or made into a store.

    DIR/restoring -> files, each compared with its length and hash -> log/end -> store.json
    -> verified -> `restoring` removed

Until `restoring` is gone, DIR is no store; a restore that was killed is begun anew there.
Page: specs/backup.md.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from ckptlog.errors import (
    ArgumentError,
    BackupDamagedError,
    BackupDivergedError,
    BackupForeignError,
    CheckpointStorageError,
    FormatError,
    RestoreConflictError,
    StoreMissingError,
    operating_system_door,
)
from ckptlog.formats.backup import BackedFile, Manifest
from ckptlog.repository import layout
from ckptlog.repository.backing import (
    END,
    FOLDERS,
    STORE_JSON,
    BackupFolder,
    locked,
    read_manifest,
    seed_of,
)
from ckptlog.repository.carrier import Carrier, Job
from ckptlog.repository.head_check import BRANCHES, KeptHeads
from ckptlog.repository.report import Level, Problem, Progress, Report
from ckptlog.repository.verify import VIEW_NOT_COMPARED, verify_directory
from ckptlog.storage import files
from ckptlog.storage.environment import Environment

RESTORING: Final = "restoring"
_TIMEOUT_S: Final = 30.0
_BRANCH_NEXT: Final = (
    "This store signs again after `ckptlog audit fork`, which puts the present key away: where the "
    "other copy lives on here, give this one a folder of keys of its own first (CKPTLOG_KEYS)."
)
_LEFT: Final = "What is left of it: ckptlog restore-store --damaged (allow_damaged=True)."


class RestoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore made.

    path: The new store. backup: Where it came from. store: Its id, the same as the original's.
    position: P, after the last event. bytes, files: Copied. events, checkpoints: Verified.
    notes: What is worth knowing: what signed heads say of it, above all.
    damaged: What of the backup's files is not as it was written, where that was allowed.
    problems: What `verify` finds in the new store; at most 1,000. problems_total: All of them.
    """

    path: str
    backup: str
    store: str
    position: int
    bytes: int
    files: int
    events: int
    checkpoints: int
    notes: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    problems_total: int = 0

    @property
    def ok(self) -> bool:
        """Whether all of it is as it was backed up, and sound."""
        return not self.damaged and not self.problems_total

    def to_dict(self) -> dict[str, Any]:
        """Return everything, safe for JSON."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        fields |= {"notes": list(self.notes), "damaged": list(self.damaged), "ok": self.ok}
        fields["problems"] = [problem.to_dict() for problem in self.problems]
        return fields


def verify_backup(
    root: Path,
    *,
    level: Level = "full",
    environment: Environment | None = None,
    progress: Progress | None = None,
) -> Report:
    """Read a backup: every file against its hash, then the whole as a store.

    Raises:
        BackupDamagedError: Something is not as it was written; the message says what.
        BackupDivergedError: It contradicts what was signed here, as another branch does.
    """
    environment = environment or Environment()
    manifest = _whole_manifest(root)
    folder = BackupFolder(root)
    total = sum(file.bytes for file in manifest.files)
    count = _Count(total, progress)
    carrier = Carrier(environment.disk, count.advance)
    for file in manifest.files:
        _check_hash(folder, manifest, file, carrier)
        count.advance(file.bytes)
    report = _verified(root, level, progress, environment)
    _refuse_problems(root, report)
    return report


def restore_store(
    backup: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    level: Level = "full",
    allow_damaged: bool = False,
    allow_branch: bool = False,
    environment: Environment | None = None,
    progress: Progress | None = None,
) -> RestoreReport:
    """Make a store of a backup in a new or empty directory.

    Args:
        level: How thoroughly the new store is verified; hashes of files are compared in any case.
        allow_damaged: Bring back what is left of a damaged backup, as it is, and say in the report
            what is not as it was written. Nothing is mended: that is what `repair` is for.
        allow_branch: Restore the backup of another copy of the store, too, which went on by itself
            and contradicts what was signed here (specs/backup.md, "Another branch").
        progress: Called now and then with bytes done and bytes in all.

    Raises:
        StoreMissingError, BackupForeignError: There is no backup.
        BackupDamagedError: It is not as it was written; with allow_damaged: its manifest or its
            store.json is not.
        BackupDivergedError: It is of another branch, and that was not allowed.
        ArgumentError: The directory and the backup lie in one another.
        RestoreConflictError: The directory is not empty, or none.
        LockTimeoutError: A backup to it is at work.

    Durability: the new store is on the medium when it returns; killed before, it is no store.
    """
    environment = environment or Environment()
    source, root = _resolved(backup), _resolved(directory)
    _whole_manifest(source)
    with operating_system_door("Cannot look at the new store's directory"):
        _refuse_place(source, root)
    layout.refuse_unsafe_file_system(_existing(root), environment)
    _begin(source, root)
    with _quiet(source, environment):
        # Read under the lock: no run removes files of this state while it is copied.
        manifest = _whole_manifest(source)
        transfer = _Transfer(BackupFolder(source), manifest, root, environment, progress)
        damaged = transfer.run(allow_damaged=allow_damaged)
    report = _verified(root, level, progress, environment)
    try:
        if not allow_damaged:
            _refuse_problems(source, report, allow_branch=allow_branch)
    except (BackupDamagedError, BackupDivergedError):
        files.remove(root / STORE_JSON)
        raise
    files.remove(root / RESTORING)
    files.sync_directory(root)
    parting = _parting(report) if allow_branch else ()
    return _told(source, root, manifest, report, damaged=damaged, parting=parting)


def _told(
    source: Path,
    root: Path,
    manifest: Manifest,
    report: Report,
    *,
    damaged: tuple[str, ...],
    parting: tuple[Problem, ...],
) -> RestoreReport:
    """Return what a restore made; parting: what says that it is of another branch, as allowed."""
    return RestoreReport(
        path=str(root),
        backup=str(source),
        store=manifest.store,
        position=manifest.end_record.position,
        bytes=sum(file.bytes for file in manifest.files),
        files=len(manifest.files),
        events=report.events,
        checkpoints=report.checkpoints,
        notes=(
            *(f"{one.message} {_BRANCH_NEXT}" for one in parting),
            *(note for note in report.notes if note != VIEW_NOT_COMPARED),
        ),
        damaged=damaged,
        problems=tuple(one for one in report.problems if one not in parting),
        problems_total=report.problems_total - len(parting),
    )


def _verified(
    root: Path, level: Level, progress: Progress | None, environment: Environment
) -> Report:
    kept = KeptHeads(is_backup=True)
    return verify_directory(root, level, progress, environment=environment, kept=kept)


def _resolved(path: str | os.PathLike[str]) -> Path:
    with operating_system_door("Cannot find the directory"):
        return Path(path).expanduser().resolve()


def _existing(path: Path) -> Path:
    """Return the nearest of a path and what it lies in that is there."""
    return next(one for one in (path, *path.parents) if os.path.lexists(one))


def _whole_manifest(root: Path) -> Manifest:
    manifest = read_manifest(root)
    if manifest is None:
        if not root.exists():
            raise StoreMissingError(
                f"There is no backup at {root}.", hint="Correct the path.", path=str(root)
            )
        raise BackupForeignError(
            f"{root} is no backup: it has no backup.json.",
            hint=f"It is a store itself; make one with: ckptlog --store {root} backup DEST."
            if (root / STORE_JSON).is_file()
            else "Correct the path: a directory that `ckptlog backup` made is needed.",
            path=str(root),
        )
    if not manifest.is_whole:
        raise BackupDamagedError(
            f"The backup {root} was begun, and never finished.",
            hint="Run ckptlog backup to it again.",
            path=str(root),
        )
    return manifest


@contextmanager
def _quiet(source: Path, environment: Environment) -> Iterator[None]:
    """Keep runs of backup away, where the medium lets us; where it does not, none can come."""
    if not os.access(source, os.W_OK):
        yield
        return
    with locked(source, environment, _TIMEOUT_S):
        yield


def _refuse_place(source: Path, root: Path) -> None:
    """Refuse where no store can be made, before anything is made or read there."""
    if source == root or source in root.parents or root in source.parents:
        raise ArgumentError(
            f"The new store {root} and the backup {source} lie in one another.",
            hint="Name a new or an empty directory outside of the backup.",
            argument="directory",
            path=str(root),
        )
    found = _existing(root)
    if not found.is_dir():
        raise RestoreConflictError(
            f"{found} is not a directory.",
            hint="Choose a new or an empty directory; nothing was changed.",
            path=str(root),
        )


def _begin(source: Path, root: Path) -> None:
    """Make the directory ready; what a killed restore has left there is cleared.

    Raises:
        RestoreConflictError: Something else is in it.
    """
    with operating_system_door("Cannot make the new store's directory"):
        root.mkdir(parents=True, exist_ok=True)
        names = os.listdir(root)
    if names and RESTORING not in names:
        shown = ", ".join(sorted(names)[:3])
        raise RestoreConflictError(
            f"{root} is not empty (it holds {shown}).",
            hint="Choose a new or an empty directory; nothing was changed.",
            path=str(root),
        )
    files.write_atomically(root / RESTORING, f"from {source}\n".encode())
    with operating_system_door("Cannot clear what a restore has left"):
        files.remove(root / STORE_JSON)
        for name in FOLDERS:
            shutil.rmtree(root / name, ignore_errors=True)
        for name in layout.FOLDERS:
            (root / name).mkdir(exist_ok=True, mode=0o700 if name == "keys" else 0o777)
        (root / "heads" / "kept").mkdir(parents=True, exist_ok=True)


class _Transfer:
    """Copies what a manifest names into a new store."""

    def __init__(
        self,
        folder: BackupFolder,
        manifest: Manifest,
        root: Path,
        environment: Environment,
        progress: Progress | None,
    ) -> None:
        self._folder = folder
        self._manifest = manifest
        self._root = root
        self._disk = environment.disk
        count = _Count(sum(file.bytes for file in manifest.files), progress)
        self._carrier = Carrier(environment.disk, count.advance)

    def run(self, *, allow_damaged: bool) -> tuple[str, ...]:
        """Copy everything, store.json last; return what is damaged, where that is allowed."""
        manifest, root, damaged = self._manifest, self._root, []
        for file in manifest.files:
            if file.name != STORE_JSON:
                try:
                    self._carry(file)
                except BackupDamagedError as error:
                    if not allow_damaged:
                        raise
                    self._take(file)
                    damaged.append(error.message)
        files.write_atomically(root / END, bytes.fromhex(manifest.end))
        layout.restore_reserve(root)
        for name in (*FOLDERS, ""):
            files.sync_directory(root / name)
        self._carry(manifest.by_name[STORE_JSON])
        files.sync_directory(root)
        files.sync_directory(root.parent)
        return tuple(damaged)

    def _carry(self, file: BackedFile) -> None:
        folder, manifest = self._folder, self._manifest
        job = Job(
            name=file.name,
            source=folder.where(manifest, file.name),
            target=self._root / file.name,
            bytes=file.bytes,
            seed=seed_of(file.name, bytes.fromhex(manifest.store)),
        )
        try:
            carried = self._carrier.carry(job)
        except FormatError as error:
            raise _damaged(folder.root, file.name, error.message) from error
        except CheckpointStorageError as error:
            if error.context.get("errno") == errno.ENOENT:
                raise _damaged(folder.root, file.name, "it is missing.") from error
            raise
        if carried.file != file:
            files.remove(job.target)
            raise _damaged(folder.root, file.name, "its hash is another one.")

    def _take(self, file: BackedFile) -> None:
        """Copy the bytes that are there, up to the valid length, whatever they are."""
        target = self._root / file.name
        with suppress(FileNotFoundError):
            size = self._folder.where(self._manifest, file.name).stat().st_size
            source = self._folder.where(self._manifest, file.name)
            job = Job(name=file.name, source=source, target=target, bytes=min(size, file.bytes))
            self._carrier.carry(job)


def _check_hash(
    folder: BackupFolder, manifest: Manifest, file: BackedFile, carrier: Carrier
) -> None:
    with operating_system_door("Cannot read the backup"):
        try:
            fd = os.open(folder.where(manifest, file.name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise _damaged(folder.root, file.name, "it is missing.") from error
    try:
        found = carrier.hash_part(fd, file.bytes)
    finally:
        os.close(fd)
    if found != file.blake3:
        raise _damaged(folder.root, file.name, "its hash is another one, or it is cut.")


def _damaged(root: Path, name: str, why: str) -> BackupDamagedError:
    return BackupDamagedError(
        f"{name} in the backup {root} is damaged: {why}",
        hint="Restore from another backup, or back up again: what is damaged there is copied anew "
        f"once it is noticed (remove that file first). {_LEFT}",
        path=str(root / name),
    )


def _parting(report: Report) -> tuple[Problem, ...]:
    """Return the problems that say that a backup is of another branch."""
    return tuple(one for one in report.problems if one.code in BRANCHES)


def _refuse_problems(root: Path, report: Report, *, allow_branch: bool = False) -> None:
    parting = _parting(report)
    if report.problems_total == len(parting):
        if parting and not allow_branch:
            raise BackupDivergedError(
                f"The backup {root} is whole, and of another branch: {parting[0]}",
                hint="Nothing was changed, and no branch is lost: keep both. If you know this one: "
                "ckptlog restore-store --other-branch (allow_branch=True). If you do not, take it "
                "for tampered with, and compare it with a head that you kept (verify --head).",
                path=str(root),
            )
        return
    first = report.problems[0]
    raise BackupDamagedError(
        f"The backup {root} does not verify: {first} ({len(report.problems)} problems in all).",
        hint=f"The store may have been damaged before it was backed up: verify both. {_LEFT}",
        path=str(root),
        problems=len(report.problems),
    )


class _Count:
    """Counts bytes for a progress bar."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total = total
        self._progress = progress
        self._done = 0

    def advance(self, count: int) -> None:
        self._done += count
        if self._progress:
            self._progress(min(self._done, self._total), self._total)
