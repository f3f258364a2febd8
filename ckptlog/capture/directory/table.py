"""What is remembered of directories, as bytes that are compared without being taken apart.

A blob is records, one behind the other, a directory before those that lie in it, a subtree without
a gap. Numbers are little-endian, unsigned where nothing else is said.

    record   28 bytes: size of the path (4), of the table (4), flags (4), directories of the subtree
             (4), entries below (4), place of the first of them among all entries (8);
             then the path below the root, with a NUL, and the table
    flags    1: never confirmed (what makes it up is not in the table); 2: something was left out
    table    number of names (4); for each name 40 bytes: mode, size, mtime (ns, signed), ctime (ns,
             signed), inode, 8 bytes each; then the names, each with a NUL, sorted by their bytes
    mode     0: left out by the rules; then size is 1 for a directory, else 0
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterable
from itertools import chain
from typing import Final, NamedTuple

# (name, mode, size, mtime_ns, ctime_ns, inode); of a directory the name and mode alone.
Row = tuple[str, int, int, int, int, int]
# (name, whether it is a directory) of what the rules leave out.
Left = tuple[str, bool]

_ENCODING: Final = sys.getfilesystemencoding().lower()
_ERRORS: Final = sys.getfilesystemencodeerrors()
NEVER: Final = 1
LEFT: Final = 2
_head: Final = struct.Struct("<IIIIIQ")
_count: Final = struct.Struct("<I")
_status: Final = struct.Struct("<QQqqQ")


class Record(NamedTuple):
    """One directory of a blob.

    number: Its place among the records. start, stop: Where it lies in the blob.
    flags, directories, entries, begin: As in the blob.
    table: Where the table begins.
    """

    number: int
    path: str
    flags: int
    directories: int
    entries: int
    begin: int
    start: int
    table: int
    stop: int


def encoded(rows: Iterable[Row], left: Iterable[Left]) -> bytes:
    """Return the table of a directory."""
    found = [*rows, *[(name, 0, int(is_folder), 0, 0, 0) for name, is_folder in left]]
    found.sort()
    text = "".join([row[0] + "\0" for row in found])
    try:
        names = text.encode()  # the order of code points is that of the bytes of UTF-8
        if _ENCODING != "utf-8":
            raise ValueError
    except ValueError:
        found.sort(key=lambda row: os.fsencode(row[0]))
        names = b"".join([os.fsencode(row[0]) + b"\0" for row in found])
    # One call a name costs more than all that is done with it.
    status = struct.pack("<" + "QQqqQ" * len(found), *chain.from_iterable(row[1:] for row in found))
    return b"".join([_count.pack(len(found)), status, names])


def decoded(table: bytes | memoryview) -> tuple[list[Row], list[Left]]:
    """Return the rows of a table, sorted by name, and what was left out."""
    raw = bytes(table)
    (count,) = _count.unpack_from(raw)
    names_at = _count.size + count * _status.size
    # No letter's bytes have a NUL in them: all names are decoded at once.
    names = raw[names_at:-1].decode(_ENCODING, _ERRORS).split("\0") if count else ()
    rows: list[Row] = []
    left: list[Left] = []
    for name, status in zip(names, _status.iter_unpack(raw[_count.size : names_at]), strict=True):
        if status[0]:
            rows.append((name, *status))
        else:
            left.append((name, status[1] == 1))
    rows.sort()
    return rows, left


def record(
    path: str, table: bytes, *, flags: int, directories: int, entries: int, begin: int
) -> bytes:
    """Return one record."""
    name = os.fsencode(path) + b"\0"
    return _head.pack(len(name), len(table), flags, directories, entries, begin) + name + table


def moved(blob: bytes, one: Record, by: int) -> bytes:
    """Return a record of a blob whose entries stand elsewhere now."""
    sizes = one.table - one.start - _head.size, one.stop - one.table
    head = _head.pack(*sizes, one.flags, one.directories, one.entries, one.begin + by)
    return head + blob[one.start + _head.size : one.stop]


def records(blob: bytes) -> list[Record]:
    """Return the records of a blob.

    Raises:
        ValueError: One is cut.
    """
    made: list[Record] = []
    at, end = 0, len(blob)
    unpack, size = _head.unpack_from, _head.size
    while at < end:
        if end - at < size:
            raise ValueError("a record is cut")
        path, table, flags, directories, entries, begin = unpack(blob, at)
        place = at + size + path
        stop = place + table
        if stop > end:
            raise ValueError("a record is cut")
        name = blob[at + size : place - 1].decode(_ENCODING, _ERRORS)
        made.append(Record(len(made), name, flags, directories, entries, begin, at, place, stop))
        at = stop
    return made
