"""A second copy of a store, from which damaged bytes are taken. Who asks checks them."""

from __future__ import annotations

from pathlib import Path

from ckptlog.errors import ArgumentError
from ckptlog.repository import layout
from ckptlog.repository.gap import Copy
from ckptlog.storage.disk import Disk


class SecondCopy:
    """Another directory of the same store.

    Raises:
        ArgumentError: It is another store, or the same directory.
        StoreMissingError, NotAStoreError: There is none.
    """

    def __init__(self, path: Path, root: Path, store_id: bytes, disk: Disk) -> None:
        self.path = path
        self._disk = disk
        if path.resolve() == root.resolve():
            raise ArgumentError(
                f"{path} is the damaged store itself.", hint="Name a copy.", argument="from"
            )
        info = layout.read_info(path)
        if info.id_bytes != store_id:
            raise ArgumentError(
                f"{path} is another store: its id is {info.id}, not {store_id.hex()}.",
                hint="Name a copy or a backup of this store.",
                argument="from",
            )

    def of(self, container: str) -> Copy | None:
        """Return what reads the copy of a container; None where it has none."""
        path = self.path / container
        if not path.exists():
            return None
        data: list[bytes] = []

        def read(offset: int, length: int) -> bytes:
            if not data:
                data.append(self._whole(path))
            return data[0][offset : offset + length]

        return read

    def _whole(self, path: Path) -> bytes:
        fd = self._disk.open_read(path)
        try:
            return self._disk.read(fd, self._disk.size(fd), 0)
        finally:
            self._disk.close(fd)
