"""Where an interrupted verification goes on: the containers that it has checked whole.

A small file among the views (specs/verify.md). It names a commit of this log, and each container as
it was; what does not fit is checked again. A run that is gone on with believes it, and says so: it
keeps from accidents, not from who may write to the store (specs/threats.md).
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from ckptlog.errors import CheckpointStorageError
from ckptlog.formats.end import End
from ckptlog.storage import files

NAME: Final = "verify.json"
_VERSION: Final = 2
_INTERVAL_S: Final = 1.0
_FILE_BYTES_MAX: Final = 64 * 1024 * 1024


class _Done(msgspec.Struct, forbid_unknown_fields=True):
    """One container as it was: size in bytes, times of its data and of any change, inode.

    The first time can be set by whoever owns the file; the second is the system's.
    """

    size: int
    written_ns: int
    changed_ns: int
    inode: int


class _Page(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    store: str
    position: int
    leaf: str
    done: dict[str, _Done]


class Bookmark:
    """Remembers whole containers while a run lasts.

    Args:
        end: What the run reads up to.
        is_kept: Whether anything is written.
        is_resuming: Whether what an earlier run has left counts.

    Threads: one.
    """

    def __init__(
        self, root: Path, store_id: bytes, end: End | None, *, is_kept: bool, is_resuming: bool
    ) -> None:
        self._root = root
        self._path = root / "views" / NAME if is_kept and end is not None else None
        leaf = end.leaf.hex() if end else ""
        self._page = _Page(_VERSION, store_id.hex(), end.position if end else 0, leaf, {})
        self._earlier = self._read() if is_resuming else None
        self._due_s = time.monotonic() + _INTERVAL_S

    @property
    def mark(self) -> tuple[int, bytes] | None:
        """Position and leaf hash of the commit's end that an earlier run saw."""
        earlier = self._earlier
        return None if earlier is None else (earlier.position, bytes.fromhex(earlier.leaf))

    def doubt(self) -> None:
        """Forget the earlier run: it saw another history."""
        self._earlier = None

    def is_done(self, container: str) -> bool:
        """Say whether an earlier run has checked a container whole, and it is the same file."""
        if self._earlier is None:
            return False
        done = self._earlier.done.get(container)
        return done is not None and done == self._look(container)

    def enter(self, container: str) -> None:
        """Take note that a container was checked whole, without a fault."""
        if self._path is None:
            return
        found = self._look(container)
        if found is not None:
            self._page.done[container] = found
        now_s = time.monotonic()
        if now_s >= self._due_s:
            self._due_s = now_s + _INTERVAL_S
            self.save()

    def save(self) -> None:
        """Write what is known; where that cannot be done, the next run begins at the beginning."""
        if self._path is None or not self._page.done:
            return
        with suppress(CheckpointStorageError):
            files.write_atomically(self._path, msgspec.json.encode(self._page), durable=False)

    def remove(self) -> None:
        """Throw it away: the run has ended."""
        if self._path is not None:
            files.remove(self._path)

    def _look(self, container: str) -> _Done | None:
        try:
            found = (self._root / container).stat()
        except OSError:
            return None
        return _Done(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)

    def _read(self) -> _Page | None:
        if self._path is None:
            return None
        try:
            if self._path.stat().st_size > _FILE_BYTES_MAX:
                return None
            page = msgspec.json.decode(self._path.read_bytes(), type=_Page)
            bytes.fromhex(page.leaf)
        except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
            return None
        is_ours = page.version == _VERSION and page.store == self._page.store
        return page if is_ours and 0 <= page.position <= self._page.position else None
