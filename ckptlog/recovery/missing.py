"""What was not there when a recovery began: there is nothing to save of it.

Whoever recovers a database or a directory often does so because it was deleted. Such a component
cannot be captured, and must not make the recovery impossible. It is left out of the safety
capture, and the log says so (`missing` of recovery.started). A rollback makes it missing again by
renaming what was put there to NAME.undone-1: others may have written into it meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ckptlog.capture.capturer import Capturer
from ckptlog.capture.draft import clear_drafts
from ckptlog.errors import CaptureFailedError, operating_system_door
from ckptlog.model.capture import CaptureInfo
from ckptlog.recovery.target import Target
from ckptlog.storage.files import sync_directory

_JOURNALS = ("-wal", "-shm", "-journal")


def save(
    capturer: Capturer, targets: Collection[Target], **options: Any
) -> tuple[CaptureInfo | None, list[str]]:
    """Capture what is there; return (the capture, or None where nothing is; what is missing).

    Raises:
        CaptureFailedError: Something is there, and cannot be captured.
    """
    missing: list[str] = []
    with ExitStack() as stack:
        for target in targets:  # what rules leave out now, a restore overwrites all the same
            if hasattr(target.component, "tracking"):
                stack.enter_context(target.component.tracking(target.stored))
        while True:
            left = _without(capturer, missing)
            if left is None:
                return None, missing
            try:
                return left.capture(**options), missing
            except CaptureFailedError as error:
                name = str(error.context.get("component", ""))
                if name in missing or not is_missing(capturer.components.get(name)):
                    error.hint = f"{error.hint} {_HINT}".strip()
                    raise
                missing.append(name)


_HINT = (
    "Nothing was touched. What can no longer be captured is recovered without saving it: "
    "safety=False, or ckptlog recover --no-safety."
)


def is_missing(component: object) -> bool:
    """Say whether a component has a place, and nothing is there."""
    place = place_of(component)
    if not place:
        return False
    try:
        os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False  # perhaps it is there: nobody may look
    return False


def place_of(component: object) -> str:
    """Return the path where a component is; "" where it has none."""
    location = getattr(component, "location", None) or {}
    if "path" not in location:
        return ""
    own = getattr(component, "path", None)  # has bytes that a location cannot tell
    return own if isinstance(own, str) else str(location["path"])


def make_missing(component: object) -> str:
    """Rename what is at a component's place; return its new name, "" where nothing is there.

    A draft of it that a killed restore has left beside it is removed: no restore does that now.

    Durability: the rename is on the medium. Called again it does nothing.
    """
    place = place_of(component)
    if not place:
        return ""
    number = 1
    while os.path.lexists(f"{place}.undone-{number}"):
        number += 1
    aside = f"{place}.undone-{number}"
    # The journals first: a database without them is still one, they without it are not.
    found = [suffix for suffix in (*_JOURNALS, "") if os.path.lexists(f"{place}{suffix}")]
    with operating_system_door(f"Cannot rename {place}"):
        for suffix in found:
            os.rename(f"{place}{suffix}", f"{aside}{suffix}")  # noqa: PTH104
        clear_drafts(Path(place))
        if found:
            sync_directory(Path(place).parent)
    return aside if "" in found else ""


class _Freed:
    """A component that no longer says that it depends on what is missing."""

    def __init__(self, component: Any, depends_on: tuple[str, ...]) -> None:
        self._component = component
        self.depends_on = depends_on

    def __getattr__(self, name: str) -> Any:
        return getattr(self._component, name)


def _without(capturer: Capturer, missing: Collection[str]) -> Capturer | None:
    """Return a capturer of the components that are not missing."""
    if not missing:
        return capturer
    parts: list[Any] = []
    for traits in capturer.traits:
        if traits.name not in missing:
            part = capturer.components[traits.name]
            depends_on = tuple(name for name in traits.depends_on if name not in missing)
            parts.append(part if depends_on == traits.depends_on else _Freed(part, depends_on))
    return capturer.of(parts) if parts else None
