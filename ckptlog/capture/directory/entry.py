"""One path of a captured directory, as it stands in the payload (specs/capture-directory.md).

An entry is a dict: `type` ("directory", "file" or "link"), then what that type has. A content of
at most `INLINE_BYTES_MAX` stands in the entry as text, or as bytes where it is no UTF-8; a longer
one is linked, with its BLAKE3 beside it, so that a file on disk is compared with a capture without
reading what is stored. A sparse file holds its stretches of data, one behind the other, and where
each begins (`extents`).

Entries come from disk: every field is checked before it is used.
"""

from __future__ import annotations

import base64
import errno
import os
from typing import Final, Literal

import msgspec

from ckptlog.capture.directory import name as naming
from ckptlog.errors import FormatError

INLINE_BYTES_MAX: Final = 512
FORMAT: Final = 1
_MODE_MAX: Final = 0o7777
_NS_BOUND: Final = 1 << 63
_USER: Final = "user."
_UNSUPPORTED: Final = frozenset((errno.ENOTSUP, errno.EOPNOTSUPP))


class Content(msgspec.Struct, frozen=True, rename={"raw": "$bytes"}, forbid_unknown_fields=True):
    """Bytes in an entry: base64, or where they are linked the number of the link."""

    raw: str


class Entry(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """What one path is.

    mode: Permission bits, setuid, setgid and sticky bit; not of links.
    mtime: Nanoseconds since 1970; of files and links.
    size: Of a file, bytes.
    blake3: Of a linked content, in hexadecimal.
    extents: Of a sparse file: offset and length of each stretch of data, in order.
    attributes: `user.*` extended attributes; None where those that are there are left alone.
    target: Of a link, with bytes that are not UTF-8 as in paths.
    """

    type: Literal["directory", "file", "link"]
    mode: int = 0
    mtime: int = 0
    size: int = 0
    blake3: str = ""
    extents: list[tuple[int, int]] | None = None
    attributes: dict[str, Content] | None = None
    target: str = ""
    content: str | Content = ""

    def inline(self) -> bytes:
        """Return the content that stands in the entry itself."""
        if isinstance(self.content, str):
            return self.content.encode()
        return base64.b64decode(self.content.raw)

    def attribute_bytes(self) -> dict[str, bytes]:
        """Return the attributes with their values."""
        found = self.attributes or {}
        return {
            naming.unescaped(name): base64.b64decode(value.raw) for name, value in found.items()
        }

    def link_target(self) -> str:
        """Return where a link leads, as the operating system takes it."""
        return target_from(self.target)


def checked(path: str, entry: Entry) -> Entry:
    """Return an entry whose fields a capture could have written.

    Raises:
        FormatError: One is not so.
    """
    fault = _fault(entry)
    if fault:
        raise FormatError(
            f"The entry of {naming.shown(path)!r} in a directory's payload {fault}.",
            hint="Nothing was changed. `ckptlog verify` checks the store.",
            path=naming.shown(path),
        )
    return entry


def _fault(entry: Entry) -> str:
    if not 0 <= entry.mode <= _MODE_MAX:
        return f"has the mode {entry.mode}"
    if not -_NS_BOUND <= entry.mtime < _NS_BOUND or not 0 <= entry.size < _NS_BOUND:
        return "has a time or a size out of range"
    if entry.type == "link" and (not entry.target or "\0" in entry.target):
        return "is a link to nothing"
    if entry.type != "file":
        return "has content" if entry.content or entry.size or entry.extents else ""
    if any(not name.startswith(_USER) or "\0" in name for name in entry.attributes or ()):
        return "has attributes that are not the user's"
    return _extents_fault(entry)


def _extents_fault(entry: Entry) -> str:
    end = 0
    for offset, length in entry.extents or ():
        if offset < end or length < 1:
            return "has stretches of data that are not in order"
        end = offset + length
    return "has data behind its end" if end > entry.size else ""


def target_from(text: str) -> str:
    """Return the target that a text of a payload names."""
    return naming.unescaped(text)


def attributes_of(place: int | str) -> dict[str, bytes]:
    """Return the `user.*` extended attributes of an open file, by name.

    Raises:
        OSError: They cannot be read. Where the file system has no attributes there are none.
    """
    if not hasattr(os, "listxattr"):  # pragma: no cover - not on this system
        return {}
    try:
        names = sorted(name for name in os.listxattr(place) if name.startswith(_USER))
        found = [(name, attribute_of(place, name)) for name in names]
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return {}
    return {name: value for name, value in found if value is not None}


def attribute_of(place: int | str, name: str) -> bytes | None:
    """Return an extended attribute; None where there is none (any more).

    Raises:
        OSError: It cannot be read.
    """
    try:
        return os.getxattr(place, name)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        return None
