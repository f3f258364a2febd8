"""Files that a user names for what a command writes: an archive, a proof, a checkpoint's data.

One rule for all of them:

    inside a store or a backup              refused, whatever is asked
    a directory, or without its folder      refused
    a file, or a block device, that exists  only when it may be replaced
    a file                                  written aside, synced, renamed: there whole or not
    a pipe, a terminal, a device            opened and written through; never replaced

A link is followed first: what it leads to is looked at, and replaced. Page: specs/cli.md.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, NoReturn

from ckptlog.errors import ArgumentError, operating_system_door
from ckptlog.formats.backup import NAME
from ckptlog.model.quotation import quoted
from ckptlog.repository.backing import STORE_JSON
from ckptlog.storage import files

_MARKS: Final = (STORE_JSON, NAME)
_FOLDERS: Final = ("log", "packs")


def house_of(path: Path) -> Path | None:
    """Return the store or backup that a path (of no links) is, or lies in; None for none.

    A file called `store.json` alone makes no store: others use that name too.
    """
    for folder in (path, *path.parents):
        if any(os.path.lexists(folder / mark) for mark in _MARKS) and any(
            os.path.isdir(folder / name) for name in _FOLDERS
        ):
            return folder
    return None


def refuse_house(path: str | os.PathLike[str], argument: str) -> None:
    """Refuse to write where a store or a backup keeps what is its own.

    Raises:
        ArgumentError: The path lies in one.
    """
    house = house_of(Path(os.path.realpath(path)))
    if house is not None:
        raise ArgumentError(
            f"{path} lies in {house}, which is a store or a backup: nothing is written there but "
            "its own.",
            hint="Name a place outside of it.",
            argument=argument,
            path=str(path),
        )


class OutputFile:
    """A place to write to that was looked at.

    Args:
        path: As the user has named it.
        is_replaced: Whether a file that is there may be replaced.
        argument: What the path is called in errors.

    Raises:
        ArgumentError: It is no path, lies in a store or a backup, is a directory, has no folder, or
            exists and may not be replaced.

    Threads: one.
    """

    def __init__(self, path: object, *, is_replaced: bool, argument: str = "path") -> None:
        self._argument = argument
        text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
        if not isinstance(text, str) or not text or "\0" in text:
            raise ArgumentError(f"{quoted(path)} is not a path.", argument=argument)
        with operating_system_door("Cannot write there"):
            try:
                named = Path(text).expanduser()
            except RuntimeError:  # no such user
                self._refuse(f"{quoted(text)} leads nowhere.", "Name a file.", text)
            self.path = self._named = named.absolute()
            # What a link leads to is what is written.
            self._place = Path(os.path.realpath(named))
            refuse_house(self._place, argument)
            mode = self._mode()
            # /dev/stdout leads to a pipe, or to a file that is gone: there is no path to replace.
            is_file = mode is not None and stat.S_ISREG(mode) and self._place.exists()
            self._is_through = mode is not None and not is_file
            self._is_synced = mode is None or stat.S_ISREG(mode) or stat.S_ISBLK(mode)
            self._check(named, mode, is_replaced=is_replaced)

    def _mode(self) -> int | None:
        try:
            return os.stat(self._named).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _check(self, named: Path, mode: int | None, *, is_replaced: bool) -> None:
        if mode is None:
            if not self._place.parent.is_dir():
                self._refuse(
                    f"The directory of {named} does not exist.", "Make it first.", str(named)
                )
        elif stat.S_ISDIR(mode):
            self._refuse(f"{named} is a directory.", "Name a file.", str(named))
        elif self._is_synced and not is_replaced:
            self._refuse(
                f"{named} exists.",
                "Name another file, or replace it: --force (is_replaced=True).",
                str(named),
            )

    def _refuse(self, message: str, hint: str, path: str) -> NoReturn:
        raise ArgumentError(message, hint=hint, argument=self._argument, path=path)

    def write(self, data: bytes) -> None:
        """Write all of it.

        Durability: as `writing`.
        """
        with self.writing() as file:
            file.write(data)

    @contextmanager
    def writing(self) -> Iterator[BinaryIO]:
        """Give a file to write to.

        Raises:
            CheckpointStorageError: It cannot be written, by kind.

        Durability: a file is on the medium, whole, when the block has ended; after a failure it is
        as it was. What is written through has got what was written until then.
        """
        with operating_system_door(f"Cannot write {self.path}"):
            if self._is_through:
                yield from self._through()
            else:
                yield from self._aside()

    def _through(self) -> Iterator[BinaryIO]:
        # Without O_CREAT: what has gone since it was looked at is an error, and not a new file.
        fd = os.open(self._named, os.O_WRONLY | os.O_CLOEXEC)
        found = os.fstat(fd)
        if stat.S_ISREG(found.st_mode) and found.st_nlink:  # another one took its place
            os.close(fd)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self._named))
        with os.fdopen(fd, "wb") as file:
            yield file
            file.flush()
            if self._is_synced:
                files.sync_file(file.fileno())

    def _aside(self) -> Iterator[BinaryIO]:
        files.remove_left_over(self._place.parent, self._place.name)
        fd, temporary = files.create_temporary(self._place)
        try:
            # Closing writes what is buffered, and fails again where writing has failed.
            with os.fdopen(fd, "wb") as file:
                yield file
                file.flush()
                files.sync_file(file.fileno())
                files.publish(temporary, self._place)
        except BaseException:
            files.remove(temporary)
            raise
