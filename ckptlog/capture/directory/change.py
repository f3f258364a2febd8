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
from ckptlog.capture.directory.scan import Row, Scan
from ckptlog.capture.directory.stat_index import Kept

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


def steps(
    entries: Mapping[str, Entry], found: Scan, known: Known, *, is_wanted: Callable[[str], bool]
) -> list[Step]:
    """Return what has to be done so that a directory holds exactly the entries.

    Args:
        known: Returns the content of a path that is there; None where it vanished.
        is_wanted: Whether a path is to be restored at all.
    """
    made: list[Step] = []
    removed: list[Step] = []
    there = dict(found.paths())
    for path, entry in entries.items():
        if not is_wanted(path):
            continue
        row = there.get(path)
        step = Step(ADD, path, entry, None, is_content=True) if row is None else None
        if row is not None:
            step = _change(path, entry, row, known)
        if step is not None:
            made.append(step)
    for path, row in there.items():
        if path not in entries and is_wanted(path):
            removed.append(Step(REMOVE, path, None, row, is_content=True))
    removed.reverse()
    return made + removed


def _change(path: str, entry: Entry, row: Row, known: Known) -> Step | None:
    kind = type_of(row)
    if kind != entry.type:
        return Step(CHANGE, path, entry, row, is_content=True)
    if kind == "directory":
        same = stat.S_IMODE(row[1]) == entry.mode
        return None if same else Step(CHANGE, path, entry, row, is_content=False)
    if kind == "file" and row[2] != entry.size:
        return Step(CHANGE, path, entry, row, is_content=True)
    kept = known(path, row)
    if kept is None:
        return Step(ADD, path, entry, None, is_content=True)
    if not is_same_content(entry, kept):
        return Step(CHANGE, path, entry, row, is_content=True)
    is_same_mode = kind == "link" or stat.S_IMODE(row[1]) == entry.mode
    if is_same_mode and row[3] == entry.mtime and _has_attributes(entry, kept):
        return None
    return Step(CHANGE, path, entry, row, is_content=False)


def is_same_content(entry: Entry, kept: Kept) -> bool:
    """Say whether an entry holds what is known of a file or link of its type and size."""
    if entry.type == "link":
        return kept.inline.decode("utf-8", "surrogateescape") == entry.link_target()
    if kept.extents != entry.extents or bool(kept.hash) != bool(entry.blake3):
        return False
    return kept.hash.hex() == entry.blake3 if kept.hash else kept.inline == entry.inline()


def _has_attributes(entry: Entry, kept: Kept) -> bool:
    """Say whether attributes are right; those of a capture without any are left alone."""
    if entry.attributes is None:
        return True
    return (kept.attributes or {}) == entry.attribute_bytes()


def type_of(row: Row) -> str:
    """Return an entry's type for what is there."""
    if stat.S_ISDIR(row[1]):
        return "directory"
    return "link" if stat.S_ISLNK(row[1]) else "file"


def wanted(paths: Iterable[str]) -> Callable[[str], bool]:
    """Return what says whether a path is one of these or lies below one; all without any."""
    given = [naming.given(path) for path in paths]
    if not given:
        return lambda _: True
    below = tuple(f"{path}/" for path in given)
    exact = frozenset(given)
    return lambda path: path in exact or path.startswith(below)
