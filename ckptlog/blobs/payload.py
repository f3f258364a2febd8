"""Payloads: a value's wire form as one chunk, or as a tree of chunks under one root.

Invariants (specs/payload.md):
* Equal wires have equal roots: cuts, grouping and digests depend on nothing but the bytes.
* A root commits to every byte: leaves and nodes are hashed in separate domains, a node holds the
  digest and size of each child, and a reader checks every chunk against the digest it came by.
* A node of level n holds nodes of level n - 1, level 1 holds leaves. Levels only fall on the way
  down, so no cycle and no endless depth can be read, whatever the bytes say.
* A branch (formats.branch) says what text lies below each link, so a tree of branches is checked
  the same way; it ends because a digest cannot name what it was made before, and what is read of
  it is bounded by the size.
* Sizes are checked from the top: the children of a node add up to what was said of the node, and
  no child is empty (formats.node), so that what a reader allocates is bounded by the reference's
  size, which `WIRE_BYTES_MAX` bounds. A tree may be larger, up to `TREE_BYTES_MAX`: it is walked
  (its chunks are what memory goes to) and read by parts (blobs.tree_reader), never put together.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from functools import cache
from typing import Any, Final

import msgspec

from ckptlog.blobs.chunker import Chunker
from ckptlog.blobs.codec import Codec
from ckptlog.blobs.memo import Memo, memo_of, whole_of
from ckptlog.blobs.tree import INLINE_MAX, Chunk, grow, text_size
from ckptlog.errors import BlobCorruptionError, FormatError, TooLargeError, UnstorableError
from ckptlog.formats import branch, chunk, node
from ckptlog.formats.branch import BYTES, LEAF, Link, Part
from ckptlog.model import value as values
from ckptlog.model.beside import Beside
from ckptlog.model.codec import NO_CODECS, Codecs
from ckptlog.model.event import Reference

LEAF_KIND: Final = "leaf"
LIST_KIND: Final = "list"
TREE_KIND: Final = "tree"

# One chunk may stand many times in a tree, so a few kilobytes can spell out any size: this bounds
# what a hostile reference can make a reader allocate. Managers have far lower limits.
WIRE_BYTES_MAX: Final = 1024 * 1024 * 1024
# The same for a tree that is never put together (specs/capture-tree.md).
TREE_BYTES_MAX: Final = 1 << 40

# What is checked whole, as a value; of a longer one each chunk is.
DECODED_BYTES_MAX: Final = 64 * 1024 * 1024

# Shorter values are not remembered: finding a difference takes some 40 us, more than it saves.
MEMO_BYTES_MIN: Final = 2048

_SIZES_MAX: Final = {
    LEAF_KIND: chunk.RAW_BYTES_MAX,
    LIST_KIND: WIRE_BYTES_MAX,
    TREE_KIND: TREE_BYTES_MAX,
}
# Shorter bytes are text as fast.
_BESIDE_BYTES_MIN: Final = 4096
_LONG_BYTES: Final = 128 * 1024  # glibc's threshold at the beginning
_BLOCK_BYTES: Final = 31 * 1024 * 1024

# Returns the verified raw bytes of the chunk with a digest, in a domain (formats.chunk).
Read = Callable[[bytes, int], bytes]
# Returns the record of a chunk, by its digest.
Encode = Callable[[bytes, Chunk], bytes]


class Draft(msgspec.Struct, frozen=True, gc=False):
    """A payload that is ready to be committed.

    reference: What the event will hold.
    digests: Every chunk of the payload, leaves and nodes.
    fresh: Digest and record of each chunk that was not known; what is below, then above, each once.
    memo: Of a tree, for the next version of the value.
    """

    reference: Reference
    digests: frozenset[bytes]
    fresh: tuple[tuple[bytes, bytes], ...]
    memo: Memo | None = None


def split(
    wire: bytes, chunker: Chunker, codec: Codec, *, known: Container[bytes] = frozenset()
) -> Draft:
    """Return wire as chunks, encoding only those that are not known.

    Args:
        known: Digests that need not be stored again. A set; it is asked once for each chunk.

    Raises:
        UnstorableError: The wire is longer than WIRE_BYTES_MAX.

    Threads: safe.        Cost: O(len(wire)); 1 KB in some 10 us.
    """
    pieces = chunker.cut(wire)
    if len(pieces) == 1:
        return _single(wire, codec, known)
    if len(wire) > WIRE_BYTES_MAX:
        raise _too_long(wire)
    tree = _Tree(codec, known)
    root = tree.grow([node.Child(tree.keep(chunk.LEAF, piece), len(piece)) for piece in pieces])
    reference = Reference(LIST_KIND, root.digest.hex(), len(wire))
    return Draft(reference, frozenset(tree.seen), tuple(tree.fresh.items()))


def plant(
    wire: bytes,
    chunker: Chunker,
    encode: Encode,
    *,
    memo: Memo | None = None,
    known: Container[bytes] = frozenset(),
) -> Draft:
    """Return wire, which must be JSON text, as a tree along its structure (blobs.tree).

    Args:
        encode: Makes the record of a chunk that is not known.
        memo: Of an earlier version, or None.

    Raises:
        UnstorableError: The wire is longer than WIRE_BYTES_MAX, or nested too deep.
    """
    if len(wire) <= INLINE_MAX:
        # The hottest line of a small write: most values are one chunk.
        digest = chunk.digest_of(chunk.LEAF, wire)
        fresh: tuple[tuple[bytes, bytes], ...] = ()
        if digest not in known:
            fresh = ((digest, encode(digest, Chunk(chunk.LEAF, wire, whole_of(memo)))),)
        reference = Reference(LEAF_KIND, digest.hex(), len(wire))
        next_memo = memo_of(wire, digest) if len(wire) >= MEMO_BYTES_MIN else None
        return Draft(reference, frozenset((digest,)), fresh, next_memo)
    if len(wire) > WIRE_BYTES_MAX:
        raise _too_long(wire)
    if len(wire) >= _LONG_BYTES:
        _keep_freed_memory()
    try:
        tree = grow(wire, chunker, memo=memo, known=known)
    except RecursionError:
        raise UnstorableError(
            "The value is nested too deep for what is left of the call stack.",
            hint="Call from a shallower function, or store a flatter value.",
        ) from None
    kind = LEAF_KIND if tree.is_leaf else TREE_KIND
    made = tuple((digest, encode(digest, one)) for digest, one in tree.chunks.items())
    return Draft(Reference(kind, tree.root.hex(), len(wire)), tree.digests, made, tree.memo)


@cache
def _keep_freed_memory() -> None:
    """Let the C library keep what is freed for the next long wire.

    glibc gives a freed block over a threshold back to the system, and the next one costs a page
    fault for each 4 KiB: a third of the time of a put of 1 MB. The threshold follows the largest
    block that was freed (up to 32 MiB); this one is never touched. Elsewhere it does nothing.
    """
    bytes(_BLOCK_BYTES)


def _too_long(wire: bytes) -> UnstorableError:
    return UnstorableError(
        f"The value has {len(wire)} bytes in its stored form; at most {WIRE_BYTES_MAX} fit.",
        hint="Keep large data outside of the checkpoint and store a path to it.",
    )


def _single(wire: bytes, codec: Codec, known: Container[bytes]) -> Draft:
    # The hottest line of a small write: most values are one chunk.
    digest = chunk.digest_of(chunk.LEAF, wire)
    fresh: tuple[tuple[bytes, bytes], ...] = ()
    if digest not in known:
        fresh = ((digest, codec.encode(chunk.LEAF, digest, wire)),)
    reference = Reference(LEAF_KIND, digest.hex(), len(wire))
    return Draft(reference, frozenset((digest,)), fresh)


class _Tree:
    """The chunks of one payload while it is built: all that were seen, and the records to store."""

    def __init__(self, codec: Codec, known: Container[bytes]) -> None:
        self.seen: set[bytes] = set()
        self.fresh: dict[bytes, bytes] = {}
        self._codec = codec
        self._known = known

    def keep(self, domain: int, raw: bytes) -> bytes:
        """Take in a chunk and return its digest."""
        digest = chunk.digest_of(domain, raw)
        if digest not in self.seen:
            self.seen.add(digest)
            if digest not in self._known:
                self.fresh[digest] = self._codec.encode(domain, digest, raw)
        return digest

    def grow(self, children: list[node.Child]) -> node.Child:
        """Build the levels of nodes over children and return the root."""
        level = 0
        while len(children) > 1:
            level += 1
            if level > node.LEVEL_MAX:
                raise UnstorableError(f"The value's tree is deeper than {node.LEVEL_MAX} levels.")
            children = [
                node.Child(self.keep(chunk.NODE, node.encode(level, run)), _total(run))
                for run in node.group(children)
            ]
        return children[0]


def assemble(reference: Reference, read: Read) -> bytes:
    """Return the wire that a reference names.

    Args:
        read: Must return verified bytes or raise; what it raises passes through.

    Raises:
        BlobCorruptionError: The tree does not have the shape or the sizes that it claims.
    """
    root = root_of(reference)
    if reference.kind == LEAF_KIND:
        return leaf_of(root, reference.size, read)
    refuse_too_large(reference.size)
    wire = bytearray()
    if reference.kind == TREE_KIND:
        _unbranch(parts_below(root, reference.size, read), read, wire)
    else:
        _unfold(root, reference.size, None, read, wire)
    return bytes(wire)


def digests_of(reference: Reference, read: Read) -> frozenset[bytes]:
    """Return the digests of every chunk of a payload, reading its nodes only.

    Raises:
        BlobCorruptionError: As `assemble`, as far as the nodes tell.
    """
    root = root_of(reference)
    if reference.kind == LEAF_KIND:
        return frozenset((root,))
    if reference.kind == TREE_KIND:
        return _branch_digests(root, reference.size, read)
    found = {root}
    level, layer = _children(root, reference.size, None, read)
    while level > 1:
        below = {child.digest: child for child in layer}
        layer = []
        for child in below.values():
            layer += _children(child.digest, child.size, level - 1, read)[1]
        found.update(below)
        level -= 1
    found.update(child.digest for child in layer)
    return frozenset(found)


def reach(reference: Reference, read: Read, seen: Container[bytes]) -> Iterator[Collection[bytes]]:
    """Yield the digests of a payload's chunks by and by, reading those nodes that were not seen.

    A branch comes after all that lies below it. So whoever adds what comes to `seen` may be stopped
    at any chunk, and still all that lies below a branch in `seen` is in it, too.

    Args:
        seen: What is known; asked before each branch is read.

    Raises:
        BlobCorruptionError, or what `read` raises: A node cannot be read.

    Cost: memory for the branches between a leaf and the root.
    """
    root = root_of(reference)
    if root in seen:
        return
    if reference.kind != TREE_KIND:
        yield {one for one in digests_of(reference, read) if one not in seen}
        return
    leaves, below = _links_in(root, read)
    yield leaves
    path = [(root, iter(below))]
    while path:
        digest, rest = path[-1]
        link = next(rest, None)
        if link is None:
            path.pop()
            yield (digest,)
        elif link[0] not in seen:
            leaves, below = _links_in(link[0], read)
            yield leaves
            path.append((link[0], iter(below)))


def _links_in(digest: bytes, read: Read) -> tuple[list[bytes], list[tuple[bytes, int, int]]]:
    try:
        return branch.links_in(read(digest, chunk.BRANCH))
    except FormatError as error:
        raise _misshapen(digest, error.message.rstrip(".")) from error


def text_of(parts: Iterable[Part], read: Read) -> bytes:
    """Return the text that parts stand for, read and verified."""
    parts = list(parts)
    refuse_too_large(sum(map(text_bytes, parts)))
    text = bytearray()
    _unbranch(parts, read, text)
    return bytes(text)


def value_of(parts: Iterable[Part], read: Read, codecs: Codecs = NO_CODECS) -> Any:
    """Return the value that parts stand for, read and verified: its large bytes without base64.

    Raises:
        FormatError: As `model.value.decode`.
        TooLargeError: It is over WIRE_BYTES_MAX.
    """
    parts = list(parts)
    refuse_too_large(sum(map(text_bytes, parts)))
    text, beside = bytearray(), Beside()
    _unbranch(parts, read, text, beside)
    value = values.decode(bytes(text), codecs, beside=beside)
    # Base64 text that no tag is said of, as no writer of ours leaves it, is what it is: text.
    return value if beside.is_taken else values.decode(text_of(parts, read), codecs)


def is_planted(reference: Reference, read: Read) -> bool:
    """Say whether a payload was written piece by piece, so that its text alone would not give it.

    A long one is taken for it: it is not put together to find out. Behind a key a text has no link.
    """
    if reference.kind != TREE_KIND or reference.size > DECODED_BYTES_MAX:
        return reference.kind == TREE_KIND
    first = parts_of(reference, read)[0]
    return type(first) is bytes and first.endswith(b":")


def text_bytes(part: Part) -> int:
    """Return how many bytes of text a part is, or stands for."""
    return len(part) if type(part) is bytes else text_size(part)  # type: ignore[arg-type]


def refuse_too_large(size: int) -> None:
    """Refuse to put so long a text together.

    Raises:
        TooLargeError: It is over WIRE_BYTES_MAX.
    """
    if size > WIRE_BYTES_MAX:
        raise TooLargeError(
            f"The value has {size} bytes in its stored form; at most {WIRE_BYTES_MAX} are put "
            "together in memory.",
            hint="Read it by parts: manager.stored(checkpoint_id), or get_part with a longer path.",
            size_bytes=size,
            limit_bytes=WIRE_BYTES_MAX,
        )


def unfolded(link: Link, read: Read) -> list[Part]:
    """Return what a link to text stands for, one level down."""
    if link.kind == LEAF:
        return [leaf_of(link.digest, link.size, read)]
    return parts_below(link.digest, link.size, read)


def parts_of(reference: Reference, read: Read) -> list[Part]:
    """Return the parts of a payload's root; the whole text where it is no tree of branches."""
    if reference.kind != TREE_KIND:
        return [assemble(reference, read)]
    return parts_below(root_of(reference), reference.size, read)


def _unbranch(
    parts: Iterable[Part], read: Read, text: bytearray, beside: Beside | None = None
) -> None:
    """Append the text of parts; its own stack, as branches may lie deep in one another."""
    stack = [iter(parts)]
    while stack:
        for part in stack[-1]:
            if type(part) is bytes:
                text += part
            elif part.kind == LEAF:  # type: ignore[union-attr]
                text += leaf_of(part.digest, part.size, read)  # type: ignore[union-attr]
            elif part.kind == BYTES:  # type: ignore[union-attr]
                # Raw bytes hold no base64 text of their own: this goes no deeper.
                pieces = list(_raw_pieces(part, read))  # type: ignore[arg-type]
                if beside is not None and part.size >= _BESIDE_BYTES_MIN:  # type: ignore[union-attr]
                    text += beside.put(pieces)
                else:
                    text += binascii.b2a_base64(b"".join(pieces), newline=False)
            else:
                stack.append(iter(parts_below(part.digest, part.size, read)))  # type: ignore[union-attr]
                break
        else:
            stack.pop()


def _raw_pieces(link: Link, read: Read) -> Iterator[bytes]:
    stack = [iter(parts_below(link.digest, link.size, read, is_raw=True))]
    while stack:
        for part in stack[-1]:
            if type(part) is bytes:
                yield part
            elif part.kind == LEAF:  # type: ignore[union-attr]
                yield leaf_of(part.digest, part.size, read)  # type: ignore[union-attr]
            else:
                stack.append(iter(parts_below(part.digest, part.size, read, is_raw=True)))  # type: ignore[union-attr]
                break
        else:
            stack.pop()


def parts_below(digest: bytes, size: int, read: Read, *, is_raw: bool = False) -> list[Part]:
    """Return the parts of a branch that must stand for `size` bytes."""
    try:
        parts = branch.decode(read(digest, chunk.BRANCH))
    except FormatError as error:
        raise _misshapen(digest, error.message.rstrip(".")) from error
    total = sum(map(text_bytes, parts))
    if total != size:
        raise _misshapen(digest, f"{size} bytes are expected below it, it claims {total}")
    if is_raw and any(type(part) is Link and part.kind == BYTES for part in parts):
        raise _misshapen(digest, "it has base64 text among raw bytes")
    return parts


def _branch_digests(root: bytes, size: int, read: Read) -> frozenset[bytes]:
    found = {root}
    waiting = [(root, size, False)]
    while waiting:
        digest, size, is_raw = waiting.pop()
        for part in parts_below(digest, size, read, is_raw=is_raw):
            if type(part) is not Link or part.digest in found:
                continue
            found.add(part.digest)
            if part.kind != LEAF:
                waiting.append((part.digest, part.size, is_raw or part.kind == BYTES))
    return frozenset(found)


def _unfold(digest: bytes, size: int, level: int | None, read: Read, wire: bytearray) -> None:
    """Append the bytes below a node; recursion is bounded by node.LEVEL_MAX."""
    own_level, children = _children(digest, size, level, read)
    for child in children:
        if own_level == 1:
            wire += leaf_of(child.digest, child.size, read)
        else:
            _unfold(child.digest, child.size, own_level - 1, read, wire)


def leaf_of(digest: bytes, size: int, read: Read) -> bytes:
    """Return the bytes of a leaf that must have `size` of them."""
    raw = read(digest, chunk.LEAF)
    if len(raw) != size:
        raise _misshapen(digest, f"{size} bytes are expected of it, it has {len(raw)}")
    return raw


def _children(
    digest: bytes, size: int, level: int | None, read: Read
) -> tuple[int, list[node.Child]]:
    """Return (level, children) of a node that must have this size and, if given, this level."""
    try:
        own_level, children = node.decode(read(digest, chunk.NODE))
    except FormatError as error:
        raise _misshapen(digest, error.message.rstrip(".")) from error
    if level is not None and own_level != level:
        raise _misshapen(digest, f"it is a node of level {own_level}; level {level} is expected")
    total = _total(children)
    if total != size:
        raise _misshapen(digest, f"{size} bytes are expected below it, it claims {total}")
    return own_level, children


def _total(children: Iterable[node.Child]) -> int:
    return sum(child.size for child in children)


def root_of(reference: Reference) -> bytes:
    """Return a reference's root digest, after checking that the reference can be one.

    Raises:
        BlobCorruptionError: Its kind, root or size is impossible.
    """
    try:
        root = bytes.fromhex(reference.root)
    except ValueError:
        root = b""
    is_kind_known = reference.kind in (LEAF_KIND, LIST_KIND, TREE_KIND)
    limit = _SIZES_MAX.get(reference.kind, 0)
    is_size_sound = 0 <= reference.size <= limit
    is_name_sound = len(root) == chunk.DIGEST_BYTES and root.hex() == reference.root
    if not is_name_sound or not is_kind_known or not is_size_sound:
        raise BlobCorruptionError(
            f"A payload cannot be named {reference.kind} {reference.root} with "
            f"{reference.size} bytes.",
            root=reference.root,
        )
    return root


def _misshapen(digest: bytes, why: str) -> BlobCorruptionError:
    return BlobCorruptionError(
        f"Chunk {digest.hex()} does not fit its place in the payload: {why}.",
        hint="Run ckptlog verify; other checkpoints can still be read.",
        digest=digest.hex(),
    )
