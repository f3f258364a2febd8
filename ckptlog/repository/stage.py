"""A store as it would be after a repair, laid out beside it: mended files, and links to the others.

So what a repair leaves is verified before anything is touched, and a dry run tells exactly what
would be lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ckptlog.errors import operating_system_door
from ckptlog.formats import end
from ckptlog.repository import layout
from ckptlog.repository.head_shelf import FOLDER as HEADS
from ckptlog.repository.plan import Planner
from ckptlog.repository.salvage import Salvage
from ckptlog.storage import files

_BLOCK_BYTES = 4 * 1024 * 1024


class Stage:
    """Lays out the mended store in a folder of the caller's."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._root = root
        self.folder = folder

    def lay_out(self, planner: Planner, salvages: Iterable[Salvage], strays: list[str]) -> None:
        """Write the mended files and link all others.

        Raises:
            CheckpointStorageError: There is no room, for one.
        """
        mended = {one.container: one for one in salvages}
        with operating_system_door("Cannot lay a mended store out"):
            for name in ("log", "packs"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            self._link(layout.STORE_JSON)
            if (self._root / HEADS).is_dir():
                self._link(HEADS)
            for name in ("log", "packs"):
                for path in sorted((self._root / name).glob("*")):
                    container = f"{name}/{path.name}"
                    if container not in mended and container not in strays:
                        self._link(container)
        if planner.end is not None:
            files.write_atomically(self.folder / "log" / "end", end.encode(planner.end))
        for container, salvage in mended.items():
            self._write(self.folder / container, planner.read(container) or b"", salvage)

    def _link(self, name: str) -> None:
        (self.folder / name).symlink_to((self._root / name).resolve())

    def _write(self, path: Path, data: bytes, salvage: Salvage) -> None:
        with files.replacing(path) as fd:
            write_mended(fd, data, salvage)


def write_mended(fd: int, data: bytes, salvage: Salvage) -> None:
    """Write a container's bytes with its patches; not synced."""
    kept = data if salvage.length is None else data[: salvage.length]
    for start in range(0, len(kept), _BLOCK_BYTES):
        files.write_all(fd, kept[start : start + _BLOCK_BYTES], start)
    for offset, patch in salvage.patches:
        files.write_all(fd, patch, offset)
