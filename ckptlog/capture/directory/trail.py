"""What a restore did to the tree so far, and how it is taken back when a step fails.

Theory. Nothing that was there is let go before the last step: what is overwritten gets a second
name in the staging directory (a hard link, so that the new file still comes in by one rename), what
is removed is renamed to there. To take all back is to go through the acts in reverse order, each by
one rename: that needs no room, reads no payload, and works on a full or a failing medium.

What was placed and is no longer what was placed belongs to somebody who wrote meanwhile: it stays,
and its path is told. So does what could not be kept: a file system without hard links.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final

from ckptlog.capture.directory.entry import Entry, attribute_of, attributes_of
from ckptlog.capture.directory.stage import Placed, Stage, placed_of
from ckptlog.capture.directory.table import Row

_PRIVATE: Final = 0o700
_OPEN: Final = 0o600
_PATH: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_NONBLOCK)

# Takes one act back, at a name in an open folder.
Back = Callable[[str, int], None]
# Returns the open, writable folder of a path, and the path's name in it.
Folder = Callable[[str], tuple[int, str]]


class Trail:
    """Does what changes the tree, and remembers how it was.

    Attributes:
        modes: Of directories that were changed, as they were before.

    Raises (every method): OSError; nothing was done then, or it is remembered: a part of
    `change`, in `modes` what `take` gave a directory.

    Threads: not safe.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._acts: list[tuple[str, Back]] = []
        self.modes: dict[str, int] = {}

    def put(self, path: str, staged: str, name: str, folder: int) -> None:
        """Bring in a staged file or link, over what is there."""
        kept = self._stage.keep(name, folder)
        placed = placed_of(os.stat(staged, dir_fd=self._stage.fd, follow_symlinks=False))
        back = partial(self._put_back, staged, kept, placed)
        with self._act(path, back):
            self._stage.put(staged, name, folder)

    def take(self, path: str, name: str, folder: int) -> None:
        """Take away what stands there; a directory with all that is in it."""
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            self.modes.setdefault(path, stat.S_IMODE(mode))
        taken = self._stage.new_name()
        with self._act(path, partial(self._bring_back, taken)):
            self._stage.take(name, folder, taken, mode)

    def make(self, path: str, name: str, folder: int) -> None:
        """Make a directory.

        Raises:
            FileExistsError: Something is there. It is looked at first: what is not ours must not
                be remembered as made.
        """
        with suppress(FileNotFoundError):
            os.stat(name, dir_fd=folder, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        with self._act(path, _unmake):
            os.mkdir(name, _PRIVATE, dir_fd=folder)

    def unmake(self, path: str, name: str, folder: int) -> None:
        """Remove an empty directory."""
        mode = stat.S_IMODE(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
        self.modes.setdefault(path, mode)
        with self._act(path, _make):
            os.rmdir(name, dir_fd=folder)

    @contextmanager
    def _act(self, path: str, back: Back) -> Iterator[None]:
        """Remember how an act is taken back before it is done: an interrupt may come right behind.

        So `back` must do nothing where nothing was done.
        """
        self._acts.append((path, back))
        try:
            yield
        except OSError:
            self._acts.pop()
            raise

    def change(self, path: str, entry: Entry, row: Row, name: str, folder: int) -> None:
        """Give a file, whose content is right, its mode, time and attributes."""
        before: dict[str, bytes | None] = {}
        self._acts.append((path, partial(_change_back, row, before)))
        if entry.type == "file":
            with _plain(name, folder) as place:
                if entry.attributes is not None:
                    _let_in(place, stat.S_IMODE(row[1]))
                _give(place, _wanted(place, entry), before)
                os.chmod(place, entry.mode)
        _touch(name, folder, entry.mtime)

    def take_back(self, folder_of: Folder) -> list[str]:
        """Take every act back, the last first; return the paths where that was not possible.

        Called again it goes on with what is left.
        """
        left = []
        while self._acts:
            path, back = self._acts[-1]
            try:
                folder, name = folder_of(path)
                back(name, folder)
            except OSError:
                left.append(path)
            self._acts.pop()
        return left

    def _put_back(
        self, staged: str, kept: str | None, placed: Placed, name: str, folder: int
    ) -> None:
        if self._stage.has(staged):
            return
        if placed_of(os.stat(name, dir_fd=folder, follow_symlinks=False)) != placed:
            raise FileExistsError
        if kept is None:
            raise FileNotFoundError
        if kept:
            self._stage.put(kept, name, folder)
        else:
            os.unlink(name, dir_fd=folder)

    def _bring_back(self, taken: str, name: str, folder: int) -> None:
        if not self._stage.has(taken):
            return
        with suppress(FileNotFoundError):
            os.stat(name, dir_fd=folder, follow_symlinks=False)
            raise FileExistsError
        self._stage.put(taken, name, folder)


def _make(name: str, folder: int) -> None:
    try:
        os.mkdir(name, _PRIVATE, dir_fd=folder)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise


def _unmake(name: str, folder: int) -> None:
    with suppress(FileNotFoundError):
        os.rmdir(name, dir_fd=folder)


def _change_back(row: Row, before: dict[str, bytes | None], name: str, folder: int) -> None:
    if os.stat(name, dir_fd=folder, follow_symlinks=False).st_ino != row[5]:
        raise FileExistsError
    if stat.S_ISREG(row[1]):
        with _plain(name, folder) as place:
            if before:
                _let_in(place, stat.S_IMODE(row[1]))
            _give(place, before, {})
            os.chmod(place, stat.S_IMODE(row[1]))
    _touch(name, folder, row[3])


@contextmanager
def _plain(name: str, folder: int) -> Iterator[str]:
    """Give a path of a plain file that leads to nothing else, whatever its name becomes."""
    fd = os.open(name, _PATH, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise FileExistsError
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _let_in(place: str, mode: int) -> None:
    """Let the owner of a file read and set its attributes; its mode is to be set behind it."""
    if mode & _OPEN != _OPEN:
        os.chmod(place, mode | _OPEN)


def _wanted(place: str, entry: Entry) -> dict[str, bytes | None]:
    """Return the attributes that differ; None of one is to be removed."""
    if entry.attributes is None:
        return {}
    there, wanted = attributes_of(place), entry.attribute_bytes()
    more: dict[str, bytes | None] = {name: None for name in there if name not in wanted}
    return more | {name: value for name, value in wanted.items() if there.get(name) != value}


def _give(
    place: str, attributes: Mapping[str, bytes | None], before: dict[str, bytes | None]
) -> None:
    """Set attributes; None removes one.

    Args:
        before: Takes in what the attributes were.
    """
    for attribute, value in attributes.items():
        before[attribute] = attribute_of(place, attribute)
        if value is not None:
            os.setxattr(place, attribute, value)
        elif before[attribute] is not None:
            os.removexattr(place, attribute)


def _touch(name: str, folder: int, time_ns: int) -> None:
    os.utime(name, ns=(time_ns, time_ns), dir_fd=folder, follow_symlinks=False)
