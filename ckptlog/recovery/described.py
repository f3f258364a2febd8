"""Components made anew from what a capture says of them, without the program that had them.

A kind that stands in the table below, with a path in its location, is enough to restore a
component (specs/recovery.md, section 4). The table is closed: a capture names a kind and a path,
never a class, so nothing is ever imported because stored bytes said so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from ckptlog.capture.directory.component import KIND as DIRECTORY
from ckptlog.capture.directory.component import DirectoryComponent
from ckptlog.capture.directory.scan import Options
from ckptlog.capture.file import FileComponent
from ckptlog.capture.sqlite import SqliteComponent
from ckptlog.errors import ArgumentError, RecoveryRefusedError
from ckptlog.model.capture import CaptureInfo, ComponentInfo
from ckptlog.model.component import ABSENT, Component

_FLAGS: Final = ("has_git", "has_rules", "has_attributes")


class Elsewhere:
    """Stands for a component that only its program has, where values are written to files.

    It is never captured and never restored.
    """

    stability = "copied"

    def __init__(self, name: str, info: ComponentInfo) -> None:
        self.name = name
        self.kind = _kind(info)
        self.schema_version = info.schema

    def capture(self) -> object:
        """Refuse."""
        raise self._refusal()

    def restore(self, payload: object) -> None:
        """Refuse."""
        del payload
        raise self._refusal()

    def _refusal(self) -> RecoveryRefusedError:
        return RecoveryRefusedError(
            f"Component {self.name!r} can be restored by its own program alone.",
            component=self.name,
        )


def described(info: CaptureInfo, excluded: Path) -> dict[str, Component]:
    """Return the components of a capture that it describes well enough to restore them, by name.

    Args:
        excluded: The store: it is no part of a directory in which it lies.
    """
    made = {name: _made(name, one, excluded) for name, one in info.components.items()}
    return {name: one for name, one in made.items() if one is not None}


def _made(name: str, info: ComponentInfo, excluded: Path) -> Component | None:
    path = info.location.get("path", "")
    make = _MAKERS.get(_kind(info))
    if make is None or not path.startswith("/") or "\0" in path:
        return None
    return make(name, path, info.location, excluded)


def _kind(info: ComponentInfo) -> str:
    """Return a component's own kind, also of one that was missing."""
    return info.location.get("kind", "") if info.kind == ABSENT else info.kind


def _directory(name: str, path: str, location: Mapping[str, str], excluded: Path) -> Component:
    options = _options(location.get("options", "{}"), excluded)
    if options is None:  # what else lay there cannot be known: none of it may be removed
        known = Options(excluded=(str(excluded),))
        return DirectoryComponent(name, path, options=known, keeps_unknown=True)
    return DirectoryComponent(name, path, options=options)


def _options(text: str, excluded: Path) -> Options | None:
    """Return what of a directory was captured; None where that is not said, or not well."""
    try:
        given = json.loads(text)
        flags = {key: given[key] for key in _FLAGS if key in given}
        patterns = given.get("patterns", [])
        unreadable = given.get("unreadable", "error")
        is_known = set(given) <= {*_FLAGS, "patterns", "unreadable"}
        is_sound = all(type(flag) is bool for flag in flags.values()) and all(
            type(pattern) is str for pattern in patterns
        )
        if not (is_known and is_sound):
            return None
        return Options(
            patterns=tuple(patterns), excluded=(str(excluded),), unreadable=unreadable, **flags
        )
    except (ValueError, TypeError, AttributeError, ArgumentError):
        return None


def _sqlite(name: str, path: str, _location: Mapping[str, str], _excluded: Path) -> Component:
    return SqliteComponent(name, path)


def _file(name: str, path: str, _location: Mapping[str, str], _excluded: Path) -> Component:
    return FileComponent(name, path)


_Maker = Callable[[str, str, Mapping[str, str], Path], Component]
_MAKERS: Final[dict[str, _Maker]] = {
    DIRECTORY: _directory,
    "sqlite": _sqlite,
    "file": _file,
}


def everything(info: CaptureInfo, excluded: Path) -> list[Any]:
    """Return a component for each of a capture, those of its program as `Elsewhere`."""
    known = described(info, excluded)
    return [known.get(name) or Elsewhere(name, one) for name, one in info.components.items()]
