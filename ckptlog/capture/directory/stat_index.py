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

import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import xxhash

from ckptlog.blobs.pieces import Group
from ckptlog.capture.directory import table
from ckptlog.capture.directory.table import LEFT, NEVER, Left, Record, Row
from ckptlog.errors import CheckpointStorageError
from ckptlog.storage.files import write_atomically

if TYPE_CHECKING:
    from ckptlog.capture.directory.scan import Options, Scan

VERSION: Final = 3
# No file system has this time.
SMUDGED: Final = -(1 << 63)
# A kernel's clock of files stands still for a tick, of 10 ms at most.
_TICK_NS: Final = 20_000_000
# File systems that keep whole seconds, or two of them (FAT).
_COARSE_NS: Final = 2_000_000_000
_SECOND_NS: Final = 1_000_000_000
_CHECKSUM_BYTES: Final = 16
_DIRECTORY: Final = 0o040000
_FORMAT: Final = 0o170000
# Of a content's BLAKE3: enough to know nearly all that are not there.
_PREFIX_BYTES: Final = 8


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


class _Whole(msgspec.Struct, array_like=True):
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


_whole_decoder = msgspec.msgpack.Decoder(_Whole)
_kept_decoder = msgspec.msgpack.Decoder(list[Kept])
_groups_decoder = msgspec.msgpack.Decoder(list[Group])
_keys_decoder = msgspec.msgpack.Decoder(list[str])
_encode = msgspec.msgpack.Encoder().encode


class StatIndex:
    """What one capture left behind.

    Attributes:
        root: Digest of the captured payload's root.
        conditions, is_forced: Those of its walk.
        blob: The tables.

    Threads: safe, once it is made; what is decoded twice is the same.
    """

    def __init__(self, whole: _Whole) -> None:
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
        if int.from_bytes(content[:_PREFIX_BYTES], sys.byteorder) not in self._prefixes:
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


class IndexFile:
    """Where the index of one component lies; what was read last is kept while the file stays.

    Threads: safe; two at once may both read it.
    """

    def __init__(self, path: Path, options: Options) -> None:
        self.path = path
        self._options = options
        self._last: tuple[tuple[int, int, int], StatIndex | None] | None = None

    def load(self) -> StatIndex | None:
        """Return the index; None where there is none that is sound."""
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        # A new index is always a new file.
        status = found.st_ino, found.st_mtime_ns, found.st_size
        last = self._last
        if last is None or last[0] != status:
            last = self._last = status, load(self.path, self._options)
        return last[1]

    def save(self, found: Scan, draft: Draft) -> None:
        """Write the index of a capture; see `save`. One that cannot be written is none."""
        with suppress(OSError, CheckpointStorageError):
            save(self.path, self._options, found, draft)


def load(path: Path, options: Options, root: str | None = None) -> StatIndex | None:
    """Return the index of the capture with this root; None where there is none that is sound.

    Args:
        root: None for whatever capture it is of.
    """
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    body, checksum = memoryview(raw)[:-_CHECKSUM_BYTES], raw[-_CHECKSUM_BYTES:]
    if xxhash.xxh3_128_digest(body) != checksum:
        return None
    try:
        whole = _whole_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    is_ours = whole.version == VERSION and whole.options == _options_text(options)
    if not is_ours or (root is not None and whole.root != root):
        return None
    index = StatIndex(whole)
    try:
        counts = {len(index.records), len(whole.kept), len(whole.hashes)}
        is_sound = index.record("") is not None and len(counts) == 1
        is_sound = is_sound and not any(len(one) % _PREFIX_BYTES for one in whole.hashes)
    except ValueError:
        is_sound = False
    return index if is_sound else None


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


def save(path: Path, options: Options, found: Scan, draft: Draft) -> None:
    """Write the index of a capture.

    Durability: none; it is made anew where it is lost.
    """
    blob, kept, hashes = _Tables(found, draft).made()
    head = (VERSION, draft.root, _options_text(options), found.conditions, found.is_forced)
    rest = (found.skipped, found.root_mode, draft.groups, draft.keys, blob, kept, hashes)
    body = _encode((*head, *rest))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, body + xxhash.xxh3_128_digest(body), durable=False)


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
        old = self._draft.read_ns - _COARSE_NS
        smudged = [row if row[4] < old else _smudged(row, self._draft.read_ns) for row in rows]
        return table.encoded(smudged, left), LEFT if left else 0

    def _put_content(self, folder: str) -> None:
        content = self._draft.contents.get(folder)
        if content is not None:
            self._kept.append(msgspec.Raw(_encode(content)))
            self._hashes.append(b"".join([one.hash[:_PREFIX_BYTES] for one in content]))
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


def is_racy(mtime_ns: int, ctime_ns: int, read_ns: int) -> bool:
    """Say whether a file may have been changed behind its reading, and look the same."""
    slack = _TICK_NS if mtime_ns % _SECOND_NS or ctime_ns % _SECOND_NS else _COARSE_NS
    return ctime_ns + slack >= read_ns


def _options_text(options: Options) -> str:
    return ascii(options)
