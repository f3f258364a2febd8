"""Roots and proofs beside the definitions of RFC 6962, written down as they stand there."""

from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import ArgumentError, ProofError
from ckptlog.formats import merkle
from tests.formats.vectors import check, every

SIZES = [*range(18), 63, 64, 65, 127, 128, 129, 300]


def leaf(data):
    return hashlib.sha256(b"\x00" + data).digest()


def tree_hash(entries):
    """MTH of RFC 6962, section 2.1."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return leaf(entries[0])
    k = 1
    while k * 2 < len(entries):
        k *= 2
    return hashlib.sha256(b"\x01" + tree_hash(entries[:k]) + tree_hash(entries[k:])).digest()


def entries(count):
    return [b"entry %d" % number for number in range(count)]


def perfect(level, index):
    return tree_hash(entries((index + 1) << level)[index << level :])


@pytest.mark.parametrize("size", SIZES)
def test_roots(size):
    assert merkle.root_hash(perfect, size) == tree_hash(entries(size))


def test_a_frontier_has_the_root_of_each_size():
    frontier = merkle.Frontier()
    for size in range(130):
        assert (frontier.size, frontier.root) == (size, tree_hash(entries(size)))
        frontier.add(leaf(b"entry %d" % size))


def test_the_published_example_of_the_rfcs_authors():
    inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"]
    inputs.append("606162636465666768696a6b6c6d6e6f")
    root = "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    frontier = merkle.Frontier()
    for one in inputs:
        frontier.add(leaf(bytes.fromhex(one)))
    assert frontier.root.hex() == root


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 64, 65, 100])
def test_every_event_of_a_tree_is_proved_and_nothing_else(size):
    root = tree_hash(entries(size))
    for index in range(size):
        path = merkle.inclusion_proof(perfect, index, size)
        own = leaf(entries(size)[index])
        merkle.verify_inclusion(own, index, size, path, root=root)
        wrong = [
            (leaf(b"other"), index, size, path, root),
            (own, index, size, path, leaf(b"other")),
            (own, index, size, [*path, root], root),
            (own, size, size, path, root),
            (own, -1, size, path, root),
        ]
        wrong += [(own, other, size, path, root) for other in range(size) if other != index][:20]
        wrong += [(own, index, size, path[:-1], root)] if path else []
        for *call, asked in wrong:
            with pytest.raises(ProofError):
                merkle.verify_inclusion(*call, root=asked)


@pytest.mark.parametrize("new", [1, 2, 3, 4, 7, 8, 9, 31, 64, 65])
def test_every_earlier_tree_is_proved_and_no_other(new):
    roots = {size: tree_hash(entries(size)) for size in range(new + 1)}
    for old in range(new + 1):
        path = merkle.consistency_proof(perfect, old, new)
        ends = {"old_root": roots[old], "new_root": roots[new]}
        merkle.verify_consistency(old, new, path, **ends)
        for change in ({"old_root": leaf(b"x")}, {"new_root": leaf(b"x")}):
            if old == 0 and "new_root" in change:
                continue  # whatever comes, it continues nothing
            with pytest.raises(ProofError):
                merkle.verify_consistency(old, new, path, **{**ends, **change})
        for at in range(len(path)):
            broken = [*path[:at], leaf(b"x"), *path[at + 1 :]]
            with pytest.raises(ProofError):
                merkle.verify_consistency(old, new, broken, **ends)
        for broken in ([*path, leaf(b"x")], path[:-1] if path else [leaf(b"x")]):
            with pytest.raises(ProofError):
                merkle.verify_consistency(old, new, broken, **ends)


def test_a_rewritten_past_cannot_be_proved():
    other = [*entries(20)[:7], b"changed", *entries(20)[8:]]

    def forged(level, index):
        return tree_hash(other[index << level : (index + 1) << level])

    path = merkle.consistency_proof(forged, 12, 20)
    with pytest.raises(ProofError, match="12"):
        merkle.verify_consistency(
            12, 20, path, old_root=tree_hash(entries(12)), new_root=tree_hash(other)
        )


@given(
    st.lists(st.binary(min_size=31, max_size=33), max_size=66),
    st.integers(-1, 2**64),
    st.integers(-1, 2**64),
)
def test_no_hostile_proof_does_more_than_be_refused(path, first, second):
    root, other = leaf(b"a"), leaf(b"b")
    with pytest.raises(ProofError):
        merkle.verify_inclusion(root, first, second, path, root=other)
    if first not in {0, second}:
        with pytest.raises(ProofError):
            merkle.verify_consistency(first, second, path, old_root=root, new_root=other)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3), (0, 2**63)])
def test_what_is_not_there_is_not_proved(index, size):
    with pytest.raises(ArgumentError):
        merkle.inclusion_proof(perfect, index, size)


@pytest.mark.parametrize(("old", "new"), [(4, 3), (-1, 3)])
def test_no_later_tree_is_the_beginning_of_an_earlier_one(old, new):
    with pytest.raises(ArgumentError):
        merkle.consistency_proof(perfect, old, new)


def decoded(data):
    """Read a vector: first, second (8 bytes each), two hashes, a path; verify it."""
    kind, first, second = struct.unpack_from("<BQQ", data)
    hashes = [data[at : at + 32] for at in range(17, len(data), 32)]
    one, two, *path = hashes
    if kind == 0:
        merkle.verify_inclusion(one, first, second, path, root=two)
    else:
        merkle.verify_consistency(first, second, path, old_root=one, new_root=two)
    return {"kind": kind, "first": first, "second": second, "hashes": hashes}


@every("merkle")
def test_vectors(vector):
    check(vector, decoded, None)
