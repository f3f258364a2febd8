"""What a stat index is made of: a walk, and what is known of the contents that it found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec

from ckptlog.blobs.pieces import Group
from ckptlog.capture.directory import table
from ckptlog.capture.directory.scan import Scan
from ckptlog.capture.directory.stat_index import (
    COARSE_NS,
    PREFIX_BYTES,
    SMUDGED,
    Kept,
    StatIndex,
    Whole,
    is_racy,
)
from ckptlog.capture.directory.table import LEFT, NEVER, Row

VERSION: Final = 3
_DIRECTORY: Final = 0o040000
_FORMAT: Final = 0o170000
_encode = msgspec.msgpack.Encoder().encode


@dataclass
class Draft:
    """What an index is made of, beside its walk.

    root: Digest of the capture's root.
    groups, keys: Of the entries in the payload.
    contents: By directory what is known of its rows, in their order; of the others nothing changed.
    read_ns: The clock when the walk began.
    index: Knows the contents of the others; without one the walk's base does.
    """

    root: str
    groups: list[Group]
    keys: list[str]
    read_ns: int
    contents: dict[str, list[Kept]] = field(default_factory=dict)
    index: StatIndex | None = None


def whole(found: Scan, draft: Draft, options: str) -> Whole:
    """Return the index of a capture as it stands in its file.

    Args:
        options: As text, those of the walk.
    """
    blob, kept, hashes = _Tables(found, draft).made()
    return Whole(
        VERSION,
        draft.root,
        options,
        found.conditions,
        found.is_forced,
        found.skipped,
        found.root_mode,
        msgspec.Raw(_encode(draft.groups)),
        msgspec.Raw(_encode(draft.keys)),
        blob,
        kept,
        hashes,
    )


class _Tables:
    """Puts the tables of a walk together: those of its base as they are, others anew."""

    def __init__(self, found: Scan, draft: Draft) -> None:
        self._found = found
        self._draft = draft
        self._parts: list[bytes] = []  # one, or several whose places are next to each other
        self._kept: list[msgspec.Raw] = []
        self._hashes: list[bytes] = []

    def made(self) -> tuple[bytes, list[msgspec.Raw], list[bytes]]:
        self._put("", 0)
        return b"".join(self._parts), self._kept, self._hashes

    def _put(self, folder: str, begin: int) -> tuple[int, int]:
        """Put a directory and what lies in it; return how many entries and directories it has."""
        found = self._found
        if found.base is not None and not found.is_touched(folder):
            return self._take_over(folder, begin)
        rows = found.rows(folder)
        number = len(self._parts)
        self._parts.append(b"")
        self._put_content(folder)
        entries, directories = len(rows), 1
        is_whole = True
        for at, row in enumerate(rows):
            if row[1] & _FORMAT == _DIRECTORY:
                child = f"{folder}/{row[0]}" if folder else row[0]
                if not found.has(child):
                    is_whole = False
                    continue
                below, count = self._put(child, begin + at + 1 + entries - len(rows))
                entries += below
                directories += count
        content, flags = self._table(folder, rows)
        if not is_whole or folder in found.never:
            flags |= NEVER
        self._parts[number] = table.record(
            folder,
            content,
            flags=flags,
            directories=directories,
            entries=entries,
            begin=begin,
        )
        return entries, directories

    def _table(self, folder: str, rows: list[Row]) -> tuple[bytes, int]:
        """Return the table of a directory and its flags, as they were where it was not listed."""
        base = self._found.base
        one = None if base is None else base.record(folder)
        if base is not None and one is not None and folder not in self._found.directories:
            return base.blob[one.table : one.stop], one.flags
        left = self._found.left_of(folder)
        # Nearly all are older than whatever the file system may be.
        old = self._draft.read_ns - COARSE_NS
        smudged = [row if row[4] < old else _smudged(row, self._draft.read_ns) for row in rows]
        return table.encoded(smudged, left), LEFT if left else 0

    def _put_content(self, folder: str) -> None:
        content = self._draft.contents.get(folder)
        if content is not None:
            self._kept.append(msgspec.Raw(_encode(content)))
            self._hashes.append(b"".join([one.hash[:PREFIX_BYTES] for one in content]))
            return
        base = self._draft.index or self._found.base
        one = None if base is None else base.record(folder)
        if base is None or one is None:
            raise AssertionError(f"nothing is known of {folder!r}")
        self._put_known(base, one.number, 1)

    def _put_known(self, base: StatIndex, number: int, count: int) -> None:
        kept, hashes = base.raws(number, count)
        self._kept += kept
        self._hashes += hashes

    def _take_over(self, folder: str, begin: int) -> tuple[int, int]:
        base = self._found.base
        first = None if base is None else base.record(folder)
        if base is None or first is None:
            raise AssertionError(f"{folder!r} is not in the base")
        by = begin - first.begin
        taken = base.records[first.number : first.number + first.directories]
        if by:
            self._parts += [table.moved(base.blob, one, by) for one in taken]
        else:
            self._parts.append(base.blob[first.start : taken[-1].stop])
        self._put_known(base, first.number, first.directories)
        return first.entries, first.directories


def _smudged(row: Row, read_ns: int) -> Row:
    name, mode, size, mtime_ns, ctime_ns, inode = row
    if mode & _FORMAT != _DIRECTORY and is_racy(mtime_ns, ctime_ns, read_ns):
        return name, mode, size, SMUDGED, ctime_ns, inode
    return row
