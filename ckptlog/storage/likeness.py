"""The likeness of a file: what is known of it beside bytes and mode, for the one that replaces it.

A rename brings in another file: without this it would be its maker's, and whoever an access list
named would be shut out.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

# Access lists, the user's own, and labels; not what the system works out from the bytes.
_KEPT: Final = ("user.", "system.posix_acl_", "security.selinux")


def take_likeness(fd: int, other: Path) -> None:
    """Give an open file the owner and the attributes of another, as far as they may be given.

    The mode is to be set afterwards.

    Durability: none; the caller syncs.
    """
    with suppress(PermissionError, FileNotFoundError):
        owner = other.stat()
        os.fchown(fd, owner.st_uid, owner.st_gid)
    if not hasattr(os, "listxattr"):  # pragma: no cover - not on this system
        return
    with suppress(OSError):
        for name in os.listxattr(other):
            if name.startswith(_KEPT):
                with suppress(OSError):
                    os.setxattr(fd, name, os.getxattr(other, name))
