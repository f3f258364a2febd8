"""Stored values put together with their raw bytes beside the text: the same values, to the byte."""

from __future__ import annotations

import binascii

import msgspec
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptlog.blobs import payload
from ckptlog.blobs.chunker import Chunker
from ckptlog.blobs.payload import text_of, value_of
from ckptlog.blobs.pieces import pieces_of
from ckptlog.errors import FormatError
from ckptlog.formats import branch, chunk
from ckptlog.formats.branch import BYTES, LEAF, Link
from ckptlog.formats.store import Chunker as Parameters
from ckptlog.model import value as values
from ckptlog.model.codec import Codecs, TypeCodec
from tests.blobs.sample import noise
from tests.blobs.test_tree_writer import Chunks
from tests.model.codec_cases import Point

LONG = payload._BESIDE_BYTES_MIN

raws = st.builds(
    lambda size, seed: noise(size, bytes([seed])),
    st.sampled_from([0, 3, LONG - 1, LONG, 40_000, 300_000]),
    st.integers(0, 3),
)
arrays = st.builds(
    lambda raw, kind, order: numpy.frombuffer(raw[: len(raw) // 128 * 128], kind).reshape(
        (-1, 8), order=order
    ),
    raws,
    st.sampled_from(["u1", "f8", "<M8[s]", "c16"]),
    st.sampled_from("CF"),
)
leaves = raws | raws.map(bytearray) | arrays | st.text(max_size=5) | st.booleans()
nested = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "$b", "data", "$bytes"]), inner, max_size=3)
        | st.tuples(inner)
    ),
    max_leaves=6,
)


def written(value, codecs=None):
    """Write a value as a manager does, with every stretch of base64 as raw bytes."""
    chunks = Chunks()
    wire = values.prepare(value, codecs=codecs or Codecs()).wire

    def encode(name, one):
        chunks[name] = one.domain, one.raw
        return one.raw

    reference = payload.plant(wire, Chunker(Parameters()), encode).reference
    return chunks, reference, wire


@settings(max_examples=30, deadline=None)
@given(nested)
def test_the_value_is_that_of_the_text(value):
    chunks, reference, wire = written(value)
    found = value_of(payload.parts_of(reference, chunks.read), chunks.read)
    assert values.prepare(found).wire == wire == values.prepare(values.decode(wire)).wire


@pytest.mark.parametrize("order", "CF")
def test_an_array_is_new_writable_and_its_own(order):
    value = numpy.asfortranarray(numpy.arange(9000.0).reshape(90, 100))
    value = value if order == "F" else numpy.ascontiguousarray(value)
    chunks, reference, _ = written(value)
    found = value_of(payload.parts_of(reference, chunks.read), chunks.read)
    assert found.flags[f"{order}_CONTIGUOUS"]
    assert found.flags.owndata
    assert found.flags.writeable
    assert (found == value).all()


def test_bytes_inside_of_a_registered_type_come_back():
    codecs = Codecs([TypeCodec.of(Point)])
    value = {"point": Point(1, noise(50_000))}
    chunks, reference, _ = written(value, codecs)
    assert value_of(payload.parts_of(reference, chunks.read), chunks.read, codecs) == value


def linked(chunks, raw):
    """Return a link to raw bytes, as it stands for base64 in a text."""
    leaf = chunk.digest_of(chunk.LEAF, raw)
    chunks.put(leaf, chunk.LEAF, raw)
    body = branch.encode([Link(LEAF, leaf, len(raw))])
    above = chunk.digest_of(chunk.BRANCH, body)
    chunks.put(above, chunk.BRANCH, body)
    return Link(BYTES, above, len(raw))


def test_base64_of_which_no_tag_is_said_is_text():
    """No writer of ours leaves such a link, but the format allows it: it means what it spells."""
    chunks, raw = Chunks(), noise(9000)
    text = binascii.b2a_base64(raw, newline=False).decode()
    for head, tail, want in [
        (b'"', b'"', text),
        (b'"x', b'"', "x" + text),
        (b'{"$array2":"', b'","b":1}', {"$array2": text, "b": 1}),
        (b'{"data":"', b'"}', {"data": text}),
    ]:
        parts = pieces_of((head, linked(chunks, raw), tail)).parts
        assert value_of(parts, chunks.read) == want == values.decode(text_of(parts, chunks.read))


def test_a_stored_text_is_no_stand_in(monkeypatch):
    """Whoever knows how stand-ins look gains nothing: the next reading has others."""
    chunks = Chunks()
    seen = []
    put = payload.Beside.put
    monkeypatch.setattr(
        payload.Beside, "put", lambda self, pieces: seen.append(put(self, pieces)) or seen[-1]
    )
    parts = [b'[{"$bytes":"', linked(chunks, noise(9000)), b'"}]']
    assert value_of(parts, chunks.read) == [noise(9000)]
    parts = [b'[{"$bytes":"%b"},{"$bytes":"' % seen[0], linked(chunks, noise(9000)), b'"}]']
    with pytest.raises(FormatError):
        value_of(parts, chunks.read)


@pytest.mark.parametrize(
    ("facts", "raw"),
    [
        ({"dtype": "|b1", "shape": [8192]}, b"\2" * 8192),
        ({"dtype": "<f8", "shape": [8192]}, b"\0" * 8192),
        ({"dtype": "<f8", "shape": [1024], "more": 1}, b"\0" * 8192),
        ({"dtype": "<U1", "shape": [2048]}, b"\xff" * 8192),
    ],
)
def test_an_array_that_is_none_is_refused(facts, raw):
    chunks = Chunks()
    head = b'{"$array":' + msgspec.json.encode(facts)[:-1] + b',"data":"'
    with pytest.raises(FormatError):
        value_of([head, linked(chunks, raw), b'"}}'], chunks.read)
