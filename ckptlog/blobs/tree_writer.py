"""Writes a payload piece by piece: the trees of blobs.tree for what is too long for one text.

    raw content   -> stretches, cut by content (coarser than in texts) -> leaves, levels
    fixed blocks  -> one leaf each -> levels
    a container   -> items as the caller brings them -> groups, cut by content -> chunks, levels
    other values  -> their text, as blobs.tree cuts it

Nothing whole is ever held: of raw content 4 MiB, of a container its open group, on each level of
links at most 64. What is finished is `Pieces`: text, and links that stand for longer texts.

Invariants (specs/capture-tree.md):
* A tree is a function of the content and of the calls that brought it: what was kept from an
  earlier tree comes out as if it had been made again. A group depends on nothing but its items and
  whether it is the first, so one that is kept stands where it would end by itself.
* A chunk is handed to the sink before any chunk that names it.
* What is kept is not read. It must be known to be stored and retained; the caller says so.

Threads: one for a writer; several writers may share a sink.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from ckptlog.blobs.chunker import Chunker
from ckptlog.blobs.container_writer import ContainerWriter, encode_key
from ckptlog.blobs.memo import Memo
from ckptlog.blobs.payload import LEAF_KIND, TREE_BYTES_MAX, TREE_KIND, text_bytes
from ckptlog.blobs.pieces import Levels, Pieces, Root, pieces_of
from ckptlog.blobs.tree import (
    INLINE_MAX,
    grow,
)
from ckptlog.errors import ArgumentError, UnstorableError
from ckptlog.formats import branch, chunk
from ckptlog.formats.branch import BRANCH, BYTES, LEAF, Link, Part
from ckptlog.formats.store import Chunker as Parameters
from ckptlog.model import value as values
from ckptlog.model.array import split_array
from ckptlog.model.codec import NO_CODECS, Codecs
from ckptlog.model.event import Reference
from ckptlog.model.secret import Sanitiser

Raw = bytes | bytearray | memoryview
# Takes a chunk: digest, domain, raw bytes (which may be a view of what changes after the call).
Sink = Callable[[bytes, int, bytes | memoryview], object]

COARSE: Final = Parameters(min=16 * 1024, mean=64 * 1024, max=256 * 1024)
# Raw content up to here is base64 in the text around it; up to the next it is one chunk.
TEXT_RAW_MAX: Final = 512
SINGLE_RAW_MAX: Final = 8 * 1024
# Of a value: above, raw bytes are cut as raw content, and not as the text that they would be.
LARGE_BYTES: Final = 1024 * 1024
_BUFFER_BYTES: Final = 4 * 1024 * 1024
# Of what comes singly: to put more together would be a copy for nothing.
_LONG_BYTES: Final = 1024 * 1024
# Items that are looked at to find what is large in a value.
_LOOKS_MAX: Final = 100_000
_DEPTH_MAX: Final = 16
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})


class TreeWriter:
    """Writes one payload.

    Args:
        sink: Gets each chunk; it may know and drop it.
        chunker: Of the store, for texts.
        is_stored: Says whether a chunk is stored; what is not is not kept. None: all are.
        expect: Gets what of the witness is likely to hold chunks that come.
        sanitiser, codecs: For values, as a manager uses them.

    Attributes:
        memo: Of the last long value, for its next version.
        sanitised: Secrets that were replaced in values.
    """

    def __init__(
        self,
        sink: Sink,
        chunker: Chunker,
        *,
        is_stored: Callable[[bytes], bool] | None = None,
        expect: Callable[[bytes, int], None] | None = None,
        sanitiser: Sanitiser | None = None,
        codecs: Codecs = NO_CODECS,
    ) -> None:
        self._sink = sink
        self._chunker = chunker
        self._coarse = Chunker(COARSE)
        self._is_stored = is_stored or _always
        self._expect = expect
        self._sanitiser = sanitiser
        self._codecs = codecs
        self.memo: Memo | None = None
        self.sanitised = 0

    # --- raw bytes --------------------------------------------------------------------------

    def raw(self, data: Raw | Iterable[Raw]) -> Pieces:
        """Return a `bytes` value of any length, read as it comes.

        Cost: BLAKE3 and FastCDC of the bytes; 4 MiB of memory, or none beside a whole buffer.
        """
        return self._tagged(b'{"$bytes":"', self._content(_buffers(data)), b'"}')

    def blocks(self, blocks: Iterable[Raw | Link]) -> Pieces:
        """Return a `bytes` value whose leaves are the given blocks (pages of a file).

        Args:
            blocks: Each up to 4 MiB, not empty; a Link stands for one that is stored and retained
                (`Stored.blocks` gives them).
        """
        levels = Levels(self._branch)
        for block in blocks:
            if type(block) is Link:
                self._check_kept(block)
                levels.add(block)
            else:
                levels.add(self._leaf(memoryview(block)))  # type: ignore[arg-type]
        return self._tagged(b'{"$bytes":"', self._bytes_link(levels), b'"}')

    def _content(self, buffers: Iterator[memoryview]) -> Part | None:
        """Return what stands for raw bytes: base64 text, a link, or None for no bytes."""
        cuts = self._cuts(buffers)
        first = next(cuts, None)
        if first is None:
            return None
        if len(first) <= SINGLE_RAW_MAX:  # shorter than any cut but the last
            if len(first) <= TEXT_RAW_MAX:
                return binascii.b2a_base64(first, newline=False)
            digest = self._emit(chunk.BRANCH, branch.encode([bytes(first)]))
            return Link(BYTES, digest, len(first))
        levels = Levels(self._branch)
        levels.add(self._leaf(first))
        for stretch in cuts:
            levels.add(self._leaf(stretch))
        return self._bytes_link(levels)

    def _cuts(self, buffers: Iterator[memoryview]) -> Iterator[memoryview]:
        """Yield stretches, cut by content: each ends where it would if all were in one buffer."""
        rest = memoryview(b"")
        for buffer in buffers:
            whole = memoryview(b"".join((rest, buffer))) if rest else buffer
            stretches = self._coarse.stretches(whole)
            # Where the last ends is not known, but one that is as long as any.
            # Its own bytes: the caller may use the buffer again.
            rest = memoryview(bytes(stretches.pop()))
            yield from stretches
        if rest:
            yield rest

    def _leaf(self, raw: memoryview) -> Link:
        return Link(LEAF, self._emit(chunk.LEAF, raw), len(raw))

    def _bytes_link(self, levels: Levels) -> Link | None:
        links = levels.links()
        if not links:
            return None
        size = sum(link.size for link in links)
        return Link(BYTES, self._branch(links), size)

    def _tagged(self, head: bytes, content: Part | None, tail: bytes) -> Pieces:
        return pieces_of((head, content or b"", tail))

    # --- containers -------------------------------------------------------------------------

    def mapping(self, *, is_sorted: bool = True) -> ContainerWriter:
        """Return a writer of a dict with text keys.

        Args:
            is_sorted: Keys come in rising order of their code points, which is checked, so that
                equal content has equal roots and no key comes twice.
        """
        return self._container(is_mapping=True, is_sorted=is_sorted)

    def listing(self) -> ContainerWriter:
        """Return a writer of a list."""
        return self._container(is_mapping=False)

    def _container(self, *, is_mapping: bool, is_sorted: bool = False) -> ContainerWriter:
        levels = Levels(self._branch)
        return ContainerWriter(
            self._keep, levels, self._is_stored, is_mapping=is_mapping, is_sorted=is_sorted
        )

    # --- values -----------------------------------------------------------------------------

    def value(self, value: object, *, path: str = "data", memo: Memo | None = None) -> Pieces:
        """Return any value that a checkpoint can hold.

        Bytes and arrays of more than 1 MiB, in dicts with text keys and lists, are cut as raw
        content: they never become text.

        Args:
            path: What messages call it.
            memo: Of an earlier version, all of whose chunks are stored and retained.

        Raises:
            UnstorableError: Something in it cannot be stored exactly.
        """
        if _has_large(value):
            return self._large(value, path, 0)
        prepared = values.prepare(value, path=path, sanitiser=self._sanitiser, codecs=self._codecs)
        self.sanitised += prepared.sanitised_count
        return self._text(prepared.wire, memo)

    def text(self, wire: bytes, *, memo: Memo | None = None) -> Pieces:
        """Return a value whose wire is at hand (`model.value.prepare`); memo as in `value`."""
        return self._text(wire, memo)

    def _text(self, wire: bytes, memo: Memo | None) -> Pieces:
        if len(wire) <= INLINE_MAX:
            return Pieces((wire,))
        tree = grow(wire, self._chunker, memo=memo, known=memo.digests if memo else ())
        for digest, made in tree.chunks.items():
            self._sink(digest, made.domain, made.raw)
        self.memo = tree.memo
        return Pieces((Link(LEAF if tree.is_leaf else BRANCH, tree.root, len(wire)),))

    def _large(self, value: Any, path: str, depth: int) -> Pieces:
        kind = type(value)
        if kind in (bytes, bytearray):
            head = b'{"$bytes":"' if kind is bytes else b'{"$bytearray":"'
            return self._tagged(head, self._content(_buffers(value)), b'"}')
        if kind is dict:
            found = self.mapping(is_sorted=False)
            for key, item in list(value.items()):
                found.add(key, self._item(key, item, path, depth))
            return found.finish()
        if kind is list:
            found = self.listing()
            for index, item in enumerate(list(value)):
                found.append(self._inner(item, f"{path}[{index}]", depth))
            return found.finish()
        content, raw = split_array(value) or ({}, b"")
        head = b'{"$array":' + msgspec.json.encode(content)[:-1] + b',"data":"'
        return self._tagged(head, self._content(_buffers(raw)), b'"}}')

    def _item(self, key: str, item: object, path: str, depth: int) -> Pieces:
        """Return the value of a key, which may say that it is a secret."""
        if key == "":
            return self._inner(item, path, depth)
        if _has_large(item, depth + 1):
            wire, count = self._under(key, "x", path)
            if not count:
                return self._large(item, f"{path}.{key}", depth + 1)
        else:
            wire, count = self._under(key, item, path)
        self.sanitised += count
        return self._text(wire, None)

    def _under(self, key: str, item: object, path: str) -> tuple[bytes, int]:
        """Return the wire of what stands under a key, and how many secrets were replaced."""
        beside = {"": None, key: item}  # two keys: no tag
        prepared = values.prepare(beside, path=path, sanitiser=self._sanitiser, codecs=self._codecs)
        head = len(b'{"":null,') + len(encode_key(key)) + 1
        return prepared.wire[head:-1], prepared.sanitised_count

    def _inner(self, item: object, path: str, depth: int) -> Pieces:
        if _has_large(item, depth + 1):
            return self._large(item, path, depth + 1)
        return self.value(item, path=path)

    # --- the end ----------------------------------------------------------------------------

    def root(self, pieces: Pieces) -> Root:
        """Return the root of what is finished.

        Raises:
            UnstorableError: It is longer than any payload may be.
        """
        size = pieces.size
        if size > TREE_BYTES_MAX:
            raise UnstorableError(
                f"The value has {size} bytes in its stored form; at most {TREE_BYTES_MAX} fit."
            )
        link = pieces.parts[0]
        if len(pieces.parts) > 1 or type(link) is bytes or link.kind == BYTES:  # type: ignore[union-attr]
            link = self._keep(pieces.parts, 0)
        kind = LEAF_KIND if link.kind == LEAF else TREE_KIND  # type: ignore[union-attr]
        return Root(Reference(kind, link.digest.hex(), size))  # type: ignore[union-attr]

    def is_stored(self, digest: bytes) -> bool:
        """Say whether a chunk may be kept; of the witness's, who keeps one makes sure itself."""
        return self._is_stored(digest)

    def expect(self, digest: bytes, size: int) -> None:
        """Say that raw bytes of the witness, which are stored so, are an earlier version.

        Chunks that come again are then found there, without going through all of the witness.
        """
        if self._expect is not None:
            self._expect(digest, size)

    # --- chunks -----------------------------------------------------------------------------

    def _keep(self, parts: tuple[Part, ...], items: int) -> Link:
        """Make a chunk of a value's, or a group's, parts."""
        size = sum(map(text_bytes, parts))
        if len(parts) == 1 and type(parts[0]) is bytes and size <= chunk.RAW_BYTES_MAX:
            return Link(LEAF, self._emit(chunk.LEAF, parts[0]), size, items)
        return Link(BRANCH, self._emit(chunk.BRANCH, branch.encode(parts)), size, items)

    def _branch(self, links: list[Link]) -> bytes:
        return self._emit(chunk.BRANCH, branch.encode(links))

    def _emit(self, domain: int, raw: bytes | memoryview) -> bytes:
        digest = chunk.digest_of(domain, raw)
        self._sink(digest, domain, raw)
        return digest

    def _check_kept(self, link: Link) -> None:
        if not self._is_stored(link.digest):
            raise ArgumentError(
                f"Chunk {link.digest.hex()} was to be kept, and is not stored any more.",
                hint="Bring its content instead.",
                argument="blocks",
            )


def _buffers(data: Raw | Iterable[Raw]) -> Iterator[memoryview]:
    """Yield bytes in buffers of 1 to 4 MiB; small ones that come singly are put together."""
    if isinstance(data, bytes | bytearray | memoryview):
        view = memoryview(data).cast("B") if len(data) else memoryview(b"")
        for begin in range(0, len(view), _BUFFER_BYTES):
            yield view[begin : begin + _BUFFER_BYTES]
        return
    waiting = bytearray()
    for one in data:
        if not waiting and len(one) >= _LONG_BYTES:
            yield memoryview(one).cast("B")
            continue
        waiting += one
        if len(waiting) >= _BUFFER_BYTES:
            yield memoryview(waiting)
            waiting = bytearray()
    if waiting:
        yield memoryview(waiting)


def _has_large(value: object, depth: int = 0) -> bool:
    """Say whether a value has raw bytes that are better never made to text.

    A function of the content alone, so that equal values have equal trees.
    """
    waiting: list[tuple[object, int]] = [(value, depth)]
    looks = 0
    while waiting and looks < _LOOKS_MAX:
        one, depth = waiting.pop()
        looks += 1
        kind = type(one)
        if kind in (bytes, bytearray):
            if len(one) > LARGE_BYTES:  # type: ignore[arg-type]
                return True
        elif kind is dict and depth < _DEPTH_MAX:
            if _is_plain(one):  # type: ignore[arg-type]
                waiting += [(item, depth + 1) for item in list(one.values())]  # type: ignore[attr-defined]
        elif kind is list and depth < _DEPTH_MAX:
            waiting += [(item, depth + 1) for item in list(one)]  # type: ignore[call-overload]
        elif kind not in _SCALARS and _array_bytes(one) > LARGE_BYTES:
            return True
    return False


def _array_bytes(one: Any) -> int:
    return int(one.nbytes) if split_array(one, is_asked=True) else 0


def _is_plain(mapping: dict[Any, Any]) -> bool:
    return all(type(key) is str for key in list(mapping))


def _always(_: bytes) -> bool:
    return True
