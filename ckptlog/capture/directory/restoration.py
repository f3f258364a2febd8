"""Makes a directory hold exactly what a capture holds: the steps of `change`, carried out.

The order, and why a restore that is killed anywhere is simply run again:

1. Conflicts are looked for: a directory that must give way holds what no capture has. Nothing was
   touched.
2. Every file and link that is new or changed is made whole in the staging directory; then all are
   synced together. Nothing was changed in the tree.
3. Directories on the way that their owner may not write are opened for the time.
4. From the top: what is of another type is moved aside, directories are made, staged files renamed
   over the old ones. Each is looked at before: one that is no longer what the walk saw belongs to
   somebody who wrote in the meantime, and is not overwritten (`ChangedError`).
5. What is not in the capture is removed, content first. A directory stays where something is left
   in it that the rules leave out.
6. Modes of directories, the deepest first: they may forbid what 4 and 5 do.
7. Folders, and what got another mode, are synced together; the staging directory is removed.

At each moment every file is the old one or the new one, whole. Where a step fails, what was done is
taken back (`trail`). A killed one is run again: the second walks again, and what the first one did
is no difference any more.

Every operation is below an open directory (dir_fd), reached name by name without following links:
whatever a payload names, nothing out of the root is touched.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from ckptlog.capture.directory import name as naming
from ckptlog.capture.directory.change import ADD, REMOVE, Step, type_of
from ckptlog.capture.directory.descent import Descent
from ckptlog.capture.directory.entry import Entry
from ckptlog.capture.directory.hard_link import HardLinks
from ckptlog.capture.directory.mode import let_in, opened, set_mode, set_root
from ckptlog.capture.directory.scan import SPECIAL, STAGING, Scan
from ckptlog.capture.directory.stage import Load, Stage, is_left_over
from ckptlog.capture.directory.trail import Trail
from ckptlog.errors import (
    ChangedError,
    CheckpointError,
    CheckpointStorageError,
    RestoreConflictError,
)

_PRIVATE: Final = 0o700
_GONE: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP))
"""What is no longer what the walk found there."""


class Restoration:
    """One run over the steps.

    Args:
        root: The directory, which is there.
        found: The walk that the steps were made from.
        load: Returns an entry's content.
        on_step: Called after each step that is done.

    Threads: not safe.        Durability: when `run` returns all of it is on the medium.
    """

    def __init__(
        self,
        root: str,
        found: Scan,
        load: Load,
        *,
        on_step: Callable[[Step], None] | None = None,
    ) -> None:
        self._root = root
        self._found = found
        self._load = load
        self._on_step = on_step or (lambda _: None)
        self._modes: dict[str, int] = {}
        self._opened: set[str] = set()
        self._touched: set[str] = set()
        self._former: dict[str, int] = {}
        self._links = HardLinks()
        self._at = ""
        self._is_begun = False
        self._left: list[str] | None = None

    def run(self, steps: Sequence[Step], root_mode: int | None) -> None:
        """Carry the steps out.

        Args:
            root_mode: Of the root itself; None leaves it.

        Raises:
            RestoreConflictError: Something is in the way; nothing was changed.
            ChangedError: A file was changed by somebody else; run again.
            OSError: The system refused; its filename is the path. Run again when it no longer does.

        Whatever is raised, what was done is taken back; `explain` tells of it.
        """
        self._check_conflicts(steps)
        with Descent(self._root) as self._descent:
            self._check_root()
            if root_mode is not None and root_mode != self._found.root_mode:
                self._modes[""] = root_mode
            try:
                # A restore that was killed while it staged has left its staging directory.
                if steps or is_left_over(self._root):
                    self._open_folder("")
                    self._change(steps)
                else:
                    self._set_modes()
            except OSError as error:
                if self._at and error.errno in _GONE:
                    raise _changed(self._at) from error
                if self._at:
                    error.filename, error.filename2 = naming.shown(self._at), None
                raise

    def _change(self, steps: Sequence[Step]) -> None:
        self._stage = Stage(self._descent.root)
        self._trail = Trail(self._stage)
        try:
            self._apply(steps)
            self._at = ""
            # The root's comes last: the staging directory must be removed before.
            last = self._modes.pop("", None)
            self._sync_folders()
            self._set_modes()
            self._stage.batch.sync()
            self._modes = {} if last is None else {"": last}
        except BaseException:
            try:
                self._take_back()
            finally:
                with suppress(OSError, CheckpointStorageError):
                    self._stage.close(is_done=not self._left)
            raise
        try:
            self._tidy()
        except KeyboardInterrupt:
            self._tidy()
            raise

    def _tidy(self) -> None:
        """End what is done and on the medium: whoever interrupts that finds it done, too."""
        self._stage.close(is_done=True)
        self._set_modes()

    def _take_back(self) -> None:
        """Make the tree what it was before; what cannot be is left, and told."""
        self._left = ["?"]  # until it is known
        self._opened.clear()  # modes may have been set since
        left = self._trail.take_back(self._folder_again)
        self._modes = {**self._trail.modes, **self._former}
        at, self._at = self._at, ""
        for act in (self._sync_folders, self._set_modes, self._stage.batch.sync):
            with suppress(OSError, CheckpointStorageError):  # the first failure is the one to tell
                act()
        self._left, self._at = left, at

    def _folder_again(self, path: str) -> tuple[int, str]:
        self._descent.forget()
        return self._folder_of(path)

    def explain(self, failure: CheckpointError) -> None:
        """Add to a failure what became of what had been done."""
        if self._left is None:
            if not self._is_begun:
                failure.context["left"] = []
            return
        failure.context["left"] = []
        if not self._is_begun:
            failure.hint = f"Nothing was changed. {failure.hint}".strip()
            return
        if not self._left:
            failure.hint = f"What had been changed is as it was before. {failure.hint}".strip()
            return
        failure.context["left"] = [naming.shown(path) for path in self._left[:100]]
        shown = ", ".join(naming.shown(path) for path in self._left[:5])
        more = f" and {len(self._left) - 5:,} more" if len(self._left) > 5 else ""
        failure.hint = f"Not put back: {shown}{more}. {failure.hint}".strip()

    def _apply(self, steps: Sequence[Step]) -> None:
        staged = self._staged(steps)
        gone: tuple[str, ...] = ()
        self._is_begun = True
        for step in steps:
            self._at = step.path
            if step.kind == REMOVE:
                if not (gone and step.path.startswith(gone)):
                    self._remove(step)
            else:
                if self._is_type_changed(step):
                    self._move_aside(step)
                    gone = (*gone, f"{step.path}/")
                self._place(step, staged.get(step.path))
            self._on_step(step)

    def _staged(self, steps: Sequence[Step]) -> dict[str, str]:
        made = {}
        for step in steps:
            entry = step.entry
            if entry is None or entry.type == "directory" or not self._is_made_anew(step):
                continue
            self._at = step.path
            if entry.type == "file":
                made[step.path] = self._stage.file(entry, self._load)
            else:
                made[step.path] = self._stage.link(entry)
        self._at = ""
        self._stage.sync()
        return made

    def _is_made_anew(self, step: Step) -> bool:
        """Say whether a new file takes a name: also where the mode would change that of another."""
        if step.is_content:
            return True
        try:
            return os.lstat(os.path.join(self._root, step.path)).st_nlink > 1
        except OSError:
            return False  # the step itself tells what is wrong

    # what stands in the way

    def _check_root(self) -> None:
        """Refuse a directory that is not the one that was walked: a link was put in its place."""
        status = os.fstat(self._descent.root)
        if (status.st_dev, status.st_ino) != self._found.root:
            raise _changed(self._root)

    def _check_conflicts(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if self._is_type_changed(step) and stat.S_ISDIR(step.row[1]):  # type: ignore[index]
                stranger = self._stranger(step.path)
                if stranger:
                    raise RestoreConflictError(
                        f"{naming.shown(step.path)} is a directory, and the capture has a "
                        f"{step.entry.type} there; "  # type: ignore[union-attr]
                        f"{naming.shown(stranger)} in it is in no capture.",
                        hint="Move it away; nothing was changed.",
                        path=naming.shown(stranger),
                    )

    @staticmethod
    def _is_type_changed(step: Step) -> bool:
        is_there = step.row is not None and step.entry is not None
        return is_there and type_of(step.row) != step.entry.type  # type: ignore[arg-type,union-attr]

    def _stranger(self, directory: str) -> str | None:
        """Return a path below a directory that the walk did not take."""
        known = {row[0]: row for row in self._found.rows(directory)}
        with suppress(FileNotFoundError), os.scandir(os.path.join(self._root, directory)) as names:
            for entry in names:
                path = naming.join(directory, entry.name)
                if self._found.skipped.get(naming.encode(path)) in SPECIAL:
                    continue  # a pipe, a socket: holds nothing
                if entry.name not in known:
                    return path
                if stat.S_ISDIR(known[entry.name][1]) and (found := self._stranger(path)):
                    return found
        return None

    # the steps

    def _move_aside(self, step: Step) -> None:
        folder, name = self._folder_of(step.path)
        with suppress(FileNotFoundError), self._unchanged(step, name, folder):
            self._trail.take(step.path, name, folder)
        self._descent.forget()

    def _place(self, step: Step, staged: str | None) -> None:
        entry = step.entry
        if entry is None:
            return
        folder, name = self._folder_of(step.path)
        if entry.type == "directory":
            self._place_directory(step, entry, name, folder)
            return
        try:
            if self._is_type_changed(step):
                self._put(step, staged, name, folder)
                return
            with self._unchanged(step, name, folder):
                self._put(step, staged, name, folder)
        except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
            raise _changed(step.path) from error

    def _put(self, step: Step, staged: str | None, name: str, folder: int) -> None:
        if staged is not None:
            self._trail.put(step.path, staged, name, folder)
        elif step.entry is not None and step.row is not None:
            is_file = step.entry.type == "file"
            fd = opened(name, folder) if is_file else None
            self._trail.change(step.path, step.entry, step.row, name, folder)
            if fd is None and is_file:
                fd = opened(name, folder)
            if fd is not None:
                self._stage.batch.add(fd)

    def _place_directory(self, step: Step, entry: Entry, name: str, folder: int) -> None:
        if step.kind == ADD or self._is_type_changed(step):
            with suppress(FileExistsError):
                self._trail.make(step.path, name, folder)
            if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                if naming.encode(step.path) not in self._found.skipped:
                    raise _changed(step.path)
                self._trail.take(step.path, name, folder)  # a pipe, a socket: holds nothing
                self._trail.make(step.path, name, folder)
        if step.row is not None and stat.S_ISDIR(step.row[1]):
            self._former.setdefault(step.path, stat.S_IMODE(step.row[1]))
        self._modes[step.path] = entry.mode

    @contextmanager
    def _unchanged(self, step: Step, name: str, folder: int) -> Iterator[None]:
        """Check, before a block that changes a name, that nobody else did.

        Raises:
            ChangedError: Somebody did.
        """
        if step.row is not None:
            with ExitStack() as stack:
                try:
                    is_as_walked = stack.enter_context(self._links.held(name, folder, step.row))
                except FileNotFoundError:
                    is_as_walked = True  # there is nothing of anybody
                if not is_as_walked:
                    raise _changed(step.path)
                yield
            return
        with suppress(FileNotFoundError):
            os.stat(name, dir_fd=folder, follow_symlinks=False)
            if naming.encode(step.path) not in self._found.skipped:
                raise _changed(step.path)
        yield

    def _remove(self, step: Step) -> None:
        folder, name = self._folder_of(step.path)
        try:
            if step.row is not None and stat.S_ISDIR(step.row[1]):
                self._modes.pop(step.path, None)
                self._trail.unmake(step.path, name, folder)
            else:
                with self._unchanged(step, name, folder):
                    self._trail.take(step.path, name, folder)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
        finally:
            self._descent.forget()

    # folders

    def _folder_of(self, path: str) -> tuple[int, str]:
        """Return the open folder of a path, writable, and the path's name in it."""
        parent, _, name = path.rpartition("/")
        self._touched.add(parent)
        return self._open_folder(parent), name

    def _open_folder(self, path: str) -> int:
        if path in self._opened:
            return self._descent.open(path)
        if path:
            self._open_folder(naming.parent_of(path))
        try:
            fd = self._descent.open(path)
        except PermissionError:
            parent = self._descent.open(naming.parent_of(path))
            name = path.rpartition("/")[2]
            mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
            self._former.setdefault(path, stat.S_IMODE(mode))
            self._modes.setdefault(path, stat.S_IMODE(mode))
            let_in(name, parent)
            fd = self._descent.open(path)
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        if mode & _PRIVATE != _PRIVATE:
            self._former.setdefault(path, mode)
            self._modes.setdefault(path, mode)
            os.fchmod(fd, mode | _PRIVATE)
        self._opened.add(path)
        return fd

    def _set_modes(self) -> None:
        for path in [path for path in self._modes if path]:
            with suppress(FileNotFoundError, NotADirectoryError):
                self._open_folder(naming.parent_of(path))  # may add modes of folders above
        for path in sorted(self._modes, key=naming.parts_of, reverse=True):
            self._at = path
            with suppress(FileNotFoundError, NotADirectoryError):
                self._set_mode(path, self._modes[path])
        self._at = ""

    def _set_mode(self, path: str, mode: int) -> None:
        if not path:
            set_root(self._descent.root, mode)
            return
        parent, _, name = path.rpartition("/")
        fd = set_mode(name, self._descent.open(parent), mode)
        if fd is not None:
            self._stage.batch.add(fd)

    def _sync_folders(self) -> None:
        """Have the folders synced, by the next sync of the batch at the latest."""
        for path in sorted(self._touched, key=naming.parts_of):
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                self._stage.batch.add(os.dup(self._descent.open(path)))


def _changed(path: str) -> ChangedError:
    return ChangedError(
        f"{naming.shown(path)} was changed by another program during the restore.",
        hint="Nothing of it was overwritten. Run it again when the directory is at rest.",
        path=naming.shown(path),
    )


def is_refused(path: str, *, has_git: bool) -> bool:
    """Say whether no restore may write a path: it is ours, or git's where git is left out."""
    names = path.split("/")
    return names[0] == STAGING or (not has_git and ".git" in names)
