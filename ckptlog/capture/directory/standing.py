"""What a directory was when it was captured: each entry by its place, with its row and content.

And the comparison of another capture with it (`Difference`). Two captures of one directory have
most of their entries in common, whole groups of them (specs/capture-tree.md): a group of the other
capture whose digest is one of this one's holds the same entries, so it is neither read nor decoded.
Nothing is done about an entry that both have, as what is there is what was captured a moment ago.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

from ckptlog.blobs.pieces import Group
from ckptlog.blobs.tree_reader import Stored
from ckptlog.capture.directory import name as naming
from ckptlog.capture.directory.ignore import RULE_FILES
from ckptlog.capture.directory.manifest import Manifest, Shared, joined, linked
from ckptlog.capture.directory.scan import Scan
from ckptlog.capture.directory.stat_index import Kept, StatIndex
from ckptlog.capture.directory.table import Row


class Standing:
    """The entries of a capture that was just taken, or of the newest one.

    Args:
        found: The walk.
        keys, groups: Of the payload's entries.
        contents: By directory what its rows hold; of the others the index knows.

    Threads: not safe.        Cost: a directory is decoded when it is asked for.
    """

    def __init__(
        self,
        found: Scan,
        keys: Sequence[str],
        groups: Sequence[Group],
        *,
        contents: Mapping[str, list[Kept]],
        index: StatIndex | None,
    ) -> None:
        self.found = found
        self.keys = keys
        self._groups = groups
        self._contents = contents
        self._index = index
        self._known: dict[str, dict[str, tuple[Row, Kept]]] = {}

    @classmethod
    def of_index(cls, index: StatIndex) -> Standing:
        """Return what an index remembers, as if it were there still."""
        found = Scan(base=index)
        return cls(found, index.keys, index.groups, contents={}, index=index)

    def entry(self, path: str) -> tuple[Row, Kept] | None:
        """Return what a path is, and holds; None where it is not there."""
        folder, _, name = path.rpartition("/")
        known = self._known.get(folder)
        if known is None:
            known = self._known[folder] = self._directory(folder)
        return known.get(name)

    def _directory(self, folder: str) -> dict[str, tuple[Row, Kept]]:
        contents = self._contents.get(folder)
        if contents is not None:
            rows = self.found.rows(folder)
            return {row[0]: (row, kept) for row, kept in zip(rows, contents, strict=True)}
        return {} if self._index is None else self._index.known(folder)

    @cached_property
    def groups(self) -> dict[bytes, range]:
        """The places of each closed group's entries, by its digest."""
        found = {}
        at = 0
        for group in self._groups:
            found[group.link.digest] = range(at, at + group.link.items)
            at += group.link.items
        return found


class Difference:
    """Another capture, beside what stands.

    Attributes:
        manifest: Its entries, but those of the groups that both have.
        there: Paths of what stands that is in no group of both, with their rows; as they are
            ordered in the payload.

    Raises: As `manifest.load`.
    """

    def __init__(self, stored: Stored, standing: Standing) -> None:
        self._standing = standing
        self._read = stored.read
        shared = Shared(standing.groups.keys(), self._is_directory)
        self._own: set[str] = set()
        self.manifest = Manifest.of(stored, shared, self._begin)
        found = [(path, standing.entry(path)) for path in self._paths]
        self._there = {path: one for path, one in found if one is not None}
        self.there: dict[str, Row] = {path: one[0] for path, one in self._there.items()}

    def _begin(self, met: set[bytes]) -> None:
        """Take note of the groups that both have; comes before any entry is checked."""
        keys = self._standing.keys
        places = bytearray(len(keys))
        for digest in met:
            both = self._standing.groups[digest]
            places[both.start : both.stop] = b"\1" * len(both)
        self._places = places
        self._paths = [
            naming.unescaped(key)
            for key, is_shared in zip(keys, places, strict=True)
            if not is_shared
        ]
        self._own = set(self._paths)

    def _is_directory(self, path: str) -> bool:
        """Say whether a path is a directory in both."""
        one = self._standing.entry(path) if path not in self._own else None
        return one is not None and stat.S_ISDIR(one[0][1])

    def has(self, path: str) -> bool:
        """Say whether a path is in the capture, or stands."""
        return path in self.manifest.entries or self._standing.entry(path) is not None

    def known(self, path: str, row: Row) -> Kept | None:
        """Return what a path that stands holds."""
        one = self._there.get(path)
        return None if one is None or one[0] != row else one[1]

    def shared_paths(self) -> Iterator[str]:
        """Yield the paths that both have."""
        for key, is_shared in zip(self._standing.keys, self._places, strict=True):
            if is_shared:
                yield naming.unescaped(key)

    def rule_files(self) -> dict[str, bytes]:
        """Return the files of rules that the capture has, by path."""
        found = self.manifest.rule_files()
        for path in self.shared_paths():
            if path.endswith(RULE_FILES) and path.rpartition("/")[2] in RULE_FILES:
                one = self._standing.entry(path)
                if one is not None and stat.S_ISREG(one[0][1]):
                    found[path] = _content(one[0], one[1], self._read)
        return found


def _content(row: Row, kept: Kept, read: Callable[[bytes, int], bytes]) -> bytes:
    data = b"".join(linked(kept.digest, kept.size, read)) if kept.hash else kept.inline
    return joined(data, kept.extents, row[2])
