"""Capture trees as specs/capture-tree.md has them: vectors that were made by the page alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blake3 import blake3

from ckptlog.blobs.chunker import Chunker
from ckptlog.blobs.pieces import Pieces, Root
from ckptlog.blobs.tree_writer import TreeWriter
from ckptlog.formats.store import Chunker as Parameters
from tools.vectors import capture_vectors
from tools.vectors.capture_vectors import made

CAPTURES = json.loads(
    (Path(__file__).parents[1] / "vectors" / "payload" / "captures.json").read_text("utf-8")
)["captures"]


def component(writer: TreeWriter, kind: str, *rest: Any) -> Root:
    if kind == "files":
        files = writer.mapping()
        for key, size, seed in rest[0]:
            files.add(key, writer.raw(made(size, seed)))
        return writer.root(files.finish())
    if kind == "raw":
        return writer.root(writer.raw(made(*rest)))
    block, size, seed = rest
    content = made(size, seed)
    return writer.root(writer.blocks(content[at : at + block] for at in range(0, size, block)))


@pytest.mark.parametrize("vector", CAPTURES, ids=lambda vector: vector["name"])
def test_capture(vector: dict[str, Any]) -> None:
    digests: set[bytes] = set()
    writer = TreeWriter(lambda digest, *_: digests.add(digest), Chunker(Parameters()))
    top = writer.mapping()
    for kind, name, *rest in sorted(vector["capture"], key=lambda one: one[1]):
        top.add(name, Pieces((component(writer, kind, *rest).link,)))
    assert msgspec.to_builtins(writer.root(top.finish()).reference) == vector["reference"]
    assert len(digests) == vector["chunks"]
    assert blake3(b"".join(sorted(digests))).hexdigest() == vector["digests_blake3"]


def test_the_vectors_are_what_their_maker_makes() -> None:
    assert capture_vectors.vectors() == CAPTURES
