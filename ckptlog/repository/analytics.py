"""The store's history for analysis: where it is kept, and what to do where that cannot be.

    own store        STORE/views/history; kept from call to call
    folder named     there; it may be another disk, and serves a store that cannot be written
    read-only store  STORE/views/history where it is up to date; else a folder of its own for this
                     process, gone at its end, so made anew in each

Only `Store.history` comes here: pyarrow is loaded by the first call, not by opening a store.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final

from ckptlog.blobs import payload
from ckptlog.errors import (
    ArgumentError,
    CheckpointError,
    DeniedError,
    ReadOnlyError,
    operating_system_door,
)
from ckptlog.log.bulk import BulkReader
from ckptlog.model.event import Reference
from ckptlog.repository.layout import HISTORY, VIEWS
from ckptlog.views.history.view import HistoryView, Source

if TYPE_CHECKING:
    import pyarrow.dataset as ds

    from ckptlog.repository.store import Store

# Of a larger one the class of an error is not looked for.
_META_BYTES_MAX: Final = 1024 * 1024


class Analytics:
    """Keeps the histories of one store up to date, each in its folder.

    Threads: safe; one call at a time works, others wait.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = Lock()
        self._views: dict[Path, HistoryView] = {}
        self._temporary: Path | None = None

    def dataset(self, folder: str | os.PathLike[str] | None, *, verify: bool) -> ds.Dataset:
        """Return the history up to the published end (see `Store.history`)."""
        named = None if folder is None else _path(folder)
        with self._lock:
            if named is not None:
                view = self._view(named)
                view.shelf.refuse_foreign()
                return self._updated(view, verify=verify)
            return self._own(verify=verify)

    def _own(self, *, verify: bool) -> ds.Dataset:
        store = self._store
        view = self._view(own_folder(store))
        if store.read_only:
            found = view.current(is_thorough=verify)
            if found is not None:
                return found
        else:
            try:
                return self._updated(view, verify=verify)
            except (DeniedError, ReadOnlyError):  # views that may not be written: as read-only
                pass
        return self._updated(self._view(self._temporary_folder()), verify=verify)

    def _updated(self, view: HistoryView, *, verify: bool) -> ds.Dataset:
        return view.update(is_thorough=verify, timeout_s=self._store.timeout_s)

    def _view(self, folder: Path) -> HistoryView:
        view = self._views.get(folder)
        if view is None:
            store = self._store
            log = store.log
            bulk = BulkReader(log.segments, store.info.id_bytes)
            source = Source(store.path, store.id, log.reader, bulk, log.published, self._wire_of)
            view = self._views[folder] = HistoryView(folder, source)
        return view

    def _temporary_folder(self) -> Path:
        if self._temporary is None:
            with operating_system_door("Cannot make a temporary folder"):
                made = tempfile.mkdtemp(prefix="ckptlog-history-")
            atexit.register(_remove, made, os.getpid())
            self._temporary = Path(made) / HISTORY
        return self._temporary

    def _wire_of(self, reference: Reference) -> bytes | None:
        if reference.size > _META_BYTES_MAX:
            return None
        try:
            # Past the cache: what is read once must not push out what is read again and again.
            return payload.assemble(reference, self._store.blobs.raw)
        except CheckpointError:  # gone or damaged: that is for `verify` to tell
            return None


def own_folder(store: Store) -> Path:
    """Return where a store keeps its own history."""
    return store.path / VIEWS / HISTORY


def _path(folder: object) -> Path:
    text = os.fspath(folder) if isinstance(folder, str | os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise ArgumentError(f"{folder!r} is not a path.", argument="folder")
    return Path(text).expanduser().resolve()


def _remove(folder: str, pid: int) -> None:
    if os.getpid() == pid:  # not a forked child
        shutil.rmtree(folder, ignore_errors=True)
