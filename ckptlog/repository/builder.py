"""Builds a store's view from the log in bulk, beside the one that is there, until it is whole.

    log, read once -> commits -> a new database in views/anew -> takes the place of the view's
                                 whoever else lives on them (chunk index, leaf hashes)

- What is being built has no name that anybody looks at: readers and writers of every process go
  on with the view that is there, and where the log turns out damaged, that one stays.
- One process at a time builds, under a flock on the folder `anew`, which is empty at the beginning
  and gone at the end; what a killed one has left there is removed by the next.
- Nothing here must succeed: a keeper that cannot build in bulk takes the commits one by one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Final

from ckptlog.formats.end import End
from ckptlog.log.bulk import BulkReader
from ckptlog.log.log import Log
from ckptlog.model.cursor import BEGINNING
from ckptlog.storage.environment import Environment
from ckptlog.views.current import CurrentView
from ckptlog.views.export import make_current
from ckptlog.views.rebuild import RawOf, Rebuild, Taken

# Fewer events are applied one by one as soon as in bulk.
_EVENTS_MIN: Final = 4096
# Applying an event to a view in use costs some four times of what it costs in bulk.
_SHARE_MIN: Final = 4
# Another process that builds is waited for: that is what we need, too.
_WAIT_S: Final = 30.0
_LOOK_S: Final = 0.02
_DATABASE: Final = "current.sqlite"


def is_worth_it(position: int, end: int) -> bool:
    """Say whether a view at a position is so far from the end that all is better built anew."""
    missing = end - position
    return missing >= _EVENTS_MIN and missing * _SHARE_MIN >= end


class Builder:
    """Builds views of one store.

    Args:
        views: The folder of the store's views.
        raw_of: Reads chunks that do not lie beside their event.

    Threads: one at a time builds.
    """

    def __init__(
        self, views: Path, store_id: bytes, log: Log, environment: Environment, raw_of: RawOf
    ) -> None:
        self._view = views / _DATABASE
        self._folder = views / "anew"
        self._store_id = store_id
        self._log = log
        self._environment = environment
        self._bulk = BulkReader(log.segments, store_id)
        self._raw_of = raw_of

    def fill(self, view: CurrentView, end: End, taken: Taken, *, with_places: bool) -> bool:
        """Bring a view that nobody else has up to an end of the log; False as `Rebuild.run`.

        Raises:
            LogCorruptionError: The log is damaged; nothing was applied.
            ViewError: As `CurrentView.rebuild`.
        """
        return self._rebuild(taken, with_places=with_places).run(view, end)

    def make(self, folder: Path, end: End, taken: Taken, *, with_places: bool) -> Path:
        """Write a new view of the log up to an end into a folder that `workplace` gave.

        Args:
            with_places: Tell where chunks lie.

        Raises:
            LogCorruptionError: The log is damaged.
            ViewError: It cannot be written, or the log is not a legal one.

        Cost: some 15 us an event; the log is read once.
        """
        made = folder / _DATABASE
        rebuild = self._rebuild(taken, with_places=with_places)
        make_current(made, self._store_id, rebuild.windows(BEGINNING, end), rebuild.meta_of)
        return made

    def put(self, made: Path) -> CurrentView:
        """Let the view that was made take the place of the store's; return it, opened.

        Raises:
            ViewError: That cannot be done; the store may be without a view then.
        """
        return CurrentView.adopt(self._view, made, boot=self._environment.boot())

    def _rebuild(self, taken: Taken, *, with_places: bool) -> Rebuild:
        return Rebuild(
            self._log.reader, self._bulk, self._raw_of, taken=taken, with_places=with_places
        )

    def tidy(self) -> None:
        """Remove what a killed process has left of its work."""
        if os.path.lexists(self._folder):
            with self._place(wait_s=0):
                pass

    def workplace(self) -> AbstractContextManager[Path | None]:
        """Give an empty folder that no other process builds in; None where none is to be had."""
        return self._place(wait_s=_WAIT_S)

    @contextmanager
    def _place(self, *, wait_s: float) -> Iterator[Path | None]:
        fd = self._take(wait_s)
        if fd is None:
            yield None
            return
        try:
            yield self._folder
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
            os.close(fd)

    def _take(self, wait_s: float) -> int | None:
        """Return a descriptor that locks the folder, which is empty."""
        deadline_s = self._environment.monotonic_s() + wait_s
        while True:
            with suppress(FileNotFoundError, BlockingIOError):  # another one's, done or at it
                return self._locked()
            if self._environment.monotonic_s() >= deadline_s:
                return None
            self._environment.sleep(_LOOK_S)

    def _locked(self) -> int | None:
        """Do as `_take`, now.

        Raises:
            FileNotFoundError: Another process has just removed it.
            BlockingIOError: Another process has it.
        """
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._folder.parent.mkdir(exist_ok=True)
            self._folder.mkdir(exist_ok=True)
            fd = os.open(self._folder, flags)
            try:
                flock(fd, LOCK_EX | LOCK_NB)
                if not os.path.samestat(os.fstat(fd), self._folder.stat()):
                    raise BlockingIOError
                for path in self._folder.iterdir():
                    _remove(path)
            except BaseException:
                os.close(fd)
                raise
        except (FileNotFoundError, BlockingIOError):
            raise
        except OSError:  # a folder that cannot be written, or something else with this name
            return None
        return fd


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
