"""The writer's lock: flock on `STORE/lock`, across processes, with a deadline and a name.

- The lock lives in the kernel and dies with its holder, so a killed process never blocks.
- The file is never replaced; should someone delete it, two writers could each hold "the" lock.
  So the inode is checked after every acquisition, and the file opened anew if it changed.
- flock belongs to the open file description, which a forked child shares: should the parent be
  killed while it holds the lock, a child that keeps the descriptor would keep the lock. So the
  parent always unlocks explicitly, and every forked child closes its copies at once, whether it
  uses the store or not.
- Waiting polls: flock has no deadline, and a signal-based one is not ours to take in a library.
"""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from ckptlog.errors import LockTimeoutError, from_os_error
from ckptlog.storage.environment import Environment
from ckptlog.storage.fork import renewed_in_child

_EXCLUSIVE = fcntl.LOCK_EX | fcntl.LOCK_NB
_WAIT_FIRST_S = 0.00005
_WAIT_MAX_S = 0.005
_LIST_ATTEMPTS = 3


class WriterLock:
    """The lock of one store as one process sees it.

    Threads: the owner serialises calls; this object does not.
    """

    def __init__(self, path: Path, environment: Environment) -> None:
        self.path = path
        self._name = str(path)
        self._environment = environment
        self._fd = -1
        self._inode = -1
        renewed_in_child(self)

    def acquire(self, timeout_s: float) -> None:
        """Take the lock.

        Raises:
            LockTimeoutError: Another process held it for timeout_s; the message says which. The
                file is closed.
        """
        if self.try_acquire():
            return
        deadline_s = self._environment.monotonic_s() + timeout_s
        wait_s = _WAIT_FIRST_S
        while not self.try_acquire():
            if self._environment.monotonic_s() >= deadline_s:
                self.close()
                holder = describe_holder(self.path)
                raise LockTimeoutError(
                    f"The lock {self.path} was held by {holder} for {timeout_s:g} s.",
                    hint="Wait for it, or stop that process; a killed one never blocks.",
                    path=self._name,
                    holder=holder,
                )
            self._environment.sleep(wait_s)
            wait_s = min(wait_s * 1.5, _WAIT_MAX_S)

    def try_acquire(self) -> bool:
        """Take the lock if it is free."""
        try:
            while True:
                if self._fd < 0:
                    self._open()
                fcntl.flock(self._fd, _EXCLUSIVE)
                if self._is_current():
                    return True
                self.close()
        except BlockingIOError:
            return False
        except OSError as error:
            raise from_os_error(error, "Cannot lock the store") from error

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file; a lock that is held is released."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    # In a forked child close() drops the child's reference only: the description stays locked
    # as long as the parent keeps it.
    abandon = close

    def renew_in_child(self) -> None:
        """Let go of the parent's description in a forked child."""
        with suppress(OSError):  # it was closed behind our back
            self.abandon()

    def _open(self) -> None:
        self._fd = os.open(self._name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._inode = os.fstat(self._fd).st_ino

    def _is_current(self) -> bool:
        try:
            return os.stat(self._name).st_ino == self._inode
        except FileNotFoundError:
            return False


def describe_holder(path: Path) -> str:
    """Say which process holds a flock on path, from the kernel's list; "an unknown process"."""
    # The list is read piece by piece; where others lock and unlock meanwhile, it may lack a line.
    for _ in range(_LIST_ATTEMPTS):
        if found := holders(path):
            return ", ".join(found)
    return "an unknown process"


def holders(path: Path) -> list[str]:
    """Return who holds a flock on path: process, command, host, and since when it runs.

    Empty where nobody does, where there is no such file, or where the system does not tell.
    """
    found = []
    try:
        inode = os.stat(path).st_ino
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        fields = line.split()
        # "1: FLOCK ADVISORY WRITE 1234 08:01:5678 0 EOF"; waiters have "->" as second field.
        if len(fields) >= 6 and fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
            found.append(_describe_process(fields[4]))
    return found


def _describe_process(pid: str) -> str:
    if pid in {"0", "-1"}:  # of another pid namespace: it has no number here
        return f"process of another container (on {socket.gethostname()})"
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except (OSError, UnicodeDecodeError):
        command = ""
    if not command:
        return f"process {pid}"
    return f"process {pid} ({command[:80]}) on {socket.gethostname()}{_since(pid)}"


def _since(pid: str) -> str:
    """Return since when a process runs, in words; empty where the system does not tell."""
    try:
        # Behind the name, which may hold blanks and brackets; start time is field 22 of all.
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        lines = Path("/proc/stat").read_text().splitlines()
        (boot_s,) = [int(line.split()[1]) for line in lines if line.startswith("btime ")]
        start_s = boot_s + ticks / os.sysconf("SC_CLK_TCK")
        return f" since {datetime.fromtimestamp(start_s, UTC):%Y-%m-%d %H:%M:%SZ}"
    except (OSError, ValueError, IndexError, OverflowError):
        return ""
