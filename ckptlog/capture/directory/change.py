"""What a restore would do: the walk of what is there beside the entries of a capture.

A step is made for each path that differs; nothing is done here. Order: paths in the order of the
payload (a directory before its content); what is removed stands at the end, content first.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ckptlog.capture.directory import name as naming
from ckptlog.capture.directory.entry import Entry
from ckptlog.capture.directory.stat_index import Kept
from ckptlog.capture.directory.table import Row
from ckptlog.errors import NoSuchPartError

ADD: Final = "add"
CHANGE: Final = "change"
REMOVE: Final = "remove"


@dataclass(frozen=True)
class Step:
    """One path that differs.

    kind: ADD, CHANGE or REMOVE.
    entry: What is to be there; None for REMOVE.
    row: What is there; None for ADD.
    is_content: Whether the content differs, and not only mode, time or attributes.
    """

    kind: str
    path: str
    entry: Entry | None
    row: Row | None
    is_content: bool

    @property
    def size(self) -> int:
        """Bytes that have to be written."""
        return self.entry.size if self.entry is not None and self.is_content else 0


Known = Callable[[str, Row], Kept | None]


class Selection:
    """The paths that are restored: those that are named, and what lies below them; all without any.

    Raises:
        ArgumentError: A path leads out of the root, or is the root.
    """

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._exact = self.named = frozenset(naming.given(path) for path in paths)
        self._below = tuple(f"{path}/" for path in self._exact)

    def has(self, path: str) -> bool:
        """Say whether a path is restored."""
        return not self._exact or path in self._exact or path.startswith(self._below)

    def leads_through(self, path: str) -> bool:
        """Say whether a path is a directory above one that is restored."""
        return any(below.startswith(f"{path}/") for below in self._below)

    def check(self, has: Callable[[str], bool]) -> None:
        """Check that each named path is in the capture, or is there.

        Raises:
            NoSuchPartError: One is neither.
        """
        for path in sorted(path for path in self._exact if not has(path)):
            raise NoSuchPartError(
                f"{naming.shown(path)} is neither in the capture nor in the directory.",
                hint="Paths are relative to the directory.",
                path=naming.shown(path),
            )


def steps(
    entries: Mapping[str, Entry], there: Mapping[str, Row], known: Known, selection: Selection
) -> list[Step]:
    """Return what has to be done so that a directory holds exactly the entries.

    Args:
        there: What it has, by path, a directory before what lies in it.
        known: Returns the content of a path that is there; None where it vanished.
    """
    made: list[Step] = []
    for path, entry in entries.items():
        row = there.get(path)
        if not selection.has(path):
            is_needed = row is None or type_of(row) != entry.type
            if not (is_needed and selection.leads_through(path)):
                continue
        step = _change(path, entry, row, known)
        if step is not None:
            made.append(step)
    removed = [
        Step(REMOVE, path, None, row, is_content=True)
        for path, row in there.items()
        if path not in entries and selection.has(path)
    ]
    removed.reverse()
    return made + removed


def sparing(
    made: Iterable[Step], entries: Mapping[str, Entry], known: Known
) -> tuple[list[Step], list[str]]:
    """Return (the steps that let nothing go but what entries hold; paths that the others would).

    Another mode or time is nobody's work, and is let go.
    """
    made = list(made)
    spared = {step.path for step in made if not _is_held(step, entries, known)}
    above = {folder for path in spared for folder in naming.above(path)}

    def is_free(step: Step) -> bool:
        if step.path in spared or any(folder in spared for folder in naming.above(step.path)):
            return False
        return step.path not in above or not step.is_content

    return [step for step in made if is_free(step)], sorted(spared)


def _is_held(step: Step, entries: Mapping[str, Entry], known: Known) -> bool:
    """Say whether what a step overwrites or removes is what an entry holds, or nothing."""
    if step.row is None:
        return True
    entry = entries.get(step.path)
    if entry is None:
        return False
    found = _change(step.path, entry, step.row, known)
    return found is None or found.kind == ADD or not found.is_content


def _change(path: str, entry: Entry, row: Row | None, known: Known) -> Step | None:
    if row is None:
        return Step(ADD, path, entry, None, is_content=True)
    kind = type_of(row)
    if kind != entry.type or (kind == "file" and row[2] != entry.size):
        return Step(CHANGE, path, entry, row, is_content=True)
    is_same_mode = kind == "link" or stat.S_IMODE(row[1]) == entry.mode
    if kind == "directory":
        return None if is_same_mode else Step(CHANGE, path, entry, row, is_content=False)
    kept = known(path, row)
    if kept is None:
        return Step(ADD, path, entry, None, is_content=True)
    is_content = not is_same_content(entry, kept)
    is_same = is_same_mode and row[3] == entry.mtime and _has_attributes(entry, kept)
    if is_same and not is_content:
        return None
    return Step(CHANGE, path, entry, row, is_content=is_content)


def is_same_content(entry: Entry, kept: Kept) -> bool:
    """Say whether an entry holds what is known of a file or link of its type and size."""
    if entry.type == "link":
        return kept.inline.decode("utf-8", "surrogateescape") == entry.link_target()
    if kept.extents != entry.extents or bool(kept.hash) != bool(entry.blake3):
        return False
    return kept.hash.hex() == entry.blake3 if kept.hash else kept.inline == entry.inline()


def _has_attributes(entry: Entry, kept: Kept) -> bool:
    """Say whether attributes are right; where they are not captured they are left alone."""
    if entry.attributes is None:
        return True
    there = {naming.unescaped(name): value for name, value in (kept.attributes or {}).items()}
    return there == entry.attribute_bytes()


def type_of(row: Row) -> str:
    """Return an entry's type for what is there."""
    if stat.S_ISDIR(row[1]):
        return "directory"
    return "link" if stat.S_ISLNK(row[1]) else "file"
