"""What has to give way is put aside: renamed, and never removed unless all of it is saved.

    PLACE.before-<recovery>    what a recovery found where, in its capture, nothing was. Its
                               rollback puts it back; after its end what the safety capture holds
                               whole is removed (`discard`)
    PLACE.undone-<number>      what a recovery had put where nothing was, and its rollback took
                               away: others may have written into it meanwhile

A database goes with its journals: they first, because a database without them is still one, and
they without it are not.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Final

from ckptlog.capture.draft import clear_drafts
from ckptlog.errors import operating_system_door
from ckptlog.storage.files import sync_directory

_SUFFIXES: Final = ("-wal", "-shm", "-journal", "")


def before(recovery: str) -> str:
    """Return the suffix of what a recovery found where nothing was to be."""
    return f"before-{recovery}"


def put(place: str, suffix: str = "") -> str:
    """Rename what lies at a place; return its new path, "" where nothing lies there.

    Drafts that a killed restore has left beside it are removed: no restore is at work now.

    Args:
        suffix: Of the new name; the next free `undone-<number>` where it is "", or taken.

    Durability: the rename is on the medium. Interrupted, and called again, it goes on.
    """
    if not suffix or os.path.lexists(f"{place}.{suffix}"):
        number = 1
        while os.path.lexists(f"{place}.undone-{number}"):
            number += 1
        suffix = f"undone-{number}"
    target = f"{place}.{suffix}"
    clear_drafts(Path(place))
    return target if "" in _renamed(place, target) else ""


def bring_back(place: str, suffix: str) -> bool:
    """Rename what was put aside to its place, where nothing lies now; say whether that was done."""
    if os.path.lexists(place) or not os.path.lexists(f"{place}.{suffix}"):
        return False
    return bool(_renamed(f"{place}.{suffix}", place))


def discard(component: Any, place: str, stored: Any) -> bool:
    """Remove what was put aside, where a payload holds all of it; say whether that was done.

    Args:
        component: Whose it was.
        place: Where it lies.
        stored: The payload.

    Cost: reads all of both.
    """
    viewed = getattr(component, "whole_at", None) or getattr(component, "at", None)
    if viewed is None or viewed(place).plan(stored).changes:
        return False
    with operating_system_door(f"Cannot remove {place}"):
        if Path(place).is_dir() and not Path(place).is_symlink():
            shutil.rmtree(place)
        else:
            for suffix in _SUFFIXES:
                Path(f"{place}{suffix}").unlink(missing_ok=True)
        sync_directory(Path(place).parent)
    return True


def _renamed(old: str, new: str) -> list[str]:
    found = [suffix for suffix in _SUFFIXES if os.path.lexists(f"{old}{suffix}")]
    with operating_system_door(f"Cannot rename {old}"):
        for suffix in found:
            os.rename(f"{old}{suffix}", f"{new}{suffix}")  # noqa: PTH104
        if found:
            sync_directory(Path(old).parent)
    return found
