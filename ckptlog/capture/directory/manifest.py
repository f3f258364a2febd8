"""Reads the payload of a captured directory: its entries at once, contents when they are asked for.

The entries of twenty thousand files are some 3 MB of text in a few hundred chunks; contents are
linked from it. The text is put together with a number in place of each link, decoded in one go,
and every path and field checked before anything is done with them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Sequence
from typing import Final, Literal, NamedTuple

import msgspec
from blake3 import blake3

from ckptlog.blobs.payload import Read, unfolded
from ckptlog.blobs.tree_reader import Stored
from ckptlog.capture.directory import name as naming
from ckptlog.capture.directory.entry import FORMAT, Content, Entry, checked
from ckptlog.capture.directory.ignore import RULE_FILES
from ckptlog.capture.directory.prefetch import PREFETCHED_BYTES_MIN, prefetched
from ckptlog.capture.directory.scan import SPECIAL
from ckptlog.errors import BlobCorruptionError, FormatError
from ckptlog.formats.branch import BYTES, Link, Part

# Of the text without contents; some two million files.
TEXT_BYTES_MAX: Final = 512 << 20
_MARK: Final = "#"
_HEAD: Final = b'{"$bytes":"'
_TAIL: Final = b'"}'


class _Wire(msgspec.Struct):
    format: int
    kind: Literal["directory"]
    mode: int
    entries: dict[str, Entry]
    skipped: dict[str, str] = msgspec.field(default_factory=dict)
    rules: list[str] = msgspec.field(default_factory=list)
    attributes: bool = False


_decoder = msgspec.json.Decoder(_Wire)


class Shared(NamedTuple):
    """What another payload has. groups: Digests of closed groups of its entries.

    is_directory: Says whether a path in one of these groups is a directory.
    """

    groups: Container[bytes]
    is_directory: Callable[[str], bool]


class Manifest:
    """A captured directory.

    mode: Of the root itself.
    entries: By path, a directory before its content.
    skipped: Path (as text) to the reason why it was not captured.
    unread: Those of them that may hold something: files and directories that nobody could read.
    has_attributes: Whether a file without any had none; else nobody looked.

    Threads: safe to read, once `tell_attributes` returned.
    """

    def __init__(
        self, wire: _Wire, links: list[Link], read: Read, is_directory: Callable[[str], bool]
    ) -> None:
        self.mode = wire.mode
        self.skipped = wire.skipped
        self.unread = frozenset(
            naming.decode(text) for text, reason in wire.skipped.items() if reason not in SPECIAL
        )
        self.has_attributes = wire.attributes
        self.entries: dict[str, Entry] = {}
        self._links = links
        self._read = read
        for text, entry in wire.entries.items():
            path = naming.decode(text)
            self.entries[path] = self._checked(path, entry)
        _check_shape(self.entries, is_directory)

    @classmethod
    def of(cls, stored: Stored, shared: Shared, begin: Callable[[set[bytes]], None]) -> Manifest:
        """Return what a payload says, without the groups that are shared with another.

        Args:
            begin: Gets the digests of those that were met, before entries are checked.

        Raises: As `load`.
        """
        links: list[Link] = []
        met: set[bytes] = set()
        wire = _wire(_text(stored, links, shared, met))
        begin(met)
        return cls(wire, links, stored.read, shared.is_directory)

    def tell_attributes(self) -> None:
        """Say of each file that had no attributes that it is to have none."""
        if self.has_attributes:
            for entry in self.entries.values():
                if entry.type == "file" and entry.attributes is None:
                    entry.attributes = {}

    def _checked(self, path: str, entry: Entry) -> Entry:
        checked(path, entry)
        content = entry.content
        if isinstance(content, str):
            is_sound = entry.type != "file" or bool(entry.blake3) or _size(entry) == _bytes(content)
        elif content.raw.startswith(_MARK):
            is_sound = self._has_link(content.raw) and bool(entry.blake3)
        else:
            is_sound = _is_base64(content.raw)
        if not is_sound or not all(
            _is_base64(one.raw) for one in (entry.attributes or {}).values()
        ):
            raise FormatError(
                f"The entry of {naming.shown(path)!r} of a captured directory has no content.",
                hint="Nothing was changed. `ckptlog verify` checks the store.",
                path=naming.shown(path),
            )
        return entry

    def _has_link(self, mark: str) -> bool:
        number = mark[1:19]
        return number.isascii() and number.isdigit() and int(number) < len(self._links)

    def content(self, entry: Entry) -> Generator[bytes]:
        """Yield a file's data, piece by piece; of a sparse file its stretches only.

        Raises:
            BlobCorruptionError: It is not what was captured. Pieces may have been given out.
        """
        expected = _size(entry)
        hasher, size = blake3(), 0
        for piece in self._pieces(entry):
            hasher.update(piece)
            size += len(piece)
            yield piece
        if size != expected or (entry.blake3 and hasher.hexdigest() != entry.blake3):
            raise BlobCorruptionError(
                f"A file's content in a capture has {size} bytes that are not those of its entry.",
                hint="`ckptlog verify` checks the store.",
            )

    def whole(self, entry: Entry) -> bytes:
        """Return a file's content, with the zeros of its holes."""
        return joined(b"".join(self.content(entry)), entry.extents, entry.size)

    def rule_files(self) -> dict[str, bytes]:
        """Return the contents of the files of rules, by path."""
        return {
            path: self.whole(entry)
            for path, entry in self.entries.items()
            if entry.type == "file" and path.rpartition("/")[2] in RULE_FILES
        }

    def _pieces(self, entry: Entry) -> Iterable[bytes]:
        if isinstance(entry.content, str):
            return (entry.content.encode(),)
        raw = entry.content.raw
        if raw.startswith(_MARK):
            link = self._links[int(raw[1:])]
            pieces = linked(link.digest, link.size, self._read)
            return prefetched(pieces) if link.size >= PREFETCHED_BYTES_MIN else pieces
        return (base64.b64decode(raw),)


def _size(entry: Entry) -> int:
    """Return how many bytes of data a file's content has."""
    if entry.extents is None:
        return entry.size
    return sum(length for _, length in entry.extents)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return False
    return True


def joined(data: bytes, extents: Sequence[tuple[int, int]] | None, size: int) -> bytes:
    """Return a file's content, with the zeros of its holes."""
    if extents is None:
        return data
    out, at = bytearray(size), 0
    for offset, length in extents:
        out[offset : offset + length] = data[at : at + length]
        at += length
    return bytes(out)


def linked(digest: bytes, size: int, read: Read) -> Iterator[bytes]:
    """Yield a content that is linked, verified, piece by piece."""
    return Stored((_HEAD, Link(BYTES, digest, size), _TAIL), read).raw()


def load(stored: Stored) -> Manifest:
    """Return what a payload says.

    Raises:
        FormatError: It is not the payload of a directory, or of a newer form.
        BlobCorruptionError, or what `read` raises: It cannot be read.
    """
    return Manifest.of(stored, Shared((), lambda _: False), lambda _: None)


def _text(stored: Stored, links: list[Link], shared: Shared, met: set[bytes]) -> bytearray:
    """Return the text of the entries, with a number in place of each link to raw bytes.

    A group begins with the comma behind the item before it. Where groups at the beginning are left
    out, the first one that is not loses that comma.
    """
    text = bytearray()
    is_behind_none = False
    for part in _flattened(stored.parts(), stored.read, shared.groups, met):
        if part is None:
            is_behind_none = is_behind_none or text.endswith(b"{")
        elif isinstance(part, Link):
            text += f"{_MARK}{len(links)}".encode()
            links.append(part)
        else:
            text += part.removeprefix(b",") if is_behind_none else part
            is_behind_none = False
        if len(text) > TEXT_BYTES_MAX:
            raise FormatError(f"The entries of a directory have over {TEXT_BYTES_MAX} bytes.")
    return text


def _wire(text: bytearray) -> _Wire:
    try:
        wire = _decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(
            f"A payload is not that of a directory: {error}.",
            hint="Was this component something else when it was captured?",
        ) from error
    if wire.format != FORMAT:
        raise FormatError(
            f"A directory's payload has format {wire.format}; this version reads {FORMAT}.",
            hint="Restore it with the version that captured it.",
        )
    return wire


def _flattened(
    parts: Iterable[Part], read: Read, known: Container[bytes], met: set[bytes]
) -> Iterator[Part | None]:
    """Yield the texts of a value, and its links to raw bytes, in order; None for a known group."""
    stack = [iter(parts)]
    while stack:
        for part in stack[-1]:
            if type(part) is bytes or part.kind == BYTES:  # type: ignore[union-attr]
                yield part
            elif part.digest in known:  # type: ignore[union-attr]
                met.add(part.digest)  # type: ignore[union-attr]
                yield None
            else:
                stack.append(iter(unfolded(part, read)))  # type: ignore[arg-type]
                break
        else:
            stack.pop()


def _check_shape(entries: dict[str, Entry], is_directory: Callable[[str], bool]) -> None:
    """Check that what a path lies in is a directory of the capture, and stands before it."""
    seen = {""}
    for path, entry in entries.items():
        parent = naming.parent_of(path)
        if parent not in seen and not is_directory(parent):
            raise FormatError(
                f"A directory's payload has {naming.shown(path)!r}, but not the directory that it "
                "lies in.",
                hint="Nothing was changed. `ckptlog verify` checks the store.",
                path=naming.shown(path),
            )
        if entry.type == "directory":
            seen.add(path)


def text_of(kept_inline: bytes) -> str | Content:
    """Return a short content as it stands in an entry."""
    try:
        return kept_inline.decode()
    except UnicodeDecodeError:
        return Content(base64.b64encode(kept_inline).decode())
