"""Trees and differences from a hostile store: refused by name, in bounded memory (specs/payload.md)."""

from __future__ import annotations

import tracemalloc

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptlog.blobs import payload
from ckptlog.blobs.chunker import Chunker
from ckptlog.blobs.codec import Codec
from ckptlog.blobs.difference import DEPTH_READ_MAX
from ckptlog.blobs.payload import assemble, digests_of, plant
from ckptlog.errors import BlobCorruptionError, CheckpointError, MissingBlobError, TooLargeError
from ckptlog.formats import branch, chunk
from ckptlog.formats.branch import BRANCH, BYTES, LEAF, Link
from ckptlog.formats.store import Chunker as Parameters
from ckptlog.model.event import Reference
from tests.blobs.sample import House, digest, noise
from tests.formats.mutation import flips
from tools.vectors.tree_vectors import RECIPES, made

CODEC = Codec()
CHUNKER = Chunker(Parameters())


class Shelf(dict):
    """Raw chunks by digest, checked as a store checks them."""

    def read(self, name, domain):
        if name not in self:
            raise MissingBlobError(name.hex())
        own, raw = self[name]
        if own != domain:
            raise BlobCorruptionError(f"domain {own}")
        return raw

    def put(self, domain, raw):
        name = chunk.digest_of(domain, raw)
        self[name] = domain, raw
        return name

    def put_branch(self, *parts):
        return self.put(chunk.BRANCH, branch.encode(parts))


@pytest.fixture
def shelf():
    return Shelf()


def as_tree(root, size):
    return Reference("tree", root.hex(), size)


def refuses(shelf, reference, match=""):
    for act in (assemble, digests_of):
        with pytest.raises(BlobCorruptionError, match=match):
            act(reference, shelf.read)


def planted(recipe):
    shelf = Shelf()
    text = made(recipe)

    def encode(name, one):
        shelf[name] = one.domain, one.raw
        return one.raw

    return shelf, plant(text, CHUNKER, encode).reference, text


@pytest.mark.parametrize("name", ["just-over", "state", "one-long-item"])
def test_every_flipped_bit_of_a_branch_changes_its_name_or_is_refused(name):
    """A flip that stays a branch has another digest; here its bytes are believed nevertheless."""
    shelf, reference, text = planted(RECIPES[name])
    root = bytes.fromhex(reference.root)
    domain, raw = shelf[root]
    for flip in flips(raw[:60] + raw[-60:] if len(raw) > 300 else raw):
        shelf[root] = domain, flip
        try:
            found = assemble(reference, shelf.read)
        except (BlobCorruptionError, MissingBlobError):
            continue
        assert found != text
        assert len(found) == len(text)


@pytest.mark.parametrize("name", ["messages", "state", "bytes", "arrays"])
def test_every_missing_or_other_chunk_is_noticed(name):
    shelf, reference, text = planted(RECIPES[name])
    for digest_, (domain, raw) in list(shelf.items()):
        del shelf[digest_]
        with pytest.raises(MissingBlobError):
            assemble(reference, shelf.read)
        for other in ((domain, raw + b"x"), (domain, raw[:-1]), (2 - domain, raw)):
            shelf[digest_] = other
            with pytest.raises(BlobCorruptionError):
                assemble(reference, shelf.read)
        shelf[digest_] = domain, raw
    assert assemble(reference, shelf.read) == text


@given(
    parts=st.lists(
        st.binary(min_size=1, max_size=9)
        | st.builds(
            Link, st.integers(1, 3), st.integers(0, 3).map(digest), st.integers(1, 40), st.just(0)
        ),
        min_size=1,
        max_size=6,
    ),
    size=st.integers(0, 200),
)
def test_arbitrary_branches_end_in_our_errors(parts, size):
    shelf = Shelf()
    for number in range(4):
        shelf[digest(number)] = chunk.LEAF if number % 2 else chunk.BRANCH, b"\x0c[1]"
    try:
        root = shelf.put_branch(*parts)
        assert len(assemble(as_tree(root, size), shelf.read)) == size
    except CheckpointError as error:
        assert isinstance(error, BlobCorruptionError | MissingBlobError)


def test_sizes_must_add_up(shelf):
    leaf = shelf.put(chunk.LEAF, b"12345")
    inner = shelf.put_branch(b"[", Link(LEAF, leaf, 5), b"]")
    for parts, size in (
        ([Link(BRANCH, inner, 7)], 8),
        ([Link(BRANCH, inner, 8)], 8),
        ([Link(BRANCH, inner, 6)], 6),
        ([b"x", Link(LEAF, leaf, 5)], 5),
        ([Link(BRANCH, inner, 1 << 62)], 7),
    ):
        with pytest.raises(BlobCorruptionError):
            assemble(as_tree(shelf.put_branch(*parts), size), shelf.read)
    good = shelf.put_branch(Link(BRANCH, inner, 7), b"x")
    assert assemble(as_tree(good, 8), shelf.read) == b"[12345]x"


@pytest.mark.parametrize("kind", [LEAF, BRANCH, BYTES])
def test_domains_are_those_of_the_link(shelf, kind):
    leaf = shelf.put(chunk.LEAF, b"12345")
    inner = shelf.put_branch(b"12345")
    node = shelf.put(chunk.NODE, b"12345")
    wrong = {LEAF: [inner, node], BRANCH: [leaf, node], BYTES: [leaf, node]}
    for name in wrong[kind]:
        root = shelf.put_branch(b"x", Link(kind, name, 5))
        size = 9 if kind == BYTES else 6
        with pytest.raises(BlobCorruptionError, match="domain"):
            assemble(as_tree(root, size), shelf.read)
    refuses(shelf, as_tree(leaf, 5), "domain")
    with pytest.raises(BlobCorruptionError, match="domain"):
        assemble(Reference("leaf", inner.hex(), 5), shelf.read)


def test_base64_does_not_lie_in_raw_bytes(shelf):
    raw = shelf.put_branch(b"raw")
    inner = shelf.put_branch(b"more", Link(BYTES, raw, 3))
    root = shelf.put_branch(b'"', Link(BYTES, inner, 8), b'"')
    refuses(shelf, as_tree(root, 14), "base64 text among raw bytes")


def test_a_branch_that_holds_itself_comes_to_an_end():
    loop = branch.encode([Link(BRANCH, digest(1), 7)])
    reads = []

    def read(*_):
        reads.append(1)
        if len(reads) > 10_000:  # no store can do this: a digest does not hold itself
            raise BlobCorruptionError("enough")
        return loop

    tracemalloc.start()
    with pytest.raises(BlobCorruptionError):
        assemble(as_tree(digest(1), 7), read)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
    reads.clear()
    assert digests_of(as_tree(digest(1), 7), read) == {digest(1)}


def test_a_bomb_of_links_is_refused_by_its_size(shelf):
    """Forty chunks that spell out a terabyte."""
    size, name, kind = 4096, shelf.put(chunk.LEAF, bytes(4096)), LEAF
    for _ in range(28):
        name, size, kind = shelf.put_branch(*[Link(kind, name, size)] * 2), size * 2, BRANCH
    tracemalloc.start()
    with pytest.raises(TooLargeError, match="by parts"):
        assemble(as_tree(name, size), shelf.read)
    # It is a payload that can be walked: forty chunks.
    assert len(digests_of(as_tree(name, size), shelf.read)) == 29
    refuses(shelf, as_tree(name, payload.TREE_BYTES_MAX + 1), "cannot be named")
    refuses(shelf, as_tree(name, payload.WIRE_BYTES_MAX), "expected below it")
    outer = shelf.put_branch(b"{", Link(BYTES, name, size))
    refuses(shelf, as_tree(outer, payload.WIRE_BYTES_MAX), "expected below it")
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_what_a_small_bomb_allocates_is_its_size(shelf, monkeypatch):
    monkeypatch.setattr(payload, "WIRE_BYTES_MAX", 4_000_000)
    size, name, kind = 1000, shelf.put(chunk.LEAF, bytes(1000)), LEAF
    while size * 2 <= 4_000_000:
        name, size, kind = shelf.put_branch(*[Link(kind, name, size)] * 2), size * 2, BRANCH
    tracemalloc.start()
    assert len(assemble(as_tree(name, size), shelf.read)) == size
    assert tracemalloc.get_traced_memory()[1] < size * 3
    tracemalloc.stop()
    assert len(digests_of(as_tree(name, size), shelf.read)) == len(shelf)


def test_links_that_lead_on_and_on_need_no_recursion(shelf):
    name, kind = shelf.put(chunk.LEAF, b"12345"), LEAF
    for _ in range(20_000):
        name, kind = shelf.put_branch(Link(kind, name, 5)), BRANCH
    assert assemble(as_tree(name, 5), shelf.read) == b"12345"
    assert len(digests_of(as_tree(name, 5), shelf.read)) == 20_001


# --- differences ----------------------------------------------------------------------------------


def squeezed(raw, base):
    data = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return zstandard.ZstdCompressor(
        dict_data=data, write_content_size=True, write_dict_id=False
    ).compress(raw)


def difference(raw, base_digest, base, *, name=None, length=None):
    name = name or chunk.digest_of(chunk.LEAF, raw)
    length = len(raw) if length is None else length
    return name, chunk.encode_delta(chunk.LEAF, name, length, base_digest, squeezed(raw, base))


class Draft:
    def __init__(self, *fresh):
        self.fresh = fresh


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


BASE = noise(2000)
NEXT = BASE[:1500] + b"changed" + BASE[1500:]


def test_a_difference_is_read(house):
    name, record = CODEC.record(chunk.LEAF, BASE)
    other = difference(NEXT, name, BASE)
    house.keep(Draft((name, record), other))
    assert house.blobs.raw(other[0], chunk.LEAF) == NEXT
    assert house.blobs.check(*other) == NEXT
    (same, whole) = house.blobs.whole([(name, record), other])
    assert same == (name, record)
    assert chunk.base_in(whole[1]) == b""
    assert CODEC.raw(whole[1], other[0]) == NEXT


def test_a_base_need_not_be_stored_yet_to_be_left_out(house):
    name, record = CODEC.record(chunk.LEAF, BASE)
    digest_next, whole = house.blobs.whole([(name, record), difference(NEXT, name, BASE)])[1]
    assert CODEC.raw(whole, digest_next) == NEXT


def test_a_difference_without_its_base_is_missing(house):
    name, record = difference(NEXT, digest(7), BASE)
    house.keep(Draft((name, record)))
    with pytest.raises(MissingBlobError, match=digest(7).hex()):
        house.blobs.raw(name, chunk.LEAF)
    with pytest.raises(BlobCorruptionError, match="none may be"):
        CODEC.raw(record, name)


@pytest.mark.parametrize("base", [b"", b"1234567", b"12345678", noise(2000, b"other"), NEXT])
def test_a_difference_from_something_else_is_damaged(house, base):
    name, record = CODEC.record(chunk.LEAF, base)
    other = difference(NEXT[:1900], name, BASE)
    house.keep(Draft((name, record), other))
    with pytest.raises(BlobCorruptionError, match=other[0].hex()):
        house.blobs.raw(other[0], chunk.LEAF)


def test_every_flipped_bit_of_a_difference_is_noticed():
    name, record = difference(NEXT, digest(7), BASE)
    for flip in flips(record):
        try:
            found = CODEC.raw(flip, name, base_of=lambda _: BASE)
        except CheckpointError:
            continue
        assert found == NEXT  # the base that it names is what the caller makes of it


@settings(deadline=None)
@given(stored=st.binary(max_size=80), length=st.integers(0, 10_000), base=st.binary(max_size=40))
def test_arbitrary_differences_end_in_our_errors(stored, length, base):
    for frame in (stored, b"\x28\xb5\x2f\xfd" + stored):
        record = chunk.encode_delta(chunk.LEAF, digest(1), length, digest(2), frame)
        with pytest.raises(CheckpointError):
            CODEC.raw(record, digest(1), base_of=lambda _: base)


@pytest.mark.parametrize("claim", [0, 100, chunk.RAW_BYTES_MAX])
def test_a_bomb_in_a_difference_is_refused(claim):
    name, record = difference(bytes(2_000_000), digest(7), BASE, length=claim)
    tracemalloc.start()
    with pytest.raises(BlobCorruptionError, match="claims"):
        CODEC.raw(record, name, base_of=lambda _: BASE)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("length", [1, 2, 3, 50])
def test_bases_in_a_circle_come_to_an_end(house, length):
    """Only who breaks BLAKE3, or writes digests that are none, can make one."""
    names = [digest(number) for number in range(length)]
    records = [
        difference(NEXT, names[(number + 1) % length], BASE, name=name)
        for number, name in enumerate(names)
    ]
    house.keep(Draft(*records))
    tracemalloc.start()
    with pytest.raises(BlobCorruptionError, match="differences away from a whole one"):
        house.blobs.raw(names[0], chunk.LEAF)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("more", [0, 1])
def test_chains_that_are_too_long_are_refused(house, more):
    raws = [BASE + b"%d" % number for number in range(DEPTH_READ_MAX + 1 + more)]
    name, record = CODEC.record(chunk.LEAF, raws[0])
    fresh = [(name, record)]
    for older, raw in zip(raws, raws[1:], strict=False):
        fresh.append(difference(raw, fresh[-1][0], older))
    house.keep(Draft(*fresh))
    if more:
        with pytest.raises(BlobCorruptionError, match="more than"):
            house.blobs.raw(fresh[-1][0], chunk.LEAF)
    else:
        assert house.blobs.raw(fresh[-1][0], chunk.LEAF) == raws[-1]


def test_damage_on_the_way_names_the_chunk_that_is_damaged(house):
    name, record = CODEC.record(chunk.LEAF, BASE)
    middle = difference(NEXT, name, BASE)
    broken = middle[1][:-3] + bytes(3)
    last = difference(NEXT + b"x", middle[0], NEXT)
    house.keep(Draft((name, record), (middle[0], broken), last))
    with pytest.raises(BlobCorruptionError, match=middle[0].hex()):
        house.blobs.raw(last[0], chunk.LEAF)
