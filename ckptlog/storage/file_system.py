"""Which file system a path lies on, from the kernel's own table."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ckptlog.storage.environment import Environment

# The kernel writes a space, a tab, a line's end and a backslash in a name as \\ooo.
_OCTAL = re.compile(r"\\([0-7]{3})")


def file_system_of(path: Path, environment: Environment) -> str:
    """Return the type of the file system that holds path (`ext4`, `nfs4`, ...), or "unknown"."""
    best, kind = -1, "unknown"
    try:
        resolved = path.resolve().parts
    except (OSError, RuntimeError):
        return kind
    for mount, name in parse_mounts(environment.mounts()):
        parts = Path(mount).parts
        # Later lines cover earlier ones at the same point.
        if resolved[: len(parts)] == parts and len(parts) >= best:
            best, kind = len(parts), name
    return kind


def mounts_below(directory: str, environment: Environment) -> list[str]:
    """Return what is mounted on something below a directory: paths from there, those above first.

    Also what is of the same file system (a bind mount), and on files.
    """
    root = os.path.realpath(directory).rstrip("/") + "/"
    points = {mount for mount, _ in parse_mounts(environment.mounts()) if mount.startswith(root)}
    return sorted(mount[len(root) :] for mount in points)


def parse_mounts(table: str) -> list[tuple[str, str]]:
    """Return (mount point, type) of each line of a mountinfo table."""
    found = []
    for line in table.splitlines():
        left, separator, right = line.partition(" - ")
        fields = left.split()
        if separator and len(fields) >= 5 and right:
            mount = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4])
            found.append((mount, right.split()[0]))
    return found
