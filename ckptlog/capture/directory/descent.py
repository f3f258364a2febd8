"""Descriptors of the directories on the way down to a path; no link is ever followed.

A path is walked name by name, each opened below its parent with O_NOFOLLOW: whatever a payload
says, and whoever swaps a directory for a link meanwhile, nothing outside of the root is reached.
The way to the last path stays open, so that going through a tree in order opens each directory once.
"""

from __future__ import annotations

import os
from typing import Final, Self

DEPTH_MAX: Final = 400
_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Descent:
    """The open way from a root to a directory below it.

    Raises (open): OSError, ENOTDIR or ELOOP where a name on the way is no directory.

    Threads: not safe.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._fds = [os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
        self._names: list[str] = []
        self._path = ""

    @property
    def root(self) -> int:
        """The root's descriptor."""
        return self._fds[0]

    def open(self, directory: str) -> int:
        """Return the descriptor of a directory; it belongs to this object.

        It is open until the next call for a path that does not lead through it.
        """
        if directory == self._path:
            return self._fds[-1]
        names = directory.split("/") if directory else []
        same = 0
        for ours, theirs in zip(self._names, names, strict=False):
            if ours != theirs:
                break
            same += 1
        self._cut(same)
        for name in names[same:]:
            self._fds.append(os.open(name, _FLAGS, dir_fd=self._fds[-1]))
            self._names.append(name)
            self._path = "/".join(self._names)
        return self._fds[-1]

    def forget(self) -> None:
        """Close what is open below the root: directories were renamed or removed."""
        self._cut(0)

    def _cut(self, length: int) -> None:
        while len(self._names) > length:
            os.close(self._fds.pop())
            self._names.pop()
        self._path = "/".join(self._names)

    def close(self) -> None:
        """Close everything."""
        self._cut(0)
        while self._fds:
            os.close(self._fds.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
