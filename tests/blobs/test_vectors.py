"""Golden vectors: cut points, chunk ids and roots that no change of ours or a library may move.

They were made by other code than the package's: the pure-Python form of FastCDC and hashing
written out by hand. A store that was written under other cuts shares nothing with what is written
after, so a failure here means a new chunker name in store.json, never new vectors.
"""

from __future__ import annotations

import json
from itertools import accumulate
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3

from ckptlog.blobs.chunker import Chunker
from ckptlog.blobs.codec import Codec
from ckptlog.blobs.payload import assemble, plant, split
from ckptlog.formats import chunk, store
from tools.vectors import tree_vectors

VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors" / "payload" / "vectors.json").read_text("utf-8")
)


def made(recipe: dict[str, object]) -> bytes:
    """Return the input that a recipe describes (specs/payload.md, section 6)."""
    size = int(str(recipe["size"]))
    if recipe["kind"] == "zeros":
        return bytes(size)
    seed = str(recipe["seed"]).encode()
    if recipe["kind"] == "xof":
        return blake3(seed).digest(length=size)
    lines = (
        b'{"n":%d,"text":"%s"}' % (n, blake3(seed + b"%d" % n).digest(length=60).hex().encode())
        for n in range(size)
    )
    return b"[" + b",".join(lines) + b"]"


@pytest.mark.parametrize("vector", VECTORS["payloads"], ids=lambda vector: vector["name"])
def test_payload(vector):
    wire = made(vector["input"])
    assert blake3(wire).hexdigest() == vector["input_blake3"]
    chunker, codec = Chunker(msgspec.convert(vector["chunker"], store.Chunker)), Codec()
    assert list(accumulate(map(len, chunker.cut(wire)))) == vector["cuts"]
    draft = split(wire, chunker, codec)
    assert msgspec.to_builtins(draft.reference) == vector["reference"]
    leaves = [name.hex() for name, record in draft.fresh if chunk.decode(record).domain == 0]
    nodes = [name.hex() for name, record in draft.fresh if chunk.decode(record).domain == 1]
    assert leaves == vector["leaves"]
    assert nodes == vector["nodes"]
    records = dict(draft.fresh)
    read = lambda name, domain: codec.raw(records[name], name, domain=domain)  # noqa: E731
    assert assemble(draft.reference, read) == wire


@pytest.mark.parametrize("vector", VECTORS["records"], ids=lambda vector: vector["name"])
def test_old_records_are_read_for_ever(vector):
    raw = made(vector["input"])
    digest = bytes.fromhex(vector["digest"])
    assert Codec().raw(bytes.fromhex(vector["record"]), digest, domain=vector["domain"]) == raw


def test_the_default_parameters_are_those_of_the_vectors():
    assert msgspec.to_builtins(store.Chunker()) in [
        vector["chunker"] for vector in VECTORS["payloads"]
    ]


TREES = json.loads(
    (Path(__file__).parents[1] / "vectors" / "payload" / "trees.json").read_text("utf-8")
)["trees"]


@pytest.mark.parametrize("vector", TREES, ids=lambda vector: vector["name"])
def test_tree(vector):
    wire = tree_vectors.made(vector["input"])
    assert blake3(wire).hexdigest() == vector["input_blake3"]
    chunker, codec = Chunker(msgspec.convert(vector["chunker"], store.Chunker)), Codec()
    draft = plant(wire, chunker, lambda name, one: codec.encode(one.domain, name, one.raw))
    assert msgspec.to_builtins(draft.reference) == vector["reference"]
    assert len(draft.digests) == vector["chunks"]
    assert blake3(b"".join(sorted(draft.digests))).hexdigest() == vector["digests_blake3"]
    records = dict(draft.fresh)
    read = lambda name, domain: codec.raw(records[name], name, domain=domain)  # noqa: E731
    assert assemble(draft.reference, read) == wire


def test_the_vectors_of_trees_are_what_their_maker_makes():
    assert tree_vectors.vectors() == TREES
