"""What is remembered of a payload's tree, so that the next version of the value costs less.

Nothing here decides anything: `blobs.tree` uses a memo only where it would come to the same.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from ckptlog.formats.branch import BRANCH, Link


class Base(NamedTuple):
    """An older chunk that a new one is much like."""

    digest: bytes
    raw: bytes


class Group(NamedTuple):
    """A closed group of items, wherever it stands.

    size: Of its text, bytes.
    weight: Of its items, uncut.
    last: The number that its last item drew.
    link: What stands for it.
    """

    size: int
    weight: int
    last: int
    link: Link


class Strip:
    """The closed groups of one container of one text, from its first item on, without a gap.

    Lists are never changed once they are in a strip; the next version of the container takes over
    how it begins, as whole slices, whatever its length.

    begin: Where the first one begins in the text.
    ends: Where each ends, from begin on.
    weights: What each weighs, with those before it.
    links: What stands for each.
    deep: Indices of those that have links themselves.
    """

    __slots__ = ("_behind", "begin", "deep", "ends", "groups", "links", "weights")

    def __init__(self, begin: int) -> None:
        self.begin = begin
        self.groups: list[Group] = []
        self.ends: list[int] = []
        self.weights: list[int] = []
        self.links: list[Link] = []
        self.deep: list[int] = []
        self._behind: dict[int, int] | None = None

    def followed(self, begin: int, count: int, groups: Iterable[Group]) -> Strip:
        """Return a strip of the first groups of this one, and of others behind them.

        Args:
            begin: Where it begins.
        """
        behind = list(groups)
        if not behind and count == len(self.groups):
            return self.moved(begin - self.begin)
        made = Strip(begin)
        made.groups, made.links = self.groups[:count], self.links[:count]
        made.ends, made.weights = self.ends[:count], self.weights[:count]
        made.deep = self.deep[: bisect_left(self.deep, count)]
        for group in behind:
            made.add(group)
        return made

    def add(self, group: Group) -> None:
        """Take in the next group, while the strip is being made."""
        if group.link.kind == BRANCH:
            self.deep.append(len(self.groups))
        self.groups.append(group)
        self.links.append(group.link)
        self.ends.append((self.ends[-1] if self.ends else 0) + group.size)
        self.weights.append((self.weights[-1] if self.weights else 0) + group.weight)

    def weight(self, first: int, behind: int) -> int:
        """Return what the groups from one to before another weigh."""
        if first == behind:
            return 0
        return self.weights[behind - 1] - (self.weights[first - 1] if first else 0)

    def start(self, index: int) -> int:
        """Return where in the text a group begins."""
        return self.begin + (self.ends[index - 1] if index else 0)

    def behind(self, drawn: int) -> int:
        """Return the index of the group behind an item that drew a number; the length for none."""
        if self._behind is None:
            self._behind = {group.last: index for index, group in enumerate(self.groups, 1)}
        return self._behind.get(drawn, len(self.groups))

    def moved(self, shift: int) -> Strip:
        """Return the same strip of a text in which it stands elsewhere."""
        made = Strip(self.begin + shift)
        made.groups, made.links, made.deep = self.groups, self.links, self.deep
        made.ends, made.weights = self.ends, self.weights
        return made


class Memo(msgspec.Struct, frozen=True, gc=False):
    """What is remembered of a tree, for the next one.

    text: The whole.
    strips: Closed groups, by the keys of their containers, in the order of the text.
    nodes: Links that one link stands for, and that link; by the first one's digest.
    below: Digests under a chunk with links.
    root: Digest of the root.
    raws: Raw bytes of the root, and of groups, where they have links; by digest.
    digests: Of the whole tree.
    """

    text: bytes = b""
    strips: dict[bytes, list[Strip]] = {}
    nodes: dict[bytes, tuple[list[Link], Link]] = {}
    below: dict[bytes, tuple[bytes, ...]] = {}
    root: bytes = b""
    raws: dict[bytes, bytes] = {}
    digests: frozenset[bytes] = frozenset()

    def base(self, strip: Strip, index: int) -> Base | None:
        """Return the chunk of a group, if there is one."""
        if index >= len(strip.groups):
            return None
        group, at = strip.groups[index], strip.start(index)
        raw = self.raws.get(group.link.digest)
        return Base(group.link.digest, self.text[at : at + group.size] if raw is None else raw)

    @property
    def cost(self) -> int:
        """About how many bytes of memory it takes."""
        raws = sum(map(len, self.raws.values()))
        return len(self.text) + raws + 400 * len(self.digests) + 1000


def memo_of(text: bytes, root: bytes) -> Memo:
    """Return the memo of a text that is one chunk."""
    return Memo(text, root=root, digests=frozenset((root,)))


def whole_of(memo: Memo | None) -> Base | None:
    """Return the root of the tree that a memo is of."""
    return Base(memo.root, memo.raws.get(memo.root, memo.text)) if memo and memo.root else None
