"""The folder that a collection works in: its lock lets one work at a time (specs/collection.md)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ckptlog.errors import CollectionBusyError, FullError, LockTimeoutError, operating_system_door
from ckptlog.repository import layout
from ckptlog.storage.files import make_below
from ckptlog.storage.lock import WriterLock

if TYPE_CHECKING:
    from ckptlog.repository.store import Store

_FOLDER: Final = "collect"


@contextmanager
def workplace(store: Store) -> Iterator[Path]:
    """Give an empty folder that no other collection of this store has."""
    folder = store.path / layout.VIEWS / _FOLDER
    try:
        _make(store, folder)
    except FullError:
        layout.release_reserve(store.path)
        _make(store, folder)
    lock = WriterLock(folder / "lock", store.environment)
    try:
        lock.acquire(0.0)
    except LockTimeoutError as error:
        raise CollectionBusyError(
            f"Another collection of {store.path} is at work ({error.context.get('holder')}).",
            hint="Wait for it; one that was killed never blocks.",
            path=str(store.path),
        ) from error
    try:
        _empty(folder)  # of one that was killed
        yield folder
    finally:
        _empty(folder)
        lock.release()
        lock.close()


def _make(store: Store, folder: Path) -> None:
    with operating_system_door("Cannot make a folder to work in"):
        make_below(store.path, folder)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != "lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
