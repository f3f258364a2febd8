"""Clock, random and machine: what a store takes from the world besides files.

Everything nondeterministic enters through one `Environment`, so that a test can run the whole
store from a seed. Files enter through `storage.disk.Disk`, which an environment carries.
"""

from __future__ import annotations

import getpass
import os
import socket
import time
from functools import cache
from pathlib import Path

from ckptlog.storage import process
from ckptlog.storage.disk import Disk

MOUNTS = Path("/proc/self/mountinfo")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Environment:
    """The real world. Tests subclass it.

    Threads: safe; it holds no state.
    """

    def __init__(self, disk: Disk | None = None) -> None:
        self.disk = disk or Disk()

    def now_us(self) -> int:
        """Return Unix time in microseconds."""
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        """Return seconds of a clock that never goes back."""
        return time.monotonic()

    def sleep(self, duration_s: float) -> None:
        """Wait."""
        time.sleep(duration_s)

    def random_bytes(self, count: int) -> bytes:
        """Return unpredictable bytes."""
        return os.urandom(count)

    def boot(self) -> bytes:
        """Return 16 bytes that differ after a reboot; zeros where the system does not tell."""
        return _boot()

    def process(self) -> str:
        """Return what tells this process from every other; "" where the system does not tell."""
        return process.process_name(self.boot())

    def is_dead(self, process_name: str) -> bool:
        """Say whether the process of that name is surely dead; False where that is unsure."""
        return process.is_dead(process_name, self.boot())

    def is_visible(self, process_name: str) -> bool:
        """Say whether this process can tell if that one lives: same boot, machine, container."""
        return process.is_visible(process_name, self.boot())

    def mounts(self) -> str:
        """Return the kernel's table of mounts (mountinfo); empty where there is none."""
        try:
            # Names may be any bytes; `os.fsdecode` has paths in the same form.
            return MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return ""

    def variable(self, name: str) -> str:
        """Return an environment variable; empty where it is not set."""
        return os.environ.get(name, "")

    def actor(self) -> str:
        """Return who works here by default: user@host."""
        return _actor()


@cache
def _boot() -> bytes:
    try:
        return bytes.fromhex(BOOT_ID.read_text().strip().replace("-", ""))[:16].ljust(16, b"\0")
    except (OSError, ValueError):
        return bytes(16)


@cache
def _actor() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return "".join(c for c in f"{user}@{socket.gethostname()}" if c.isprintable())[:200].strip()
