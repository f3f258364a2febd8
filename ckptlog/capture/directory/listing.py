"""All entries of a walk in the payload's order, beside what the stat index knows of them.

What the walk took over from its base is taken over here as well, a subtree at a time: of a tree in
which little changed, only the directories that were listed again are gone through name by name.
A closed group of the previous payload is taken over whole where each of its entries stands in the
new order as it stood in the old one, and is known.
"""

from __future__ import annotations

import stat
from bisect import bisect_left
from functools import cached_property
from typing import Final

from ckptlog.blobs.pieces import Group
from ckptlog.capture.directory import name as naming
from ckptlog.capture.directory.scan import Scan
from ckptlog.capture.directory.stat_index import Kept, StatIndex
from ckptlog.capture.directory.table import Row

NOTHING: Final = Kept()
# What was not known, by place: the row and content as they were read; None where it is gone.
Added = dict[int, tuple[Row, Kept] | None]


class Listing:
    """The entries of a walk.

    Args:
        index: Of the witness; None where nothing is known of contents.

    Attributes:
        keys: Their keys in the payload, in its order.

    Threads: not safe.        Cost: some microseconds an entry of what was listed.
    """

    def __init__(self, found: Scan, index: StatIndex | None) -> None:
        self.keys: list[str] = []
        self._found = found
        self._index = index
        self._unknown: list[int] = []
        self._known: dict[str, dict[str, tuple[Row, Kept]]] = {}
        self._rows: dict[str, dict[str, Row]] = {}
        self._list("")

    def _list(self, folder: str) -> None:
        base = self._found.base
        one = None if base is None or self._found.is_touched(folder) else base.record(folder)
        if base is not None and one is not None:
            begin = len(self.keys)
            self.keys += base.keys[one.begin : one.begin + one.entries]
            if base is not self._index:
                self._unknown += range(begin, len(self.keys))
            return
        rows = self._found.rows(folder)
        if self._has_same_names(folder, rows):
            self._list_again(folder, rows)
            return
        known = self._known_in(folder)
        for row in rows:
            path = f"{folder}/{row[0]}" if folder else row[0]
            old = known.get(row[0])
            if old is None or old[0] != row:
                self._unknown.append(len(self.keys))
            self.keys.append(naming.encode(path))
            if stat.S_ISDIR(row[1]) and self._found.has(path):
                self._list(path)

    def _has_same_names(self, folder: str, rows: list[Row]) -> bool:
        """Say whether the index has the very names of a folder, in which only files changed."""
        index = self._index
        if index is None or index.record(folder) is None:
            return False
        before = index.rows(folder)
        return rows is before or [row[0] for row in rows] == [row[0] for row in before]

    def _list_again(self, folder: str, rows: list[Row]) -> None:
        """List a folder whose names have the keys that they had."""
        index = self._index
        one = None if index is None else index.record(folder)
        if index is None or one is None:
            raise AssertionError(f"{folder!r} is not in the index")
        keys, at = index.keys, one.begin
        for row, old in zip(rows, index.rows(folder), strict=True):
            if old != row:
                self._unknown.append(len(self.keys))
            self.keys.append(keys[at])
            at += 1
            if stat.S_ISDIR(row[1]) or stat.S_ISDIR(old[1]):
                path = f"{folder}/{row[0]}" if folder else row[0]
                if stat.S_ISDIR(row[1]) and self._found.has(path):
                    self._list(path)
                below = index.record(path) if stat.S_ISDIR(old[1]) else None
                at += 0 if below is None else below.entries

    def _known_in(self, folder: str) -> dict[str, tuple[Row, Kept]]:
        """Return what the index knows of a directory, by name."""
        known = self._known.get(folder)
        if known is None:
            known = {} if self._index is None else self._index.known(folder)
            self._known[folder] = known
        return known

    @cached_property
    def _groups(self) -> dict[str, tuple[Group, int]]:
        """The old groups by the key of the first item, with the places where they began."""
        found: dict[str, tuple[Group, int]] = {}
        at = 0
        for group in () if self._index is None else self._index.groups:
            found[group.first] = group, at
            at += group.link.items
        return found

    def group_at(self, place: int) -> Group | None:
        """Return the old group that begins here, if nothing in it changed."""
        found = self._groups.get(self.keys[place])
        if found is None or self._index is None:
            return None
        group, old = found
        count = group.link.items
        end = place + count
        next_unknown = bisect_left(self._unknown, place)
        if next_unknown < len(self._unknown) and self._unknown[next_unknown] < end:
            return None
        return group if self.keys[place:end] == self._index.keys[old : old + count] else None

    def entry(self, place: int) -> tuple[str, Row, Kept | None]:
        """Return the folder, the row, and what is known of an entry."""
        folder, name = self._place(place)
        old = self._known_in(folder).get(name)
        is_taken = self._found.base is self._index and folder not in self._found.directories
        if old is not None and is_taken:
            return folder, *old
        row = self._row(folder, name)
        return folder, row, old[1] if old is not None and old[0] == row else None

    def before(self, folder: str, name: str) -> Kept | None:
        """Return what a name held when the index was made, whatever has become of it."""
        old = self._known_in(folder).get(name)
        return None if old is None else old[1]

    def _place(self, place: int) -> tuple[str, str]:
        folder, _, name = naming.unescaped(self.keys[place]).rpartition("/")
        return folder, name

    def _row(self, folder: str, name: str) -> Row:
        rows = self._rows.get(folder)
        if rows is None:
            rows = self._rows[folder] = {row[0]: row for row in self._found.rows(folder)}
        return rows[name]

    def finish(self, added: Added) -> dict[str, list[Kept]]:
        """Return what is known now of each folder that was listed, or read in.

        Rows of what is gone are taken out of the walk, and of the keys.
        """
        new: dict[str, dict[str, tuple[Row, Kept] | None]] = {}
        for place, one in added.items():
            folder, name = self._place(place)
            new.setdefault(folder, {})[name] = one
        contents = {}
        for folder in {*self._found.directories, *new}:
            contents[folder] = self._finish_one(folder, new.get(folder, {}))
        gone = {place for place, one in added.items() if one is None}
        if gone:
            self.keys = [key for place, key in enumerate(self.keys) if place not in gone]
        return contents

    def _finish_one(self, folder: str, new: dict[str, tuple[Row, Kept] | None]) -> list[Kept]:
        known = self._known_in(folder)
        pairs = []
        for row in self._found.rows(folder):
            pair = new[row[0]] if row[0] in new else known.get(row[0], (row, NOTHING))
            if pair is not None:
                pairs.append(pair)
        self._found.left.setdefault(folder, self._found.left_of(folder))
        self._found.directories[folder] = [row for row, _ in pairs]
        self._found.touch(folder)
        return [kept for _, kept in pairs]
