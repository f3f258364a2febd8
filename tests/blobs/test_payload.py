from __future__ import annotations

from unittest import mock

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.blobs import payload
from ckptlog.blobs.chunker import Chunker
from ckptlog.blobs.codec import Codec
from ckptlog.blobs.payload import assemble, digests_of, split
from ckptlog.errors import BlobCorruptionError, MissingBlobError, UnstorableError
from ckptlog.formats import branch, chunk, node
from ckptlog.formats.branch import Link
from ckptlog.formats.store import Chunker as Parameters
from ckptlog.model.event import Reference
from tests.blobs.sample import digest, messages, noise, text

CODEC = Codec()
CHUNKER = Chunker(Parameters())
SMALL = Chunker(Parameters(min=64, mean=256, max=1024))


class Shelf(dict):
    """Records by digest, read as a store would."""

    def take(self, draft):
        self.update(draft.fresh)
        return draft

    def read(self, name, domain):
        if name not in self:
            raise MissingBlobError(name.hex())
        return CODEC.raw(self[name], name, domain=domain)

    def put(self, domain, raw):
        name, self[name] = (found := CODEC.record(domain, raw))
        return found[0]

    def put_node(self, level, children):
        packed = (name + size.to_bytes(8, "little") for name, size in children)
        return self.put(chunk.NODE, bytes([level]) + b"".join(packed))


@pytest.fixture
def shelf():
    return Shelf()


def as_list(root, size):
    return Reference("list", root.hex(), size)


@given(st.binary(max_size=400), st.integers(1, 60), st.sampled_from([CHUNKER, SMALL]))
def test_round_trip(data, times, chunker):
    wire, shelf = data * times, Shelf()
    draft = shelf.take(split(wire, chunker, CODEC))
    assert assemble(draft.reference, shelf.read) == wire
    assert draft.reference.size == len(wire)
    assert digests_of(draft.reference, shelf.read) == draft.digests == set(shelf)
    assert split(wire, Chunker(chunker.params), Codec(1)).reference == draft.reference


@pytest.mark.parametrize("size", [0, 1, 1024])
def test_short_values_are_one_leaf(shelf, size):
    wire = noise(size)
    draft = shelf.take(split(wire, CHUNKER, CODEC))
    assert draft.reference == Reference("leaf", chunk.digest_of(chunk.LEAF, wire).hex(), size)
    assert draft.digests == {bytes.fromhex(draft.reference.root)}
    assert assemble(draft.reference, shelf.read) == wire
    assert digests_of(draft.reference, mock.Mock(side_effect=AssertionError)) == draft.digests


def test_a_long_value_is_a_tree_of_levels(shelf):
    draft = shelf.take(split(noise(300_000), SMALL, CODEC))
    level, children = node.decode(shelf.read(bytes.fromhex(draft.reference.root), chunk.NODE))
    assert level >= 2
    assert sum(child.size for child in children) == 300_000
    domains = [chunk.decode(record).domain for _, record in draft.fresh]
    assert domains == sorted(domains)  # leaves, then nodes
    assert len({name for name, _ in draft.fresh}) == len(draft.fresh) == len(draft.digests)
    assert draft.fresh[-1][0].hex() == draft.reference.root
    assert digests_of(draft.reference, shelf.read) == draft.digests


def test_what_is_known_is_neither_compressed_nor_emitted():
    wire = text(300)
    first = split(wire, CHUNKER, CODEC)
    codec = mock.Mock(wraps=CODEC)
    again = split(wire, CHUNKER, codec, known=first.digests)
    assert (again.reference, again.digests, again.fresh) == (first.reference, first.digests, ())
    codec.encode.assert_not_called()
    half = frozenset(sorted(first.digests)[::2])
    rest = split(wire, CHUNKER, CODEC, known=half)
    assert {name for name, _ in rest.fresh} == first.digests - half
    short = split(b"short", CHUNKER, CODEC)
    assert split(b"short", CHUNKER, CODEC, known=short.digests).fresh == ()


def test_equal_chunks_are_stored_once():
    codec = mock.Mock(wraps=CODEC)
    draft = split(bytes(500_000), CHUNKER, codec)
    assert len(draft.fresh) < 10
    assert codec.encode.call_count == len(draft.fresh)


def test_appending_to_a_long_list_stores_few_new_chunks():
    items = messages(1200)
    wire = msgspec.json.encode(items)
    assert len(wire) > 400_000
    before = split(wire, CHUNKER, CODEC)
    longer = msgspec.json.encode([*items, {"role": "user", "content": "one more"}])
    after = split(longer, CHUNKER, CODEC, known=before.digests)
    assert len(after.fresh) <= 6  # the last leaf, perhaps its neighbour, one node on each level
    assert sum(len(record) for _, record in after.fresh) < 12_000


def test_a_change_in_the_middle_stores_few_new_chunks():
    items = messages(1200)
    before = split(msgspec.json.encode(items), CHUNKER, CODEC)
    items[600] = {"role": "user", "content": "changed"}
    after = split(msgspec.json.encode(items), CHUNKER, CODEC, known=before.digests)
    assert len(after.fresh) <= 8


def test_every_damaged_or_missing_chunk_is_noticed(shelf):
    wire = text(60)
    draft = shelf.take(split(wire, SMALL, CODEC))
    for name, record in draft.fresh:
        shelf[name] = record[:-1] + bytes([record[-1] ^ 1])
        with pytest.raises(BlobCorruptionError):
            assemble(draft.reference, shelf.read)
        del shelf[name]
        with pytest.raises(MissingBlobError):
            assemble(draft.reference, shelf.read)
        shelf[name] = record
    assert assemble(draft.reference, shelf.read) == wire


def test_a_reference_with_the_wrong_size_or_kind_is_noticed(shelf):
    for wire in (b"short", text(60)):
        right = shelf.take(split(wire, SMALL, CODEC)).reference
        other_kind = {"leaf": "list", "list": "leaf"}[right.kind]
        wrong = [
            Reference(right.kind, right.root, right.size - 1),
            Reference(right.kind, right.root, right.size + 1),
            Reference(other_kind, right.root, right.size),
        ]
        for reference in wrong:
            with pytest.raises(BlobCorruptionError):
                assemble(reference, shelf.read)


@pytest.mark.parametrize(
    "reference",
    [
        Reference("leaf", "zz" * 32, 1),
        Reference("leaf", "ab" * 31, 1),
        Reference("leaf", "AB" * 32, 1),
        Reference("leaf", "", 0),
        Reference("heap", "ab" * 32, 1),
        Reference("tree", "ab" * 32, payload.TREE_BYTES_MAX + 1),
        Reference("list", "ab" * 32, -1),
        Reference("leaf", "ab" * 32, chunk.RAW_BYTES_MAX + 1),
        Reference("list", "ab" * 32, payload.WIRE_BYTES_MAX + 1),
    ],
)
@pytest.mark.parametrize("act", [assemble, digests_of])
def test_references_that_cannot_be_are_refused_unread(act, reference):
    with pytest.raises(BlobCorruptionError):
        act(reference, mock.Mock(side_effect=AssertionError))


def test_a_leaf_where_a_node_must_be_is_noticed(shelf):
    leaf = shelf.put(chunk.LEAF, node.encode(1, [node.Child(digest(1), 5)]))
    with pytest.raises(BlobCorruptionError, match="domain"):
        assemble(as_list(leaf, 5), shelf.read)
    root = shelf.put_node(2, [(leaf, 5)])
    with pytest.raises(BlobCorruptionError, match="domain"):
        assemble(as_list(root, 5), shelf.read)


def test_a_node_where_a_leaf_must_be_is_noticed(shelf):
    leaf = shelf.put(chunk.LEAF, b"12345")
    inner = shelf.put_node(1, [(leaf, 5)])
    root = shelf.put_node(1, [(inner, 41)])
    with pytest.raises(BlobCorruptionError, match="domain"):
        assemble(as_list(root, 41), shelf.read)


def test_levels_must_fall_by_one(shelf):
    leaf = shelf.put(chunk.LEAF, b"12345")
    inner = shelf.put_node(1, [(leaf, 5)])
    for level in (1, 3, 8):
        root = shelf.put_node(level, [(inner, 5)])
        with pytest.raises(BlobCorruptionError):
            assemble(as_list(root, 5), shelf.read)
        if level > 1:
            with pytest.raises(BlobCorruptionError, match="level"):
                digests_of(as_list(root, 5), shelf.read)
    assert assemble(as_list(shelf.put_node(2, [(inner, 5)]), 5), shelf.read) == b"12345"


def test_a_node_that_holds_itself_comes_to_an_end():
    loop = node.encode(3, [node.Child(digest(1), 7)])
    for act in (assemble, digests_of):
        with pytest.raises(BlobCorruptionError, match="level"):
            act(as_list(digest(1), 7), lambda *_: loop)


@pytest.mark.parametrize("level", [0, 9, 255])
def test_levels_that_do_not_exist_are_refused(shelf, level):
    root = shelf.put_node(level, [(digest(1), 5)])
    with pytest.raises(BlobCorruptionError, match="level"):
        assemble(as_list(root, 5), shelf.read)


def test_sizes_must_add_up(shelf):
    leaf = shelf.put(chunk.LEAF, b"12345")
    for children, size in (
        ([(leaf, 5), (leaf, 5)], 9),
        ([(leaf, 4), (leaf, 6)], 10),
        ([(leaf, 5), (leaf, 1 << 62)], 10),
    ):
        with pytest.raises(BlobCorruptionError):
            assemble(as_list(shelf.put_node(1, children), size), shelf.read)


def test_sizes_are_checked_before_the_children_are_read(shelf):
    root = shelf.put_node(1, [(digest(1), 1 << 40), (digest(2), 1 << 40)])
    with pytest.raises(BlobCorruptionError, match="expected below it"):
        assemble(as_list(root, 1000), shelf.read)


def test_empty_children_are_refused(shelf):
    """Nodes over nothing could be nested without end and cost no size."""
    empty = shelf.put(chunk.LEAF, b"")
    leaf = shelf.put(chunk.LEAF, b"12345")
    root = shelf.put_node(1, [(leaf, 5), (empty, 0)])
    with pytest.raises(BlobCorruptionError, match="no bytes"):
        assemble(as_list(root, 5), shelf.read)


def test_no_root_commits_to_two_shapes(shelf):
    """A node's bytes as a value of their own have another root: the domains differ."""
    draft = shelf.take(split(noise(5000), SMALL, CODEC))
    raw = shelf.read(bytes.fromhex(draft.reference.root), chunk.NODE)
    assert split(raw, CHUNKER, CODEC).reference.root != draft.reference.root


def test_values_over_the_limit_are_refused(monkeypatch):
    monkeypatch.setattr(payload, "WIRE_BYTES_MAX", 10_000)
    split(noise(10_000), SMALL, CODEC)
    with pytest.raises(UnstorableError, match="10001"):
        split(noise(10_001), SMALL, CODEC)


def test_trees_over_the_limit_are_refused(monkeypatch):
    monkeypatch.setattr(node, "LEVEL_MAX", 1)
    with pytest.raises(UnstorableError, match="levels"):
        split(noise(100_000), SMALL, CODEC)


@given(
    children=st.lists(st.lists(st.integers(0, 8), max_size=4), min_size=9, max_size=9),
    stop=st.integers(0, 40),
)
def test_what_is_reached_is_closed_at_any_moment(children, stop):
    """A branch comes after all below it: who adds what comes may be stopped anywhere."""
    chunks: dict[bytes, bytes] = {}
    below: dict[bytes, set[bytes]] = {}
    made: list[Link] = [Link(branch.LEAF, bytes([200 + n]) * 32, 5) for n in range(3)]
    for number, chosen in enumerate(children):
        links = [made[at % len(made)] for at in chosen] or [made[0]]
        name = bytes([number + 1]) * 32
        chunks[name] = branch.encode(links)
        below[name] = {link.digest for link in links}
        made.append(Link(branch.BRANCH, name, 5))
    root = made[-1].digest
    reference = Reference("tree", root.hex(), 5)
    whole, waiting = {root}, [root]
    while waiting:
        for one in below.get(waiting.pop(), set()) - whole:
            whole.add(one)
            waiting.append(one)
    seen: set[bytes] = set()
    for number, digests in enumerate(payload.reach(reference, lambda name, _: chunks[name], seen)):
        seen.update(digests)
        assert all(below[name] <= seen for name in seen & set(below))
        if number == stop:
            break
    # Whoever was stopped begins again, and passes over what is whole.
    for digests in payload.reach(reference, lambda name, _: chunks[name], seen):
        seen.update(digests)
    assert seen == whole
    assert list(payload.reach(reference, lambda name, _: chunks[name], seen)) == []


def test_a_payload_of_one_chunk_reaches_that():
    reference = Reference("leaf", (bytes([9]) * 32).hex(), 5)
    assert [set(one) for one in payload.reach(reference, lambda *_: b"", set())] == [
        {bytes([9]) * 32}
    ]
