"""The stat index: what lay in a directory when it was captured, so that it is not read again.

A file whose name, mode, size, times and inode are those of the index has the content that the
index names. Git's "racily clean" rule closes the one hole: a file that is changed twice within one
tick of the file system's clock looks the same. So a file whose status changed (ctime, which nobody
can set) so late before it was read that another change could carry the same time is written as
`SMUDGED`: it never compares equal, and is read again next time.

Names, modes, sizes, times and inodes stand as tables (`table`), which a walk compares without
taking them apart; what is known of contents, and the keys of the payload, are decoded when they are
asked for. A walk takes over only what was walked under the same conditions: the same options,
stores, and rules (`conditions`), and where no path was taken against the rules.

The index is disposable. It is bound to the capture that it was made by, through the digest of that
capture's root: what it names is stored and retained as long as that payload is the witness. A file
that is missing, cut, of another version or made under other options is no index. A checksum tells
bits that fell over; whoever can write here can write the store, too.
"""

from __future__ import annotations

import sys
from functools import cached_property
from typing import TYPE_CHECKING, Final

import msgspec

from ckptlog.blobs.pieces import Group
from ckptlog.capture.directory import table
from ckptlog.capture.directory.table import LEFT, Left, Record, Row

if TYPE_CHECKING:
    from ckptlog.capture.directory.scan import Scan

# No file system has this time.
SMUDGED: Final = -(1 << 63)
# A kernel's clock of files stands still for a tick, of 10 ms at most.
_TICK_NS: Final = 20_000_000
# File systems that keep whole seconds, or two of them (FAT).
COARSE_NS: Final = 2_000_000_000
_SECOND_NS: Final = 1_000_000_000
# Of a content's BLAKE3: enough to know nearly all that are not there.
PREFIX_BYTES: Final = 8


class Kept(msgspec.Struct, array_like=True, gc=False, omit_defaults=True):
    """What is known of the content of one file or link, as it stands in the payload.

    inline: A short content itself; a link's target as the operating system has it.
    hash: BLAKE3 of a longer content; else empty.
    digest, size: Of the chunks that hold a longer content, where it is stored.
    extents, attributes: As in an entry.
    """

    inline: bytes = b""
    hash: bytes = b""
    digest: bytes = b""
    size: int = 0
    extents: list[tuple[int, int]] | None = None
    attributes: dict[str, bytes] | None = None


class Whole(msgspec.Struct, array_like=True):
    """An index as it stands in its file."""

    version: int
    root: str
    options: str
    conditions: str
    is_forced: bool
    skipped: dict[str, str]
    root_mode: int
    groups: msgspec.Raw
    keys: msgspec.Raw
    blob: bytes
    kept: list[msgspec.Raw]
    hashes: list[bytes]


_kept_decoder = msgspec.msgpack.Decoder(list[Kept])
_groups_decoder = msgspec.msgpack.Decoder(list[Group])
_keys_decoder = msgspec.msgpack.Decoder(list[str])


class StatIndex:
    """What one capture left behind.

    Attributes:
        root: Digest of the captured payload's root.
        conditions, is_forced: Those of its walk.
        blob: The tables.

    Threads: safe, once it is made; what is decoded twice is the same.
    """

    def __init__(self, whole: Whole) -> None:
        self.root = whole.root
        self.conditions = whole.conditions
        self.is_forced = whole.is_forced
        self.skipped = whole.skipped
        self.root_mode = whole.root_mode
        self.blob = whole.blob
        self._groups = whole.groups
        self._keys = whole.keys
        self._kept = whole.kept
        self._hashes = whole.hashes
        self._decoded: dict[str, tuple[list[Row], list[Left]]] = {}
        self._by_name: dict[str, dict[str, tuple[Row, Kept]]] = {}

    @property
    def is_sound(self) -> bool:
        """Whether its parts go together."""
        try:
            counts = {len(self.records), len(self._kept), len(self._hashes)}
        except ValueError:
            return False
        is_whole = not any(len(one) % PREFIX_BYTES for one in self._hashes)
        return is_whole and len(counts) == 1 and self.record("") is not None

    @cached_property
    def groups(self) -> list[Group]:
        """The closed groups of the payload's entries, in order."""
        return _groups_decoder.decode(self._groups)

    @cached_property
    def keys(self) -> list[str]:
        """The keys of the payload's entries, in order."""
        return _keys_decoder.decode(self._keys)

    @cached_property
    def records(self) -> list[Record]:
        """The directories, each before those that lie in it."""
        return table.records(self.blob)

    @cached_property
    def _by_path(self) -> dict[str, Record]:
        return {one.path: one for one in self.records}

    def record(self, folder: str) -> Record | None:
        """Return what stands of a directory; None where it is not known."""
        return self._by_path.get(folder)

    def rows(self, folder: str) -> list[Row]:
        """Return the rows of a directory, smudged ones too."""
        return self._table(folder)[0]

    @cached_property
    def folders_with_left(self) -> list[str]:
        """Return the directories out of which the rules left something."""
        return [one.path for one in self.records if one.flags & LEFT]

    def left(self, folder: str) -> list[Left]:
        """Return what the rules left out of a directory."""
        return self._table(folder)[1]

    def _table(self, folder: str) -> tuple[list[Row], list[Left]]:
        found = self._decoded.get(folder)
        if found is None:
            one = self._by_path.get(folder)
            found = ([], []) if one is None else table.decoded(self.blob[one.table : one.stop])
            self._decoded[folder] = found
        return found

    def equals(self, found: Scan) -> bool:
        """Say whether a walk found exactly what was captured, nothing of it smudged."""
        if found.base is not self and len(found.directories) != len(self.records):
            return False
        if self.root_mode != found.root_mode or self.skipped != found.skipped:
            return False
        if any(self.record(folder) and not found.has(folder) for folder in found.never):
            return False
        return all(
            self.record(folder) is not None and self.rows(folder) == rows
            for folder, rows in found.directories.items()
        )

    def of_hash(self, content: bytes) -> Kept | None:
        """Return what is known of a longer content with a BLAKE3, wherever it lies."""
        if int.from_bytes(content[:PREFIX_BYTES], sys.byteorder) not in self._prefixes:
            return None
        return self._by_hash.get(content)

    @cached_property
    def _prefixes(self) -> frozenset[int]:
        return frozenset(memoryview(b"".join(self._hashes)).cast("Q"))

    @cached_property
    def _by_hash(self) -> dict[bytes, Kept]:
        decode = _kept_decoder.decode
        return {one.hash: one for raw in self._kept for one in decode(raw) if one.hash}

    def raws(self, number: int, count: int) -> tuple[list[msgspec.Raw], list[bytes]]:
        """Return what is known of the rows of directories that follow one another.

        Returns:
            For each of them its contents, and the beginnings of their hashes.
        """
        return self._kept[number : number + count], self._hashes[number : number + count]

    def known(self, folder: str) -> dict[str, tuple[Row, Kept]]:
        """Return by name the rows of a directory, smudged ones too, and what they held."""
        found = self._by_name.get(folder)
        if found is None:
            one = self.record(folder)
            kept = [] if one is None else _kept_decoder.decode(self._kept[one.number])
            pairs = zip(self.rows(folder), kept, strict=True)
            found = self._by_name[folder] = {pair[0][0]: pair for pair in pairs}
        return found

    def kept(self, folder: str, rows: list[Row]) -> list[Kept | None]:
        """Return for each row of a directory what is known of it; None where it must be read."""
        known = self.known(folder)
        none = None, None
        found = [(row, known.get(row[0], none)) for row in rows]
        return [kept if row == old else None for row, (old, kept) in found]


def is_racy(mtime_ns: int, ctime_ns: int, read_ns: int) -> bool:
    """Say whether a file may have been changed behind its reading, and look the same."""
    slack = _TICK_NS if mtime_ns % _SECOND_NS or ctime_ns % _SECOND_NS else COARSE_NS
    return ctime_ns + slack >= read_ns
