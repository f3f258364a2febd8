"""The operating system as simulated processes see it: calls that are counted, interleaved, cut off.

A simulated process is a thread. While the simulation runs, the calls of `os` and `fcntl` that have
to do with files stand behind doors: what a simulated process asks for below the simulated disk's
folder first waits for its turn (`Process.step`), may fail or be the last thing that the process
does, and is entered into the model of the medium. All else passes.

The files themselves are real ones, in memory: they are the page cache. Locks (flock) are real too:
each simulated process opens the lock's file anew, so the kernel tells them apart.

Not seen: what C libraries write by themselves. Files that Python's buffered writers fill are
compared with the model when they are synced, renamed, or when the power goes. SQLite is kept out:
simulated stores have their view in memory.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from tools.crash.medium import Cut, Medium, Node, Write

# What a descriptor is called where it is kept.
_NUMBERS: Final = ("fd", "_fd")
_NAMES: Final = ("open", "close", "read", "pread", "write", "pwrite", "fsync",
                 "fdatasync", "ftruncate", "rename", "replace", "unlink", "remove", "mkdir",
                 "rmdir")  # fmt: skip


class Stopped(BaseException):
    """A simulated process ends here."""


class Actor(Protocol):
    """What a door asks of the process that comes through it."""

    def step(self, call: str) -> None:
        """Wait for a turn; raise Stopped or OSError where the call shall not be done."""
        ...


@dataclass
class _Opened:
    """A descriptor: whose, of what."""

    actor: Actor
    path: Path
    node: Node | None
    inode: int
    offset: int = 0


class System:
    """The doors, and the disk behind them.

    Attributes:
        medium: The model of the disk; another one after each power cut.
    """

    def __init__(self, medium: Medium) -> None:
        self.medium = medium
        self._current = threading.local()
        self._opened: dict[int, _Opened] = {}
        self._seen: set[Node] = set()
        self._dead: set[int] = set()
        self._real: dict[str, Callable[..., Any]] = {name: getattr(os, name) for name in _NAMES}
        self._flock = fcntl.flock

    @contextmanager
    def doors(self) -> Iterator[None]:
        """Let simulated processes meet the doors during the block."""
        try:
            for name in _NAMES:
                setattr(os, name, self._door(name))
            fcntl.flock = self._flock_door
            yield
        finally:
            for name, real in self._real.items():
                setattr(os, name, real)
            fcntl.flock = self._flock

    def enter(self, actor: Actor | None) -> None:
        """Make the calling thread this simulated process's."""
        self._current.actor = actor

    def close_all(self, actor: Actor) -> None:
        """Do what the kernel does when a process is gone: close its files, which frees its locks.

        The numbers stay taken: what its objects close later must not be somebody else's.
        """
        nothing = self._real["open"](os.devnull, os.O_RDONLY)
        for fd, opened in list(self._opened.items()):
            if opened.actor is not actor:
                continue
            del self._opened[fd]
            # A writer of Python's may have closed it without us; the number may be another's now.
            with suppress(OSError):
                if os.fstat(fd).st_ino == opened.inode:
                    os.dup2(nothing, fd)
                    self._dead.add(fd)
        self._real["close"](nothing)

    def tidy(self) -> None:
        """Give the numbers of the dead back, when all is over.

        An object of a dead process that is still about must not close a number that is another's
        by then: it is told that it has none.
        """
        gc.collect()
        for holder in gc.get_objects():
            if str(type(holder).__module__).startswith("ckptlog."):
                for name in _NUMBERS:
                    if getattr(holder, name, None) in self._dead:
                        setattr(holder, name, -1)
        nothing = Path(os.devnull).stat().st_ino
        for fd in self._dead:
            with suppress(OSError):
                if os.fstat(fd).st_ino == nothing:
                    self._real["close"](fd)
        self._dead.clear()

    def reconcile(self) -> None:
        """Enter into the model what was written past the doors."""
        for name, node in self.medium.names.items():
            if not node.is_folder:
                self._reconcile(self.medium.root / name, node)

    def _reconcile(self, path: Path, node: Node) -> None:
        # What came through doors is known, also that a failed sync has dropped some of it.
        if node in self._seen:
            return
        with suppress(OSError):
            there = path.read_bytes()
            if there != node.content():
                time = self.medium.tick()
                node.pending += [Cut(time, len(there)), Write(time, 0, there)]

    # --- doors ----------------------------------------------------------------------------------

    def _door(self, name: str) -> Callable[..., Any]:
        real, ours = self._real[name], getattr(self, f"_{name}")

        def door(*arguments: Any, **options: Any) -> Any:
            actor = getattr(self._current, "actor", None)
            if actor is None:
                return real(*arguments, **options)
            return ours(actor, *arguments, **options)

        return door

    def _flock_door(self, fd: Any, operation: int) -> None:
        actor = getattr(self._current, "actor", None)
        if actor is not None and not operation & fcntl.LOCK_UN:
            actor.step("flock")
        self._flock(fd, operation)

    def _inside(self, path: Any, dir_fd: int | None = None) -> Path | None:
        place = Path(os.fsdecode(path)) if isinstance(path, str | bytes | Path) else None
        if place is None:
            return None
        if dir_fd is not None:
            base = self._opened.get(dir_fd)
            place = base.path / place if base else place
        return place if place.is_relative_to(self.medium.root) else None

    def _open(
        self, actor: Actor, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None
    ) -> int:
        place = self._inside(path, dir_fd)
        is_new = False
        if place is not None and flags & os.O_CREAT:
            actor.step("create")
            is_new = not os.path.lexists(place)
        fd: int = self._real["open"](path, flags, mode, dir_fd=dir_fd)
        if place is None:
            return fd
        name = self.medium.name(place)
        if is_new:
            self.medium.create(place)
        elif flags & os.O_TRUNC:
            self.medium.names[name].pending.append(Cut(self.medium.tick(), 0))
        node = self.medium.names.get(name)
        self._opened[fd] = _Opened(actor, place, node, os.fstat(fd).st_ino)
        return fd

    def _close(self, actor: Actor, fd: int) -> None:
        del actor
        self._opened.pop(fd, None)
        self._real["close"](fd)

    def _read(self, actor: Actor, fd: int, count: int) -> bytes:
        del actor
        return bytes(self._real["read"](fd, count))

    def _pread(self, actor: Actor, fd: int, count: int, offset: int) -> bytes:
        if fd in self._opened:
            actor.step("pread")
        return bytes(self._real["pread"](fd, count, offset))

    def _write(self, actor: Actor, fd: int, data: Any) -> int:
        opened = self._opened.get(fd)
        if opened is None:
            return int(self._real["write"](fd, data))
        actor.step("write")
        count = int(self._real["write"](fd, data))
        self._wrote(opened, opened.offset, bytes(data)[:count])
        opened.offset += count
        return count

    def _pwrite(self, actor: Actor, fd: int, data: Any, offset: int) -> int:
        opened = self._opened.get(fd)
        if opened is None:
            return int(self._real["pwrite"](fd, data, offset))
        try:
            actor.step("pwrite")
            part = _Part()
        except _Part as cut:
            part = cut
        asked = bytes(data)
        asked = asked[: int(len(asked) * part.share)]
        count = int(self._real["pwrite"](fd, asked, offset))
        self._wrote(opened, offset, asked[:count])
        if part.then is not None:
            raise part.then
        return count

    def _wrote(self, opened: _Opened, offset: int, data: bytes) -> None:
        if opened.node is not None:
            self._seen.add(opened.node)
            opened.node.pending.append(Write(self.medium.tick(), offset, data))

    def _fsync(self, actor: Actor, fd: int) -> None:
        opened = self._opened.get(fd)
        if opened is None:
            self._real["fsync"](fd)
            return
        node = opened.node
        try:
            actor.step("fsync folder" if node is None or node.is_folder else "fsync")
        except OSError:
            # The kernel may drop what it could not write, and call it clean.
            if node is not None:
                node.forget()
            raise
        if node is None or node.is_folder:
            self.medium.sync_folder(opened.path)
        else:
            self._reconcile(opened.path, node)
            node.sync()

    _fdatasync = _fsync

    def _ftruncate(self, actor: Actor, fd: int, length: int) -> None:
        opened = self._opened.get(fd)
        if opened is not None:
            actor.step("ftruncate")
        self._real["ftruncate"](fd, length)
        if opened is not None and opened.node is not None:
            opened.node.pending.append(Cut(self.medium.tick(), length))

    def _rename(self, actor: Actor, old: Any, new: Any, **options: Any) -> None:
        source, target = self._inside(old), self._inside(new)
        if source is not None and target is not None:
            actor.step("rename")
            node = self.medium.names.get(self.medium.name(source))
            if node is not None and not node.is_folder:
                self._reconcile(source, node)
        self._real["rename"](old, new, **options)
        if source is not None and target is not None:
            self.medium.rename(source, target)

    _replace = _rename

    def _unlink(self, actor: Actor, path: Any, *, dir_fd: int | None = None) -> None:
        self._take_away("unlink", actor, path, dir_fd)

    _remove = _unlink

    def _rmdir(self, actor: Actor, path: Any, *, dir_fd: int | None = None) -> None:
        self._take_away("rmdir", actor, path, dir_fd)

    def _take_away(self, name: str, actor: Actor, path: Any, dir_fd: int | None) -> None:
        place = self._inside(path, dir_fd)
        if place is not None:
            actor.step(name)
        self._real[name](path, dir_fd=dir_fd)
        if place is not None and self.medium.name(place) in self.medium.names:
            self.medium.remove(place)

    def _mkdir(
        self, actor: Actor, path: Any, mode: int = 0o777, *, dir_fd: int | None = None
    ) -> None:
        place = self._inside(path, dir_fd)
        if place is not None:
            actor.step("mkdir")
        self._real["mkdir"](path, mode, dir_fd=dir_fd)
        if place is not None:
            self.medium.create(place, is_folder=True)


class _Part(Exception):  # noqa: N818 - a signal between a process and its door
    """A write is done in part, and then ends otherwise."""

    def __init__(self, share: float = 1.0, then: BaseException | None = None) -> None:
        super().__init__(share)
        self.share = share
        self.then = then


def partly(share: float, then: BaseException) -> Exception:
    """Return what a step raises, so that a write is done in part before `then` is raised."""
    return _Part(share, then)


def failure(code: int) -> OSError:
    """Return the error of a call that fails."""
    return OSError(code, os.strerror(code))


INPUT_OUTPUT: Final = errno.EIO
NO_SPACE: Final = errno.ENOSPC
