"""Writes a dict or a list item by item, and takes over groups of items from an earlier tree.

A group depends on nothing but its items, in their order, and whether the container begins with it.
So a caller that knows which items are unchanged goes over the groups it remembers: one of whose
items none has changed, and between whose items none is new, is kept; any other is brought item by
item, until a group ends where an old one did.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ckptlog.blobs.pieces import Group, Levels, Pieces, pieces_of
from ckptlog.blobs.tree import BOUNDS
from ckptlog.errors import ArgumentError, UnstorableError
from ckptlog.formats.branch import Link, Part
from ckptlog.formats.json_text import number_of

KEY_BYTES_MAX = 64 * 1024
encode_key = msgspec.json.Encoder().encode

# Makes a chunk of parts that hold so many items.
Keep = Callable[[tuple[Part, ...], int], Link]


class ContainerWriter:
    """Writes the items of one dict or list, in order; `TreeWriter.mapping` and `listing` make it.

    Threads: one.

    Attributes:
        groups: Those that are closed, kept ones too, in order.
    """

    def __init__(
        self,
        keep: Keep,
        levels: Levels,
        is_stored: Callable[[bytes], bool],
        *,
        is_mapping: bool,
        is_sorted: bool = False,
    ) -> None:
        self._make = keep
        self._is_stored = is_stored
        self._is_mapping = is_mapping
        self._is_sorted = is_sorted
        self._levels = levels
        self._open: list[Part] = []
        self._gathered = self._items = self._count = 0
        self._first = self._last = ""
        self.groups: list[Group] = []

    @property
    def is_between(self) -> bool:
        """Whether no group is open, so that one could be kept here."""
        return not self._items

    def add(self, key: str, value: Pieces) -> None:
        """Add an item to a dict.

        Raises:
            UnstorableError: The key cannot be one here.
        """
        if not self._is_mapping:
            raise ArgumentError("A list has no keys.", hint="Use append.", argument="key")
        self._check_order(key)
        try:
            text = encode_key(key) + b":"
        except UnicodeEncodeError as error:
            raise UnstorableError(
                f"A key holds a lone surrogate: {ascii(key)[:80]}.",
                hint="Store it as the text of its bytes.",
            ) from error
        if len(text) > KEY_BYTES_MAX:
            raise UnstorableError(f"A key has {len(text)} bytes; at most {KEY_BYTES_MAX} fit.")
        self._add(key, pieces_of((text, *value.parts)))

    def append(self, value: Pieces) -> None:
        """Add an item to a list."""
        if self._is_mapping:
            raise ArgumentError("An item of a dict needs a key.", hint="Use add.", argument="key")
        self._add("", value)

    def keep(self, group: Group) -> bool:
        """Take over a closed group of an earlier tree, unread; False where it cannot stand here.

        It stands where no group is open, first where it was first, and in a dict with rising keys
        behind what is there. What cannot be kept must be added item by item.

        Args:
            group: All of its items are unchanged, and its chunks are stored and retained: it is
                one of the payload that the planting has as its witness.
        """
        is_first = not self._count
        if self._items or group.is_first != is_first or group.link.items < 1:
            return False
        if not self._is_stored(group.link.digest):
            return False
        self._check_order(group.first)
        self._close(group)
        return True

    def finish(self) -> Pieces:
        """Return the container."""
        head, tail = (b"{", b"}") if self._is_mapping else (b"[", b"]")
        if self._is_mapping and self._count == 1 and self._last.startswith("$"):
            head, tail = b'{"$object":{', b"}}"
        return pieces_of((head, *self._levels.links(), *self._open, tail))

    def _check_order(self, first: str) -> None:
        if self._is_mapping and self._is_sorted and self._count and first <= self._last:
            raise ArgumentError(
                f"The key {ascii(first)[:80]} comes behind {ascii(self._last)[:80]}; keys rise.",
                hint="Bring them sorted, each once.",
                argument="key",
            )

    def _add(self, key: str, item: Pieces) -> None:
        weight = item.weight
        if not self._items:
            self._first = key
        if self._count:
            self._open.append(b",")
        self._open += item.parts
        self._last = key
        self._items += 1
        self._count += 1
        self._gathered += weight
        if self._gathered < BOUNDS.least:
            return
        if self._gathered >= BOUNDS.most or _drawn(item) % BOUNDS.mean < weight:
            parts = pieces_of(self._open).parts
            link = self._make(parts, self._items)
            self._count -= self._items  # `_close` counts them
            self._close(Group(self._first, key, link, self._count == 0))

    def _close(self, group: Group) -> None:
        self.groups.append(group)
        self._levels.add(group.link)
        self._count += group.link.items
        self._last = group.last
        self._open, self._items, self._gathered = [], 0, 0


def _drawn(item: Pieces) -> int:
    parts = item.parts
    return number_of(b"".join([part if type(part) is bytes else part.digest for part in parts]))  # type: ignore[union-attr]
