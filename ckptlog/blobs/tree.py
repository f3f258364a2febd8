"""The payload tree: a value's JSON text cut along its structure, under one root (specs/payload.md).

    text -> items of its long containers -> groups of items, cut by content -> chunks
         -> groups of links, cut by content -> chunks -> ... -> the root

What is open stays inline: behind the last cut of a container its newest items, and on each level
the newest links, stand in the chunk of what is around it. So appending to a list of any length
changes the one chunk that the list's end lies in, and now and then closes a group.

Invariants:
* A tree is a function of its text: no cut, digest or level depends on what was stored before. What
  is remembered (a Memo) only saves doing again what would come out the same: a group is taken from
  it where an item begins and nothing is gathered, if its bytes stand there, every one, and behind
  them one that ends an item. A group depends on nothing else. Where to look is only guessed: in
  the container of the same key, behind the group before, or behind an item that drew the same
  number.
* The leaves and the texts in the branches, in order, are the text; nothing is said twice.
* What was changed anywhere in a value is in its text, as different values have different texts
  (specs/values.md, law 2), and the bytes that are compared with the memo are the bytes that are
  stored: both come from the one read of the value that made the text.
"""

from __future__ import annotations

import binascii
import re
import sys
from bisect import bisect
from collections.abc import Container, Iterator, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

from ckptlog.blobs.chunker import Chunker
from ckptlog.blobs.memo import Base, Group, Memo, Strip, whole_of
from ckptlog.errors import UnstorableError
from ckptlog.formats import branch, chunk
from ckptlog.formats.branch import BRANCH, BYTES, LEAF, LINK_WEIGHT, Link
from ckptlog.formats.json_text import (
    CLOSING,
    COMMA,
    OPENING,
    QUOTE,
    Bounds,
    end_of_string,
    end_of_value,
    is_same,
    number_of,
    run_of_items,
)

# A container whose parts weigh no more than this is not cut.
INLINE_MAX: Final = 16 * 1024
# Where a group of items ends.
BOUNDS: Final = Bounds(2 * 1024, 4 * 1024, 16 * 1024)
FANOUT_MIN: Final = 4
FANOUT_MEAN: Final = 16
FANOUT_MAX: Final = 64
LEVEL_MAX: Final = 12

_BYTES_KEYS: Final = frozenset({b'"$bytes":', b'"$bytearray":'})
_array_before = re.compile(
    rb'\{"dtype":"[^"\\]{1,24}","shape":\[[0-9,]*\],(?:"order":"F",)?\Z'
).search
_ARRAY_HEAD_BYTES: Final = 1024
_first = itemgetter(0)
_ITEMS_MAX: Final = sys.maxsize
# Containers of one key that are looked at for the same groups.
_STRIPS_TRIED: Final = 8
_BRACE: Final = ord("{")
_BEHIND_ITEMS: Final = frozenset(b",]}")

# A stretch of the text, or a link that stands for one.
Piece = tuple[int, int] | Link


_NO_MEMO: Final = Memo()
_NO_STRIP: Final = Strip(0)


class Chunk(NamedTuple):
    """A chunk of a tree. base: What it may be stored as a difference from."""

    domain: int
    raw: bytes
    base: Base | None


class Tree(NamedTuple):
    """A cut text.

    root: Its digest. is_leaf: Whether that is a chunk of text.
    chunks: Those that were made, by digest; not those that only the memo knows.
    digests: Of all.
    """

    root: bytes
    is_leaf: bool
    chunks: dict[bytes, Chunk]
    digests: frozenset[bytes]
    memo: Memo


def grow(
    text: bytes, chunker: Chunker, *, memo: Memo | None = None, known: Container[bytes] = ()
) -> Tree:
    """Return the tree of a text.

    Args:
        memo: Of the tree that it probably comes from; any, or none, gives the same tree.
        known: Digests that need no chunk, because they are stored, with everything below them. Only
            these are taken from the memo without being made.

    Threads: safe.        Cost: O(changed bytes) beside a comparison with the memo's text.
    """
    return _Growing(text, chunker, memo, known).tree()


class _Growing:
    """One tree while it grows."""

    def __init__(
        self, text: bytes, chunker: Chunker, memo: Memo | None, known: Container[bytes]
    ) -> None:
        self._text = text
        self._cut = chunker.cut
        self._known = known
        self._old = memo or _NO_MEMO
        self._chunks: dict[bytes, Chunk] = {}
        self._strips: dict[bytes, list[Strip]] = {}
        self._nodes: dict[bytes, tuple[list[Link], Link]] = {}
        self._below: dict[bytes, tuple[bytes, ...]] = {}
        self._raws: dict[bytes, bytes] = {}
        # How many containers with a key were met, and what of the memo lies where.
        self._met: dict[bytes, int] = {}
        self._order: list[tuple[int, bytes, Strip]] | None = None
        # The usual case, so that it is not asked for each group.
        self._is_old_known = known is self._old.digests

    def tree(self) -> Tree:
        text, old = self._text, self._old
        end, pieces, _ = self._value(0, whole_of(old))
        if end != len(text):
            raise ValueError(f"The text goes on behind its value, at {end}.")
        root = self._keep(_merged(pieces), whole_of(old))
        digests = frozenset((root.digest, *self._below.get(root.digest, ())))
        memo = Memo(text, self._strips, self._nodes, self._below, root.digest, self._raws, digests)
        return Tree(root.digest, root.kind == LEAF, self._chunks, digests, memo)

    # --- values -----------------------------------------------------------------------------

    def _value(
        self, at: int, within: Base | None, key: bytes = b"", around: int = -1
    ) -> tuple[int, list[Piece], int]:
        """Return (end, pieces, weight) of the value at `at`.

        Args:
            within: The old chunk that the value lay in, if it was there.
            key: With quotes and colon, where it is the value of one.
            around: Where the object around it begins, -1 where there is none.
        """
        text = self._text
        end = end_of_value(text, at, INLINE_MAX)
        if end >= 0:
            return end, [(at, end)], end - at
        if text[at] == QUOTE:
            return self._string(at, key, around)
        if text[at] in OPENING:
            found = self._container(at, key, self._strip(at, key), within)
            # None: a group was taken from the memo, and the container has become too short for it.
            return found or self._container(at, key, _NO_STRIP, within)  # type: ignore[return-value]
        raise ValueError(f"No value of the text at {at} has so many bytes.")

    def _string(self, at: int, key: bytes, around: int) -> tuple[int, list[Piece], int]:
        text = self._text
        end = end_of_string(text, at)
        content = text[at + 1 : end - 1]
        if key in _BYTES_KEYS or (key == b'"data":' and self._is_array(at - len(key), around)):
            raw = _canonical_base64(content)
            if raw is not None:
                pieces: list[Piece] = [(at, at + 1), self._bytes(raw), (end - 1, end)]
                return end, pieces, LINK_WEIGHT + 2
        cuts = self._cut(content)
        links = self._levels([self._leaf(stretch) for stretch in cuts[:-1]])
        pieces = [(at, at + 1), *links, (end - 1 - len(cuts[-1]), end)]
        return end, pieces, _weight(pieces)

    def _is_array(self, key_at: int, around: int) -> bool:
        """Say whether the key belongs to an object as arrays have it."""
        head = self._text[around:key_at]
        return len(head) <= _ARRAY_HEAD_BYTES and _array_before(head) is not None

    def _bytes(self, raw: bytes) -> Link:
        """Return the link for raw bytes: a branch of pieces that were cut by content."""
        cuts = self._cut(raw)
        links = self._levels([self._leaf(stretch) for stretch in cuts[:-1]])
        digest = self._branch([*links, cuts[-1]], None)
        return Link(BYTES, digest, len(raw), 0)

    def _leaf(self, raw: bytes) -> Link:
        return Link(LEAF, self._chunk(chunk.LEAF, raw, None), len(raw), 0)

    # --- containers -------------------------------------------------------------------------

    def _container(
        self, at: int, key: bytes, old: Strip, within: Base | None
    ) -> tuple[int, list[Piece], int] | None:
        """Return (end, pieces, weight) of a long container; None as `_value` says."""
        text, memo = self._text, self._old
        closed: list[Group | _Closing] = []
        pieces: list[Piece] = []
        place = start = at + 1
        gathered = items = total = guess = 0
        # How the container begins as it did: mostly all of it but its end.
        same = self._taken(old, 0, place) if old.groups and text[place] not in CLOSING else 0
        if same:
            place, guess = self._carried(old, 0, same, place)
            start, total = place, old.weight(0, same)
        while text[place] not in CLOSING:
            if not gathered and guess < len(old.groups):
                taken = self._taken(old, guess, place)
                if taken:
                    closed += old.groups[guess : guess + taken]
                    total += old.weight(guess, guess + taken)
                    place, guess = self._carried(old, guess, taken, place)
                    start = place
                    continue
            begin = place
            place, gathered_now, count, drawn, is_closed = run_of_items(
                text,
                place,
                gathered,
                BOUNDS,
                is_object=text[at] == _BRACE,
                inline_max=INLINE_MAX,
                items_max=_ITEMS_MAX,
            )
            if count:
                pieces.append((begin, place))
            else:  # a long item
                base = memo.base(old, guess) or within
                found = self._long_item(place, at, gathered, base)
                place, item, gathered_now, drawn, is_closed = found
                pieces, count = pieces + item, 1
            total += gathered_now - gathered
            gathered = gathered_now
            items += count
            if is_closed:
                closed.append(_Closing(start, place, gathered, items, pieces, drawn, guess))
                pieces, start, gathered, items = [], place, 0, 0
                is_same_end = guess < len(old.groups) and old.groups[guess].last == drawn
                guess = guess + 1 if is_same_end else old.behind(drawn)
        head, tail = (at, at + 1), (place, place + 1)
        if total <= INLINE_MAX:
            if same or any(type(one) is Group for one in closed):
                return None
            inline = [piece for one in closed for piece in one.pieces]  # type: ignore[union-attr]
            return place + 1, [head, *inline, *pieces, tail], total + 2
        strip = self._cut_off(at, same, closed, old, None if old.groups else within)
        if strip.groups:
            self._strips.setdefault(key, []).append(strip)
        pieces = [head, *self._levels(strip.links), *pieces, tail]
        return place + 1, pieces, _weight(pieces)

    def _long_item(
        self, place: int, around: int, gathered: int, within: Base | None
    ) -> tuple[int, list[Piece], int, int, bool]:
        """Return (end, pieces, gathered, drawn, is_closed) of an item that may be cut itself."""
        begin = place + (self._text[place] == COMMA)
        end, item, weight = self._item(begin, around, within)
        pieces: list[Piece] = [(place, begin), *item] if begin != place else item
        gathered += weight
        if gathered < BOUNDS.least:
            return end, pieces, gathered, 0, False
        drawn = self._drawn(item)
        is_closed = drawn % BOUNDS.mean < weight or gathered >= BOUNDS.most
        return end, pieces, gathered, drawn, is_closed

    def _cut_off(
        self,
        at: int,
        same: int,
        closed: list[Group | _Closing],
        old: Strip,
        cut_from: Base | None,
    ) -> Strip:
        """Return a container's closed groups.

        Args:
            same: Groups with which it begins as the old one did; `closed` are those behind them.
            cut_from: Where it was not cut before, the chunk that all of its groups come out of.
        """
        made = (
            one
            if isinstance(one, Group)
            else self._group(one, self._old.base(old, one.guess) or cut_from)
            for one in closed
        )
        return old.followed(at + 1, same, made)

    def _group(self, one: _Closing, base: Base | None) -> Group:
        link = self._keep(_merged(one.pieces), base, one.items)
        return Group(one.end - one.start, one.weight, one.drawn, link)

    def _item(self, at: int, around: int, within: Base | None) -> tuple[int, list[Piece], int]:
        if self._text[around] != _BRACE:
            return self._value(at, within)
        colon = end_of_string(self._text, at)
        key = self._text[at : colon + 1]
        end, pieces, weight = self._value(colon + 1, within, key, around)
        return end, [(at, colon + 1), *pieces], weight + colon + 1 - at

    def _drawn(self, item: list[Piece]) -> int:
        return number_of(b"".join(self._raw_pieces(_merged(item))))

    def _raw_pieces(self, pieces: list[Piece]) -> Iterator[bytes]:
        for part in self._parts(pieces):
            yield part if type(part) is bytes else part.digest  # type: ignore[union-attr]

    # --- the memo ---------------------------------------------------------------------------

    def _strip(self, at: int, key: bytes) -> Strip:
        """Return the old groups of what is probably the same container."""
        strips = self._old.strips.get(key)
        if strips is None:
            return _NO_STRIP
        met = self._met.get(key, 0)
        self._met[key] = met + 1
        if len(strips) > 1:
            for strip in strips[met : met + _STRIPS_TRIED]:
                if self._stands(strip, 0, 1, at + 1):
                    return strip
        return strips[min(met, len(strips) - 1)]

    def _stands(self, strip: Strip, first: int, behind: int, here: int) -> bool:
        """Say whether old groups stand in the new text too, unchanged, each stored."""
        text = self._text
        begin, end = strip.start(first), strip.start(behind)
        stop = here + end - begin
        if stop >= len(text) or text[stop] not in _BEHIND_ITEMS:
            return False
        if not is_same(text, here, self._old.text, begin, end - begin):
            return False
        known = self._known
        return self._is_old_known or all(
            group.link.digest in known for group in strip.groups[first:behind]
        )

    def _taken(self, strip: Strip, first: int, here: int) -> int:
        """Return how many old groups, from one on, stand here in the new text."""
        count = len(strip.groups)
        if self._stands(strip, first, count, here):
            return count - first
        # Twice as many each time, then half as many: nothing is compared more than thrice.
        low, step = first, 1
        while low + step < count and self._stands(
            strip, low, low + step, here + strip.start(low) - strip.start(first)
        ):
            low += step
            step *= 2
        while step > 1:
            step //= 2
            if low + step <= count and self._stands(
                strip, low, low + step, here + strip.start(low) - strip.start(first)
            ):
                low += step
        return low - first

    def _carried(self, old: Strip, first: int, count: int, place: int) -> tuple[int, int]:
        """Step over old groups that stand at a place; return the place and the group behind."""
        begin, behind = old.start(first), first + count
        end = old.start(behind)
        if old.deep:
            self._carry(old, (first, behind), (begin, end), place - begin)
        return place + end - begin, behind

    def _carry(
        self, strip: Strip, groups: tuple[int, int], stretch: tuple[int, int], shift: int
    ) -> None:
        """Keep what the memo knows about what lies below old groups."""
        old, (begin, end) = self._old, stretch
        deep = [index for index in strip.deep if groups[0] <= index < groups[1]]
        if not deep:
            return
        for index in deep:
            digest = strip.links[index].digest
            self._below[digest] = old.below[digest]
            self._raws[digest] = old.raws[digest]
        if self._order is None:
            self._order = sorted(
                (
                    (strip.begin, key, strip)
                    for key, strips in old.strips.items()
                    for strip in strips
                ),
                key=_first,
            )
        for index in range(bisect(self._order, begin, key=_first), len(self._order)):
            place, key, inner = self._order[index]
            if place >= end:
                break
            self._strips.setdefault(key, []).append(inner.moved(shift))
            for deeper in inner.deep:
                digest = inner.links[deeper].digest
                self._below[digest] = old.below[digest]
                self._raws[digest] = old.raws[digest]

    # --- chunks -----------------------------------------------------------------------------

    def _levels(self, links: list[Link]) -> list[Link]:
        """Return links with those of closed groups behind links of their own, level by level."""
        rest: list[list[Link]] = []
        for _ in range(LEVEL_MAX):
            nodes, open_links = self._grouped(links)
            rest.append(open_links)
            if not nodes:
                return [link for level in reversed(rest) for link in level]
            links = nodes
        raise UnstorableError(f"The value's tree is deeper than {LEVEL_MAX} levels.")

    def _grouped(self, links: list[Link]) -> tuple[list[Link], list[Link]]:
        """Cut a run of links by content; return links to the closed groups, and the open rest."""
        nodes: list[Link] = []
        begin = 0
        while True:
            known = self._old_node(links, begin)
            end = begin + len(known[0]) if known else _end_of_group(links, begin)
            if end < 0:
                return nodes, links[begin:]
            run = known[0] if known else links[begin:end]
            node = known[1] if known else self._node(run)
            self._nodes[links[begin].digest] = run, node
            nodes.append(node)
            begin = end

    def _old_node(self, links: list[Link], begin: int) -> tuple[list[Link], Link] | None:
        """Return the group that begins at a link, where the memo has it and it is stored."""
        found = self._old.nodes.get(links[begin].digest) if begin < len(links) else None
        if found is None or not self._is_stored(found[1].digest):
            return None
        if links[begin : begin + len(found[0])] != found[0]:
            return None
        self._below[found[1].digest] = self._old.below[found[1].digest]
        return found

    def _node(self, links: list[Link]) -> Link:
        size = sum([link.size for link in links])
        items = sum([link.items for link in links])
        return Link(BRANCH, self._branch(links, None), size, items)

    def _is_stored(self, digest: bytes) -> bool:
        return self._is_old_known or digest in self._known

    def _keep(self, pieces: list[Piece], base: Base | None, items: int = 0) -> Link:
        """Make a chunk of merged pieces."""
        if len(pieces) == 1 and type(pieces[0]) is tuple:
            begin, end = pieces[0]
            raw = self._text[begin:end]
            return Link(LEAF, self._chunk(chunk.LEAF, raw, base), len(raw), items)
        parts = list(self._parts(pieces))
        digest = self._branch(parts, base, is_kept=True)
        size = sum(len(part) if isinstance(part, bytes) else text_size(part) for part in parts)
        return Link(BRANCH, digest, size, items)

    def _parts(self, pieces: list[Piece]) -> Iterator[branch.Part]:
        text = self._text
        for piece in pieces:
            yield text[piece[0] : piece[1]] if type(piece) is tuple else piece  # type: ignore[misc]

    def _branch(
        self, parts: Sequence[branch.Part], base: Base | None, *, is_kept: bool = False
    ) -> bytes:
        raw = branch.encode(parts)
        digest = self._chunk(chunk.BRANCH, raw, base)
        below: list[bytes] = []
        for part in parts:
            if type(part) is Link:
                below.append(part.digest)
                below += self._below.get(part.digest, ())
        self._below[digest] = tuple(below)
        if is_kept:
            self._raws[digest] = raw
        return digest

    def _chunk(self, domain: int, raw: bytes, base: Base | None) -> bytes:
        digest = chunk.digest_of(domain, raw)
        if digest not in self._known and digest not in self._chunks:
            self._chunks[digest] = Chunk(domain, raw, base)
        return digest


class _Closing(NamedTuple):
    """A group that ends, before it is known whether its container is cut at all."""

    start: int
    end: int
    weight: int
    items: int
    pieces: list[Piece]
    drawn: int
    guess: int


def _end_of_group(links: list[Link], begin: int) -> int:
    """Return the index behind the group of links that begins at one; -1 where it is open."""
    stop = min(begin + FANOUT_MAX, len(links))
    for index in range(begin + FANOUT_MIN - 1, stop):
        if links[index].digest[0] % FANOUT_MEAN == 0:
            return index + 1
    return stop if stop == begin + FANOUT_MAX else -1


def _merged(pieces: list[Piece]) -> list[Piece]:
    """Join stretches of text that follow one another."""
    merged: list[Piece] = []
    begin = end = -1
    for piece in pieces:
        if type(piece) is tuple:
            if begin < 0:
                begin, end = piece
            else:
                end = piece[1]
            continue
        if begin >= 0:
            merged.append((begin, end))
            begin = -1
        merged.append(piece)
    if begin >= 0:
        merged.append((begin, end))
    return merged


def _weight(pieces: list[Piece]) -> int:
    return sum(LINK_WEIGHT if isinstance(piece, Link) else piece[1] - piece[0] for piece in pieces)


def _canonical_base64(content: bytes) -> bytes | None:
    try:
        raw = binascii.a2b_base64(content, strict_mode=True)
    except ValueError:
        return None
    return raw if raw and binascii.b2a_base64(raw, newline=False) == content else None


def text_size(link: Link) -> int:
    """Return how many bytes of text a link stands for."""
    return (link.size + 2) // 3 * 4 if link.kind == BYTES else link.size
