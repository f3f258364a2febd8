"""Facts about chunks, and claims that others make about them: joined when all is read.

    a chunk that decodes to its digest       -> fact   (digest, shape, size)
    a link of a branch or node, a reference  -> claim  (digest, shape, size; by whom)

Whatever order chunks and their parents are met in, a payload is whole when every claim below its
reference meets a fact (specs/verify.md). Both are split by digest into parts, so that joining takes
the memory of one part; beyond a bound they lie in a temporary file. Digests count by their first
half, as in the chunk index.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from tempfile import TemporaryFile
from typing import IO, Final

from ckptlog.formats import branch, chunk, node

LEAF: Final = chunk.LEAF
BRANCH: Final = chunk.BRANCH
# A branch that holds base64 links: it must not stand among raw bytes.
BRANCH_MIXED: Final = 3
# A claim about a branch of raw bytes.
BRANCH_RAW: Final = 4
# A node of any level, in a reference; one of level n is NODE + n.
NODE: Final = 16

KEY_BYTES: Final = 16
_FACT = struct.Struct("<16sQB")
_CLAIM = struct.Struct("<16s16sQB")
_PARTS: Final = 64
_KEPT_BYTES: Final = 32 * 1024 * 1024

Links = list[tuple[bytes, int, int]]
"""Digest, size and shape of each child."""


class Shape:
    """What a chunk stands for. code: Its shape. size: Bytes. links: Its children."""

    __slots__ = ("code", "links", "size")

    def __init__(self, code: int, size: int, links: Links) -> None:
        self.code = code
        self.size = size
        self.links = links


def shape_of(domain: int, raw: bytes) -> Shape:
    """Return what verified raw bytes stand for.

    Raises:
        FormatError: They are no node, or no branch.
    """
    if domain == chunk.NODE:
        level, children = node.decode(raw)
        below = LEAF if level == 1 else NODE + level - 1
        links = [(child.digest, child.size, below) for child in children]
        return Shape(NODE + level, sum(child.size for child in children), links)
    if domain != chunk.BRANCH:
        return Shape(LEAF, len(raw), [])
    size, code, links = 0, BRANCH, []
    for part in branch.decode(raw):
        if isinstance(part, bytes):
            size += len(part)
        elif part.kind == branch.BYTES:
            code = BRANCH_MIXED
            size += 4 * ((part.size + 2) // 3)
            links.append((part.digest, part.size, BRANCH_RAW))
        else:
            size += part.size
            links.append((part.digest, part.size, LEAF if part.kind == branch.LEAF else BRANCH))
    return Shape(code, size, links)


def does_meet(code: int, size: int, wanted: int, wanted_size: int) -> bool:
    """Say whether a fact (code, size) is what a claim wants."""
    if size != wanted_size:
        return False
    if wanted == BRANCH:
        return code in (BRANCH, BRANCH_MIXED)
    if wanted == BRANCH_RAW:
        return code == BRANCH
    return code > NODE if wanted == NODE else code == wanted


class Unmet:
    """A claim without its fact. found: (code, size) of another fact about the chunk, if any."""

    __slots__ = ("child", "found", "parent")

    def __init__(self, child: bytes, parent: bytes, found: tuple[int, int] | None) -> None:
        self.child = child
        self.parent = parent
        self.found = found


class Claims:
    """Facts and claims of one verification. Close it.

    Threads: one.        Cost: some 0.5 us for each; beyond 32 MiB they go to a temporary file.
    """

    def __init__(self) -> None:
        self._facts = _Parted()
        self._claims = _Parted()

    def fact(self, digest: bytes, code: int, size: int) -> None:
        """Enter what a chunk is."""
        self._facts.add([_FACT.pack(digest[:KEY_BYTES], size, code)])

    def leaves(self, facts: Iterable[tuple[bytes, int]]) -> None:
        """Enter leaves, each with its size."""
        pack = _FACT.pack
        self._facts.add([pack(digest[:KEY_BYTES], size, LEAF) for digest, size in facts])

    def claim(self, child: bytes, size: int, code: int, parent: bytes) -> None:
        """Enter what a parent (a chunk, or a reference by its key) says of a chunk."""
        self._claims.add([_CLAIM.pack(child[:KEY_BYTES], parent[:KEY_BYTES], size, code)])

    def unmet(self) -> Iterator[Unmet]:
        """Yield every claim that meets no fact."""
        for part in range(_PARTS):
            facts: dict[bytes, tuple[int, int]] = {}
            for key, size, code in _FACT.iter_unpack(self._facts.read(part)):
                facts[key] = (code, size)
            for child, parent, size, code in _CLAIM.iter_unpack(self._claims.read(part)):
                found = facts.get(child)
                if found is None or not does_meet(*found, code, size):
                    yield Unmet(child, parent, found)

    def above(self, bad: dict[bytes, bytes]) -> None:
        """Add to `bad` every parent above what is in it, each with what its child had."""
        has_grown = True
        while has_grown:
            has_grown = False
            for part in range(_PARTS):
                for child, parent, _, _ in _CLAIM.iter_unpack(self._claims.read(part)):
                    if child in bad and parent not in bad:
                        bad[parent] = bad[child]
                        has_grown = True

    def below(self, roots: set[bytes]) -> set[bytes]:
        """Return every key that roots need, directly or through others."""
        found = set(roots)
        has_grown = True
        while has_grown:
            has_grown = False
            for part in range(_PARTS):
                for child, parent, _, _ in _CLAIM.iter_unpack(self._claims.read(part)):
                    if parent in found and child not in found:
                        found.add(child)
                        has_grown = True
        return found

    def close(self) -> None:
        """Drop everything."""
        self._facts.close()
        self._claims.close()


class _Parted:
    """Packed records in 64 parts; what does not fit into memory lies in a file without a name."""

    def __init__(self) -> None:
        self._buffers = [bytearray() for _ in range(_PARTS)]
        self._extents: list[list[tuple[int, int]]] = [[] for _ in range(_PARTS)]
        self._kept = 0
        self._written = 0
        self._file: IO[bytes] | None = None

    def add(self, records: Sequence[bytes]) -> None:
        """Add records of one length, each to the part that its first byte says."""
        buffers = self._buffers
        for packed in records:
            buffers[packed[0] % _PARTS] += packed
        self._kept += len(records) * len(records[0]) if records else 0
        if self._kept >= _KEPT_BYTES // 2:
            self._spill()

    def read(self, part: int) -> bytes:
        found = bytearray()
        for offset, length in self._extents[part]:
            assert self._file is not None  # noqa: S101 - what was written is in it
            self._file.seek(offset)
            found += self._file.read(length)
        return bytes(found + self._buffers[part])

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._buffers = [bytearray() for _ in range(_PARTS)]

    def _spill(self) -> None:
        if self._file is None:
            self._file = TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._file.seek(self._written)
        for part, buffer in enumerate(self._buffers):
            self._file.write(buffer)
            self._extents[part].append((self._written, len(buffer)))
            self._written += len(buffer)
            buffer.clear()
        self._kept = 0
