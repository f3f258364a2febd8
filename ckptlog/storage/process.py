"""Processes: what names one for ever, and whether it is surely dead.

A name is `BOOT:PID-NAMESPACE:TIME-NAMESPACE:PID:START`. No other process has it, before or after:
within one run of the machine and one namespace a number comes again, but not with the same start
(ticks since the boot, which a time namespace shifts). So what is dead stays dead, and who has seen
that need not look again.

"Dead" is only said of a process that this one could see if it lived. Names of another boot, of
another namespace, of a machine without /proc or with one of another namespace: unsure. A process
that another user's /proc hides still has its number taken, which `kill(pid, 0)` tells; one that
is a zombie has no thread left that could write. Page: specs/lease.md.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_NAME: Final = re.compile(r"([0-9a-f]{32}:[0-9]+:[0-9]+):([1-9][0-9]{0,9}):([0-9]{1,20})")
_NAMESPACE: Final = re.compile(r"[a-z]+:\[([0-9]+)\]")
_GONE_STATES: Final = ("Z", "X", "x")


def process_name(boot: bytes) -> str:
    """Return what tells this process from all others; "" where the system does not tell.

    Args:
        boot: 16 bytes that differ after a reboot; zeros where that is unknown.
    """
    pid = os.getpid()
    machine, start = _machine(boot, pid), _started(pid)
    return f"{machine}:{pid}:{start}" if machine and start else ""


def is_dead(name: str, boot: bytes) -> bool:
    """Say whether a process is surely dead; False where it lives, or nobody can tell from here.

    Args:
        name: Of `process_name`, of any process.
        boot: Of this machine now.
    """
    found = _NAME.fullmatch(name)
    if found is None or found[1] != _machine(boot, os.getpid()):
        return False
    pid = int(found[2])
    if not _is_taken(pid):
        return True
    start = _started(pid)
    if start:
        return start != found[3] or _has_ended(pid)
    return not _is_taken(pid)  # it went while we looked, or /proc hides it


def is_visible(name: str, boot: bytes) -> bool:
    """Say whether a process of that name would be seen from here, did it live."""
    found = _NAME.fullmatch(name)
    return found is not None and found[1] == _machine(boot, os.getpid())


def _is_taken(pid: int) -> bool:
    """Say whether a process, or a thread, has this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _started(pid: int) -> str:
    """Return when a process was started, in ticks; "" where /proc does not tell."""
    fields = _stat(pid)
    return fields[19] if len(fields) > 19 else ""


def _has_ended(pid: int) -> bool:
    """Say whether a process is a zombie: ended but for being waited for, with all its threads."""
    with suppress(OSError):
        return _stat(pid)[:1] in [[one] for one in _GONE_STATES] and (
            os.listdir(_PROC / str(pid) / "task") == [str(pid)]
        )
    return False


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on; the name before may hold anything."""
    with suppress(OSError):
        text = (_PROC / str(pid) / "stat").read_bytes()
        return text.rpartition(b")")[2].decode("ascii", "replace").split()
    return []


@lru_cache(maxsize=4)
def _machine(boot: bytes, pid: int) -> str:
    """Return what processes that see each other have in common; "" where that is unknown.

    Args:
        pid: Of this process: a forked child may be in another namespace.
    """
    pids, times = _namespace("pid"), _namespace("time")
    if not any(boot) or not pids or not _is_own_proc(pid):
        return ""
    return f"{boot.hex()}:{pids}:{times or 0}"


def _namespace(kind: str) -> str:
    with suppress(OSError):
        found = _NAMESPACE.fullmatch(os.readlink(_PROC / "self" / "ns" / kind))
        return "" if found is None else found[1]
    return ""


def _is_own_proc(pid: int) -> bool:
    """Say whether /proc shows this process's own namespace: else numbers mean other processes."""
    with suppress(OSError, ValueError):
        lines = (_PROC / "self" / "status").read_text("ascii", "replace").splitlines()
        return [int(pid) for pid in _of(lines, "NSpid:")] == [pid]
    return False


def _of(lines: list[str], key: str) -> list[str]:
    return next((line[len(key) :].split() for line in lines if line.startswith(key)), [])
