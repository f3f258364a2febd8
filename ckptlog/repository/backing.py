"""The directory of a backup: its manifest, what waits to be shown, and the step to a new state.

    stage -> sync -> replace backup.json (the new state counts) -> `finish`: rename, log/end, remove

`finish` may be repeated: whoever works on the directory next does so, and completes what a killed
run has left. Page: specs/backup.md.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ckptlog.errors import (
    BackupDamagedError,
    BackupForeignError,
    FormatError,
    ReadOnlyError,
    operating_system_door,
)
from ckptlog.formats import backup as backup_format
from ckptlog.formats.backup import NAME, SMALL_FOLDERS, Manifest
from ckptlog.formats.frame import container_seed
from ckptlog.storage import files
from ckptlog.storage.environment import Environment
from ckptlog.storage.lock import WriterLock

FOLDERS: Final = ("log", "packs", *SMALL_FOLDERS)
STORE_JSON: Final = "store.json"
INCOMING: Final = "incoming"
END: Final = "log/end"
_SECRET: Final = 0o700


def read_manifest(root: Path) -> Manifest | None:
    """Return the manifest of a backup; None where the directory has none.

    Raises:
        BackupDamagedError: It is not as it was written.
        UnsupportedError: A newer version wrote it.
    """
    path = root / NAME
    with operating_system_door("Cannot read the backup"):
        try:
            with open(path, "rb") as file:
                data = file.read(backup_format.BYTES_MAX + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
    try:
        return backup_format.decode(data)
    except FormatError as error:
        raise BackupDamagedError(
            f"The backup {root} is damaged: {error.message}",
            hint="Back up to another directory; `ckptlog verify --store` tells what is left here.",
            path=str(path),
        ) from error


def is_backup(root: Path) -> bool:
    """Say whether a directory is, or was to become, a backup."""
    return os.path.lexists(root / NAME)


def refuse_backup(root: Path) -> None:
    """Raise ReadOnlyError where a directory is a backup: it is not to be written as a store."""
    if is_backup(root):
        raise ReadOnlyError(
            f"{root} is a backup; it can be read, not written.",
            hint=f"Make a store of it: ckptlog restore-store {root} DIR; or open it with "
            "read_only=True.",
            path=str(root),
        )


def seed_of(name: str, store_id: bytes) -> int | None:
    """Return the seed of a container's checksums; None for a file without frames."""
    folder, _, rest = name.rpartition("/")
    return container_seed(store_id, rest) if folder in ("log", "packs") else None


class BackupFolder:
    """A directory that is, or becomes, a backup. The caller holds its lock.

    Threads: one.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        """Return where a file of the present state stands, or will."""
        return self.root / name

    def staged(self, serial: int, name: str) -> Path:
        """Return where a file waits for the state of this serial."""
        return self.root / INCOMING / str(serial) / name

    def where(self, manifest: Manifest, name: str) -> Path:
        """Return where a file of the manifest is to be read."""
        waiting = self.staged(manifest.serial, name)
        return waiting if waiting.exists() else self.path(name)

    def begin(self, manifest: Manifest | None, store: str, created: str) -> Manifest:
        """Finish what an earlier run left, make the folders; return the present manifest.

        Raises:
            BackupForeignError: Another store's backup, or no backup.
        """
        if manifest is None:
            self.refuse_other_things()
            manifest = Manifest(created=created, end="", files=(), serial=0, store=store)
            files.write_atomically(self.path(NAME), backup_format.encode(manifest))
        elif manifest.store != store:
            raise BackupForeignError(
                f"{self.root} is a backup of the store {manifest.store}, not of {store}.",
                hint="Back up to another directory.",
                path=str(self.root),
            )
        self._make_folders()
        self.finish(manifest)
        return manifest

    def refuse_other_things(self) -> None:
        """Refuse a directory without a manifest that is not empty."""
        with operating_system_door("Cannot list"):
            names = [
                name
                for name in sorted(os.listdir(self.root))
                if name != "lock" and not name.endswith(files.TEMPORARY_SUFFIX)
            ]
        if STORE_JSON in names:
            raise BackupForeignError(
                f"{self.root} is a store, not a backup.",
                hint="Back up to a new or an empty directory.",
                path=str(self.root),
            )
        if names:
            raise BackupForeignError(
                f"{self.root} is not empty and is no backup (it holds {', '.join(names[:3])}).",
                hint="Back up to a new or an empty directory.",
                path=str(self.root),
            )

    def _make_folders(self) -> None:
        with operating_system_door("Cannot make the folders of the backup"):
            for name in FOLDERS:
                (self.root / name).mkdir(exist_ok=True, mode=_SECRET if name == "keys" else 0o777)

    def stage(self, serial: int, name: str) -> Path:
        """Return where to put what must not be seen before the state of this serial counts."""
        path = self.staged(serial, name)
        with operating_system_door("Cannot make a folder of the backup"):
            for folder in (self.root / INCOMING, path.parent):
                folder.mkdir(exist_ok=True, parents=True, mode=_SECRET)
        return path

    def commit(self, manifest: Manifest) -> None:
        """Let a state count whose bytes are synced.

        Durability: names first, then the manifest, all on the medium when it returns.
        """
        for folder, folders, _ in os.walk(self.root, topdown=False):
            del folders
            files.sync_directory(Path(folder))
        files.write_atomically(self.path(NAME), backup_format.encode(manifest))

    def finish(self, manifest: Manifest) -> int:
        """Show the state that counts, and remove what it does not need; return how many files."""
        if manifest.is_whole:
            self._show(manifest)
        with operating_system_door("Cannot remove what is left of an earlier backup"):
            if (self.root / INCOMING).exists():
                shutil.rmtree(self.root / INCOMING)
        if not manifest.is_whole:
            return 0  # what a killed first run has copied is compared, and kept where it is equal
        return self._remove_others(manifest)

    def _show(self, manifest: Manifest) -> None:
        waiting = [
            file.name
            for file in manifest.files
            if self.staged(manifest.serial, file.name).exists() and file.name != STORE_JSON
        ]
        for name in waiting:
            files.publish(self.staged(manifest.serial, name), self.path(name), durable=False)
        for folder in {self.path(name).parent for name in waiting}:
            files.sync_directory(folder)
        raw = bytes.fromhex(manifest.end)
        if _content(self.path(END)) != raw:
            files.write_atomically(self.path(END), raw)
        store_json = self.staged(manifest.serial, STORE_JSON)
        if store_json.exists():
            files.publish(store_json, self.path(STORE_JSON))

    def _remove_others(self, manifest: Manifest) -> int:
        wanted = {END, *FOLDERS, *manifest.by_name}
        removed = 0
        for folder in FOLDERS:
            with operating_system_door("Cannot list a folder of the backup"):
                names = sorted(os.listdir(self.root / folder))
            for name in names:
                if f"{folder}/{name}" not in wanted:
                    files.remove(self.root / folder / name)
                    removed += 1
        return removed


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@contextmanager
def locked(root: Path, environment: Environment, timeout_s: float) -> Iterator[None]:
    """Be the only one who works on a backup's directory.

    Raises:
        LockTimeoutError: Another process is at it; the message says which.
    """
    lock = WriterLock(root / "lock", environment)
    try:
        lock.acquire(timeout_s)
        try:
            yield
        finally:
            lock.release()
    finally:
        lock.close()
