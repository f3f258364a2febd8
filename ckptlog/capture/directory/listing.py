"""All entries of a walk in the payload's order, beside what the stat index knows of them.

A closed group of the previous payload is taken over whole where each of its entries stands in the
new order as it stood in the old one, and is known.
"""

from __future__ import annotations

import stat
from typing import Final

import msgspec

from ckptlog.blobs.tree_writer import Group
from ckptlog.capture.directory import name as naming
from ckptlog.capture.directory.scan import Row, Scan
from ckptlog.capture.directory.stat_index import Kept, StatIndex

NOTHING: Final = Kept()
# What was not known, by place: the row and content as they were read; None where it is gone.
Added = dict[int, tuple[Row, Kept] | None]


class Listing:
    """The entries of a walk.

    keys: Their keys in the payload, in its order.

    Threads: not safe.        Cost: some microseconds an entry.
    """

    def __init__(self, found: Scan, index: StatIndex | None) -> None:
        self.keys: list[str] = []
        self._found = found
        self._index = index
        self._rows: list[tuple[str, Row, int]] = []  # folder, row, number of the row in it
        self._is_known: list[bool] = []
        self._kept: dict[str, list[Kept | None]] = {}
        self._list("")
        self._groups: dict[str, Group] = {}
        self._old_keys: list[str] = []
        self._old_places: dict[str, int] = {}
        if index is not None and index.groups:
            self._groups = {one.first: one for one in index.groups}
            self._old_keys = _keys_of(index)
            firsts = self._groups.keys()
            self._old_places = {key: at for at, key in enumerate(self._old_keys) if key in firsts}

    def _list(self, folder: str) -> None:
        rows = self._found.directories.get(folder, [])
        is_same = self._index is not None and self._index.has(folder, rows)
        if not is_same:
            self._kept[folder] = self._known_of(folder, rows)
        for number, row in enumerate(rows):
            path = f"{folder}/{row[0]}" if folder else row[0]
            self.keys.append(naming.encode(path))
            self._rows.append((folder, row, number))
            self._is_known.append(is_same or self._kept[folder][number] is not None)
            if stat.S_ISDIR(row[1]):
                self._list(path)

    def _known_of(self, folder: str, rows: list[Row]) -> list[Kept | None]:
        return [None] * len(rows) if self._index is None else self._index.kept(folder, rows)

    def group_at(self, place: int) -> Group | None:
        """Return the old group that begins here, if nothing in it changed."""
        group = self._groups.get(self.keys[place])
        if group is None:
            return None
        end = place + group.link.items
        old = self._old_places[group.first]
        is_same = (
            self.keys[place:end] == self._old_keys[old : old + group.link.items]
            and end <= len(self.keys)
            and all(self._is_known[place:end])
        )
        return group if is_same else None

    def entry(self, place: int) -> tuple[str, Row, Kept | None]:
        """Return the folder, the row, and what is known of an entry."""
        folder, row, number = self._rows[place]
        if folder not in self._kept:
            self._kept[folder] = self._known_of(folder, self._found.directories[folder])
        return folder, row, self._kept[folder][number]

    def finish(self, added: Added) -> dict[str, list[Kept] | msgspec.Raw]:
        """Return what is known of each folder's rows now; rows of what is gone are taken out."""
        changed = {self._rows[place][0] for place in added}
        for place, new in added.items():
            folder, _, number = self._rows[place]
            if new is not None:
                self._found.directories[folder][number] = new[0]
                self._kept[folder][number] = new[1]
        known: dict[str, list[Kept] | msgspec.Raw] = {}
        for folder, rows in self._found.directories.items():
            index = self._index
            if folder in changed or index is None or not index.has(folder, rows):
                pairs = zip(rows, self._kept[folder], strict=True)
                left = [(row, kept) for row, kept in pairs if kept is not None]
                self._found.directories[folder] = [row for row, _ in left]
                known[folder] = [kept for _, kept in left]
            else:
                known[folder] = index.raw(folder)
        return known


def _keys_of(index: StatIndex) -> list[str]:
    """Return the keys of the payload that an index was made by, in order."""
    keys: list[str] = []

    def below(folder: str) -> None:
        for row in index.rows(folder):
            path = f"{folder}/{row[0]}" if folder else row[0]
            keys.append(naming.encode(path))
            if stat.S_ISDIR(row[1]):
                below(path)

    below("")
    return keys
