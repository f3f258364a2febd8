"""A disk that names every operation, stops or fails at a chosen one, and knows the medium.

    disk.stop("before", "sync segment")        the process dies there: nothing more is written
    disk.interrupt("after", "write segment")   an exception ends the operation, the process lives
    disk.fail("sync segment", errno.EIO)       the operation fails; unsynced bytes may be lost

An operation's name is its verb and the role of its file: `write segment`, `write end`,
`create segment`, `rename segment`, `sync folder`, `write aside`; `any` is each that changes
something.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ckptlog.errors import from_os_error
from ckptlog.storage import files
from ckptlog.storage.disk import Disk
from tests.faults.medium import Cut, Medium, Node, Write


class SimulatedStop(BaseException):
    """Everything of a process stops here, or an interrupt arrives."""


class QuietDisk(Disk):
    """The real files without syncs: nobody cuts the power of a test machine."""

    def sync(self, fd: int) -> None:
        pass

    def sync_directory(self, path: Path) -> None:
        pass

    def write_atomically(self, path: Path, data: bytes) -> None:
        files.write_atomically(path, data, durable=False)


@dataclass
class Fault:
    """What happens at the n-th operation of a name from now on.

    act: "before" or "after": a stop. "torn": half of a write, then a stop. An errno: a failure.
    part: Share of a write's bytes that are written before it stops or fails.
    """

    name: str
    act: str | int
    at: int = 1
    is_death: bool = True
    is_lasting: bool = False
    part: float = 0.0
    is_loss: bool = True


class FaultDisk(QuietDisk):
    """One process's way to the files of a medium.

    Attributes:
        trace: Names of the operations so far that change something.
        is_dead: The process was stopped: every later operation but closing stops too.
    """

    def __init__(self, medium: Medium) -> None:
        self.medium = medium
        self.trace: list[str] = []
        self.faults: list[Fault] = []
        self.is_dead = False
        self._nodes: dict[int, Node] = {}
        self._roles: dict[int, str] = {}

    # --- the plan ----------------------------------------------------------------------------

    def stop(self, act: str, name: str, *, at: int = 1, part: float = 0.5) -> None:
        """Let the process die before, after or in the middle ("torn") of an operation."""
        self.faults.append(Fault(name, act, at=at, part=part))

    def interrupt(self, act: str, name: str, *, at: int = 1, part: float = 0.5) -> None:
        """Let an exception end the operation once; the process goes on."""
        self.faults.append(Fault(name, act, at=at, part=part, is_death=False))

    def fail(
        self,
        name: str,
        code: int = errno.EIO,
        *,
        at: int = 1,
        part: float = 0.0,
        lasting: bool = False,
        loses: bool = True,
    ) -> None:
        """Let an operation fail with an errno: once, or from then on.

        Args:
            part: Share of a write that reaches the page cache before it fails.
            loses: Whether a failing sync drops the unsynced bytes while the cache still has them.
        """
        self.faults.append(Fault(name, code, at=at, part=part, is_lasting=lasting, is_loss=loses))

    def heal(self) -> None:
        """Take every plan back."""
        self.faults.clear()

    # --- the operations ----------------------------------------------------------------------

    def create(self, path: Path) -> int:
        return self._do(f"create {role(path)}", lambda: self._create(path))

    def open_write(self, path: Path) -> int:
        return self._opened(super().open_write(path), path)

    def open_read(self, path: Path) -> int:
        return self._opened(super().open_read(path), path)

    def read(self, fd: int, length: int, offset: int) -> bytes:
        return self._do(
            f"read {self._role(fd)}", lambda: super(FaultDisk, self).read(fd, length, offset)
        )

    def read_into(self, fd: int, buffer: memoryview, offset: int) -> int:
        data = self.read(fd, len(buffer), offset)
        buffer[: len(data)] = data
        return len(data)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        self._do(
            f"write {self._role(fd)}",
            lambda: self._write(fd, data, offset),
            part=lambda share: self._write(fd, data[: int(len(data) * share)], offset),
        )

    def sync(self, fd: int) -> None:
        node = self._nodes[fd]
        self._do(f"sync {self._role(fd)}", node.sync, loss=node.forget)

    def sync_directory(self, path: Path) -> None:
        self._do("sync folder", lambda: self.medium.sync_folder(path))

    def truncate(self, fd: int, length: int) -> None:
        self._do(f"truncate {self._role(fd)}", lambda: self._truncate(fd, length))

    def remove(self, path: Path) -> None:
        self._do(f"remove {role(path)}", lambda: self._remove(path))

    def rename(self, old: Path, new: Path) -> None:
        self._do(f"rename {role(old)}", lambda: self._rename(old, new))

    def write_atomically(self, path: Path, data: bytes) -> None:
        temporary = path.with_name(path.name + ".tmp")
        if temporary.exists():
            self._remove(temporary)
        fd = self.create(temporary)
        try:
            self.write(fd, data, 0)
            self.sync(fd)
        finally:
            self.close(fd)
        self.rename(temporary, path)
        self.sync_directory(path.parent)

    # --- what they do ------------------------------------------------------------------------

    def _create(self, path: Path) -> int:
        fd = super().create(path)
        self.medium.create(path)
        return self._opened(fd, path)

    def _opened(self, fd: int, path: Path) -> int:
        self._nodes[fd] = self.medium.names[self.medium.name(path)]
        self._roles[fd] = role(path)
        return fd

    def _role(self, fd: int) -> str:
        return self._roles.get(fd, "other")

    def _write(self, fd: int, data: bytes, offset: int) -> None:
        super().write(fd, data, offset)
        self._nodes[fd].pending.append(Write(self.medium.tick(), offset, bytes(data)))

    def _truncate(self, fd: int, length: int) -> None:
        super().truncate(fd, length)
        self._nodes[fd].pending.append(Cut(self.medium.tick(), length))

    def _remove(self, path: Path) -> None:
        super().remove(path)
        self.medium.remove(path)

    def _rename(self, old: Path, new: Path) -> None:
        super().rename(old, new)
        self.medium.rename(old, new)

    def _do(
        self,
        name: str,
        act: Callable[[], object],
        *,
        part: Callable[[float], None] | None = None,
        loss: Callable[[], None] | None = None,
    ):
        is_change = not name.startswith("read ")
        if self.is_dead and is_change:
            raise SimulatedStop(f"{name}: the process is dead")
        fault = self._due(name)
        if fault is None or fault.act == "after":
            result = act()
            if is_change:
                self.trace.append(name)
            if fault is not None:
                self._stop(fault)
            return result
        if part is not None and fault.part and fault.act != "before":
            part(fault.part)
        if isinstance(fault.act, int):
            if loss is not None and fault.is_loss:
                loss()
            raise from_os_error(OSError(fault.act, os.strerror(fault.act)), f"Injected: {name}")
        self._stop(fault)
        raise AssertionError

    def _due(self, name: str) -> Fault | None:
        for fault in list(self.faults):
            is_met = fault.name == name or (fault.name == "any" and not name.startswith("read "))
            if not is_met:
                continue
            fault.at -= 1
            if fault.at <= 0:
                if not fault.is_lasting:
                    self.faults.remove(fault)
                return fault
        return None

    def _stop(self, fault: Fault) -> None:
        self.is_dead = fault.is_death
        raise SimulatedStop(f"{fault.act} {fault.name}")


def role(path: Path) -> str:
    """Return what a file is for."""
    name = path.name.removesuffix(".tmp")
    if name.endswith(".seg") and not name.startswith("torn-"):
        return "segment"
    if name.startswith("torn-"):
        return "aside"
    return name
