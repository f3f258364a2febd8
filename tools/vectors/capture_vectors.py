"""Capture trees by the page alone: specs/capture-tree.md written out plainly, and its vectors.

Nothing here knows the package. Content is whole, each tree is made anew. A capture is a JSON list
of components: `["files", name, [[key, size, seed], ..]]` is a dict of raw contents, `["raw", name,
size, seed]` one, `["blocks", name, bytes of a block, size, seed]` one in blocks. Content: the first
`size` bytes of BLAKE3(seed) in its extendable form.

Usage: capture_vectors.py FILE    writes the vectors; they are made once, and then fixed
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

from blake3 import blake3
from pyfastcdc import FastCDC
from xxhash import xxh64_intdigest

LEAF, BRANCH, BYTES = 1, 2, 3
DOMAIN = {LEAF: b"\0", BRANCH: b"\2"}
Link = tuple[int, bytes, int, int]  # kind, digest, size, items
Part = bytes | Link


def made(size: int, seed: str) -> bytes:
    """Return content by its recipe."""
    return blake3(seed.encode()).digest(length=size) if size else b""


def number(value: int) -> bytes:
    """Return LEB128."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def text_size(part: Part) -> int:
    """Return the bytes of text that a part stands for."""
    if isinstance(part, bytes):
        return len(part)
    return (part[2] + 2) // 3 * 4 if part[0] == BYTES else part[2]


class Tree:
    """All chunks of one capture: digests."""

    def __init__(self) -> None:
        self.digests: set[bytes] = set()

    def chunk(self, kind: int, raw: bytes) -> bytes:
        """Add a chunk and return its digest."""
        digest = blake3(DOMAIN[kind] + raw).digest()
        self.digests.add(digest)
        return digest

    def branch(self, parts: list[Part]) -> bytes:
        """Add a branch of parts."""
        raw = b""
        for part in parts:
            if isinstance(part, bytes):
                raw += number(len(part) << 2) + part
            else:
                kind, digest, size, items = part
                raw += number(items << 2 | kind) + number(size) + digest
        return self.chunk(BRANCH, raw)

    def levels(self, links: list[Link]) -> list[Link]:
        """Cut a run of links into groups, level by level."""
        closed: list[Link] = []
        run: list[Link] = []
        for link in links:
            run.append(link)
            if (len(run) >= 4 and link[1][0] % 16 == 0) or len(run) == 64:
                size, items = sum(one[2] for one in run), sum(one[3] for one in run)
                closed.append((BRANCH, self.branch(list(run)), size, items))
                run = []
        return [*self.levels(closed), *run] if closed else run

    def pieces(self, stretches: list[bytes]) -> list[Part]:
        """Return a bytes value of leaves."""
        links: list[Link] = [(LEAF, self.chunk(LEAF, one), len(one), 0) for one in stretches]
        digest = self.branch([*self.levels(links)])
        return [b'{"$bytes":"', (BYTES, digest, sum(map(len, stretches)), 0), b'"}']

    def raw(self, content: bytes) -> list[Part]:
        """Return a bytes value."""
        if len(content) <= 512:
            return [b'{"$bytes":"' + base64.b64encode(content) + b'"}']
        if len(content) <= 8192:
            link = (BYTES, self.branch([content]), len(content), 0)
            return [b'{"$bytes":"', link, b'"}']
        cutter = FastCDC(65536, min_size=16384, max_size=262144, normalized_chunking=2)
        return self.pieces([bytes(one.data) for one in cutter.cut_buf(content)])

    def mapping(self, items: list[tuple[str, list[Part]]]) -> list[Part]:
        """Return a dict."""
        links: list[Link] = []
        group: list[Part] = []
        count = gathered = 0
        for index, (key, value) in enumerate(items):
            item = joined([json.dumps(key).encode() + b":", *value])
            group += [b"," if index else b"", *item]
            weight = sum(len(part) if isinstance(part, bytes) else 36 for part in item)
            drawn = xxh64_intdigest(
                b"".join(part if isinstance(part, bytes) else part[1] for part in item)
            )
            count, gathered = count + 1, gathered + weight
            if gathered >= 2048 and (drawn % 4096 < weight or gathered >= 16384):
                links.append(self.whole(joined(group), count))
                group, count, gathered = [], 0, 0
        return joined([b"{", *self.levels(links), *group, b"}"])

    def whole(self, parts: list[Part], items: int) -> Link:
        """Make parts a chunk."""
        size = sum(map(text_size, parts))
        if len(parts) == 1 and isinstance(parts[0], bytes):
            return LEAF, self.chunk(LEAF, parts[0]), size, items
        return BRANCH, self.branch(parts), size, items


def joined(parts: list[Part]) -> list[Part]:
    """Join texts that follow one another."""
    out: list[Part] = []
    for part in parts:
        if isinstance(part, bytes) and out and isinstance(out[-1], bytes):
            out[-1] += part
        elif part:
            out.append(part)
    return out


def planted(recipe: list[list[Any]]) -> dict[str, Any]:
    """Return what a capture comes to."""
    tree = Tree()
    top: list[tuple[str, list[Part]]] = []
    for kind, name, *rest in sorted(recipe, key=lambda one: one[1]):
        if kind == "files":
            files = [(key, tree.raw(made(size, seed))) for key, size, seed in rest[0]]
            value = tree.mapping(files)
        elif kind == "raw":
            value = tree.raw(made(rest[0], rest[1]))
        else:
            content = made(rest[1], rest[2])
            value = tree.pieces(
                [content[at : at + rest[0]] for at in range(0, len(content), rest[0])]
            )
        top.append((name, [tree.whole(value, 0)]))
    kind, root, size, _ = tree.whole(tree.mapping(top), 0)
    return {
        "reference": {
            "kind": "leaf" if kind == LEAF else "tree",
            "root": root.hex(),
            "size": size,
        },
        "chunks": len(tree.digests),
        "digests_blake3": blake3(b"".join(sorted(tree.digests))).hexdigest(),
    }


RECIPES: dict[str, list[list[Any]]] = {
    "empty": [["files", "files", []]],
    "sizes": [
        ["raw", f"r{size}", size, f"size {size}"]
        for size in (0, 1, 512, 513, 8192, 8193, 16384, 70_000, 300_000)
    ],
    "files": [
        ["files", "tree", [[f"d/{n:04}", n * 37 % 3001, f"file {n}"] for n in range(1500)]],
        ["raw", "model", 3_000_000, "model"],
    ],
    "pages": [["blocks", "db", 4096, 4096 * 900, "pages"]],
}


def vectors() -> list[dict[str, Any]]:
    """Return the vectors."""
    return [
        {"name": name, "capture": recipe, **planted(recipe)} for name, recipe in RECIPES.items()
    ]


if __name__ == "__main__":
    text = json.dumps({"captures": vectors()}, separators=(",", ":"))
    Path(sys.argv[1]).write_text(text + "\n", encoding="utf-8")
