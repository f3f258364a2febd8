"""Removes large files without waiting for their room: the names go at once, the room soon.

A file system may take milliseconds for each large file whose last name goes (it gives the blocks
back, and may tell the medium so), while the name itself goes in microseconds. So a descriptor is
held over the removal of the name, and closed in the background.

    remove(paths)    the names are gone; whoever has the files open may close them, and waits for
                     nothing
    free()           the background begins to give the room back
    finish()         all of it is free; so it is behind a `with`, however that ends

A process that dies in between leaves nothing: the system closes what it held.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ckptlog.storage import descriptor, files
from ckptlog.storage.pool import Pool

# Closed side by side: closing is mostly waiting.
_SIDE_BY_SIDE: Final = 8
# Descriptors that are held at most, and the share of what a process may have; then the oldest is
# waited for.
_HELD_MAX: Final = 256
_HELD_SHARE: Final = 4


class Removal:
    """Files that are being removed.

    Threads: one.
    """

    def __init__(self) -> None:
        self._pool: Pool | None = None
        self._nameless: list[int] = []
        self._freed: deque[Future[None]] = deque()
        self._held_max = descriptor.share(_HELD_MAX, _HELD_SHARE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.finish()

    def remove(self, paths: Iterable[Path]) -> None:
        """Remove files as `files.remove` does; their room is held.

        Durability: none before their folder is synced.
        """
        for path in paths:
            if len(self._nameless) + len(self._freed) >= self._held_max:
                self.free()
                if self._freed:
                    self._freed.popleft().result()
            with suppress(OSError):  # it may not be read, or no descriptor is left: its name may go
                self._nameless.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            files.remove(path)

    def free(self) -> None:
        """Begin to give back the room of what was removed."""
        if self._nameless and self._pool is None:
            self._pool = Pool(_SIDE_BY_SIDE, "ckptlog-removal")
        while self._nameless and self._pool is not None:
            self._freed.append(self._pool.submit(_close, self._nameless.pop()))

    def finish(self) -> bool:
        """Wait until the room of all is free; say whether there was anything to wait for."""
        self.free()
        had_any = bool(self._freed)
        while self._freed:
            self._freed.popleft().result()
        if self._pool is not None:
            self._pool.close()
            self._pool = None
        return had_any


def _close(fd: int) -> None:
    with suppress(OSError):
        os.close(fd)
