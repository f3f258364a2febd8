"""STORE/quarantine: the originals of what repairs have replaced. Nothing here is ever removed.

quarantine/<time>/log/...seg, packs/...pack     as they were
quarantine/<time>/repair.json                   what is being done; done.json when it was done
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from ckptlog.errors import CheckpointError, operating_system_door
from ckptlog.storage import files
from ckptlog.storage.disk import Disk

FOLDER: Final = "quarantine"
_PENDING: Final = "repair.json"
_DONE: Final = "done.json"
_PIECE_BYTES: Final = 1 << 20
_BLOCK_BYTES: Final = 4096


class Quarantine:
    """The folder of one repair."""

    def __init__(self, root: Path, disk: Disk, now_us: int) -> None:
        self._root = root
        self._disk = disk
        self.name = f"{FOLDER}/{now_us}"
        self._folder = root / self.name

    def open(self, told: dict[str, Any]) -> None:
        """Make the folder and say in it what is being done.

        Durability: all of it is on the medium when it returns.
        """
        with operating_system_door("Cannot make the quarantine"):
            for name in ("log", "packs"):
                (self._folder / name).mkdir(parents=True, exist_ok=True)
        self.tell(told)
        for folder in (self._folder, self._folder.parent, self._root):
            files.sync_directory(folder)

    def tell(self, told: dict[str, Any]) -> None:
        """Write what is being done, or was."""
        files.write_atomically(self._folder / _PENDING, msgspec.json.encode(told))

    def keep(self, container: str, *, is_copied: bool) -> str:
        """Keep a file; return where, below the store's root.

        Args:
            is_copied: Copy its bytes, for it will be written in place; else give it a second name.

        Durability: the bytes and the name, when it returns.
        """
        source, target = self._root / container, self._folder / container
        if not target.exists():
            with operating_system_door("Cannot keep a damaged file"):
                if is_copied or not _linked(source, target):
                    self._copy(source, target)
            files.sync_directory(target.parent)
        return f"{self.name}/{container}"

    def _copy(self, source: Path, target: Path) -> None:
        temporary = target.with_name(f"{target.name}.tmp")
        with temporary.open("wb") as new:
            os.fchmod(new.fileno(), stat.S_IMODE(source.stat().st_mode))
            for piece in pieces(self._disk, source):
                new.write(piece)
            new.flush()
            files.sync_file(new.fileno())
        temporary.rename(target)

    def close(self) -> None:
        """Say that it was done."""
        with operating_system_door("Cannot end a repair"):
            (self._folder / _PENDING).rename(self._folder / _DONE)
        files.sync_directory(self._folder)


def unfinished(root: Path) -> list[Path]:
    """Return the folders of repairs that were interrupted, oldest first."""
    return sorted(path.parent for path in (root / FOLDER).glob(f"*/{_PENDING}"))


def finish(folder: Path) -> None:
    """Say that what an interrupted repair had begun is done by a later one."""
    with operating_system_door("Cannot end a repair"):
        (folder / _PENDING).rename(folder / _DONE)
    files.sync_directory(folder)


def pieces(disk: Disk, path: Path) -> Iterator[bytes]:
    """Yield a file's bytes; blocks that the medium does not give any more are zeros."""
    fd = disk.open_read(path)
    try:
        size = disk.size(fd)
        for start in range(0, size, _PIECE_BYTES):
            end = min(start + _PIECE_BYTES, size)
            try:
                yield disk.read(fd, end - start, start)
            except CheckpointError:
                for at in range(start, end, _BLOCK_BYTES):
                    yield _block(disk, fd, at, min(_BLOCK_BYTES, end - at))
    finally:
        disk.close(fd)


def _block(disk: Disk, fd: int, offset: int, length: int) -> bytes:
    try:
        return disk.read(fd, length, offset)
    except CheckpointError:
        return bytes(length)


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:  # a file system without links, or another one below the folder
        return False
    return True
