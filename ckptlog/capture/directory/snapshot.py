"""A directory at one moment: the walk is taken inside the barrier, files are read behind it.

Where the walk finds what the index of the previous capture says, nothing is read or hashed at all:
the previous root is the new one. Else files that are as they were are written from the index, and
only the others are read.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

import msgspec

from ckptlog.blobs.container_writer import ContainerWriter
from ckptlog.blobs.pieces import Pieces, Root, pieces_of
from ckptlog.blobs.tree_reader import Stored
from ckptlog.blobs.tree_writer import TreeWriter
from ckptlog.capture.directory import name as naming
from ckptlog.capture.directory.content import ChangedFile
from ckptlog.capture.directory.draft import Draft
from ckptlog.capture.directory.entry import FORMAT
from ckptlog.capture.directory.index_file import IndexFile
from ckptlog.capture.directory.listing import NOTHING, Added, Listing
from ckptlog.capture.directory.manifest import text_of
from ckptlog.capture.directory.reading import Reading, Tally
from ckptlog.capture.directory.scan import Options, Tracked, scan
from ckptlog.capture.directory.standing import Standing
from ckptlog.capture.directory.stat_index import Kept, StatIndex
from ckptlog.capture.directory.table import Row
from ckptlog.formats.branch import BYTES, Link, Part
from ckptlog.model.component import REREAD
from ckptlog.model.event import Reference

_encode = msgspec.json.Encoder().encode
_FORMAT: Final = 0o170000
_DIRECTORY: Final = 0o040000
_LINK: Final = 0o120000
# Directories that are listed again, and are the same; with more the index is written anew.
_LISTED_MAX: Final = 32


class DirectorySnapshot:
    """One walk of a directory, to be written.

    Args:
        root: The directory.
        index_file: The stat index; None to do without.
        ahead: What was seen before the barrier, where there is no index.
        tracked: Gives paths that are captured whatever the rules say.
        is_cut: Whether files must be of the moment of the walk (specs/capture-directory.md).

    Attributes:
        found: The walk.
        tally: What was read.
        standing: All that was captured, once it was written.

    Threads: `write` and `close` by one thread at a time.
    """

    stability = REREAD

    def __init__(
        self,
        root: str,
        options: Options,
        *,
        index_file: IndexFile | None = None,
        ahead: StatIndex | None = None,
        tracked: Tracked | None = None,
        is_cut: bool = True,
    ) -> None:
        self.root = root
        self.read_ns = time.time_ns()
        base = None if index_file is None else index_file.load()
        self.found = scan(root, options, tracked, ahead if base is None else base)
        self.tally = Tally()
        self._options = options
        self._base = base
        self._index_file = index_file
        self._is_cut = is_cut
        self.standing: Standing | None = None

    def close(self) -> None:
        """Let go; nothing is held."""

    def write(self, writer: TreeWriter, before: Stored | None) -> Root:
        """Write what the walk found; see `model.component.Snapshot`."""
        reference = None if before is None else before.reference
        index = self._base
        if index is not None and (reference is None or index.root != reference.root):
            index = None
        if index is not None and reference is not None and index.equals(self.found):
            return self._same(index, reference)
        reading = Reading(
            self.root,
            self._options,
            lambda pieces: _stored(writer, pieces),
            is_cut=self._is_cut,
            known=None if index is None else lambda content: _known(writer, index, content),
        )
        try:
            root, draft = self._write(writer, Listing(self.found, index), reading)
        finally:
            reading.close()
        self.standing = Standing(
            self.found, draft.keys, draft.groups, contents=draft.contents, index=index
        )
        self.tally = reading.tally
        if self._index_file is not None:
            self._index_file.save(self.found, draft)
        return root

    def _same(self, index: StatIndex, reference: Reference) -> Root:
        """Return the previous root: nothing changed."""
        self.standing = Standing(self.found, index.keys, index.groups, contents={}, index=index)
        # Of names that are left out, or under other conditions: the next walk is to know it.
        if self._index_file is not None and len(self.found.directories) > _LISTED_MAX:
            draft = Draft(index.root, index.groups, index.keys, self.read_ns, index=index)
            self._index_file.save(self.found, draft)
        return Root(reference)

    def _write(self, writer: TreeWriter, listing: Listing, reading: Reading) -> tuple[Root, Draft]:
        entries = writer.mapping(is_sorted=False)
        added = self._add(writer, entries, listing, reading)
        self.found.skipped.update(reading.skipped)
        top = writer.mapping(is_sorted=False)
        top.add("format", writer.value(FORMAT))
        top.add("kind", writer.value("directory"))
        top.add("mode", writer.value(self.found.root_mode))
        if self._options.has_attributes:  # a file without any has none
            top.add("attributes", writer.value(True))
        top.add("entries", entries.finish())
        top.add("skipped", writer.value(dict(sorted(self.found.skipped.items()))))
        contents = listing.finish(added)
        root = writer.root(top.finish())
        name = root.reference.root
        return root, Draft(name, entries.groups, listing.keys, self.read_ns, contents)

    def _add(
        self, writer: TreeWriter, entries: ContainerWriter, listing: Listing, reading: Reading
    ) -> Added:
        """Add every entry, whole groups where nothing changed; return what was not known."""
        new: Added = {}
        at, end = 0, len(listing.keys)
        while at < end:
            group = listing.group_at(at) if entries.is_between else None
            if group is not None and entries.keep(group):
                at += group.link.items
                continue
            folder, row, known = listing.entry(at)
            if row[1] & _FORMAT == _DIRECTORY:
                entries.add(listing.keys[at], Pieces((_directory_text(row),)))
                if known is None:
                    new[at] = row, NOTHING
            else:
                found = (row, known) if known is not None else None
                if known is None:
                    before = _before(writer, listing.before(folder, row[0]))
                    found = reading.read(folder, row, before)
                if found is not None:
                    entries.add(listing.keys[at], pieces_of(entry_parts(*found)))
                if known is None:
                    new[at] = found
            at += 1
        return new


def _known(writer: TreeWriter, index: StatIndex, content: bytes) -> Kept | None:
    """Return a content of the witness by its BLAKE3, wherever in the tree it was."""
    found = index.of_hash(content)
    return found if found is not None and writer.is_stored(found.digest) else None


def _before(writer: TreeWriter, known: Kept | None) -> Kept | None:
    """Return a file's content in the witness, made known to the writer; None where it has none."""
    if known is None or not known.digest or not writer.is_stored(known.digest):
        return None
    writer.expect(known.digest, known.size)
    return known


def _stored(writer: TreeWriter, pieces: Iterable[bytes]) -> tuple[bytes, int]:
    """Store a content, which is longer than what stands in an entry as text."""
    for part in writer.raw(pieces).parts:
        if type(part) is Link:
            return part.digest, part.size
    raise ChangedFile  # it was cut short while it was read


def _directory_text(row: Row) -> bytes:
    return b'{"type":"directory","mode":%d}' % (row[1] & 0o7777)


def entry_parts(row: Row, kept: Kept) -> list[Part]:
    """Return the text, and the link, of a file's or a link's entry."""
    if row[1] & _FORMAT == _LINK:
        target = naming.encode(kept.inline.decode("utf-8", "surrogateescape"))
        return [b'{"type":"link","mtime":%d,"target":%b}' % (row[3], _encode(target))]
    head = b'{"type":"file","mode":%d,"mtime":%d,"size":%d' % (row[1] & 0o7777, row[3], row[2])
    if kept.extents is not None:
        head += b',"extents":' + _encode(kept.extents)
    if kept.attributes:
        head += b',"attributes":' + _encode(
            {name: {"$bytes": value} for name, value in kept.attributes.items()}
        )
    if not kept.hash:
        return [head + b',"content":' + _encode(text_of(kept.inline)) + b"}"]
    head += b',"blake3":"%b","content":{"$bytes":"' % kept.hash.hex().encode()
    return [head, Link(BYTES, kept.digest, kept.size), b'"}}']
