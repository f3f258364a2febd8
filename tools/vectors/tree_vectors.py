"""Payload trees by the page alone: specs/payload.md written out plainly, and vectors made by it.

Nothing here knows the package: it reads the text with its own eyes, cuts it whole each time, and
remembers nothing. It is slow. The tests hold ckptlog/blobs/tree.py against it, on the vectors and
on made-up values.

Usage: tree_vectors.py FILE    writes the vectors; they are made once, and then fixed
"""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from blake3 import blake3
from xxhash import xxh64_intdigest

LEAF, BRANCH, BYTES = 1, 2, 3
LINK_WEIGHT = 36


class Rules(NamedTuple):
    """The numbers of the page."""

    inline_max: int = 16 * 1024
    least: int = 2 * 1024
    mean: int = 4 * 1024
    most: int = 16 * 1024
    fanout_min: int = 4
    fanout_mean: int = 16
    fanout_max: int = 64
    head_max: int = 1024


class Link(NamedTuple):
    """What stands in a branch for a chunk."""

    kind: int
    items: int
    size: int
    digest: bytes


Piece = bytes | Link


class Planted(NamedTuple):
    """A tree: the reference's kind and root, and every chunk: digest to (domain, raw bytes)."""

    kind: str
    root: bytes
    chunks: dict[bytes, tuple[int, bytes]]


class Planter:
    """Plants the tree of one text.

    Args:
        cut: FastCDC with the store's parameters.
    """

    def __init__(self, cut: Callable[[bytes], list[bytes]], rules: Rules) -> None:
        self.cut = cut
        self.rules = rules
        self.chunks: dict[bytes, tuple[int, bytes]] = {}

    def plant(self, text: bytes) -> Planted:
        """Return the tree of a text."""
        pieces, _ = self._value(text, b"", b"")
        link = self._chunk(joined(pieces), 0)
        return Planted("leaf" if link.kind == LEAF else "tree", link.digest, self.chunks)

    def _value(self, text: bytes, key: bytes, head: bytes) -> tuple[list[Piece], int]:
        """Return (pieces, weight) of a value. key, head: As `items_of` has them."""
        if len(text) <= self.rules.inline_max:
            return [text], len(text)
        if not text.startswith(b'"'):
            return self._container(text)
        pieces = self._string(text[1:-1], key, head)
        return pieces, sum(map(space, pieces))

    def _string(self, content: bytes, key: bytes, head: bytes) -> list[Piece]:
        raw = None
        if key in {b'"$bytes"', b'"$bytearray"'}:
            raw = plain(content)
        if key == b'"data"' and len(head) <= self.rules.head_max and is_array(head):
            raw = plain(content)
        if raw is None:
            return [b'"', *self._stretches(content), b'"']
        inner = self._chunk(joined(self._stretches(raw)), 0, is_branch=True)
        return [b'"', Link(BYTES, 0, len(raw), inner.digest), b'"']

    def _stretches(self, content: bytes) -> list[Piece]:
        *closed, rest = self.cut(content)
        return [*self._levels([self._chunk([one], 0) for one in closed]), rest]

    def _container(self, text: bytes) -> tuple[list[Piece], int]:
        groups, counts, total = self._groups(text)
        begin, end = text[:1], text[-1:]
        if total <= self.rules.inline_max:
            return [begin, *(piece for group in groups for piece in group), end], total + 2
        *closed, rest = groups
        links = [
            self._chunk(joined(one), count) for one, count in zip(closed, counts, strict=False)
        ]
        whole = [begin, *self._levels(links), *rest, end]
        return whole, sum(map(space, whole))

    def _groups(self, text: bytes) -> tuple[list[list[Piece]], list[int], int]:
        """Return the pieces up to each cut, the items of each, and what all would take inline."""
        groups: list[list[Piece]] = [[]]
        counts = [0]
        total = gathered = 0
        for comma, key, value, head in items_of(text):
            front = key + b":" if key else b""
            pieces, heavy = self._value(value, key, head)
            item = joined([front, *pieces])
            heavy += len(front)
            groups[-1] += [comma, *item]
            counts[-1] += 1
            gathered += heavy
            total += heavy
            if gathered >= self.rules.least and self._is_end(item, heavy, gathered):
                groups.append([])
                counts.append(0)
                gathered = 0
        return groups, counts, total

    def _is_end(self, item: list[Piece], heavy: int, gathered: int) -> bool:
        spelled = b"".join(one if isinstance(one, bytes) else one.digest for one in item)
        is_drawn = xxh64_intdigest(spelled) % self.rules.mean < heavy
        return is_drawn or gathered >= self.rules.most

    def _levels(self, links: list[Link]) -> list[Link]:
        groups: list[list[Link]] = [[]]
        for link in links:
            groups[-1].append(link)
            full = len(groups[-1])
            is_cut = full >= self.rules.fanout_min and not link.digest[0] % self.rules.fanout_mean
            if is_cut or full == self.rules.fanout_max:
                groups.append([])
        *closed, rest = groups
        if not closed:
            return rest
        above = [self._chunk(list(one), sum(link.items for link in one)) for one in closed]
        return [*self._levels(above), *rest]

    def _chunk(self, pieces: list[Piece], items: int, *, is_branch: bool = False) -> Link:
        size = sum(map(length, pieces))
        if len(pieces) == 1 and isinstance(pieces[0], bytes) and not is_branch:
            kind, domain, raw = LEAF, 0, pieces[0]
        else:
            kind, domain, raw = BRANCH, 2, b"".join(map(spelled_out, pieces))
        digest = blake3(bytes([domain]) + raw).digest()
        self.chunks[digest] = domain, raw
        return Link(kind, items, size, digest)


def spelled_out(piece: Piece) -> bytes:
    """Return a piece as it stands in a branch (specs/branch.md)."""
    if isinstance(piece, bytes):
        return varint(len(piece) << 2) + piece
    return varint(piece.items << 2 | piece.kind) + varint(piece.size) + piece.digest


def varint(number: int) -> bytes:
    """Return a number, 7 bits a byte, the lowest first."""
    low, rest = number % 128, number // 128
    return bytes([low + 128]) + varint(rest) if rest else bytes([low])


def length(piece: Piece) -> int:
    """Return the bytes of text that a piece stands for."""
    if isinstance(piece, bytes):
        return len(piece)
    return len(base64.b64encode(bytes(piece.size))) if piece.kind == BYTES else piece.size


def space(piece: Piece) -> int:
    """Return what a piece takes in a branch, about."""
    return len(piece) if isinstance(piece, bytes) else LINK_WEIGHT


def joined(pieces: list[Piece]) -> list[Piece]:
    """Join texts that follow one another, and drop empty ones."""
    out: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, bytes) and not piece:
            continue
        if out and isinstance(piece, bytes) and isinstance(out[-1], bytes):
            out[-1] += piece
        else:
            out.append(piece)
    return out


def items_of(text: bytes) -> Iterator[tuple[bytes, bytes, bytes, bytes]]:
    """Yield (comma before it, key with quotes, value, text from the brace to the key) of items."""
    at = 1
    while at < len(text) - 1:
        comma = text[at : at + 1] if text[at] == ord(",") else b""
        begin = at + len(comma)
        key = head = b""
        value_at = begin
        if text[0] == ord("{"):
            stop = end_of(text, begin)
            key, head, value_at = text[begin:stop], text[:begin], stop + 1
        at = end_of(text, value_at)
        yield comma, key, text[value_at:at], head


# A text in quotes, a bracket, a comma or colon, or all of a number or literal.
TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[][{},:]|[^][{},:"]+', re.DOTALL)


def end_of(text: bytes, at: int) -> int:
    """Return where the value that begins at `at` ends."""
    depth = 0
    for token in TOKEN.finditer(text, at):
        depth += (token[0] in {b"[", b"{"}) - (token[0] in {b"]", b"}"})
        if not depth:
            return token.end()
    raise ValueError(f"No value begins at {at}.")


def plain(content: bytes) -> bytes | None:
    """Return what canonical base64 says, None where it is not that, or nothing."""
    try:
        raw = base64.b64decode(content, validate=True)
    except ValueError:
        return None
    return raw if raw and base64.b64encode(raw) == content else None


def is_array(head: bytes) -> bool:
    """Say whether an array's data may follow."""
    return bool(
        re.fullmatch(rb'\{"dtype":"[^"\\]{1,24}","shape":\[[0-9,]*\],("order":"F",)?', head)
    )


# --- vectors --------------------------------------------------------------------------------------


def noise(size: int, seed: str) -> bytes:
    """Return the first bytes of BLAKE3(seed) in its extendable form."""
    return blake3(seed.encode()).digest(length=size)


def made(recipe: dict[str, Any]) -> bytes:
    """Return the text that a recipe describes (specs/payload.md, Golden vectors)."""
    return json.dumps(_value(recipe), ensure_ascii=False, separators=(",", ":")).encode()


def _value(recipe: dict[str, Any]) -> Any:
    size, seed, of = recipe["size"], recipe["seed"], recipe.get("of", [])
    if recipe["kind"] == "many":
        return [_value(of | {"seed": f"{seed}{n}"}) for n in range(size)]
    if recipe["kind"] == "state":
        return {f"part{n}": _value(part) for n, part in enumerate(of)}
    return _PLAIN[recipe["kind"]](size, seed)


def _encoded(size: int, seed: str) -> str:
    return base64.b64encode(noise(size, seed)).decode()


_PLAIN: dict[str, Callable[[int, str], Any]] = {
    "noise": lambda size, seed: noise(size // 2, seed).hex(),
    "escapes": lambda size, seed: "".join(map(chr, noise(size, seed))),
    "bytes": lambda size, seed: {"$bytes": _encoded(size, seed)},
    "array": lambda size, seed: {
        "$array": {"dtype": "<f8", "shape": [size // 8], "data": _encoded(size, seed)}
    },
    "messages": lambda size, seed: [
        {"n": n, "text": noise(60, f"{seed}{n}").hex()} for n in range(size)
    ],
    "keys": lambda size, seed: {f"k{n}": noise(9, f"{seed}{n}").hex() for n in range(size)},
    "numbers": lambda size, _: list(range(size)),
}


def _recipe(kind: str, size: int, of: Any = None) -> dict[str, Any]:
    recipe: dict[str, Any] = {"kind": kind, "size": size, "seed": "tree"}
    return recipe if of is None else recipe | {"of": of}


RECIPES: dict[str, dict[str, Any]] = {
    "small": _recipe("messages", 3),
    "one-chunk-most": _recipe("noise", 16 * 1024 - 2),
    "just-over": _recipe("noise", 16 * 1024),
    "messages": _recipe("messages", 1000),
    "keys": _recipe("keys", 5000),
    "numbers": _recipe("numbers", 60_000),
    "long-text": _recipe("noise", 1_000_000),
    "escapes": _recipe("escapes", 200_000),
    "bytes": _recipe("bytes", 300_000),
    "array": _recipe("array", 400_000),
    "long-items": _recipe("many", 40, _recipe("noise", 30_000)),
    "lists-in-lists": _recipe("many", 30, _recipe("messages", 200)),
    "arrays": _recipe("many", 12, _recipe("array", 40_000)),
    "one-long-item": _recipe("many", 1, _recipe("many", 1, _recipe("messages", 500))),
    "state": _recipe(
        "state",
        0,
        [_recipe("messages", 300), _recipe("numbers", 5), _recipe("bytes", 50_000)],
    ),
}
CHUNKER = {"min": 1024, "mean": 2048, "max": 8192, "normalization": 2}


def vectors() -> list[dict[str, Any]]:
    """Return the vectors, each made from its recipe."""
    from pyfastcdc.py import FastCDC

    cutter = FastCDC(2048, min_size=1024, max_size=8192, normalized_chunking=2)

    def cut(data: bytes) -> list[bytes]:
        return [bytes(one.data) for one in cutter.cut_buf(data)] or [data]

    found = []
    for name, recipe in RECIPES.items():
        text = made(recipe)
        planted = Planter(cut, Rules()).plant(text)
        found.append(
            {
                "name": name,
                "input": recipe,
                "input_blake3": blake3(text).hexdigest(),
                "chunker": CHUNKER,
                "reference": {
                    "kind": planted.kind,
                    "root": planted.root.hex(),
                    "size": len(text),
                },
                "chunks": len(planted.chunks),
                # Of all digests, sorted and put together.
                "digests_blake3": blake3(b"".join(sorted(planted.chunks))).hexdigest(),
            }
        )
    return found


if __name__ == "__main__":
    document = json.dumps({"trees": vectors()}, indent=1) + "\n"
    Path(sys.argv[1]).write_text(document, encoding="utf-8")
