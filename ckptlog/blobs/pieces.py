"""What a payload that is written piece by piece is made of: finished values, links in levels."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from ckptlog.blobs.payload import LEAF_KIND, text_bytes
from ckptlog.blobs.tree import FANOUT_MAX, FANOUT_MEAN, FANOUT_MIN, LEVEL_MAX
from ckptlog.errors import UnstorableError
from ckptlog.formats.branch import BRANCH, LEAF, LINK_WEIGHT, Link, Part
from ckptlog.model.event import Reference


class Pieces(msgspec.Struct, frozen=True, gc=False):
    """A finished value: text, and links that stand for text; never two texts in a row."""

    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """Bytes of the whole text."""
        return sum(map(text_bytes, self.parts))

    @property
    def weight(self) -> int:
        """What it counts where items are gathered into groups."""
        return sum(len(part) if type(part) is bytes else LINK_WEIGHT for part in self.parts)


class Root(msgspec.Struct, frozen=True, gc=False):
    """A component's finished payload."""

    reference: Reference

    @property
    def link(self) -> Link:
        """What stands for it in the text around it."""
        reference = self.reference
        kind = LEAF if reference.kind == LEAF_KIND else BRANCH
        return Link(kind, bytes.fromhex(reference.root), reference.size)


class Group(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A closed group of a container's items, fit to be remembered (msgspec writes and reads it).

    first, last: Keys of its first and last item; "" in a list.
    link: What stands for it; `link.items` of them. is_first: Whether the container begins with it.
    """

    first: str
    last: str
    link: Link
    is_first: bool


def pieces_of(parts: Iterable[Part]) -> Pieces:
    """Return parts as pieces: texts that follow one another joined, empty ones left out."""
    joined: list[Part] = []
    for part in parts:
        if type(part) is bytes and joined and type(joined[-1]) is bytes:
            joined[-1] += part
        elif part:
            joined.append(part)
    return Pieces(tuple(joined))


class Levels:
    """A run of links that is cut into groups, level by level, while it comes (specs/payload.md)."""

    def __init__(self, make: Callable[[list[Link]], bytes]) -> None:
        self._make = make
        self._runs: list[list[Link]] = [[]]

    def add(self, link: Link) -> None:
        """Take in the next link.

        Raises:
            UnstorableError: There are more than any tree holds.
        """
        for level in range(LEVEL_MAX):
            if level == len(self._runs):
                self._runs.append([])
            run = self._runs[level]
            run.append(link)
            count = len(run)
            if count < FANOUT_MIN or (link.digest[0] % FANOUT_MEAN and count < FANOUT_MAX):
                return
            size = sum([one.size for one in run])
            items = sum([one.items for one in run])
            link = Link(BRANCH, self._make(run), size, items)
            self._runs[level] = []
        raise UnstorableError(f"The value's tree is deeper than {LEVEL_MAX} levels.")

    def links(self) -> list[Link]:
        """Return what is open, from the highest level down."""
        return [link for run in reversed(self._runs) for link in run]
