"""What lies in a directory, told by nothing of ours: the plain copy that the component is held to."""

from __future__ import annotations

import os
import stat
from pathlib import Path

LEFT_OUT = "ign"
# Each restore syncs what it wrote; thousands of them are made.
FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
Picture = dict[bytes, tuple[object, ...]]


def picture(root: Path) -> Picture:
    """Return type, mode, time and content of all but what begins with `ign`, and special files."""
    found: Picture = {}
    _walk(os.fsencode(root), b"", found)
    return found


def left_out(root: Path) -> dict[bytes, bytes]:
    """Return the files that begin with `ign`, with their contents."""
    found = {}
    for folder, _, names in os.walk(os.fsencode(root)):
        for name in names:
            path = os.path.join(folder, name)
            inside = os.path.relpath(path, os.fsencode(root))
            if b"ign" in {part[:3] for part in inside.split(b"/")} and os.path.isfile(path):
                found[inside] = Path(os.fsdecode(path)).read_bytes()
    return found


def _walk(root: bytes, path: bytes, found: Picture) -> None:
    for name in os.listdir(os.path.join(root, path)):
        if name.startswith(LEFT_OUT.encode()):
            continue
        inside = os.path.join(path, name)
        whole = os.path.join(root, inside)
        status = os.lstat(whole)
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISLNK(status.st_mode):
            found[inside] = ("link", os.readlink(whole), status.st_mtime_ns)
        elif stat.S_ISDIR(status.st_mode):
            found[inside] = ("directory", mode)
            _walk(root, inside, found)
        elif stat.S_ISREG(status.st_mode):
            with open(whole, "rb") as file:
                found[inside] = ("file", mode, status.st_mtime_ns, file.read())


def without_shells(pictured: Picture, root: Path) -> Picture:
    """Return a picture without the directories that hold what is left out."""
    kept = set()
    for folder, _, names in os.walk(os.fsencode(root)):
        for name in names:
            path = os.path.join(folder, name)
            inside = os.path.relpath(path, os.fsencode(root))
            is_special = not os.path.isfile(path) and not os.path.islink(path)
            if is_special or b"ign" in {part[:3] for part in inside.split(b"/")}:
                while inside := os.path.dirname(inside):
                    kept.add(inside)
    return {path: what for path, what in pictured.items() if path not in kept}
