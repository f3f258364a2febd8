"""The stat index: what lay in a directory when it was captured, so that it is not read again.

A file whose name, mode, size, times and inode are those of the index has the content that the
index names. Git's "racily clean" rule closes the one hole: a file that is changed twice within one
tick of the file system's clock looks the same. So a file whose status changed (ctime, which nobody
can set) so late before it was read that another change could carry the same time is written as
`SMUDGED`: it never compares equal, and is read again next time.

The index is disposable. It is bound to the capture that it was made by, through the digest of that
capture's root: what it names is stored and retained as long as that payload is the witness. A file
that is missing, cut, of another version or made under other options is no index. A checksum tells
bits that fell over; whoever can write here can write the store, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
import xxhash

from ckptlog.blobs.tree_writer import Group
from ckptlog.capture.directory import name as naming
from ckptlog.capture.directory.scan import Options, Row, Scan
from ckptlog.storage.files import write_atomically

VERSION: Final = 1
SMUDGED: Final = -1
# A kernel's clock of files stands still for a tick, of 10 ms at most.
_TICK_NS: Final = 20_000_000
# File systems that keep whole seconds, or two of them (FAT).
_COARSE_NS: Final = 2_000_000_000
_SECOND_NS: Final = 1_000_000_000
_CHECKSUM_BYTES: Final = 16

# msgpack texts are UTF-8: a name that is not stands there behind NUL, as in a payload.
_ODD: Final = "\0"


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
    skipped: dict[str, str]
    root_mode: int
    has_odd: bool
    groups: list[Group]
    directories: list[tuple[str, list[Row], msgspec.Raw]]


_whole_decoder = msgspec.msgpack.Decoder(_Whole)
_kept_decoder = msgspec.msgpack.Decoder(list[Kept])
_encode = msgspec.msgpack.Encoder().encode


class StatIndex:
    """What one capture left behind.

    root: Digest of the captured payload's root.
    groups: The closed groups of the payload's entries, in order.
    """

    def __init__(self, whole: _Whole) -> None:
        self.root = whole.root
        self.groups = whole.groups
        self._skipped = whole.skipped
        self._root_mode = whole.root_mode
        self._rows: dict[str, list[Row]] = {}
        self._kept: dict[str, msgspec.Raw] = {}
        for path, rows, kept in whole.directories:
            self._rows[path] = rows
            self._kept[path] = kept

    def equals(self, found: Scan) -> bool:
        """Say whether a walk found exactly what was captured, nothing of it smudged."""
        return (
            self._rows == found.directories
            and self._root_mode == found.root_mode
            and self._skipped == found.skipped
        )

    def has(self, directory: str, rows: list[Row]) -> bool:
        """Say whether exactly these rows are known of a directory."""
        return self._rows.get(directory) == rows

    def rows(self, directory: str) -> list[Row]:
        """Return the rows of a directory, smudged ones too."""
        return self._rows.get(directory, [])

    def raw(self, directory: str) -> msgspec.Raw:
        """Return what is known of a directory's rows, as `save` takes it over."""
        return self._kept[directory]

    def kept(self, directory: str, rows: list[Row]) -> list[Kept | None]:
        """Return for each row of a directory what is known of it; None where it must be read."""
        if directory not in self._rows:
            return [None] * len(rows)
        kept = _kept_decoder.decode(self._kept[directory])
        stored = self._rows[directory]
        if stored == rows:
            return list(kept)
        known = dict(zip(stored, kept, strict=True))
        return [known.get(row) for row in rows]


def load(path: Path, options: Options, root: str | None) -> StatIndex | None:
    """Return the index of the capture with this root; None where there is none that is sound."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    body, checksum = raw[:-_CHECKSUM_BYTES], raw[-_CHECKSUM_BYTES:]
    if xxhash.xxh3_128_digest(body) != checksum:
        return None
    try:
        whole = _whole_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    is_ours = whole.version == VERSION and whole.options == _options_text(options)
    if not is_ours or (root is not None and whole.root != root):
        return None
    if whole.has_odd:
        _lift_names(whole)
    return StatIndex(whole)


def _lift_names(whole: _Whole) -> None:
    for number, (path, rows, kept) in enumerate(whole.directories):
        lifted = [(_lifted(row[0]), *row[1:]) for row in rows]
        whole.directories[number] = (_lifted(path), lifted, kept)


def _lifted(name: str) -> str:
    return naming.unescaped(name[1:]) if name.startswith(_ODD) else name


def save(
    path: Path,
    options: Options,
    root: str,
    found: Scan,
    kept: dict[str, list[Kept] | msgspec.Raw],
    *,
    groups: list[Group],
    read_ns: int,
) -> None:
    """Write the index of a capture.

    Args:
        root: Digest of the capture's root.
        found: Its walk.
        kept: For each directory what is known of each of its rows.
        groups: Those of the entries in the payload.
        read_ns: The clock when the walk began.

    Durability: none; it is made anew where it is lost.
    """
    directories = []
    for folder, rows in found.directories.items():
        known = kept[folder]
        if not isinstance(known, msgspec.Raw):
            known = msgspec.Raw(_encode(known))
        directories.append((folder, [_smudged(row, read_ns) for row in rows], known))
    head = (VERSION, root, _options_text(options), found.skipped, found.root_mode)
    try:
        body = _encode((*head, False, groups, directories))
    except UnicodeEncodeError:
        body = _encode((*head, True, groups, _lowered(directories)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, body + xxhash.xxh3_128_digest(body), durable=False)


_Stored = list[tuple[str, list[Row], msgspec.Raw]]


def _lowered(directories: _Stored) -> _Stored:
    return [
        (_text(path), [(_text(row[0]), *row[1:]) for row in rows], kept)
        for path, rows, kept in directories
    ]


def _smudged(row: Row, read_ns: int) -> Row:
    name, mode, size, mtime_ns, ctime_ns, inode = row
    slack = _TICK_NS if mtime_ns % _SECOND_NS or ctime_ns % _SECOND_NS else _COARSE_NS
    if ctime_ns + slack >= read_ns:
        return name, mode, size, SMUDGED, ctime_ns, inode
    return row


def _text(name: str) -> str:
    return _ODD + naming.encode(name) if naming.is_odd(name) else name


def _options_text(options: Options) -> str:
    return ascii(options)
