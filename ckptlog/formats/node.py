"""The node: a list of chunks, itself a chunk in the node domain (specs/node.md).

    offset  size  field
    0       1     level: 1 over leaves, 2 over nodes of level 1, ...
    1       40*n  for each child: digest (32), bytes of the value below it (u64, little-endian)

Nodes are cut by content, like leaves: a node ends after a child whose digest begins with a byte
divisible by `FANOUT_MEAN`, so that a change touches one node on each level.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from ckptlog.errors import FormatError

FANOUT_MEAN: Final = 16
FANOUT_MIN: Final = 4
FANOUT_MAX: Final = 64
# 64**8 children are more than any value has; a deeper tree is a damaged or hostile one.
LEVEL_MAX: Final = 8
_CHILD = struct.Struct("<32sQ")


class Child(msgspec.Struct, frozen=True, gc=False):
    """One child of a node: its digest (32 bytes) and the bytes of value below it."""

    digest: bytes
    size: int


def encode(level: int, children: list[Child]) -> bytes:
    """Return the raw bytes of a node."""
    if not 1 <= level <= LEVEL_MAX or not 1 <= len(children) <= FANOUT_MAX:
        raise FormatError(f"No node has level {level} and {len(children)} children.")
    packed = (_CHILD.pack(child.digest, child.size) for child in children)
    return bytes([level]) + b"".join(packed)


def decode(raw: bytes | memoryview) -> tuple[int, list[Child]]:
    """Return (level, children) of a node's raw bytes.

    Raises:
        FormatError: It is not a node.
    """
    count, rest = divmod(len(raw) - 1, _CHILD.size)
    if rest or not 1 <= count <= FANOUT_MAX:
        raise FormatError(f"A node of {len(raw)} bytes is malformed.")
    level = raw[0]
    if not 1 <= level <= LEVEL_MAX:
        raise FormatError(f"A node has level {level}; 1 to {LEVEL_MAX} exist.")
    children = [Child(*fields) for fields in _CHILD.iter_unpack(raw[1:])]
    # A child of nothing would let a small tree stand for an endless walk.
    if not all(child.size for child in children):
        raise FormatError("A node has a child of no bytes.")
    return level, children


def group(children: list[Child]) -> list[list[Child]]:
    """Cut a run of children into the runs that one node each will hold."""
    groups: list[list[Child]] = []
    run: list[Child] = []
    for child in children:
        run.append(child)
        is_cut = len(run) >= FANOUT_MIN and child.digest[0] % FANOUT_MEAN == 0
        if is_cut or len(run) >= FANOUT_MAX:
            groups.append(run)
            run = []
    if run:
        groups.append(run)
    return groups
