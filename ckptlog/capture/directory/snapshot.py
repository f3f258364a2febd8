"""A directory at one moment: the walk is taken inside the barrier, files are read behind it.

Where the walk finds what the index of the previous capture says, nothing is read or hashed at all:
the previous root is the new one. Else files that are as they were are written from the index, and
only the others are read.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from ckptlog.capture.directory import name as naming
from ckptlog.capture.directory import stat_index
from ckptlog.capture.directory.entry import FORMAT
from ckptlog.capture.directory.manifest import text_of
from ckptlog.capture.directory.reading import Reading, Tally
from ckptlog.capture.directory.scan import Options, Row, scan
from ckptlog.capture.directory.stat_index import Kept, StatIndex
from ckptlog.formats.branch import BYTES, Link, Part
from ckptlog.model.component import REREAD

_encode = msgspec.json.Encoder().encode
_FORMAT: Final = 0o170000
_DIRECTORY: Final = 0o040000
_LINK: Final = 0o120000


class DirectorySnapshot:
    """One walk of a directory, to be written.

    Args:
        root: The directory.
        index_path: Where the stat index lies; None to do without.
        tracked: Paths that are captured whatever the rules say.
        is_cut: Whether files must be of the moment of the walk (specs/capture-directory.md).

    Threads: `write` and `close` by one thread at a time.
    """

    stability = REREAD

    def __init__(
        self,
        root: str,
        options: Options,
        *,
        index_path: Path | None = None,
        tracked: frozenset[str] = frozenset(),
        is_cut: bool = True,
    ) -> None:
        self.root = root
        self.read_ns = time.time_ns()
        self.found = scan(root, options, tracked)
        self.tally = Tally()
        self._options = options
        self._index_path = index_path
        self._is_cut = is_cut
        self._kept: dict[str, list[Kept]] = {}

    def close(self) -> None:
        """Let go; nothing is held."""

    def write(self, writer: Any, before: Any | None) -> Any:
        """Write what the walk found; see `model.component.Snapshot`."""
        index = self._index(before)
        if index is not None and before is not None and index.equals(self.found):
            return writer.keep(before)
        reading = Reading(
            self.root, self._options, lambda pieces: _stored(writer, pieces), is_cut=self._is_cut
        )
        try:
            root = self._write(writer, index, reading)
        finally:
            reading.close()
        self.tally = reading.tally
        self._save_index(root.reference.root)
        return root

    def _index(self, before: Any | None) -> StatIndex | None:
        if self._index_path is None or before is None:
            return None
        return stat_index.load(self._index_path, self._options, before.reference.root)

    def _write(self, writer: Any, index: StatIndex | None, reading: Reading) -> Any:
        entries = writer.mapping()
        self._add(entries, "", index, reading)
        self.found.skipped.update(reading.skipped)
        top = writer.mapping()
        top.add("format", writer.value(FORMAT))
        top.add("kind", writer.value("directory"))
        top.add("mode", writer.value(self.found.root_mode))
        top.add("entries", entries.finish())
        top.add("skipped", writer.value(dict(sorted(self.found.skipped.items()))))
        return writer.root(top.finish())

    def _add(self, entries: Any, directory: str, index: StatIndex | None, reading: Reading) -> None:
        """Add what lies in a directory, and below it."""
        rows = self.found.directories.get(directory, [])
        known = index.kept(directory, rows) if index is not None else [None] * len(rows)
        added: list[Row] = []
        kept: list[Kept] = []
        for row, old in zip(rows, known, strict=True):
            path = f"{directory}/{row[0]}" if directory else row[0]
            if row[1] & _FORMAT == _DIRECTORY:
                entries.add(naming.encode(path), _directory_pieces(row))
                added.append(row)
                kept.append(_NOTHING)
                self._add(entries, path, index, reading)
                continue
            new = (row, old) if old is not None else reading.read(directory, row)
            if new is not None:
                entries.add(naming.encode(path), entry_pieces(*new))
                added.append(new[0])
                kept.append(new[1])
        self.found.directories[directory] = added
        self._kept[directory] = kept

    def _save_index(self, root: str) -> None:
        if self._index_path is not None:
            stat_index.save(
                self._index_path, self._options, root, self.found, self._kept, self.read_ns
            )


_NOTHING: Final = Kept()


def _stored(writer: Any, pieces: Iterable[bytes]) -> tuple[bytes, int]:
    link = writer.raw(pieces)
    return link.digest, link.size


def _directory_pieces(row: Row) -> list[Part]:
    return [b'{"type":"directory","mode":%d}' % (row[1] & 0o7777)]


def entry_pieces(row: Row, kept: Kept) -> list[Part]:
    """Return the text, and the link, of a file's or a link's entry."""
    if row[1] & _FORMAT == _LINK:
        target = naming.encode(kept.inline.decode("utf-8", "surrogateescape"))
        return [b'{"type":"link","mtime":%d,"target":%b}' % (row[3], _encode(target))]
    head = b'{"type":"file","mode":%d,"mtime":%d,"size":%d' % (row[1] & 0o7777, row[3], row[2])
    if kept.extents is not None:
        head += b',"extents":' + _encode(kept.extents)
    if kept.attributes:
        head += b',"attributes":' + _encode(
            {naming.encode(name): {"$bytes": value} for name, value in kept.attributes.items()}
        )
    if not kept.hash:
        return [head + b',"content":' + _encode(text_of(kept.inline)) + b"}"]
    head += b',"blake3":"%b","content":{"$bytes":"' % kept.hash.hex().encode()
    return [head, Link(BYTES, kept.digest, kept.size), b'"}}']


